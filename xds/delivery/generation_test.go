package delivery

import "testing"

// After a cluster response the assignment of each changed cluster follows
// unasked: Envoy asks for nothing when a cluster is updated.
func TestAssignmentFollowsCluster(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		p.update(table(with(shop(), cluster("a", "2"))...))
		p.want(p.pump(), map[bool]string{true: "clusters[a=2] assignments[a@1=1]", false: "clusters[a=2 b=1] assignments[a@1=1]"}[p.delta])
	})
}

// A new generation has a name of its own; the older one is kept up to date for as
// long as it is subscribed to, and a return to it is followed by it unasked.
func TestGenerations(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		// 1. a moves to generation 2; the table still has generation 1
		second := with(shop(), generation("a", "2", "2"), assignment("a@2", "1"))
		p.update(table(second...))
		r := p.only()
		p.more(Assignments, "a@2")
		p.want(p.pump(), "assignments[a@2=1]")
		p.ack(Response{Type: Assignments, Nonce: p.nonce[Assignments]})
		// 2. an endpoint of the older one goes while the newer one warms
		p.update(table(with(second, assignment("a@1", "2"))...))
		p.want(p.settle(), "assignments[a@1=2]")
		// 3. warm: the client leaves the older one
		p.ack(r)
		p.drop(Assignments, "a@1")
		p.silent()
		p.holds[Assignments]["a@2"] = "1"
		// 4. and back again: the subscription is still there, so it follows unasked
		p.more(Assignments, "a@1")
		p.settle()
		p.update(table(shop()...))
		out := p.pump()
		if got := say(out[len(out)-1:]); got != "assignments[a@1=1]" {
			t.Fatalf("sent %s, want the assignment last", say(out))
		}
		if w := p.engine.Wanted(); len(w) != 3 {
			t.Errorf("wanted %v", w)
		}
	})
}
