package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source is told what to report; it takes what it should watch only when told.
type source struct {
	mu     sync.Mutex
	want   <-chan []model.ServiceKey
	report func(model.ServiceKey, discovery.Report)
}

func (s *source) Run(ctx context.Context, want <-chan []model.ServiceKey, report func(model.ServiceKey, discovery.Report)) error {
	s.mu.Lock()
	s.want, s.report = want, report
	s.mu.Unlock()
	<-ctx.Done()
	return nil
}

func (s *source) say(k model.ServiceKey, r discovery.Report) {
	s.mu.Lock()
	report := s.report
	s.mu.Unlock()
	report(k, r)
}

// taken is the set that waits for the source, "-" for none.
func (s *source) taken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case keys := <-s.want:
		var out []string
		for _, k := range keys {
			out = append(out, k.String())
		}
		return strings.Join(out, " ")
	default:
		return "-"
	}
}

type world struct {
	*discovery.Catalog
	a, b   *source
	events []string
}

// catalog runs one with the sources a and b, on a clock of its own.
func catalog(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{a: &source{}, b: &source{}}
		var mu sync.Mutex
		w.Catalog = discovery.New(discovery.Config{Sources: map[string]discovery.Source{"a": w.a, "b": w.b}, Emit: func(e model.Event) {
			mu.Lock()
			defer mu.Unlock()
			line := e.Kind + " " + e.Subject.Name
			for _, s := range []string{e.Endpoint, e.From, e.To} {
				if s != "" {
					line += " " + s
				}
			}
			w.events = append(w.events, line)
		}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = w.Run(ctx)
		}()
		synctest.Wait()
		f(t, w)
		cancel()
		<-done
	})
}

func key(source, name string) model.ServiceKey { return model.ServiceKey{Source: source, Name: name} }

func present(ids ...string) discovery.Present {
	var p discovery.Present
	for _, id := range ids {
		p.Endpoints = append(p.Endpoints, model.Endpoint{ID: id, Address: id + ":80", Health: model.Healthy, Weight: 1})
	}
	return p
}

// known prints what is known of a key: "present 2", "unknown", and the failure.
func (w *world) known(k model.ServiceKey) string {
	e := w.Entry(k)
	out := "unknown"
	if e.Service != nil {
		out = fmt.Sprintf("%s %d", e.Service.Presence, len(e.Service.Endpoints))
	}
	if e.Failure != nil {
		out += " (" + e.Failure.Error() + ")"
	}
	return out
}

func wants(t *testing.T, why, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", why, got, want)
	}
}

// Each source is told its own keys, sorted, once, and only when they change.
func TestWant(t *testing.T) {
	catalog(t, func(t *testing.T, w *world) {
		w.Want([]model.ServiceKey{key("b", "y"), key("a", "y"), key("a", "x"), key("a", "y")})
		wants(t, "a", w.a.taken(), "a/x a/y")
		wants(t, "b", w.b.taken(), "b/y")
		w.Want([]model.ServiceKey{key("a", "y"), key("a", "x")})
		wants(t, "a, unchanged", w.a.taken(), "-")
		wants(t, "b, nothing left", w.b.taken(), "")
		w.Want([]model.ServiceKey{key("a", "z")})
		w.Want([]model.ServiceKey{key("a", "x")})
		wants(t, "only the newest set waits", w.a.taken(), "a/x")
		w.Want([]model.ServiceKey{key("nowhere", "x")})
		wants(t, "a source that is not configured", w.known(key("nowhere", "x")), `unknown (no source is named "nowhere"; configure it, or correct the upstream's service.source)`)
	})
}

// The last authoritative answer stays, whatever fails afterwards; empty and absent
// are answers, a failure is none.
func TestLastGood(t *testing.T) {
	catalog(t, func(t *testing.T, w *world) {
		x := key("a", "x")
		w.Want([]model.ServiceKey{x})
		failed := discovery.Failed{Reason: discovery.NoLeader, Err: errors.New("no leader")}
		w.a.say(x, failed)
		wants(t, "before the first answer", w.known(x), "unknown (no leader)")
		w.a.say(x, present("1", "2"))
		wants(t, "answered", w.known(x), "present 2")
		w.a.say(x, failed)
		wants(t, "failing", w.known(x), "present 2 (no leader)")
		since := w.Entry(x).FailingSince
		time.Sleep(time.Minute)
		w.a.say(x, discovery.Failed{Reason: discovery.Denied, Err: errors.New("denied")})
		if got := w.Entry(x); !got.FailingSince.Equal(since) || got.Failure.Error() != "denied" {
			t.Errorf("failing since %v with %v, want since %v", got.FailingSince, got.Failure, since)
		}
		w.a.say(x, discovery.Empty{})
		wants(t, "nobody is there", w.known(x), "empty 0")
		w.a.say(x, discovery.Absent{})
		wants(t, "no such name", w.known(x), "absent 0")
		want := []string{"endpoint.added x 1:80 healthy", "endpoint.added x 2:80 healthy", "endpoint.removed x 1:80 healthy", "endpoint.removed x 2:80 healthy"}
		for i, e := range w.events {
			w.events[i] = strings.ReplaceAll(e, "a/x", "x")
		}
		if !slices.Equal(w.events, want) {
			t.Errorf("events %q, want %q", w.events, want)
		}
	})
}

// The same answer again is no change; one that changes is told once, by name.
func TestChanges(t *testing.T) {
	catalog(t, func(t *testing.T, w *world) {
		x, y := key("a", "x"), key("a", "y")
		w.Want([]model.ServiceKey{x, y})
		w.a.say(y, present("1"))
		w.a.say(x, present("1"))
		w.a.say(x, present("1", "2"))
		<-w.Signal()
		if got := fmt.Sprint(w.Changes()); got != "[a/x a/y]" {
			t.Errorf("changes %s", got)
		}
		since := w.Entry(x).Since
		time.Sleep(time.Second)
		w.a.say(x, present("1", "2"))
		select {
		case <-w.Signal():
			t.Error("told of a change that is none")
		default:
		}
		if got := w.Entry(x).Since; !got.Equal(since) {
			t.Errorf("changed at %v, want %v", got, since)
		}
		w.a.say(key("a", "z"), present("1"))
		wants(t, "a key that nobody wants", w.known(key("a", "z")), "unknown")
	})
}

// What a probe finds of a source holds for each of its services: their watches may
// go on answering from a cache.
func TestSourceFails(t *testing.T) {
	catalog(t, func(t *testing.T, w *world) {
		x, far := key("a", "x"), key("a", "x")
		far.Datacenter = "dc2"
		w.Want([]model.ServiceKey{x, far, key("b", "x")})
		state := func() string {
			var out []string
			for _, s := range w.Sources() {
				out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s=%s", s.Name, s.Datacenter, s.State)))
			}
			return strings.Join(out, ", ")
		}
		wants(t, "before anything", state(), "a =unknown, a dc2=unknown, b =unknown")
		w.a.say(key("a", ""), discovery.Fresh{})
		w.a.say(x, present("1"))
		w.a.say(far, present("1"))
		w.a.say(key("a", ""), discovery.Failed{Reason: discovery.NoLeader, Err: errors.New("no leader")})
		wants(t, "its service", w.known(x), "present 1 (no leader)")
		wants(t, "another datacenter's", w.known(far), "present 1")
		wants(t, "sources", state(), "a =no leader, a dc2=unknown, b =unknown")
		w.a.say(key("a", ""), discovery.Fresh{})
		wants(t, "again", w.known(x), "present 1")
		dc2 := model.ServiceKey{Source: "a", Datacenter: "dc2"}
		w.a.say(dc2, discovery.Fresh{})
		w.a.say(dc2, discovery.Unwatched{})
		w.Want([]model.ServiceKey{x})
		wants(t, "a datacenter that nothing needs any more", state(), "a =fresh, b =unknown")
	})
}

// A key that is not wanted for a moment of which its source never heard keeps its
// answer, whatever that was: the source has nothing new to say. Where the source
// took the set without it, it is asked anew.
func TestWantedAgain(t *testing.T) {
	for name, report := range map[string]discovery.Report{"present 1": present("1"), "absent 0": discovery.Absent{}} {
		catalog(t, func(t *testing.T, w *world) {
			x, y := key("a", "x"), key("a", "y")
			w.Want([]model.ServiceKey{x})
			wants(t, "the first set", w.a.taken(), "a/x")
			w.a.say(x, report)
			w.Want([]model.ServiceKey{y})
			wants(t, "while nobody wants it", w.known(x), "unknown")
			w.Want([]model.ServiceKey{y, key("a", "z")})
			w.Want([]model.ServiceKey{x})
			wants(t, "wanted again, and the source never heard", w.known(x), name)
			wants(t, "the set that it takes", w.a.taken(), "a/x")
			w.Want([]model.ServiceKey{y})
			wants(t, "the source takes the set without it", w.a.taken(), "a/y")
			w.Want([]model.ServiceKey{x})
			wants(t, "wanted again, and the source watches anew", w.known(x), "unknown")
			w.a.say(x, report)
			wants(t, "answered anew", w.known(x), name)
		})
	}
}

// asked is a source that can be asked for the occasion.
type asked struct {
	source
	says discovery.Report
	n    int
}

func (a *asked) Read(context.Context, model.ServiceKey) discovery.Report { a.n++; return a.says }

// What nobody watches is asked once, and not kept; what is known is not asked.
func TestLook(t *testing.T) {
	src := &asked{says: discovery.Present{Endpoints: []model.Endpoint{{ID: "1"}}}}
	c := discovery.New(discovery.Config{Sources: map[string]discovery.Source{"a": src, "b": &source{}}})
	x := key("a", "x")
	if k := c.Look(t.Context(), x); k.Service == nil || len(k.Service.Endpoints) != 1 || k.Service.Key != x || src.n != 1 {
		t.Errorf("%+v", k)
	}
	if k := c.Entry(x); k.Service != nil {
		t.Errorf("it is kept: %+v", k)
	}
	src.says = discovery.Failed{Reason: discovery.NoLeader, Err: errors.New("no leader")}
	if k := c.Look(t.Context(), x); k.Failure == nil || k.Reason != string(discovery.NoLeader) || k.Service != nil {
		t.Errorf("%+v", k)
	}
	src.says = discovery.Absent{}
	if k := c.Look(t.Context(), x); k.Service == nil || k.Service.Presence != model.Absent {
		t.Errorf("%+v", k)
	}
	if k := c.Look(t.Context(), key("b", "x")); k.Service != nil || k.Failure != nil {
		t.Errorf("a source that cannot be asked: %+v", k)
	}
	if k := c.Look(t.Context(), key("nowhere", "x")); k.Failure == nil || k.Reason != string(discovery.NoSource) {
		t.Errorf("no source: %+v", k)
	}
	n := src.n
	c.Want([]model.ServiceKey{key("nowhere", "x")})
	if k := c.Look(t.Context(), key("nowhere", "x")); k.Failure == nil || src.n != n {
		t.Errorf("known: %+v", k)
	}
}
