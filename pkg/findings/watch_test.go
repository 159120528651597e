package findings

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/events"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// world is what a watch looks at.
type world struct {
	log *events.Log

	mu           sync.Mutex // guards what follows
	states       map[string]health.State
	streams      []model.Stream
	stirred      string
	alone        bool // nobody is connected
	unreached    bool // no group leads to them
	certificates []model.Certificate
	recorded     []model.Event
	asked        map[string]int
	remembered   map[string]int
	running      int
	most         int // that were asked about at once
	begun        []TimedFinding
}

func newWorld(upstreams ...string) *world {
	w := &world{log: events.New(time.Now), states: map[string]health.State{}, asked: map[string]int{}, remembered: map[string]int{}}
	for _, name := range upstreams {
		w.states[name] = health.Healthy
	}
	return w
}

// turn gives an upstream another state, and tells of it.
func (w *world) turn(name string, s health.State) {
	w.mu.Lock()
	w.states[name] = s
	w.mu.Unlock()
	w.log.Emit(model.Event{Kind: model.EventUpstreamState, Subject: upstream(name), To: string(s)})
}

func (w *world) health() (out []health.Upstream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, s := range w.states {
		out = append(out, health.Upstream{Name: name, State: s, Spare: 1, Counts: health.Counts{Total: 2}, Service: model.ServiceKey{Source: "consul", Name: name}})
	}
	return out
}

// Watch finds nobody registered where an upstream is empty. It takes a second.
func (w *world) Watch(_ context.Context, name string) (diagnose.Case, error) {
	w.mu.Lock()
	w.asked[name]++
	w.running++
	w.most = max(w.most, w.running)
	w.mu.Unlock()
	time.Sleep(time.Second)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running--
	return w.is(name)
}

func (w *world) Remember(_ context.Context, name string) (diagnose.Case, error) {
	time.Sleep(10 * time.Millisecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remembered[name]++
	return w.is(name)
}

func (w *world) is(name string) (diagnose.Case, error) {
	state, there := w.states[name]
	if !there {
		return diagnose.Case{}, fmt.Errorf("%s: %w", name, model.ErrNotFound)
	}
	key := model.ServiceKey{Source: "consul", Name: name}
	c := diagnose.Case{
		At: time.Now(), Upstream: name, Spec: &spec.Upstream{}, Known: model.Known{Service: &model.Service{Key: key, Presence: model.Absent}},
		Health: health.Upstream{Name: name, State: state, Spare: 1, Service: key},
	}
	switch {
	case w.alone:
		c.Groups = []string{"edge"}
	case !w.unreached:
		c.Groups = []string{"edge"}
		c.Streams = []model.Stream{{Proxy: model.Proxy{ID: "edge-1"}, Delivery: []model.Delivery{{Type: "clusters", Version: "1", AckedVersion: "1"}}}}
	}
	if state == health.Healthy {
		c.Known.Service.Endpoints = []model.Endpoint{{Address: "10.0.0.1:80", Health: model.Healthy}}
		c.Endpoints = c.Known.Service.Endpoints
	}
	return c, nil
}

func (w *world) Between(context.Context, time.Time, time.Time, int) ([]model.Event, error) {
	return w.recorded, nil
}

// run has a watch look at it, inside a bubble of fake time.
func (w *world) run(t *testing.T) *Watch {
	t.Helper()
	x := New(Config{
		Health: w.health, Evidence: w, Events: w.log, Recorded: w, Emit: w.log.Emit,
		Certificates: func() []model.Certificate { w.mu.Lock(); defer w.mu.Unlock(); return w.certificates },
		Streams:      func(context.Context) []model.Stream { w.mu.Lock(); defer w.mu.Unlock(); return w.streams },
		Stirred:      func(name string) bool { w.mu.Lock(); defer w.mu.Unlock(); return w.stirred == name },
		Upstreams:    func(group string) []string { return []string{group} },
		Begun:        func(f TimedFinding) { w.mu.Lock(); defer w.mu.Unlock(); w.begun = append(w.begun, f) },
	})
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { _ = x.Run(ctx); close(over) }()
	t.Cleanup(func() { cancel(); <-over })
	return x
}

func (w *world) counts(name string) (asked, remembered int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[name], w.remembered[name]
}

// atOnce is how many were asked about at once, counted how many findings began.
func (w *world) atOnce() int  { w.mu.Lock(); defer w.mu.Unlock(); return w.most }
func (w *world) counted() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.begun) }

// told are the events of findings.
func (w *world) told() string {
	var out []string
	for _, e := range w.log.Last(1000) {
		if strings.HasPrefix(e.Kind, "finding.") {
			out = append(out, e.Kind+" "+e.Subject.Name+" "+e.From+" "+e.To)
		}
	}
	return strings.Join(out, ", ")
}

// A transition is looked at within seconds, what is found is told with begin and end, and
// is over when it is.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("web", "api")
		x := w.run(t)
		time.Sleep(10 * time.Minute)
		for _, name := range []string{"web", "api"} {
			if asked, remembered := w.counts(name); asked != 0 || remembered < 2 || remembered > 3 {
				t.Errorf("%s, while all is well: asked %d times, looked at %d times", name, asked, remembered)
			}
		}
		broke := time.Now()
		w.turn("web", health.Empty)
		time.Sleep(10 * time.Second)
		open := x.List(false)
		if codes(open) != "A1" || open[0].Severity != Critical || open[0].Subject != upstream("web") || open[0].Begun.Sub(broke) > 3*time.Second || len(open[0].Evidence) == 0 {
			t.Fatalf("open: %+v", open)
		}
		if got := w.told(); got != "finding.begun web critical A1" || w.counted() != 1 {
			t.Errorf("told %s; %d were begun", got, w.counted())
		}
		if got := strings.Join(x.Causes("web"), ";"); !strings.HasPrefix(got, "A1 ") || len(x.Causes("api")) > 0 {
			t.Errorf("causes %s; of the other %v", got, x.Causes("api"))
		}
		if asked, _ := w.counts("api"); asked > 0 {
			t.Errorf("the other was asked about %d times", asked)
		}
		time.Sleep(10 * time.Minute)
		if asked, _ := w.counts("web"); asked < 20 || asked > 25 {
			t.Errorf("asked %d times in ten minutes", asked)
		}
		mended := time.Now()
		w.turn("web", health.Healthy)
		time.Sleep(time.Minute)
		all := x.List(true)
		if len(x.List(false)) > 0 || codes(all) != "A1" || all[0].Ended.Sub(mended) > 5*time.Second {
			t.Errorf("%s after it was mended: %+v", time.Since(mended), all)
		}
		if got := w.told(); got != "finding.begun web critical A1, finding.ended web A1 over" {
			t.Errorf("told %s", got)
		}
		asked, _ := w.counts("web")
		time.Sleep(10 * time.Minute)
		if again, _ := w.counts("web"); again != asked {
			t.Errorf("still asked about: %d times more", again-asked)
		}
	})
}

// Few are asked about at once, and all have their turn; one that is no more is forgotten.
func TestWatchMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for i := range 100 {
			w.states[fmt.Sprint(i)] = health.Empty
		}
		x := w.run(t)
		time.Sleep(90 * time.Second)
		if n := len(x.List(false)); n != 100 || w.atOnce() != asksAtOnce {
			t.Errorf("%d findings, at most %d at once", n, w.atOnce())
		}
		w.mu.Lock()
		delete(w.states, "7")
		w.mu.Unlock()
		time.Sleep(time.Minute)
		if n := len(x.List(false)); n != 99 || !strings.Contains(w.told(), "finding.ended 7 A1 over") {
			t.Errorf("%d findings", n)
		}
	})
}

// A proxy that takes nothing, or refuses something, is found by itself; one that is gone
// is forgotten. An upstream of which something is counted is asked about.
func TestWatchProxies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("web", "api")
		hangs, refuses := time.Now(), model.Delivery{Type: "clusters", Parked: []model.Parked{{Name: "web", Message: "no"}}}
		w.streams = []model.Stream{
			{Proxy: model.Proxy{ID: "edge-1"}, Delivery: []model.Delivery{{Type: "assignments", Open: 1, OpenSince: hangs}}},
			{Proxy: model.Proxy{ID: "edge-2"}, Delivery: []model.Delivery{refuses}},
			{Proxy: model.Proxy{ID: "edge-3"}, Unsent: hangs},
			{Proxy: model.Proxy{ID: "edge-4"}, Delivery: []model.Delivery{{Type: "clusters", Open: 1, OpenSince: hangs}}},
		}
		w.stirred = "api"
		x := w.run(t)
		time.Sleep(70 * time.Second) // it has begun
		open := x.List(false)
		if codes(open) != "C2 C6 C6" || open[0].Subject != (model.Subject{Kind: "Proxy", Name: "edge-2"}) || open[2].Subject.Name != "edge-3" || open[0].Severity != Warning || len(open[2].Evidence) != 1 {
			t.Errorf("open: %+v", open)
		}
		web, _ := w.counts("web")
		if api, _ := w.counts("api"); web != 0 || api == 0 {
			t.Errorf("asked about web %d times, about api %d times", web, api)
		}
		w.mu.Lock()
		w.streams = []model.Stream{{Proxy: model.Proxy{ID: "edge-1"}}}
		w.mu.Unlock()
		time.Sleep(6 * time.Second)
		if open = x.List(false); codes(open) != "C2 C6 C6" {
			t.Errorf("open: %+v", open)
		}
		time.Sleep(30 * time.Second) // the one that is well is; those that are gone may come back as they were
		if open = x.List(false); codes(open) != "C2 C6" || open[1].Subject.Name != "edge-3" {
			t.Errorf("open: %+v", open)
		}
		time.Sleep(absence)
		if open = x.List(false); len(open) > 0 {
			t.Errorf("open: %+v", open)
		}
		_, before := w.counts("web")
		w.mu.Lock()
		w.streams = []model.Stream{{Proxy: model.Proxy{ID: "edge-1", Group: "web"}}} // that leads to it has its first proxy
		w.mu.Unlock()
		time.Sleep(8 * time.Second)
		w.mu.Lock()
		w.streams = nil // and loses it
		w.mu.Unlock()
		time.Sleep(8 * time.Second)
		if _, after := w.counts("web"); after != before+2 {
			t.Errorf("looked at %d times more", after-before)
		}
	})
}

// While the process begins, that nobody is connected yet is no finding.
func TestWatchBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("web")
		w.alone, w.states["web"] = true, health.Unknown
		x := w.run(t)
		time.Sleep(50 * time.Second)
		if open := x.List(false); codes(open) != "A1" || open[0].Severity != Warning {
			t.Errorf("open: %+v", open)
		}
		time.Sleep(50 * time.Second)
		if open := x.List(false); codes(open) != "C1 A1" && codes(open) != "A1 C1" || open[0].Severity != Critical {
			t.Errorf("open: %+v", open)
		}
	})
}

// Where no listener leads to it nobody is harmed: what is found is a warning, and that it
// is so is none.
func TestWatchUnreached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("web", "api")
		w.unreached, w.states["web"] = true, health.Empty
		x := w.run(t)
		time.Sleep(11 * time.Minute)
		if open := x.List(false); codes(open) != "A1" || open[0].Severity != Warning {
			t.Errorf("open: %+v", open)
		}
	})
}

// What is of a service, a source or a group has all its upstreams looked at; a finding's
// own event has nobody.
func TestWatchTouches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("web", "api")
		x := w.run(t)
		for _, step := range []struct {
			event model.Event
			want  string
		}{
			{model.Event{Kind: model.EventEndpointRemoved, Subject: model.Subject{Kind: "Service", Name: "consul/web"}}, "web"},
			{model.Event{Kind: model.EventSourceState, Subject: model.Subject{Kind: "Source", Name: model.ServiceKey{Source: "consul"}.String()}}, "api web"},
			{model.Event{Kind: model.EventDeliveryRefused, Group: "api"}, "api"},
			{model.Event{Kind: model.EventFindingBegun, Subject: upstream("web")}, ""},
			{model.Event{Kind: model.EventHookRun, Subject: upstream("web")}, ""},
		} {
			time.Sleep(quiet + 10*time.Second)
			synctest.Wait()
			_, before := w.counts("web")
			_, api := w.counts("api")
			x.mu.Lock()
			for _, p := range x.schedule.places {
				p.last = time.Now().Add(-shortest) // long enough ago, and not due
			}
			x.mu.Unlock()
			if strings.HasPrefix(step.event.Subject.Name, "consul/") {
				step.event.Subject.Name = model.ServiceKey{Source: "consul", Name: "web"}.String()
			}
			w.log.Emit(step.event)
			time.Sleep(5 * time.Second)
			var got []string
			if _, n := w.counts("api"); n > api {
				got = append(got, "api")
			}
			if _, n := w.counts("web"); n > before {
				got = append(got, "web")
			}
			if strings.Join(got, " ") != step.want {
				t.Errorf("%s of %+v: looked at %v, want %s", step.event.Kind, step.event.Subject, got, step.want)
			}
		}
	})
}

// Certificates are looked at too; what was open before a restart is open since then.
func TestWatchRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("web")
		w.states["web"] = health.Empty
		w.certificates = []model.Certificate{{File: "edge.pem", State: model.CertificateExpiring, NotAfter: time.Now().Add(90 * time.Hour)}, {File: "fine.pem"}}
		before := time.Now().Add(-time.Hour).UTC()
		w.recorded = []model.Event{
			{Kind: model.EventFindingBegun, Time: before.Add(time.Second), Since: before, Subject: upstream("web"), From: "critical", To: "A1"},
			{Kind: model.EventFindingBegun, Time: before, Subject: upstream("gone"), From: "critical", To: "A1"},
		}
		x := w.run(t)
		time.Sleep(50 * time.Second)
		if open := x.List(false); codes(open) != "A1 A1 W2" { // what is not there yet may come
			t.Errorf("open: %+v", open)
		}
		time.Sleep(25 * time.Second)
		open := x.List(false)
		if codes(open) != "A1 W2" || !open[0].Begun.Equal(before) || open[0].Seen.Equal(before) || open[1].Severity != Warning || open[1].Subject.Kind != kindCertificate {
			t.Errorf("open: %+v", open)
		}
		if got := w.told(); got != "finding.begun edge.pem warning W2, finding.ended gone A1 over" || w.counted() != 1 {
			t.Errorf("told %s", got)
		}
		w.mu.Lock()
		w.certificates = []model.Certificate{{File: "edge.pem", State: model.CertificateExpired, NotAfter: time.Now().Add(-time.Second)}}
		w.mu.Unlock()
		time.Sleep(10 * time.Second)
		if open = x.List(false); codes(open) != "A1 W2" || open[1].Severity != Critical {
			t.Errorf("open: %+v", open)
		}
		w.mu.Lock()
		w.certificates = nil
		w.mu.Unlock()
		time.Sleep(10 * time.Second)
		if open = x.List(false); codes(open) != "A1" { // its file is gone: so is the finding
			t.Errorf("open: %+v", open)
		}
	})
}
