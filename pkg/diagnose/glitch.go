package diagnose

import (
	"fmt"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// glitchChecks are of health checks that fail for a moment, or of several services.
var glitchChecks = []caseCheck{{H10, nil, togetherFailed}, {H11, nil, glitchy}}

// togetherFailed: services whose checks failed in the same moment and with the same words.
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
