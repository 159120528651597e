// Package xds is the publisher: it turns the newest Spec and the newest Services
// into tables of resources, and says which of them changed.
//
//	Store ──── Spec ─────┐
//	                     ├─► Publisher ─ Table per class ─► delivery.Engine
//	Catalog ─ Services ──┘
//
// The two inputs stay apart: a changed service re-makes the assignments of the
// upstreams that select it and nothing else; a changed document re-makes what it
// reaches, and unchanged content keeps its very resource.
//
// An upstream is published once its service had an authoritative answer. One
// that is not known yet is not added; one that was published and now points to
// an unknown service keeps its last definition and its endpoints until that
// service has answered. What cannot be translated keeps its last published form
// while the process lives. Each of these is decided here, once, for clusters and
// assignments together.
package xds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds/delivery"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

// Store is where the Spec comes from. Spec and Changed return at once.
type Store interface {
	Spec() *spec.Spec
	Changed() <-chan struct{}
	// Upstreams returns every form of every Upstream that the history has.
	Upstreams() ([]*spec.Document, error)
	// Answered are the services that ever had an authoritative answer;
	// MarkAnswered adds to them.
	Answered() map[model.ServiceKey]bool
	MarkAnswered(keys []model.ServiceKey) error
}

// Catalog is where the Services come from. No method blocks.
type Catalog interface {
	Want(keys []model.ServiceKey)
	Entry(key model.ServiceKey) discovery.Entry
	Signal() <-chan struct{}
	Changes() []model.ServiceKey
}

// Config of a publisher.
type Config struct {
	Store   Store
	Catalog Catalog
	Engine  *delivery.Engine
	Logger  *slog.Logger
	// Emit takes the events; it does not block. nil drops them.
	Emit func(model.Event)
	// ReadyDeadline is when streams are served though not every service was
	// answered again after a start. Zero is never.
	ReadyDeadline time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Publisher keeps the tables. It is safe for concurrent use.
type Publisher struct {
	cfg     Config
	started time.Time
	must    map[model.ServiceKey]bool // set in New: services that a start waits for

	mu          sync.Mutex // guards what follows
	spec        *spec.Spec
	classes     map[delivery.Class]bool
	published   map[string]*published
	unknown     map[string]bool
	assignments map[string]*delivery.Resource // by name, older generations included
	clusters    map[clusterKey]*delivery.Resource
	lastGood    map[lastKey]*delivery.Resource
	definitions map[string]definition // every generation that is known, by assignment name
	history     bool                  // definitions holds the store's history
	older       map[string]bool       // assignments of older generations that somebody wants
	answered    map[model.ServiceKey]bool
	health      map[string]health.State
	problems    []model.Problem            // of the last publish, assignments apart
	unusable    map[string][]model.Problem // of assignments, by name
	changed     chan struct{}              // closed when a newer Spec was taken up
}

// published is an upstream as it is served.
type published struct {
	body   *spec.Upstream
	key    model.ServiceKey
	frozen bool // its newest form points to a service that is not known
}

type definition struct {
	name string
	body *spec.Upstream
}

type clusterKey struct {
	name string
	body *spec.Upstream
	band translate.Band
}

type lastKey struct {
	typ  delivery.Type
	name string
	band translate.Band
}

// New returns a publisher of the store's present Spec, which wants its services
// of the catalog at once.
func New(cfg Config) *Publisher {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Emit == nil {
		cfg.Emit = func(model.Event) {}
	}
	p := &Publisher{
		cfg: cfg, started: cfg.Now(), must: map[model.ServiceKey]bool{},
		classes: map[delivery.Class]bool{}, published: map[string]*published{}, unknown: map[string]bool{},
		assignments: map[string]*delivery.Resource{}, clusters: map[clusterKey]*delivery.Resource{},
		lastGood: map[lastKey]*delivery.Resource{}, definitions: map[string]definition{}, older: map[string]bool{},
		answered: map[model.ServiceKey]bool{}, health: map[string]health.State{},
		changed: make(chan struct{}),
	}
	s, before := cfg.Store.Spec(), cfg.Store.Answered()
	for _, d := range s.Documents(spec.KindGroup) {
		for _, name := range s.Upstreams(d.Name) {
			u, _ := s.Upstream(name)
			if k := u.Key(name); len(before) == 0 || before[k] {
				p.must[k] = true
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.respec(s)
	return p
}

// Changed returns a channel that is closed once a newer Spec was taken up.
func (p *Publisher) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// Run follows the store, the catalog and the demand of streams until ctx ends.
func (p *Publisher) Run(ctx context.Context) error {
	for {
		changed := p.cfg.Store.Changed()
		if s := p.cfg.Store.Spec(); s != p.currentSpec() {
			p.mu.Lock()
			fresh := p.respec(s)
			p.mu.Unlock()
			p.markAnswered(fresh)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-p.cfg.Catalog.Signal():
			p.services(p.cfg.Catalog.Changes())
		case <-p.cfg.Engine.Demand():
			p.generations()
		}
	}
}

func (p *Publisher) currentSpec() *spec.Spec {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spec
}

// Join makes sure that a class has a table.
func (p *Publisher) Join(c delivery.Class) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.classes[c] {
		p.classes[c] = true
		p.publish(map[model.ServiceKey]bool{})
	}
}

// Ready is nil once a group may be served: every service that it reaches, and
// that this start waits for, has answered. The error names those that have not.
func (p *Publisher) Ready(group string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.cfg.ReadyDeadline; d > 0 && p.cfg.Now().Sub(p.started) >= d {
		return nil
	}
	var missing []string
	for _, name := range p.spec.Upstreams(group) {
		u, _ := p.spec.Upstream(name)
		k := u.Key(name)
		if !p.must[k] || p.answered[k] {
			continue
		}
		why := ""
		if e := p.cfg.Catalog.Entry(k); e.Failure.Err != nil {
			why = ": " + e.Failure.Err.Error()
		}
		missing = append(missing, k.String()+why)
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("group %q waits for the first answer about %d services after a start: %s", group, len(missing), strings.Join(missing, "; "))
}

// Problems lists what could not be translated or used, now.
func (p *Publisher) Problems() []model.Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := slices.Clone(p.problems)
	for _, name := range slices.Sorted(maps.Keys(p.unusable)) {
		out = append(out, p.unusable[name]...)
	}
	return out
}

// Held tells which upstreams are not served in their newest form: never
// published (true), or served in an older form (false), with the reason.
func (p *Publisher) Held() map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := maps.Clone(p.unknown)
	for name, pub := range p.published {
		if pub.frozen {
			out[name] = false
		}
	}
	return out
}

// respec takes up a new Spec and returns the services that answered since. mu is
// held.
func (p *Publisher) respec(s *spec.Spec) (fresh []model.ServiceKey) {
	p.spec = s
	p.cfg.Catalog.Want(p.wants())
	fresh = p.takeAnswers(nil)
	p.decide()
	p.prune()
	p.publish(nil)
	close(p.changed)
	p.changed = make(chan struct{})
	return fresh
}

// prune forgets what is neither declared nor wanted any more.
func (p *Publisher) prune() {
	declared := map[string]bool{}
	for _, d := range p.spec.Documents("") {
		declared[d.Name] = true
	}
	for k := range p.lastGood {
		if name := translate.UpstreamOf(k.name); !declared[name] && !p.older[k.name] {
			delete(p.lastGood, k)
		}
	}
	for k := range p.clusters {
		if !declared[k.name] {
			delete(p.clusters, k)
		}
	}
	for name := range p.definitions {
		_, served := p.assignments[name]
		if !p.older[name] && !served {
			delete(p.definitions, name)
			p.history = false
		}
	}
}

// wants are the services of the upstreams that groups reach, of what is still
// served in an older form, and of older generations that streams hold.
func (p *Publisher) wants() []model.ServiceKey {
	keys := map[model.ServiceKey]bool{}
	for _, d := range p.spec.Documents(spec.KindUpstream) {
		if u, ok := d.Body.(*spec.Upstream); ok {
			keys[u.Key(d.Name)] = true
		}
	}
	for _, pub := range p.published {
		keys[pub.key] = true
	}
	for name := range p.older {
		if d, ok := p.definitions[name]; ok {
			keys[d.body.Key(d.name)] = true
		}
	}
	return slices.Collect(maps.Keys(keys))
}

// takeAnswers notes which services have answered; nil is all that are wanted.
func (p *Publisher) takeAnswers(keys []model.ServiceKey) (fresh []model.ServiceKey) {
	if keys == nil {
		keys = p.wants()
	}
	for _, k := range keys {
		if !p.answered[k] && p.cfg.Catalog.Entry(k).Service != nil {
			p.answered[k] = true
			fresh = append(fresh, k)
		}
	}
	return fresh
}

// decide settles which upstreams are published, in which form. mu is held.
func (p *Publisher) decide() {
	clear(p.unknown)
	next := map[string]*published{}
	for _, d := range p.spec.Documents(spec.KindUpstream) {
		u, ok := d.Body.(*spec.Upstream)
		if !ok {
			continue
		}
		key := u.Key(d.Name)
		before := p.published[d.Name]
		switch {
		case p.cfg.Catalog.Entry(key).Service != nil:
			next[d.Name] = &published{body: u, key: key}
			p.definitions[translate.AssignmentName(d.Name, u)] = definition{d.Name, u}
		case before != nil:
			next[d.Name] = &published{body: before.body, key: before.key, frozen: true}
		default:
			p.unknown[d.Name] = true
		}
	}
	p.published = next
	p.older = p.olderOf(p.cfg.Engine.Wanted())
	p.cfg.Catalog.Want(p.wants())
}

// olderOf are the wanted assignments that are not the newest form of theirs, and
// whose definition is known.
func (p *Publisher) olderOf(wanted []string) map[string]bool {
	out := map[string]bool{}
	for _, name := range wanted {
		upstream := translate.UpstreamOf(name)
		if pub := p.published[upstream]; pub != nil && translate.AssignmentName(upstream, pub.body) == name {
			continue
		}
		if _, ok := p.definitions[name]; ok {
			out[name] = true
		}
	}
	return out
}

// services takes up changed services.
func (p *Publisher) services(keys []model.ServiceKey) {
	p.mu.Lock()
	fresh := p.takeAnswers(keys)
	touched := make(map[model.ServiceKey]bool, len(keys))
	for _, k := range keys {
		touched[k] = true
	}
	if len(fresh) > 0 {
		p.decide()
		touched = nil
	}
	p.publish(touched)
	p.mu.Unlock()
	p.markAnswered(fresh)
}

func (p *Publisher) markAnswered(keys []model.ServiceKey) {
	if err := p.cfg.Store.MarkAnswered(keys); err != nil {
		p.cfg.Logger.Error("answered services not written", "err", err)
	}
}

// generations takes up which older assignments streams want.
func (p *Publisher) generations() {
	wanted := p.cfg.Engine.Wanted()
	if p.stranger(wanted) {
		p.readHistory()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.olderOf(wanted)
	if maps.Equal(next, p.older) {
		return
	}
	p.older = next
	p.cfg.Catalog.Want(p.wants())
	p.publish(nil)
}

// stranger tells whether an assignment is wanted whose definition is not known
// and may stand in the history.
func (p *Publisher) stranger(wanted []string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.history && slices.ContainsFunc(wanted, func(name string) bool {
		_, known := p.definitions[name]
		return !known
	})
}

// readHistory learns every generation that the store's history has.
func (p *Publisher) readHistory() {
	docs, err := p.cfg.Store.Upstreams()
	if err != nil {
		p.cfg.Logger.Error("history of upstreams not read", "err", err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.history = true
	for _, d := range docs {
		if u, ok := d.Body.(*spec.Upstream); ok {
			name := translate.AssignmentName(d.Name, u)
			if _, known := p.definitions[name]; !known {
				p.definitions[name] = definition{d.Name, u}
			}
		}
	}
}

// publish re-makes what the touched services reach, everything for nil, and
// hands every class its table. mu is held.
func (p *Publisher) publish(touched map[model.ServiceKey]bool) {
	p.problems = nil
	p.assign(touched)
	for c := range p.classes {
		if g, _ := p.spec.Group(c.Group); g == nil {
			delete(p.classes, c)
			p.cfg.Engine.Drop(c)
			continue
		}
		t := p.table(c)
		if now, _ := p.cfg.Engine.Table(c); now == nil || !equalTables(now, t) {
			p.cfg.Engine.Publish(c, t)
		}
	}
	p.tellHealth(touched)
}

// assign makes the assignments of every published upstream and wanted older
// generation.
func (p *Publisher) assign(touched map[model.ServiceKey]bool) {
	next := make(map[string]*delivery.Resource, len(p.assignments))
	problems := make(map[string][]model.Problem, len(p.unusable))
	add := func(name string, u *spec.Upstream) {
		key, assignment := u.Key(name), translate.AssignmentName(name, u)
		if was := p.assignments[assignment]; was != nil && touched != nil && !touched[key] {
			next[assignment], problems[assignment] = was, p.unusable[assignment]
			return
		}
		entry := p.cfg.Catalog.Entry(key)
		if entry.Service == nil {
			return
		}
		m, faults := translate.Assignment(name, u, entry.Service)
		r, problem := p.resource(delivery.Assignments, assignment, 0, "Upstream/"+name, m, nil)
		if r != nil {
			next[assignment] = r
		}
		problems[assignment] = slices.Concat(faults, entry.Service.Problems, problem)
	}
	for name, pub := range p.published {
		add(name, pub.body)
	}
	for assignment := range p.older {
		if d := p.definitions[assignment]; next[assignment] == nil {
			add(d.name, d.body)
		}
	}
	p.assignments, p.unusable = next, problems
}

// table is all that a class is served.
func (p *Publisher) table(c delivery.Class) *delivery.Table {
	band := translate.Band(c.Band)
	t := &delivery.Table{Unknown: map[string]bool{}, Resources: map[delivery.Type]map[string]*delivery.Resource{
		delivery.Clusters: {}, delivery.Assignments: {}, delivery.Listeners: {}, delivery.RouteTables: {},
	}}
	reach := map[string]bool{}
	for _, name := range p.spec.Upstreams(c.Group) {
		reach[name] = true
		pub := p.published[name]
		if pub == nil {
			t.Unknown[name] = true
			continue
		}
		cluster := p.cluster(name, pub.body, band)
		if cluster == nil || p.assignments[cluster.Assignment] == nil {
			t.Unknown[name] = true // it exists and cannot be said: that is not a deletion
			continue
		}
		t.Resources[delivery.Clusters][name] = cluster
		t.Resources[delivery.Assignments][cluster.Assignment] = p.assignments[cluster.Assignment]
	}
	for name := range p.older {
		upstream := translate.UpstreamOf(name)
		if r := p.assignments[name]; r != nil && (reach[upstream] || p.spec.Document(spec.KindUpstream, upstream) == nil) {
			t.Resources[delivery.Assignments][name] = r
		}
	}
	g, _ := p.spec.Group(c.Group)
	for _, name := range g.Listeners {
		l, ok := p.spec.Listener(name)
		if !ok {
			continue
		}
		doc := "Listener/" + name
		if r := p.note(p.resource(delivery.Listeners, name, band, doc, translate.Listener(name, l), func(r *delivery.Resource) { r.Address = l.Address })); r != nil {
			t.Resources[delivery.Listeners][name] = r
		}
		routes := translate.RouteTable(name, l, p.spec)
		if r := p.note(p.resource(delivery.RouteTables, name, band, doc, routes, func(r *delivery.Resource) { r.Clusters = translate.Clusters(routes) })); r != nil {
			t.Resources[delivery.RouteTables][name] = r
		}
	}
	return t
}

func (p *Publisher) cluster(name string, u *spec.Upstream, band translate.Band) *delivery.Resource {
	key := clusterKey{name, u, band}
	if r := p.clusters[key]; r != nil {
		return r
	}
	for old := range p.clusters { // an older form is not needed any more
		if old.name == name && old.band == band {
			delete(p.clusters, old)
		}
	}
	r, problem := p.resource(delivery.Clusters, name, band, "Upstream/"+name, translate.Cluster(name, u, band),
		func(r *delivery.Resource) { r.Assignment = translate.AssignmentName(name, u) })
	if problem == nil { // a last good form is looked for again each time, with its problem
		p.clusters[key] = r
	}
	return p.note(r, problem)
}

// note keeps the problems of a resource.
func (p *Publisher) note(r *delivery.Resource, problem []model.Problem) *delivery.Resource {
	p.problems = append(p.problems, problem...)
	return r
}

// resource checks and encodes a message; fill adds to a new resource what is not
// encoded. The same content gives the same resource; what does not pass gives
// its last good form, or nil.
func (p *Publisher) resource(typ delivery.Type, name string, band translate.Band, doc string, m proto.Message, fill func(*delivery.Resource)) (*delivery.Resource, []model.Problem) {
	key := lastKey{typ, name, band}
	if err := translate.Check(m); err != nil {
		return p.lastGood[key], []model.Problem{{Document: doc, Message: "cannot be said to Envoy: " + err.Error()}}
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return p.lastGood[key], []model.Problem{{Document: doc, Message: "cannot be encoded: " + err.Error()}}
	}
	version := delivery.VersionOf(body)
	if same := p.lastGood[key]; same != nil && same.Version == version {
		return same, nil
	}
	r := &delivery.Resource{Type: typ, Name: name, Version: version, Document: doc, Body: &anypb.Any{TypeUrl: string(typ), Value: body}}
	if fill != nil {
		fill(r)
	}
	p.lastGood[key] = r
	return r, nil
}

func equalTables(a, b *delivery.Table) bool {
	for _, typ := range delivery.Types {
		if !maps.Equal(a.Resources[typ], b.Resources[typ]) {
			return false
		}
	}
	return maps.Equal(a.Unknown, b.Unknown)
}

// Health joins every declared upstream with what is known of its service, by
// name.
func (p *Publisher) Health() []health.Upstream {
	s := p.currentSpec()
	var out []health.Upstream
	for _, d := range s.Documents(spec.KindUpstream) {
		if u, ok := d.Body.(*spec.Upstream); ok {
			out = append(out, p.healthOf(d.Name, u))
		}
	}
	return out
}

func (p *Publisher) healthOf(name string, u *spec.Upstream) health.Upstream {
	e := p.cfg.Catalog.Entry(u.Key(name))
	return health.Of(name, u, health.Known{Service: e.Service, Since: e.Since, Failure: e.Failure.Err, FailingSince: e.FailingSince})
}

// tellHealth emits an event for each upstream whose state changed. mu is held.
func (p *Publisher) tellHealth(touched map[model.ServiceKey]bool) {
	next := map[string]health.State{}
	for _, d := range p.spec.Documents(spec.KindUpstream) {
		u, ok := d.Body.(*spec.Upstream)
		if !ok {
			continue
		}
		was := p.health[d.Name]
		next[d.Name] = was
		if touched != nil && !touched[u.Key(d.Name)] {
			continue
		}
		h := p.healthOf(d.Name, u)
		next[d.Name] = h.State
		if was != h.State {
			p.cfg.Emit(model.Event{
				Kind: model.EventUpstreamState, Subject: model.Subject{Kind: string(spec.KindUpstream), Name: d.Name},
				From: string(was), To: string(h.State), Reason: h.Why, Revision: p.spec.Revision,
			})
		}
	}
	p.health = next
}

// ErrNoGroup and ErrTwoGroups refuse a proxy.
var (
	ErrNoGroup   = errors.New("no group matches this proxy")
	ErrTwoGroups = errors.New("more than one group matches this proxy")
)

// GroupOf finds the one group of a proxy.
func (p *Publisher) GroupOf(x model.Proxy) (string, error) {
	s := p.currentSpec()
	groups := s.GroupsOf(x)
	switch len(groups) {
	case 1:
		return groups[0], nil
	case 0:
		var names []string
		for _, d := range s.Documents(spec.KindGroup) {
			names = append(names, d.Name)
		}
		return "", fmt.Errorf("%w (node id %q, cluster %q, zone %q; groups: %s); apply a Group that matches it, or start Envoy with the cluster of one",
			ErrNoGroup, x.ID, x.Cluster, x.Locality.Zone, cmp.Or(strings.Join(names, ", "), "none"))
	}
	return "", fmt.Errorf("%w (node id %q: %s); make their match keys exclude each other", ErrTwoGroups, x.ID, strings.Join(groups, ", "))
}
