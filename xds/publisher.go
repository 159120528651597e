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
// service has answered. What is on its way out, such a held form or an older
// generation that a proxy still uses, keeps whom it had when its service goes: it
// goes by the very change that the successor is warming for. What the Spec itself
// declares is read off the Spec; the catalog hears of it a moment later, and an
// upstream would have nobody in between.
//
// What cannot be translated keeps its last published form while the process lives.
// Each of these is decided here, once, for clusters and assignments together.
package xds

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

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
	// Imported are the services that had an imported upstream's name last;
	// MarkImported tells who has one now.
	Imported() map[string]model.ServiceKey
	MarkImported(holders map[string]model.ServiceKey) error
	// Overrides are an operator's words about endpoints; Changed tells of them too.
	Overrides() []model.Override
}

// Catalog is where the Services come from. No method blocks.
type Catalog interface {
	Want(keys []model.ServiceKey)
	Entry(key model.ServiceKey) model.Known
	Signal() <-chan struct{}
	Changes() []model.ServiceKey
	// Imports are the services that sources import; the same value until it changed.
	Imports() *model.Imports
}

// Touched takes the names of upstreams. No method blocks.
type Touched interface {
	Touch(upstreams ...string)
	TouchAll()
}

// nobody is told.
type nobody struct{}

func (nobody) Touch(...string) {}
func (nobody) TouchAll()       {}

// Config of a publisher.
type Config struct {
	Store   Store
	Catalog Catalog
	Engine  *delivery.Engine
	// Secrets keep the files that documents name, which lie below SecretsDir; nil
	// has none.
	Secrets    Secrets
	SecretsDir string
	Logger     *slog.Logger
	// Emit takes the events; it does not block. nil drops them.
	Emit func(model.Event)
	// Touched is told which upstreams may do otherwise than before; nil tells nobody.
	Touched Touched
	// Canaries are the sources of which every Envoy holds the canaries.
	Canaries []string
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
	before  map[model.ServiceKey]bool // set in New: services that ever answered, by the store
	own     []published               // set in New: the canaries

	mu          sync.Mutex                // guards what follows
	must        map[model.ServiceKey]bool // services that a start waits for
	listed      bool                      // all imports were known once, and must has them
	declared    *spec.Spec
	imports     *model.Imports
	holders     map[string]model.ServiceKey       // who has an imported name
	odd         []model.Problem                   // of imports
	overrides   map[string][]model.Override       // by upstream
	spec        *spec.Spec                        // declared, with imports
	local       map[model.ServiceKey]localService // what spec declares
	classes     map[delivery.Class]bool
	published   map[string]*published
	unknown     map[string]bool
	awaits      map[model.ServiceKey]bool             // services for want of which an upstream is held back
	uses        map[model.ServiceKey][]definition     // what is served of a service
	selects     map[model.ServiceKey][]*spec.Document // upstreams of this Spec, by their service
	assignments map[string]*delivery.Resource         // by name, older generations included
	made        map[string]madeAssignment             // by name, as long as it is served
	clusters    map[clusterKey]madeCluster
	lastGood    map[lastKey]*delivery.Resource
	secrets     map[string]made       // by name
	forGRPC     map[string]form       // assignments, by name
	entrances   map[lastKey]entrance  // of this Spec
	definitions map[string]definition // every generation that is known, by assignment name
	history     bool                  // definitions holds the store's history
	older       map[string]bool       // assignments that somebody wants and not every group is served
	answered    map[model.ServiceKey]bool
	ready       map[string]bool            // groups of this Spec of which nothing is waited for
	problems    []model.Problem            // of the last publish, assignments apart
	unusable    map[string][]model.Problem // of assignments, by name
	changed     chan struct{}              // closed when a newer Spec was taken up
}

// published is an upstream as it is served.
type published struct {
	definition
	key    model.ServiceKey
	frozen bool // its newest form points to a service that is not known
}

// definition is one form of an upstream.
type definition struct {
	name    string
	body    *spec.Upstream
	own     *model.Service // where it declares its endpoints itself
	leaving bool           // another form follows it, or will
}

// definitionOf reads a document of kind Upstream.
func definitionOf(d *spec.Document) (definition, bool) {
	u, ok := d.Body.(*spec.Upstream)
	return definition{name: d.Name, body: u, own: d.LocalService()}, ok
}

type clusterKey struct {
	name string
	form translate.Form
}

// madeCluster is a cluster as it was made, and what of.
type madeCluster struct {
	body *spec.Upstream
	// svc is whose endpoints are part of the cluster; nil where they come apart.
	svc      *model.Service
	resource *delivery.Resource
}

// localService is a service that a document declares.
type localService struct {
	by  *spec.Document
	svc *model.Service
}

// madeAssignment is an assignment as it was made, and what of.
type madeAssignment struct {
	of       source
	resource *delivery.Resource
	problems []model.Problem
}

// source is what an assignment is made of.
type source struct {
	body    *spec.Upstream
	svc     *model.Service
	leaving bool
}

type lastKey struct {
	typ  delivery.Type
	name string
	form translate.Form
}

// entrance is a listener or route table as it was made, with what could not be.
type entrance struct {
	resource *delivery.Resource
	problems []model.Problem
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
	if cfg.Secrets == nil {
		cfg.Secrets = noSecrets{}
	}
	if cfg.Emit == nil {
		cfg.Emit = func(model.Event) {}
	}
	if cfg.Touched == nil {
		cfg.Touched = nobody{}
	}
	p := &Publisher{
		cfg: cfg, started: cfg.Now(), own: canaries(cfg.Canaries), must: map[model.ServiceKey]bool{},
		classes: map[delivery.Class]bool{}, published: map[string]*published{}, unknown: map[string]bool{}, awaits: map[model.ServiceKey]bool{},
		assignments: map[string]*delivery.Resource{}, made: map[string]madeAssignment{}, clusters: map[clusterKey]madeCluster{},
		lastGood: map[lastKey]*delivery.Resource{}, secrets: map[string]made{}, forGRPC: map[string]form{}, entrances: map[lastKey]entrance{}, definitions: map[string]definition{}, older: map[string]bool{},
		answered: map[model.ServiceKey]bool{}, ready: map[string]bool{},
		changed: make(chan struct{}),
	}
	s, before := cfg.Store.Spec(), cfg.Store.Answered()
	p.before, p.holders = before, cfg.Store.Imported()
	for _, d := range s.Documents(spec.KindGroup) {
		for _, name := range s.Upstreams(d.Name) {
			u, _ := s.Upstream(name)
			if k := u.Key(name); len(before) == 0 || before[k] {
				p.must[k] = true
			}
		}
	}
	p.mu.Lock()
	fresh := p.respec(s)
	p.mu.Unlock()
	p.markAnswered(fresh)
	p.markImported()
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
	renewed := p.cfg.Secrets.Changed()
	p.renewed() // what changed since New
	for {
		changed := p.cfg.Store.Changed()
		p.documents()
		p.override()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-p.cfg.Catalog.Signal():
			services := p.cfg.Catalog.Changes()
			p.documents() // what was declared before a service changed holds for the change
			p.services(services)
		case <-renewed:
			renewed = p.cfg.Secrets.Changed()
			p.renewed()
		case <-p.cfg.Engine.Demand():
			p.generations()
		}
	}
}

// documents takes up the newest Spec.
func (p *Publisher) documents() {
	s := p.cfg.Store.Spec()
	if !p.stale(s) {
		return
	}
	p.mu.Lock()
	if p.amend(s) {
		p.mu.Unlock()
		return
	}
	fresh := p.respec(s)
	p.mu.Unlock()
	p.markAnswered(fresh)
	p.markImported()
}

// stale tells whether there are other documents, or other imports, than those that
// are published.
func (p *Publisher) stale(s *spec.Spec) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return s != p.declared || p.cfg.Catalog.Imports() != p.imports
}

// Spec is what is published: the documents, and an upstream for each service that is
// imported.
func (p *Publisher) Spec() *spec.Spec {
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
	if p.ready[group] {
		return nil
	}
	err := p.waits(group)
	p.ready[group] = err == nil
	return err
}

// waits says what a group waits for. mu is held.
func (p *Publisher) waits(group string) error {
	if !p.listed && p.autoRoutes(group) { // without the list it would be told that all is gone
		return fmt.Errorf("group %q waits for the first list of services to import after a start, from source %s", group, strings.Join(p.imports.Unknown, ", "))
	}
	if d := p.cfg.ReadyDeadline; d > 0 && p.cfg.Now().Sub(p.started) >= d {
		return nil
	}
	var missing []string // a few of them: this text travels in an HTTP/2 trailer
	n := 0
	for _, name := range p.spec.Upstreams(group) {
		u, _ := p.spec.Upstream(name)
		k := u.Key(name)
		if !p.must[k] || p.answered[k] {
			continue
		}
		if n++; n > maxNamed {
			continue
		}
		why := ""
		if e := p.cfg.Catalog.Entry(k); e.Failure != nil {
			why = ": " + e.Failure.Error()
		}
		missing = append(missing, k.String()+why)
	}
	switch {
	case n == 0:
		return nil
	case n > maxNamed:
		missing = append(missing, fmt.Sprintf("and %d more", n-maxNamed))
	}
	return fmt.Errorf("group %q waits for the first answer about %d services after a start: %s", group, n, strings.Join(missing, "; "))
}

// autoRoutes tells whether a group leads to whatever there is.
func (p *Publisher) autoRoutes(group string) bool {
	g, _ := p.spec.Group(group)
	if g == nil {
		return false
	}
	return slices.ContainsFunc(g.Listeners, func(name string) bool {
		l, _ := p.spec.Listener(name)
		return l != nil && l.AutoRoutes != nil
	})
}

// maxNamed services are named in one refusal.
const maxNamed = 5

// Problems lists what could not be translated or used, now, each once and sorted.
func (p *Publisher) Problems() []model.Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := append(slices.Clone(p.odd), p.problems...)
	for _, some := range p.unusable {
		out = append(out, some...)
	}
	slices.SortFunc(out, func(a, b model.Problem) int {
		return cmp.Or(cmp.Compare(a.Document, b.Document), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(out)
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
	p.declared, p.imports, p.local = s, p.cfg.Catalog.Imports(), p.localOf(s)
	p.overrides = overridesOf(p.cfg.Store.Overrides())
	keys := p.imports.Keys
	if !p.listed && len(p.imports.Unknown) > 0 {
		keys = nil // the source that lists first would take the names of the others
	}
	p.spec, p.odd = s.WithImports(keys, p.spec, p.had)
	if !p.listed && len(p.imports.Unknown) == 0 { // what a start waits for is complete now
		p.listed = true
		for _, k := range p.imports.Keys {
			p.must[k] = p.must[k] || len(p.before) == 0 || p.before[k]
		}
	}
	clear(p.entrances)
	clear(p.ready)
	p.selects = map[model.ServiceKey][]*spec.Document{}
	for _, d := range p.spec.Documents(spec.KindUpstream) {
		if u, ok := d.Body.(*spec.Upstream); ok {
			p.selects[u.Key(d.Name)] = append(p.selects[u.Key(d.Name)], d)
		}
	}
	p.cfg.Catalog.Want(p.wants())
	fresh = p.takeAnswers(nil)
	p.decide()
	p.wantSecrets()
	p.publish(nil)
	p.prune()
	close(p.changed)
	p.changed = make(chan struct{})
	return fresh
}

// localOf are the services that a Spec declares, the very same where their document is.
func (p *Publisher) localOf(s *spec.Spec) map[model.ServiceKey]localService {
	out := make(map[model.ServiceKey]localService, len(p.local))
	for _, kind := range []spec.Kind{spec.KindService, spec.KindUpstream} {
		for _, d := range s.Documents(kind) {
			k := model.ServiceKey{Source: spec.SourceLocal, Name: d.Name}
			if was := p.local[k]; was.by == d {
				out[k] = was
			} else if svc := d.LocalService(); svc != nil {
				out[k] = localService{d, svc}
			}
		}
	}
	return out
}

// service is the last authoritative answer about a key, nil before the first. What
// the Spec itself declares is read off the Spec: the catalog hears of it a moment
// later, and an upstream would have nobody in between.
func (p *Publisher) service(k model.ServiceKey) *model.Service {
	switch {
	case k.Name == model.CanaryService:
		if svc := p.cfg.Catalog.Entry(k).Service; svc != nil {
			return svc
		}
	case k.Source != spec.SourceLocal:
		return p.cfg.Catalog.Entry(k).Service
	case p.local[k].svc != nil:
		return p.local[k].svc
	}
	return &model.Service{Key: k, Presence: model.Absent}
}

// prune forgets what is neither declared nor wanted any more.
func (p *Publisher) prune() {
	declared := map[string]bool{}
	for _, d := range p.spec.Documents("") {
		declared[d.String()] = true
	}
	targets := p.targets()
	for k, r := range p.lastGood {
		_, served := p.assignments[k.name]
		gone := !declared[r.Document]
		switch {
		case k.typ == delivery.Assignments:
			gone = !served
		case k.typ == delivery.Listeners && k.form == forGRPC:
			gone = !targets[k.name]
		}
		if gone {
			delete(p.lastGood, k)
		}
	}
	for name := range p.forGRPC {
		if p.assignments[name] == nil {
			delete(p.forGRPC, name)
		}
	}
	for name := range p.made {
		if p.assignments[name] == nil {
			delete(p.made, name)
		}
	}
	for k := range p.clusters {
		if p.spec.Document(spec.KindUpstream, k.name) == nil && !isCanary(k.name) {
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

// targets are the hosts of gRPC's own clients.
func (p *Publisher) targets() map[string]bool {
	out := map[string]bool{}
	for _, d := range p.spec.Documents(spec.KindListener) {
		if l, ok := d.Body.(*spec.Listener); ok && l.GRPC {
			for _, host := range translate.Targets(l, p.spec) {
				out[host] = true
			}
		}
	}
	return out
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
	for _, pub := range p.own {
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
		if !p.answered[k] && p.service(k) != nil {
			p.answered[k] = true
			fresh = append(fresh, k)
		}
	}
	return fresh
}

// decide settles which upstreams are published, in which form. mu is held.
func (p *Publisher) decide() {
	clear(p.unknown)
	clear(p.awaits)
	next := map[string]*published{}
	for _, d := range p.spec.Documents(spec.KindUpstream) {
		def, ok := definitionOf(d)
		if !ok {
			continue
		}
		key := def.body.Key(d.Name)
		before := p.published[d.Name]
		switch {
		case p.service(key) != nil:
			next[d.Name] = &published{definition: def, key: key}
			if !def.body.Hostnames() {
				p.definitions[translate.AssignmentName(d.Name, def.body)] = def
			}
		case before != nil:
			next[d.Name] = &published{definition: before.definition, key: before.key, frozen: true}
			p.awaits[key] = true
		default:
			p.unknown[d.Name] = true
			p.awaits[key] = true
		}
	}
	for _, pub := range p.own {
		next[pub.name] = &pub
	}
	p.published = next
	p.older = p.olderOf(p.cfg.Engine.Wanted())
	p.cfg.Catalog.Want(p.wants())
}

// olderOf are the wanted assignments that a proxy may hold though it should not:
// those of older generations, and those of upstreams that its group no longer
// reaches. Their definition is known.
func (p *Publisher) olderOf(wanted []string) map[string]bool {
	reached := p.reachedByAll()
	out := map[string]bool{}
	for _, name := range wanted {
		upstream := translate.UpstreamOf(name)
		if pub := p.published[upstream]; pub != nil && reached[upstream] && translate.AssignmentName(upstream, pub.body) == name {
			continue
		}
		if _, ok := p.definitions[name]; ok {
			out[name] = true
		}
	}
	return out
}

// reachedByAll are the upstreams that every group reaches.
func (p *Publisher) reachedByAll() map[string]bool {
	groups := p.spec.Documents(spec.KindGroup)
	count, out := map[string]int{}, map[string]bool{}
	for _, g := range groups {
		for _, name := range p.spec.Upstreams(g.Name) {
			if count[name]++; count[name] == len(groups) {
				out[name] = true
			}
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
	switch {
	case len(fresh) > 0, p.awaited(touched):
		p.decide()
		p.publish(nil)
	case !p.publishEndpoints(touched):
		p.publish(touched)
	}
	p.mu.Unlock()
	p.markAnswered(fresh)
}

// awaited tells whether an upstream is held back for want of one of these
// services. It may have answered long ago, and nobody wanted it in between.
func (p *Publisher) awaited(keys map[model.ServiceKey]bool) bool {
	for k := range keys {
		if p.awaits[k] {
			return true
		}
	}
	return false
}

// had tells whether a service had its imported name before this process: as it was
// written down, or, where nothing is, since it had answered.
func (p *Publisher) had(k model.ServiceKey) bool {
	name, _ := spec.Escape(k.Name)
	if holder, ok := p.holders[name]; ok {
		return holder == k
	}
	return p.before[k]
}

// markImported writes down who has the imported names, so that it is the same after a
// restart.
func (p *Publisher) markImported() {
	p.mu.Lock()
	now := map[string]model.ServiceKey{}
	for _, d := range p.spec.Documents(spec.KindUpstream) {
		if u, ok := d.Body.(*spec.Upstream); ok && d.Imported && p.holders[d.Name] != u.Key(d.Name) {
			now[d.Name] = u.Key(d.Name)
		}
	}
	p.mu.Unlock()
	if err := p.cfg.Store.MarkImported(now); err != nil {
		p.cfg.Logger.Error("imported names not written", "err", err)
		return
	}
	p.mu.Lock()
	maps.Copy(p.holders, now)
	p.mu.Unlock()
}

// markAnswered writes down who answered, for the next start. Canaries do so at every one:
// that says nothing of the others.
func (p *Publisher) markAnswered(keys []model.ServiceKey) {
	keys = slices.DeleteFunc(slices.Clone(keys), func(k model.ServiceKey) bool { return k.Name == model.CanaryService })
	if err := p.cfg.Store.MarkAnswered(keys); err != nil {
		p.cfg.Logger.Error("answered services not written", "err", err)
	}
}
