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

	mu          sync.Mutex // guards what follows
	all         Span       // since it is known
	connections uint64     // the same
	minutes     ring
	hours       ring
	causes      []*cause // each once; views point to them
	rest        *cause   // of them, what is too much
	reasons     map[reason]*Reason
}

// cause is what requests failed by, as the proxies count it.
type cause struct {
	route, flag string // set when it is made, then read-only

	count       uint64 // guarded by the upstream
	since, last time.Time
	begun       time.Time // of the last that came without a pause
	minute      int64     // that now counts, by number
	now, before uint64    // of this minute, and of the one before
}

// pause ends a run of failures.
const pause = 90 * time.Second

// add counts failures: those of before a gap are not of this minute.
func (c *cause) add(at time.Time, late bool, n uint64) {
	if c.count == 0 {
		c.since = at
	}
	if c.count == 0 || at.Sub(c.last) > pause {
		c.begun = at
	}
	c.count, c.last = c.count+n, at
	if late {
		return
	}
	c.turn(at)
	c.now += n
}

// turn brings the two minutes up to a time.
func (c *cause) turn(at time.Time) {
	minute := at.Unix() / 60
	switch minute - c.minute {
	case 0:
	case 1:
		c.now, c.before = 0, c.now
	default:
		c.now, c.before = 0, 0
	}
	c.minute = minute
}

// lately are those of this minute and the one before.
func (c *cause) lately(at time.Time) uint64 {
	c.turn(at)
	return c.now + c.before
}

const (
	minutesKept = 60
	hoursKept   = 48
	// DroppedCauses are routes and flags that were too many for one upstream.
	DroppedCauses = "causes"
)

// upstream finds or makes one; nil where there is no room.
func (f *Fleet) upstream(name []byte) *upstream {
	known := len(name) == 0 || f.cfg.Known(string(name)) // "" are requests that led to none
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.upstreams[string(name)]
	if u == nil && len(f.upstreams) < f.cfg.MaxUpstreams && known {
		u = &upstream{name: text(name), minutes: ring{of: time.Minute, keep: minutesKept}, hours: ring{of: time.Hour, keep: hoursKept}}
		f.upstreams[u.name] = u
	}
	return u
}

// Keep forgets the upstreams that are no more, and that nobody sees.
func (f *Fleet) Keep(declared func(name string) bool) {
	seen := map[string]bool{"": true}
	for _, m := range f.all() {
		m.mu.Lock()
		for name := range m.views {
			seen[name] = true
		}
		m.mu.Unlock()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.upstreams, func(name string, _ *upstream) bool { return !seen[name] && !declared(name) })
}

func (u *upstream) add(now time.Time, late bool, m Metric, n uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch m {
	case Requests:
		u.all.Requests += n
	case Connections:
		u.connections += n
	case NoneHealthy:
		u.all.NoneHealthy += n
	}
	for _, r := range u.rings(late) {
		r.at(now).counts[m-gauges] += n
	}
}

func (u *upstream) addLatency(now time.Time, late bool, bounds []float64, n []uint64) {
	if !slices.ContainsFunc(n, func(n uint64) bool { return n > 0 }) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range u.rings(late) {
		r.at(now).observe(bounds, n)
	}
}

// cause finds or makes one; nil where there are too many.
func (u *upstream) cause(route, flag []byte) *cause {
	u.mu.Lock()
	defer u.mu.Unlock()
	i := slices.IndexFunc(u.causes, func(c *cause) bool { return c.route == string(route) && c.flag == string(flag) })
	if i < 0 {
		if len(u.causes) >= maxCauses {
			return nil
		}
		i = len(u.causes)
		u.causes = append(u.causes, &cause{route: string(route), flag: string(flag)})
	}
	return u.causes[i]
}

// other is the cause of failures of which no more is kept than how many they are.
func (u *upstream) other() *cause {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.rest == nil {
		u.rest = &cause{flag: "other"}
		u.causes = append(u.causes, u.rest)
	}
	return u.rest
}

func (u *upstream) fail(now time.Time, late bool, c *cause, n uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c.add(now, late, n)
	u.all.Failed += n
	for _, r := range u.rings(late) {
		r.at(now).failed += n
	}
}

// All is what was counted of an upstream since it is known: requests, those that
// failed, and those that met nobody.
func (f *Fleet) All(name string) Span {
	f.mu.Lock()
	u := f.upstreams[name]
	f.mu.Unlock()
	if u == nil {
		return Span{}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	all := u.all
	if all.Requests == 0 { // TCP
		all.Requests = u.connections
	}
	return all
}

// rings are where something is counted; what comes after a gap was not in this minute.
func (u *upstream) rings(late bool) []*ring {
	if late {
		return []*ring{&u.hours}
	}
	return []*ring{&u.minutes, &u.hours}
}

// Failure is requests that failed alike, as the proxies counted them: none is lost.
type Failure struct {
	Route string    `json:"route" doc:"UPSTREAM's route, as its document names it"`
	Flag  string    `json:"flag" doc:"Envoy's response flags: UH, UF, UO …"`
	Count uint64    `json:"count"`
	Since time.Time `json:"since" doc:"when the first was reported"`
	Begun time.Time `json:"begun" doc:"when those began that came without a pause of a minute and a half"`
	Last  time.Time `json:"last"`
	// Lately are those of this minute and the one before.
	Lately uint64 `json:"lately" doc:"of this minute and the one before"`
}

// Failures lists what requests to an upstream failed by, the most frequent first;
// "" are those of which Envoy names none.
func (f *Fleet) Failures(name string) ([]Failure, []Reason) {
	f.mu.Lock()
	u := f.upstreams[name]
	f.mu.Unlock()
	counted, told := []Failure{}, []Reason{}
	if u == nil {
		return counted, told
	}
	now := f.now()
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range u.causes {
		if c.count > 0 {
			counted = append(counted, Failure{Route: c.route, Flag: c.flag, Count: c.count, Since: c.since, Begun: c.begun, Last: c.last, Lately: c.lately(now)})
		}
	}
	slices.SortFunc(counted, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Route, b.Route), cmp.Compare(a.Flag, b.Flag))
	})
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
