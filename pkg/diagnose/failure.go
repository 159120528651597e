package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/fleet"
)

// failureChecks are of how requests failed lately, as the proxies counted them.
var failureChecks = []caseCheck{
	{F1, nil, overflow},
	{F4, nil, flood},
	{F2, nil, byFlag("the endpoints do not answer in time", "see whether they are slow, or overloaded; then the route's timeout", "UT")},
	{E1, nil, byReason("Connection_refused", "connections to the endpoints are refused", "see whether the process runs, and on which port: ss -ltn")},
	{E3, []Code{E1}, byReason("No_route_to_host", "no way leads to the endpoints", "look at routes and networks between proxies and endpoints")},
	{E5, nil, byFlag("the endpoints close connections, or speak another protocol", "compare idleTimeout, and protocol, of: wellspring get upstream NAME; with the service's own", "UC", "UPE", "UR")},
	{G1, nil, byFlag("proxies have no such cluster", "see why it is not served: wellspring health; wellspring proxies", "NC")},
	{G3, nil, byFlag("a policy answers in place of the endpoints", "see envoyEndpoints and envoy of: wellspring get upstream NAME", "UDO")},
}

// counted are the requests that failed lately by flags.
func (c *Case) counted(flags ...string) (n uint64, lines []string) {
	for _, f := range c.Failures {
		if !c.lately(f) {
			continue
		}
		for flag := range strings.SplitSeq(f.Flag, ",") {
			if slices.Contains(flags, flag) {
				n += f.Lately
				lines = append(lines, fmt.Sprintf("fleet: %d requests with flag %s by route %s in two minutes, the last %s", f.Lately, f.Flag, orName(f.Route, "-"), c.ago(f.Last)))
				break
			}
		}
	}
	return n, lines[:min(len(lines), mostLines)]
}

// outweighs is certain where what was counted is no noise among the requests of now.
func (c *Case) outweighs(n uint64) Strength {
	s := c.Health.Seen
	if s == nil || n < leastFailed || n*noise < s.Requests || len(c.Endpoints) == 0 && c.listed() { // there is nobody now
		return Possible
	}
	return Certain
}

// seen tells whether proxies report on it.
func (c *Case) seen() bool { return c.Health.Seen != nil && c.Health.Seen.Reporting > 0 }

// leastFailed requests are an outage; fewer may be one client's fault.
const leastFailed = 3

func byFlag(says, next string, flags ...string) func(c *Case) (*claim, string) {
	return func(c *Case) (*claim, string) {
		n, lines := c.counted(flags...)
		if n == 0 && c.seen() {
			return nil, "no request with flag " + strings.Join(flags, ", ")
		}
		if n == 0 {
			return nil, ""
		}
		return &claim{c.outweighs(n), says, lines, strings.ReplaceAll(next, "NAME", c.Upstream)}, ""
	}
}

// overflow: a request has the flag UO where a breaker was open, and where the budget of
// retries was spent, too; what proxies that were asked count tells which.
func overflow(c *Case) (*claim, string) {
	x, by := byFlag("more requests come than its circuit breaker lets through", "see why so many are open at once: slow answers, or limits that are too low (circuitBreakers)", "UO")(c)
	if x == nil {
		return nil, by
	}
	x.strength = min(x.strength, Likely)
	if _, shown := c.shown[F1]; len(c.Asked) > 0 && !shown {
		x.strength = Possible
	}
	return x, ""
}

// byReason is of what proxies say that connections failed by.
func byReason(word, says, next string) func(c *Case) (*claim, string) {
	return func(c *Case) (*claim, string) {
		failed, _ := c.counted("UF")
		var n uint64
		var lines []string
		for _, r := range c.Reasons {
			if c.At.Sub(r.Last) >= lateWithin || !strings.Contains(r.Flag, "UF") || !names(r, word) {
				continue
			}
			n = min(n+r.Count, failed) // what is told is of all time, and may be lost
			lines = append(lines, fmt.Sprintf("fleet: %d told with flag %s: %s", r.Count, r.Flag, r.Detail))
		}
		if n == 0 {
			return nil, ""
		}
		return &claim{min(Likely, c.outweighs(n)), says, lines[:min(len(lines), mostLines)], next}, ""
	}
}

// names tells whether a reason, or one of its samples, names a word; Envoy writes
// underscores for blanks in details.
func names(r fleet.Reason, word string) bool {
	spaced := strings.ReplaceAll(word, "_", " ")
	is := func(s string) bool { return strings.Contains(s, word) || strings.Contains(s, spaced) }
	if is(r.Detail) {
		return true
	}
	for _, s := range r.Samples {
		if is(s.Failure) {
			return true
		}
	}
	return false
}

// floodTimes the usual rate is a flood; usual is of so many minutes at least.
const (
	floodTimes   = 5
	floodMinutes = 10
	floodLeast   = 1000 // requests in a minute
)

// flood compares the last whole minute with the hour before.
func flood(c *Case) (*claim, string) {
	now := c.At.Truncate(time.Minute).Add(-time.Minute)
	var usual, minutes, last uint64
	for _, s := range c.Minutes {
		switch {
		case s.From.Equal(now):
			last = s.Requests
		case s.From.Before(now.Add(-time.Minute)):
			usual, minutes = usual+s.Requests, minutes+1
		}
	}
	if minutes < floodMinutes || usual == 0 {
		return nil, ""
	}
	usual /= minutes
	if last < floodLeast || last < floodTimes*max(1, usual) {
		return nil, fmt.Sprintf("%d requests in the last minute, %d in a usual one", last, usual)
	}
	routes := ""
	if len(c.Failures) > 0 {
		routes = "; failures by route " + c.Failures[0].Route
	}
	return &claim{
		Likely.unless(!c.fails()), fmt.Sprintf("%d requests came in the last minute, %.1f times as many as in a usual one", last, float64(last)/float64(max(1, usual))),
		[]string{fmt.Sprintf("fleet: %d requests in the minute of %s, %d in a usual one of the %d before%s", last, clock(now), usual, minutes, routes)},
		"see who sends them, by the access logs of the proxies; limit them before they are retried",
	}, ""
}
