package diagnose

import (
	"fmt"
	"slices"
	"strings"

	"github.com/wellspring-xds/wellspring/pkg/envoyadmin"
)

// Outcome is what an Envoy does with a request for a cluster, by the hosts that it has.
type Outcome string

// The outcomes, best first.
const (
	Serves Outcome = "serves" // it goes to a usable host
	Panics Outcome = "panics" // it goes to whoever, healthy or not
	Nobody Outcome = "nobody" // 503 UH: there is no host to choose
	Absent Outcome = "absent" // 503 NC: there is no such cluster
)

var outcomes = []Outcome{Serves, Panics, Nobody, Absent}

func (o Outcome) rank() int { return slices.Index(outcomes, o) }

// Envoy's own numbers.
const (
	panicBelow    = 50.0 // per cent, where nothing is said
	overprovision = 1.4
)

// cluster is one cluster of one Envoy.
type cluster struct {
	name    string
	envoy   *Envoy
	run     *envoyadmin.Cluster       // as it runs; nil where it does not
	config  *envoyadmin.ClusterConfig // never nil
	hosts   []envoyadmin.Host
	usable  int // healthy and degraded
	counted int // hosts but those that are excluded
	outcome Outcome
}

func (e *Envoy) cluster(name string) *cluster { return e.member(name, map[string]bool{}, 0) }

// deepest is how deep aggregates are looked into.
const deepest = 8

// member is a cluster, where some were looked at before: aggregates may lead to each
// other, and what one of them does is what the best below it does, by whatever road.
func (e *Envoy) member(name string, seen map[string]bool, depth int) *cluster {
	seen[name] = true
	c := &cluster{name: name, envoy: e, run: e.Clusters[name], config: e.Config.Clusters[name]}
	if c.config == nil {
		c.config = &envoyadmin.ClusterConfig{Name: name, Serving: c.run != nil}
	}
	if c.run != nil {
		c.hosts = c.run.Hosts
		healthy, degraded, excluded := envoyadmin.Count(c.hosts)
		c.usable, c.counted = healthy+degraded, len(c.hosts)-excluded
	}
	c.outcome = c.does(seen, depth)
	return c
}

// does derives the outcome.
func (c *cluster) does(seen map[string]bool, depth int) Outcome {
	switch {
	case c.run == nil || !c.config.Serving:
		return Absent
	case len(c.config.Members()) > 0:
		return c.membersDo(seen, depth)
	case c.picksItself():
		return Serves
	case len(c.hosts) == 0:
		return Nobody
	case c.usable > 0 && !c.panics():
		return Serves
	case c.panicOff():
		return Nobody
	}
	return Panics
}

// picksItself tells of clusters that make their hosts as requests come.
func (c *cluster) picksItself() bool {
	return c.config.Type == "ORIGINAL_DST" || c.config.LB == "CLUSTER_PROVIDED" ||
		strings.Contains(c.config.Custom.Name, "dynamic_forward_proxy") || strings.Contains(c.config.Custom.Name, "original_dst")
}

func (c *cluster) membersDo(seen map[string]bool, depth int) Outcome {
	best := Absent
	for _, name := range c.config.Members() {
		if seen[name] || depth == deepest {
			continue
		}
		if o := c.envoy.member(name, seen, depth+1).outcome; o.rank() < best.rank() {
			best = o
		}
	}
	if best == Absent {
		return Nobody
	}
	return best
}

// panics tells whether the share of usable hosts is below the panic threshold, as Envoy
// reckons with several priorities: each covers 1.4 times its share; where they do not
// cover all together, each one panics that takes requests and is below the threshold.
func (c *cluster) panics() bool {
	total, usable := map[int]int{}, map[int]int{}
	for _, h := range c.hosts {
		if !h.Excluded {
			total[h.Priority]++
		}
		if h.Usable {
			usable[h.Priority]++
		}
	}
	cover, low := 0.0, false
	for p, n := range total {
		share := float64(usable[p]) / float64(n)
		cover += min(1, overprovision*share)
		low = low || usable[p] > 0 && 100*share < c.threshold() // one without takes no requests
	}
	return cover < 1 && low
}

// threshold is the panic threshold in per cent.
func (c *cluster) threshold() float64 {
	if p := c.config.Common.Panic; p != nil {
		return p.Value
	}
	return panicBelow
}

// panicOff tells that requests fail where panic would serve them.
func (c *cluster) panicOff() bool {
	return c.threshold() == 0 || c.config.Common.ZoneAware.FailOnPanic
}

// state says the outcome with counts.
func (c *cluster) state() string {
	out := len(c.hosts) - c.usable
	switch c.outcome {
	case Absent:
		if c.config.Warming {
			return "warming: requests get 503 NC"
		}
		return "no such cluster: requests get 503 NC"
	case Nobody:
		if len(c.hosts) == 0 {
			return "no host: requests get 503 UH"
		}
		return fmt.Sprintf("%d of %d hosts out: requests get 503 UH", out, len(c.hosts))
	case Panics:
		return fmt.Sprintf("%d of %d hosts out: panic sends requests to the dead, too", out, len(c.hosts))
	}
	if out > 0 {
		return fmt.Sprintf("%d of %d hosts out", out, len(c.hosts))
	}
	return fmt.Sprintf("%d hosts, none is marked out", len(c.hosts))
}

// with are the hosts that have a flag.
func (c *cluster) with(flags ...string) (out []envoyadmin.Host) {
	for _, h := range c.hosts {
		if slices.ContainsFunc(flags, h.Has) {
			out = append(out, h)
		}
	}
	return out
}

// addresses of hosts.
func addresses(hosts []envoyadmin.Host) (out []string) {
	for _, h := range hosts {
		out = append(out, h.Address)
	}
	return out
}

// stat is a counter or gauge of the cluster, as it was asked last.
func (c *cluster) stat(name string) uint64 {
	return c.envoy.Stats[c.prefix()+name]
}

// prefix of its stats: Envoy writes no colon in their names, nor a dot at an end.
func (c *cluster) prefix() string {
	name := c.name
	if c.run != nil {
		name = c.run.StatName
	}
	return "cluster." + strings.Trim(uncolon.Replace(name), ".") + "."
}

var uncolon = strings.NewReplacer("://", "_", ":/", "_", ":", "_")

// growth is how much a counter grew while one looked; where one looked once, since this
// Envoy began.
func (c *cluster) growth(name string) count { return c.envoy.growth(c.prefix() + name) }

// count is what a counter says.
type count struct {
	name string
	n    uint64
	now  bool // it grew while one looked
}

func (x count) String() string {
	if x.now {
		return fmt.Sprintf("/stats: %s grew by %d", x.name, x.n)
	}
	return fmt.Sprintf("/stats: %s %d since it began", x.name, x.n)
}

// growth of a counter.
func (e *Envoy) growth(name string) count {
	is, was := e.Stats[name], uint64(0)
	if e.Before != nil {
		was = e.Before[name]
	}
	if is < was { // it began anew
		was = 0
	}
	return count{name, is - was, e.Before != nil}
}

// minor tells that hosts are out as they are in any rollout: fewer than half, and the
// others serve.
func (c *cluster) minor(out []envoyadmin.Host) bool {
	return c.outcome == Serves && 2*len(out) < len(c.hosts)
}

// total is what a counter says since this Envoy began.
func (e *Envoy) total(name string) count { return count{name: name, n: e.Stats[name]} }

// flagged is a line of evidence: the hosts that have a flag.
func flagged(flag string, hosts []envoyadmin.Host) string {
	return "/clusters: " + flag + ": " + list(addresses(hosts))
}
