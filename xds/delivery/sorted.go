package delivery

import (
	"iter"
	"slices"
	"sort"
	"strings"
)

// sorted is a persistent map from names, in their order. It is immutable: what
// changes it returns another one, and the two share every page that did not
// change. So a change copies one page and the list of pages, and two of them are
// compared by looking at what they do not share (BenchmarkDiff). No library has a
// comparison that skips what is shared; without it each stream would need a log of
// changes, and a place in it that must not be thrown away.
type sorted[V comparable] struct {
	pages []*page[V]
	n     int
}

// page is a run of entries, never empty.
type page[V comparable] struct{ entries []entry[V] }

type entry[V comparable] struct {
	name  string
	value V
}

// pageSize is how many entries a new page has; one of twice as many is cut in two.
const pageSize = 64

// sortedOf makes a map of entries that are in order, each name once. A page has its
// own: a part of a larger list would keep the whole of it.
func sortedOf[V comparable](entries []entry[V]) sorted[V] {
	s := sorted[V]{n: len(entries)}
	for part := range slices.Chunk(entries, pageSize) {
		s.pages = append(s.pages, &page[V]{slices.Clone(part)})
	}
	return s
}

// find is the page where a name is or would be, and its place there.
func (s sorted[V]) find(name string) (pageAt, at int, found bool) {
	pageAt = max(0, sort.Search(len(s.pages), func(i int) bool { return s.pages[i].entries[0].name > name })-1)
	if len(s.pages) == 0 {
		return 0, 0, false
	}
	at, found = slices.BinarySearchFunc(s.pages[pageAt].entries, name, func(e entry[V], name string) int { return strings.Compare(e.name, name) })
	return pageAt, at, found
}

func (s sorted[V]) get(name string) (value V, ok bool) {
	p, i, ok := s.find(name)
	if !ok {
		return value, false
	}
	return s.pages[p].entries[i].value, true
}

// with is the map in which a name has a value.
func (s sorted[V]) with(name string, value V) sorted[V] {
	if len(s.pages) == 0 {
		return sortedOf([]entry[V]{{name, value}})
	}
	p, i, found := s.find(name)
	old := s.pages[p].entries
	entries := make([]entry[V], 0, len(old)+1)
	entries = append(append(entries, old[:i]...), entry[V]{name, value})
	n := s.n
	if found {
		i++
	} else {
		n++
	}
	entries = append(entries, old[i:]...)
	if len(entries) >= 2*pageSize {
		return sorted[V]{s.cut(p, 1, &page[V]{entries[:pageSize:pageSize]}, &page[V]{entries[pageSize:]}), n}
	}
	return sorted[V]{s.cut(p, 1, &page[V]{entries}), n}
}

// without is the map in which a name is not.
func (s sorted[V]) without(name string) sorted[V] {
	p, i, found := s.find(name)
	if !found {
		return s
	}
	old := s.pages[p].entries
	entries := slices.Concat(old[:i], old[i+1:])
	switch {
	case len(entries) == 0:
		return sorted[V]{s.cut(p, 1), s.n - 1}
	case p+1 < len(s.pages) && len(entries)+len(s.pages[p+1].entries) <= pageSize:
		return sorted[V]{s.cut(p, 2, &page[V]{slices.Concat(entries, s.pages[p+1].entries)}), s.n - 1}
	}
	return sorted[V]{s.cut(p, 1, &page[V]{entries}), s.n - 1}
}

// cut is the list of pages with some of them exchanged.
func (s sorted[V]) cut(at, n int, by ...*page[V]) []*page[V] {
	return slices.Concat(s.pages[:at], by, s.pages[at+n:])
}

// rebuilt is a map of entries that are in order. It shares with s the pages of
// which nothing changed.
func (s sorted[V]) rebuilt(entries []entry[V]) sorted[V] {
	out := sorted[V]{n: len(entries)}
	for i, p := range s.pages {
		n := len(entries)
		if i+1 < len(s.pages) {
			end := s.pages[i+1].entries[0].name
			n, _ = slices.BinarySearchFunc(entries, end, func(e entry[V], end string) int { return strings.Compare(e.name, end) })
		}
		if part := entries[:n]; slices.Equal(part, p.entries) {
			out.pages = append(out.pages, p)
		} else {
			out.pages = append(out.pages, sortedOf(part).pages...)
		}
		entries = entries[n:]
	}
	out.pages = append(out.pages, sortedOf(entries).pages...)
	return out
}

// all yields the entries in order.
func (s sorted[V]) all() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, p := range s.pages {
			for _, e := range p.entries {
				if !yield(e.name, e.value) {
					return
				}
			}
		}
	}
}

// diff calls f with each name whose value is not the same in two maps; the zero
// value stands for a name that is not there.
func diff[V comparable](was, is sorted[V], f func(name string, was, is V)) {
	var none V
	a, b := place[V]{pages: was.pages}, place[V]{pages: is.pages}
	for {
		for a.i == 0 && b.i == 0 && len(a.pages) > 0 && len(b.pages) > 0 && a.pages[0] == b.pages[0] {
			a.pages, b.pages = a.pages[1:], b.pages[1:] // shared
		}
		x, y := a.entry(), b.entry()
		switch {
		case x == nil && y == nil:
			return
		case x != nil && y != nil && x.name == y.name:
			if x.value != y.value {
				f(x.name, x.value, y.value)
			}
			a.next()
			b.next()
		case y == nil || x != nil && x.name < y.name:
			f(x.name, x.value, none)
			a.next()
		default:
			f(y.name, none, y.value)
			b.next()
		}
	}
}

// place is where a walk over pages stands.
type place[V comparable] struct {
	pages []*page[V]
	i     int
}

// entry is the next one, nil at the end.
func (p *place[V]) entry() *entry[V] {
	if len(p.pages) == 0 {
		return nil
	}
	return &p.pages[0].entries[p.i]
}

func (p *place[V]) next() {
	if p.i++; p.i == len(p.pages[0].entries) {
		p.pages, p.i = p.pages[1:], 0
	}
}
