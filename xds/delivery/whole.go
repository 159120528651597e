package delivery

import "time"

// whole is all that a cover has, gathered once for all streams that are sent all of
// it at once.
type whole struct {
	cover
	clusters  *Set
	resources []*Resource // in the order of names
	sum       sum
	missing   []string // names that are subscribed to and not in the set
	foreign   bool     // there is an assignment of a cluster that is not served: not everybody gets it
}

// gather finds all that a cover has.
func (t *Table) gather(typ Type, c cover) *whole {
	clusters := t.set(Clusters)
	if c.at.shared != nil {
		if last := c.at.shared.whole.Load(); last != nil && last.cover == c && last.clusters == clusters {
			return last
		}
	}
	w := &whole{cover: c, clusters: clusters}
	c.each(func(r *Resource) {
		w.resources = append(w.resources, r)
		w.sum = w.sum.plus(r.sum)
		if upstream := upstreamOf(r.Name); typ == Assignments && clusters.get(upstream) == nil && !t.Unknown[upstream] {
			w.foreign = true
		}
	})
	if len(w.resources) < c.names.len() {
		for name := range c.names.sorted().all() {
			if c.at.get(name) == nil {
				w.missing = append(w.missing, name)
			}
		}
	}
	if c.at.shared != nil {
		c.at.shared.whole.Store(w)
	}
	return w
}

// flight is all of a whole on its way: names that are no exceptions stand as sent.
type flight struct {
	*whole
	left  int     // parts without an answer
	taken []*sent // parts that were accepted
}

// sentOf is how a name stands that was sent with all others and is not answered.
func sentOf(r *Resource) standing { return standing{held: held{r.Version, r}, holds: true} }

// sendWhole answers the first request of a type, of a client that holds nothing, with
// all that there is, whatever the number of names. It does not where names have to be
// looked at one by one.
func (s *Session) sendWhole(st *state, now time.Time) bool {
	if st.typ != Clusters && st.typ != Assignments || len(st.over) > 0 || s.engine.suspicious() || len(s.memory.Parked()) > 0 {
		return false
	}
	w := s.table.gather(st.typ, cover{s.table.set(st.typ), st.names, st.all})
	if w.foreign || len(w.resources) == 0 {
		return false
	}
	st.cover = w.cover
	st.say, st.flight = sentOf, &flight{whole: w}
	st.sum, st.count = w.sum, len(w.resources)
	for _, name := range w.missing {
		st.asks(name)
	}
	if st.typ == Clusters {
		s.askAssignments(w.resources)
	}
	before := len(st.open)
	s.open(st, w.resources, nil, now)
	for _, o := range st.open[before:] {
		o.flight = st.flight
		st.flight.left++
	}
	return true
}

// landed takes the answer of a part of a whole; with the last one every name that is
// no exception is acknowledged.
func (s *Session) landed(st *state, o *sent) {
	f := st.flight
	f.taken = append(f.taken, o)
	if f.left--; f.left > 0 {
		return
	}
	for name, x := range st.over {
		if r := f.get(name); r != nil && x.value.holds && x.value.version == r.Version {
			x.value.res, x.value.acked, x.value.some = r, true, true
			st.put(name, x.value)
		}
	}
	st.flight = nil
	st.says(standingOf)
	s.memory.acceptAll(st.typ, f.cover)
}

// takeApart looks at the names of a whole one by one: it was not accepted as one.
func (s *Session) takeApart(st *state) {
	f := st.flight
	st.flight = nil
	st.says(standingOf)
	st.cover.each(func(r *Resource) {
		if _, otherwise := st.over[r.Name]; !otherwise {
			st.set(r.Name, sentOf(r), r, false)
		}
	})
	for _, o := range f.taken {
		s.took(st, o.resources)
	}
}
