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
	before  model.Telemetry // the level of the report before: what is above it is told for the first time
	first   bool            // the proxy's first: its totals are new to us only where it is young
	joined  time.Time       // when the proxy did
	late    bool            // it ends a gap: what it counts was not just now
	bounds  []float64       // of the latencies in it
	last    *view           // that the point before was about
	dropped map[string]bool
	changed map[string]*view
}

// Open begins a report of a verified proxy, whose process is up for so long; 0 is not
// known. The proxy is locked until Close. nil where it is not known any more, is asked
// for nothing, or another process of the same name reports, which began later.
func (f *Fleet) Open(node string, up time.Duration) *Report {
	r := f.open(node)
	if r == nil {
		return nil
	}
	if r.p.level == model.TelemetryOff || !r.uptime(up) {
		r.p.mu.Unlock()
		return nil
	}
	r.level, r.before = r.p.level, r.p.told
	r.p.asked, r.p.told = false, r.p.level
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
	f.mu.Lock()
	p := f.proxies[node]
	if p == nil {
		f.mu.Unlock()
		return nil
	}
	joined := p.joined
	f.mu.Unlock()
	p.mu.Lock()
	p.round++ // views that a report which is given up does not see stay as they are
	return &Report{f: f, p: p, now: f.now(), first: p.heard.IsZero(), late: p.gap.open(), joined: joined, changed: map[string]*view{}}
}

// Add takes one point.
func (r *Report) Add(pt Point) {
	if !r.level.Includes(pt.Metric.level()) {
		return // its group does not ask for it
	}
	if max(len(pt.Upstream), len(pt.Endpoint), len(pt.Route), len(pt.Flag)) > longestText {
		r.drop(DroppedTexts)
		return
	}
	switch pt.Metric {
	case Uptime:
		return // it came with Open
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
			if m < Active { // how busy it is changes all the time
				r.changed[v.of.name] = v
			}
		}
	case m < endOfCounters:
		r.count(v, m, pt.Value)
	case m == Latency:
		r.latency(v, pt)
	case m == EndpointHealthy, m == EndpointConnectFailed:
		r.endpoint(v, pt)
	}
}

const (
	longestText = 255              // of a name
	startup     = time.Minute      // from the begin of a process to its first stream
	clockGrain  = 2 * time.Second  // how exact the begin of a process is: it is told in whole seconds
	lateness    = 30 * time.Second // of a report on its way
)

// uptime tells for how long the process is up, in whole seconds. Where that is less
// than before it began anew, and so did its totals. false is of another process.
func (r *Report) uptime(up time.Duration) bool {
	p := r.p
	switch {
	case up == 0:
		return true
	case up+clockGrain < p.uptime:
		for _, v := range p.views {
			v.restart()
		}
	case p.uptime > 0 && !p.heard.IsZero() && up > p.uptime+r.now.Sub(p.heard)+lateness:
		return false
	}
	p.uptime, p.began = up, r.now.Add(-up)
	return true
}

// fresh tells that totals of a metric are told for the first time: they are where we
// begin to count.
func (r *Report) fresh(m Metric) bool { return r.first || !r.before.Includes(m.level()) }

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
	if n > 0 && !r.fresh(m) {
		r.rose(v, m, n)
	}
}

// rose tells what is new of a counter.
func (r *Report) rose(v *view, m Metric, n uint64) {
	v.unmet = v.unmet || m == NoneHealthy && !r.late
	if at := v.movedAt(m); at != nil && !r.late {
		now := r.f.seconds(r.now)
		if *at == 0 || now-*at > moving {
			r.changed[v.of.name] = v
		}
		*at = now
	}
	v.of.add(r.now, r.late, m, n)
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
	if r.fresh(Latency) {
		r.bounds = slices.Clone(pt.Bounds) // one bootstrap has the same for all
		return
	}
	v.of.addLatency(r.now, r.late, pt.Bounds, n)
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
		if n != e.failed && n > 0 && !r.fresh(EndpointConnectFailed) && !r.late {
			e.failedAt = r.f.seconds(r.now)
		}
		e.failed = n
		return
	}
	round := uint8(r.p.round)                           //nolint:gosec // the low bits
	e.now = pt.Value > 0 && (e.round != round || e.now) // it may stand twice, with one name: the worse counts
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
		if c == nil || len(v.failed) >= maxCausesOfOne { // counted, and no more is known of them
			r.drop(DroppedCauses)
			v.others += pt.Value
			return
		}
		i = len(v.failed)
		v.failed = append(v.failed, failed{cause: c})
	}
	n := since(v.failed[i].total, pt.Value)
	v.failed[i].total = pt.Value
	if n > 0 && !r.fresh(FailedRequests) {
		v.of.fail(r.now, r.late, v.failed[i].cause, n)
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
		r.settle(name, v)
	}
	for _, v := range r.changed {
		v.since = r.now.Unix()
	}
	if !p.last.IsZero() && !late(r.now, p.last, p.every) {
		p.every = r.now.Sub(p.last)
	}
	if p.last = r.now; !p.asked {
		switch {
		case p.gap.open(): // how long it was says nothing of the pace
			p.gap.To = r.now
		case !p.heard.IsZero():
			p.pace = min(longestPace, r.now.Sub(p.heard))
		}
		p.heard = r.now
	}
	if len(r.changed) > 0 {
		r.f.changed(r.changed)
	}
}

// settle ends a view's part of the report.
func (r *Report) settle(name string, v *view) {
	p := r.p
	if v.others != v.othersTold {
		if n := since(v.othersTold, v.others); n > 0 && !r.fresh(FailedRequests) {
			v.of.fail(r.now, r.late, v.of.other(), n)
		}
	}
	v.othersTold, v.others = v.others, 0
	if v.seen != p.round {
		if v.seen != 0 || len(v.failed) == 0 {
			r.changed[name] = v
		}
		p.endpoints -= len(v.endpoints)
		if len(v.failed) == 0 {
			delete(p.views, name)
			return
		}
		*v = view{of: v.of, failed: v.failed, othersTold: v.othersTold} // only its failures are counted on
		return
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
	for i := range v.endpoints {
		if e := &v.endpoints[i]; e.healthy != e.now || e.since == 0 {
			e.healthy, e.since = e.now, r.f.seconds(r.now)
			r.changed[name] = v
		}
	}
}

// begin takes the totals of a proxy's first report as new where its process began while
// we listened, and joined soon after; those of an older one, which may have been here
// before, are where we begin to count.
func (r *Report) begin() {
	if r.p.began.IsZero() || r.f.began.Sub(r.p.began) > clockGrain || r.joined.Sub(r.p.began) > startup {
		return
	}
	for _, v := range r.p.views {
		for i, n := range v.totals {
			if n > 0 {
				r.rose(v, gauges+Metric(i), n)
			}
		}
		if len(v.latency) == len(r.bounds)+1 {
			v.of.addLatency(r.now, r.late, r.bounds, v.latency)
		}
		for _, x := range v.failed {
			v.of.fail(r.now, r.late, x.cause, x.total)
		}
		if v.others > 0 {
			v.of.fail(r.now, r.late, v.of.other(), v.others)
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
