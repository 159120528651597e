package health

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Seen is how the fleet sees an upstream, by the reports that count.
type Seen struct {
	// Proxies reach it and are connected; Reporting of them report on it.
	Proxies   int `json:"proxies" doc:"connected proxies that reach it"`
	Reporting int `json:"reporting" doc:"of them, those that report on it"`
	// Healthy and Members are those of the proxy that sees fewest usable.
	Healthy int `json:"healthy" doc:"endpoints that the proxy which sees fewest would use"`
	Members int `json:"members" doc:"endpoints that this proxy has"`
	// What some proxies see.
	Panicking *Part `json:"panicking,omitempty" doc:"send requests to whoever, healthy or not"`
	Dead      *Part `json:"dead,omitempty" doc:"would use no endpoint, and answer 503 UH"`
	Nobody    *Part `json:"nobody,omitempty" doc:"have no endpoint, and answer 503 UH"`
	Fewer     *Part `json:"fewer,omitempty" doc:"would use fewer endpoints than the source says are healthy"`
	Warming   *Part `json:"warming,omitempty" doc:"do not serve its newest definition yet"`
	Overflow  *Part `json:"overflow,omitempty" doc:"met a limit of it in the last minute"`
	NoneMet   *Part `json:"noneMet,omitempty" doc:"had requests that met no endpoint (503 UH) in the last seconds"`
	// Requests and Failed are of this minute and the one before.
	Requests uint64 `json:"requests" doc:"of this minute and the one before"`
	Failed   uint64 `json:"failed" doc:"of them, those that ended with one of Envoy's failure flags"`
	// Unserved goes on: what decides, where endpoints seem usable.
	Unserved *Part `json:"unserved,omitempty" doc:"had requests that met no endpoint (503 UH) in each of their last two reports"`
	spare    int
}

// Failing tells whether so many requests fail that it is not one client's fault: three,
// and one in a hundred.
func (s Seen) Failing() bool { return s.Failed >= 3 && s.Failed*100 >= s.Requests }

// Part of the proxies that report.
type Part struct {
	Count int       `json:"count"`
	Zones []string  `json:"zones" doc:"that they are in"`
	Some  []string  `json:"some" doc:"the first of them"`
	Since time.Time `json:"since" doc:"the first time that one of them saw it"`
	// Healthy and Members are those of the one of them that would use fewest.
	Healthy int  `json:"healthy" doc:"endpoints that the one of them would use that would use fewest"`
	Members int  `json:"members" doc:"endpoints that this one has"`
	all     bool // nobody of their zones sees it otherwise
}

const maxSome = 5

// See sums up what proxies see of an upstream that does so by its source.
func See(u *spec.Upstream, h Upstream, views []fleet.View, proxies int) Seen {
	s := newSight(u, h)
	for _, v := range views {
		s.add(v)
	}
	return s.seen(proxies)
}

// sight is what is seen of an upstream, view by view.
type sight struct {
	u       *spec.Upstream
	healthy int       // by its source
	since   time.Time // when a proxy had time to hear of it
	sum     Seen
	zones   map[string]int
}

// reaches is how long a change of endpoints may take to a proxy.
const reaches = 5 * time.Second

func newSight(u *spec.Upstream, h Upstream) *sight {
	return &sight{u: u, healthy: h.Counts.Healthy, since: h.Since.Add(reaches), sum: Seen{Members: -1, spare: math.MaxInt}, zones: map[string]int{}}
}

func (x *sight) add(v fleet.View) {
	s := &x.sum
	s.Reporting++
	x.zones[v.Zone]++
	usable, of := v.Healthy+v.Degraded, v.Members-v.Excluded
	s.spare = min(s.spare, spare(x.u, usable, of))
	if s.Members < 0 || usable < s.Healthy {
		s.Healthy, s.Members = usable, v.Members
	}
	heard := !v.At.Before(x.since) // else it may see what was before
	switch {
	case v.Members == 0 && !heard:
	case v.Members == 0:
		s.Nobody = s.Nobody.with(v)
	case panics(x.u, usable, of, v.Members):
		s.Panicking = s.Panicking.with(v)
	case usable == 0:
		s.Dead = s.Dead.with(v)
	case usable < x.healthy && heard:
		s.Fewer = s.Fewer.with(v)
	}
	if v.Warming {
		s.Warming = s.Warming.with(v)
	}
	if v.Overflowed {
		s.Overflow = s.Overflow.with(v)
	}
	if v.NoneHealthy {
		s.NoneMet = s.NoneMet.with(v)
	}
	if v.Unserved {
		s.Unserved = s.Unserved.with(v)
	}
}

// seen is the sum, where so many proxies reach the upstream.
func (x *sight) seen(proxies int) Seen {
	s := x.sum
	s.Proxies, s.Members = proxies, max(0, s.Members)
	for _, p := range s.parts() {
		if p != nil {
			in := 0
			for _, z := range p.Zones {
				in += x.zones[z]
			}
			p.all = in == p.Count && in < s.Reporting
		}
	}
	return s
}

// parts are all that some proxies see, the worst first; nil is nobody.
func (s *Seen) parts() []*Part {
	return []*Part{s.Unserved, s.Nobody, s.Dead, s.NoneMet, s.Panicking, s.Overflow, s.Fewer, s.Warming}
}

// Worst is the part of the proxies that has it worst; nil where nobody complains.
func (s *Seen) Worst() *Part {
	if s == nil {
		return nil
	}
	for _, p := range s.parts() {
		if p != nil {
			return p
		}
	}
	return nil
}

// Proxies counts them; nil is none.
func (p *Part) Proxies() int {
	if p == nil {
		return 0
	}
	return p.Count
}

func (p *Part) with(v fleet.View) *Part {
	if p == nil {
		p = &Part{Since: v.Since, Healthy: v.Healthy + v.Degraded, Members: v.Members}
	}
	p.Count++
	if usable := v.Healthy + v.Degraded; usable < p.Healthy {
		p.Healthy, p.Members = usable, v.Members
	}
	if !slices.Contains(p.Zones, v.Zone) {
		p.Zones = append(p.Zones, v.Zone)
	}
	if len(p.Some) < maxSome {
		p.Some = append(p.Some, v.Proxy)
	}
	if v.Since.Before(p.Since) {
		p.Since = v.Since
	}
	return p
}

// say names the part: "3 of 40 proxies, all of zone b".
func (p *Part) say(of int) string {
	text := fmt.Sprintf("%d of %d proxies", p.Count, of)
	switch {
	case of == 1:
		return "proxy " + p.Some[0]
	case p.Count == of:
		text = fmt.Sprintf("all %d proxies", of)
	}
	if len(p.Zones) == 1 && p.Zones[0] != "" && p.Count < of {
		if text += ", in zone " + p.Zones[0]; p.all {
			text = strings.Replace(text, ", in zone", ", all of zone", 1)
		}
	}
	return text
}

// enough is the percentage of usable endpoints from which on Envoy never panics, however
// high the threshold is: with its overprovisioning of 140 % these can take everything.
const enough = 100.0 / 1.4

// threshold is the percentage of usable endpoints below which Envoy panics; 0 is never.
func threshold(u *spec.Upstream) float64 {
	if u.WhenUnavailable.Panic.Then == "fail" {
		return 0
	}
	return min(u.WhenUnavailable.Panic.Below, enough)
}

// panics tells whether Envoy would send requests to whoever: too few of those that count
// are usable, or none counts (all drain), and the upstream says to try all.
func panics(u *spec.Upstream, usable, of, members int) bool {
	t := threshold(u)
	return t > 0 && (float64(usable)*100 < t*float64(of) || of == 0 && members > 0)
}

// spare is how many more may fail before Envoy panics, or answers 503 UH.
func spare(u *spec.Upstream, usable, of int) int {
	if t := threshold(u); t > 0 {
		return max(0, usable-int(math.Ceil(t*float64(of)/100-1e-9)))
	}
	return max(0, usable-1)
}

// Join says how an upstream does by its source and by the fleet: the worse of both.
// Where the fleet panics, what the source calls critical is hidden: requests are
// answered, some by the dead.
func Join(u *spec.Upstream, h Upstream, s Seen) Upstream {
	h.Seen = &s
	if s.Reporting == 0 {
		return h
	}
	h.Spare = min(h.Spare, s.spare)
	if h.State == Critical && s.Panicking != nil {
		h.State = Hidden
	}
	worse := func(state State, p *Part, says func(*Part) string) {
		if p != nil && (state.Worse(h.State) || state == h.State && h.decided == nil) {
			h.State, h.decided = state, p
			h.Why = p.say(s.Reporting) + ": " + says(p)
		}
	}
	worse(Degraded, s.Warming, func(*Part) string { return "its newest definition is not in use yet" })
	worse(Degraded, s.Fewer, func(p *Part) string {
		return fmt.Sprintf("%d of %d usable, %d are healthy by source %s", p.Healthy, p.Members, h.Counts.Healthy, h.Service.Source)
	})
	worse(Degraded, s.Overflow, func(*Part) string { return "requests met a limit (503 UO) in the last minute" })
	if s.Failing() && !h.State.Worse(Degraded) && h.decided == nil {
		h.State, h.Why = Degraded, fmt.Sprintf("%d of %d requests failed lately: wellspring health %s --trend", s.Failed, max(s.Failed, s.Requests), h.Name)
	}
	worse(Hidden, s.Panicking, func(p *Part) string {
		return fmt.Sprintf("%d of %d usable, below %g %%: panic sends requests to all of them", p.Healthy, p.Members, u.WhenUnavailable.Panic.Below)
	})
	worse(Critical, s.Dead, func(p *Part) string { return fmt.Sprintf("none of %d usable: requests get 503 UH", p.Members) })
	if h.Counts.Total > 0 {
		worse(Critical, s.Nobody, func(*Part) string {
			return fmt.Sprintf("none of %d endpoints is there: requests get 503 UH", h.Counts.Total)
		})
	}
	worse(Critical, s.Unserved, func(p *Part) string {
		return fmt.Sprintf("requests get 503 UH, though %d of %d are usable", p.Healthy, p.Members)
	})
	if h.decided != nil {
		h.Since = h.decided.Since
	}
	return h
}
