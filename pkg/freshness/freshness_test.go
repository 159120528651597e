package freshness_test

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

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/freshness"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// road is a registry, a catalog, a publisher and two proxies; each stage takes 20 ms,
// and may be stuck.
type road struct {
	mu       sync.Mutex
	broken   error           // of writes
	hangs    bool            // and so does every write
	stuck    map[string]bool // stages and proxies
	value    uint32          // in the registry
	seen     uint32
	served   uint32
	proxies  map[string]uint32
	retired  bool
	events   []string
	flips    int
	wrongIDs int
}

func newRoad() *road {
	return &road{stuck: map[string]bool{}, proxies: map[string]uint32{"e1": 0, "e2": 0}}
}

func (r *road) run(ctx context.Context) {
	for ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
		r.mu.Lock()
		for name := range r.proxies {
			if !r.stuck[name] {
				r.proxies[name] = r.served
			}
		}
		if !r.stuck["publisher"] {
			r.served = r.seen
		}
		if !r.stuck["watch"] {
			r.seen = r.value
		}
		r.mu.Unlock()
	}
}

func (r *road) Flip(ctx context.Context, c model.Canary) error {
	hangs := false
	r.do(func() { hangs = r.hangs })
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != nil {
		return r.broken
	}
	if c.ID != "me-consul" || c.Lasts <= 0 {
		r.wrongIDs++
	}
	r.value = c.Value
	r.flips++
	return nil
}

func (r *road) Retire(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retired = id == "me-consul"
	return nil
}

func service(value uint32) *model.Service {
	if value == 0 {
		return nil
	}
	return &model.Service{Endpoints: []model.Endpoint{{ID: "node/somebody-else", Weight: 60000}, {ID: "node/me-consul", Weight: value}}}
}

func (r *road) Entry(k model.ServiceKey) model.Known {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k != (model.ServiceKey{Source: "consul", Name: "wellspring-canary"}) {
		return model.Known{}
	}
	return model.Known{Service: service(r.seen)}
}

func (r *road) Canary(source string) (assignment, version string, of *model.Service) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return "wellspring-canary-" + source + "@1", fmt.Sprint("v", r.served), service(r.served)
}

func (r *road) Acked(assignment string, f func(proxy, version string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if assignment != "wellspring-canary-consul@1" {
		return
	}
	for name, value := range r.proxies {
		f(name, fmt.Sprint("v", value))
	}
}

func (r *road) do(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// story runs a watch on a road in a bubble.
func story(t *testing.T, f func(t *testing.T, r *road, w *freshness.Watch)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoad()
		w := freshness.New(freshness.Config{
			Registries: map[string]discovery.Registry{"consul": r}, Interval: 10 * time.Second, ID: "me", Catalog: r, Publisher: r, Streams: r,
			Emit: func(e model.Event) {
				r.do(func() { r.events = append(r.events, e.Kind+" "+e.Subject.Name+" "+e.From+" → "+e.To+": "+e.Reason) })
			},
		})
		if w.Status("consul") != nil || w.Status("nobody") != nil {
			t.Error("a status of what was never flipped")
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { r.run(ctx) })
		wg.Go(func() { _ = w.Run(ctx) })
		time.Sleep(5 * time.Second)
		f(t, r, w)
		cancel()
		wg.Wait()
		r.do(func() {
			if !r.retired || r.wrongIDs > 0 {
				t.Errorf("taken out: %v; %d flips of others", r.retired, r.wrongIDs)
			}
		})
	})
}

// stages says how old each stage is, to a tenth of a second.
func stages(s *freshness.Status) string {
	var out []string
	for _, x := range []freshness.Seconds{s.Written, s.Seen, s.Published, s.Acknowledged} {
		out = append(out, x.Duration().Round(100*time.Millisecond).String())
	}
	return strings.Join(out, " ")
}

// While all is well every stage is as old as a flip takes to it, and no more is said
// between two flips.
func TestFresh(t *testing.T) {
	story(t, func(t *testing.T, r *road, w *freshness.Watch) {
		s := w.Status("consul")
		if s.Written != 0 || s.Seen < 0.01 || s.Seen > 0.05 || s.Published <= s.Seen || s.Acknowledged <= s.Published || s.Acknowledged > 0.1 || s.Proxies != 2 || s.Behind != 0 || s.Stale || s.Why != "" {
			t.Errorf("%+v", s)
		}
		time.Sleep(10 * time.Minute)
		is := w.Status("consul")
		if is.Acknowledged > 0.1 || is.Flipped.Equal(s.Flipped) {
			t.Errorf("%+v", is)
		}
		r.do(func() {
			if r.flips < 54 || r.flips > 67 || len(r.events) != 0 {
				t.Errorf("%d flips in ten minutes, events %q", r.flips, r.events)
			}
		})
		behind := "# HELP wellspring_freshness_behind_proxies Proxies that have not acknowledged the newest change of a source's canary that is published.\n# TYPE wellspring_freshness_behind_proxies gauge\nwellspring_freshness_behind_proxies{source=\"consul\"} 0\n"
		if err := testutil.CollectAndCompare(w, strings.NewReader(behind), "wellspring_freshness_behind_proxies"); err != nil {
			t.Error(err)
		}
		if n := testutil.CollectAndCount(w, "wellspring_freshness_seconds"); n != 4 {
			t.Errorf("%d stages", n)
		}
	})
}

// Each stage at which a flip may be stuck is found, is as old as the oldest flip that
// waits there, and the stages before stay fresh; it is told once, and when it is over.
func TestStuck(t *testing.T) {
	for what, c := range map[string]struct {
		stop, start func(r *road)
		stages      string // the fresh ones
		why         string
	}{
		"the registry takes no writes": {
			func(r *road) { r.broken = errors.New("connection refused") }, func(r *road) { r.broken = nil },
			"", "no change could be written: connection refused",
		},
		"the registry hangs": {
			func(r *road) { r.hangs = true }, func(r *road) { r.hangs = false },
			"", "no change could be written: context deadline exceeded",
		},
		"the watch hangs": {
			func(r *road) { r.stuck["watch"] = true }, func(r *road) { delete(r.stuck, "watch") },
			"0s", "was not read back: what this source says may be as old",
		},
		"nothing is published": {
			func(r *road) { r.stuck["publisher"] = true }, func(r *road) { delete(r.stuck, "publisher") },
			"0s 0s", "was read and is not published",
		},
		"a proxy takes nothing": {
			func(r *road) { r.stuck["e2"] = true }, func(r *road) { delete(r.stuck, "e2") },
			"0s 0s 0s", "1 of 2 proxies have not acknowledged a change written",
		},
	} {
		t.Run(what, func(t *testing.T) {
			story(t, func(t *testing.T, r *road, w *freshness.Watch) {
				r.do(func() { c.stop(r) })
				time.Sleep(20 * time.Second)
				if s := w.Status("consul"); s.Stale || s.Acknowledged < 8 || s.Acknowledged > 20 {
					t.Errorf("after 20 s: %+v", s)
				}
				time.Sleep(25 * time.Second)
				r.do(func() {
					if len(r.events) != 1 {
						t.Errorf("after 45 s: events %q", r.events)
					}
				})
				time.Sleep(15 * time.Second)
				s := w.Status("consul")
				if !s.Stale || !strings.Contains(s.Why, c.why) || s.Acknowledged < 48 || s.Acknowledged > 60 || !strings.HasPrefix(stages(s), c.stages) {
					t.Errorf("after 60 s: %+v, %s", s, stages(s))
				}
				for _, late := range strings.Fields(stages(s))[len(strings.Fields(c.stages)):] {
					if d, _ := time.ParseDuration(late); d < 48*time.Second {
						t.Errorf("after 60 s: %s", stages(s))
					}
				}
				r.do(func() { c.start(r) })
				time.Sleep(25 * time.Second)
				if w.Status("consul").Behind > 0 { // it was changed just now
					time.Sleep(time.Second)
				}
				if s := w.Status("consul"); s.Stale || s.Why != "" || s.Acknowledged > 0.2 || s.Behind != 0 {
					t.Errorf("over: %+v", s)
				}
				r.do(func() {
					if len(r.events) != 2 || !strings.HasPrefix(r.events[0], "source.freshness consul fresh → stale: ") || !strings.Contains(r.events[0], c.why) || r.events[1] != "source.freshness consul stale → fresh: " {
						t.Errorf("events %q", r.events)
					}
				})
			})
		})
	}
}

// Proxies that are behind are named; one that leaves is nobody's delay, one that comes
// has no past.
func TestBehind(t *testing.T) {
	story(t, func(t *testing.T, r *road, w *freshness.Watch) {
		r.do(func() {
			for i := range 7 {
				name := fmt.Sprintf("x%d", i)
				r.proxies[name], r.stuck[name] = r.served, true
			}
		})
		time.Sleep(time.Minute)
		s := w.Status("consul")
		if s.Behind != 7 || s.Proxies != 9 || !strings.HasSuffix(s.Why, ": x0, x1, x2, x3, x4 and 2 more") {
			t.Errorf("%+v", s)
		}
		r.do(func() {
			for i := range 7 {
				delete(r.proxies, fmt.Sprintf("x%d", i))
			}
			r.proxies["new"] = 0
		})
		time.Sleep(12 * time.Second)
		if s := w.Status("consul"); s.Behind != 0 || s.Stale || s.Acknowledged > 0.2 {
			t.Errorf("%+v", s)
		}
		r.do(func() {
			for name := range r.proxies {
				delete(r.proxies, name)
			}
		})
		time.Sleep(12 * time.Second)
		if s := w.Status("consul"); s.Proxies != 0 || s.Acknowledged != s.Published {
			t.Errorf("with no proxy a change has arrived when it is published: %+v", s)
		}
	})
}

// A flip that is on its way is not held up by one that is stuck with somebody.
func TestEachStageByItself(t *testing.T) {
	story(t, func(t *testing.T, r *road, w *freshness.Watch) {
		r.do(func() { r.stuck["e1"] = true })
		time.Sleep(time.Minute)
		r.do(func() { r.stuck["watch"] = true })
		time.Sleep(40 * time.Second)
		s := w.Status("consul")
		if s.Seen < 28 || s.Seen > 40 || s.Acknowledged < 85 || !strings.Contains(s.Why, "e1") {
			t.Errorf("%+v", s)
		}
		if got := strings.Fields(stages(s)); slices.Max(got[:1]) != "0s" {
			t.Errorf("%s", stages(s))
		}
	})
}

// A write that fails is tried again soon: a moment without the registry is no reason to
// call it stale until the next flip.
func TestRetry(t *testing.T) {
	story(t, func(t *testing.T, r *road, w *freshness.Watch) {
		flips := 0
		r.do(func() { r.broken, flips = errors.New("leader election"), r.flips })
		time.Sleep(12 * time.Second) // one flip, at least
		if s := w.Status("consul"); s.Written < 1 || s.Stale {
			t.Errorf("broken: %+v", s)
		}
		r.do(func() { r.broken = nil })
		time.Sleep(10*time.Second + 100*time.Millisecond)
		r.do(func() {
			if r.flips == flips || len(r.events) > 0 {
				t.Errorf("%d flips, events %q", r.flips-flips, r.events)
			}
		})
	})
}

// A registry that is away for long is stale meanwhile, and no longer.
func TestAway(t *testing.T) {
	story(t, func(t *testing.T, r *road, w *freshness.Watch) {
		r.do(func() { r.broken = errors.New("down") })
		time.Sleep(140 * time.Second)
		r.do(func() { r.broken = nil })
		time.Sleep(10*time.Second + 100*time.Millisecond) // the longest pause between two tries
		if s := w.Status("consul"); s.Stale {
			t.Errorf("%+v", s)
		}
		time.Sleep(11 * time.Second)
		if s := w.Status("consul"); s.Acknowledged > 0.2 {
			t.Errorf("the next one is slow as well: %+v", s)
		}
	})
}
