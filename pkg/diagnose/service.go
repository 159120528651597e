package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// serviceChecks are of who the registry says is there.
var serviceChecks = []caseCheck{
	{A5, []Code{A1}, filteredAway},
	{A6, []Code{A1}, scaledAway},
	{A1, nil, notRegistered},
	{A8, []Code{A2}, flapping},
	{A4, []Code{A2, H8}, maintained},
	{A3, []Code{A2}, nodeLost},
	{A2, nil, critical},
	{H8, nil, drained},
}

// listed tells that its endpoints are those of a source.
func (c *Case) listed() bool { return c.Spec.DNS == nil || len(c.Spec.DNS.Hosts) == 0 }

func (c *Case) instances() []model.Endpoint {
	if c.Known.Service == nil {
		return nil
	}
	return c.Known.Service.Endpoints
}

// ifRead says what the registry rules out; nothing where it cannot be read now.
func (c *Case) ifRead(format string, args ...any) string {
	if c.Known.Failure != nil {
		return ""
	}
	return fmt.Sprintf(format, args...)
}

// readLine says what the source answers, and when.
func (c *Case) readLine(what string) string {
	return fmt.Sprintf("source %s: %s, read %s", c.source(), what, c.ago(c.LastFresh))
}

func notRegistered(c *Case) (*claim, string) {
	if c.unknown() || !c.listed() {
		return nil, ""
	}
	if n := len(c.instances()); n > 0 || len(c.Known.Service.Problems) > 0 {
		return nil, c.ifRead("%d instances", n)
	}
	if len(c.left()) > 0 {
		return nil, ""
	}
	k := c.Health.Service
	says, next := fmt.Sprintf("nobody is registered as %s", k.Name), "see what is registered, and under which name: consul catalog services; then service.name, datacenter and namespace of: wellspring get upstream "+c.Upstream
	if c.Known.Service.Presence == model.Absent {
		says = fmt.Sprintf("source %s knows no service %q", k.Source, k.Name)
	}
	if k.Source == sourceLocal {
		says, next = "its document lists no endpoint", "write its endpoints: wellspring get upstream "+c.Upstream+" -o yaml"
	}
	return &claim{Likely, says, []string{c.readLine(string(c.Known.Service.Presence) + ", 0 instances")}, next}, ""
}

const sourceLocal = "local"

// left are the events by which the last instances went, oldest first; none where some are
// there, where it was long ago, or where the document asks for another service since.
func (c *Case) left() (out []model.Event) {
	if len(c.instances()) > 0 {
		return nil
	}
	subject := c.Health.Service.String()
	for _, e := range c.Events {
		if e.Kind == model.EventEndpointRemoved && e.Subject.Name == subject && c.At.Sub(e.Time) < time.Hour {
			out = append(out, e)
		}
	}
	return out
}

func scaledAway(c *Case) (*claim, string) {
	left := c.left()
	if c.unknown() || len(left) == 0 {
		return nil, ""
	}
	if n := len(c.stillAnswer()); n > 0 && 2*n >= len(c.Left) {
		return nil, fmt.Sprintf("%d of %d that left still answer", n, len(c.Left))
	}
	last := left[len(left)-1]
	x := &claim{
		Likely, fmt.Sprintf("the last of its instances left the registry %s", c.ago(last.Time)),
		[]string{c.readLine("0 instances")},
		"see who scaled or deployed it; start instances before the old ones leave",
	}
	for _, e := range left[max(0, len(left)-mostLines):] {
		x.evidence = append(x.evidence, fmt.Sprintf("%s: %s removed by source %s", clock(e.Time), e.Endpoint, c.source()))
	}
	return x, ""
}

func filteredAway(c *Case) (*claim, string) {
	all := c.instances()
	s := c.Spec.Service
	if len(all) == 0 || len(c.Endpoints) > 0 || len(s.Tags) == 0 && len(s.Metadata) == 0 && s.AddressTag == "" {
		if len(all) > 0 && len(c.Endpoints) == len(all) {
			return nil, c.ifRead("none of %d instances is left out", len(all))
		}
		return nil, ""
	}
	count := func(keep func(model.Endpoint) bool) (n int) {
		for _, e := range all {
			if keep(e) {
				n++
			}
		}
		return n
	}
	x := &claim{Likely, fmt.Sprintf("%d instances are registered, and its document selects none of them", len(all)), []string{c.readLine(fmt.Sprintf("%d instances", len(all)))}, "compare service.tags, metadata and addressTag of: wellspring get upstream " + c.Upstream + "; with what is registered"}
	for _, tag := range s.Tags {
		x.evidence = append(x.evidence, fmt.Sprintf("tag %q: %d of %d instances", tag, count(func(e model.Endpoint) bool { return slices.Contains(e.Tags, tag) }), len(all)))
	}
	for _, k := range sortedKeys(s.Metadata) {
		x.evidence = append(x.evidence, fmt.Sprintf("metadata %s=%s: %d of %d instances", k, s.Metadata[k], count(func(e model.Endpoint) bool { return e.Metadata[k] == s.Metadata[k] }), len(all)))
	}
	if t := s.AddressTag; t != "" {
		x.evidence = append(x.evidence, fmt.Sprintf("address tag %q: %d of %d instances", t, count(func(e model.Endpoint) bool { return e.Addresses[t] != "" }), len(all)))
	}
	return x, ""
}

// Consul's checks of its own. https://developer.hashicorp.com/consul/docs/services/usage/checks
const (
	checkSerf    = "serfHealth"
	checkNode    = "_node_maintenance"
	checkService = "_service_maintenance"
)

func maintenance(e model.Endpoint) bool {
	return e.Check == checkNode || strings.HasPrefix(e.Check, checkService)
}

// outBy are the endpoints that are out for a reason, and a claim about them.
func (c *Case) outBy(why func(model.Endpoint) bool, says, next string) (*claim, string) {
	var out []model.Endpoint
	for _, e := range c.Endpoints {
		if e.Health != model.Healthy && why(e) {
			out = append(out, e)
		}
	}
	if len(out) == 0 {
		return nil, ""
	}
	x := &claim{Likely, fmt.Sprintf("%d of %d endpoints %s", len(out), len(c.Endpoints), says), nil, next}
	for _, e := range out[:min(len(out), mostLines)] {
		line := fmt.Sprintf("source %s: %s %s", c.source(), e.Address, e.Health)
		if e.Reason != "" {
			line += ": " + firstLine(e.Reason)
		}
		x.evidence = append(x.evidence, line)
	}
	if len(out) < len(c.Endpoints) && !c.fails() {
		x.strength = Possible // the others serve
	}
	return x, ""
}

func critical(c *Case) (*claim, string) {
	x, _ := c.outBy(func(e model.Endpoint) bool {
		return e.Health == model.Unhealthy && e.Check != checkSerf && !maintenance(e)
	}, "are unhealthy by the registry's check", "mend what the check says; wellspring health "+c.Upstream+" lists all")
	if x == nil {
		if len(c.Endpoints) == 0 {
			return nil, ""
		}
		return nil, c.ifRead("%d of %d endpoints pass their check at the registry", c.Health.Counts.Healthy, len(c.Endpoints))
	}
	return x, ""
}

func nodeLost(c *Case) (*claim, string) {
	return c.outBy(func(e model.Endpoint) bool { return e.Check == checkSerf }, "are on nodes that the registry lost", "see whether these nodes, and the agents on them, are up: consul members")
}

func maintained(c *Case) (*claim, string) {
	return c.outBy(maintenance, "are in maintenance", "end it where it is over: consul maint -disable [-service=ID]")
}

func drained(c *Case) (*claim, string) {
	return c.outBy(func(e model.Endpoint) bool { return e.Health == model.Draining && !maintenance(e) }, "are drained", "see who drains them: wellspring health "+c.Upstream+"; an operator's ends with wellspring drain --end")
}

// Flapping is so many turns of health in so long.
const (
	manyTurns = 6
	turnsFor  = 10 * time.Minute
)

func flapping(c *Case) (*claim, string) {
	turns := map[string]int{}
	all := 0
	for _, e := range c.Events {
		if e.Kind == model.EventEndpointHealth && c.At.Sub(e.Time) < turnsFor {
			turns[e.Endpoint]++
			all++
		}
	}
	x := &claim{Likely, "", nil, "find what makes the check pass and fail by turns; let it fail several times before it counts (failures_before_critical)"}
	for _, address := range sortedKeys(turns) {
		if turns[address] >= manyTurns {
			x.evidence = append(x.evidence, fmt.Sprintf("events: %s changed its health %d times in the last %s", address, turns[address], span(turnsFor)))
		}
	}
	if len(x.evidence) == 0 {
		return nil, fmt.Sprintf("%d turns in the last %s", all, span(turnsFor))
	}
	x.says = fmt.Sprintf("the health of %d endpoints comes and goes", len(x.evidence))
	x.evidence = x.evidence[:min(len(x.evidence), mostLines)]
	return x, ""
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
