package delivery

import (
	"strings"
	"testing"
)

// A new stream: assignments are answered whatever version the client has;
// clusters, listeners and routes are skipped by version.
func TestReconnect(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		p.want(p.start(), "assignments[a@1=1 b@1=1]")
	})
}

// The same after the control plane was restarted and remembers nobody.
func TestReconnectWithoutMemory(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		p.s.Close(p.now)
		p.s, p.engine = nil, NewEngine()
		p.want(p.start(), "assignments[a@1=1 b@1=1]")
	})
}

// Deletions that happened meanwhile are told.
func TestReconnectAfterDeletion(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(with(shop(), cluster("c", "1"), assignment("c@1", "1"))...)
		p.start()
		p.table = table(shop()...)
		p.start()
		p.settle()
		p.wantHolds(Clusters, "a=1", "b=1")
	})
}

// What was on its way when a stream broke may have been taken: the version that a
// state-of-the-world client presents then is recognised, so that a cluster which
// it got and which its routes name is not taken away before the routes change.
func TestReconnectWithUnheardSet(t *testing.T) {
	p := newPeer(t, false)
	p.table = table(shop()...)
	p.start()
	p.update(table(with(shop(), cluster("c", "1"), assignment("c@1", "1"))...))
	r := p.only()
	p.take(r) // and the stream breaks before it could answer
	p.table = table(cluster("c", "1"), assignment("c@1", "1"), listener("edge", "1", "127.0.0.1:80"), routes("edge", "2", "c"))
	p.connect()
	p.ask(Assignments, "a@1", "b@1", "c@1")
	p.settle()
	p.ask(Listeners)
	p.ask(RouteTables, "edge")
	p.settle()
	p.ask(Clusters)
	p.want(p.settle(), "routes[edge=2] clusters[c=1]")
}

// A removal that was taken, and whose acknowledgement was lost, is not remembered
// as held: the versions that the client presents later are still recognised.
func TestReconnectAfterUnheardRemoval(t *testing.T) {
	p := newPeer(t, false)
	p.table = table(with(shop(), cluster("c", "1"), assignment("c@1", "1"))...)
	p.start()
	p.update(table(shop()...))
	p.take(p.only()) // c goes, and the stream breaks before the answer
	p.start()
	p.update(table(with(shop(), cluster("d", "1"), assignment("d@1", "1"))...))
	p.settle() // a, b, d
	// away again; b goes from routes and clusters alike
	p.table = table(cluster("a", "1"), assignment("a@1", "1"), cluster("d", "1"), assignment("d@1", "1"), listener("edge", "1", "127.0.0.1:80"), routes("edge", "2", "a"))
	p.connect()
	p.ask(Assignments, "a@1", "b@1", "d@1")
	p.ask(Listeners)
	p.ask(RouteTables, "edge")
	p.ask(Clusters)
	out := say(p.settle())
	if routed, gone := strings.Index(out, "routes[edge=2]"), strings.Index(out, "clusters[a=1 d=1]"); routed < 0 || gone < routed {
		t.Errorf("b went before the routes that name it: %s", out)
	}
}

// A client may be back before its broken stream is noticed, and a stream that never
// spoke of clusters says nothing about them.
func TestReconnectBeforeTheBreakIsNoticed(t *testing.T) {
	p := newPeer(t, false)
	p.table = table(shop()...)
	p.start()
	p.update(table(with(shop(), cluster("c", "1"), assignment("c@1", "1"))...))
	p.take(p.only()) // taken, not answered
	old := p.s
	p.s = nil // nobody noticed yet
	p.connect()
	p.ask(Assignments, "a@1", "b@1", "c@1") // and this one breaks before it asks for clusters
	p.settle()
	p.table = table(cluster("c", "1"), assignment("c@1", "1"), listener("edge", "1", "127.0.0.1:80"), routes("edge", "2", "c"))
	p.connect()
	p.ask(Assignments, "a@1", "b@1", "c@1")
	p.settle()
	p.ask(Listeners)
	p.ask(RouteTables, "edge")
	p.settle()
	p.ask(Clusters)
	p.want(p.settle(), "routes[edge=2] clusters[c=1]")
	old.Close(p.now)
}
