package delivery

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// both runs a test twice: as a delta and as a state-of-the-world stream.
func both(t *testing.T, f func(t *testing.T, p *peer)) {
	for _, delta := range []bool{true, false} {
		t.Run(map[bool]string{true: "delta", false: "sotw"}[delta], func(t *testing.T) {
			f(t, newPeer(t, delta))
		})
	}
}

// peer is the other end of a session, with a clock that only moves when told.
type peer struct {
	t      *testing.T
	delta  bool
	engine *Engine
	// readable streams are not private.
	readable bool
	memory   *Memory
	s        *Session
	now      time.Time
	table    *Table

	holds  map[Type]map[string]string // name → version, as the client would hold them
	names  map[Type]map[string]bool
	wild   map[Type]bool
	nonce  map[Type]string // of the newest response
	seen   map[Type]string // of the newest response that was answered
	events []model.Event
}

func newPeer(t *testing.T, delta bool) *peer {
	p := &peer{t: t, delta: delta, engine: NewEngine(), now: time.Unix(1000, 0), table: table(), holds: map[Type]map[string]string{}}
	return p
}

// connect opens a stream; what the client holds stays.
func (p *peer) connect() {
	p.t.Helper()
	if p.s != nil {
		p.s.Close(p.now)
	}
	p.memory = p.engine.Memory("g", "n", "1.40.0", p.now)
	p.s = NewSession(Config{}, p.engine, p.memory, Client{Delta: p.delta, Private: !p.readable}, p.table, p.now, func(e model.Event) { p.events = append(p.events, e) })
	p.names, p.wild, p.nonce, p.seen = map[Type]map[string]bool{}, map[Type]bool{}, map[Type]string{}, map[Type]string{}
}

// update publishes a table.
func (p *peer) update(t *Table) {
	p.table = t
	p.s.SetTable(t)
}

// ask sends the first request of a type (no names: wildcard), with what is held.
func (p *peer) ask(typ Type, names ...string) {
	p.names[typ], p.wild[typ] = map[string]bool{}, len(names) == 0
	p.more(typ, names...)
}

// more subscribes to names besides.
func (p *peer) more(typ Type, names ...string) {
	if p.holds[typ] == nil {
		p.holds[typ] = map[string]string{}
	}
	for _, n := range names {
		p.names[typ][n] = true
	}
	r := Request{Type: typ}
	if p.delta {
		r.Subscribe = names
		if p.nonce[typ] == "" && len(p.holds[typ]) > 0 {
			r.Initial = maps.Clone(p.holds[typ])
		}
	} else {
		r.Names = slices.Sorted(maps.Keys(p.names[typ]))
		r.Nonce = p.seen[typ]
		if len(p.holds[typ]) > 0 {
			r.Version = setVersion(p.holds[typ])
		}
	}
	p.s.Request(r, p.now)
}

// drop unsubscribes.
func (p *peer) drop(typ Type, names ...string) {
	for _, n := range names {
		delete(p.names[typ], n)
		delete(p.holds[typ], n)
	}
	r := Request{Type: typ}
	if p.delta {
		r.Unsubscribe = names
	} else {
		r.Names, r.Nonce, r.Version = slices.Sorted(maps.Keys(p.names[typ])), p.seen[typ], setVersion(p.holds[typ])
	}
	p.s.Request(r, p.now)
}

// pump returns what is sent now, without answering.
func (p *peer) pump() []Response {
	p.t.Helper()
	var out []Response
	for range 1000 {
		batch, _ := p.s.Pump(p.now)
		if len(batch) == 0 {
			return out
		}
		for _, r := range batch {
			p.nonce[r.Type] = r.Nonce
			out = append(out, r)
		}
	}
	p.t.Fatal("the session never stops sending")
	return nil
}

// only pumps and wants exactly one response.
func (p *peer) only() Response {
	p.t.Helper()
	out := p.pump()
	if len(out) != 1 {
		p.t.Fatalf("got %d responses, want one: %s", len(out), say(out))
	}
	return out[0]
}

// silent wants nothing to be sent.
func (p *peer) silent() {
	p.t.Helper()
	if out := p.pump(); len(out) > 0 {
		p.t.Fatalf("sent though nothing is owed: %s", say(out))
	}
}

// take is what a client does with a response that it accepts, before it answers.
func (p *peer) take(r Response) {
	h := p.holds[r.Type]
	if !p.delta && r.Type.fullState() {
		clear(h)
	}
	for _, x := range r.Resources {
		if p.wild[r.Type] || p.names[r.Type][x.Name] {
			h[x.Name] = x.Version
		}
	}
	for _, n := range r.Removed {
		delete(h, n)
	}
}

func (p *peer) ack(r Response) {
	p.take(r)
	p.s.Request(p.answer(r, nil), p.now)
}

func (p *peer) nack(r Response, words string) { p.s.Request(p.answer(r, &words), p.now) }

func (p *peer) answer(r Response, refused *string) Request {
	q := Request{Type: r.Type, Nonce: r.Nonce, Refused: refused}
	p.seen[r.Type] = r.Nonce
	if !p.delta {
		q.Names = slices.Sorted(maps.Keys(p.names[r.Type]))
		q.Version = setVersion(p.holds[r.Type])
	}
	return q
}

// settle answers everything that comes with yes until nothing comes.
func (p *peer) settle() (all []Response) {
	p.t.Helper()
	for range 1000 {
		out := p.pump()
		if len(out) == 0 {
			return all
		}
		for _, r := range out {
			p.ack(r)
		}
		all = append(all, out...)
	}
	p.t.Fatal("the session never settles")
	return nil
}

// start connects and asks as a fresh Envoy does, and settles.
func (p *peer) start() []Response {
	p.t.Helper()
	p.connect()
	p.ask(Clusters)
	all := p.settle()
	p.ask(Assignments, p.assignmentsOf()...)
	all = append(all, p.settle()...)
	p.ask(Listeners)
	all = append(all, p.settle()...)
	var routed []string
	for name := range p.holds[Listeners] {
		if r := p.table.Get(Listeners, name); r == nil || len(r.Clusters) == 0 {
			routed = append(routed, name)
		}
	}
	if len(routed) > 0 {
		slices.Sort(routed)
		p.ask(RouteTables, routed...)
	}
	return append(all, p.settle()...)
}

// assignmentsOf are the names that the clusters it holds need.
func (p *peer) assignmentsOf() []string {
	var out []string
	for name := range p.holds[Clusters] {
		if r := p.table.Get(Clusters, name); r != nil {
			out = append(out, r.Assignment)
		}
	}
	slices.Sort(out)
	return out
}

func (p *peer) wantHolds(typ Type, want ...string) {
	p.t.Helper()
	var got []string
	for n, v := range p.holds[typ] {
		got = append(got, n+"="+v)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		p.t.Fatalf("the client holds %s %v, want %v", typ.Short(), got, want)
	}
}

// say prints responses: "clusters[a=1 b=2 -c]".
func say(rs []Response) string {
	var parts []string
	for _, r := range rs {
		parts = append(parts, sayOne(r))
	}
	return strings.Join(parts, " ")
}

func sayOne(r Response) string {
	var in []string
	for _, x := range r.Resources {
		in = append(in, x.Name+"="+x.Version)
	}
	for _, n := range r.Removed {
		in = append(in, "-"+n)
	}
	return fmt.Sprintf("%s%v", r.Type.Short(), in)
}

// wantWaiting wants what is held back: type, name, and how the reason begins.
func (p *peer) wantWaiting(want ...string) {
	p.t.Helper()
	var got []string
	for _, d := range p.s.Deliveries() {
		for _, w := range d.Waiting {
			got = append(got, d.Type+" "+w.Name+" "+w.Why)
		}
	}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		p.t.Errorf("waiting %q, want %q", got, want)
	}
}

func (p *peer) want(rs []Response, want string) {
	p.t.Helper()
	if got := say(rs); got != want {
		p.t.Fatalf("sent    %s\nwanted  %s", got, want)
	}
}

// table builds a table of resources.
func table(rs ...*Resource) *Table {
	by := map[Type]map[string]*Resource{}
	for _, r := range rs {
		if by[r.Type] == nil {
			by[r.Type] = map[string]*Resource{}
		}
		by[r.Type][r.Name] = r
	}
	return NewTable(nil, by, map[string]bool{})
}

func resource(typ Type, name, version string) *Resource {
	r := newResource(typ, name, version, []byte(name+version))
	r.Document = "Upstream/" + name
	return r
}

// setVersion is the version that a client presents of what it holds.
func setVersion(versions map[string]string) string {
	var s sum
	for name, version := range versions {
		s = s.plus(sumOf(name, version))
	}
	return s.version()
}

func cluster(name, version string) *Resource {
	r := resource(Clusters, name, version)
	r.Assignment = name + "@1"
	return r
}

func generation(name, version, gen string) *Resource {
	r := cluster(name, version)
	r.Assignment = name + "@" + gen
	return r
}

func assignment(name, version string) *Resource { return resource(Assignments, name, version) }

func listener(name, version, address string) *Resource {
	r := resource(Listeners, name, version)
	r.Address = address
	return r
}

func routes(name, version string, clusters ...string) *Resource {
	r := resource(RouteTables, name, version)
	r.Clusters = clusters
	return r
}

// shop is a table with two clusters behind one listener.
func shop() []*Resource {
	return []*Resource{
		cluster("a", "1"), cluster("b", "1"), assignment("a@1", "1"), assignment("b@1", "1"),
		listener("edge", "1", "127.0.0.1:80"), routes("edge", "1", "a", "b"),
	}
}

// with replaces or adds resources by type and name.
func with(rs []*Resource, more ...*Resource) []*Resource {
	out := slices.Clone(rs)
	for _, m := range more {
		out = slices.DeleteFunc(out, func(r *Resource) bool { return r.Type == m.Type && r.Name == m.Name })
		out = append(out, m)
	}
	return out
}

func without(rs []*Resource, typ Type, name string) []*Resource {
	return slices.DeleteFunc(slices.Clone(rs), func(r *Resource) bool { return r.Type == typ && r.Name == name })
}
