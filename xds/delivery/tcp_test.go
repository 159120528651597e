package delivery

import (
	"strings"
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
		var waiting []string
		for _, d := range p.s.Deliveries() {
			for _, w := range d.Waiting {
				waiting = append(waiting, d.Type+" "+w.Name+" "+w.Why)
			}
		}
		if len(waiting) != 1 || !strings.HasPrefix(waiting[0], "listeners db cluster nobody") {
			t.Errorf("waiting %q", waiting)
		}
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
