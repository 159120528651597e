package diagnose

import (
	"fmt"
	"slices"
)

// balancerChecks are of what the balancer makes of the hosts that it has.
var balancerChecks = []check{{P3, membersOut}, {P4, noSubset}, {P5, strictSession}, {P1, panicIsOff}, {P2, panicHides}}

func membersOut(c *cluster) (*claim, string) {
	members := c.config.Members()
	if len(members) == 0 {
		return nil, ""
	}
	if c.outcome != Nobody {
		return nil, "a member has a usable host"
	}
	x := &claim{Certain, fmt.Sprintf("none of its %d members has a usable host", len(members)), nil, "see its members"}
	for _, name := range members {
		m := c.envoy.cluster(name)
		x.evidence = append(x.evidence, fmt.Sprintf("/clusters: %s: %s", name, m.state()))
	}
	return x, ""
}

func noSubset(c *cluster) (*claim, string) {
	if c.config.Subset == nil {
		return nil, ""
	}
	n := c.growth("upstream_cx_none_healthy")
	if n.n == 0 || c.usable == 0 {
		return nil, "no request meets nobody"
	}
	keys := ""
	for _, s := range c.config.Subset.Selectors {
		keys += fmt.Sprint(s.Keys)
	}
	return &claim{
		min(Likely, c.unlessNoise(n)), "requests meet nobody though hosts are usable: no subset has what their route asks for",
		[]string{n.String(), "/config_dump: subsets by " + keys + ", fallback " + c.config.Subset.Fallback},
		"compare the route's metadata_match with the metadata of the hosts",
	}, ""
}

func strictSession(c *cluster) (*claim, string) {
	line := ""
	if c.envoy.Config.StrictSessions {
		line = "/config_dump: a listener has a stateful session that is strict"
	}
	for _, t := range c.envoy.Config.Routes {
		for _, h := range t.Hosts {
			for i, r := range h.Routes {
				if r.Strict() && slices.Contains(r.Clusters(), c.name) {
					line = fmt.Sprintf("/config_dump: table %s, virtual host %s, route %d: a stateful session that is strict", t.Name, h.Name, i)
				}
			}
		}
	}
	if line == "" {
		return nil, ""
	}
	n := c.growth("upstream_cx_none_healthy")
	if n.n == 0 || c.usable == 0 {
		return nil, "no request meets nobody"
	}
	return &claim{
		min(Likely, c.unlessNoise(n)), "requests meet nobody though hosts are usable: their session names one that is not there, or is out",
		[]string{n.String(), line},
		"let the session choose another host (strict: false), or have clients drop what names a host that is gone",
	}, ""
}

// weightless: where one locality has a weight, those without get nothing; where none of
// those with a weight has a usable host, all hosts are used (measured: Envoy 1.40).
func weightless(c *cluster) (*claim, string) {
	if c.config.Common.ByLocality == nil {
		return nil, ""
	}
	weighted, without := 0, []string{}
	for _, l := range c.config.Lists.Localities {
		switch {
		case len(l.Hosts) == 0:
		case l.Weight > 0:
			weighted++
		default:
			without = append(without, fmt.Sprintf("/config_dump: %d hosts in zone %q have no load_balancing_weight", len(l.Hosts), l.Locality.Zone))
		}
	}
	if weighted == 0 || len(without) == 0 {
		return nil, "every locality has a weight, or none"
	}
	failed := c.growth("upstream_cx_connect_fail")
	strength := Possible
	switch {
	case failed.n > 0 && failed.now:
		strength = Certain
	case failed.n > 0:
		strength = Likely
	}
	return &claim{
		strength, fmt.Sprintf("hosts of %d localities get no request, since others have a weight and theirs has none", len(without)),
		without, "give each locality a weight of 1 at least",
	}, ""
}

func panicIsOff(c *cluster) (*claim, string) {
	if c.outcome != Nobody || len(c.hosts) == 0 {
		return nil, ""
	}
	if !c.panicOff() {
		return nil, fmt.Sprintf("panic is on below %g %%", c.threshold())
	}
	line := "/config_dump: healthy_panic_threshold 0"
	if c.threshold() > 0 {
		line = "/config_dump: fail_traffic_on_panic"
	}
	return &claim{
		Certain, fmt.Sprintf("%d of %d hosts are usable, and panic does not use the others", c.usable, len(c.hosts)),
		[]string{line},
		"let panic try the others where some of them may still answer",
	}, ""
}

func panicHides(c *cluster) (*claim, string) {
	if c.outcome != Panics {
		return nil, "it does not panic"
	}
	n := c.growth("lb_healthy_panic")
	s := Likely
	if n.now && n.n > 0 {
		s = Certain
	}
	return &claim{
		s, fmt.Sprintf("%d of %d hosts are usable, below %g %%: requests go to the dead, too", c.usable, c.counted, c.threshold()),
		[]string{n.String()},
		"mend the hosts that are out; no 503 UH will say so",
	}, ""
}
