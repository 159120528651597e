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
