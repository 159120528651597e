package delivery

import "testing"

// An assignment that is asked for is always answered, even if it was just sent.
func TestResubscribe(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		p.drop(Assignments, "a@1")
		p.silent()
		// a change of what is not subscribed is not sent
		p.update(table(with(shop(), assignment("a@1", "2"))...))
		p.silent()
		p.more(Assignments, "a@1")
		p.want(p.settle(), "assignments[a@1=2]")
		if p.delta { // a state-of-the-world request cannot ask again without leaving first
			p.more(Assignments, "a@1")
			p.want(p.settle(), "assignments[a@1=2]")
		}
	})
}

// A request that repeats the newest, settled nonce without a new name asks for
// nothing that was not changed since.
func TestRepeatedRequest(t *testing.T) {
	p := newPeer(t, false)
	p.table = table(shop()...)
	p.start()
	p.more(Assignments)
	p.silent()
}

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

// A name that is not served and not unknown: removed in delta, silence in state
// of the world. An assignment whose cluster is published is never removed, and
// none is before the first cluster request: what the proxy holds is not known.
func TestNotServed(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.table.Unknown["soon"] = true
		p.connect()
		p.ask(Assignments, "gone@1")
		p.silent()
		p.ask(Clusters)
		p.want(p.settle(), map[bool]string{true: "clusters[a=1 b=1] assignments[-gone@1]", false: "clusters[a=1 b=1]"}[p.delta])
		p.more(Assignments, "a@older", "soon@1")
		p.silent()
		p.ask(RouteTables, "nobody")
		p.want(p.settle(), map[bool]string{true: "routes[-nobody]", false: ""}[p.delta])
	})
}

// Unknown is never told as a deletion.
func TestUnknown(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.holds[Clusters] = map[string]string{"a": "1", "b": "1", "soon": "1"}
		p.table = table(shop()...)
		p.table.Unknown["soon"] = true
		p.connect()
		p.ask(Clusters)
		p.now = p.now.Add(time100)
		p.silent()
		// once it is known, everybody has everything
		p.update(table(with(shop(), cluster("soon", "2"))...))
		p.settle()
		p.wantHolds(Clusters, "a=1", "b=1", "soon=2")
	})
}
