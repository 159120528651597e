package fleet

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// upstream is what the whole fleet counted of one.
type upstream struct {
	name string

	mu       sync.Mutex // guards what follows
	minutes  ring
	hours    ring
	failures map[cause]*Failure
	reasons  map[reason]*Reason
}

// cause is what requests failed by, as the proxies count it.
type cause struct{ route, flag string }

const (
	minutesKept = 60
	hoursKept   = 48
	// DroppedCauses are routes and flags that were too many for one proxy and upstream.
	DroppedCauses = "causes"
)

// upstream finds or makes one; nil where there is no room.
func (f *Fleet) upstream(name []byte) *upstream {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.upstreams[string(name)]
	if u == nil && len(f.upstreams) < f.cfg.MaxUpstreams {
		u = &upstream{name: text(name), minutes: ring{of: time.Minute, keep: minutesKept}, hours: ring{of: time.Hour, keep: hoursKept}}
		f.upstreams[u.name] = u
	}
	return u
}

// Keep forgets the upstreams that are no more.
func (f *Fleet) Keep(declared func(name string) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.upstreams, func(name string, _ *upstream) bool { return name != "" && !declared(name) })
}

func (u *upstream) add(now time.Time, m Metric, n uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range []*ring{&u.minutes, &u.hours} {
		r.at(now).counts[m-gauges] += n
	}
}

func (u *upstream) addLatency(now time.Time, bounds []float64, n []uint64) {
	if !slices.ContainsFunc(n, func(n uint64) bool { return n > 0 }) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range []*ring{&u.minutes, &u.hours} {
		r.at(now).observe(bounds, n)
	}
}

func (u *upstream) fail(now time.Time, k cause, n uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f := u.failures[k]
	if f == nil {
		if len(u.failures) >= maxCauses {
			return
		}
		if u.failures == nil {
			u.failures = map[cause]*Failure{}
		}
		f = &Failure{Route: k.route, Flag: k.flag, Since: now}
		u.failures[k] = f
	}
	f.Count, f.Last = f.Count+n, now
	for _, r := range []*ring{&u.minutes, &u.hours} {
		r.at(now).failed += n
	}
}

// Failure is requests that failed alike, as the proxies counted them: none is lost.
type Failure struct {
	Route string    `json:"route" doc:"UPSTREAM's route, as its document names it"`
	Flag  string    `json:"flag" doc:"Envoy's response flags: UH, UF, UO …"`
	Count uint64    `json:"count"`
	Since time.Time `json:"since" doc:"when the first was reported"`
	Last  time.Time `json:"last"`
}

// Failures lists what requests to an upstream failed by, the most frequent first;
// "" are those of which Envoy names none.
func (f *Fleet) Failures(name string) ([]Failure, []Reason) {
	f.mu.Lock()
	u := f.upstreams[name]
	f.mu.Unlock()
	if u == nil {
		return nil, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	var counted []Failure
	for _, x := range u.failures {
		counted = append(counted, *x)
	}
	slices.SortFunc(counted, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Route, b.Route), cmp.Compare(a.Flag, b.Flag))
	})
	var told []Reason
	for _, x := range u.reasons {
		r := *x
		r.Samples = slices.Clone(r.Samples)
		told = append(told, r)
	}
	slices.SortFunc(told, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Route, b.Route), cmp.Compare(a.Detail, b.Detail))
	})
	return counted, told
}
