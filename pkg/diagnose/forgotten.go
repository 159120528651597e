package diagnose

import (
	"fmt"
	"slices"
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
		if since := c.outSince(e.Address); c.silentAt(e.Address) && !since.IsZero() && c.At.Sub(since) >= longGone {
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

// silentAt tells whether nobody answers at an address from here.
func (c *Case) silentAt(address string) bool {
	return slices.ContainsFunc(c.Probes, func(r probe.Result) bool {
		return r.Endpoint == address && (r.Outcome == probe.Refused || r.Outcome == probe.TimedOut || r.Outcome == probe.Unreachable)
	})
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
