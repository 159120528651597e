package xds_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/xds/delivery"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

func canary(value uint32) discovery.Present {
	return discovery.Present{Endpoints: []model.Endpoint{
		{ID: "n/me", Address: "127.1.2.3:9", Health: model.Healthy, Weight: value, Origin: model.Origin{Source: "consul"}},
	}}
}

// Every Envoy holds the canary of each source, whatever its group leads to; nobody waits
// for a source that does not answer; a flip is one assignment, and nothing else.
func TestCanary(t *testing.T) {
	w := newWorld(t, newStore(t, fleet(2)+"---\nkind: Group\nname: idle\nspec: {listeners: []}\n"), "consul", "local")
	w.registry.say("u0", present(2))
	w.registry.say("u1", present(1))
	waitReady(t, w, "edge")
	envoys := []delivery.Class{
		{Group: "edge", Band: int(translate.MaxBand), Telemetry: model.TelemetryOff},
		{Group: "edge", Band: int(translate.MinBand), Telemetry: model.TelemetryEndpoints},
		{Group: "idle", Band: int(translate.MaxBand), Telemetry: model.TelemetryOff},
	}
	client := delivery.Class{Group: "edge", Band: int(translate.GRPC)}
	for _, c := range append(envoys, client) {
		w.publisher.Join(c)
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s; served: %v", what, slices.Sorted(maps.Keys(w.publisher.Served())))
			}
		}
	}
	const cluster = "wellspring-canary-consul"
	assignment, _, of := w.publisher.Canary("consul")
	if v := of.CanaryValues("me"); len(v) > 0 {
		t.Errorf("before its source answered it has %v", v)
	}
	for _, c := range envoys {
		if table := w.engine.Table(c); len(table.Unknown) > 0 || table.Get(delivery.Clusters, cluster) == nil {
			t.Errorf("%v: before its source answered %v are unknown, the cluster of the canary is %v", c, table.Unknown, table.Get(delivery.Clusters, cluster))
		}
	}

	w.registry.say(model.CanaryService, canary(7))
	_ = w.canary.Flip(t.Context(), model.Canary{ID: "me", Value: 3, Lasts: time.Minute})
	values := func(source string) []uint32 {
		_, _, of := w.publisher.Canary(source)
		return of.CanaryValues("me")
	}
	until("not published", func() bool {
		return slices.Equal(values("consul"), []uint32{7}) && slices.Equal(values("local"), []uint32{3})
	})
	_, version, _ := w.publisher.Canary("consul")
	for _, c := range envoys {
		table := w.engine.Table(c)
		if table.Get(delivery.Clusters, cluster) == nil || table.Get(delivery.Clusters, "wellspring-canary-local") == nil {
			t.Errorf("%v has no cluster of a canary", c)
		}
		r := table.Get(delivery.Assignments, assignment)
		if r == nil || r.Version != version {
			t.Errorf("%v has assignment %v, want version %s", c, r, version)
		}
	}
	for name := range w.publisher.Served() {
		if strings.HasPrefix(name, fmt.Sprint(client)) && strings.Contains(name, "canary") {
			t.Errorf("gRPC's own clients are served %s", name)
		}
	}
	if p := w.publisher.Problems(); len(p) > 0 {
		t.Errorf("problems: %v", p)
	}
	if h := w.publisher.Held(); len(h) > 0 {
		t.Errorf("held: %v", h)
	}

	before := w.publisher.Served()
	w.registry.say(model.CanaryService, canary(8))
	until("not flipped", func() bool { return slices.Equal(values("consul"), []uint32{8}) })
	after := w.publisher.Served()
	for name, v := range before {
		if flipped := strings.HasSuffix(name, delivery.Assignments.Short()+assignment); flipped == (after[name] == v) {
			t.Errorf("%s: version %s became %s", name, v, after[name])
		}
	}
	if len(before) != len(after) {
		t.Errorf("%d resources became %d", len(before), len(after))
	}

	// another group's change is not theirs, and a canary is nothing that a start waits for
	table := w.engine.Table(envoys[0])
	for _, name := range []string{"new", "newer"} {
		w.store.change(t, "kind: Listener\nname: "+name+"\nspec: {address: '127.0.0.1:10009', tcp: {to: [{upstream: u0}]}}\n---\nkind: Group\nname: idle\nspec: {listeners: ["+name+"]}\n")
		until("the listener is not there", func() bool { return w.engine.Table(envoys[2]).Get(delivery.Listeners, name) != nil })
	}
	if w.engine.Table(envoys[0]) != table {
		t.Error("a class that nothing changed in was published anew")
	}
	for k := range w.store.Answered() {
		if k.Name == model.CanaryService {
			t.Errorf("%s is waited for at the next start", k)
		}
	}
}

// What the server says of streams is the version that each acknowledged last.
func TestAckedByStreams(t *testing.T) {
	w := newWorld(t, newStore(t, fleet(1)), "consul")
	w.registry.say("u0", present(1))
	w.registry.say(model.CanaryService, canary(1))
	waitReady(t, w, "edge")
	assignment, _, _ := w.publisher.Canary("consul")
	acked := func() map[string]string {
		out := map[string]string{}
		w.server.Acked(assignment, func(proxy, version string) { out[proxy] = version })
		return out
	}
	if got := acked(); len(got) > 0 {
		t.Errorf("without streams: %v", got)
	}
	c := w.connect("e1", "edge")
	c.wants("u0 wellspring-canary-consul")
	if got := acked(); len(got) > 0 {
		t.Errorf("who does not subscribe counts: %v", got)
	}
	c.subscribe(delivery.Assignments, assignment)
	c.wants(assignment)
	is := func(want map[string]string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !maps.Equal(acked(), want); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("acknowledged: %v, want %v", acked(), want)
			}
		}
	}
	_, version, _ := w.publisher.Canary("consul")
	is(map[string]string{"e1": version})

	w.registry.say(model.CanaryService, canary(2))
	r := c.next()
	var la endpointv3.ClusterLoadAssignment
	if err := r.Resources[0].Resource.UnmarshalTo(&la); err != nil || la.Endpoints[0].LbEndpoints[0].LoadBalancingWeight.GetValue() != 2 {
		t.Errorf("flipped: %v (%v)", &la, err)
	}
	_, newer, _ := w.publisher.Canary("consul")
	if newer == version {
		t.Error("a flip is the same version")
	}
	is(map[string]string{"e1": newer})
	if w.store.read > 0 {
		t.Errorf("the history was read %d times for a canary", w.store.read)
	}
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(delivery.Assignments), ResourceNamesUnsubscribe: []string{assignment}})
	is(map[string]string{})
}
