package fleet

import (
	"cmp"
	"slices"
	"time"
	"unique"
)

// view is what one proxy sees of one upstream. There are many: BenchmarkMemory.
type view struct {
	of         *upstream
	since      int64  // unix seconds: as it is
	seen       uint32 // the round of the newest report that names it
	gauges     [gauges]uint32
	totals     [counters]uint64
	moved      [3]uint32  // when Panicked, NoneHealthy and an overflow of requests last rose; see seconds
	next       int32      // of endpoints, that is probably named next
	unserved   uint8      // reports, one after the other, in which requests met nobody
	unmet      bool       // in the report that is being read
	others     uint64     // failed requests of causes that are too many, in the report that is being read
	othersTold uint64     // and in the one before
	latency    []uint64   // totals
	endpoints  []endpoint // sorted by address
	failed     []failed
}

// failed is what one proxy counted of one cause.
type failed struct {
	cause *cause
	total uint64
}

// endpoint is what one proxy sees of one endpoint.
type endpoint struct {
	address  unique.Handle[string]
	since    uint32 // healthy or not; see seconds
	failed   uint32 // connections that could not be opened, in all
	failedAt uint32 // the last of them; see seconds
	round    uint8  // the low bits of the report's that names it
	healthy  bool
	now      bool // healthy in the report that is being read
}

// restart begins to count anew, as the proxy did.
func (v *view) restart() {
	v.totals, v.latency, v.othersTold = [counters]uint64{}, nil, 0
	for i := range v.failed {
		v.failed[i].total = 0
	}
	for i := range v.endpoints {
		v.endpoints[i].failed = 0
	}
}

// moving is for how many seconds what was counted last is of now.
const (
	moving  = 60
	meeting = 15 // of requests that met nobody: that is over sooner than it is forgotten
)

// maxBuckets of a latency, and maxCauses of failed requests of one upstream.
const (
	maxBuckets     = 64
	maxCauses      = 1000
	maxCausesOfOne = 200 // of them, of one proxy
)

// seconds is a time as a count since the fleet began, never 0.
func (f *Fleet) seconds(t time.Time) uint32 { return uint32(max(0, t.Sub(f.began)/time.Second)) + 1 }

func (f *Fleet) time(seconds uint32) time.Time {
	return f.began.Add(time.Duration(seconds-1) * time.Second)
}

// movedAt is where it stands when a counter rose.
func (v *view) movedAt(m Metric) *uint32 {
	switch m {
	case Panicked:
		return &v.moved[0]
	case NoneHealthy:
		return &v.moved[1]
	case PendingOverflow, ActiveOverflow: // a full pool of connections only has requests wait
		return &v.moved[2]
	}
	return nil
}

// View is what one proxy sees of one upstream, by its last report.
type View struct {
	Proxy string    `json:"proxy"`
	Group string    `json:"group"`
	Zone  string    `json:"zone,omitempty"`
	At    time.Time `json:"at" doc:"of its last report"`
	Since time.Time `json:"since" doc:"as it is"`

	Members  int  `json:"members"`
	Healthy  int  `json:"healthy" doc:"that its balancer would use"`
	Degraded int  `json:"degraded,omitempty" doc:"that it would use where the healthy do not suffice"`
	Excluded int  `json:"excluded,omitempty" doc:"that do not count: draining, not yet checked"`
	Ejected  int  `json:"ejected,omitempty" doc:"by outlier detection"`
	Warming  bool `json:"warming,omitempty" doc:"not served yet"`
	Active   int  `json:"active,omitempty" doc:"requests that run; of a bootstrap that tells"`
	Pending  int  `json:"pending,omitempty" doc:"requests that wait for a connection; of a bootstrap that tells"`

	// Lately.
	Panicked    bool `json:"panicked,omitempty" doc:"requests went to whoever, healthy or not, in the last minute"`
	NoneHealthy bool `json:"noneHealthy,omitempty" doc:"requests met no endpoint (503 UH) in the last 15 seconds"`
	Overflowed  bool `json:"overflowed,omitempty" doc:"requests met a limit in the last minute"`
	// Unserved tells that requests met no endpoint in each of the last two reports: it
	// goes on.
	Unserved bool `json:"unserved,omitempty" doc:"requests met no endpoint (503 UH) in each of the last two reports"`

	Endpoints []EndpointView `json:"endpoints,omitempty"`
}

// EndpointView is what a proxy sees of an endpoint.
type EndpointView struct {
	Address string    `json:"address"`
	Healthy bool      `json:"healthy" doc:"its balancer would use it"`
	Since   time.Time `json:"since"`
	// Unreachable is when a connection last could not be opened.
	Unreachable time.Time `json:"unreachable,omitzero" doc:"when a connection last could not be opened"`
}

// Views lists what proxies see of an upstream: those that are connected and whose
// last report is not too old. By proxy; without their endpoints unless asked for.
func (f *Fleet) Views(upstream string, endpoints bool) []View {
	now := f.now()
	out := []View{}
	for _, m := range f.all() {
		if !m.gone.IsZero() {
			continue
		}
		m.mu.Lock()
		if v := m.views[upstream]; v != nil && v.seen != 0 && !m.stale(now) {
			out = append(out, f.shown(m.proxy, v, now, endpoints))
		}
		m.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b View) int { return cmp.Compare(a.Proxy, b.Proxy) })
	return out
}

// Each calls see with every view of every proxy, as Views has them, without endpoints.
// A proxy is locked meanwhile: see does not ask the fleet.
func (f *Fleet) Each(see func(upstream string, v View)) {
	now := f.now()
	for _, m := range f.all() {
		if !m.gone.IsZero() {
			continue
		}
		m.mu.Lock()
		if !m.stale(now) {
			for name, v := range m.views {
				if v.seen != 0 {
					see(name, f.shown(m.proxy, v, now, false))
				}
			}
		}
		m.mu.Unlock()
	}
}

func (f *Fleet) shown(p *proxy, v *view, now time.Time, endpoints bool) View {
	s := f.seconds(now)
	recent := func(at uint32) bool { return at > 0 && s-at < moving }
	out := View{
		Proxy: p.is.ID, Group: p.is.Group, Zone: p.is.Locality.Zone, At: p.last, Since: time.Unix(v.since, 0),
		Members: int(v.gauges[Members]), Healthy: int(v.gauges[Healthy]), Degraded: int(v.gauges[Degraded]),
		Excluded: int(v.gauges[Excluded]), Ejected: int(v.gauges[Ejected]), Warming: v.gauges[Warming] > 0,
		Active: int(v.gauges[Active]), Pending: int(v.gauges[Pending]),
		Panicked: recent(v.moved[0]), NoneHealthy: v.moved[1] > 0 && s-v.moved[1] < max(meeting, 2*uint32(p.pace/time.Second)+1), Overflowed: recent(v.moved[2]), Unserved: v.unserved > 1,
	}
	if !endpoints {
		return out
	}
	for _, e := range v.endpoints {
		x := EndpointView{Address: e.address.Value(), Healthy: e.healthy, Since: f.time(e.since)}
		if e.failedAt > 0 {
			x.Unreachable = f.time(e.failedAt)
		}
		out.Endpoints = append(out.Endpoints, x)
	}
	return out
}
