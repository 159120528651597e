package diagnose

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/wellspring-xds/wellspring/pkg/envoyadmin"
)

// deliveryChecks are of what an Envoy did not get, or lost.
var deliveryChecks = []check{{C2, assignmentRefused}, {C3, notAnswered}, {C10, leaseOver}, {C11, weightless}}

func assignmentRefused(c *cluster) (*claim, string) {
	n := c.growth("update_rejected")
	if c.stat("update_rejected") == 0 {
		return nil, "no assignment was refused"
	}
	s := Possible
	switch {
	case c.outcome == Nobody && c.stat("update_success") == 0:
		s = c.missed(Certain)
	case n.now && n.n > 0:
		s = Likely
	}
	return &claim{
		s, "Envoy refused the assignment " + c.assignment(),
		[]string{fmt.Sprintf("/stats: update_rejected %d, update_success %d", c.stat("update_rejected"), c.stat("update_success"))},
		"see the log of this Envoy, or of its control plane, for what it refused: an address that is no IP, a weight of 0",
	}, ""
}

func notAnswered(c *cluster) (*claim, string) {
	taken, counted := c.envoy.Stats[c.prefix()+"update_success"]
	if c.config.Type != "EDS" || !counted || taken > 0 && c.config.Serving || c.stat("update_rejected") > 0 {
		return nil, ""
	}
	if c.config.Warming && !c.config.Serving {
		x := &claim{Likely, "it warms, and no request is served meanwhile", []string{"/config_dump: in dynamic_warming_clusters", fmt.Sprintf("/stats: %d assignments taken", taken)}, "ask the control plane why it does not answer for " + c.assignment()}
		if taken == 0 {
			x.strength = Certain
		} else {
			x.strength, x.next = Possible, "wait for the first round of its checks, or for its secrets"
		}
		return x, ""
	}
	if c.outcome != Nobody {
		return nil, ""
	}
	return &claim{
		c.missed(Certain), "its control plane never answered who is in " + c.assignment(),
		[]string{fmt.Sprintf("/stats: 0 assignments taken, init_fetch_timeout %d", c.stat("init_fetch_timeout")), "/clusters: no host"},
		"ask the control plane why it does not answer for " + c.assignment() + "; the name must be the same at both",
	}, ""
}

func leaseOver(c *cluster) (*claim, string) {
	n := c.stat("assignment_stale")
	if n == 0 || len(c.hosts) > 0 {
		return nil, ""
	}
	return &claim{
		c.missed(Likely), "its hosts were dropped when nobody renewed their assignment",
		[]string{fmt.Sprintf("/stats: assignment_stale %d", n), "/clusters: no host"},
		"see whether the control plane is up; have it leave out endpoint_stale_after",
	}, ""
}

func notConnected(e *Envoy) *claim {
	const gauge = "control_plane.connected_state"
	n, ok := e.Stats[gauge]
	if !ok || n > 0 {
		return nil
	}
	s := Certain
	switch was, before := e.Before[gauge]; {
	case !before:
		s = Likely
	case was > 0:
		s = Possible // it may connect anew just now
	}
	return &claim{s, "it is not connected to its control plane, and serves what it had", []string{"/stats: " + gauge + " 0"}, "see whether the control plane is up, and reachable from this Envoy"}
}

func rejected(e *Envoy) *claim {
	if len(e.Config.Rejected) == 0 {
		return rejectedByCount(e)
	}
	return rejectedOf(e.Config.Rejected)
}

func rejectedOf(all []envoyadmin.Rejected) *claim {
	c := &claim{Certain, fmt.Sprintf("it refused %d resources, and serves them in an older form or not at all", len(all)), nil, "mend what is named"}
	for _, r := range all[:min(len(all), mostLines)] {
		c.evidence = append(c.evidence, fmt.Sprintf("/config_dump: %s %s: %s", r.Kind, r.Name, r.Detail))
	}
	return c
}

// ofUpstream is what an Envoy shows of itself that matters to one upstream: that it is not
// connected, and what it refused of that upstream.
func (e *Envoy) ofUpstream(name string) (out []Finding) {
	if c := notConnected(e); c != nil {
		out = append(out, c.finding(C1))
	}
	var its []envoyadmin.Rejected
	for _, r := range e.Config.Rejected {
		if r.Name == name && (strings.HasPrefix(r.Kind, "cluster") || strings.HasPrefix(r.Kind, "endpoint")) {
			its = append(its, r)
		}
	}
	if len(its) > 0 {
		out = append(out, rejectedOf(its).finding(C2))
	}
	return out
}

// mostLines of evidence of one kind.
const mostLines = 5

// rejectedByCount is what was refused of clusters, listeners and routes, of which a dump
// does not always tell.
func rejectedByCount(e *Envoy) *claim {
	c := &claim{Possible, "it refused a part of its configuration", nil, "see the log of this Envoy, or of its control plane, for what it refused"}
	for _, name := range slices.Sorted(maps.Keys(e.Stats)) {
		of, ok := strings.CutSuffix(name, ".update_rejected")
		if !ok || of != "cluster_manager.cds" && of != "listener_manager.lds" && !strings.Contains(of, ".rds.") {
			continue
		}
		if n := e.growth(name); n.n > 0 {
			c.evidence = append(c.evidence, n.String())
			if n.now {
				c.strength = Likely
			}
		}
	}
	if len(c.evidence) == 0 {
		return nil
	}
	return c
}
