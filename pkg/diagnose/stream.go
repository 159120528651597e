package diagnose

import (
	"fmt"
	"slices"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/probe"
)

// streamChecks are of what proxies were sent, and of what they then see.
var streamChecks = []caseCheck{{C1, nil, nobodyConnected}, {C2, nil, refusedByProxies}, {C3, nil, waitsForAnswer}, {C6, nil, late}, {H4, []Code{H2, H3}, someCannotReach}, {H4, nil, passesFromHere}}

func nobodyConnected(c *Case) (*claim, string) {
	if n := len(c.Streams); n > 0 {
		return nil, fmt.Sprintf("%d proxies connected", n)
	}
	if len(c.Groups) == 0 {
		return &claim{Likely, "no listener of any group leads to it", []string{"documents: no group reaches Upstream/" + c.Upstream}, "name it in a route, the route in a listener, the listener in a group: wellspring get groups"}, ""
	}
	x := &claim{Likely, "no proxy is connected that reaches it", []string{"groups that lead to it: " + list(c.Groups)}, "see whether the proxies run, and where their bootstrap leads: wellspring proxies"}
	for _, m := range c.Members {
		if !m.Gone.IsZero() && len(x.evidence) < mostLines {
			x.evidence = append(x.evidence, fmt.Sprintf("proxy %s left %s", m.ID, c.ago(m.Gone)))
		}
	}
	for _, r := range c.Refused[:min(len(c.Refused), mostLines)] {
		x.evidence = append(x.evidence, fmt.Sprintf("proxy %s was refused %s: %s", orName(r.Proxy.ID, "without a node id"), c.ago(r.Time), r.Why))
	}
	refused := func(id string) bool {
		return slices.ContainsFunc(c.Refused, func(r model.RefusedStream) bool { return r.Proxy.ID == id })
	}
	if large, _ := tooLarge(c); large != nil && !slices.ContainsFunc(c.Members, func(m fleet.Member) bool { return !m.Gone.IsZero() && !refused(m.ID) }) {
		x.strength = Possible // that is why they are not
	}
	return x, ""
}

// each calls f with every delivery of every stream.
func (c *Case) each(f func(s model.Stream, d model.Delivery)) {
	for _, s := range c.Streams {
		for _, d := range s.Delivery {
			f(s, d)
		}
	}
}

func refusedByProxies(c *Case) (*claim, string) {
	x := &claim{Certain, "", nil, "mend the document so that Envoy takes it: wellspring get upstream " + c.Upstream}
	reach := &Reach{Of: len(c.Streams)}
	c.each(func(s model.Stream, d model.Delivery) {
		for _, p := range d.Parked {
			if p.Document != "Upstream/"+c.Upstream && (p.Name != c.Upstream || d.Type != "clusters" && d.Type != "assignments") {
				continue
			}
			if !slices.Contains(reach.Some, s.ID) {
				reach.add(s.ID, s.Locality.Zone)
			}
			if line := fmt.Sprintf("refused of %s: %s: %s", d.Type, p.Name, firstLine(p.Message)); len(x.evidence) < mostLines && !slices.Contains(x.evidence, line) {
				x.evidence = append(x.evidence, line)
			}
		}
	})
	if reach.Count == 0 {
		return nil, "nothing of it was refused"
	}
	x.says = fmt.Sprintf("%s refused it: the form before is served, or nothing", reach)
	return x, ""
}

func waitsForAnswer(c *Case) (*claim, string) {
	x := &claim{Possible, "", nil, "see what it waits for: wellspring proxies"}
	reach := &Reach{Of: len(c.Streams)}
	c.each(func(s model.Stream, d model.Delivery) {
		for _, w := range d.Waiting {
			if w.Name == c.Upstream {
				reach.add(s.ID, s.Locality.Zone)
				x.evidence = append(x.evidence, fmt.Sprintf("proxy %s: waits since %s: %s", s.ID, clock(w.Since), w.Why))
			}
		}
	})
	if reach.Count == 0 {
		return nil, ""
	}
	if c.fails() {
		x.strength = Likely
	}
	x.says = fmt.Sprintf("%s wait before they take it", reach)
	x.evidence = x.evidence[:min(len(x.evidence), mostLines)]
	return x, ""
}

// lateAfter is how long an answer of a proxy may take.
const lateAfter = 5 * time.Second

// behind says what a proxy did not take in time, and how strongly that tells that it hangs.
func behind(s model.Stream, at time.Time) (line string, strength Strength) {
	strength = Possible
	for _, d := range s.Delivery {
		if d.Open > 0 && at.Sub(d.OpenSince) > lateAfter {
			if d.Type != "clusters" { // an Envoy answers for clusters once the last of them is warm
				strength = Likely
			}
			line = fmt.Sprintf("proxy %s: %s sent at %s, and not acknowledged", s.ID, d.Type, clock(d.OpenSince))
		}
	}
	if !s.Unsent.IsZero() && at.Sub(s.Unsent) > lateAfter {
		line, strength = fmt.Sprintf("proxy %s: takes nothing since %s", s.ID, clock(s.Unsent)), Likely
	}
	return line, strength
}

// OfProxy are the findings of a proxy by itself, whatever it leads to: that it does not
// take what it is sent, or refuses it.
func OfProxy(s model.Stream, at time.Time) (out []Finding) {
	if line, strength := behind(s, at); strength >= Likely {
		c := claim{strength, "it did not get the newest: what it does is by what it had before", []string{line}, "see whether it hangs, or the way to it does: wellspring proxies"}
		out = append(out, c.finding(C6))
	}
	c := claim{Certain, "", nil, "mend the documents so that Envoy takes them: wellspring xds " + s.ID}
	parked := 0
	for _, d := range s.Delivery {
		for _, p := range d.Parked {
			if parked++; parked <= mostLines {
				c.evidence = append(c.evidence, fmt.Sprintf("refused of %s: %s: %s", d.Type, p.Name, firstLine(p.Message)))
			}
		}
	}
	if parked > 0 {
		c.says = fmt.Sprintf("it refused %d resources: their form before is served, or nothing", parked)
		out = append(out, c.finding(C2))
	}
	return out
}

func late(c *Case) (*claim, string) {
	x := &claim{Likely, "", nil, "see whether these proxies hang, or the way to them does: wellspring proxies"}
	reach, open, worst := &Reach{Of: len(c.Streams)}, 0, Possible
	for _, s := range c.Streams {
		for _, d := range s.Delivery {
			open += d.Open + len(d.Waiting)
		}
		if line, strength := behind(s, c.At); line != "" {
			reach.add(s.ID, s.Locality.Zone)
			x.evidence, worst = append(x.evidence, line), max(worst, strength)
		}
	}
	if reach.Count == 0 {
		if len(c.Streams) == 0 || open > 0 {
			return nil, ""
		}
		return nil, fmt.Sprintf("%d/%d proxies acknowledged what they were sent", len(c.Streams), len(c.Streams))
	}
	x.strength, x.says = worst, fmt.Sprintf("%s did not get the newest", reach)
	x.evidence = x.evidence[:min(len(x.evidence), mostLines)]
	return x, ""
}

// turning is how long proxies may differ while something changes.
const turning = 10 * time.Second

func someCannotReach(c *Case) (*claim, string) {
	if len(c.Spec.HealthChecks) == 0 {
		return nil, ""
	}
	settled := c.At.Add(-turning)
	healthy := map[string]bool{}
	for _, e := range c.Endpoints {
		healthy[e.Address] = e.Health == model.Healthy
	}
	can, cannot := map[string]bool{}, map[string]*Reach{}
	views := 0
	for _, v := range c.Views {
		if v.Ejected > 0 {
			continue // not by its check
		}
		if len(v.Endpoints) > 0 {
			views++
		}
		for _, e := range v.Endpoints {
			switch {
			case !healthy[e.Address] || e.Since.After(settled):
			case e.Healthy:
				can[e.Address] = true
			default:
				if cannot[e.Address] == nil {
					cannot[e.Address] = &Reach{}
				}
				cannot[e.Address].add(v.Proxy, v.Zone)
			}
		}
	}
	x := &claim{Likely, "", nil, "look at what is between these proxies and the endpoints: firewalls, routes, a zone that is cut off"}
	for _, address := range sortedKeys(cannot) {
		if r := cannot[address]; can[address] && r.Count < views {
			r.Of = views
			x.says = fmt.Sprintf("%s cannot reach endpoints that others reach", r)
			x.evidence = append(x.evidence, fmt.Sprintf("fleet: %s would not use %s; the others do, and source %s says healthy", r, address, c.source()))
		}
	}
	if len(x.evidence) == 0 {
		return nil, ""
	}
	x.evidence = x.evidence[:min(len(x.evidence), mostLines)]
	return x, ""
}

// passesFromHere: no proxy uses an endpoint whose check passes from here. It may have come
// back just now; where it stays so, the network is between.
func passesFromHere(c *Case) (*claim, string) {
	x := &claim{Likely, "endpoints that no proxy would use pass their check from here: they came back just now, or proxies cannot reach them", nil, "ask again in some seconds; where it stays so, look at what is between proxies and endpoints"}
	for _, r := range c.Probes {
		healthy := slices.ContainsFunc(c.Endpoints, func(e model.Endpoint) bool { return e.Address == r.Endpoint && e.Health == model.Healthy })
		if healthy && r.Checked && r.Outcome == probe.Passes && c.outAt(r.Endpoint) && !c.usedAt(r.Endpoint) {
			x.evidence = append(x.evidence, fmt.Sprintf("from here: %s: %s", r.Target, r.Says))
		}
	}
	_, answers := c.shown[H1]
	_, ejects := c.shown[O1]
	if len(x.evidence) == 0 || answers || ejects || len(c.Spec.HealthChecks) == 0 {
		return nil, ""
	}
	x.evidence = x.evidence[:min(len(x.evidence), mostLines)]
	return x, ""
}
