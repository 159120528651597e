package delivery

import "testing"

// The forms of wildcard: an empty first request, an explicit "*", names beside it.
func TestWildcard(t *testing.T) {
	for what, names := range map[string][]string{"legacy": nil, "explicit": {"*"}, "mixed": {"*", "a"}} {
		t.Run(what, func(t *testing.T) {
			both(t, func(t *testing.T, p *peer) {
				p.table = table(shop()...)
				p.connect()
				p.ask(Clusters, names...)
				p.wild[Clusters] = true
				p.want(p.settle(), "clusters[a=1 b=1]")
				p.update(table(with(shop(), cluster("c", "1"))...))
				p.settle()
				p.wantHolds(Clusters, "a=1", "b=1", "c=1")
			})
		})
	}
}

// The first wildcard request of a client without versions is always answered:
// Envoy waits for it.
func TestEmptyWildcard(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.connect()
		p.ask(Clusters)
		p.want(p.settle(), "clusters[]")
		p.ask(Listeners)
		p.want(p.settle(), "listeners[]")
	})
}

// A client that names its clusters is sent those.
func TestNamedClusters(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.connect()
		p.ask(Clusters, "a")
		p.want(p.settle(), "clusters[a=1]")
		p.update(table(with(shop(), cluster("b", "2"))...))
		p.silent()
	})
}
