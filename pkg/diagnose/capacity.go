package diagnose

import "fmt"

// capacityChecks are of limits.
var capacityChecks = []check{{F1, breaker}, {F3, retries}, {F2, timeouts}}

func breaker(c *cluster) (*claim, string) {
	if c.run == nil {
		return nil, ""
	}
	var n count
	var over []string
	for _, limit := range []string{"pending", "active"} { // waiting for a connection; at once, since Envoy 1.38
		x := c.growth("upstream_rq_" + limit + "_overflow")
		if x.n > 0 {
			over = append(over, x.String())
		}
		if x.n > n.n {
			n = x
		}
	}
	if n.n == 0 {
		return nil, "no request met a limit"
	}
	return &claim{
		c.unlessNoise(n), "more requests come than its circuit breaker lets through",
		append(over, fmt.Sprintf("/clusters: connections %d, pending %d, requests %d at most", c.run.Limits.Connections, c.run.Limits.Pending, c.run.Limits.Requests)),
		"see why so many are open at once: slow answers, or a limit that is too low (max_pending_requests or max_requests)",
	}, ""
}

// Shares of what is sent that are retries: of a storm that spends its budget, and of one
// by itself. One retry of each request is no storm.
const (
	stormShare = 0.2
	mostShare  = 0.6
)

func retries(c *cluster) (*claim, string) {
	n, all, over := c.growth("upstream_rq_retry"), c.growth("upstream_rq_total"), c.growth("upstream_rq_retry_overflow")
	all.n += c.growth("upstream_cx_connect_fail").n // of these no request was sent
	if n.n == 0 || float64(n.n) < stormShare*float64(all.n) {
		return nil, fmt.Sprintf("%d of %d requests are retries", n.n, all.n)
	}
	s := Possible
	if n.now && (over.n > 0 || float64(n.n) > mostShare*float64(all.n)) {
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
