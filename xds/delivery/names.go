package delivery

import (
	"hash/maphash"
	"maps"
	"slices"
	"strings"
)

// Names are what a stream subscribes to by name. They are immutable and shared by
// all streams that subscribe to the same, whichever way they came to it. nil has no
// name.
type Names struct {
	set  sorted[struct{}]
	id   namesID
	uses int // guarded by the engine
}

// namesID tells sets of names of a type apart: two hashes of each name under seeds
// of this process, added up.
type namesID struct {
	typ Type
	sum [2]uint64
}

var nameSeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

func (id namesID) plus(name string) namesID {
	for i, seed := range nameSeeds {
		id.sum[i] += maphash.String(seed, name)
	}
	return id
}

func (id namesID) minus(name string) namesID {
	for i, seed := range nameSeeds {
		id.sum[i] -= maphash.String(seed, name)
	}
	return id
}

func (n *Names) has(name string) bool {
	if n == nil {
		return false
	}
	_, ok := n.set.get(name)
	return ok
}

func (n *Names) len() int {
	if n == nil {
		return 0
	}
	return n.set.n
}

// sorted are the names as a sorted set.
func (n *Names) sorted() sorted[struct{}] {
	if n == nil {
		return sorted[struct{}]{}
	}
	return n.set
}

// are tells whether these are just the names.
func (n *Names) are(typ Type, names []string) bool {
	if n.len() != len(names) || n == nil {
		return n.len() == len(names)
	}
	id := namesID{typ: typ}
	for _, name := range names {
		id = id.plus(name)
	}
	return id == n.id // with one name twice another one is missing
}

// exchange gives a stream that has some names others: added to, which are not
// among them, and taken from, which are. Both are sorted, each name once. It is O(changed)
// but for the first stream with many names.
func (e *Engine) exchange(typ Type, have *Names, add, remove []string) *Names {
	id := namesID{typ: typ}
	if have != nil {
		id = have.id
	}
	for _, name := range add {
		id = id.plus(name)
	}
	for _, name := range remove {
		id = id.minus(name)
	}
	n := have.len() + len(add) - len(remove)
	e.mu.Lock()
	defer e.mu.Unlock()
	var next *Names
	if n > 0 {
		next = e.names[id]
		if next == nil {
			next = &Names{set: have.exchanged(add, remove), id: id}
			e.names[id] = next
			e.demandChanged(typ)
		}
		next.uses++
	}
	e.release(have)
	return next
}

// exchanged is the set with names added and removed.
func (n *Names) exchanged(add, remove []string) sorted[struct{}] {
	set := n.sorted()
	if len(add)+len(remove) > max(pageSize, set.n/pageSize) {
		names := maps.Collect(set.all())
		for _, name := range remove {
			delete(names, name)
		}
		for _, name := range add {
			names[name] = struct{}{}
		}
		entries := make([]entry[struct{}], 0, len(names))
		for _, name := range slices.Sorted(maps.Keys(names)) {
			entries = append(entries, entry[struct{}]{name: name})
		}
		return set.rebuilt(entries)
	}
	for _, name := range remove {
		set = set.without(name)
	}
	for _, name := range add {
		set = set.with(strings.Clone(name), struct{}{}) // it is part of a whole request
	}
	return set
}

// leave ends a stream's subscriptions.
func (e *Engine) leave(types states) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, st := range types {
		e.release(st.names)
		st.names = nil
	}
}

// release ends one stream's use. mu is held.
func (e *Engine) release(n *Names) {
	if n == nil {
		return
	}
	if n.uses--; n.uses == 0 {
		delete(e.names, n.id)
		e.demandChanged(n.id.typ)
	}
}

// demandChanged tells that other assignments may be wanted. mu is held.
func (e *Engine) demandChanged(typ Type) {
	if typ != Assignments {
		return
	}
	select {
	case e.demand <- struct{}{}:
	default:
	}
}

// Wanted lists the assignments that any stream subscribes to, sorted.
func (e *Engine) Wanted() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	wanted := map[string]struct{}{}
	for id, names := range e.names {
		if id.typ == Assignments {
			maps.Insert(wanted, names.set.all())
		}
	}
	return slices.Sorted(maps.Keys(wanted))
}

// Demand receives after Wanted changed. There is one reader.
func (e *Engine) Demand() <-chan struct{} { return e.demand }
