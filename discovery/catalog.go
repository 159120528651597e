package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Config of a catalog.
type Config struct {
	// Sources by name.
	Sources map[string]Source
	Logger  *slog.Logger
	// Importers are the sources, by name, whose services are imported.
	Importers map[string]Importer
	// Emit takes the events; it does not block. nil drops them.
	Emit func(model.Event)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Catalog holds the last authoritative answer for each wanted key. It is safe
// for concurrent use; what it returns is immutable.
type Catalog struct {
	cfg   Config
	wants map[string]chan []model.ServiceKey // by source; set in New

	mu       sync.Mutex // guards what follows; never held across I/O
	entries  map[model.ServiceKey]*entry
	sources  map[model.ServiceKey]*entry // keys without a name
	changed  map[model.ServiceKey]bool
	signal   chan struct{}
	wantedBy map[string][]model.ServiceKey
	listed   map[string]map[model.ServiceKey]time.Time // by importer: when each name was there last
	imports  *model.Imports
}

// entry is what is known about one key.
type entry struct {
	service      *model.Service // the last authoritative answer, nil before the first
	answered     time.Time      // when it came last
	since        time.Time      // when it last changed
	failure      Failed         // why nothing newer is known; Err is nil while all is well
	failingSince time.Time      // zero while all is well
	unwanted     bool           // nobody wants it, and its source may not have heard of that
}

// New returns a catalog that wants nothing yet.
func New(cfg Config) *Catalog {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Emit == nil {
		cfg.Emit = func(model.Event) {}
	}
	c := &Catalog{
		cfg: cfg, wants: map[string]chan []model.ServiceKey{}, entries: map[model.ServiceKey]*entry{},
		sources: map[model.ServiceKey]*entry{}, changed: map[model.ServiceKey]bool{}, signal: make(chan struct{}, 1),
		wantedBy: map[string][]model.ServiceKey{}, listed: map[string]map[model.ServiceKey]time.Time{},
		imports: &model.Imports{Unknown: slices.Sorted(maps.Keys(cfg.Importers))},
	}
	for name := range cfg.Sources {
		c.wants[name] = make(chan []model.ServiceKey, 1)
	}
	return c
}

// Run runs every source until ctx ends, or until one returns an error.
func (c *Catalog) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for name, src := range c.cfg.Sources {
		g.Go(func() error {
			if err := src.Run(ctx, c.wants[name], c.report); err != nil {
				return fmt.Errorf("source %q: %w", name, err)
			}
			return nil
		})
	}
	for name, src := range c.cfg.Importers {
		g.Go(func() error {
			src.Names(ctx, func(keys []model.ServiceKey, failed Failed) { c.reportNames(name, keys, failed) })
			return nil
		})
	}
	return g.Wait()
}

// Want sets the keys that are watched from now on.
//
// A key that is no longer wanted is forgotten once its source has taken a set
// without it. A source that was told of a change and of its reverse at once goes on
// watching as if nothing had been, and has nothing new to report: what it said
// before is still what it says.
func (c *Catalog) Want(keys []model.ServiceKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	by := map[string][]model.ServiceKey{}
	wanted := map[model.ServiceKey]bool{}
	for _, k := range keys {
		if !wanted[k] {
			wanted[k] = true
			by[k.Source] = append(by[k.Source], k)
		}
	}
	for name, ch := range c.wants {
		slices.SortFunc(by[name], model.ServiceKey.Compare)
		if slices.Equal(by[name], c.wantedBy[name]) {
			continue
		}
		c.wantedBy[name] = by[name]
		select {
		case <-ch: // it was not taken: the newest set replaces it
		default:
			c.forget(name)
		}
		ch <- by[name]
	}
	for k := range c.entries {
		if c.entries[k].unwanted = !wanted[k]; !wanted[k] && c.wants[k.Source] == nil {
			delete(c.entries, k)
		}
	}
	for k := range wanted {
		if c.entries[k] != nil {
			continue
		}
		c.entries[k] = &entry{}
		if c.wants[k.Source] == nil {
			c.entries[k].failure = noSource(k)
			c.entries[k].failingSince = c.cfg.Now()
			c.markChanged(k)
		}
	}
}

// forget drops what the set that a source took last does not have in it.
func (c *Catalog) forget(source string) {
	for k, e := range c.entries {
		if k.Source == source && e.unwanted {
			delete(c.entries, k)
		}
	}
}

func (c *Catalog) markChanged(k model.ServiceKey) {
	c.changed[k] = true
	select {
	case c.signal <- struct{}{}:
	default:
	}
}

// Signal receives after keys changed; Changes says which. There is one reader.
func (c *Catalog) Signal() <-chan struct{} { return c.signal }

// Changes returns and forgets the keys whose answer changed.
func (c *Catalog) Changes() []model.ServiceKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(c.changed), model.ServiceKey.Compare)
	clear(c.changed)
	return keys
}

// Entry returns what is known about a key; the zero value when it is not wanted.
func (c *Catalog) Entry(k model.ServiceKey) model.Known {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[k]
	if e == nil || e.unwanted {
		return model.Known{}
	}
	out := model.Known{Service: e.service, Since: e.since, Failure: e.failure.Err, Reason: string(e.failure.Reason), FailingSince: e.failingSince}
	// A watch may go on answering from a cache while its registry is dead: what the
	// probe of the source finds holds for each of its services.
	if src := c.sources[k.OfSource()]; src != nil && out.Failure == nil {
		out.Failure, out.Reason, out.FailingSince = src.failure.Err, string(src.failure.Reason), src.failingSince
	}
	return out
}

// SourceStatus is one source in one datacenter, as of now.
type SourceStatus struct {
	Name       string    `json:"name"`
	Datacenter string    `json:"datacenter,omitempty"`
	State      string    `json:"state" doc:"fresh, unknown, or the reason of a failure"`
	Since      time.Time `json:"since,omitzero"`
	LastFresh  time.Time `json:"lastFresh,omitzero"`
	Error      string    `json:"error,omitempty"`
	Services   int       `json:"services" doc:"keys that are watched"`
	Unknown    int       `json:"unknown" doc:"keys that never had an authoritative answer"`
	Failing    int       `json:"failing" doc:"keys whose last read failed"`
}

const stateFresh = "fresh"

// IsFresh tells whether the source answers: what it says is of now.
func (s SourceStatus) IsFresh() bool { return s.State == stateFresh }

// Sources lists the sources, by name and datacenter.
func (c *Catalog) Sources() []SourceStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[model.ServiceKey]*SourceStatus{}
	at := func(k model.ServiceKey) *SourceStatus {
		k = k.OfSource()
		if all[k] == nil {
			all[k] = &SourceStatus{Name: k.Source, Datacenter: k.Datacenter, State: string(model.Unknown)}
		}
		return all[k]
	}
	for name := range c.cfg.Sources {
		at(model.ServiceKey{Source: name})
	}
	for k, e := range c.sources {
		s := at(k)
		s.LastFresh, s.State, s.Since = e.answered, stateFresh, e.since
		if e.failure.Err != nil {
			s.State, s.Since, s.Error = string(e.failure.Reason), e.failingSince, e.failure.Err.Error()
		}
	}
	for k, e := range c.entries {
		if e.unwanted {
			continue
		}
		s := at(k)
		s.Services++
		if e.service == nil {
			s.Unknown++
		}
		if e.failure.Err != nil {
			s.Failing++
		}
	}
	out := make([]SourceStatus, 0, len(all))
	for _, k := range slices.SortedFunc(maps.Keys(all), model.ServiceKey.Compare) {
		out = append(out, *all[k])
	}
	return out
}

// report is what sources call.
func (c *Catalog) report(k model.ServiceKey, r Report) {
	var events []model.Event
	c.mu.Lock()
	if k.Name == "" {
		events = c.reportSource(k, r)
	} else if e := c.entries[k]; e != nil {
		events = c.reportService(k, e, r)
	}
	c.mu.Unlock()
	for _, ev := range events {
		c.cfg.Emit(ev)
	}
}

func (c *Catalog) reportSource(k model.ServiceKey, r Report) []model.Event {
	if _, gone := r.(Unwatched); gone {
		delete(c.sources, k)
		return nil
	}
	now := c.cfg.Now()
	e := c.sources[k]
	if e == nil {
		e = &entry{}
		c.sources[k] = e
	}
	was := sourceState(e)
	if f, ok := r.(Failed); ok {
		if e.failure.Reason != f.Reason {
			e.failingSince = now
		}
		e.failure = f
	} else {
		if e.failure.Err != nil || e.answered.IsZero() {
			e.since = now
		}
		e.answered, e.failure, e.failingSince = now, Failed{}, time.Time{}
	}
	is := sourceState(e)
	if was == is {
		return nil
	}
	for key := range c.entries {
		if key.Source == k.Source && key.Datacenter == k.Datacenter {
			c.markChanged(key)
		}
	}
	ev := model.Event{Kind: model.EventSourceState, Subject: model.Subject{Kind: "Source", Name: k.String()}, From: was, To: is}
	if e.failure.Err != nil {
		ev.Reason = e.failure.Err.Error()
		c.cfg.Logger.Warn("source failed", "source", k.String(), "reason", is, "err", e.failure.Err)
	} else {
		c.cfg.Logger.Info("source answered", "source", k.String())
	}
	return []model.Event{ev}
}

func sourceState(e *entry) string {
	switch {
	case e.failure.Err != nil:
		return string(e.failure.Reason)
	case e.answered.IsZero():
		return string(model.Unknown)
	}
	return stateFresh
}

func (c *Catalog) reportService(k model.ServiceKey, e *entry, r Report) []model.Event {
	now := c.cfg.Now()
	if f, ok := r.(Failed); ok {
		if e.failure.Err == nil {
			e.failingSince = now
			c.markChanged(k) // staleness is shown, though nothing is published anew
		}
		e.failure = f
		return nil
	}
	next := serviceOf(k, r)
	before := e.service
	wasFailing := e.failure.Err != nil
	e.answered, e.failure, e.failingSince = now, Failed{}, time.Time{}
	if before != nil && reflect.DeepEqual(before, next) {
		if wasFailing {
			c.markChanged(k)
		}
		return nil
	}
	e.service, e.since = next, now
	c.markChanged(k)
	return endpointEvents(before, next)
}

// serviceOf is an authoritative answer.
func serviceOf(k model.ServiceKey, r Report) *model.Service {
	out := &model.Service{Key: k}
	switch x := r.(type) {
	case Present:
		out.Presence, out.Endpoints, out.Problems = model.Present, x.Endpoints, x.Problems
	case Empty:
		out.Presence = model.Empty
	default:
		out.Presence = model.Absent
	}
	return out
}

// Look is what is known about a key or, where nobody wants it, what its source says when it
// is asked once; the zero value where that cannot be asked so.
func (c *Catalog) Look(ctx context.Context, k model.ServiceKey) model.Known {
	if known := c.Entry(k); known.Service != nil || known.Failure != nil {
		return known
	}
	source, ok := c.cfg.Sources[k.Source]
	if !ok {
		f := noSource(k)
		return model.Known{Failure: f.Err, Reason: string(f.Reason), FailingSince: c.cfg.Now()}
	}
	reader, ok := source.(Reader)
	if !ok {
		return model.Known{}
	}
	r := reader.Read(ctx, k)
	if f, failed := r.(Failed); failed {
		return model.Known{Failure: f.Err, Reason: string(f.Reason), FailingSince: c.cfg.Now()}
	}
	return model.Known{Service: serviceOf(k, r), Since: c.cfg.Now()}
}

func noSource(k model.ServiceKey) Failed {
	return Failed{NoSource, fmt.Errorf("no source is named %q; configure it, or correct the upstream's service.source", k.Source)}
}

// endpointEvents says what became of each endpoint.
func endpointEvents(before, after *model.Service) []model.Event {
	var out []model.Event
	subject := model.Subject{Kind: "Service", Name: after.Key.String()}
	old := map[string]model.Endpoint{}
	if before != nil {
		for _, e := range before.Endpoints {
			old[e.ID] = e
		}
	}
	for _, e := range after.Endpoints {
		was, ok := old[e.ID]
		delete(old, e.ID)
		switch {
		case !ok:
			out = append(out, model.Event{Kind: model.EventEndpointAdded, Subject: subject, Endpoint: e.Address, To: string(e.Health), Reason: e.Reason})
		case was.Health != e.Health:
			out = append(out, model.Event{Kind: model.EventEndpointHealth, Subject: subject, Endpoint: e.Address, From: string(was.Health), To: string(e.Health), Reason: e.Reason})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(old)) {
		e := old[id]
		out = append(out, model.Event{Kind: model.EventEndpointRemoved, Subject: subject, Endpoint: e.Address, From: string(e.Health), Reason: "the source no longer lists it"})
	}
	return out
}
