package diagnose

import "fmt"

// capacityChecks are of limits.
var capacityChecks = []check{{F1, breaker}, {F3, retries}, {F2, timeouts}}

// breakers are the circuit breakers: what they count, what they refuse, and the limit.
var breakers = []struct {
	overflow, limit string
	of              func(c *cluster) uint64
}{
	{"upstream_rq_pending_overflow", "max_pending_requests or max_requests", func(c *cluster) uint64 { return min(c.run.Limits.Pending, c.run.Limits.Requests) }},
	{"upstream_cx_overflow", "max_connections", func(c *cluster) uint64 { return c.run.Limits.Connections }},
}

func breaker(c *cluster) (*claim, string) {
	if c.run == nil {
		return nil, ""
	}
	for _, b := range breakers {
		n := c.growth(b.overflow)
		if n.n == 0 || b.overflow == "upstream_cx_overflow" && c.growth("upstream_rq_pending_overflow").n == 0 {
			continue // connections over the limit wait for one of the others
		}
		return &claim{
			c.unlessNoise(n), "more requests come than its circuit breaker lets through",
			[]string{n.String(), fmt.Sprintf("/clusters: connections %d, pending %d, requests %d at most", c.run.Limits.Connections, c.run.Limits.Pending, c.run.Limits.Requests)},
			"see why so many are open at once: slow answers, or a limit that is too low (" + b.limit + ")",
		}, ""
	}
	return nil, "no request met a limit"
}

// stormShare of what is sent are retries, at least, in a storm.
const stormShare = 0.2

func retries(c *cluster) (*claim, string) {
	n, all, over := c.growth("upstream_rq_retry"), c.growth("upstream_rq_total"), c.growth("upstream_rq_retry_overflow")
	if n.n == 0 || float64(n.n) < stormShare*float64(all.n) {
		return nil, fmt.Sprintf("%d of %d requests are retries", n.n, all.n)
	}
	s := Possible
	if n.now && over.n > 0 {
		s = Likely
	}
	return &claim{s, fmt.Sprintf("%d of %d requests are retries", n.n, all.n), []string{n.String(), over.String()}, "bound retries by a budget, and leave them to one hop of the road"}, ""
}

func timeouts(c *cluster) (*claim, string) {
	n, one := c.growth("upstream_rq_timeout"), c.growth("upstream_rq_per_try_timeout")
	if n.n < one.n {
		n = one
	}
	if n.n == 0 {
		return nil, "no request runs out of time"
	}
	return &claim{min(Likely, c.unlessNoise(n)), "the hosts do not answer in time", []string{n.String()}, "see whether they are slow, or overloaded; then whether the route's timeout is what it should be"}, ""
}
