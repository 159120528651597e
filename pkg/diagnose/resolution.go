package diagnose

import (
	"fmt"
	"strings"
)

// resolutionChecks are of clusters whose hosts are names.
var resolutionChecks = []check{{D1, cannotResolve}, {D2, noAddress}}

// byName tells whether this Envoy resolves names for it.
func (c *cluster) byName() bool {
	return strings.HasSuffix(c.config.Type, "_DNS") || strings.Contains(c.config.Custom.Name, "dns")
}

// resolveFails tells whether names get no answer, now or, where one looked once, mostly.
// An answer without an address is none that fails: Envoy counts it as a success.
func (c *cluster) resolveFails() bool {
	fail, fine := c.growth("update_failure"), c.growth("update_success")
	if fail.n+fine.n == 0 {
		return c.stat("update_failure") > c.stat("update_success")
	}
	return fail.n > fine.n
}

func (c *cluster) resolved() []string {
	return []string{fmt.Sprintf("/stats: update_failure %d, update_success %d", c.stat("update_failure"), c.stat("update_success")), "/clusters: no host"}
}

func cannotResolve(c *cluster) (*claim, string) {
	if !c.byName() {
		return nil, ""
	}
	if len(c.hosts) > 0 {
		return nil, fmt.Sprintf("there are %d addresses", len(c.hosts))
	}
	if !c.resolveFails() {
		return nil, "its names are answered"
	}
	return &claim{
		Certain, "its names cannot be resolved", c.resolved(),
		"resolve them where this Envoy runs, with the same name servers: dig +short NAME",
	}, ""
}

func noAddress(c *cluster) (*claim, string) {
	if !c.byName() {
		return nil, ""
	}
	if len(c.hosts) > 0 || c.resolveFails() || c.stat("update_success") == 0 {
		return nil, ""
	}
	return &claim{
		Certain, "its names have no address of the family that is asked for", c.resolved(),
		"look for records of both families: dig +short NAME A; dig +short NAME AAAA; and at dns_lookup_family",
	}, ""
}
