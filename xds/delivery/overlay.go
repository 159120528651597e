package delivery

import "sync/atomic"

// cover is a part of a set: the names that somebody subscribes to, or all.
type cover struct {
	at    *Set
	names *Names
	all   bool
}

func (c cover) covers(name string) bool { return c.all || c.names.has(name) }

// get is the form that a name has in the set; nil where it is not covered.
func (c cover) get(name string) *Resource {
	if c.at == nil || !c.covers(name) {
		return nil
	}
	return c.at.get(name)
}

// each calls f with what is covered, in the order of names.
func (c cover) each(f func(*Resource)) {
	switch {
	case c.at == nil:
	case c.all || c.names.len() > c.at.resources.n:
		for name, r := range c.at.resources.all() {
			if c.covers(name) {
				f(r)
			}
		}
	default:
		for name := range c.names.sorted().all() {
			if r := c.at.get(name); r != nil {
				f(r)
			}
		}
	}
}

// move is a name of which two covers do not say the same.
type move struct {
	name    string
	was, is *Resource
}

// moves are the names of which two covers do not say the same, found once for all
// streams that go the same way.
type moves struct {
	from, to cover
	list     []move
}

// movesTo lists what another cover says otherwise.
func (c cover) movesTo(to cover) []move {
	if to.at == nil || to.at.shared == nil {
		return c.findMoves(to)
	}
	if last := to.at.shared.moves.Load(); last != nil && last.from == c && last.to == to {
		return last.list
	}
	found := &moves{c, to, c.findMoves(to)}
	to.at.shared.moves.Store(found)
	return found.list
}

func (c cover) findMoves(to cover) (out []move) {
	add := func(name string) {
		if m := (move{name, c.get(name), to.get(name)}); m.was != m.is {
			out = append(out, m)
		}
	}
	if c.all != to.all {
		c.each(func(r *Resource) { add(r.Name) })
		to.each(func(r *Resource) {
			if c.get(r.Name) == nil {
				add(r.Name)
			}
		})
		return out
	}
	if c.names != to.names && !c.all {
		diff(c.names.sorted(), to.names.sorted(), func(name string, _, _ struct{}) { add(name) })
	}
	diff(c.at.sorted(), to.at.sorted(), func(name string, _, _ *Resource) {
		if c.all || c.names == to.names || c.names.has(name) == to.names.has(name) { // else it is found
			add(name)
		}
	})
	return out
}

// shared is what was found last for one stream of a class and serves the others,
// which mostly ask the same. The sets that follow each other have one.
type shared struct {
	moves atomic.Pointer[moves]
	steps steps
}

// overlay is a value for each name: what a cover says of it, but for exceptions. So
// it costs as much as there are exceptions, however many names there are. The zero
// value of V is what is said of a name that the cover does not have.
type overlay[V comparable] struct {
	cover
	say  func(*Resource) V
	over map[string]exception[V]
	most int // exceptions that there were
}

type exception[V comparable] struct {
	value V
	plain *Resource // what the cover has
}

// manyNames is from where on a map is not kept that became empty: it stays large.
const manyNames = 8

func (o *overlay[V]) plain(r *Resource) (v V) {
	if r == nil {
		return v
	}
	return o.say(r)
}

func (o *overlay[V]) get(name string) V {
	if x, ok := o.over[name]; ok {
		return x.value
	}
	return o.plain(o.cover.get(name))
}

// put changes one name.
func (o *overlay[V]) put(name string, value V) {
	x, ok := o.over[name]
	if !ok {
		x.plain = o.cover.get(name)
	}
	o.set(name, value, x.plain, ok)
}

// set writes down a value, where the cover does not say it.
func (o *overlay[V]) set(name string, value V, plain *Resource, excepted bool) {
	if value != o.plain(plain) {
		if o.over == nil {
			o.over = map[string]exception[V]{}
		}
		o.over[name] = exception[V]{value, plain}
		o.most = max(o.most, len(o.over))
		return
	}
	if !excepted {
		return
	}
	if delete(o.over, name); len(o.over) == 0 && o.most > manyNames {
		o.over, o.most = nil, 0
	}
}

// moveTo says the same by another cover.
func (o *overlay[V]) moveTo(to cover) {
	if o.cover == to {
		return
	}
	for _, m := range o.movesTo(to) {
		x, ok := o.over[m.name]
		if !ok {
			x.value = o.plain(m.was)
		}
		o.set(m.name, x.value, m.is, ok)
	}
	o.cover = to
}

// says exchanges what a covered resource says; exceptions stay what they are.
func (o *overlay[V]) says(say func(*Resource) V) {
	o.say = say
	for name, x := range o.over {
		o.set(name, x.value, x.plain, true)
	}
}

// each calls f with every name of which anything is said.
func (o *overlay[V]) each(f func(name string, value V)) {
	var none V
	o.cover.each(func(r *Resource) {
		if _, otherwise := o.over[r.Name]; !otherwise {
			f(r.Name, o.say(r))
		}
	})
	for name, x := range o.over {
		if x.value != none {
			f(name, x.value)
		}
	}
}
