package delivery

import (
	"slices"
	"strings"
	"testing"
	"time"
)

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

const time100 = 100 * time.Second

// Envoy names the guilty cluster: it is parked, the rest is sent again, and what
// was accepted before is never left out.
func TestRefusedByName(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		// 1. a changes for the worse, c is new and good
		p.update(table(with(shop(), cluster("a", "bad"), cluster("c", "1"), assignment("c@1", "1"))...))
		out := p.pump()
		r := out[0]
		for _, x := range out[1:] {
			p.ack(x)
		}
		// 2. Envoy takes c and refuses a
		p.nack(r, "Error adding/updating cluster(s) a: no such thing, really")
		p.settle()
		p.wantHolds(Clusters, "a=1", "b=1", "c=1")
		// 3. it is shown, in Envoy's words
		parked := p.s.Deliveries()[0].Parked
		if len(parked) != 1 || parked[0].Name != "a" || !strings.Contains(parked[0].Message, "no such thing") {
			t.Fatalf("parked %+v", parked)
		}
		// 4. the same content is not sent again, whatever else changes
		p.update(table(with(shop(), cluster("a", "bad"), cluster("c", "2"), assignment("c@1", "1"))...))
		p.settle()
		p.wantHolds(Clusters, "a=1", "b=1", "c=2")
		// 5. until it changes
		p.update(table(with(shop(), cluster("a", "3"), cluster("c", "2"), assignment("c@1", "1"))...))
		p.settle()
		p.wantHolds(Clusters, "a=3", "b=1", "c=2")
		if n := len(p.memory.Parked()); n != 0 {
			t.Errorf("%d resources are still parked", n)
		}
	})
}

// Envoy names nobody: halves are tried until one is refused alone.
func TestRefusedWithoutName(t *testing.T) {
	for what, typ := range map[string]Type{"assignments": Assignments, "clusters": Clusters, "listeners": Listeners} {
		t.Run(what, func(t *testing.T) {
			both(t, func(t *testing.T, p *peer) {
				var rs []*Resource
				var names []string
				for _, n := range []string{"a", "b", "c", "d", "e", "f", "g"} {
					rs = append(rs, resource(typ, n, "1"))
					names = append(names, n)
					if typ == Assignments {
						rs = append(rs, cluster(n, "1"))
					}
				}
				p.table = table(rs...)
				p.connect()
				if typ == Assignments {
					p.ask(typ, names...)
				} else {
					p.ask(typ)
				}
				p.wild[typ] = typ != Assignments
				for range 100 {
					out := p.pump()
					if len(out) == 0 {
						break
					}
					r := out[0]
					if slices.ContainsFunc(r.Resources, func(x *Resource) bool { return x.Name == "e" }) {
						p.nack(r, "something is wrong with one of these")
					} else {
						p.ack(r)
					}
				}
				p.wantHolds(typ, "a=1", "b=1", "c=1", "d=1", "f=1", "g=1")
				if parked := p.memory.Parked(); len(parked) != 1 || parked[0].Name != "e" {
					t.Fatalf("parked %+v", parked)
				}
			})
		})
	}
}

// A state-of-the-world client that presented a version and accepted no set yet
// would lose what a half leaves out: nothing is sent until the content changes.
func TestRefusedFirstSet(t *testing.T) {
	p := newPeer(t, false)
	p.table = table(with(shop(), cluster("c", "1"))...)
	p.holds[Clusters] = map[string]string{"a": "0", "b": "0"}
	p.connect()
	p.ask(Clusters)
	p.nack(p.only(), "something is wrong with one of these")
	p.silent()
	p.update(table(with(shop(), cluster("c", "2"))...))
	p.want(p.settle(), "clusters[a=1 b=1 c=2]")
}

// What one proxy refused goes to every other one last and alone.
func TestSuspect(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(with(shop(), cluster("c", "bad"))...)
		p.engine.setSuspect(content{Clusters, "c", "bad"})
		p.connect()
		p.ask(Clusters)
		first := p.only()
		p.want([]Response{first}, "clusters[a=1 b=1]")
		p.ack(first)
		p.want(p.pump(), map[bool]string{true: "clusters[c=bad]", false: "clusters[a=1 b=1 c=bad]"}[p.delta])
	})
}

// A refusal outlives the stream: a proxy that comes back without the name is
// given what it accepted last; where there is nothing, the refused content once
// more, and only once.
func TestParkedAcrossStreams(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		p.update(table(with(shop(), assignment("a@1", "bad"), assignment("b@1", "bad"))...))
		r := p.only()
		p.nack(r, `Proto constraint validation failed: cluster_name: "a@1"`)
		for _, r := range p.pump() { // b alone, and what a had
			p.ack(r)
		}
		p.settle()
		p.wantHolds(Assignments, "a@1=1", "b@1=bad")
		// it comes back with nothing
		p.holds = map[Type]map[string]string{}
		p.connect()
		p.ask(Assignments, "a@1", "b@1")
		p.settle()
		p.wantHolds(Assignments, "a@1=1", "b@1=bad")
	})
}

func TestParkedWithoutOlderForm(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(cluster("a", "1"), assignment("a@1", "bad"))
		p.connect()
		p.ask(Assignments, "a@1")
		p.nack(p.only(), "no")
		p.silent()
		p.holds = map[Type]map[string]string{}
		p.connect()
		p.ask(Assignments, "a@1")
		p.nack(p.only(), "no") // once more
		p.silent()
		p.now = p.now.Add(time100)
		p.silent()
	})
}

// The names in Envoy's words, as they were measured.
func TestGuilty(t *testing.T) {
	in := map[string]*Resource{}
	for _, n := range []string{"bad", "ad", "g5", "bl", "clash", "rc", "web@1"} {
		in[n] = resource(Clusters, n, "1")
	}
	for words, want := range map[string][]string{
		"Error adding/updating cluster(s) bad: cluster manager: cluster provided LB specified but cluster 'bad' did not provide one.":                 {"bad"},
		"Error adding/updating cluster(s) bad: no, g5: duplicate cluster g5 found":                                                                    {"bad", "g5"},
		"Error adding/updating listener(s) clash: error adding listener: 'clash' has duplicate address '127.0.0.1:80' as existing listener, to check": {"clash"},
		"duplicate name g5 found among added/updated resources":                                                                                       {"g5"},
		"Only a single wildcard domain is permitted in route rc":                                                                                      {"rc"},
		`Proto constraint validation failed: cluster_name: "web@1" endpoints { name: "bad" }`:                                                         {"web@1"},
		"Error adding/updating cluster(s) stranger: no":                                                                                               nil,
		"Invalid duration: Expected positive duration: seconds: -1":                                                                                   nil,
		"": nil,
	} {
		if got := Guilty(words, in); !slices.Equal(got, want) {
			t.Errorf("%q names %v, want %v", words, got, want)
		}
	}
}

// A listener refused for its address is tried again after a listener was removed.
func TestDuplicateAddress(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(listener("old", "1", "127.0.0.1:80"))
		p.connect()
		p.ask(Listeners)
		p.settle()
		p.update(table(listener("old", "1", "127.0.0.1:80"), listener("new", "1", "127.0.0.1:80")))
		p.nack(p.only(), "Error adding/updating listener(s) new: error adding listener: 'new' has duplicate address '127.0.0.1:80' as existing listener")
		p.settle()
		p.wantHolds(Listeners, "old=1")
		p.update(table(listener("new", "1", "127.0.0.1:80")))
		p.settle()
		p.wantHolds(Listeners, "new=1")
	})
}

// Envoy was restarted and refuses what it accepted before (its port is taken): it
// is parked like anything else, and not sent for ever.
func TestAcceptedThenRefused(t *testing.T) {
	for what, words := range map[string]string{
		"named":  "Error adding/updating listener(s) edge: cannot bind '127.0.0.1:80': Address already in use",
		"nobody": "something is wrong",
	} {
		t.Run(what, func(t *testing.T) {
			both(t, func(t *testing.T, p *peer) {
				p.table = table(with(shop(), listener("other", "1", "127.0.0.1:81"))...)
				p.start()
				p.holds = map[Type]map[string]string{}
				p.connect()
				p.ask(Listeners)
				n := 0
				for range 50 {
					out := p.pump()
					if len(out) == 0 {
						break
					}
					n++
					if slices.ContainsFunc(out[0].Resources, func(x *Resource) bool { return x.Name == "edge" }) {
						p.nack(out[0], words)
					} else {
						p.ack(out[0])
					}
				}
				if n > 4 {
					t.Errorf("%d responses", n)
				}
				p.wantHolds(Listeners, "other=1")
			})
		})
	}
}

// A response of removals only is refused while halves are tried.
func TestRefusedRemoval(t *testing.T) {
	p := newPeer(t, true)
	p.table = table(cluster("a", "1"), cluster("b", "1"))
	p.connect()
	p.ask(Clusters)
	p.settle()
	p.update(table(cluster("a", "2"), cluster("b", "2")))
	first := p.only()
	p.now = p.now.Add(time100)
	p.update(table())
	second := p.only()
	p.nack(first, "no")
	p.nack(second, "no")
	p.settle()
	p.wantHolds(Clusters)
}

// A route table that was refused, and is tried once more on a new stream, waits for the
// clusters that it names as any other does.
func TestTriedAgainWaits(t *testing.T) {
	p := newPeer(t, true)
	// 1. the cluster is refused, and so is the only table that the proxy was sent
	p.table = table(cluster("c", "bad"), assignment("c@1", "1"), listener("edge", "1", "127.0.0.1:80"), routes("edge", "1", "c"))
	p.connect()
	p.ask(Clusters)
	p.nack(p.only(), "no")
	p.ask(Listeners)
	p.settle()
	p.ask(RouteTables, "edge")
	p.nack(p.only(), "no")
	// 2. the cluster is mended, and the stream breaks
	p.update(table(cluster("c", "2"), assignment("c@1", "1"), listener("edge", "1", "127.0.0.1:80"), routes("edge", "1", "c")))
	p.connect()
	p.ask(Clusters)
	p.ask(Listeners)
	p.ask(RouteTables, "edge")
	// 3. the table is tried again, once the cluster is there
	out := p.pump()
	p.want(out, "clusters[c=2]")
	p.ack(out[0])
	p.want(p.pump(), "routes[edge=1]")
}
