package diagnose

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// changeChecks are of what happened shortly before. That something came before does not
// make it the cause: likely at most, and told behind what proves itself.
var changeChecks = []caseCheck{{K1, nil, ourRevision}, {K2, nil, toldFromOutside}, {K3, nil, certificateChanged}, {K4, nil, envoyBegan}}

// before is how long before it began something counts as a cause: twice what a change, and
// the report of what it did, may take. after is how much a report may come late.
const (
	before = 30 * time.Second
	after  = 15 * time.Second
)

// near tells whether something came shortly before it began.
func (c *Case) near(t time.Time) bool {
	since := c.Since()
	return !since.IsZero() && c.fails() && t.After(since.Add(-before)) && t.Before(since.Add(after))
}

func (c *Case) changedBefore(since time.Time) (out []Edit) {
	for _, x := range c.Changes {
		if x.Time.After(since.Add(-before)) && x.Time.Before(since.Add(after)) {
			out = append(out, x)
		}
	}
	return out
}

func (c *Case) happenedBefore(since time.Time) (out []model.Event) {
	for _, x := range c.Events {
		if x.Time.After(since.Add(-before)) && !x.Time.After(since.Add(time.Second)) && x.Subject.Kind != "Upstream" { // those of the upstream are what came of it
			out = append(out, x)
		}
	}
	return out[max(0, len(out)-mostLines):]
}

func ourRevision(c *Case) (*claim, string) {
	for _, x := range slices.Backward(c.Changes) {
		if !c.near(x.Time) || c.wellSince(x.Time) {
			continue
		}
		line := fmt.Sprintf("revision %d at %s", x.Revision, clock(x.Time))
		if x.Author != "" {
			line += " by " + x.Author
		}
		s := Possible // a route brings requests, and no endpoint is worse by it
		if slices.ContainsFunc(x.Fields, func(f string) bool { return strings.HasPrefix(f, "Upstream/") || strings.HasPrefix(f, "Service/") }) {
			s = Likely
		}
		return &claim{
			s, fmt.Sprintf("revision %d changed it, %s", x.Revision, c.relative(x.Time)),
			append([]string{line}, x.Fields[:min(len(x.Fields), mostLines)]...),
			x.undo(),
		}, ""
	}
	if !c.HistoryRead || c.Since().IsZero() {
		return nil, ""
	}
	return nil, "no revision touches it shortly before"
}

// undo says how to take a revision back: whole only where nothing came after it.
func (x Edit) undo() string {
	see := fmt.Sprintf("wellspring history %d", x.Revision)
	if !x.Newest || x.Revision < 2 {
		return "see what it changed: " + see + "; and apply what stood there before"
	}
	services := ""
	if slices.ContainsFunc(x.Fields, func(f string) bool { return strings.HasPrefix(f, "Service/") }) {
		services = " --services"
	}
	return fmt.Sprintf("see it: %s; undo: wellspring restore %d%s", see, x.Revision-1, services)
}

// wellSince tells whether it was well after something happened: that harmed nobody.
func (c *Case) wellSince(t time.Time) bool {
	return slices.ContainsFunc(c.Events, func(e model.Event) bool {
		return e.Kind == model.EventUpstreamState && e.To == string(health.Healthy) && e.Time.After(t) && e.Time.Before(c.Since())
	})
}

// relative says how long before or after it began something came.
func (c *Case) relative(t time.Time) string {
	d := c.Since().Sub(t)
	if d < 0 {
		return "as it began"
	}
	return span(d) + " before it began"
}

func (c *Case) event(match func(model.Event) bool) (out []model.Event) {
	for _, e := range c.Events {
		if c.near(e.Time) && match(e) {
			out = append(out, e)
		}
	}
	return out
}

// told is a claim about events.
func (c *Case) told(all []model.Event, says, next string) (*claim, string) {
	if len(all) == 0 {
		return nil, ""
	}
	x := &claim{Likely, says + ", " + c.relative(all[0].Time), nil, next}
	for _, e := range all[:min(len(all), mostLines)] {
		x.evidence = append(x.evidence, fmt.Sprintf("%s: %s %s: %s", clock(e.Time), e.Kind, e.Subject.Name, e.Reason))
	}
	return x, ""
}

func toldFromOutside(c *Case) (*claim, string) {
	return c.told(c.event(func(e model.Event) bool { return strings.HasPrefix(e.Kind, model.EventExternal) }), "it was told of a change outside", "see what was deployed or scaled, and take it back")
}

func certificateChanged(c *Case) (*claim, string) {
	mine := func(file string) bool {
		return slices.ContainsFunc(c.Spec.Secrets(c.Upstream), func(s spec.Secret) bool { return s.Cert == file })
	}
	return c.told(c.event(func(e model.Event) bool { return e.Kind == model.EventCertificateRenewed && mine(e.Subject.Name) }), "a certificate was replaced", "see wellspring health for certificates, and what the endpoints trust")
}

func envoyBegan(c *Case) (*claim, string) {
	worst := c.worst()
	if worst == nil {
		return nil, ""
	}
	reach := &Reach{Of: worst.Count}
	var lines []string
	only := worst.Count < worst.Of
	for _, m := range c.Members {
		if !slices.Contains(worst.Some, m.ID) {
			only = only && !c.near(m.Began)
			continue
		}
		if c.near(m.Began) {
			reach.add(m.ID, m.Locality.Zone)
			lines = append(lines, fmt.Sprintf("proxy %s began at %s, version %s", m.ID, clock(m.Began), m.Version))
		}
	}
	if reach.Count == 0 || reach.Count < len(worst.Some) {
		return nil, ""
	}
	s := Possible
	if only {
		s = Likely
	}
	return &claim{s, "these proxies began just then", lines, "see why they were started; compare their version with the others': wellspring proxies"}, ""
}

// clock is a time as people compare it.
func clock(t time.Time) string { return t.UTC().Format("15:04:05") }

// span is a duration as people say it: 6m10s, 2h.
func span(d time.Duration) string {
	if d >= 10*time.Second {
		d = d.Round(time.Second)
	}
	s := d.Round(100 * time.Millisecond).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
