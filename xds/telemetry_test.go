package xds_test

import (
	"testing"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/xds"
	"github.com/wellspring-xds/wellspring/xds/delivery"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

const telemetryDocuments = `
kind: Upstream
name: web
spec: {endpoints: [{address: "127.0.0.1:10001"}]}
---
kind: Route
name: web
spec: {hosts: ["*"], rules: [{to: [{upstream: web}]}]}
---
kind: Listener
name: edge
spec: {address: "127.0.0.1:10000", routes: [web]}
---
kind: Group
name: edge
spec: {listeners: [edge], telemetry: endpoints}
`

// A resource is made once for all that are asked for the same of it: clusters for those
// who report on endpoints and those who do not, listeners for those who report and those
// who do not, routes for everybody.
func TestTelemetryClasses(t *testing.T) {
	w := newWorld(t, newStore(t, telemetryDocuments))
	waitReady(t, w, "edge")
	at := func(level model.Telemetry, typ delivery.Type, name string) *delivery.Resource {
		c := delivery.Class{Group: "edge", Band: int(translate.MaxBand), Telemetry: level}
		w.publisher.Join(c)
		return w.engine.Table(c).Get(typ, name)
	}
	for _, x := range []struct {
		typ     delivery.Type
		name    string
		same    [2]model.Telemetry
		differs [2]model.Telemetry
	}{
		{delivery.Clusters, "web", [2]model.Telemetry{model.TelemetryOff, model.TelemetryUpstreams}, [2]model.Telemetry{model.TelemetryUpstreams, model.TelemetryEndpoints}},
		{delivery.Listeners, "edge", [2]model.Telemetry{model.TelemetryFailures, model.TelemetryEndpoints}, [2]model.Telemetry{model.TelemetryOff, model.TelemetryFailures}},
		{delivery.RouteTables, "edge", [2]model.Telemetry{model.TelemetryOff, model.TelemetryEndpoints}, [2]model.Telemetry{}},
	} {
		if a, b := at(x.same[0], x.typ, x.name), at(x.same[1], x.typ, x.name); a == nil || a != b {
			t.Errorf("%s are made twice for %v", x.typ.Short(), x.same)
		}
		if x.differs[0] == "" {
			continue
		}
		if a, b := at(x.differs[0], x.typ, x.name), at(x.differs[1], x.typ, x.name); a.Version == b.Version {
			t.Errorf("%s are the same for %v", x.typ.Short(), x.differs)
		}
	}
}

// A proxy is asked for what its group says, as far as its bootstrap carries it.
func TestAsked(t *testing.T) {
	w := newWorld(t, newStore(t, telemetryDocuments))
	for carries, want := range map[model.Telemetry]model.Telemetry{"": "off", "failures": "failures", "endpoints": "endpoints", "nonsense": "off"} {
		if _, got, err := w.publisher.GroupOf(model.Proxy{ID: "e", Cluster: "edge", Telemetry: carries}); err != nil || got != want {
			t.Errorf("one that carries %q is asked for %s, want %s (%v)", carries, got, want, err)
		}
	}
}

// What a group asks for changes its listeners and, to and from endpoints, its clusters.
func TestTelemetryImpact(t *testing.T) {
	s := newStore(t, telemetryDocuments)
	before := s.Spec()
	s.change(t, "kind: Group\nname: edge\nspec: {listeners: [edge], telemetry: upstreams}\n")
	middle := s.Spec()
	s.change(t, "kind: Group\nname: edge\nspec: {listeners: [edge], telemetry: \"off\"}\n")
	after := s.Spec()
	said := func(all []model.Impact) (out string) {
		for _, x := range all {
			out += x.Type + " " + string(x.Effect) + "; "
		}
		return out
	}
	if got := said(xds.Impact(before, middle)); got != "clusters rewarms; " {
		t.Errorf("endpoints to upstreams: %s", got)
	}
	if got := said(xds.Impact(middle, after)); got != "listeners drains; " {
		t.Errorf("upstreams to off: %s", got)
	}
}
