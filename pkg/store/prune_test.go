package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// However history is cut, every revision that is kept is exactly what it was, the
// newest of both kinds are kept, and nothing is left of the others.
func TestPrune(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test draws from it
		cfg := config(t.TempDir())
		now := time.Unix(1_000_000, 0)
		cfg.Now = func() time.Time { return now }
		cfg.Verify = nil
		cfg.History = History{Keep: 4, MaxAge: time.Hour}
		s, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		was := map[uint64]map[spec.Ref]string{} // what each revision was
		specs, times := map[uint64]bool{}, map[uint64]time.Time{}
		apply := func() {
			text := fmt.Sprintf("kind: Service\nname: s%d\nspec: {endpoints: [{address: '10.0.0.1:%d'}]}\n", r.IntN(3), 1+r.IntN(60000))
			mix := []string{"upstream", "short", "service", "service"}
			if seed%2 == 1 {
				mix = []string{"upstream", "upstream", "upstream", "service"}
			}
			switch mix[r.IntN(len(mix))] {
			case "upstream":
				text = fmt.Sprintf("kind: Upstream\nname: u%d\nspec: {endpoints: [], connectTimeout: %dms}\n", r.IntN(3), 1+r.IntN(60000))
			case "short":
				text = fmt.Sprintf("kind: Upstream\nname: short\nspec: {endpoints: [{address: '10.0.0.2:%d'}]}\n", 1+r.IntN(60000))
			}
			edits := docs(t, text)
			if edits[0].Ref.Name == "u1" && s.State().Spec.Document(spec.KindUpstream, "u1") != nil && r.IntN(2) == 0 {
				edits[0].Document = nil
			}
			out, err := s.Apply(t.Context(), Apply{Edits: edits})
			if err != nil {
				t.Fatal(err)
			}
			if out.Revision == 0 {
				return
			}
			at := map[spec.Ref]string{}
			for _, d := range s.State().Spec.Documents("") {
				at[d.Ref] = d.Hash()
			}
			was[out.Revision] = at
			specs[out.Revision], times[out.Revision] = s.State().Spec.Revision == out.Revision, now
		}
		check := func() {
			t.Helper()
			if err := s.prune(); err != nil {
				t.Fatal(err)
			}
			items, total, err := s.Revisions(0, 10_000)
			if err != nil || total != len(items) || items[0].Number != s.State().Revision {
				t.Fatalf("seed %d: %d of %d revisions, the newest %d of %d: %v", seed, len(items), total, items[0].Number, s.State().Revision, err)
			}
			kept, count := map[uint64]bool{}, map[bool]int{}
			for _, x := range items {
				kept[x.Number] = true
				count[specs[x.Number]]++
				if x.Spec != specs[x.Number] {
					t.Errorf("seed %d: revision %d became one of the other kind", seed, x.Number)
				}
				for _, c := range x.Changes {
					if got := was[x.Number][spec.Ref{Kind: c.Kind, Name: c.Name}]; got != c.To {
						t.Errorf("seed %d: revision %d says that %s became %q, it is %q", seed, x.Number, c.Name, c.To, got)
					}
				}
			}
			if count[true] > 5 || count[false] > 5 { // the present one besides
				t.Errorf("seed %d: %d and %d are kept", seed, count[true], count[false])
			}
			due := map[bool]int{}
			for _, n := range slices.Backward(slices.Sorted(maps.Keys(specs))) {
				due[specs[n]]++
				if keep := s.cfg.History; due[specs[n]] <= keep.Keep && times[n].After(now.Add(-keep.MaxAge)) && !kept[n] {
					t.Errorf("seed %d: revision %d is among the newest %d of its kind, and was cut out", seed, n, keep.Keep)
				}
			}
			for n, want := range was {
				got, err := s.At(n)
				if !kept[n] {
					if !errors.Is(err, model.ErrNotFound) {
						t.Errorf("seed %d: revision %d is cut out and answers %v", seed, n, err)
					}
					continue
				}
				if err != nil || len(got) != len(want) {
					t.Errorf("seed %d: revision %d: %d documents, want %d: %v", seed, n, len(got), len(want), err)
					continue
				}
				for ref, hash := range want {
					if got[ref] == nil || got[ref].Hash() != hash {
						t.Errorf("seed %d: %s is another at revision %d", seed, ref, n)
					}
				}
				if before, err := s.Before(n); err == nil && before != 0 && !kept[before] {
					t.Errorf("seed %d: before %d comes %d, which is cut out", seed, n, before)
				}
			}
			if _, err := s.Upstreams(); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			if n := objectsOf(t, s); n > 3*len(items)+10 {
				t.Errorf("seed %d: %d objects for %d revisions", seed, n, len(items))
			}
		}
		for range 12 {
			for range 1 + r.IntN(6) {
				now = now.Add(time.Duration(r.IntN(10)) * time.Minute)
				apply()
			}
			check()
		}
		now = now.Add(2 * time.Hour) // everything is old
		check()
		if _, total, _ := s.Revisions(0, 1); total != 1 {
			t.Errorf("seed %d: %d revisions are left", seed, total)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func objectsOf(t *testing.T, s *Store) (n int) {
	t.Helper()
	if err := s.db.View(func(tx *bolt.Tx) error { n = tx.Bucket(bucketObjects).Stats().KeyN; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// The forms of upstreams that kept revisions have are all found, that of a revision
// which was cut out too; one that cannot be read spoils neither the others nor the
// revisions that do not have it.
func TestFormsOfUpstreams(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir)
	cfg.History = History{Keep: 2, MaxAge: time.Hour}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"a 1ms", "b 1ms", "a 2ms", "b 2ms"} {
		name, timeout, _ := strings.Cut(text, " ")
		if _, err := s.Apply(t.Context(), Apply{Edits: docs(t, "kind: Upstream\nname: "+name+"\nspec: {endpoints: [], connectTimeout: "+timeout+"}\n")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.prune(); err != nil {
		t.Fatal(err)
	}
	forms := func() string {
		t.Helper()
		all, err := s.Upstreams()
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, d := range all {
			out = append(out, d.Name+" "+d.Body.(*spec.Upstream).ConnectTimeout.String())
		}
		slices.Sort(out)
		return strings.Join(out, ", ")
	}
	if _, err := s.At(2); err == nil {
		t.Fatal("revision 2 is kept: nothing is shown")
	}
	if got := forms(); got != "a 2ms, b 1ms, b 2ms" { // at 3: a 2ms and b 1ms
		t.Errorf("forms: %s", got)
	}
	old := spec.Ref{Kind: spec.KindUpstream, Name: "b"}
	at, err := s.At(3)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketObjects).Put([]byte(at[old].Hash()), []byte(`{"kind":"Upstream","name":"b","spec":{"newer":1}}`))
	}); err != nil {
		t.Fatal(err)
	}
	if got := forms(); got != "a 2ms, b 2ms" {
		t.Errorf("beside one that cannot be read: %s", got)
	}
	if _, err := s.At(4); err != nil {
		t.Error(err)
	}
	if _, err := s.At(3); err == nil {
		t.Error("a revision with a form that cannot be read is read")
	}
}
