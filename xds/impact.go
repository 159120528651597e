package xds

import (
	"cmp"
	"slices"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds/delivery"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

// Impact says which resources of which groups differ between two Specs, as the
// newest supported Envoy is sent them, and what that does to what runs. Endpoints of
// registries are not looked at: they do not depend on documents, and what is selected
// of them is part of the cluster.
func Impact(before, after *spec.Spec) []model.Impact {
	groups := map[string]bool{}
	for _, s := range []*spec.Spec{before, after} {
		for _, d := range s.Documents(spec.KindGroup) {
			groups[d.Name] = true
		}
	}
	var out []model.Impact
	for g := range groups {
		was, is := outline(before, g), outline(after, g)
		_, stays := after.Group(g)
		touched := func(k outlineKey, change string) {
			i := model.Impact{Type: k.typ.Short(), Name: k.name, Change: change, Effect: k.effect(change), Group: g}
			switch {
			case !stays: // its proxies are refused from now on, and keep what they have
				i.Effect = model.EffectNone
			case change == "changed" && is[k].nobody && !was[k].nobody:
				i.Effect = model.EffectEmpties
			}
			out = append(out, i)
		}
		for k := range was {
			if _, ok := is[k]; !ok {
				touched(k, "removed")
			}
		}
		for k, v := range is {
			switch old, ok := was[k]; {
			case !ok:
				touched(k, "added")
			case old != v:
				touched(k, "changed")
			}
		}
	}
	slices.SortFunc(out, func(a, b model.Impact) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
	})
	return out
}

type outlineKey struct {
	typ  delivery.Type
	name string
	grpc bool // for clients that are no proxies
}

// outlined is the version of a resource, and whether it is an assignment of nobody.
type outlined struct {
	version string
	nobody  bool
}

// effect is what Envoy does (TestRealImpact). What is removed is used no more by
// then, but for a listener.
func (k outlineKey) effect(change string) model.Effect {
	switch {
	case k.typ == delivery.Listeners && change == "removed":
		return model.EffectCloses
	case change != "changed", k.typ == delivery.Secrets: // a new connection uses it
		return model.EffectNone
	case k.typ == delivery.Listeners && !k.grpc:
		return model.EffectDrains
	case k.typ == delivery.Clusters:
		return model.EffectRewarms
	case k.typ == delivery.Assignments:
		return model.EffectEndpoints
	}
	return model.EffectRoutes
}

// outline is the version of everything that a group's documents give.
func outline(s *spec.Spec, group string) map[outlineKey]outlined {
	out := map[outlineKey]outlined{}
	add := func(k outlineKey, m proto.Message, err error) {
		if err != nil {
			return
		}
		if body, err := (proto.MarshalOptions{Deterministic: true}).Marshal(m); err == nil {
			a, ok := m.(*endpointv3.ClusterLoadAssignment)
			out[k] = outlined{delivery.VersionOf(body), ok && len(a.Endpoints) == 0}
		}
	}
	secrets := func(all []spec.Secret) {
		for _, x := range all {
			out[outlineKey{typ: delivery.Secrets, name: x.Name}] = outlined{version: x.Cert + " " + x.Key}
		}
	}
	local := map[model.ServiceKey]*model.Service{}
	for _, svc := range s.LocalServices() {
		local[svc.Key] = &svc
	}
	for _, name := range s.Upstreams(group) {
		u, ok := s.Upstream(name)
		if !ok {
			continue
		}
		svc := local[u.Key(name)]
		secrets(u.Secrets(name))
		c, err := translate.Cluster(name, u, svc, translate.MaxBand)
		add(outlineKey{typ: delivery.Clusters, name: name}, c, err)
		if svc != nil && !u.Hostnames() {
			m, _ := translate.Assignment(name, u, svc)
			add(outlineKey{typ: delivery.Assignments, name: m.ClusterName}, m, nil)
		}
	}
	g, ok := s.Group(group)
	if !ok {
		return out
	}
	for _, name := range g.Listeners {
		l, ok := s.Listener(name)
		if !ok {
			continue
		}
		band := translate.MaxBand
		if l.GRPC {
			band = translate.GRPC
			for _, host := range translate.Targets(l, s) {
				add(outlineKey{delivery.Listeners, host, true}, translate.APIListener(host, name), nil)
			}
		} else {
			secrets(l.Secrets(name))
			m, err := translate.Listener(name, l)
			add(outlineKey{typ: delivery.Listeners, name: name}, m, err)
		}
		if l.RoutesHTTP() {
			t, err := translate.RouteTable(name, l, s, band)
			add(outlineKey{delivery.RouteTables, name, l.GRPC}, t, err)
		}
	}
	return out
}
