// Package evidence gathers what is known of one upstream, for pkg/diagnose: it is the
// only part of a diagnosis that asks anybody.
//
//	documents, revisions ─┐
//	catalog, deliveries ──┤
//	reports, events ──────┼─► Gatherer ─► diagnose.Case
//	admins of proxies ────┤
//	probes from here ─────┘
//
// What must be asked for is asked in parallel, each part with a deadline; then what is in
// memory is read, so that it is of the time of the answers. What did not answer is said in
// the Case, and stops nothing else.
package evidence

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/envoyadmin"
	"github.com/wellspring-xds/wellspring/pkg/events"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/probe"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/pkg/store"
)

// Publisher is what is served.
type Publisher interface {
	// Endpoints are those that an upstream uses, and a problem for each that it cannot;
	// false where there is no such upstream.
	Endpoints(upstream string) ([]model.Endpoint, []model.Problem, bool)
	// Spec is what is published: the documents, and an upstream for each service that is
	// imported.
	Spec() *spec.Spec
}

// Health is how upstreams do.
type Health interface {
	// HealthBy is how one does by what proxies see; false where there is none of that name.
	HealthBy(name string, views []fleet.View) (health.Upstream, bool)
}

// Fleet is what is known of the connected proxies.
type Fleet interface {
	Streams(ctx context.Context) []model.Stream
	Refused() []model.RefusedStream
}

// Recorded is what happened, as it is on disk.
type Recorded interface {
	// Between reads the newest limit events of a span of time, oldest first.
	Between(ctx context.Context, from, to time.Time, limit int) ([]model.Event, error)
}

// Prober tries endpoints from here.
type Prober interface {
	Try(ctx context.Context, t probe.Target) []probe.Result
}

// Config of a gatherer. All but Prober, ClientTLS and Unseen are required.
type Config struct {
	Store     *store.Store
	Catalog   *discovery.Catalog
	Publisher Publisher
	Health    Health
	// Fleet is what proxies were sent, Seen what they see.
	Fleet  Fleet
	Seen   *fleet.Fleet
	Events *events.Log
	// Recorded are those on disk.
	Recorded Recorded
	// Admins says which Envoys may be asked.
	Admins envoyadmin.Policy
	// Prober tries endpoints from here; nil tries none. ClientTLS is what is spoken to an
	// upstream's, nil for none, or why it cannot be spoken from here.
	Prober    Prober
	ClientTLS func(upstream string) (*tls.Config, error)
	// Unseen is for how long what a source took is not read back; nil is never.
	Unseen func(source string) time.Duration
}

// Gatherer gathers. It is safe for concurrent use.
type Gatherer struct {
	Config
	operators, own asking

	mu      sync.Mutex    // guards what follows
	spec    [3]*spec.Spec // with what is imported; of the documents, and of what was published
	configs map[string]*config
	earlier *[]model.Event // before this process, of the last hour; nil was not read yet
}

// asking is for whom proxies are asked for all that they hold.
type asking struct {
	slots   chan struct{} // those that are asked at once; each takes a second at least
	proxies int           // that are asked of one upstream
	keeps   time.Duration // a configuration may be so old
}

// config is what a proxy was configured with.
type config struct {
	mu sync.Mutex // held while it is asked: who comes meanwhile waits for the answer
	is *envoyadmin.Config
	at time.Time
}

// New returns a gatherer.
func New(cfg Config) *Gatherer {
	if cfg.ClientTLS == nil {
		cfg.ClientTLS = func(string) (*tls.Config, error) { return nil, nil }
	}
	return &Gatherer{
		Config: cfg, operators: asking{make(chan struct{}, 32), 6, 0}, own: asking{make(chan struct{}, 8), 3, 20 * time.Second},
		configs: map[string]*config{},
	}
}

// What gathering may take: each part by itself, and all together.
const (
	gatherAll  = 1900 * time.Millisecond
	gatherDisk = time.Second
	lookApart  = time.Second // two looks at counters
	lastHour   = time.Hour
)

// Ask gathers all that can be known of an upstream, or of what one proxy has of it. The
// error is model.ErrNotFound where there is no such upstream, or that proxy does not reach
// it.
func (g *Gatherer) Ask(ctx context.Context, name, proxy string) (c diagnose.Case, err error) {
	return g.ask(ctx, &g.operators, name, proxy)
}

// Watch is Ask for who asks about many, again and again: of fewer proxies, and with
// configurations that were asked for some seconds ago.
func (g *Gatherer) Watch(ctx context.Context, name string) (diagnose.Case, error) {
	return g.ask(ctx, &g.own, name, "")
}

func (g *Gatherer) ask(ctx context.Context, how *asking, name, proxy string) (c diagnose.Case, err error) {
	ctx, cancel := context.WithTimeout(ctx, gatherAll)
	defer cancel()
	if err := g.remember(ctx, &c, name, proxy); err != nil {
		return c, err
	}
	recent := g.Events.Last(maxEvents)
	var wg sync.WaitGroup
	var notAsked [3][]string
	wg.Go(func() { c.Resolved = resolve(ctx, c.Spec, c.Endpoints) })
	wg.Go(func() { c.Left = g.tryLeft(ctx, c.Spec, name, c.Health.Service, c.Endpoints, recent) })
	wg.Go(func() { c.Events, notAsked[0] = g.happened(ctx, recent, c.Health.Service, name) })
	wg.Go(func() { c.Asked, notAsked[1] = g.askEnvoys(ctx, how, name, c.Streams, c.Health.Seen) })
	wg.Go(func() { c.Probes, notAsked[2] = g.probe(ctx, name, c.Spec, c.Endpoints, c.Views) })
	wg.Wait()
	if err := g.remember(ctx, &c, name, proxy); err != nil {
		return c, err
	}
	g.around(&c)
	c.NotAsked = slices.Concat(notAsked[:]...)
	if proxy != "" {
		c.NotAsked = append(c.NotAsked, "how its requests failed: that is counted for all proxies together")
	}
	g.before(&c, proxy)
	return c, nil
}

// Remember gathers what is known of an upstream without asking anybody: no proxy, no
// endpoint, no disk but for the history of documents.
func (g *Gatherer) Remember(ctx context.Context, name string) (c diagnose.Case, err error) {
	if err := g.remember(ctx, &c, name, ""); err != nil {
		return c, err
	}
	g.around(&c)
	c.Events = about(g.Events.Last(maxEvents), c.Health.Service, name)
	c.NotAsked = []string{"proxies, and endpoints themselves: this is by what is known without asking"}
	g.before(&c, "")
	return c, nil
}

// before adds what changed before it began, and what was lost since.
func (g *Gatherer) before(c *diagnose.Case, proxy string) {
	since := c.Since()
	var cut []string
	c.Changes, cut = g.touching(c.Upstream, c.Spec, since)
	c.HistoryRead, c.NotAsked = len(cut) == 0, append(c.NotAsked, cut...)
	if !since.IsZero() && proxy == "" {
		c.Requests, c.Lost = g.lost(c.Upstream, since, c.At)
	}
}

// remember fills in what is in memory.
func (g *Gatherer) remember(ctx context.Context, c *diagnose.Case, name, proxy string) error {
	sp := g.present()
	u, ok := sp.Upstream(name)
	if !ok {
		return fmt.Errorf("%s: %w", spec.Ref{Kind: spec.KindUpstream, Name: name}, model.ErrNotFound)
	}
	of := func(id string) bool { return proxy == "" || id == proxy }
	c.At, c.Upstream, c.Spec, c.Known = time.Now(), name, u, g.Catalog.Entry(u.Key(name))
	c.Views = slices.DeleteFunc(g.Seen.Views(name, true), func(v fleet.View) bool { return !of(v.Proxy) })
	c.Health, _ = g.Health.HealthBy(name, c.Views)
	c.Endpoints, c.Problems, _ = g.Publisher.Endpoints(name)
	if c.Known.Service != nil {
		c.Problems = append(slices.Clone(c.Problems), c.Known.Service.Problems...)
	}
	for _, x := range g.Catalog.Sources() {
		if k := u.Key(name); x.Name == k.Source && x.Datacenter == k.Datacenter {
			c.LastFresh = x.LastFresh
		}
	}
	if proxy == "" {
		c.Failures, c.Reasons = g.Seen.Failures(name)
	} else if c.Health.Seen != nil {
		c.Health.Seen.Requests, c.Health.Seen.Failed = 0, 0 // of all proxies together
	}
	c.Groups, c.Streams, c.Members = groupsOf(sp, name), nil, nil
	for _, st := range g.Fleet.Streams(ctx) {
		if slices.Contains(c.Groups, st.Group) && of(st.ID) {
			c.Streams = append(c.Streams, st)
		}
	}
	for _, m := range g.Seen.Proxies() {
		if slices.Contains(c.Groups, m.Group) && of(m.ID) {
			c.Members = append(c.Members, m)
		}
	}
	if proxy != "" && len(c.Members) == 0 {
		return fmt.Errorf("%w: no proxy %q reaches upstream %s; wellspring proxies lists them", model.ErrNotFound, proxy, name)
	}
	c.Refused = g.Fleet.Refused()
	return nil
}

// present is the newest Spec with what is imported, made once.
func (g *Gatherer) present() *spec.Spec {
	documents, published := g.Store.State().Spec, g.Publisher.Spec()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.spec[1] != documents || g.spec[2] != published {
		g.spec = [3]*spec.Spec{documents.WithImportsOf(published), documents, published}
	}
	return g.spec[0]
}

func groupsOf(sp *spec.Spec, upstream string) (out []string) {
	for _, d := range sp.Documents(spec.KindGroup) {
		if slices.Contains(sp.Upstreams(d.Name), upstream) {
			out = append(out, d.Name)
		}
	}
	return out
}

// lost counts the requests since a time until another, to the minute; of more than an hour
// ago, to the hour.
func (g *Gatherer) lost(name string, since, until time.Time) (requests, lost uint64) {
	minutes, hours := g.Seen.Trend(name)
	spans, from := minutes, since.Truncate(time.Minute)
	if time.Since(since) > lastHour {
		spans, from = hours, since.Truncate(time.Hour)
	}
	for _, x := range spans {
		if !x.From.Before(from) && !x.From.After(until) {
			requests, lost = requests+x.Requests, lost+x.Failed
		}
	}
	return max(requests, lost), lost
}
