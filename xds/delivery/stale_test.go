package delivery

import "testing"

// An answer to an older or unknown nonce settles nothing.
func TestStaleNonce(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		p.update(table(with(shop(), assignment("a@1", "2"))...))
		r := p.only()
		for _, nonce := range []string{"1", "forged", "999"} {
			stale := r
			stale.Nonce = nonce
			q := p.answer(stale, nil)
			p.s.Request(q, p.now)
			p.update(table(with(shop(), assignment("a@1", "3"))...))
			p.silent()
		}
		p.ack(r)
		p.want(p.settle(), "assignments[a@1=3]")
	})
}

// A state-of-the-world request that is older than the newest response does not
// change the subscription: the answer that is yet to come will carry the names.
func TestStaleNames(t *testing.T) {
	p := newPeer(t, false)
	p.table = table(shop()...)
	p.connect()
	p.ask(Assignments, "a@1")
	first := p.only()
	p.ack(first)
	p.update(table(with(shop(), assignment("a@1", "2"))...))
	second := p.only()
	p.names[Assignments]["b@1"] = true
	p.s.Request(p.answer(first, nil), p.now) // crossed the second response
	p.silent()
	p.ack(second)
	p.want(p.settle(), "assignments[b@1=1]")
}
