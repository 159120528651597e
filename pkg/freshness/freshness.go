// Package freshness measures how long a change of a registry takes to the proxies.
//
//	Flip ─► registry ─► Catalog ─► Publisher ─► every Envoy
//	        written     seen       published    acknowledged
//
// In each source this server registers a canary, an instance of a service of its own to
// which no request goes, and gives it another weight now and then: it flips. What a flip
// went through is read where it shows: in what the catalog knows, in the assignment that
// is published, in the versions that Envoys acknowledged. So a registry that answers and
// has stopped telling, a watch that hangs and a proxy that takes nothing any more are
// found though no service changes, and each at its stage.
//
// A stage is as fresh as its newest flip took to get there from when it was written or,
// where a flip is on its way for longer, as old as the oldest of those. A flip that a
// later one overtakes has arrived with it. The clock is this server's alone.
//
// What was given up: a canary costs each Envoy a cluster for each source, and a write to
// the registry and an assignment to each Envoy for each flip. So it is off until it is
// asked for; and each control plane publishes the canaries of all that share a registry.
// A registry's other datacenters have none, nor has a source that reads another one by
// its configuration: one would need to write there. An Envoy that never asked for the
// canary, since it refused its cluster, say, does not count.
// gRPC's own clients subscribe to what they call, and so to no canary. The canary of the
// local source is in memory, since nothing that beats is written to the store: it shows
// the road from there to the proxies, and an apply shows the disk. A flip that is on its
// way is looked for each ten milliseconds, or each tenth of its age where that is more:
// so exact are the numbers.
package freshness

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Limits of a flip.
const (
	// StaleAfter is from which age on a source is said to be stale.
	StaleAfter = 30 * time.Second

	writeTimeout  = 10 * time.Second
	retireTimeout = time.Second
	leastRetry    = time.Second // after a write that failed
	mostRetry     = 10 * time.Second
	leastPause    = 10 * time.Millisecond // between two looks at one that is on its way
	mostPause     = time.Second
	maxSome       = 5 // proxies that are named
)

// Catalog is where a flip is seen. It does not block.
type Catalog interface {
	Entry(key model.ServiceKey) model.Known
}

// Publisher is where a flip is published. It does not block for long.
type Publisher interface {
	// Canary is the newest assignment with the canaries of a source: its name and
	// version, and the service that it was made of, nil where there is none.
	Canary(source string) (assignment, version string, of *model.Service)
}

// Streams are who acknowledges. It does not block for long.
type Streams interface {
	// Acked calls f with every stream that subscribes to an assignment, and the version
	// that it acknowledged last.
	Acked(assignment string, f func(proxy, version string))
}

// Config of a watch. All is required but Logger.
type Config struct {
	// Registries by source.
	Registries map[string]discovery.Registry
	// Interval is the time between two flips, a tenth more or less.
	Interval time.Duration
	// ID begins those of this process's canaries; no other has it.
	ID        string
	Catalog   Catalog
	Publisher Publisher
	Streams   Streams
	// Emit takes the events; it does not block.
	Emit   func(model.Event)
	Logger *slog.Logger
}

// Status is how fresh a source is.
type Status struct {
	// Flipped is when the newest flip began.
	Flipped time.Time `json:"flipped"`
	// How long the newest flip took to each stage, or how old the oldest is that is on
	// its way there.
	Written      Seconds `json:"written" doc:"seconds until the registry took the newest flip"`
	Seen         Seconds `json:"seen" doc:"seconds until it was read back"`
	Published    Seconds `json:"published" doc:"seconds until it was in what proxies are served"`
	Acknowledged Seconds `json:"acknowledged" doc:"seconds until every proxy that holds the canary acknowledged it"`
	Proxies      int     `json:"proxies" doc:"streams of Envoys that hold the canary"`
	Behind       int     `json:"behind" doc:"of them, those that have not acknowledged what is published"`
	// Stale tells that a flip is on its way for longer than StaleAfter.
	Stale bool   `json:"stale"`
	Why   string `json:"why,omitempty" doc:"why it is stale: where the oldest flip is"`
}

// Seconds are a duration as metrics say it.
type Seconds float64

// Duration is the same as Go says it.
func (s Seconds) Duration() time.Duration { return time.Duration(float64(s) * float64(time.Second)) }

// Watch flips the canaries and follows them. It is safe for concurrent use.
type Watch struct {
	cfg     Config
	sources map[string]*source // set in New
}

// source is one canary.
type source struct {
	*Watch
	name     string
	id       string // of its canary
	registry discovery.Registry
	flipped  chan struct{} // holds one where there is a new flip

	mu       sync.Mutex // guards what follows
	ledger   ledger
	versions map[string]uint64 // of the assignment: the flip in it
	failed   error             // of the last write
	proxies  int
	behind   []string
	stale    bool // and so it was told
}

// New returns a watch that has flipped nothing.
func New(cfg Config) *Watch {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	w := &Watch{cfg: cfg, sources: map[string]*source{}}
	for name, r := range cfg.Registries {
		w.sources[name] = &source{Watch: w, name: name, id: cfg.ID + "-" + name, registry: r, flipped: make(chan struct{}, 1), versions: map[string]uint64{}}
	}
	return w
}

// Run flips until ctx ends, and takes the canaries out.
func (w *Watch) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range w.sources {
		g.Go(func() error { s.beat(ctx); return nil })
		g.Go(func() error { s.follow(ctx); return nil })
	}
	return g.Wait()
}

// Status is how fresh a source is; nil where nothing was flipped in it.
func (w *Watch) Status(name string) *Status {
	if w == nil || w.sources[name] == nil {
		return nil
	}
	return w.sources[name].status(time.Now())
}

// Unseen is for how long a flip that a source took is not read back, where that is too
// long; else 0.
func (w *Watch) Unseen(source string) time.Duration {
	s := w.Status(source)
	if s == nil || !s.Stale || s.Written.Duration() >= StaleAfter || s.Seen.Duration() < StaleAfter {
		return 0
	}
	return s.Seen.Duration()
}

// beat flips, and takes the canary out at the end.
func (s *source) beat(ctx context.Context) {
	for ctx.Err() == nil {
		next := time.Now().Add(s.cfg.Interval + rand.N(s.cfg.Interval/5) - s.cfg.Interval/10)
		s.flip(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(next)):
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), retireTimeout)
	defer cancel()
	if err := s.registry.Retire(last, s.id); err != nil {
		s.cfg.Logger.Info("canary not taken out; its check will end it", "source", s.name, "err", err)
	}
}

// follow looks where the flips are, which a write that hangs does not stop.
func (s *source) follow(ctx context.Context) {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.flipped:
		case <-again:
		}
		again = nil
		if age, arrived := s.look(time.Now()); !arrived {
			again = time.After(max(leastPause, min(age/10, mostPause)))
		}
	}
}

// flip gives the canary another value. It tries until the registry takes it: what comes
// later is no other flip.
func (s *source) flip(ctx context.Context) {
	s.mu.Lock()
	number, value := s.ledger.flip(time.Now())
	s.mu.Unlock()
	select {
	case s.flipped <- struct{}{}:
	default:
	}
	for pause := leastRetry; !s.write(ctx, number, value); pause = min(2*pause, mostRetry) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// write tries to register a flip, and tells whether that is over.
func (s *source) write(ctx context.Context, number uint64, value uint32) bool {
	short, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := s.registry.Flip(short, model.Canary{ID: s.id, Value: value, Lasts: 3*s.cfg.Interval + writeTimeout})
	if ctx.Err() != nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.failed == nil {
		s.cfg.Logger.Warn("canary not written", "source", s.name, "err", err)
	}
	if s.failed = err; err == nil {
		s.ledger.reach(written, number, time.Now())
	}
	return err == nil
}

// stream is what one has acknowledged.
type stream struct{ proxy, version string }

// look notes what the flips went through by now. It returns the age of the newest, and
// whether it has arrived.
func (s *source) look(now time.Time) (age time.Duration, arrived bool) {
	known := s.cfg.Catalog.Entry(model.CanaryKey(s.name)).Service
	assignment, version, of := s.cfg.Publisher.Canary(s.name)
	var acked []stream
	s.cfg.Streams.Acked(assignment, func(proxy, v string) { acked = append(acked, stream{proxy, v}) })

	s.mu.Lock()
	defer s.mu.Unlock()
	in := func(svc *model.Service) (newest uint64) {
		for _, v := range svc.CanaryValues(s.id) {
			newest = max(newest, s.ledger.numberOf(v))
		}
		return newest
	}
	s.ledger.reach(seen, in(known), now)
	newest := in(of)
	s.ledger.reach(published, newest, now)
	if newest > 0 {
		s.versions[version] = max(s.versions[version], newest)
	}
	everywhere := newest
	s.proxies, s.behind = len(acked), nil
	for _, st := range acked {
		has := s.versions[st.version]
		everywhere = min(everywhere, has)
		if has < newest {
			s.behind = append(s.behind, st.proxy)
		}
	}
	slices.Sort(s.behind)
	s.ledger.reach(acknowledged, everywhere, now)
	oldest := s.ledger.reached[acknowledged].number
	if newest > maxFlips {
		oldest = max(oldest, newest-maxFlips) // who has one before is behind, whichever it is
	}
	maps.DeleteFunc(s.versions, func(_ string, number uint64) bool { return number < oldest })
	s.tell(now)
	if _, waits := s.ledger.oldest(acknowledged, now); waits {
		return now.Sub(s.ledger.newest().at), false
	}
	return 0, true
}

// tell emits an event where the source became stale, or fresh again.
func (s *source) tell(now time.Time) {
	is := s.statusOf(now)
	if is.Stale == s.stale {
		return
	}
	s.stale = is.Stale
	e := model.Event{Kind: model.EventSourceFreshness, Subject: model.Subject{Kind: "Source", Name: s.name}, From: "fresh", To: "stale", Reason: is.Why}
	if !is.Stale {
		e.From, e.To, e.Reason = "stale", "fresh", ""
	}
	s.cfg.Emit(e)
}

func (s *source) status(now time.Time) *Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.statusOf(now)
}

// statusOf is the status; mu is held.
func (s *source) statusOf(now time.Time) *Status {
	if s.ledger.last == 0 {
		return nil
	}
	age := func(at stage) Seconds { return Seconds(s.ledger.age(at, now).Seconds()) }
	out := &Status{
		Flipped: s.ledger.newest().at, Written: age(written), Seen: age(seen), Published: age(published), Acknowledged: age(acknowledged),
		Proxies: s.proxies, Behind: len(s.behind),
	}
	if oldest, waits := s.ledger.oldest(acknowledged, now); waits && oldest >= StaleAfter {
		out.Stale, out.Why = true, s.why(oldest)
	}
	return out
}

// why says where the oldest flip is.
func (s *source) why(age time.Duration) string {
	number := s.ledger.reached[acknowledged].number + 1
	has := func(at stage) bool { return s.ledger.reached[at].number >= number }
	since := age.Round(time.Second)
	switch {
	case !has(written):
		why := "the registry has not answered"
		if s.failed != nil {
			why = s.failed.Error()
		}
		return fmt.Sprintf("for %s no change could be written: %s", since, why)
	case !has(seen):
		return fmt.Sprintf("a change written %s ago was not read back: what this source says may be as old", since)
	case !has(published):
		return fmt.Sprintf("a change written %s ago was read and is not published", since)
	}
	some := strings.Join(s.behind[:min(len(s.behind), maxSome)], ", ")
	if n := len(s.behind) - maxSome; n > 0 {
		some += fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("%d of %d proxies have not acknowledged a change written %s ago: %s", len(s.behind), s.proxies, since, some)
}
