package diagnose

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// heldChecks are of what proxies hold of it, against what is served.
var heldChecks = []caseCheck{{C5, []Code{C3, A1}, otherName}, {C7, nil, splitFleet}, {C8, nil, tooLarge}, {D3, nil, oldAddresses}}

// otherName: a proxy asks for an assignment that is not this upstream's.
func otherName(c *Case) (*claim, string) {
	x := &claim{Certain, "", nil, "take eds_cluster_config out of envoy: wellspring get upstream " + c.Upstream + "; or a cluster of that name out of their bootstrap"}
	reach := &Reach{Of: len(c.Asked)}
	asked := 0
	for _, a := range c.Asked {
		is := a.Config.Clusters[c.Upstream]
		if is == nil || is.Type != "EDS" {
			continue
		}
		asked++
		if name := is.Assignment.Service; name != "" && name != c.Upstream && !strings.HasPrefix(name, c.Upstream+"@") {
			reach.add(a.Proxy, a.Zone)
			x.evidence = append(x.evidence, fmt.Sprintf("proxy %s /config_dump: eds_service_name %s", a.Proxy, name))
		}
	}
	switch {
	case asked == 0:
		return nil, ""
	case reach.Count == 0:
		return nil, "it asks for what is served"
	}
	x.says = fmt.Sprintf("in %s: the endpoints of another name are asked for", reach)
	return x, ""
}

// splitFleet: some proxies hold other endpoints than are published, for longer than a
// change takes.
func splitFleet(c *Case) (*claim, string) {
	if len(c.Endpoints) == 0 || c.At.Sub(c.Known.Since) < turning {
		return nil, ""
	}
	x := &claim{Likely, "", nil, "see what these were sent, and acknowledged: wellspring xds PROXY"}
	reach := &Reach{}
	for _, v := range c.Views {
		if len(v.Endpoints) == 0 {
			continue
		}
		reach.Of++
		held := map[string]bool{}
		for _, e := range v.Endpoints {
			held[e.Address] = true
		}
		var lacks []string
		for _, e := range c.Endpoints {
			if !held[e.Address] {
				lacks = append(lacks, e.Address)
			}
		}
		if len(lacks) > 0 && v.Members < len(c.Endpoints) && c.At.Sub(v.Since) >= turning {
			reach.add(v.Proxy, v.Zone)
			x.evidence = append(x.evidence, fmt.Sprintf("fleet: proxy %s lacks %s", v.Proxy, list(lacks)))
		}
	}
	switch {
	case reach.Of == 0:
		return nil, ""
	case reach.Count == 0:
		return nil, fmt.Sprintf("%d proxies hold what is published", reach.Of)
	case reach.Count == reach.Of:
		return nil, "" // that is no split
	}
	x.says = fmt.Sprintf("in %s: other endpoints are held than are published", reach)
	x.evidence = x.evidence[:min(len(x.evidence), mostLines)]
	if !c.fails() {
		x.strength = Possible
	}
	return x, ""
}

// tooLarge: a client that is no Envoy takes messages up to a size.
func tooLarge(c *Case) (*claim, string) {
	x := &claim{Likely, "what it is to be sent is larger than it takes", nil, "split its group, so that its listeners reach less: wellspring get groups"}
	for _, r := range c.Refused {
		if slices.Contains(c.Groups, r.Proxy.Group) && r.Code == "ResourceExhausted" && strings.Contains(r.Why, "byte") {
			x.evidence = append(x.evidence, fmt.Sprintf("proxy %s was refused %s: %s", r.Proxy.ID, c.ago(r.Time), r.Why))
		}
	}
	if len(x.evidence) == 0 {
		return nil, ""
	}
	x.evidence = x.evidence[:min(len(x.evidence), mostLines)]
	return x, ""
}

// oldAddresses: proxies use addresses that names do not resolve to from here. That may be
// so on purpose: it explains something only where connections to them fail.
func oldAddresses(c *Case) (*claim, string) {
	if len(c.Resolved) == 0 {
		return nil, ""
	}
	x := &claim{Possible, "", nil, "see what the proxies' resolver says; a shorter dns.refresh, or respect of the TTL, has it asked sooner"}
	n, same := 0, 0
	for _, a := range c.Asked {
		run := a.Clusters[c.Upstream]
		if run == nil {
			continue
		}
		for _, h := range run.Hosts {
			ip, _, err := net.SplitHostPort(h.Address)
			switch {
			case err != nil:
			case slices.Contains(c.Resolved, ip):
				same++
			default:
				if n++; n <= mostLines {
					x.evidence = append(x.evidence, fmt.Sprintf("proxy %s /clusters: %s", a.Proxy, h.Address))
				}
				if h.ConnectFailed > 0 && c.fails() {
					x.strength = Likely
				}
			}
		}
	}
	if n == 0 {
		return nil, fmt.Sprintf("%d hosts are what the names resolve to", same)
	}
	x.says = fmt.Sprintf("%d hosts of proxies are not what the names resolve to from here", n)
	x.evidence = append(x.evidence, "resolved from here: "+list(c.Resolved))
	return x, ""
}
