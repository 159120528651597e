package spec

import "github.com/wellspring-xds/wellspring/pkg/model"

// Group is the proxies that get the same listeners, and the upstreams reachable
// from them.
type Group struct {
	Match      GroupMatch `json:"match,omitempty" doc:"Which proxies. Default: those whose node.cluster is the group's name."`
	Listeners  []string   `json:"listeners" required:"true" doc:"Names of Listener documents."`
	Identities []string   `json:"identities,omitempty" doc:"Names in the client certificates of proxies that may be in the group: exact, or with one * at the beginning or the end. Default: any proxy that matches."`
	Telemetry  string     `json:"telemetry,omitempty" default:"upstreams" enum:"off,failures,upstreams,endpoints" doc:"What its proxies report of what they see, as far as their bootstraps carry it; each level has those before it. failures: requests that fail, and why. upstreams: how many endpoints of each upstream they would use, panic, limits, latency. endpoints: which ones; about 100 bytes for each endpoint and report, uncompressed. Changing it to or from off drains the connections of the group's listeners, to or from endpoints makes its clusters anew."`
}

// GroupMatch is exact, and everything written must hold.
type GroupMatch struct {
	Cluster  string            `json:"cluster,omitempty" maxLength:"253" doc:"The node's cluster."`
	ID       string            `json:"id,omitempty" maxLength:"253" doc:"The node's id."`
	Zone     string            `json:"zone,omitempty" maxLength:"128" doc:"The zone of the node's locality."`
	Metadata map[string]string `json:"metadata,omitempty" doc:"Values in the node's metadata; nested keys are joined by dots."`
}

func (g *Group) check(c *checker) {
	seen := map[string]int{}
	for i, l := range g.Listeners {
		if j, ok := seen[l]; ok {
			c.faultf(index("spec.listeners", i), "%q stands at listeners[%d] already", l, j)
		}
		seen[l] = i
	}
	for i, name := range g.Identities {
		c.pattern(index("spec.identities", i), name)
	}
}

// Allows tells whether the names in a proxy's certificate let it into the group.
func (g *Group) Allows(names []string) bool {
	return len(g.Identities) == 0 || model.MatchAnyName(g.Identities, names)
}

// effective fills in the default match.
func (m GroupMatch) effective(name string) GroupMatch {
	if m.Cluster == "" && m.ID == "" && m.Zone == "" && len(m.Metadata) == 0 {
		m.Cluster = name
	}
	return m
}

// matches tells whether a proxy belongs.
func (m GroupMatch) matches(p model.Proxy) bool {
	for k, v := range m.Metadata {
		if got, ok := p.Metadata[k]; !ok || got != v {
			return false
		}
	}
	return (m.Cluster == "" || m.Cluster == p.Cluster) && (m.ID == "" || m.ID == p.ID) &&
		(m.Zone == "" || m.Zone == p.Locality.Zone)
}

// compatible tells whether one proxy could match both.
func (m GroupMatch) compatible(o GroupMatch) bool {
	both := func(a, b string) bool { return a == "" || b == "" || a == b }
	for k, v := range m.Metadata {
		if w, ok := o.Metadata[k]; ok && w != v {
			return false
		}
	}
	return both(m.Cluster, o.Cluster) && both(m.ID, o.ID) && both(m.Zone, o.Zone)
}
