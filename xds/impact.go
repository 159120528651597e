package xds

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds/delivery"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

// Impact says which resources of which groups differ between two Specs, as the
// newest supported Envoy is sent them. Endpoints of registries are not looked at:
// they do not depend on documents.
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
		for k := range was {
			if _, ok := is[k]; !ok {
				out = append(out, model.Impact{Type: k.typ.Short(), Name: k.name, Change: "removed", Group: g})
			}
		}
		for k, v := range is {
			switch old, ok := was[k]; {
			case !ok:
				out = append(out, model.Impact{Type: k.typ.Short(), Name: k.name, Change: "added", Group: g})
			case old != v:
				out = append(out, model.Impact{Type: k.typ.Short(), Name: k.name, Change: "changed", Group: g})
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
}

// outline is the version of everything that a group's documents give.
func outline(s *spec.Spec, group string) map[outlineKey]string {
	out := map[outlineKey]string{}
	add := func(typ delivery.Type, name string, m proto.Message, err error) {
		if err != nil {
			return
		}
		if body, err := (proto.MarshalOptions{Deterministic: true}).Marshal(m); err == nil {
			out[outlineKey{typ, name}] = delivery.VersionOf(body)
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
		c, err := translate.Cluster(name, u, svc, translate.MaxBand)
		add(delivery.Clusters, name, c, err)
		if svc != nil && !u.Hostnames() {
			m, _ := translate.Assignment(name, u, svc)
			add(delivery.Assignments, m.ClusterName, m, nil)
		}
	}
	g, ok := s.Group(group)
	if !ok {
		return out
	}
	for _, name := range g.Listeners {
		if l, ok := s.Listener(name); ok {
			if l.GRPC {
				for _, host := range translate.Targets(l, s) {
					add(delivery.Listeners, host, translate.APIListener(host, name), nil)
				}
				t, err := translate.RouteTable(name, l, s, translate.GRPC)
				add(delivery.RouteTables, name, t, err)
				continue
			}
			m, err := translate.Listener(name, l)
			add(delivery.Listeners, name, m, err)
			if !l.RoutesHTTP() {
				continue
			}
			t, err := translate.RouteTable(name, l, s, translate.MaxBand)
			add(delivery.RouteTables, name, t, err)
		}
	}
	return out
}
