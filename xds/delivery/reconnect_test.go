package delivery

import "testing"

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
