package findings

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Evidence gathers what is known of an upstream: Watch by asking proxies and endpoints too,
// Remember without.
type Evidence interface {
	Watch(ctx context.Context, upstream string) (diagnose.Case, error)
	Remember(ctx context.Context, upstream string) (diagnose.Case, error)
}

// Events are those in memory.
type Events interface {
	// After returns those after an id, and a channel that is closed when there are more.
	After(id string, limit int) ([]model.Event, <-chan struct{})
}

// Recorded is what happened, as it is on disk.
type Recorded interface {
	Between(ctx context.Context, from, to time.Time, limit int) ([]model.Event, error)
}

// Config of a watch. All is required but Logger and Begun.
type Config struct {
	Health       func() []health.Upstream
	Certificates func() []model.Certificate
	Evidence     Evidence
	Events       Events
	Recorded     Recorded
	// Stirred tells whether proxies count something of an upstream that may be the begin
	// of an outage, Streams are the connected ones.
	Stirred func(upstream string) bool
	Streams func(ctx context.Context) []model.Stream
	// Upstreams are those that a group leads to.
	Upstreams func(group string) []string
	// Emit takes the events, Begun each finding that began; neither blocks.
	Emit   func(model.Event)
	Begun  func(TimedFinding)
	Logger *slog.Logger
}

// How much is done at once, and how often is looked who is due.
const (
	asksAtOnce = 4
	lookEvery  = time.Second
	keepEvery  = 5  // looks: what there is
	share      = 50 // of the time of a core, one part is for looks at what is quiet
	recent     = 10_000
	readFor    = 10 * time.Second

	settling = time.Minute     // after a start: who connects and what is imported comes by and by
	absence  = 5 * time.Minute // of a proxy: it may come back as it was
)

// Watch keeps findings. It is safe for concurrent use.
type Watch struct {
	cfg     Config
	settles time.Time // until when this process begins; set by Run before all else

	mu       sync.Mutex      // guards what follows
	touched  bool            // something turned since it was last looked at what there is
	led      map[string]bool // groups of which a proxy is connected
	book     *book
	schedule schedule
}

// New returns a watch that has found nothing.
func New(cfg Config) *Watch {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Begun == nil {
		cfg.Begun = func(TimedFinding) {}
	}
	return &Watch{cfg: cfg, book: newBook(), schedule: schedule{map[string]*place{}}}
}

// Run looks at what is due until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	w.restore(ctx)
	w.settles = time.Now().Add(settling)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { w.follow(ctx); return nil })
	var asks errgroup.Group
	asks.SetLimit(asksAtOnce)
	g.Go(func() error {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for i := 0; ; i++ {
			if w.isTouched() || i%keepEvery == 0 {
				w.keep(ctx, time.Now())
			}
			for _, name := range w.due(true, asksAtOnce) {
				if !asks.TryGo(func() error { w.look(ctx, name, true); return nil }) {
					w.release(name)
				}
			}
			select {
			case <-ctx.Done():
				return asks.Wait()
			case <-tick.C:
			}
		}
	})
	g.Go(func() error { // one after the other, with pauses
		wait := lookEvery
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait):
			}
			wait = lookEvery
			for _, name := range w.due(false, 1) {
				start := time.Now()
				w.look(ctx, name, false)
				wait = (share - 1) * time.Since(start)
			}
		}
	})
	return g.Wait()
}

// restore reads which findings were open before this process began.
func (w *Watch) restore(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readFor)
	defer cancel()
	all, err := w.cfg.Recorded.Between(ctx, time.Time{}, time.Time{}, recent)
	if err != nil {
		w.cfg.Logger.Warn("findings of before are not known", "err", err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.book.restore(all)
}

// follow touches what events are about.
func (w *Watch) follow(ctx context.Context) {
	after := ""
	for {
		events, moved := w.cfg.Events.After(after, recent)
		if len(events) > 0 {
			after = events[len(events)-1].ID
			w.touch(events)
		}
		select {
		case <-ctx.Done():
			return
		case <-moved:
		}
		select { // many come together
		case <-ctx.Done():
			return
		case <-time.After(lookEvery / 4):
		}
	}
}

// touch has those be looked at soon that events are about: an upstream; those of a service
// or a source; those of a group whose proxy took, or refused, something.
func (w *Watch) touch(events []model.Event) {
	names, services, groups := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, e := range events {
		switch e.Kind {
		case model.EventDeliveryRefused, model.EventDeliveryParked, model.EventDeliveryReleased, model.EventProxySilent:
			groups[e.Group] = true
		case model.EventFindingBegun, model.EventFindingEnded, model.EventHookRun:
		default:
			switch e.Subject.Kind {
			case string(spec.KindUpstream):
				names[e.Subject.Name] = true
			case "Service", "Source":
				services[e.Subject.Name] = true
			}
		}
	}
	for group := range groups {
		for _, name := range w.cfg.Upstreams(group) {
			names[name] = true
		}
	}
	if len(services) > 0 {
		for _, u := range w.cfg.Health() {
			if services[u.Service.String()] || services[u.Service.OfSource().String()] {
				names[u.Name] = true
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.touched = w.touched || len(names) > 0
	w.schedule.touch(slices.Collect(maps.Keys(names)))
}

// isTouched tells whether something turned since it last did.
func (w *Watch) isTouched() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.touched
	w.touched = false
	return was
}

// keep takes what there is now.
func (w *Watch) keep(ctx context.Context, now time.Time) {
	all := w.cfg.Health()
	asks, stale := map[string]bool{}, map[string]bool{}
	for _, u := range all {
		asks[u.Name] = wrong(u) || w.cfg.Stirred(u.Name)
		stale[u.Name] = u.Stale != nil
	}
	streams := w.cfg.Streams(ctx)
	if ctx.Err() != nil {
		return // streams that end for that are no news
	}
	others := w.others(streams, now)
	left := w.left(streams, now)
	w.mu.Lock()
	for name, ask := range asks {
		asks[name] = ask || w.book.isOpen(upstream(name))
	}
	w.schedule.keep(now, asks, stale)
	w.schedule.touch(left)
	var begun []TimedFinding
	for of, found := range others {
		b, e := w.book.take(of, found, time.Time{}, now)
		begun = append(begun, b...)
		w.ended(e)
	}
	w.ended(w.book.drop(func(of model.Subject, looked time.Time) bool {
		_, other := others[of]
		_, there := asks[of.Name]
		switch {
		case now.Before(w.settles) || other:
			return false
		case of.Kind == kindProxy:
			return now.Sub(looked) > absence
		}
		return of.Kind != string(spec.KindUpstream) || !there
	}, now))
	w.mu.Unlock()
	slices.SortFunc(begun, inOrder)
	w.began(begun)
}

// left are the upstreams of groups whose last proxy is gone, or whose first one came.
func (w *Watch) left(streams []model.Stream, now time.Time) []string {
	led := map[string]bool{}
	for _, s := range streams {
		led[s.Group] = true
	}
	w.mu.Lock()
	was := w.led
	if now.Before(w.settles) { // who leaves now is told of then
		maps.Copy(led, was)
	}
	w.led = led
	w.mu.Unlock()
	var out []string
	for _, side := range []struct{ of, not map[string]bool }{{was, led}, {led, was}} {
		for group := range side.of {
			if !side.not[group] {
				out = append(out, w.cfg.Upstreams(group)...)
			}
		}
	}
	return out
}

// others are the certificates and proxies, with what is found of each by itself.
func (w *Watch) others(streams []model.Stream, now time.Time) map[model.Subject][]TimedFinding {
	out := map[model.Subject][]TimedFinding{}
	for _, c := range w.cfg.Certificates() {
		of := model.Subject{Kind: kindCertificate, Name: c.File}
		out[of] = nil
		if f := diagnose.OfCertificate(c, now); f != nil {
			x := TimedFinding{Severity: Warning, Finding: *f}
			if c.State == model.CertificateExpired {
				x.Severity = Critical
			}
			out[of] = append(out[of], x)
		}
	}
	for _, s := range streams {
		of := model.Subject{Kind: kindProxy, Name: s.ID}
		found := out[of] // another stream of that name has some
		for _, f := range diagnose.OfProxy(s, now) {
			if !slices.ContainsFunc(found, func(x TimedFinding) bool { return x.Code == f.Code }) {
				found = append(found, TimedFinding{Severity: Warning, Finding: f})
			}
		}
		out[of] = found
	}
	return out
}

// wrong tells whether something may be. Where its source alone is away, proxies and
// endpoints need not be asked.
func wrong(u health.Upstream) bool {
	return u.State != health.Healthy || u.Spare == 0 && u.Counts.Total > 1 || u.Seen.Worst() != nil || u.Seen != nil && u.Seen.Failing()
}

const (
	kindCertificate = "Certificate"
	kindProxy       = "Proxy"
)

func upstream(name string) model.Subject {
	return model.Subject{Kind: string(spec.KindUpstream), Name: name}
}

// due takes some that are due; they are to be looked at, or released.
func (w *Watch) due(ask bool, most int) []string {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	names := w.schedule.next(now, ask, most)
	for _, name := range names {
		w.schedule.places[name].running = true
	}
	return names
}

func (w *Watch) release(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.schedule.places[name].running = false
}

// look asks why requests to an upstream fail, and keeps what it finds.
func (w *Watch) look(ctx context.Context, name string, ask bool) {
	w.mu.Lock()
	w.schedule.places[name].began(time.Now())
	w.mu.Unlock()
	defer w.release(name)
	var c diagnose.Case
	var err error
	if ask {
		c, err = w.cfg.Evidence.Watch(ctx, name)
	} else {
		c, err = w.cfg.Evidence.Remember(ctx, name)
	}
	if err != nil {
		if !errors.Is(err, model.ErrNotFound) { // it is no more
			w.cfg.Logger.Error("upstream not looked at", "upstream", name, "err", err)
		}
		return
	}
	if ctx.Err() != nil {
		return // what did not answer for that is no finding
	}
	e := diagnose.Explain(c)
	w.mu.Lock()
	begun, ended := w.book.take(upstream(name), of(e, len(c.Groups) > 0, time.Now().Before(w.settles)), e.Since, time.Now().UTC())
	w.ended(ended)
	w.mu.Unlock()
	w.began(begun)
}

// of are the findings of an explanation that are to be kept. Where no listener leads to
// an upstream nobody is harmed; that it is so is lint's to say. While this process begins,
// that nobody is connected or was read yet is no finding: proxies serve on.
func of(e diagnose.Explanation, reached, begins bool) (out []TimedFinding) {
	severity := Warning
	if e.Fails && reached && (!begins || e.State != health.Unknown) {
		severity = Critical
	}
	for _, f := range e.Findings {
		if f.Strength >= diagnose.Likely && (reached || f.Code != diagnose.C1) && (!begins || f.Code != diagnose.C1 && f.Code != diagnose.B6) {
			out = append(out, TimedFinding{Severity: severity, Finding: f})
		}
	}
	for _, f := range e.Warnings {
		out = append(out, TimedFinding{Severity: Warning, Finding: f})
	}
	return out
}

// began tells of findings that did.
func (w *Watch) began(all []TimedFinding) {
	for _, f := range all {
		w.cfg.Emit(model.Event{Kind: model.EventFindingBegun, Subject: f.Subject, From: string(f.Severity), To: string(f.Code), Reason: f.Says, Since: f.Begun, Strength: f.Strength.String(), Evidence: f.Evidence})
		w.cfg.Logger.Info("finding", "code", f.Code, "of", f.Subject.Name, "severity", f.Severity, "strength", f.Strength.String(), "says", f.Says)
		w.cfg.Begun(f)
	}
}

// ended tells of findings that did.
func (w *Watch) ended(all []TimedFinding) {
	for _, f := range all {
		w.cfg.Emit(model.Event{Kind: model.EventFindingEnded, Subject: f.Subject, From: string(f.Code), To: "over", Reason: f.Says})
		w.cfg.Logger.Info("finding over", "code", f.Code, "of", f.Subject.Name)
	}
}

// List returns what goes on, what is critical first; with ended, before it what is over,
// oldest first, of the last thousand.
func (w *Watch) List(ended bool) []TimedFinding {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !ended {
		return w.book.open()
	}
	return append(slices.Clone(w.book.ended), w.book.open()...)
}

// IsOpen tells whether a finding goes on.
func (w *Watch) IsOpen(of model.Subject, code diagnose.Code) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.book.openOf(of), func(f TimedFinding) bool { return f.Code == code })
}

// Causes are the codes and titles of what goes on in an upstream, the best proved first.
func (w *Watch) Causes(name string) (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.book.openOf(upstream(name)) {
		out = append(out, string(f.Code)+" "+f.Title)
	}
	return out
}
