package spec

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestWith: a Spec that came to be change by change says the same as one that is made of
// all its documents, and those that it came from stay as they were.
func TestWith(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now, _, _ := New(0, nil)
		docs := map[Ref]*Document{}
		for n := range rapid.IntRange(1, 12).Draw(t, "changes") {
			var set []*Document
			var gone []Ref
			for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, 7), 0, 3, rapid.ID).Draw(t, "names") {
				text := fmt.Sprintf("kind: Upstream\nname: u%d\nspec: {service: {source: consul}, connectTimeout: %dms}\n", i, n+1)
				if i > 4 {
					text = fmt.Sprintf("kind: Route\nname: r%d\nspec: {hosts: ['%d.test'], rules: [{to: [{upstream: u%d}]}]}\n", i, n, i-5)
				}
				parsed, faults := Parse("test", []byte(text))
				if err := faults.Err(); err != nil {
					t.Fatal(err)
				}
				d := parsed[0]
				if rapid.IntRange(0, 2).Draw(t, "gone") == 0 {
					gone = append(gone, d.Ref)
					delete(docs, d.Ref)
				} else {
					set = append(set, d)
					docs[d.Ref] = d
				}
			}
			before := slices.Clone(now.Documents(""))
			next := now.With(uint64(n), set, gone)
			if !slices.Equal(before, now.Documents("")) {
				t.Fatal("what it came from changed")
			}
			now = next
			var all []*Document
			for _, d := range docs {
				all = append(all, d)
			}
			want, warnings, faults := New(uint64(n), all)
			gotWarnings, gotFaults := now.Check()
			if diff := cmp.Diff(warnings, gotWarnings) + cmp.Diff(faults, gotFaults); diff != "" {
				t.Fatal(diff)
			}
			for _, kind := range []Kind{"", KindUpstream, KindRoute, KindListener} {
				if !slices.Equal(want.Documents(kind), now.Documents(kind)) {
					t.Fatalf("documents of kind %q: %v, want %v", kind, now.Documents(kind), want.Documents(kind))
				}
			}
			for ref, d := range docs {
				if now.Document(ref.Kind, ref.Name) != d {
					t.Fatalf("%s is not what was set", ref)
				}
			}
		}
	})
}
