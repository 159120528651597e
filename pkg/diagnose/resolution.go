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

// mostly is how many go one way where one goes another.
const mostly = 10

// resolution counts how often names were answered and how often not: while one looked or,
// where nothing was asked meanwhile, since this Envoy began. An answer without an address
// is none that fails: Envoy counts it as a success. What the more frequent says is certain
// where the other is none, or noise of now: what was counted before may be of a cluster of
// this name that was another one.
func (c *cluster) resolution() (answered, failed uint64, strength Strength) {
	fine := c.growth("update_success")
	answered, failed = fine.n, c.growth("update_failure").n
	fewer, more := min(answered, failed), max(answered, failed)
	if more == 0 || !fine.now {
		answered, failed = c.stat("update_success"), c.stat("update_failure")
		fewer, more = min(answered, failed), 0
	}
	if fewer == 0 || fewer*mostly <= more {
		return answered, failed, Certain
	}
	return answered, failed, Likely
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
	answered, failed, strength := c.resolution()
	if failed < answered || failed == 0 {
		return nil, "its names are answered"
	}
	return &claim{
		strength, "its names cannot be resolved", c.resolved(),
		"resolve them where this Envoy runs, with the same name servers: dig +short NAME",
	}, ""
}

func noAddress(c *cluster) (*claim, string) {
	if !c.byName() {
		return nil, ""
	}
	answered, failed, strength := c.resolution()
	if len(c.hosts) > 0 || answered <= failed {
		return nil, ""
	}
	return &claim{
		strength, "its names have no address of the family that is asked for", c.resolved(),
		"look for records of both families: dig +short NAME A; dig +short NAME AAAA; and at dns_lookup_family",
	}, ""
}
