package diagnose

import "fmt"

// registryChecks are of what an Envoy was told of its hosts.
var registryChecks = []check{{A1, nobodyTold}, {A2, toldUnhealthy}, {H8, asksToLeave}, {C9, kept}}

// missed is a strength where requests meet nobody, likely at most where one looked once; a
// cluster that nobody asks for may be empty on purpose.
func (c *cluster) missed(s Strength) Strength {
	switch n := c.growth("upstream_cx_none_healthy"); {
	case n.n == 0:
		return Possible
	case n.now:
		return s
	}
	return min(s, Likely)
}

func nobodyTold(c *cluster) (*claim, string) {
	if len(c.hosts) > 0 {
		return nil, fmt.Sprintf("there are %d hosts", len(c.hosts))
	}
	if c.outcome != Nobody || c.config.Custom.Name != "" || c.byName() {
		return nil, ""
	}
	met := fmt.Sprintf("/stats: upstream_cx_none_healthy %d: requests that met nobody", c.stat("upstream_cx_none_healthy"))
	if c.config.Type != "EDS" {
		return &claim{
			c.missed(Certain), "its definition lists no host",
			[]string{"/config_dump: type " + orStatic(c.config.Type) + ", and /clusters shows no host", met},
			"add hosts to the cluster's load_assignment",
		}, ""
	}
	if c.stat("update_success") == 0 {
		return nil, "" // nothing was told at all
	}
	return &claim{
		c.missed(Likely), "its control plane told it of nobody",
		[]string{fmt.Sprintf("/stats: %d assignments taken", c.stat("update_success")), "/clusters: no host", met},
		"ask the control plane and its registry who is in " + c.assignment(),
	}, ""
}

func orStatic(t string) string {
	if t == "" {
		return "STATIC"
	}
	return t
}

// assignment is the name of its assignment.
func (c *cluster) assignment() string {
	if s := c.config.Assignment.Service; s != "" {
		return s
	}
	return c.name
}

func toldUnhealthy(c *cluster) (*claim, string) {
	out := c.with("eds_unhealthy", "eds_timeout")
	if len(out) == 0 {
		return nil, "no host has that status"
	}
	return &claim{
		Certain.unless(c.minor(out)), c.out(out) + " are marked unhealthy in their assignment",
		[]string{flagged("eds_unhealthy", out)},
		"ask the registry which of their checks fails",
	}, ""
}

func asksToLeave(c *cluster) (*claim, string) {
	out := c.with("eds_draining", "excluded_via_immediate_hc_fail")
	if len(out) == 0 {
		return nil, "no host has such a flag"
	}
	s := Certain
	if c.outcome == Serves {
		s = Possible // as it is meant
	}
	return &claim{
		s, c.out(out) + " take no new requests",
		[]string{flagged("draining", out)},
		"see who drains them; start others before",
	}, ""
}

func kept(c *cluster) (*claim, string) {
	out := c.with("pending_dynamic_removal")
	if len(out) == 0 {
		return nil, ""
	}
	return &claim{
		Possible, c.out(out) + " were removed, and are used as long as their check passes",
		[]string{flagged("pending_dynamic_removal", out)},
		"set ignore_health_on_host_removal where removed hosts are to go at once",
	}, ""
}
