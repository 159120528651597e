package xds

import (
	"bytes"
	"cmp"
	"slices"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

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
		touched := func(k outlineKey, change string, effect model.Effect) {
			if !stays { // its proxies are refused from now on, and keep what they have
				effect = model.EffectNone
			}
			out = append(out, model.Impact{Type: k.typ.Short(), Name: k.name, Change: change, Effect: effect, Group: g})
		}
		for k := range was {
			if _, ok := is[k]; !ok {
				touched(k, "removed", k.effect("removed"))
			}
		}
		for k, now := range is {
			switch old, ok := was[k]; {
			case !ok:
				touched(k, "added", k.effect("added"))
			case old.same(now):
			case now.nobody() && !old.nobody():
				touched(k, "changed", model.EffectEmpties)
			default:
				touched(k, "changed", k.effect("changed"))
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

// outlined is a resource as far as a comparison needs it: the documents that it is
// made of, and how it is made, where those differ.
type outlined struct {
	of   []*spec.Document
	make func() (proto.Message, error)
}

func (o outlined) same(other outlined) bool {
	return slices.Equal(o.of, other.of) || bytes.Equal(o.body(), other.body())
}

// body is the resource's bytes, nil where it cannot be made.
func (o outlined) body() []byte {
	m, err := o.make()
	if err != nil {
		return nil
	}
	body, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m) // of what was made just now
	return body
}

// nobody tells whether it is an assignment without endpoints.
func (o outlined) nobody() bool {
	m, err := o.make()
	a, ok := m.(*endpointv3.ClusterLoadAssignment)
	return err == nil && ok && len(a.Endpoints) == 0
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

// outline is everything that a group's documents give.
func outline(s *spec.Spec, group string) map[outlineKey]outlined {
	out := map[outlineKey]outlined{}
	secrets := func(d *spec.Document) {
		for _, x := range d.Secrets() {
			out[outlineKey{typ: delivery.Secrets, name: x.Name}] = outlined{[]*spec.Document{d}, func() (proto.Message, error) {
				return wrapperspb.String(x.Cert + " " + x.Key), nil // its files are read elsewhere
			}}
		}
	}
	g, grouped := s.Group(group)
	form := translate.Form{Band: translate.MaxBand}
	var asks []*spec.Document // what says what is reported
	if grouped {
		form.Telemetry, asks = model.TelemetryOf(g.Telemetry), append(asks, s.Document(spec.KindGroup, group))
	}
	var upstreams []*spec.Document
	for _, name := range s.Upstreams(group) {
		u, ok := s.Upstream(name)
		if !ok {
			continue
		}
		d := s.Document(spec.KindUpstream, name)
		upstreams = append(upstreams, d)
		secrets(d)
		declares := d
		if key := u.Key(name); key.Source == spec.SourceLocal && s.Document(spec.KindService, key.Name) != nil {
			declares = s.Document(spec.KindService, key.Name)
		}
		of := []*spec.Document{d, declares}
		out[outlineKey{typ: delivery.Clusters, name: name}] = outlined{slices.Concat(of, asks), func() (proto.Message, error) {
			return translate.Cluster(name, u, declares.LocalService(), form)
		}}
		if declares.DeclaresService() && !u.Hostnames() {
			out[outlineKey{typ: delivery.Assignments, name: translate.AssignmentName(name, u)}] = outlined{of, func() (proto.Message, error) {
				m, _ := translate.Assignment(name, u, declares.LocalService())
				return m, nil
			}}
		}
	}
	if !grouped {
		return out
	}
	for _, name := range g.Listeners {
		l, ok := s.Listener(name)
		if !ok {
			continue
		}
		d := s.Document(spec.KindListener, name)
		of := []*spec.Document{d}
		band := translate.MaxBand
		if l.GRPC {
			band = translate.GRPC
			for _, host := range translate.Targets(l, s) {
				out[outlineKey{delivery.Listeners, host, true}] = outlined{of, func() (proto.Message, error) {
					return translate.APIListener(host, name), nil
				}}
			}
		} else {
			secrets(d)
			out[outlineKey{typ: delivery.Listeners, name: name}] = outlined{slices.Concat(of, asks), func() (proto.Message, error) { return translate.Listener(name, l, form) }}
		}
		if l.RoutesHTTP() {
			from := slices.Concat(of, upstreams)
			for _, route := range l.Routes {
				from = append(from, s.Document(spec.KindRoute, route))
			}
			out[outlineKey{delivery.RouteTables, name, l.GRPC}] = outlined{from, func() (proto.Message, error) { return translate.RouteTable(name, l, s, band) }}
		}
	}
	return out
}
