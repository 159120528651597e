package delivery

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"iter"
	"maps"
	"slices"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Set is every resource of one type that a class is served, by name. It is
// immutable; sets that follow each other share what did not change.
type Set struct {
	resources sorted[*Resource]
	sum       sum
	shared    *shared
}

var noResources = &Set{}

func (s *Set) sorted() sorted[*Resource] {
	if s == nil {
		return sorted[*Resource]{}
	}
	return s.resources
}

// get finds a resource; nil when it is not served.
func (s *Set) get(name string) *Resource {
	r, _ := s.resources.get(name)
	return r
}

func (s *Set) next(resources sorted[*Resource]) *Set {
	if s.shared == nil {
		return &Set{resources: resources, shared: &shared{}}
	}
	return &Set{resources: resources, shared: s.shared}
}

// with is the set in which a resource has its new form.
func (s *Set) with(r *Resource) *Set {
	was := s.get(r.Name)
	if was == r {
		return s
	}
	out := s.next(s.resources.with(r.Name, r))
	out.sum = s.sum.plus(r.sum)
	if was != nil {
		out.sum = out.sum.minus(was.sum)
	}
	return out
}

// rebuilt is the set of these resources; s itself where nothing changed.
func (s *Set) rebuilt(resources map[string]*Resource) *Set {
	entries := make([]entry[*Resource], 0, len(resources))
	for _, name := range slices.Sorted(maps.Keys(resources)) {
		entries = append(entries, entry[*Resource]{name, resources[name]})
	}
	out := s.next(s.resources.rebuilt(entries))
	out.sum = s.sum
	same := true
	diff(s.resources, out.resources, func(_ string, was, is *Resource) {
		same = false
		if was != nil {
			out.sum = out.sum.minus(was.sum)
		}
		if is != nil {
			out.sum = out.sum.plus(is.sum)
		}
	})
	if same {
		return s
	}
	return out
}

// Table is everything a class is served at one moment. It is immutable; the zero
// value serves nothing.
type Table struct {
	sets [typeCount]*Set // in the order of Types; nil has nothing
	// Unknown are the names of upstreams that are declared and of which nothing is
	// known yet, and of secrets whose files were never readable: they are neither
	// served nor told as removed.
	Unknown map[string]bool
}

// NewTable is a table of resources by type and name. It shares what it can with the
// one before, which may be nil; where nothing changed it is that one.
func NewTable(before *Table, resources map[Type]map[string]*Resource, unknown map[string]bool) *Table {
	t := &Table{Unknown: unknown}
	same := before != nil && maps.Equal(before.Unknown, unknown)
	for i, typ := range Types {
		t.sets[i] = before.set(typ).rebuilt(resources[typ])
		same = same && t.sets[i] == before.set(typ)
	}
	if same {
		return before
	}
	return t
}

// With is the table in which resources have their new forms; t itself where they
// are no news.
func (t *Table) With(resources ...*Resource) *Table {
	out := t
	for _, r := range resources {
		set := out.set(r.Type).with(r)
		if set == out.set(r.Type) {
			continue
		}
		if out == t {
			out = &Table{sets: t.sets, Unknown: t.Unknown}
		}
		out.sets[r.Type.index()] = set
	}
	return out
}

func (t *Table) set(typ Type) *Set {
	if t == nil {
		return noResources
	}
	if s := t.sets[typ.index()]; s != nil {
		return s
	}
	return noResources
}

// Get finds a resource; nil when it is not served.
func (t *Table) Get(typ Type, name string) *Resource { return t.set(typ).get(name) }

// Len is how many resources there are, of all types.
func (t *Table) Len() (n int) {
	for _, typ := range Types {
		n += t.set(typ).resources.n
	}
	return n
}

// All yields the resources of a type in the order of their names.
func (t *Table) All(typ Type) iter.Seq[*Resource] {
	return func(yield func(*Resource) bool) {
		for _, r := range t.set(typ).resources.all() {
			if !yield(r) {
				return
			}
		}
	}
}

// sum is the version of a set of names and their versions, as far as it can be
// added to: four words of the hash of each, added up. So the version of a set costs
// what changed, and is the same however the set came to be. (Sorting and hashing
// them all costs each stream a walk over all names for each response.)
type sum [4]uint64

func sumOf(name, version string) (s sum) {
	var room [256]byte
	h := sha256.Sum256(append(append(append(room[:0], name...), 0), version...))
	for i := range s {
		s[i] = binary.BigEndian.Uint64(h[8*i:])
	}
	return s
}

func (s sum) plus(o sum) sum {
	for i := range s {
		s[i] += o[i]
	}
	return s
}

func (s sum) minus(o sum) sum {
	for i := range s {
		s[i] -= o[i]
	}
	return s
}

// version is what a state-of-the-world client presents when it comes back: 16 hex
// digits.
func (s sum) version() string {
	var b [32]byte
	for i, word := range s {
		binary.BigEndian.PutUint64(b[8*i:], word)
	}
	h := sha256.Sum256(b[:])
	return hex.EncodeToString(h[:8])
}

// Class is the proxies that are served the very same resources.
type Class struct {
	Group string
	// Band is the minor of Envoy's version, clamped to what is supported; 0 are
	// gRPC's own clients.
	Band int
	// Telemetry is what they are asked to report, and can.
	Telemetry model.Telemetry
}
