package delivery

import "testing"

// What a client acknowledged of one resource, whatever is on its way.
func TestAcked(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		acked := func(when, want string) {
			t.Helper()
			version, subscribed := p.s.Acked(Assignments, "a@1")
			if got := version; got != want || !subscribed {
				t.Errorf("%s: acknowledged is %q (subscribed: %v), want %q", when, got, subscribed, want)
			}
		}
		p.table = table(shop()...)
		p.connect()
		// 1. nobody asked yet
		if _, subscribed := p.s.Acked(Assignments, "a@1"); subscribed {
			t.Error("subscribed before any request")
		}
		p.start()
		acked("started", "1")
		if _, subscribed := p.s.Acked(Assignments, "c@1"); subscribed {
			t.Error("subscribed to what it never named")
		}
		// 2. a change is sent, and then answered
		p.update(table(with(shop(), assignment("a@1", "2"))...))
		r := p.only()
		acked("sent", "1")
		p.ack(r)
		acked("answered", "2")
		// 3. another one changes: this one stands
		p.update(table(with(shop(), assignment("a@1", "2"), assignment("b@1", "2"))...))
		r = p.only()
		acked("while another is sent", "2")
		p.ack(r)
		// 4. a refused form is none that it has
		p.update(table(with(shop(), assignment("a@1", "3"), assignment("b@1", "2"))...))
		p.nack(p.only(), "Error: a@1: no")
		p.settle()
		acked("refused", "2")
		// 5. the client leaves it, which only delta does by name
		if p.delta {
			p.drop(Assignments, "a@1")
			if _, subscribed := p.s.Acked(Assignments, "a@1"); subscribed {
				t.Error("subscribed to what it left")
			}
		}
	})
}
