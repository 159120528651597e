package delivery

import "testing"

// A client that acknowledges is sent each content once.
func TestAck(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		// 1. a fresh start, in the order in which Envoy asks
		p.want(p.start(), "clusters[a=1 b=1] assignments[a@1=1 b@1=1] listeners[edge=1] routes[edge=1]")
		// 2. nothing more is owed
		p.silent()
		// 3. the same content again is no change
		p.update(table(shop()...))
		p.silent()
		// 4. one assignment changes: exactly that one is sent
		p.update(table(with(shop(), assignment("a@1", "2"))...))
		p.want(p.settle(), "assignments[a@1=2]")
		p.wantHolds(Assignments, "a@1=2", "b@1=1")
	})
}

// One response of a type is open at a time; what happens meanwhile coalesces.
func TestOneInFlight(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		// 1. a change is sent
		p.update(table(with(shop(), assignment("a@1", "2"))...))
		p.waits(false)
		r := p.only()
		// 2. two more wait for its answer
		p.update(table(with(shop(), assignment("a@1", "3"))...))
		p.silent()
		p.update(table(with(shop(), assignment("a@1", "4"), assignment("b@1", "2"))...))
		p.silent()
		p.waits(true)
		// 3. and then go as one
		p.ack(r)
		p.want(p.settle(), "assignments[a@1=4 b@1=2]")
		p.waits(false)
	})
}

// waits tells whether something goes when an answer comes.
func (p *peer) waits(want bool) {
	p.t.Helper()
	if got := p.s.Waits(); got != want {
		p.t.Errorf("something waits for an answer: %v", got)
	}
}

// Envoy withholds cluster answers while any cluster warms: the next response
// follows after PushWait, up to eight.
func TestClustersWithoutAnswer(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		version := func(i int) string { return string(rune('b' + i)) }
		var open []Response
		for i := range maxOpenClusters {
			p.update(table(with(shop(), cluster("a", version(i)))...))
			if i > 0 {
				p.silent() // not before PushWait
				p.now = p.now.Add(defaultPushWait)
			}
			for _, r := range p.pump() {
				if r.Type == Clusters {
					open = append(open, r)
				} else {
					p.ack(r)
				}
			}
			if len(open) != i+1 {
				t.Fatalf("%d cluster responses are open, want %d", len(open), i+1)
			}
		}
		// the ninth waits however long it takes
		p.update(table(with(shop(), cluster("a", "z"))...))
		p.now = p.now.Add(time100)
		p.silent()
		// an answer frees it
		if p.delta {
			p.ack(open[0])
		} else {
			p.ack(open[len(open)-1]) // Envoy answers the last one only, which settles all
		}
		p.want(p.pump()[:1], map[bool]string{true: "clusters[a=z]", false: "clusters[a=z b=1]"}[p.delta])
	})
}
