package delivery

import (
	"strings"
	"testing"
)

// A route table that newly names a cluster goes after the answer that covers the
// cluster.
func TestMakeBeforeBreak(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		p.update(table(with(shop(), cluster("c", "1"), assignment("c@1", "1"), routes("edge", "2", "a", "c"))...))
		out := p.pump()
		if len(out) != 1 || out[0].Type != Clusters {
			t.Fatalf("sent %s before the cluster was acknowledged", say(out))
		}
		p.more(Assignments, "c@1")
		for _, r := range p.pump() {
			p.want([]Response{r}, "assignments[c@1=1]")
			p.ack(r)
		}
		p.silent()
		// the answer to the clusters means: all warm
		p.ack(out[0])
		p.want(p.settle(), "routes[edge=2]")
	})
}

// The answer never comes: after WarmWait the table goes, and it is told.
func TestWarmWait(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		p.update(table(with(shop(), cluster("c", "1"), assignment("c@1", "1"), routes("edge", "2", "a", "c"))...))
		p.pump()
		p.now = p.now.Add(defaultWarmWait - 1)
		p.silent()
		_, again := p.s.Pump(p.now)
		if want := p.now.Add(1); !again.Equal(want) {
			t.Errorf("asks to be called again at %s, want %s", again, want)
		}
		p.now = p.now.Add(1)
		p.want(p.settle(), "routes[edge=2]")
		last := p.events[len(p.events)-1]
		if !strings.Contains(last.Reason, "cluster c") {
			t.Errorf("told %+v", last)
		}
	})
}

// A table that names a cluster which is not served stays at its last form; a
// proxy without one gets it at once.
func TestRouteToUnserved(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		to := table(with(shop(), routes("edge", "2", "a", "nobody"))...)
		to.Unknown["nobody"] = true
		p.update(to)
		p.now = p.now.Add(time100)
		p.silent()
		if w := p.s.Deliveries()[3].Waiting; len(w) != 1 || !strings.Contains(w[0].Why, "nobody") {
			t.Errorf("waiting %+v", w)
		}
		p.holds = map[Type]map[string]string{}
		fresh := newPeer(t, p.delta)
		fresh.table = to
		fresh.start()
		fresh.wantHolds(RouteTables, "edge=2")
	})
}

// A cluster leaves after the answer to the last table that named it.
func TestRemovalLast(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		gone := without(without(with(shop(), routes("edge", "2", "a")), Clusters, "b"), Assignments, "b@1")
		p.update(table(gone...))
		r := p.only()
		p.want([]Response{r}, "routes[edge=2]")
		p.silent()
		p.ack(r)
		p.want(p.settle(), map[bool]string{true: "clusters[-b] assignments[-b@1]", false: "clusters[a=1]"}[p.delta])
		p.wantHolds(Clusters, "a=1")
	})
}

// A refused table still holds its clusters.
func TestRemovalAfterRefusedRoutes(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		gone := without(without(with(shop(), routes("edge", "2", "a")), Clusters, "b"), Assignments, "b@1")
		p.update(table(gone...))
		p.nack(p.only(), "Only a single wildcard domain is permitted in route edge")
		p.settle()
		p.now = p.now.Add(time100)
		p.settle()
		p.wantHolds(Clusters, "a=1", "b=1")
		p.wantHolds(RouteTables, "edge=1")
	})
}

// Clusters that only a removed listener reached stay for the drain time.
func TestDrain(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		p.update(table())
		p.settle()
		p.wantHolds(Listeners)
		p.wantHolds(Clusters, "a=1", "b=1")
		p.now = p.now.Add(defaultDrainTime - 1)
		p.settle()
		p.wantHolds(Clusters, "a=1", "b=1")
		p.now = p.now.Add(1)
		p.settle()
		p.wantHolds(Clusters)
	})
}

// A listener whose address another one takes is removed in the very response that
// adds the other.
func TestListenerTakesAddress(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(listener("old", "1", "127.0.0.1:80"))
		p.connect()
		p.ask(Listeners)
		p.settle()
		p.update(table(listener("new", "1", "127.0.0.1:80")))
		p.want(p.pump(), map[bool]string{true: "listeners[new=1 -old]", false: "listeners[new=1]"}[p.delta])
	})
}
