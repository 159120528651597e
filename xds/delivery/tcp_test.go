package delivery

import (
	"testing"
	"time"
)

// passes is a listener that passes connections on to clusters.
func passes(name, version, address string, clusters ...string) *Resource {
	r := listener(name, version, address)
	r.Clusters = clusters
	return r
}

func db() []*Resource {
	return []*Resource{cluster("a", "1"), assignment("a@1", "1"), passes("db", "1", "127.0.0.1:5432", "a")}
}

// A listener that newly names a cluster goes after the answer that covers the
// cluster; the cluster that it no longer names leaves after its own answer, when
// the connections that it passed on had their time.
func TestListenerNamesClusters(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(db()...)
		p.start()
		p.wantHolds(Listeners, "db=1")
		// 1. it is to lead to b
		p.update(table(cluster("b", "1"), assignment("b@1", "1"), passes("db", "2", "127.0.0.1:5432", "b")))
		out := p.pump()
		p.want(out, map[bool]string{true: "clusters[b=1]", false: "clusters[a=1 b=1]"}[p.delta])
		p.more(Assignments, "b@1")
		p.ack(p.only())
		p.silent()
		p.ack(out[0])
		r := p.only()
		p.want([]Response{r}, "listeners[db=2]")
		// 2. until it took that, and drained, a stays
		p.now = p.now.Add(time100)
		p.silent()
		p.ack(r)
		p.silent()
		p.wantHolds(Clusters, "a=1", "b=1")
		p.now = p.now.Add(defaultDrainTime)
		p.want(p.settle(), map[bool]string{true: "clusters[-a] assignments[-a@1]", false: "clusters[b=1]"}[p.delta])
	})
}

// One that names a cluster which is not served stays at its last form, and says so.
func TestListenerToUnserved(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(db()...)
		p.start()
		to := table(with(db(), passes("db", "2", "127.0.0.1:5432", "nobody"))...)
		to.Unknown["nobody"] = true
		p.update(to)
		p.now = p.now.Add(time100)
		p.silent()
		p.wantWaiting("listeners db cluster nobody")
		p.wantHolds(Listeners, "db=1")
		p.wantHolds(Clusters, "a=1")
	})
}

// A listener that is gone drains: what it led to stays for that long.
func TestListenerGoneDrains(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(db()...)
		p.start()
		p.update(table())
		p.settle()
		p.wantHolds(Listeners)
		p.now = p.now.Add(defaultDrainTime - time.Second)
		p.settle()
		p.wantHolds(Clusters, "a=1")
		p.now = p.now.Add(time.Second)
		p.settle()
		p.wantHolds(Clusters)
	})
}

// A stream that breaks while connections drain takes nothing from them: what they use
// stays for as long as it would have, and where the control plane remembers nobody,
// for as long as any listener may drain.
func TestReconnectWhileDraining(t *testing.T) {
	drained := func(t *testing.T, p *peer, left time.Duration) {
		t.Helper()
		p.start()
		p.settle()
		p.wantHolds(Clusters, "a=1")
		p.now = p.now.Add(left - time.Second)
		p.settle()
		p.wantHolds(Clusters, "a=1")
		p.now = p.now.Add(time.Second)
		p.settle()
		p.wantHolds(Clusters)
	}
	gone := func(t *testing.T, p *peer) {
		t.Helper()
		p.table = table(db()...)
		p.start()
		p.update(table())
		p.settle()
		p.wantHolds(Listeners)
		p.now = p.now.Add(time100)
	}
	t.Run("remembered", func(t *testing.T) {
		both(t, func(t *testing.T, p *peer) {
			gone(t, p)
			drained(t, p, defaultDrainTime-time100)
		})
	})
	t.Run("after a restart", func(t *testing.T) {
		p := newPeer(t, true) // a set that is not known is left alone in any case
		gone(t, p)
		p.s.Close(p.now)
		p.s, p.engine = nil, NewEngine()
		drained(t, p, defaultDrainTime)
	})
}

// A listener that waits for a cluster and is taken back before it was sent waits no
// more.
func TestListenerTakenBack(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(db()...)
		p.start()
		p.update(table(with(db(), cluster("b", "1"), assignment("b@1", "1"), passes("more", "1", "127.0.0.1:5433", "b"))...))
		p.pump()
		p.wantWaiting("listeners more")
		p.update(table(db()...))
		p.settle()
		p.wantWaiting()
	})
}
