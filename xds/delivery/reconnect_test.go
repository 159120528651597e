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

// The stream broke while a cluster warmed: the new one starts with assignments,
// then listeners and routes; clusters are asked for only when all is warm.
func TestReconnectWhileWarming(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		// 1. c is new and warms; the stream breaks before its assignment came
		p.update(table(with(shop(), cluster("c", "1"), assignment("c@1", "1"), routes("edge", "2", "a", "b", "c"))...))
		r := p.pump()
		p.take(r[0])
		delete(p.holds[Clusters], "c") // not acknowledged
		p.connect()
		// 2. every assignment that it asks for is answered, listed or not
		p.ask(Assignments, "a@1", "b@1", "c@1")
		p.want(p.settle(), "assignments[a@1=1 b@1=1 c@1=1]")
		p.ask(Listeners)
		p.silent()
		// 3. the routes wait for the cluster request that shows what it has
		p.ask(RouteTables, "edge")
		p.silent()
		p.ask(Clusters)
		all := p.settle()
		if say(all[len(all)-1:]) != "routes[edge=2]" {
			t.Fatalf("the routes were not last: %s", say(all))
		}
		p.wantHolds(Clusters, "a=1", "b=1", "c=1")
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

// A refusal of content that changed meanwhile, or while the proxy was away, does
// not stay.
func TestParkedGoesWithItsContent(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		// 1. the content changes while the refusal is under way
		p.update(table(with(shop(), cluster("a", "2"))...))
		out := p.pump() // with the assignment that follows it
		p.update(table(with(shop(), cluster("a", "3"))...))
		p.nack(out[0], "Error adding/updating cluster(s) a: no")
		if parked := p.memory.Parked(); len(parked) != 0 {
			t.Errorf("parked though it is not sent any more: %v", parked)
		}
		p.ack(out[1])
		p.settle()
		p.wantHolds(Clusters, "a=3", "b=1")
		// 2. it changes while the proxy is away
		p.update(table(with(shop(), cluster("a", "4"))...))
		out = p.pump()
		p.nack(out[0], "Error adding/updating cluster(s) a: no")
		p.ack(out[1])
		if parked := p.memory.Parked(); len(parked) != 1 {
			t.Errorf("parked: %v", parked)
		}
		p.settle()
		p.table = table(with(shop(), cluster("a", "5"))...)
		p.start()
		if parked := p.memory.Parked(); len(parked) != 0 {
			t.Errorf("still parked: %v", parked)
		}
	})
}
