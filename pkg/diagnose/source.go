package diagnose

import (
	"fmt"
	"slices"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// sourceChecks are of what we can read of the registry.
var sourceChecks = []caseCheck{
	{B2, []Code{A1, G1, C3}, denied}, {B1, []Code{A1, G1, C3}, unreadable}, {B6, []Code{A1, G1, C3}, notReadYet}, {B3, []Code{A1}, stuckWatch}, {B4, []Code{A1}, badRecords},
}

// unknown tells that nobody ever said who is there.
func (c *Case) unknown() bool { return c.Known.Service == nil }

// unread is how strongly not being able to read the registry explains anything: where
// nobody is known; else what was read last is served.
func (c *Case) unread() Strength {
	if c.unknown() {
		return Likely
	}
	return Possible
}

func (c *Case) failing() string {
	return fmt.Sprintf("source %s: %s for %s: %s", c.source(), c.Known.Reason, span(c.At.Sub(c.Known.FailingSince)), c.Known.Failure)
}

func (c *Case) lasts() string {
	if c.unknown() {
		return "nobody is known: it was never read"
	}
	return fmt.Sprintf("what was read last is served: %d endpoints, read %s", len(c.Endpoints), c.ago(c.LastFresh))
}

func (c *Case) reason() discovery.Reason { return discovery.Reason(c.Known.Reason) }

func denied(c *Case) (*claim, string) {
	if r := c.reason(); c.Known.Failure == nil || r != discovery.Denied && r != discovery.Filtered {
		return nil, ""
	}
	says := "the registry refuses the token that we have"
	if c.reason() == discovery.Filtered {
		says = "the registry hides instances from the token that we have"
	}
	return &claim{
		c.unread(), says,
		[]string{c.failing(), c.lasts()},
		"give the token service:read and node:read for this service; wellspring sources says when it is well",
	}, ""
}

func unreadable(c *Case) (*claim, string) {
	if c.Known.Failure == nil {
		if c.unknown() {
			return nil, ""
		}
		return nil, "read " + c.ago(c.LastFresh)
	}
	switch c.reason() {
	case discovery.Denied, discovery.Filtered, discovery.BadAnswer:
		return nil, ""
	case discovery.NoSource:
		return &claim{Likely, "its document names a source that this server does not have", []string{c.failing()}, "name one of: wellspring sources; or configure it"}, ""
	case discovery.NoDatacenter:
		return &claim{c.unread(), "the registry does not know the datacenter that its document names", []string{c.failing()}, "correct service.datacenter: wellspring get upstream " + c.Upstream}, ""
	}
	return &claim{
		c.unread(), "the registry cannot be read",
		[]string{c.failing(), c.lasts()},
		"bring it back: wellspring sources; until then nobody new comes in and nobody goes",
	}, ""
}

func notReadYet(c *Case) (*claim, string) {
	if !c.unknown() || c.Known.Failure != nil {
		return nil, ""
	}
	return &claim{Likely, "its source was not read yet", []string{"source " + c.source() + ": no answer so far"}, "wait some seconds; wellspring sources says what it waits for"}, ""
}

func badRecords(c *Case) (*claim, string) {
	if c.reason() == discovery.BadAnswer {
		return &claim{c.unread(), "what the registry answers cannot be read", []string{c.failing(), c.lasts()}, "see what it answers for " + c.Health.Service.String()}, ""
	}
	if len(c.Problems) == 0 {
		return nil, ""
	}
	x := &claim{Possible, fmt.Sprintf("%d of its records cannot be used", len(c.Problems)), nil, "correct them where they are registered; wellspring health " + c.Upstream + " lists all"}
	if len(c.Endpoints) == 0 {
		x.strength, x.says = Likely, fmt.Sprintf("none of its %d records can be used", len(c.Problems))
	}
	for _, p := range c.Problems[:min(len(c.Problems), mostLines)] {
		x.evidence = append(x.evidence, p.String())
	}
	return x, ""
}

// cannotConnect tells whether proxies, or their checks, do not reach endpoints.
func (c *Case) cannotConnect() bool {
	n, _ := c.counted("UF")
	_, checked := c.shown[H3]
	return n > 0 || checked
}

// stuckWatch: the registry took the newest canary, and what is watched does not show it.
func stuckWatch(c *Case) (*claim, string) {
	if c.Unseen == 0 {
		return nil, ""
	}
	strength := c.unread()
	if c.cannotConnect() && slices.ContainsFunc(c.Endpoints, func(e model.Endpoint) bool { return e.Health == model.Healthy && c.silentAt(e.Address) }) {
		strength = Likely // who is not there may have moved
	}
	return &claim{
		strength, "the registry answers, and has stopped telling what changes",
		[]string{fmt.Sprintf("canary of source %s: written, and not read back for %s", c.source(), span(c.Unseen)), c.lasts()},
		"see the registry's agent that this server asks: wellspring sources; another one may tell",
	}, ""
}
