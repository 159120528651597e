package health

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Source is what is declared and reported. No method blocks for long.
type Source interface {
	// Health is how every upstream does by its source, by name.
	Health() []Upstream
	// HealthOf is that of one; false where there is none of that name.
	HealthOf(name string) (Upstream, bool)
	// Spec is what is declared and imported.
	Spec() *spec.Spec
}

// Fleet is what proxies see. No method blocks for long.
type Fleet interface {
	// Views of an upstream.
	Views(upstream string, endpoints bool) []fleet.View
	// Each calls see with every view of every proxy, without endpoints.
	Each(see func(upstream string, v fleet.View))
	// Changed are the upstreams that are seen in another way since it was last asked.
	Changed() map[string]bool
	// Lately counts requests of an upstream, and those that failed.
	Lately(upstream string) (requests, failed uint64)
	// Connected counts proxies by group.
	Connected() map[string]int
	// Keep forgets the upstreams that are no more.
	Keep(declared func(name string) bool)
}

// Touched are the upstreams that are to be looked at. It is safe for concurrent use.
type Touched struct {
	signal chan struct{} // there are some; of one

	mu    sync.Mutex // guards what follows
	names map[string]bool
	all   bool
}

// NewTouched returns one of nobody.
func NewTouched() *Touched { return &Touched{signal: make(chan struct{}, 1), names: map[string]bool{}} }

// Touch adds some. It does not block.
func (t *Touched) Touch(names ...string) {
	t.mu.Lock()
	for _, name := range names {
		t.names[name] = true
	}
	t.mu.Unlock()
	t.wake()
}

// TouchAll adds every one. It does not block.
func (t *Touched) TouchAll() {
	t.mu.Lock()
	t.all = true
	t.mu.Unlock()
	t.wake()
}

func (t *Touched) wake() {
	select {
	case t.signal <- struct{}{}:
	default:
	}
}

// take empties it.
func (t *Touched) take() (names map[string]bool, all bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	names, all = t.names, t.all
	t.names, t.all = map[string]bool{}, false
	return names, all
}

// WatchConfig of a watch. All is required.
type WatchConfig struct {
	Source  Source
	Fleet   Fleet
	Touched *Touched
	// Emit takes the events; it does not block.
	Emit func(model.Event)
}

// Watch joins what sources say with what the fleet sees, and tells of each upstream
// whose state changed. It is safe for concurrent use.
type Watch struct {
	cfg WatchConfig

	mu     sync.Mutex // guards what follows
	seen   map[string]Seen
	states map[string]State
	reach  reach
}

// How often the fleet is asked what changed, and everything is looked at: what was
// counted in the last minute ends by itself.
const (
	lookEvery = time.Second
	allEvery  = 10 * time.Second
)

// NewWatch returns a watch that has seen nothing.
func NewWatch(cfg WatchConfig) *Watch {
	return &Watch{cfg: cfg, seen: map[string]Seen{}, states: map[string]State{}}
}

// Run looks at what is touched until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	look, all := time.NewTicker(lookEvery), time.NewTicker(allEvery)
	defer look.Stop()
	w.cfg.Touched.TouchAll()
	defer all.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.cfg.Touched.signal:
		case <-look.C:
			w.cfg.Touched.Touch(slices.Collect(maps.Keys(w.cfg.Fleet.Changed()))...)
		case <-all.C:
			w.cfg.Touched.TouchAll()
		}
		w.look()
	}
}

// look tells of what changed among the touched.
func (w *Watch) look() {
	names, all := w.cfg.Touched.take()
	var now []Upstream
	if all {
		now = w.cfg.Source.Health()
		w.keep(now)
	} else {
		for name := range names {
			if h, ok := w.cfg.Source.HealthOf(name); ok {
				now = append(now, h)
			}
		}
	}
	if len(now) == 0 {
		return
	}
	s, connected := w.cfg.Source.Spec(), w.cfg.Fleet.Connected()
	sights := make(map[string]*sight, len(now))
	for _, h := range now {
		if u, ok := s.Upstream(h.Name); ok {
			sights[h.Name] = newSight(u, h)
		}
	}
	if all { // one walk over all views costs less than one over all proxies for each upstream
		w.cfg.Fleet.Each(func(name string, v fleet.View) {
			if x := sights[name]; x != nil {
				x.add(v)
			}
		})
	} else {
		for name, x := range sights {
			for _, v := range w.cfg.Fleet.Views(name, false) {
				x.add(v)
			}
		}
	}
	for _, h := range now {
		if x := sights[h.Name]; x != nil {
			w.looked(s, h, w.counted(x.seen(w.proxies(s, h.Name, connected)), h.Name))
		}
	}
}

// keep forgets what is no more.
func (w *Watch) keep(now []Upstream) {
	there := map[string]bool{}
	for _, h := range now {
		there[h.Name] = true
	}
	w.cfg.Fleet.Keep(func(name string) bool { return there[name] })
	w.mu.Lock()
	defer w.mu.Unlock()
	gone := func(name string) bool { return !there[name] }
	maps.DeleteFunc(w.seen, func(name string, _ Seen) bool { return gone(name) })
	maps.DeleteFunc(w.states, func(name string, _ State) bool { return gone(name) })
}

// joined is an upstream by its source and by the fleet, as it was last looked at.
func (w *Watch) joined(s *spec.Spec, h Upstream) Upstream {
	u, ok := s.Upstream(h.Name)
	if !ok {
		return h
	}
	w.mu.Lock()
	seen, known := w.seen[h.Name]
	w.mu.Unlock()
	if !known {
		seen = w.see(s, u, h, w.cfg.Fleet.Views(h.Name, false), w.cfg.Fleet.Connected())
	}
	return Join(u, h, seen)
}

// looked keeps what was seen of an upstream, and tells what is other than before.
func (w *Watch) looked(s *spec.Spec, h Upstream, seen Seen) {
	u, ok := s.Upstream(h.Name)
	if !ok {
		return
	}
	w.mu.Lock()
	was := w.seen[h.Name]
	w.seen[h.Name] = seen
	w.mu.Unlock()
	w.turned(model.EventUpstreamPanic, h.Name, was.Panicking, seen.Panicking, seen, s.Revision)
	w.turned(model.EventUpstreamNobody, h.Name, was.NoneMet, seen.NoneMet, seen, s.Revision)
	now := Join(u, h, seen)
	if was.Reporting > 0 && seen.Reporting == 0 && now.Why == "" {
		now.Why = "by its source; nobody reports on it any more"
	}
	w.tell(now, s.Revision)
}

// turned tells that what a part of the proxies sees began, or is over.
func (w *Watch) turned(kind, upstream string, was, is *Part, now Seen, revision uint64) {
	e := model.Event{Kind: kind, Subject: model.Subject{Kind: string(spec.KindUpstream), Name: upstream}, Revision: revision}
	switch {
	case was == nil && is != nil:
		e.To = "begun"
		e.Reason = fmt.Sprintf("%s: %d of %d endpoints usable", is.say(now.Reporting), is.Healthy, is.Members)
	case was != nil && is == nil:
		e.From, e.To = "begun", "over"
		if now.Reporting == 0 {
			e.Reason = "nobody reports on it any more: whether it is over is not known"
		}
	default:
		return
	}
	w.cfg.Emit(e)
}

// tell emits an event where the state is another one than before.
func (w *Watch) tell(h Upstream, revision uint64) {
	w.mu.Lock()
	was := w.states[h.Name]
	w.states[h.Name] = h.State
	w.mu.Unlock()
	if was != h.State {
		w.cfg.Emit(model.Event{
			Kind: model.EventUpstreamState, Subject: model.Subject{Kind: string(spec.KindUpstream), Name: h.Name},
			From: string(was), To: string(h.State), Reason: h.Why, Revision: revision,
		})
	}
}

// Health is how every upstream does, by name.
func (w *Watch) Health() []Upstream {
	s, out := w.cfg.Source.Spec(), w.cfg.Source.Health()
	for i, h := range out {
		out[i] = w.joined(s, h)
	}
	return out
}

// HealthBy is how one does by what proxies see; false where there is none of that name.
func (w *Watch) HealthBy(name string, views []fleet.View) (Upstream, bool) {
	s := w.cfg.Source.Spec()
	h, ok := w.cfg.Source.HealthOf(name)
	u, declared := s.Upstream(name)
	if !ok || !declared {
		return h, false
	}
	return Join(u, h, w.see(s, u, h, views, w.cfg.Fleet.Connected())), true
}

func (w *Watch) see(s *spec.Spec, u *spec.Upstream, h Upstream, views []fleet.View, connected map[string]int) Seen {
	return w.counted(See(u, h, views, w.proxies(s, h.Name, connected)), h.Name)
}

// counted adds what requests came of it lately.
func (w *Watch) counted(s Seen, upstream string) Seen {
	s.Requests, s.Failed = w.cfg.Fleet.Lately(upstream)
	return s
}

// reach is which groups lead to an upstream, by one Spec.
type reach struct {
	of     *spec.Spec
	groups map[string][]string
}

// proxies counts the connected ones that reach an upstream.
func (w *Watch) proxies(s *spec.Spec, name string, connected map[string]int) (n int) {
	w.mu.Lock()
	if w.reach.of != s {
		w.reach = reach{s, map[string][]string{}}
		for _, d := range s.Documents(spec.KindGroup) {
			for _, u := range s.Upstreams(d.Name) {
				w.reach.groups[u] = append(w.reach.groups[u], d.Name)
			}
		}
	}
	groups := w.reach.groups[name]
	w.mu.Unlock()
	for _, g := range groups {
		n += connected[g]
	}
	return n
}
