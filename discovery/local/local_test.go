package local_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/discovery/local"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// store is a store without a disk.
type store struct {
	mu      sync.Mutex
	spec    *spec.Spec
	changed chan struct{}
}

func (s *store) set(t *testing.T, text string) {
	t.Helper()
	docs, faults := spec.Parse("test", []byte(text))
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	sp, _, faults := spec.New(1, docs)
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed != nil {
		close(s.changed)
	}
	s.spec, s.changed = sp, make(chan struct{})
}

func (s *store) Spec() *spec.Spec {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spec
}

func (s *store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// What the store declares is reported of the keys that are wanted, at once and
// whenever a document changes: instances, a name without any, and no such name are
// three answers.
func TestLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &store{}
		st.set(t, "kind: Service\nname: people\nspec: {endpoints: [{address: '10.0.0.1:80', id: one, weight: 7}, {address: '10.0.0.2:80'}]}\n---\n"+
			"kind: Service\nname: nobody\nspec: {endpoints: []}\n---\nkind: Upstream\nname: short\nspec: {endpoints: [{address: '10.0.0.3:80'}]}\n")
		said := map[string]string{}
		var mu sync.Mutex
		want := make(chan []model.ServiceKey, 1)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- local.Source{Store: st}.Run(ctx, want, func(k model.ServiceKey, r discovery.Report) {
				mu.Lock()
				defer mu.Unlock()
				said[k.Name] = say(r)
			})
		}()
		has := func(why, names string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			var out []string
			for _, n := range slices.Sorted(maps.Keys(said)) {
				out = append(out, n+": "+said[n])
			}
			if got := strings.Join(out, "; "); got != names {
				t.Errorf("%s: %q, want %q", why, got, names)
			}
		}
		has("before anything is wanted", ": fresh")
		keys := st.Spec().LocalServices()
		var all []model.ServiceKey
		for _, s := range keys {
			all = append(all, s.Key)
		}
		want <- append(all, model.ServiceKey{Source: spec.SourceLocal, Name: "misspelt"})
		has("wanted", ": fresh; misspelt: absent; nobody: empty; people: 10.0.0.2:80*1 one*7; short: 10.0.0.3:80*1")
		st.set(t, "kind: Service\nname: nobody\nspec: {endpoints: [{address: '10.0.0.4:80'}]}\n")
		has("changed", ": fresh; misspelt: absent; nobody: 10.0.0.4:80*1; people: absent; short: absent")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The canary is one endpoint while it is registered, each flip is told, and no other
// service is.
func TestCanary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, canary := &store{}, local.NewCanary()
		st.set(t, "kind: Service\nname: people\nspec: {endpoints: [{address: '10.0.0.1:80', id: one}]}\n")
		var mu sync.Mutex
		var said []string
		want := make(chan []model.ServiceKey, 1)
		want <- []model.ServiceKey{model.CanaryKey(spec.SourceLocal)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- local.Source{Store: st, Canary: canary}.Run(ctx, want, func(k model.ServiceKey, r discovery.Report) {
				mu.Lock()
				defer mu.Unlock()
				if k.Name != "" {
					said = append(said, k.Name+" "+say(r))
				}
			})
		}()
		synctest.Wait()
		for _, f := range []func() error{
			func() error { return canary.Flip(ctx, model.Canary{ID: "me", Value: 7}) },
			func() error { return canary.Flip(ctx, model.Canary{ID: "me", Value: 8}) },
			func() error { return canary.Retire(ctx, "me") },
		} {
			if err := f(); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got, want := strings.Join(said, "; "), "wellspring-canary empty; wellspring-canary me*7; wellspring-canary me*8; wellspring-canary empty"; got != want {
			t.Errorf("said %q, want %q", got, want)
		}
	})
}

func say(r discovery.Report) string {
	switch x := r.(type) {
	case discovery.Present:
		var out []string
		for _, e := range x.Endpoints {
			out = append(out, fmt.Sprintf("%s*%d", e.ID, e.Weight))
		}
		return strings.Join(out, " ")
	case discovery.Empty:
		return "empty"
	case discovery.Absent:
		return "absent"
	case discovery.Fresh:
		return "fresh"
	}
	return fmt.Sprintf("%T", r)
}
