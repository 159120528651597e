package fleet

import (
	"slices"
	"time"
)

// ring keeps the last spans of time in which something was counted.
type ring struct {
	of   time.Duration
	keep int
	all  []span // oldest first
}

// span is what was counted in one minute or hour.
type span struct {
	from    int64 // unix seconds
	counts  [counters]uint64
	failed  uint64
	bounds  []float64 // shared
	latency []uint64
}

// at is the span of a time, which is not before the newest one.
func (r *ring) at(now time.Time) *span {
	from := now.Truncate(r.of).Unix()
	if n := len(r.all); n > 0 && r.all[n-1].from >= from {
		return &r.all[n-1]
	}
	oldest := now.Add(-time.Duration(r.keep) * r.of).Unix()
	r.all = slices.DeleteFunc(r.all, func(s span) bool { return s.from <= oldest })
	r.all = append(r.all, span{from: from})
	return &r.all[len(r.all)-1]
}

func (s *span) observe(bounds []float64, n []uint64) {
	if len(s.latency) != len(n) || !slices.Equal(s.bounds, bounds) { // Envoys of one bootstrap have the same
		s.bounds, s.latency = slices.Clone(bounds), make([]uint64, len(n))
	}
	for i := range n {
		s.latency[i] += n[i]
	}
}

// Span is what the fleet counted of an upstream in one minute or hour.
type Span struct {
	From     time.Time     `json:"from"`
	For      time.Duration `json:"for" doc:"nanoseconds"`
	Requests uint64        `json:"requests" doc:"that were answered, by an endpoint or by the proxy; of an upstream of TCP, connections"`
	// Failed ended with one of Envoy's flags: nobody there, refused, timed out …
	Failed uint64 `json:"failed" doc:"requests that ended with one of Envoy's failure flags"`
	Errors uint64 `json:"errors" doc:"answers of 500 and above"`

	NoneHealthy   uint64 `json:"noneHealthy" doc:"requests that met no endpoint: 503 UH"`
	Panicked      uint64 `json:"panicked" doc:"requests that went to whoever, healthy or not"`
	ConnectFailed uint64 `json:"connectFailed" doc:"connections that could not be opened"`
	Timeouts      uint64 `json:"timeouts" doc:"attempts without an answer in time"`
	Retries       uint64 `json:"retries"`
	Overflow      uint64 `json:"overflow" doc:"requests, connections and retries over a limit"`
	ChecksFailed  uint64 `json:"checksFailed" doc:"health checks that failed, of every proxy by itself"`
	Unreachable   uint64 `json:"checksUnreachable" doc:"of them, those that could not reach the endpoint"`
	EjectOverflow uint64 `json:"ejectionsNotMade" doc:"of endpoints that outlier detection wanted out: too many were already"`
	ResolveFailed uint64 `json:"resolveFailed" doc:"names that could not be resolved, or have no address"`
	LeaseRanOut   uint64 `json:"leaseRanOut" doc:"endpoints dropped since nobody renewed them"`
	// P50 and P99 of the time to an answer; a share of a bucket where it lies in one.
	P50 time.Duration `json:"p50,omitempty" doc:"nanoseconds"`
	P99 time.Duration `json:"p99,omitempty" doc:"nanoseconds"`
}

// Trend lists what was counted of an upstream: the last hour in minutes, and two
// days in hours. Spans in which nothing was are left out.
func (f *Fleet) Trend(name string) (minutes, hours []Span) {
	f.mu.Lock()
	u := f.upstreams[name]
	f.mu.Unlock()
	if u == nil {
		return []Span{}, []Span{}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.minutes.since(f.now()), u.hours.since(f.now())
}

// Lately counts the requests to an upstream, and those that failed, of this minute and
// the one before.
func (f *Fleet) Lately(name string) (requests, failed uint64) {
	f.newest(name, func(s *span) { requests, failed = requests+s.shown(time.Minute).Requests, failed+s.failed })
	return requests, failed
}

// signs are counters of which each step may be the begin of an outage.
var signs = []Metric{Timeouts, RetryOverflow, PendingOverflow, ActiveOverflow, ConnectFailed, NoneHealthy, Panicked, EjectOverflow, ResolveFailed, LeaseRanOut}

// Stirred tells whether something was counted of an upstream in this minute or the one
// before that may be the begin of an outage.
func (f *Fleet) Stirred(name string) (stirred bool) {
	f.newest(name, func(s *span) {
		many := s.failed + s.counts[Errors-gauges]
		stirred = stirred || many >= 3 && many*100 >= s.counts[Requests-gauges] || slices.ContainsFunc(signs, func(m Metric) bool { return s.counts[m-gauges] > 0 })
	})
	return stirred
}

// newest shows the spans of this minute and the one before.
func (f *Fleet) newest(name string, show func(*span)) {
	f.mu.Lock()
	u := f.upstreams[name]
	f.mu.Unlock()
	if u == nil {
		return
	}
	now := f.now()
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := max(0, len(u.minutes.all)-2); i < len(u.minutes.all); i++ {
		if s := &u.minutes.all[i]; now.Sub(time.Unix(s.from, 0)) < 2*time.Minute {
			show(s)
		}
	}
}

func (r *ring) since(now time.Time) []Span {
	out := []Span{}
	for i := range r.all {
		if now.Sub(time.Unix(r.all[i].from, 0)) <= time.Duration(r.keep)*r.of {
			out = append(out, r.all[i].shown(r.of))
		}
	}
	return out
}

func (s *span) shown(of time.Duration) Span {
	n := func(m Metric) uint64 { return s.counts[m-gauges] }
	out := Span{
		From: time.Unix(s.from, 0).UTC(), For: of, Requests: n(Requests), Failed: s.failed, Errors: n(Errors), NoneHealthy: n(NoneHealthy),
		Panicked: n(Panicked), ConnectFailed: n(ConnectFailed), Timeouts: n(Timeouts), Retries: n(Retries),
		Overflow: n(PendingOverflow) + n(ActiveOverflow) + n(ConnOverflow) + n(RetryOverflow), ChecksFailed: n(CheckFailed), Unreachable: n(CheckUnreachable), EjectOverflow: n(EjectOverflow),
		ResolveFailed: n(ResolveFailed) + n(ResolveEmpty), LeaseRanOut: n(LeaseRanOut), P50: quantile(s.bounds, s.latency, 0.5), P99: quantile(s.bounds, s.latency, 0.99),
	}
	if out.Requests == 0 {
		out.Requests = n(Connections)
	}
	return out
}

// quantile of a histogram whose bounds are milliseconds; what lies above the last
// bound is the last bound.
func quantile(bounds []float64, counts []uint64, q float64) time.Duration {
	var all uint64
	for _, n := range counts {
		all += n
	}
	if all == 0 {
		return 0
	}
	rank, below, from := q*float64(all), 0.0, 0.0
	for i, bound := range bounds {
		if n := float64(counts[i]); below+n >= rank && n > 0 {
			return time.Duration((from + (bound-from)*(rank-below)/n) * float64(time.Millisecond))
		}
		below += float64(counts[i])
		from = bound
	}
	return time.Duration(from * float64(time.Millisecond))
}
