package delivery

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"testing"
	"weak"

	"pgregory.net/rapid"
)

// A sorted map is what a map is, whatever is done to it, and leaves the one that it
// came from as it was; a comparison names just what differs.
func TestSorted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s sorted[int]
		model := map[string]int{}
		names := rapid.IntRange(0, 400)
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			before, was := s, maps.Clone(model)
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				name, value := fmt.Sprint(names.Draw(t, "name")), rapid.IntRange(1, 9).Draw(t, "value")
				s, model[name] = s.with(name, value), value
			case 1:
				name := fmt.Sprint(names.Draw(t, "name"))
				s = s.without(name)
				delete(model, name)
			case 2: // many at once
				for i := range rapid.IntRange(0, 300).Draw(t, "many") {
					s, model[fmt.Sprint(i)] = s.with(fmt.Sprint(i), 1), 1
				}
			case 3:
				for i := range rapid.IntRange(0, 20).Draw(t, "some") {
					delete(model, fmt.Sprint(i))
				}
				s = s.rebuilt(entriesOf(model))
			}
			same(t, s, model)
			same(t, before, was)
			differs(t, before, s, was, model)
			differs(t, s, before, model, was)
		}
	})
}

func entriesOf(m map[string]int) (out []entry[int]) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		out = append(out, entry[int]{name, m[name]})
	}
	return out
}

func same(t *rapid.T, s sorted[int], want map[string]int) {
	t.Helper()
	if !maps.Equal(maps.Collect(s.all()), want) || s.n != len(want) {
		t.Fatalf("%d entries, want %d", s.n, len(want))
	}
	for _, p := range s.pages {
		if len(p.entries) == 0 || len(p.entries) >= 2*pageSize {
			t.Fatalf("a page of %d entries", len(p.entries))
		}
	}
	last := ""
	for name, value := range s.all() {
		if got, ok := s.get(name); !ok || got != value || name <= last {
			t.Fatalf("%q is %d, after %q", name, got, last)
		}
		last = name
	}
	if _, ok := s.get("nobody"); ok {
		t.Fatal("who is nobody?")
	}
}

func differs(t *rapid.T, a, b sorted[int], was, is map[string]int) {
	t.Helper()
	want := map[string][2]int{}
	for name := range was {
		want[name] = [2]int{was[name], is[name]}
	}
	for name := range is {
		want[name] = [2]int{was[name], is[name]}
	}
	maps.DeleteFunc(want, func(_ string, v [2]int) bool { return v[0] == v[1] })
	got := map[string][2]int{}
	diff(a, b, func(name string, x, y int) { got[name] = [2]int{x, y} })
	if !maps.Equal(got, want) {
		t.Fatalf("differ in %v, want %v", got, want)
	}
}

// What does not change is shared: a rebuilt map of 10,000 with one difference has
// one page of its own.
func TestSortedShares(t *testing.T) {
	entries := make([]entry[int], 10_000)
	for i := range entries {
		entries[i] = entry[int]{fmt.Sprintf("%05d", i), 1}
	}
	s := sortedOf(slices.Clone(entries))
	entries[5000].value = 2
	for what, other := range map[string]sorted[int]{"with": s.with("05000", 2), "rebuilt": s.rebuilt(entries), "without": s.without("05000")} {
		own := 0
		for _, p := range other.pages {
			if !slices.Contains(s.pages, p) {
				own++
			}
		}
		if own != 1 {
			t.Errorf("%s: %d pages are its own", what, own)
		}
	}
}

// A page keeps nothing but its own: what was made beside it goes when nobody has it.
func TestSortedKeepsNoMore(t *testing.T) {
	entries := make([]entry[*[64]int], 200)
	for i := range entries {
		entries[i] = entry[*[64]int]{fmt.Sprintf("%03d", i), &[64]int{}}
	}
	s := sortedOf(slices.Clone(entries))
	entries[0].value, entries[199].value = &[64]int{}, &[64]int{}
	gone := weak.Make(entries[199].value)
	s = s.rebuilt(slices.Clone(entries)) // the first and the last page
	entries[199].value = nil
	s = s.without("199") // the last page alone
	runtime.GC()
	if gone.Value() != nil {
		t.Error("what nobody has is kept")
	}
	runtime.KeepAlive(s)
}

// One change among many names, as each stream finds it.
func BenchmarkDiff(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			entries := make([]entry[int], n)
			for i := range entries {
				entries[i] = entry[int]{fmt.Sprintf("%06d", i), 1}
			}
			was := sortedOf(entries)
			is := was.with(entries[n/2].name, 2)
			found := 0
			for b.Loop() {
				diff(was, is, func(string, int, int) { found++ })
			}
			if found != b.N {
				b.Fatalf("%d found", found)
			}
		})
	}
}
