package delivery

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestMachine drives a session at random and compares what the client ends up
// with to a model written apart from the engine: the client that accepts what is
// good must hold the newest good form of everything that it asked for.
func TestMachine(t *testing.T) {
	for _, delta := range []bool{true, false} {
		t.Run(map[bool]string{true: "delta", false: "sotw"}[delta], func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) { runMachine(t, rt, delta) })
		})
	}
}

// machine is a world (what is declared), a peer (what the client holds) and the
// responses that it has not answered.
type machine struct {
	*peer
	rt    *rapid.T
	world map[Type]map[string]*Resource

	open []Response
	// what a version of the one route table names, and since when nothing changed
	tables map[string][]string
	since  time.Time
	n      int
}

var machineNames = []string{"a", "b", "c", "d"}

func runMachine(t *testing.T, rt *rapid.T, delta bool) {
	m := &machine{peer: newPeer(t, delta), rt: rt, world: map[Type]map[string]*Resource{}, tables: map[string][]string{}}
	for _, typ := range Types {
		m.world[typ] = map[string]*Resource{}
	}
	m.table = m.build()
	m.hello()
	rt.Repeat(map[string]func(*rapid.T){
		"change": func(*rapid.T) { m.change() },
		"remove": func(*rapid.T) { m.remove() },
		"answer": func(*rapid.T) { m.answerOne() },
		"time": func(rt *rapid.T) {
			m.now = m.now.Add(time.Duration(rapid.IntRange(1, 30).Draw(rt, "seconds")) * time.Second)
		},
		"reconnect": func(*rapid.T) { m.open = nil; m.hello() },
		"":          func(*rapid.T) { m.push(); m.follow() },
	})
	// quiet: everything is answered and every wait runs out
	sentBefore := m.s.nonce
	for round := range 200 {
		if round == 100 && m.s.nonce-sentBefore > 100 {
			m.rt.Fatalf("%d responses were sent though nothing changed", m.s.nonce-sentBefore)
		}
		m.push()
		m.follow()
		for len(m.open) > 0 {
			m.answerOne()
			m.push()
			m.follow()
		}
		m.now = m.now.Add(time.Minute)
	}
	m.check()
}

// hello opens a stream as Envoy does: what it knows, with versions.
func (m *machine) hello() {
	m.connect()
	m.ask(Clusters)
	m.names[Assignments], m.names[RouteTables] = map[string]bool{}, map[string]bool{}
	m.ask(Listeners)
	m.follow()
}

// follow subscribes to what the held clusters and listeners need, and leaves what
// they no longer need.
func (m *machine) follow() {
	want := func(typ Type, need map[string]bool) {
		var more, less []string
		for n := range need {
			if !m.names[typ][n] {
				more = append(more, n)
			}
		}
		for n := range m.names[typ] {
			if !need[n] {
				less = append(less, n)
			}
		}
		slices.Sort(more)
		if len(less) > 0 {
			m.drop(typ, less...)
		}
		if len(more) > 0 {
			m.more(typ, more...)
		}
	}
	need := map[string]bool{}
	for n := range m.holds[Clusters] {
		need[n+"@1"] = true
	}
	want(Assignments, need)
	need = map[string]bool{}
	for n := range m.holds[Listeners] {
		need[n] = true
	}
	want(RouteTables, need)
}

func (m *machine) build() *Table {
	var all []*Resource
	for _, rs := range m.world {
		all = slices.AppendSeq(all, maps.Values(rs))
	}
	return table(all...)
}

// change declares a new form of something; one in five is bad.
func (m *machine) change() {
	m.n++
	version := fmt.Sprint(m.n)
	if rapid.IntRange(0, 4).Draw(m.rt, "bad") == 0 {
		version = "bad" + version
	}
	name := rapid.SampledFrom(machineNames).Draw(m.rt, "name")
	var r *Resource
	switch rapid.IntRange(0, 2).Draw(m.rt, "what") {
	case 0:
		r = cluster(name, version)
		if m.world[Assignments][name+"@1"] == nil {
			m.set(assignment(name+"@1", fmt.Sprint(m.n)))
		}
	case 1:
		if m.world[Clusters][name] == nil {
			return
		}
		r = assignment(name+"@1", version)
	default:
		to := slices.Sorted(maps.Keys(m.world[Clusters]))
		to = slices.DeleteFunc(to, func(string) bool { return rapid.Bool().Draw(m.rt, "named") })
		if m.world[Listeners]["edge"] == nil {
			m.set(listener("edge", fmt.Sprint(m.n), "127.0.0.1:80"))
		}
		r = routes("edge", version, to...)
	}
	m.set(r)
	m.update(m.build())
}

func (m *machine) set(r *Resource) {
	m.world[r.Type][r.Name] = r
	if r.Type == RouteTables {
		m.tables[r.Version], m.since = r.Clusters, m.now
	}
}

// remove withdraws a cluster that no route names.
func (m *machine) remove() {
	name := rapid.SampledFrom(machineNames).Draw(m.rt, "name")
	if r := m.world[RouteTables]["edge"]; r != nil && slices.Contains(r.Clusters, name) {
		return
	}
	delete(m.world[Clusters], name)
	delete(m.world[Assignments], name+"@1")
	m.update(m.build())
}

// push takes what is sent and holds it against the rules of what may be.
func (m *machine) push() {
	for _, r := range m.pump() {
		n := 0
		for _, o := range m.open {
			if o.Type == r.Type {
				n++
			}
		}
		if r.Type != Clusters && n > 0 || n >= maxOpenClusters {
			m.rt.Fatalf("a %s response is sent while %d are open", r.Type.Short(), n)
		}
		for _, name := range r.Removed {
			_, held := m.holds[Clusters][strings.TrimSuffix(name, "@1")]
			if r.Type == Assignments && held && m.table.Get(Clusters, strings.TrimSuffix(name, "@1")) != nil {
				m.rt.Fatalf("the assignment of a published cluster is removed: %s", sayOne(r))
			}
		}
		m.makesBeforeItBreaks(r)
		m.open = append(m.open, r)
		if len(bad(r)) == 0 {
			m.take(r) // in the order of arrival; only the answer may be late
			m.follow()
		}
	}
}

// makesBeforeItBreaks wants no route to a cluster that the client does not have,
// but for what WarmWait allows, and no removal of one that it routes to.
func (m *machine) makesBeforeItBreaks(r Response) {
	older := m.tables[m.holds[RouteTables]["edge"]]
	switch {
	case r.Type == RouteTables:
		for _, x := range r.Resources {
			for _, c := range x.Clusters {
				served := m.table.Get(Clusters, c)
				if served == nil || slices.Contains(older, c) || m.holds[Clusters][c] != "" || m.now.Sub(m.since) >= defaultWarmWait {
					continue
				}
				if strings.HasPrefix(served.Version, "bad") && m.holds[RouteTables]["edge"] == "" {
					continue // a proxy without an older form is given the table at once
				}
				m.rt.Fatalf("%s is sent, and the client has no cluster %s", sayOne(r), c)
			}
		}
	case !m.delta && !m.s.types.of(Clusters).base && !m.s.types.of(Clusters).fresh:
		// It came with a set that nobody knows; a full set cannot spare what is in it.
	case r.Type == Clusters && len(bad(r)) == 0:
		for _, c := range older {
			kept := m.delta && !slices.Contains(r.Removed, c) || !m.delta && slices.ContainsFunc(r.Resources, func(x *Resource) bool { return x.Name == c })
			if m.holds[Clusters][c] != "" && !kept {
				m.rt.Fatalf("%s takes cluster %s away, which the client routes to", sayOne(r), c)
			}
		}
	}
}

func bad(r Response) (names []string) {
	for _, x := range r.Resources {
		if strings.HasPrefix(x.Version, "bad") {
			names = append(names, x.Name)
		}
	}
	return names
}

// answerOne answers the oldest response of one type: no to all of one that holds
// anything bad, yes otherwise.
func (m *machine) answerOne() {
	if len(m.open) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.open)-1).Draw(m.rt, "which")
	typ := m.open[i].Type
	i = slices.IndexFunc(m.open, func(r Response) bool { return r.Type == typ })
	r := m.open[i]
	m.open = slices.Delete(m.open, i, i+1)
	guilty := bad(r)
	if len(guilty) == 0 {
		m.s.Request(m.answer(r, nil), m.now)
		return
	}
	words := "one of these is wrong"
	if typ == Clusters && rapid.Bool().Draw(m.rt, "named") {
		words = "Error adding/updating cluster(s) " + strings.Join(guilty, ": no, ") + ": no"
	}
	m.nack(r, words)
}

// check compares with the model.
func (m *machine) check() {
	if m.s.types.of(Clusters).stuck {
		return // it came with a set that nobody knows, and refused the new one
	}
	for typ, rs := range m.world {
		for name, r := range rs {
			if strings.HasPrefix(r.Version, "bad") || typ == Assignments && m.holds[Clusters][strings.TrimSuffix(name, "@1")] == "" {
				continue
			}
			if typ == RouteTables && slices.ContainsFunc(r.Clusters, func(c string) bool { return m.holds[Clusters][c] == "" }) {
				continue // it names a cluster that this client refused and never had
			}
			if got := m.holds[typ][name]; got != r.Version {
				m.rt.Fatalf("the client holds %s %s=%q, the newest good form is %q", typ.Short(), name, got, r.Version)
			}
		}
	}
	for typ, held := range m.holds {
		for name, version := range held {
			if strings.HasPrefix(version, "bad") {
				m.rt.Fatalf("the client holds %s %s=%s, which it refused", typ.Short(), name, version)
			}
			if typ == Clusters && m.world[typ][name] == nil && len(m.world[RouteTables]) == 0 {
				m.rt.Fatalf("the client still holds cluster %s, which is gone", name)
			}
		}
	}
}
