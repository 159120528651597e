package diagnose

import (
	"fmt"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Road is one line for a way that a request goes.
func Road(w spec.Way) string {
	at := fmt.Sprintf("group %s, listener %s", w.Group, w.Listener)
	if !w.Found() {
		return at + ": no rule matches"
	}
	at += fmt.Sprintf(", Route/%s rules[%d]", w.Route, w.Rule)
	if len(w.To) == 0 {
		return at + ": " + w.Answer
	}
	var to []string
	for _, d := range w.To {
		one := d.Upstream
		if len(w.To) > 1 {
			one = fmt.Sprintf("%s (weight %d)", one, d.Weight)
		}
		to = append(to, one)
	}
	return at + ": " + strings.Join(to, ", ")
}

// NoWay explains a request that no listener sends to an upstream: no rule matches, or the
// proxy answers by itself.
func NoWay(ways []spec.Way, a spec.Asking, at time.Time) Explanation {
	e := Explanation{
		At: at, State: health.Unknown, Findings: []Finding{}, RuledOut: []Ruled{}, Changes: []Edit{}, Events: []model.Event{}, NotAsked: []string{},
		Says: fmt.Sprintf("%s%s leads to no upstream", a.Host, a.Path),
	}
	none := claim{Likely, "no rule matches it: requests get 404 (flag NR)", nil, "add a rule, or a host, to a route: wellspring get routes"}
	itself := claim{Likely, "the proxy answers it by itself", nil, "see the rule's respond or redirect: wellspring get routes"}
	for _, w := range ways {
		e.Road = append(e.Road, Road(w))
		switch {
		case !w.Found():
			at := fmt.Sprintf("group %s, listener %s: ", w.Group, w.Listener)
			for _, line := range w.Tried[max(0, len(w.Tried)-mostLines):] {
				none.evidence = append(none.evidence, at+line)
			}
		case len(w.To) == 0:
			itself.evidence = append(itself.evidence, Road(w))
		}
	}
	switch {
	case len(ways) == 0:
		none.says, none.evidence = "no listener of any group takes HTTP", []string{"documents: no Group names a Listener with routes"}
		e.Findings = append(e.Findings, none.finding(G2))
	case len(itself.evidence) > 0:
		e.Findings = append(e.Findings, itself.finding(G3))
	default:
		e.Findings = append(e.Findings, none.finding(G2))
	}
	return e
}

// Sibling says that a request goes to an upstream in vain while another one that its rule
// names, or could, is well.
func (e Explanation) Sibling(well []string) Explanation {
	if len(well) == 0 || !e.Fails {
		return e
	}
	c := claim{Possible, "a part of its requests goes to an upstream in vain, while others of the same rule are well", []string{"health: " + list(well) + ": healthy"}, "move the weight to them until it is mended: to[].weight of the rule"}
	e.Findings = append(e.Findings, c.finding(G4))
	return e
}
