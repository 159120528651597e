package diagnose

import "fmt"

// routingChecks are of where requests are sent.
var routingChecks = []check{{G1, noCluster}}

// routed says of each cluster which routes lead to it, in a few lines of evidence.
func (e *Envoy) routed() map[string][]string {
	out := map[string][]string{}
	for _, t := range e.Config.Routes {
		for _, h := range t.Hosts {
			for i, r := range h.Routes {
				for _, name := range r.Clusters() {
					if len(out[name]) < mostLines {
						out[name] = append(out[name], fmt.Sprintf("/config_dump: table %s, virtual host %s, route %d", t.Name, h.Name, i))
					}
				}
			}
		}
	}
	return out
}

func noCluster(c *cluster) (*claim, string) {
	if c.outcome != Absent {
		return nil, "the cluster is there"
	}
	if c.config.Warming {
		return nil, ""
	}
	lines := c.envoy.routes[c.name]
	if len(lines) == 0 || c.config.Serving { // it was brought between two answers
		return nil, ""
	}
	return &claim{Certain, "a route leads to it, and there is no such cluster", lines, "define it, or mend its name in the route"}, ""
}
