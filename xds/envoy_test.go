package xds_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds/translate"
	"github.com/wellspring-xds/wellspring/xds/xdstest"
)

// both runs a test twice, on a clock of its own: with an Envoy that speaks delta,
// and with one that speaks state of the world.
func both(t *testing.T, f func(t *testing.T, sotw bool)) {
	for name, sotw := range map[string]bool{"delta": false, "sotw": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, sotw) })
		})
	}
}

// envoy is a simulated Envoy on a stream of its own.
type envoy struct {
	*xdstest.Envoy
	w    *world
	stop func() error // ends the stream and says how it ended
}

// envoy makes an Envoy of group edge and connects it.
func (w *world) envoy(cfg xdstest.Config) *envoy {
	w.t.Helper()
	if cfg.Cluster == "" {
		cfg.Cluster = "edge"
	}
	e := &envoy{Envoy: xdstest.New(cfg), w: w}
	e.connect()
	return e
}

func (e *envoy) connect() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { err = e.Run(ctx, e.w.conn) })
	e.stop = func() error {
		cancel()
		wg.Wait()
		return err
	}
	e.w.t.Cleanup(func() { _ = e.stop() })
}

// until waits until the Envoy holds something.
func (e *envoy) until(what string, ok func(xdstest.View) error) {
	e.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := e.Until(ctx, ok); err != nil {
		e.w.t.Fatalf("%s: %v\n%s", what, err, sayFrames(e.Frames()))
	}
}

// holds waits until the clusters are just these, each with so many endpoints:
// "u0=1 u1=10".
func (e *envoy) holds(want string) {
	e.w.t.Helper()
	e.until("holds "+want, func(v xdstest.View) error {
		var got []string
		for name, eps := range v.Endpoints {
			got = append(got, fmt.Sprintf("%s=%d", name, len(eps)))
		}
		slices.Sort(got)
		if s := strings.Join(got, " "); s != want || len(v.Warming) > 0 {
			return fmt.Errorf("holds %q, warming %v", s, v.Warming)
		}
		return nil
	})
}

// quiet waits until nothing was sent or received for five seconds, and returns the
// frames from an index on.
func (e *envoy) quiet(from int) []xdstest.Frame {
	for n := -1; ; time.Sleep(5 * time.Second) {
		if frames := e.Frames(); len(frames) == n {
			return frames[from:]
		}
		n = len(e.Frames())
	}
}

// fine wants no violation.
func (e *envoy) fine() {
	e.w.t.Helper()
	for _, v := range e.Violations() {
		e.w.t.Errorf("%s\n%s", v, sayFrames(e.Frames()))
	}
}

// sayFrames prints frames, one a line: "→" is what the Envoy sent.
func sayFrames(frames []xdstest.Frame) string {
	var out []string
	for _, f := range frames {
		dir := "← "
		if f.Sent {
			dir = "→ "
		}
		line := dir + short(f.Type)
		if f.Sent && f.Nonce != "" {
			line += " ack"
			if f.Refused != "" {
				line += " refused (" + f.Refused + ")"
			}
		}
		for _, n := range f.Names {
			line += " " + generationless(n)
		}
		for _, n := range f.Removed {
			line += " -" + generationless(n)
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func short(typ string) string {
	return map[string]string{xdstest.Clusters: "clusters", xdstest.Assignments: "assignments", xdstest.Listeners: "listeners", xdstest.RouteTables: "routes"}[typ]
}

// generationless leaves out the hash of an assignment's name.
func generationless(name string) string {
	before, _, found := strings.Cut(name, "@")
	if found {
		return before + "@"
	}
	return name
}

// sent is what was received of frames, as sayFrames says it.
func received(frames []xdstest.Frame) string {
	return sayFrames(slices.DeleteFunc(slices.Clone(frames), func(f xdstest.Frame) bool { return f.Sent }))
}

func ready(t *testing.T, documents string, services ...string) *world {
	t.Helper()
	w := newWorld(t, newStore(t, documents))
	for _, s := range services {
		w.registry.say(s, present(1))
	}
	waitReady(t, w, "edge")
	return w
}

// A fresh Envoy is sent everything once, in the order in which it asks, and holds
// it; nothing is said twice.
func TestFresh(t *testing.T) {
	both(t, func(t *testing.T, sotw bool) {
		w := ready(t, fleet(2), "u0", "u1")
		e := w.envoy(xdstest.Config{ID: "e", SotW: sotw})
		e.holds("u0=1 u1=1")
		e.until("the route table", func(v xdstest.View) error {
			if got := fmt.Sprint(v.Listeners, v.Routes); got != "[edge] map[edge:[u0 u1]]" {
				return fmt.Errorf("holds %s", got)
			}
			return nil
		})
		want := "← clusters u0 u1\n← assignments u0@ u1@\n← listeners edge\n← routes edge"
		if got := received(e.quiet(0)); got != want {
			t.Errorf("received\n%s\nwant\n%s", got, want)
		}
		e.fine()
		streams := w.server.Streams(t.Context())
		if len(streams) != 1 || streams[0].Kind != map[bool]string{false: "delta", true: "sotw"}[sotw] {
			t.Fatalf("%+v", streams)
		}
		for _, d := range streams[0].Delivery {
			if d.Open != 0 || d.Version == "" || d.Version != d.AckedVersion || len(d.Waiting)+len(d.Parked) != 0 {
				t.Errorf("%+v is not settled", d)
			}
		}
	})
}

// Documents change what they touch: a new upstream comes before the route that
// names it, and goes after it; a change that is inseparable from its endpoints
// brings a new assignment.
func TestChanges(t *testing.T) {
	both(t, func(t *testing.T, sotw bool) {
		store := newStore(t, fleet(2))
		w := newWorld(t, store)
		for _, s := range []string{"u0", "u1", "u2"} {
			w.registry.say(s, present(1))
		}
		waitReady(t, w, "edge")
		e := w.envoy(xdstest.Config{ID: "e", SotW: sotw})
		e.holds("u0=1 u1=1")
		at := len(e.quiet(0))

		w.registry.say("u1", present(2)) // a service: its assignment alone
		e.holds("u0=1 u1=2")
		if got := received(e.quiet(at)); got != "← assignments u1@" {
			t.Errorf("a changed service:\n%s", got)
		}
		at = len(e.Frames())

		store.apply(t, fleet(3)) // a new upstream and a route to it
		e.holds("u0=1 u1=2 u2=1")
		clusters := map[bool]string{false: "← clusters u2", true: "← clusters u0 u1 u2"}[sotw]
		if got := received(e.quiet(at)); got != clusters+"\n← assignments u2@\n← routes edge" {
			t.Errorf("a new upstream:\n%s", got)
		}
		at = len(e.Frames())

		store.apply(t, "kind: Upstream\nname: u1\nspec: {service: {source: consul}, connectTimeout: 3s}\n") // the same generation
		e.quiet(0)
		clusters = map[bool]string{false: "← clusters u1", true: "← clusters u0 u1 u2"}[sotw]
		if got := received(e.quiet(at)); got != clusters+"\n← assignments u1@" {
			t.Errorf("a changed cluster:\n%s", got)
		}
		at = len(e.Frames())

		store.apply(t, "kind: Upstream\nname: u1\nspec: {service: {source: consul}, protocol: http2}\n") // another generation
		e.quiet(0)
		got := sayFrames(e.quiet(at))
		if !strings.Contains(got, "← assignments u1@") {
			t.Errorf("another generation:\n%s", got)
		}
		e.holds("u0=1 u1=2 u2=1")

		store.apply(t, fleet(2)) // the route goes first
		w.registry.say("u2", present(3))
		e.until("two routes", func(v xdstest.View) error {
			if n := len(v.Routes["edge"]); n != 2 {
				return fmt.Errorf("%d clusters in routes", n)
			}
			return nil
		})
		e.fine()
	})
}

// A new stream finds what the Envoy holds: every assignment is answered, what
// changed or went meanwhile is told, and nothing else.
func TestComesBack(t *testing.T) {
	both(t, func(t *testing.T, sotw bool) {
		store := newStore(t, fleet(3))
		w := newWorld(t, store)
		for _, s := range []string{"u0", "u1", "u2"} {
			w.registry.say(s, present(1))
		}
		waitReady(t, w, "edge")
		e := w.envoy(xdstest.Config{ID: "e", SotW: sotw})
		e.holds("u0=1 u1=1 u2=1")
		e.quiet(0)
		if err := e.stop(); err != nil {
			t.Fatal(err)
		}
		at := len(e.Frames())
		e.connect()
		e.until("assignments", func(xdstest.View) error {
			if !strings.Contains(received(e.Frames()[at:]), "assignments u0@ u1@ u2@") {
				return fmt.Errorf("not answered")
			}
			return nil
		})
		if got := received(e.quiet(at)); got != "← assignments u0@ u1@ u2@" {
			t.Errorf("nothing changed, and it was sent\n%s", got)
		}
		// while it is away an upstream changes, one goes, and one gets endpoints
		if err := e.stop(); err != nil {
			t.Fatal(err)
		}
		store.apply(t, fleet(2)+"---\nkind: Upstream\nname: u1\nspec: {service: {source: consul}, connectTimeout: 3s}\n")
		w.registry.say("u0", present(4))
		e.connect()
		e.until("the changes", func(v xdstest.View) error {
			if len(v.Endpoints["u0"]) != 4 || len(v.Routes["edge"]) != 2 {
				return fmt.Errorf("%+v", v)
			}
			return nil
		})
		e.quiet(0)
		e.fine()
	})
}

// A refused cluster is parked for that proxy alone, everything else is served, and
// new content is tried.
func TestRefused(t *testing.T) {
	both(t, func(t *testing.T, sotw bool) {
		store := newStore(t, fleet(2))
		w := newWorld(t, store)
		for _, s := range []string{"u0", "u1", "bad"} {
			w.registry.say(s, present(1))
		}
		waitReady(t, w, "edge")
		e := w.envoy(xdstest.Config{ID: "e", SotW: sotw, Refuse: func(m proto.Message) string {
			if c, ok := m.(*clusterv3.Cluster); ok && c.Name == "bad" && c.ConnectTimeout.AsDuration() == time.Second {
				return "unknown load balancer"
			}
			return ""
		}})
		other := w.envoy(xdstest.Config{ID: "other", SotW: sotw})
		e.holds("u0=1 u1=1")
		e.quiet(0) // with a route table: one that has none takes the first that comes
		store.apply(t, strings.Replace(fleet(2), "rules: [", "rules: [{match: {path: {prefix: /bad}}, to: [{upstream: bad}]}, ", 1)+"---\nkind: Upstream\nname: bad\nspec: {service: {source: consul}}\n")
		other.holds("bad=1 u0=1 u1=1")
		e.quiet(0)
		w.registry.say("u0", present(2))
		e.holds("u0=2 u1=1")
		parked := 0
		for _, st := range w.server.Streams(t.Context()) {
			for _, d := range st.Delivery {
				for _, p := range d.Parked {
					parked++
					if st.ID != "e" || p.Name != "bad" || p.Document != "Upstream/bad" || !strings.Contains(p.Message, "unknown load balancer") {
						t.Errorf("%s: %+v", st.ID, p)
					}
				}
			}
		}
		if parked != 1 {
			t.Errorf("%d are parked", parked)
		}
		store.apply(t, "kind: Upstream\nname: bad\nspec: {service: {source: consul}, connectTimeout: 2s}\n")
		e.holds("bad=1 u0=2 u1=1")
		e.until("the route", func(v xdstest.View) error {
			if !slices.Contains(v.Routes["edge"], "bad") {
				return fmt.Errorf("%v", v.Routes)
			}
			return nil
		})
		e.fine()
		other.fine()
	})
}

// An upstream moves between services and endpoints of its own, whose documents come
// and go with the change: nobody is ever sent an assignment without endpoints.
func TestNeverEmptyOnTheWay(t *testing.T) {
	both(t, func(t *testing.T, sotw bool) {
		web := func(form string) string { return "kind: Upstream\nname: u0\nspec: {" + form + "}\n" }
		store := newStore(t, fleet(1)+"---\n"+web("endpoints: [{address: '10.1.0.1:80'}]"))
		w := newWorld(t, store)
		w.registry.say("consul-one", present(2))
		waitReady(t, w, "edge")
		green := web("service: {source: consul, name: shop, tags: [green]}")
		sp := newStore(t, fleet(1)+"---\n"+green).Spec()
		u, _ := sp.Upstream("u0")
		early := translate.AssignmentName("u0", u) // may be declared before anybody is registered for it
		empty := 0
		e := w.envoy(xdstest.Config{ID: "e", SotW: sotw, Refuse: func(m proto.Message) string {
			if a, ok := m.(*endpointv3.ClusterLoadAssignment); ok && len(a.Endpoints) == 0 && a.ClusterName != early {
				empty++
			}
			return ""
		}})
		e.holds("u0=1")
		service := "kind: Service\nname: two\nspec: {endpoints: [{address: '10.2.0.1:80'}, {address: '10.2.0.2:80'}]}\n"
		for i, step := range []struct {
			apply, remove, holds string
		}{
			{web("service: {source: local, name: two}") + "---\n" + service, "", "u0=2"},
			{web("endpoints: [{address: '10.1.0.2:80'}]"), "two", "u0=1"},
			{web("service: {source: local, name: two}, protocol: http2") + "---\n" + service, "", "u0=2"},
			{web("service: {source: consul, name: consul-one}"), "two", "u0=2"},
			{web("endpoints: [{address: '10.1.0.2:80'}]"), "", "u0=1"},
			{web("service: {source: consul, name: nobody-knows}"), "", "u0=1"}, // held at the form before
			{web("endpoints: [{address: '10.1.0.4:80'}, {address: '10.1.0.5:80'}]"), "", "u0=2"},
		} {
			if step.remove != "" {
				store.drop(spec.Ref{Kind: spec.KindService, Name: step.remove}) // in the same revision
			}
			store.apply(t, step.apply)
			e.holds(step.holds)
			if i%2 == 1 {
				e.quiet(0)
			}
		}
		// blue and green are told apart by a tag, and blue goes as green comes
		tagged := func(tag string) discovery.Present {
			ps := present(3)
			for i := range ps.Endpoints {
				ps.Endpoints[i].Tags = []string{tag}
			}
			return ps
		}
		w.registry.say("shop", tagged("blue"))
		store.apply(t, web("service: {source: consul, name: shop, tags: [blue]}"))
		e.holds("u0=3")
		store.apply(t, green)
		w.registry.say("shop", tagged("green"))
		e.holds("u0=3")
		// a change while nobody is connected: the older form is not emptied for who comes back
		_ = e.stop()
		store.apply(t, web("service: {source: local, name: two}")+"---\n"+service)
		store.drop(spec.Ref{Kind: spec.KindService, Name: "two"})
		store.apply(t, web("endpoints: [{address: '10.1.0.2:80'}]"))
		e.connect()
		e.holds("u0=1")
		if empty > 0 {
			t.Errorf("%d assignments were empty\n%s", empty, sayFrames(e.Frames()))
		}
		e.fine()
	})
}
