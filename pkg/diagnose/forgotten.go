package diagnose

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/probe"
)

// forgottenChecks are of what the registry says and is not so: who it forgot though they
// answer, and who it lists though nobody does.
var forgottenChecks = []caseCheck{{B5, []Code{A1}, forgotten}, {A7, nil, ghosts}}

// oneStep is in what time endpoints leave together.
const oneStep = 2 * time.Second

// stillAnswer are the endpoints that left lately and answer from here.
func (c *Case) stillAnswer() (out []probe.Result) {
	for _, r := range c.Left {
		if r.Outcome == probe.Passes {
			out = append(out, r)
		}
	}
	return out
}

// massLoss is the last step in which half of the endpoints or more left, two at least.
func (c *Case) massLoss() (addresses []string, at time.Time) {
	subject := c.Health.Service.String()
	var removed []model.Event
	for _, e := range c.Events {
		if e.Kind == model.EventEndpointRemoved && e.Subject.Name == subject {
			removed = append(removed, e)
		}
	}
	if len(removed) == 0 {
		return nil, at
	}
	at = removed[len(removed)-1].Time
	for _, e := range removed {
		if at.Sub(e.Time) <= oneStep {
			addresses = append(addresses, e.Endpoint)
		}
	}
	if n := len(addresses); n < 2 || n < len(c.instances()) {
		return nil, at
	}
	return addresses, at
}

// forgotten: they left in one step, and still answer. Who scales to zero stops processes.
func forgotten(c *Case) (*claim, string) {
	lost, at := c.massLoss()
	if len(lost) == 0 || c.source() == sourceLocal || c.unknown() {
		return nil, ""
	}
	answer := c.stillAnswer()
	if len(answer)*2 < len(lost) {
		if len(c.Left) > 0 {
			return nil, "who left does not answer any more"
		}
		return nil, ""
	}
	x := &claim{
		Likely.unless(!c.fails()), fmt.Sprintf("%d endpoints left the registry in one step, %s, and %d of %d that were tried still answer", len(lost), c.ago(at), len(answer), len(c.Left)),
		[]string{c.readLine(fmt.Sprintf("%d instances", len(c.instances())))},
		"see why the registry forgot them: who deregisters, its agents, a restored snapshot; or write the endpoints into the document meanwhile",
	}
	for _, r := range answer[:min(len(answer), mostLines)] {
		x.evidence = append(x.evidence, fmt.Sprintf("from here: %s: %s", r.Target, r.Says))
	}
	return x, ""
}

// longGone is for how long nobody answers where a registration stands, before that is told
// beside why nobody does.
const longGone = 10 * time.Minute

// ghosts: an address that stands in another service too, or at which nobody answers for
// long though the registry says healthy.
func ghosts(c *Case) (*claim, string) {
	x := &claim{Likely, "", nil, "take the registration out that is not right: consul services deregister -id=ID, at its agent; see who runs at that address"}
	n := 0
	for _, e := range c.Endpoints {
		if e.Health != model.Healthy || c.usedAt(e.Address) {
			continue
		}
		if others := c.Elsewhere[e.Address]; len(others) > 0 && c.outAt(e.Address) {
			n++
			x.evidence = append(x.evidence, fmt.Sprintf("catalog: %s is registered as %s, and as %s", e.Address, c.Health.Service.Name, list(others)))
			continue
		}
		since, silent := c.outSince(e.Address), slices.ContainsFunc(c.Probes, func(r probe.Result) bool {
			return r.Endpoint == e.Address && (r.Outcome == probe.Refused || r.Outcome == probe.TimedOut || r.Outcome == probe.Unreachable)
		})
		if silent && !since.IsZero() && c.At.Sub(since) >= longGone {
			n++
			x.evidence = append(x.evidence, fmt.Sprintf("source %s: %s healthy; no proxy uses it for %s, and nobody answers there from here", c.source(), e.Address, span(c.At.Sub(since))))
		}
	}
	if n == 0 {
		return nil, ""
	}
	x.says = fmt.Sprintf("%d of %d registrations are of somebody who is not there", n, len(c.Endpoints))
	if n < len(c.Endpoints) && !c.fails() {
		x.strength = Possible
	}
	x.evidence = x.evidence[:min(len(x.evidence), mostLines)]
	return x, ""
}

// outSince is since when every proxy that names an endpoint would not use it; zero where
// one would, or none names it.
func (c *Case) outSince(address string) (since time.Time) {
	for _, v := range c.Views {
		for _, e := range v.Endpoints {
			switch {
			case e.Address != address:
			case e.Healthy:
				return time.Time{}
			case e.Since.After(since):
				since = e.Since
			}
		}
	}
	return since
}

// together are services whose checks failed in the same moment and with the same words.
func togetherFailed(c *Case) (*claim, string) {
	if len(c.Together) < 2 || !c.fails() {
		return nil, ""
	}
	return &claim{
		Likely, fmt.Sprintf("the checks of %d other services failed in the same moment, with the same words", len(c.Together)),
		[]string{fmt.Sprintf("events: %q in %s", c.TogetherBy, list(c.Together))},
		"look at what they share; and have checks not ask for it: each takes every service out with it",
	}, ""
}

// A check that is a glitch takes endpoints out for a moment, again and again.
const (
	glitches   = 3
	glitchLong = 30 * time.Second
	glitchIn   = time.Hour
)

// glitchy: the upstream was not well for moments only, and one failed check is enough.
func glitchy(c *Case) (*claim, string) {
	if len(c.Spec.HealthChecks) == 0 {
		return nil, ""
	}
	h := c.Spec.HealthChecks[0]
	at := ""
	switch {
	case h.UnhealthyThreshold == 1:
		at = "unhealthyThreshold: 1"
	case h.HTTP != nil && len(h.HTTP.Retriable) == 0:
		at = "no retriableStatuses: an unexpected status takes an endpoint out at once"
	default:
		return nil, fmt.Sprintf("%d failures in a row take an endpoint out", h.UnhealthyThreshold)
	}
	var begun time.Time
	n := 0
	for _, e := range c.Events {
		if e.Kind != model.EventUpstreamState || e.Subject.Name != c.Upstream || c.At.Sub(e.Time) > glitchIn {
			continue
		}
		switch {
		case e.To != "healthy" && begun.IsZero():
			begun = e.Time
		case e.To == "healthy" && !begun.IsZero():
			if e.Time.Sub(begun) < glitchLong {
				n++
			}
			begun = time.Time{}
		}
	}
	if n < glitches {
		return nil, fmt.Sprintf("%d short turns in the last hour", n)
	}
	return &claim{
		Likely, fmt.Sprintf("it was not well %d times in the last hour, for less than %s each: one check that fails is enough", n, span(glitchLong)),
		[]string{"document: healthChecks[0]: " + at, fmt.Sprintf("events: %d short turns of %s", n, c.Upstream)},
		"raise unhealthyThreshold, or write retriableStatuses: wellspring get upstream " + c.Upstream,
	}, ""
}

// floodTimes the usual rate is a flood; usual is of so many minutes at least.
const (
	floodTimes   = 5
	floodMinutes = 10
	floodLeast   = 1000 // requests in a minute
)

// flood compares the last whole minute with the hour before.
func flood(c *Case) (*claim, string) {
	now := c.At.Truncate(time.Minute).Add(-time.Minute)
	var usual, minutes, last uint64
	for _, s := range c.Minutes {
		switch {
		case s.From.Equal(now):
			last = s.Requests
		case s.From.Before(now.Add(-time.Minute)):
			usual, minutes = usual+s.Requests, minutes+1
		}
	}
	if minutes < floodMinutes || usual == 0 {
		return nil, ""
	}
	usual /= minutes
	if last < floodLeast || last < floodTimes*max(1, usual) {
		return nil, fmt.Sprintf("%d requests in the last minute, %d in a usual one", last, usual)
	}
	routes := ""
	if len(c.Failures) > 0 {
		routes = "; failures by route " + c.Failures[0].Route
	}
	return &claim{
		Likely.unless(!c.fails()), fmt.Sprintf("%d requests came in the last minute, %.1f times as many as in a usual one", last, float64(last)/float64(max(1, usual))),
		[]string{fmt.Sprintf("fleet: %d requests in the minute of %s, %d in a usual one of the %d before%s", last, clock(now), usual, minutes, routes)},
		"see who sends them, by the access logs of the proxies; limit them before they are retried",
	}, ""
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
	x.says = fmt.Sprintf("%s hold other endpoints than are published", reach)
	x.evidence = x.evidence[:min(len(x.evidence), mostLines)]
	if !c.fails() {
		x.strength = Possible
	}
	return x, ""
}

// tooLarge: a client that is no Envoy takes messages up to a size.
func tooLarge(c *Case) (*claim, string) {
	x := &claim{Likely, "what it is to be sent is larger than it takes", nil, "split its group, or have it take more (grpc.max_receive_message_length)"}
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

// stuckWatch: the registry took the newest canary, and what is watched does not show it.
func stuckWatch(c *Case) (*claim, string) {
	if c.Unseen == 0 {
		return nil, ""
	}
	return &claim{
		c.unread(), "the registry answers, and has stopped telling what changes",
		[]string{fmt.Sprintf("canary of source %s: written, and not read back for %s", c.source(), span(c.Unseen)), c.lasts()},
		"see the registry's agent that this server asks: wellspring sources; another one may tell",
	}, ""
}

// otherName: a proxy asks for an assignment that is not this upstream's.
func otherName(c *Case) (*claim, string) {
	x := &claim{Certain, "", nil, "take eds_cluster_config out of envoy: wellspring get upstream " + c.Upstream}
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
	x.says = fmt.Sprintf("%s ask for the endpoints of another name", reach)
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
