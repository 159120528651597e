package diagnose

import (
	"fmt"
	"slices"
	"strings"

	"github.com/wellspring-xds/wellspring/pkg/probe"
)

// replayChecks are of what was tried from here. What proxies see decides whether it
// matters: an endpoint that they use is none to complain of.
var replayChecks = []caseCheck{
	{H1, nil, replayUnexpected},
	{H9, []Code{H1}, protectsItself},
	{H2, nil, replaySlow},
	{H5, nil, replayTLS},
	{H6, []Code{H1, H3}, replayProtocol},
	{H3, nil, replayRefused},
	{E4, nil, dialTLS},
	{E3, []Code{E1, E2}, dialUnreachable},
	{E2, nil, dialSlow},
	{E1, nil, dialRefused},
}

// tried are the results with an outcome, of endpoints that some proxy would not use, or
// could not reach; checked or not.
func (c *Case) tried(checked bool, outcomes ...probe.Outcome) (out []probe.Result) {
	for _, r := range c.Probes {
		if r.Checked == checked && slices.Contains(outcomes, r.Outcome) && (checked && c.outAt(r.Endpoint) || !checked && c.fails()) {
			out = append(out, r)
		}
	}
	return out
}

// outAt tells whether some proxy would not use an endpoint, by its report or its answer; or
// nobody says anything of it, and it does badly.
func (c *Case) outAt(address string) bool {
	used, out := c.saysOf(address)
	return out || !used && c.fails()
}

// usedAt tells whether some proxy would use an endpoint.
func (c *Case) usedAt(address string) bool {
	used, _ := c.saysOf(address)
	return used
}

// saysOf is what proxies say of an endpoint.
func (c *Case) saysOf(address string) (used, out bool) {
	for _, v := range c.Views {
		for _, e := range v.Endpoints {
			if e.Address == address {
				used, out = used || e.Healthy, out || !e.Healthy
			}
		}
	}
	for _, a := range c.Asked {
		run := a.Clusters[c.Upstream]
		if run == nil {
			continue
		}
		for _, h := range run.Hosts {
			if h.Address == address {
				used, out = used || h.Usable, out || !h.Usable
			}
		}
	}
	return used, out
}

// replayed is a claim about what was tried.
func (c *Case) replayed(results []probe.Result, says, next string) (*claim, string) {
	if len(results) == 0 {
		return nil, ""
	}
	x := &claim{Likely, fmt.Sprintf("%d of %d endpoints %s", len(results), len(c.Endpoints), says), nil, next}
	if strings.Contains(next, "%s") {
		x.next = fmt.Sprintf(next, results[0].Target)
	}
	for _, r := range results[:min(len(results), mostLines)] {
		line := fmt.Sprintf("from here: %s: %s", r.Target, r.Says)
		if r.OpenElsewhere {
			line += "; " + r.Endpoint + " takes connections"
		}
		x.evidence = append(x.evidence, line)
	}
	return x, ""
}

// protects tells that an answer asks to be left alone for a while.
func protects(r probe.Result) bool {
	return strings.Contains(r.Says, ": 429") || strings.Contains(r.Says, ": 503") && strings.Contains(r.Says, "Retry-After")
}

func replayUnexpected(c *Case) (*claim, string) {
	all := slices.DeleteFunc(c.tried(true, probe.Unexpected), protects)
	return c.replayed(all, "answer their check with something else than what it expects", "correct the check's path, host or expectedStatuses, or the service: wellspring get upstream "+c.Upstream)
}

func protectsItself(c *Case) (*claim, string) {
	all := slices.DeleteFunc(c.tried(true, probe.Unexpected), func(r probe.Result) bool { return !protects(r) })
	return c.replayed(all, "answer their check that they have too much to do", "let the check ask something that answers under load, or expect this status; then see where the load comes from")
}

func replaySlow(c *Case) (*claim, string) {
	limit := ""
	if len(c.Spec.HealthChecks) > 0 {
		limit = " of " + c.Spec.HealthChecks[0].Timeout.D().String()
	}
	return c.replayed(c.tried(true, probe.TimedOut), "do not answer their check within its timeout"+limit, "see whether they are slow or cut off; then whether the timeout is too short")
}

func replayTLS(c *Case) (*claim, string) {
	return c.replayed(c.tried(true, probe.BadTLS), "fail the handshake of their check", "see what one presents: openssl s_client -connect %s </dev/null | openssl x509 -noout -subject -ext subjectAltName -dates")
}

func replayProtocol(c *Case) (*claim, string) {
	return c.replayed(c.tried(true, probe.OtherWords), "answer their check in another protocol", "compare protocol, and tls, of: wellspring get upstream "+c.Upstream+"; with what the service speaks")
}

func replayRefused(c *Case) (*claim, string) {
	all := c.tried(true, probe.Refused, probe.Closed)
	says := "refuse or close the connection of their check: the process is down, or the port is another one"
	if slices.ContainsFunc(all, func(r probe.Result) bool { return r.OpenElsewhere }) {
		says = "refuse the connection of their check, and take others on their own port: the check's port is wrong"
	}
	return c.replayed(all, says, "see whether the process runs, and on which port: ss -ltn")
}

func dialRefused(c *Case) (*claim, string) {
	return c.replayed(c.tried(false, probe.Refused, probe.Closed), "refuse connections, or close them", "see whether the process runs, and on which port: ss -ltn")
}

func dialSlow(c *Case) (*claim, string) {
	return c.replayed(c.tried(false, probe.TimedOut), "do not answer in time", "look at what is between: firewalls, routes, a host that is gone")
}

func dialUnreachable(c *Case) (*claim, string) {
	return c.replayed(append(c.tried(false, probe.Unreachable), c.tried(true, probe.Unreachable)...), "cannot be reached: no way leads there", "look at routes and networks between here and there: ip route get ADDRESS")
}

func dialTLS(c *Case) (*claim, string) {
	return c.replayed(c.tried(false, probe.BadTLS), "present what is not taken, or fail the handshake", "see what one presents: openssl s_client -connect %s </dev/null | openssl x509 -noout -subject -ext subjectAltName -dates")
}
