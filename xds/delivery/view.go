package delivery

import "maps"

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

// differences calls f with every name that may stand otherwise under another cover.
func (c cover) differences(to cover, f func(name string)) {
	if c.all != to.all {
		c.each(func(r *Resource) { f(r.Name) })
		to.each(func(r *Resource) { f(r.Name) })
		return
	}
	if c.names != to.names && !c.all {
		diff(c.names.sorted(), to.names.sorted(), func(name string, _, _ struct{}) { f(name) })
	}
	if c.at != to.at {
		var was, is sorted[*Resource]
		if c.at != nil {
			was = c.at.resources
		}
		if to.at != nil {
			is = to.at.resources
		}
		diff(was, is, func(name string, _, _ *Resource) {
			if c.covers(name) || to.covers(name) {
				f(name)
			}
		})
	}
}

// view is which form somebody has of each name: that of a cover, but for what it has
// otherwise. So it costs as much as it differs, however many names there are.
type view struct {
	cover
	over map[string]*Resource // nil: none
}

func (v *view) get(name string) *Resource {
	if v == nil {
		return nil
	}
	if r, ok := v.over[name]; ok {
		return r
	}
	return v.cover.get(name)
}

// put changes one name; nil is none.
func (v *view) put(name string, r *Resource) {
	if v.cover.get(name) == r {
		delete(v.over, name)
		return
	}
	if v.over == nil {
		v.over = map[string]*Resource{}
	}
	v.over[name] = r
}

// moveTo says the same by another cover.
func (v *view) moveTo(to cover) {
	if v.cover == to {
		return
	}
	was := map[string]*Resource{}
	v.differences(to, func(name string) { was[name] = v.get(name) })
	v.cover = to
	for name, r := range was {
		v.put(name, r)
	}
	if len(v.over) == 0 {
		v.over = nil // a map that was large stays so
	}
}

func (v *view) all() map[string]*Resource {
	out := map[string]*Resource{}
	if v == nil {
		return out
	}
	v.each(func(r *Resource) { out[r.Name] = r })
	maps.Copy(out, v.over)
	maps.DeleteFunc(out, func(_ string, r *Resource) bool { return r == nil })
	return out
}
