package delivery

import (
	"sort"
	"sync"
	"time"
)

// step is the way from one cover to another, found once for all streams of a class
// that go it. Most do: they have nothing but what their cover says, and are sent the
// very same.
type step struct {
	from, to  cover
	clusters  *Set        // by which it is known who may have an assignment
	resources []*Resource // that are other or new, in the order of names
	was       []*Resource // what they were
	missing   []string    // names that are subscribed to and not in the set, where nothing was reached before
	apart     bool        // names must be looked at one by one: something goes, or is not for everybody
	size      int         // bytes of the resources
	change    sum         // of the versions
	added     int         // names
	sum       sum         // of the first stream that went it
	version   string
	delta     Memo // of the responses of either form
	sotw      Memo
	say       func(*Resource) standing
}

// Memo keeps what the responses of all streams that go the same way have in common,
// for who sends them.
type Memo struct {
	once  sync.Once
	value any
}

// Get returns what make returned the first time.
func (m *Memo) Get(make func() any) any {
	m.once.Do(func() { m.value = make() })
	return m.value
}

// steps are the ways to one set that streams go: from where most are, and from where
// those are that were busy.
type steps struct {
	mu   sync.Mutex
	to   *Set
	list []*step
}

// manySteps is how many ways to one set are kept.
const manySteps = 16

func (s *steps) find(from, to cover, clusters *Set) *step {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.to != to.at {
		s.to, s.list = to.at, nil
	}
	for _, p := range s.list {
		if p.from == from && p.to == to && p.clusters == clusters {
			return p
		}
	}
	return nil
}

func (s *steps) keep(p *step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.to == p.to.at && len(s.list) < manySteps {
		s.list = append(s.list, p)
	}
}

// stepTo finds the way of a stream from one cover to another; is is the sum of the
// versions that it has now.
func (t *Table) stepTo(typ Type, from, to cover, is sum) *step {
	known, clusters := to.at.shared, t.set(Clusters)
	if known != nil {
		if p := known.steps.find(from, to, clusters); p != nil {
			return p
		}
	}
	p := &step{from: from, to: to, clusters: clusters}
	p.say = p.stands
	for _, m := range from.movesTo(to) {
		upstream := upstreamOf(m.name)
		if m.is == nil || typ == Assignments && m.was == nil && clusters.get(upstream) == nil {
			p.apart = true
			break
		}
		p.add(m)
	}
	if from.at == nil && (to.all || len(p.resources) < to.names.len()) {
		for name := range to.names.sorted().all() {
			if to.at.get(name) == nil {
				p.missing = append(p.missing, name)
			}
		}
	}
	p.sum = is.plus(p.change)
	p.version = p.sum.version()
	if known != nil {
		known.steps.keep(p)
	}
	return p
}

func (p *step) add(m move) {
	if m.was == nil {
		p.added++
	} else if m.was.Version == m.is.Version {
		return // made anew
	} else {
		p.change = p.change.minus(m.was.sum)
	}
	p.change = p.change.plus(m.is.sum)
	p.size += len(m.is.field)
	p.resources, p.was = append(p.resources, m.is), append(p.was, m.was)
}

func (p *step) memo(delta bool) *Memo {
	if delta {
		return &p.delta
	}
	return &p.sotw
}

// stands is how a name stands that is on its way: sent, and not answered.
func (p *step) stands(r *Resource) standing {
	x := standingOf(r)
	i := sort.Search(len(p.resources), func(i int) bool { return p.resources[i].Name >= r.Name })
	if i < len(p.resources) && p.resources[i].Name == r.Name {
		x.acked, x.some = false, p.was[i] != nil
	}
	return x
}

// flight is a step that was sent and is not answered. Until then names stand as the
// step says.
type flight struct {
	*step
	left  int     // parts without an answer
	taken []*sent // parts that were accepted
}

// sendStep sends what all streams are sent that go the same way: it costs the same
// whatever there is in it. It does not where anything stands otherwise than the cover
// says, or is to be looked at.
func (s *Session) sendStep(st *state, to cover, now time.Time) bool {
	if st.typ != Assignments && (st.typ != Clusters || !st.begins) || st.cover == to || st.at == nil && !st.begins ||
		len(st.over) > 0 || st.flight != nil || st.groups != nil || s.memory.refuses() {
		return false
	}
	p := s.table.stepTo(st.typ, st.cover, to, st.sum)
	if p.apart || len(p.resources) == 0 || len(s.engine.suspected(p.resources)) > 0 {
		return false
	}
	st.begins = false
	st.cover, st.say, st.sum, st.count = to, p.say, st.sum.plus(p.change), st.count+p.added
	st.flying = flight{step: p} // none of its type is open
	st.flight = &st.flying
	for _, name := range p.missing {
		st.asks(name)
	}
	if st.typ == Clusters {
		s.askAssignments(p.resources)
	}
	s.open(st, p.resources, nil, now)
	return true
}

// landed takes the answer of a part of a step; with the last one every name that is
// no exception is acknowledged.
func (s *Session) landed(st *state, o *sent) {
	f := st.flight
	if f.left--; f.left > 0 {
		f.taken = append(f.taken, o)
		return
	}
	st.flight = nil
	st.says(standingOf)
	for name, x := range st.over {
		if r := f.to.get(name); r != nil && x.value.holds && x.value.version == r.Version {
			x.value.res, x.value.acked, x.value.some = r, true, true
			st.put(name, x.value)
		}
	}
	s.memory.acceptAll(st.typ, f.step)
	if st.names == f.to.names && st.all == f.to.all {
		return
	}
	f.to.each(func(r *Resource) {
		if !st.covers(r.Name) {
			s.memory.forget(st.typ, r.Name) // it was left meanwhile
		}
	})
}

// takeApart looks at the names of a step one by one: it was not accepted as one, or
// others change meanwhile.
func (s *Session) takeApart(st *state) {
	f := st.flight
	st.flight = nil
	st.says(standingOf)
	for _, r := range f.resources {
		if _, otherwise := st.over[r.Name]; !otherwise && st.cover.get(r.Name) == r {
			st.set(r.Name, f.stands(r), r, false)
		}
	}
	for _, o := range f.taken {
		s.took(st, o.resources)
	}
}
