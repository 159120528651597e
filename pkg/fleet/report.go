package fleet

import (
	"slices"
	"sort"
	"strings"
	"time"
	"unique"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Report is one report of a proxy while it is read. It is used by one goroutine.
type Report struct {
	f   *Fleet
	p   *proxy
	now time.Time

	level   model.Telemetry // above which points are dropped
	first   bool            // the proxy's first: its totals are new to us only where it is young
	bounds  []float64       // of the latencies in it
	last    *view           // that the point before was about
	dropped map[string]bool
	changed map[string]*view
}

// Open begins a report of a verified proxy, which is locked until Close; nil where
// the proxy is not known any more.
func (f *Fleet) Open(node string) *Report {
	r := f.open(node)
	if r != nil {
		r.level = r.p.level
		r.p.asked = false
	}
	return r
}

// OpenAsked begins what the admin of a proxy answered that does not report; nil where
// it does meanwhile, or is not known any more.
func (f *Fleet) OpenAsked(node string) *Report {
	r := f.open(node)
	if r != nil && !r.p.asked && !r.p.stale(r.now) {
		r.p.mu.Unlock()
		return nil
	}
	if r != nil {
		r.level = model.TelemetryEndpoints
		r.p.asked = true
	}
	return r
}

func (f *Fleet) open(node string) *Report {
	p := f.proxy(node)
	if p == nil {
		return nil
	}
	p.mu.Lock()
	p.round++
	return &Report{f: f, p: p, now: f.now(), first: p.heard.IsZero(), changed: map[string]*view{}}
}

// Add takes one point.
func (r *Report) Add(pt Point) {
	if !r.level.Includes(pt.Metric.level()) {
		return // its group does not ask for it
	}
	switch pt.Metric {
	case Uptime:
		r.uptime(time.Duration(pt.Value) * time.Second)
		return
	case Connected:
		r.p.unled = pt.Value == 0
		return
	case FailedRequests:
		r.failed(pt)
		return
	}
	v := r.view(pt.Upstream)
	if v == nil {
		return
	}
	switch m := pt.Metric; {
	case m < gauges:
		v.seen = r.p.round
		if n := uint32(min(pt.Value, 1<<32-1)); v.gauges[m] != n {
			v.gauges[m] = n
			r.changed[v.of.name] = v
		}
	case m < endOfCounters:
		r.count(v, m, pt.Value)
	case m == Latency:
		r.latency(v, pt)
	case m == EndpointHealthy, m == EndpointConnectFailed:
		r.endpoint(v, pt)
	}
}

// clockGrain is how exact the begin of a process is: it is told in whole seconds.
const clockGrain = 2 * time.Second

// uptime tells when the process began, in whole seconds.
func (r *Report) uptime(up time.Duration) {
	if began := r.now.Add(-up); began.Sub(r.p.began).Abs() > clockGrain {
		r.p.began = began
	}
}

// view finds the view of an upstream; nil where there is no room for it.
func (r *Report) view(name []byte) *view {
	if r.last != nil && r.last.of.name == string(name) {
		return r.last
	}
	v := r.p.views[string(name)]
	if v == nil {
		up := r.f.upstream(name)
		if up == nil || len(r.p.views) >= r.f.cfg.MaxUpstreams {
			r.drop(DroppedUpstreams)
			return nil
		}
		v = &view{of: up, since: r.now.Unix()}
		r.p.views[up.name] = v
		r.changed[up.name] = v
	}
	r.last = v
	return v
}

func (r *Report) drop(what string) {
	if !r.dropped[what] { // once for each report
		if r.dropped == nil {
			r.dropped = map[string]bool{}
		}
		r.dropped[what] = true
		r.f.drop(what)
	}
}

// count takes a total and adds what is new of it to the trend. What has no total yet
// began after the report before.
func (r *Report) count(v *view, m Metric, total uint64) {
	was := &v.totals[m-gauges]
	n := since(*was, total)
	*was = total
	if n > 0 && !r.first {
		r.rose(v, m, n)
	}
}

// rose tells what is new of a counter.
func (r *Report) rose(v *view, m Metric, n uint64) {
	v.unmet = v.unmet || m == NoneHealthy
	if at := v.movedAt(m); at != nil {
		now := r.f.seconds(r.now)
		if *at == 0 || now-*at > moving {
			r.changed[v.of.name] = v
		}
		*at = now
	}
	v.of.add(r.now, m, n)
}

// since is what a total grew by; one that went back began anew.
func since(was, total uint64) uint64 {
	if total < was {
		return total
	}
	return total - was
}

func (r *Report) latency(v *view, pt Point) {
	if len(pt.Buckets) != len(pt.Bounds)+1 || len(pt.Buckets) > maxBuckets {
		return
	}
	if len(v.latency) != len(pt.Buckets) {
		v.latency = make([]uint64, len(pt.Buckets))
	}
	n := make([]uint64, len(pt.Buckets))
	for i, total := range pt.Buckets {
		n[i] = since(v.latency[i], total)
		v.latency[i] = total
	}
	if r.first {
		r.bounds = slices.Clone(pt.Bounds) // one bootstrap has the same for all
		return
	}
	v.of.addLatency(r.now, pt.Bounds, n)
}

// endpoint finds or makes what the proxy sees of one endpoint. Reports name them in
// one order, so that the next one is where it was.
func (r *Report) endpoint(v *view, pt Point) {
	i := int(v.next)
	if i >= len(v.endpoints) || v.endpoints[i].address.Value() != string(pt.Endpoint) {
		var found bool
		i, found = sort.Find(len(v.endpoints), func(i int) int { return strings.Compare(string(pt.Endpoint), v.endpoints[i].address.Value()) })
		if !found {
			if r.p.endpoints >= r.f.cfg.MaxEndpoints {
				r.drop(DroppedEndpoints)
				return
			}
			r.p.endpoints++
			v.endpoints = slices.Insert(v.endpoints, i, endpoint{address: unique.Make(string(pt.Endpoint)), round: uint8(r.p.round - 1)}) //nolint:gosec // the low bits
		}
	}
	v.next = int32(i) + 1 //nolint:gosec // MaxEndpoints is less
	e := &v.endpoints[i]
	if pt.Metric == EndpointConnectFailed {
		n := uint32(min(pt.Value, 1<<32-1))
		if n != e.failed && n > 0 && !r.first {
			e.failedAt = r.f.seconds(r.now)
		}
		e.failed = n
		return
	}
	healthy := pt.Value > 0
	round := uint8(r.p.round) //nolint:gosec // the low bits
	if e.round == round && !e.healthy {
		healthy = false // it stands twice in the cluster, with one name: the worse counts
	}
	if e.healthy != healthy || e.since == 0 {
		e.healthy, e.since = healthy, r.f.seconds(r.now)
		r.changed[v.of.name] = v
	}
	e.round = round
}

// failed counts requests that failed by route and flag; of an upstream that no one
// names, by route alone.
func (r *Report) failed(pt Point) {
	v := r.view(pt.Upstream)
	if v == nil {
		return
	}
	i := slices.IndexFunc(v.failed, func(x failed) bool { return x.cause.route == string(pt.Route) && x.cause.flag == string(pt.Flag) })
	if i < 0 {
		c := v.of.cause(pt.Route, pt.Flag)
		if c == nil {
			r.drop(DroppedCauses)
			return
		}
		i = len(v.failed)
		v.failed = append(v.failed, failed{cause: c})
	}
	n := since(v.failed[i].total, pt.Value)
	v.failed[i].total = pt.Value
	if n > 0 && !r.first {
		v.of.fail(r.now, v.failed[i].cause, n)
	}
}

// Close ends the report: what it did not name is gone.
func (r *Report) Close() {
	defer r.p.mu.Unlock()
	p := r.p
	if r.first && !p.asked {
		r.begin()
	}
	for name, v := range p.views {
		if v.seen != p.round && len(v.failed) == 0 {
			p.endpoints -= len(v.endpoints)
			delete(p.views, name)
			r.changed[name] = v
			continue
		}
		if was := v.unserved; v.goesOn() != was && (was > 1 || v.unserved > 1) {
			r.changed[name] = v
		}
		n := len(v.endpoints)
		v.endpoints = slices.DeleteFunc(v.endpoints, func(e endpoint) bool { return e.round != uint8(p.round) }) //nolint:gosec // the low bits
		if v.next = 0; n != len(v.endpoints) {
			r.changed[name] = v
			p.endpoints -= n - len(v.endpoints)
		}
		if cap(v.endpoints) > len(v.endpoints)*5/4 {
			v.endpoints = slices.Clone(v.endpoints)
		}
	}
	if !p.last.IsZero() {
		p.every = r.now.Sub(p.last)
	}
	for _, v := range r.changed {
		v.since = r.now.Unix()
	}
	if p.last = r.now; !p.asked {
		if p.gap.open() {
			p.gap.To = r.now
		}
		if !p.heard.IsZero() {
			p.pace = r.now.Sub(p.heard)
		}
		p.heard = r.now
	}
	if len(r.changed) > 0 {
		r.f.changed(r.changed)
	}
}

// begin takes the totals of a proxy's first report as new where its process began
// while we listened; those of an older one are where we begin to count.
func (r *Report) begin() {
	if r.f.began.Sub(r.p.began) > clockGrain {
		return
	}
	for _, v := range r.p.views {
		for i, n := range v.totals {
			if n > 0 {
				r.rose(v, gauges+Metric(i), n)
			}
		}
		if len(v.latency) == len(r.bounds)+1 {
			v.of.addLatency(r.now, r.bounds, v.latency)
		}
		for _, x := range v.failed {
			v.of.fail(r.now, x.cause, x.total)
		}
		for i := range v.endpoints {
			if v.endpoints[i].failed > 0 {
				v.endpoints[i].failedAt = r.f.seconds(r.now)
			}
		}
	}
}

// goesOn counts the reports in which requests met nobody, one after the other.
func (v *view) goesOn() uint8 {
	switch {
	case !v.unmet:
		v.unserved = 0
	case v.unserved < 2:
		v.unserved++
	}
	v.unmet = false
	return v.unserved
}
