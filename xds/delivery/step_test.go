package delivery

import (
	"fmt"
	"testing"
)

// Streams that hold the same and are sent the same share all but the nonce, whatever
// nonces they are at; one that stands otherwise is sent its own.
func TestStepIsShared(t *testing.T) {
	engine := NewEngine()
	var peers []*peer
	for i := range 3 {
		p := newPeer(t, true)
		p.engine, p.table = engine, table(shop()...)
		if i > 0 {
			p.table = peers[0].table
		}
		p.start()
		peers = append(peers, p)
	}
	// 1. the second has had one response more, the third refused something
	peers[1].drop(Assignments, "b@1")
	peers[1].more(Assignments, "b@1")
	peers[1].settle()
	odd := peers[2]
	odd.update(odd.table.With(assignment("b@1", "bad")))
	odd.nack(odd.only(), "no")
	odd.settle()
	// 2. one assignment changes for all of them
	next := peers[0].table.With(assignment("a@1", "2"))
	var sent []Response
	for _, p := range peers[:2] {
		p.update(next)
		r := p.only()
		p.want([]Response{r}, "assignments[a@1=2]")
		sent = append(sent, r)
	}
	if sent[0].Shared == nil || sent[0].Shared != sent[1].Shared || sent[0].Version != sent[1].Version {
		t.Errorf("two streams that go the same way share nothing: %+v %+v", sent[0], sent[1])
	}
	if sent[0].Nonce == sent[1].Nonce {
		t.Errorf("nonce %s is of both, though one had more responses", sent[0].Nonce)
	}
	odd.update(odd.table.With(assignment("a@1", "2")))
	if r := odd.only(); r.Shared != nil {
		t.Errorf("a stream with an exception shares %+v", r)
	}
	// 3. each holds what it was sent, and the version says so
	for i, p := range peers[:2] {
		p.ack(sent[i])
		p.silent()
		p.wantHolds(Assignments, "a@1=2", "b@1=1")
		if v := setVersion(p.holds[Assignments]); v != sent[i].Version {
			t.Errorf("version %s, the client's is %s", sent[i].Version, v)
		}
	}
	// 4. who was busy with one change goes another way to the next
	busy, free := peers[0], peers[1]
	one := next.With(assignment("a@1", "3"))
	both := one.With(assignment("b@1", "2"))
	busy.update(one)
	r := busy.only()
	free.update(both)
	free.want(free.settle(), "assignments[a@1=3 b@1=2]")
	busy.update(both)
	busy.ack(r)
	busy.want(busy.settle(), "assignments[b@1=2]")
}

// A cluster that changes while all of them are on their way is not acknowledged with
// them.
func TestChangeDuringTheFirstResponse(t *testing.T) {
	p := newPeer(t, true)
	p.table = table(shop()...)
	p.connect()
	p.ask(Clusters)
	first := p.only()
	p.update(p.table.With(cluster("a", "2")))
	p.now = p.now.Add(defaultPushWait)
	second := p.only()
	p.want([]Response{second}, "clusters[a=2]")
	p.ack(first)
	if d := p.s.Deliveries()[0]; d.Acked != 1 || d.Sent != 2 {
		t.Errorf("%d of %d are acknowledged", d.Acked, d.Sent)
	}
	p.ack(second)
	if d := p.s.Deliveries()[0]; d.Acked != 2 || d.Version != d.AckedVersion {
		t.Errorf("%+v", d)
	}
	p.silent()
}

// A step that is refused is taken apart: who is guilty is parked, the rest is sent.
func TestRefusedStep(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		p.update(p.table.With(assignment("a@1", "bad"), assignment("b@1", "2")))
		r := p.only()
		p.want([]Response{r}, "assignments[a@1=bad b@1=2]")
		p.nack(r, `malformed: cluster_name: "a@1"`)
		p.want(p.settle(), map[bool]string{true: "assignments[a@1=1 b@1=2]", false: "assignments[a@1=1 b@1=2]"}[p.delta])
		p.wantHolds(Assignments, "a@1=1", "b@1=2")
	})
}

// Whatever changes while a step is on its way is sent after it, and what it sent
// counts as acknowledged with its answer only.
func TestChangesBehindAStep(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		p.update(p.table.With(assignment("a@1", "2")))
		r := p.only()
		if d := p.s.Deliveries()[1]; d.Version == d.AckedVersion || d.Acked != 1 {
			t.Errorf("not answered, and shown as %+v", d)
		}
		p.update(p.table.With(assignment("a@1", "3")))
		p.update(p.table.With(assignment("b@1", "2")))
		p.ack(r)
		p.want(p.settle(), "assignments[a@1=3 b@1=2]")
		if d := p.s.Deliveries()[1]; d.Version != d.AckedVersion || d.Acked != 2 {
			t.Errorf("answered, and shown as %+v", d)
		}
	})
}

// large are assignments of a third of what one response carries, and their clusters.
func large(n int, version string) (rs []*Resource) {
	for i := range n {
		name := fmt.Sprintf("c%d", i)
		r := newResource(Assignments, name+"@1", version, make([]byte, maxDelta/3))
		rs = append(rs, cluster(name, "1"), r)
	}
	return rs
}

// askLarge connects and asks for five of them; what is sent is not answered.
func (p *peer) askLarge() []Response {
	p.t.Helper()
	p.table = table(large(5, "1")...)
	p.connect()
	p.ask(Clusters)
	p.settle()
	p.ask(Assignments, p.assignmentsOf()...)
	return p.pump()
}

// A large delta response goes in parts, back to back, which count as one; a
// state-of-the-world response is whole.
func TestParts(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		// 1. everything at once: two, two and one, with nonces of their own
		parts := p.askLarge()
		if !p.delta {
			p.want(parts, "assignments[c0@1=1 c1@1=1 c2@1=1 c3@1=1 c4@1=1]")
			return
		}
		p.want(parts, "assignments[c0@1=1 c1@1=1] assignments[c2@1=1 c3@1=1] assignments[c4@1=1]")
		if parts[0].Nonce == parts[1].Nonce || parts[0].Version != parts[2].Version {
			t.Errorf("nonces %s %s, versions %s %s", parts[0].Nonce, parts[1].Nonce, parts[0].Version, parts[2].Version)
		}
		// 2. nothing more until the last one is answered
		p.update(p.table.With(large(5, "2")...))
		p.ack(parts[0])
		p.ack(parts[1])
		p.silent()
		if d := p.s.Deliveries()[1]; d.Open != 1 {
			t.Errorf("%d are open", d.Open)
		}
		p.ack(parts[2])
		parts = p.pump()
		p.want(parts, "assignments[c0@1=2 c1@1=2] assignments[c2@1=2 c3@1=2] assignments[c4@1=2]")
		// 3. one part is refused; the others are not sent again
		p.ack(parts[0])
		p.nack(parts[1], `cluster_name: "c3@1"`)
		p.ack(parts[2])
		p.want(p.settle(), "assignments[c2@1=2 c3@1=1]")
		p.wantHolds(Assignments, "c0@1=2", "c1@1=2", "c2@1=2", "c3@1=1", "c4@1=2")
		if d := p.s.Deliveries()[1]; d.Version != d.AckedVersion {
			t.Errorf("%+v", d)
		}
	})
}

// A name that is not served is told so beside all those that are, and a client that
// asks for assignments first has them follow the clusters.
func TestStepLeavesNothingOut(t *testing.T) {
	p := newPeer(t, true)
	p.table = table(shop()...)
	p.connect()
	p.ask(Assignments, "a@1", "b@1")
	p.want(p.settle(), "assignments[a@1=1 b@1=1]")
	p.ask(Clusters)
	p.want(p.settle(), "clusters[a=1 b=1] assignments[a@1=1 b@1=1]")

	p = newPeer(t, true)
	p.table = table(shop()...)
	p.connect()
	p.ask(Clusters)
	p.settle()
	p.ask(Assignments, "a@1", "ghost@1")
	p.want(p.settle(), "assignments[a@1=1] assignments[-ghost@1]")

	p = newPeer(t, true)
	p.table = table(shop()...)
	p.connect()
	p.ask(Clusters, "*", "ghost")
	p.wild[Clusters] = true
	p.want(p.settle(), "clusters[a=1 b=1] clusters[-ghost]")
}

// A form that is made anew, the same, is no news, and leads nobody off the common way.
func TestMadeAnew(t *testing.T) {
	p := newPeer(t, true)
	p.table = table(shop()...)
	p.start()
	p.update(p.table.With(assignment("a@1", "1")))
	p.silent()
	p.update(p.table.With(assignment("b@1", "2")))
	if r := p.only(); r.Shared == nil {
		t.Error("it left the common way")
	}
}

// A route that was taken back while it was held waits no more, and waits anew when it
// comes again.
func TestTakenBackWaitsAnew(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		base := p.table
		p.update(base.With(cluster("c", "1"), routes("edge", "2", "a", "b", "c")))
		p.pump()
		p.wantWaiting("routes edge cluster c")
		p.update(base)
		p.pump()
		p.wantWaiting()
	})
}

// Parts that were accepted before the stream broke are remembered.
func TestPartsOfABrokenStream(t *testing.T) {
	p := newPeer(t, true)
	parts := p.askLarge()
	p.ack(parts[0])
	p.s.Close(p.now)
	p.s = nil
	if last := p.memory.last(Assignments, "c0@1"); last == nil || last.Version != "1" {
		t.Errorf("%+v is remembered of what was accepted", last)
	}
	if last := p.memory.last(Assignments, "c4@1"); last != nil {
		t.Errorf("%+v is remembered, though nobody answered", last)
	}
}

// What a client leaves while it is on its way counts for nothing.
func TestLeftDuringAStep(t *testing.T) {
	p := newPeer(t, true)
	p.table = table(shop()...)
	p.start()
	p.update(p.table.With(assignment("a@1", "2")))
	r := p.only()
	p.drop(Assignments, "a@1")
	if d := p.s.Deliveries()[1]; d.Sent != 1 || d.Acked != 1 || d.Version != d.AckedVersion {
		t.Errorf("%+v", d)
	}
	p.drop(Assignments, "b@1")
	p.ack(r)
	p.silent()
	if p.memory.last(Assignments, "a@1") != nil || p.memory.last(Assignments, "b@1") != nil {
		t.Error("what was left is remembered")
	}
	if d := p.s.Deliveries()[1]; d.Sent != 0 || d.Acked != 0 || d.Version != setVersion(p.holds[Assignments]) {
		t.Errorf("%+v", d)
	}
}
