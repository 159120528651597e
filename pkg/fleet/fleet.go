package fleet

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
	"unique"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Config of a fleet. Zero values are the defaults.
type Config struct {
	// Now is the time; default time.Now.
	Now func() time.Time
	// Emit takes the events; it does not block. nil drops them.
	Emit func(model.Event)
	// MaxProxies that are kept, those that went away included. Default 25000.
	MaxProxies int
	// MaxUpstreams that are kept of one proxy, and of all together. Default 20000.
	MaxUpstreams int
	// Known tells which upstreams there are: of others nothing is kept. nil is all.
	Known func(upstream string) bool
	// MaxEndpoints that are kept of one proxy. Default 100000.
	MaxEndpoints int
}

const (
	defaultMaxProxies   = 25_000
	defaultMaxUpstreams = 20_000
	defaultMaxEndpoints = 100_000
	goneKept            = time.Hour        // of a proxy that went away
	silentAfter         = 3                // intervals without a report
	leastSilence        = 20 * time.Second // of an interval that is not known yet, or short
	due                 = 40 * time.Second // that a first report may take: two long intervals, and a start
	longestPace         = 5 * time.Minute
	tick                = time.Second
)

// Fleet is what all proxies see. It is safe for concurrent use.
type Fleet struct {
	cfg   Config
	began time.Time

	mu        sync.Mutex // guards what follows; the last to be taken
	proxies   map[string]*proxy
	upstreams map[string]*upstream
	dirty     map[string]bool // upstreams of which a view changed
	refused   []RefusedReport
	dropped   map[string]uint64
}

// New returns a fleet of nobody.
func New(cfg Config) *Fleet {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Emit == nil {
		cfg.Emit = func(model.Event) {}
	}
	if cfg.Known == nil {
		cfg.Known = func(string) bool { return true }
	}
	cfg.MaxProxies = cmp.Or(cfg.MaxProxies, defaultMaxProxies)
	cfg.MaxUpstreams = cmp.Or(cfg.MaxUpstreams, defaultMaxUpstreams)
	cfg.MaxEndpoints = cmp.Or(cfg.MaxEndpoints, defaultMaxEndpoints)
	return &Fleet{
		cfg: cfg, began: cfg.Now(), proxies: map[string]*proxy{}, upstreams: map[string]*upstream{},
		dirty: map[string]bool{}, dropped: map[string]uint64{},
	}
}

func (f *Fleet) now() time.Time { return f.cfg.Now() }

// proxy is one node.
type proxy struct {
	// guarded by Fleet.mu
	streams map[uint64]model.Proxy // that are open, as they introduced themselves
	joined  time.Time              // when the first of them began
	gone    time.Time              // when the last stream ended; zero while there is one

	mu        sync.Mutex // guards what follows
	is        model.Proxy
	level     model.Telemetry // that it is asked for and carries
	unproved  string          // why its reports are unverified; "" where they are not
	last      time.Time       // that it said what it sees, by a report or by its admin
	every     time.Duration   // between the last two
	asked     bool            // the last was its admin's answer
	heard     time.Time       // the last report
	pace      time.Duration   // between the last two
	gap       Gap             // the last time without reports
	began     time.Time       // of the process, from its uptime
	uptime    time.Duration   // as it said last
	told      model.Telemetry // the level of its last report
	round     uint32          // of the report that is being read
	views     map[string]*view
	endpoints int // in all views
}

// Gap is a time without reports.
type Gap struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to,omitzero" doc:"missing while it lasts"`
}

func (g Gap) open() bool { return !g.From.IsZero() && g.To.IsZero() }

// Joined tells that a proxy has a new stream, of a number of its own.
func (f *Fleet) Joined(stream uint64, is model.Proxy, level model.Telemetry) {
	p := f.enrol(stream, is)
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.is, p.level = is, level
	if level == model.TelemetryOff { // it is not missed
		p.heard, p.gap, p.unproved = time.Time{}, Gap{}, ""
	}
	if p.pace == 0 {
		p.pace, p.every = is.ReportEvery, is.ReportEvery
	}
}

// enrol keeps a stream of a proxy; nil where there is no room for it.
func (f *Fleet) enrol(stream uint64, is model.Proxy) *proxy {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.proxies[is.ID]
	if p == nil {
		if len(f.proxies) >= f.cfg.MaxProxies && !f.forgetGone() {
			f.dropped[DroppedProxies]++
			return nil
		}
		p = &proxy{streams: map[uint64]model.Proxy{}, views: map[string]*view{}}
		f.proxies[is.ID] = p
	}
	if len(p.streams) == 0 {
		p.joined, p.gone = f.now(), time.Time{}
	}
	p.streams[stream] = is
	return p
}

// Moved tells that a connected proxy belongs to another group, or is asked for
// another level.
func (f *Fleet) Moved(id, group string, level model.Telemetry) {
	if p := f.proxy(id); p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.is.Group, p.level = group, level
	}
}

// Left tells that a stream of a proxy ended. What is left of the proxy is what its
// other streams say; of one without streams, what the last one said.
func (f *Fleet) Left(stream uint64, id string) {
	f.mu.Lock()
	p := f.proxies[id]
	if p == nil {
		f.mu.Unlock()
		return
	}
	delete(p.streams, stream)
	var is model.Proxy
	for _, is = range p.streams {
		break
	}
	if len(p.streams) == 0 && p.gone.IsZero() {
		p.gone = f.now()
	}
	f.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	f.changed(p.views)
	if is.ID != "" {
		is.Group = p.is.Group
		p.is = is
	}
}

// credentials are those of the streams of a proxy, of the last one where none is open.
func (f *Fleet) credentials(p *proxy) []model.Proxy {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(p.streams))
}

func (f *Fleet) proxy(id string) *proxy {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.proxies[id]
}

// forgetGone makes room by the proxy that is gone for longest. mu is held.
func (f *Fleet) forgetGone() bool {
	var oldest string
	for id, p := range f.proxies {
		if !p.gone.IsZero() && (oldest == "" || p.gone.Before(f.proxies[oldest].gone)) {
			oldest = id
		}
	}
	delete(f.proxies, oldest)
	return oldest != ""
}

// Run forgets who is gone for long, and tells who does not report any more, until
// ctx ends.
func (f *Fleet) Run(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			f.look()
		}
	}
}

// look does what only time does.
func (f *Fleet) look() {
	now := f.now()
	for _, m := range f.all() {
		switch {
		case m.gone.IsZero():
			f.listen(m.proxy, m.joined, now)
		case now.Sub(m.gone) > goneKept:
			f.forget(m.proxy, m.id)
		}
	}
}

// listen tells once that a connected proxy does not report any more.
func (f *Fleet) listen(p *proxy, joined, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.heard.IsZero() || p.gap.open() || !late(now, p.heard, p.pace) || !late(now, joined, p.pace) {
		return
	}
	p.gap = Gap{From: p.heard}
	f.changed(p.views)
	f.cfg.Emit(model.Event{
		Kind: model.EventProxySilent, Subject: model.Subject{Kind: "Proxy", Name: p.is.ID}, Proxy: p.is.ID, Group: p.is.Group,
		Reason: fmt.Sprintf("no report since %s; its admin is asked in their place, where it can be", p.heard.UTC().Format(time.TimeOnly)),
	})
}

func (f *Fleet) forget(p *proxy, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f.changed(p.views)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.proxies[id] == p && !p.gone.IsZero() { // it may have come back
		delete(f.proxies, id)
	}
}

// member is a proxy, and when it went away.
type member struct {
	*proxy
	id           string
	joined, gone time.Time
}

// all are the proxies of now.
func (f *Fleet) all() []member {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]member, 0, len(f.proxies))
	for id, p := range f.proxies {
		out = append(out, member{p, id, p.joined, p.gone})
	}
	return out
}

// changed marks upstreams as seen in another way.
func (f *Fleet) changed(views map[string]*view) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range views {
		f.dirty[name] = true
	}
}

// Changed returns the upstreams of which a proxy's view changed since it was last
// asked.
func (f *Fleet) Changed() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.dirty
	f.dirty = map[string]bool{}
	return out
}

// Connected counts the connected proxies by group.
func (f *Fleet) Connected() map[string]int {
	out := map[string]int{}
	for _, m := range f.all() {
		if m.gone.IsZero() {
			m.mu.Lock()
			out[m.is.Group]++
			m.mu.Unlock()
		}
	}
	return out
}

// stale tells that what a proxy sees is too old to be evidence. mu is held.
func (p *proxy) stale(now time.Time) bool { return p.last.IsZero() || late(now, p.last, p.every) }

// late tells that three intervals passed.
func late(now, last time.Time, every time.Duration) bool {
	return now.Sub(last) > max(leastSilence, silentAfter*every)
}

// Reports is how a proxy reports.
type Reports struct {
	Level model.Telemetry `json:"level" doc:"what it is asked for and can send"`
	State string          `json:"state" enum:"off,due,never,verified,unverified,silent,asked" doc:"asked: no report comes, and its admin is asked from time to time; due: it connected just now; never: no report came since it connected, or this server began; silent: none for three intervals"`
	Last  time.Time       `json:"last,omitzero" doc:"when the last verified one came"`
	Every time.Duration   `json:"every,omitempty" doc:"nanoseconds between the last two"`
	Gap   *Gap            `json:"gap,omitempty" doc:"the last time without them"`
	Why   string          `json:"why,omitempty"`
}

// The states of Reports.
const (
	ReportsOff        = "off"
	ReportsDue        = "due"
	ReportsNever      = "never"
	ReportsVerified   = "verified"
	ReportsUnverified = "unverified"
	ReportsSilent     = "silent"
	ReportsAsked      = "asked"
)

// Member is one proxy of the fleet, connected or gone.
type Member struct {
	model.Proxy
	Gone    time.Time `json:"gone,omitzero" doc:"when its last stream ended"`
	Began   time.Time `json:"began,omitzero" doc:"when its process began, as it says"`
	Reports Reports   `json:"reports"`
}

// Proxies lists those that are connected or went away in the last hour, by id.
func (f *Fleet) Proxies() []Member {
	now := f.now()
	var out []Member
	for _, m := range f.all() {
		m.mu.Lock()
		out = append(out, Member{Proxy: m.is, Gone: m.gone, Began: m.began, Reports: m.reports(now, m.joined)})
		m.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

func (p *proxy) reports(now, joined time.Time) Reports {
	r := Reports{Level: p.level, State: ReportsVerified, Last: p.heard, Every: p.pace}
	if !p.gap.From.IsZero() {
		gap := p.gap
		r.Gap = &gap
	}
	r.Why = p.unproved
	switch {
	case p.asked && !p.stale(now):
		r.State = ReportsAsked
	case p.unproved != "":
		r.State = ReportsUnverified
	case p.level == model.TelemetryOff:
		r.State = ReportsOff
	case p.heard.IsZero() && now.Sub(joined) < due:
		r.State = ReportsDue
	case p.heard.IsZero():
		r.State = ReportsNever
	case late(now, p.heard, p.pace) && !late(now, joined, p.pace):
		r.State = ReportsDue
	case p.stale(now):
		r.State = ReportsSilent
	}
	return r
}

// text is the one copy of a name or address.
func text(b []byte) string { return unique.Make(string(b)).Value() }

// What is dropped for want of room, by the limit that it met.
const (
	DroppedProxies   = "proxies"
	DroppedUpstreams = "upstreams"
	DroppedEndpoints = "endpoints"
	DroppedTexts     = "texts" // longer than a name is
)

func (f *Fleet) drop(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropped[what]++
}

// Dropped counts what was dropped for want of room, by the limit that it met.
func (f *Fleet) Dropped(limit string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dropped[limit]
}
