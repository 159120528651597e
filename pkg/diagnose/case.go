package diagnose

import (
	"fmt"
	"slices"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/probe"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Case is all that a control plane knows of one upstream: what is declared and was
// changed, what its source says, what proxies were sent and report, and what was asked
// for the occasion. What could not be asked is in NotAsked, and missing elsewhere.
type Case struct {
	At       time.Time
	Upstream string
	Spec     *spec.Upstream
	// Health is how it does by its source and the fleet.
	Health health.Upstream
	// Known is what its source says, Endpoints what is published of that.
	Known     model.Known
	LastFresh time.Time // when its source last answered
	Endpoints []model.Endpoint
	Problems  []model.Problem
	// Groups lead to it; Streams are of their proxies, Members those and the ones that
	// went away lately.
	Groups  []string
	Streams []model.Stream
	Members []fleet.Member
	Refused []model.RefusedStream
	// Views are what proxies report of it, with their endpoints; Failures how requests
	// failed lately.
	Views    []fleet.View
	Failures []fleet.Failure
	Reasons  []fleet.Reason
	Requests uint64 // since it does so
	Lost     uint64
	// Changes are revisions that touch it, Events what else happened to it, oldest first.
	// HistoryRead tells that no revision of that time was left out.
	Changes     []Edit
	HistoryRead bool
	Events      []model.Event
	// Asked are proxies whose admin answered, Probes what was tried from here.
	Asked    []Asked
	Probes   []probe.Result
	NotAsked []string
	// Left are addresses that left the registry in the last minutes, tried from here;
	// Elsewhere are other services at an address of this one.
	Left      []probe.Result
	Elsewhere map[string][]string
	// Together are services whose checks failed when this one's did, with the words of
	// TogetherBy.
	Together   []string
	TogetherBy string
	// Minutes is what was counted of it in each minute of the last hour.
	Minutes []fleet.Span
	// Resolved are the addresses that its names resolve to from here.
	Resolved []string
	// Unseen is for how long a canary that its source took is not read back.
	Unseen time.Duration
	// Past tells that At is over: nobody was asked, and what proxies saw is not known but
	// by what was Recorded of it.
	Past     bool
	Recorded []Finding

	shown map[Code]Finding // by the proxies that were asked
}

// Asked is what one proxy answered.
type Asked struct {
	Proxy, Zone string
	Envoy
}

// Edit is a revision that touches an upstream.
type Edit struct {
	Revision uint64    `json:"revision"`
	Time     time.Time `json:"time"`
	Author   string    `json:"author,omitempty"`
	Message  string    `json:"message,omitempty"`
	// Fields are paths in documents: Upstream/catalog: spec.healthChecks[0].http.path.
	Fields []string `json:"fields"`
	// Newest tells that nothing came after it.
	Newest bool `json:"newest" doc:"nothing came after it"`
}

// Explanation is the answer.
type Explanation struct {
	Upstream string    `json:"upstream"`
	At       time.Time `json:"at"`
	// State is the one that health shows; Says is one line with counts.
	State health.State `json:"state"`
	Says  string       `json:"says"`
	// Since is when what decides began.
	Since time.Time `json:"since,omitzero"`
	// Requests and Lost are those since then.
	Requests uint64 `json:"requests" doc:"since then, as the proxies count them"`
	Lost     uint64 `json:"lost" doc:"of them, those that ended with one of Envoy's failure flags"`
	// Road is where a request goes, where one was asked about.
	Road []string `json:"road,omitempty" doc:"where the request goes, at each listener"`
	// Proxies are those that have it worst.
	Proxies  *Reach        `json:"proxies,omitempty"`
	Fails    bool          `json:"fails" doc:"requests fail, or would"`
	Findings []Finding     `json:"findings" doc:"the best proved first"`
	Warnings []Finding     `json:"warnings" doc:"what is no outage yet"`
	RuledOut []Ruled       `json:"ruledOut"`
	Changes  []Edit        `json:"changes" doc:"revisions that touch it, shortly before it began"`
	Events   []model.Event `json:"events" doc:"what else happened to it, shortly before it began"`
	NotAsked []string      `json:"notAsked" doc:"what could not be looked at"`
}

// Found tells whether something is wrong: a finding that is at least likely.
func (e Explanation) Found() bool {
	return len(e.Findings) > 0 && e.Findings[0].Strength >= Likely
}

// Reach is how many of the proxies something concerns.
type Reach struct {
	Count int      `json:"count"`
	Of    int      `json:"of"`
	Zones []string `json:"zones,omitempty"`
	Some  []string `json:"some" doc:"the first of them"`
}

func (r *Reach) add(proxy, zone string) {
	r.Count++
	if len(r.Some) < mostLines {
		r.Some = append(r.Some, proxy)
	}
	if zone != "" && !slices.Contains(r.Zones, zone) {
		r.Zones = append(r.Zones, zone)
	}
}

func (r Reach) String() string {
	switch {
	case r.Of == 1 && r.Count == 1:
		return "proxy " + r.Some[0]
	case r.Count == r.Of:
		return fmt.Sprintf("all %d proxies", r.Of)
	case len(r.Zones) == 1:
		return fmt.Sprintf("%d of %d proxies, in zone %s", r.Count, r.Of, r.Zones[0])
	}
	return fmt.Sprintf("%d of %d proxies", r.Count, r.Of)
}

// caseCheck looks for one cause in a case. What Envoys show by the codes of shows is its
// other half: the finding takes their evidence, and is certain with it.
type caseCheck struct {
	code  Code
	shows []Code
	run   func(c *Case) (*claim, string)
}

// caseChecks by hop.
var caseChecks = slices.Concat(sourceChecks, forgottenChecks, serviceChecks, heldChecks, streamChecks, replayChecks, glitchChecks, failureChecks, changeChecks)

// pastChecks need nobody's answer of now.
var pastChecks = slices.Concat(sourceChecks, serviceChecks, changeChecks)

func (c *Case) checks() []caseCheck {
	if c.Past {
		return pastChecks
	}
	return caseChecks
}

// Explain says why requests to an upstream fail, or soon will.
func Explain(c Case) Explanation {
	e := Explanation{
		Upstream: c.Upstream, At: c.At, State: c.Health.State, Requests: c.Requests, Lost: c.Lost, Since: c.Since(), Fails: c.fails(),
		Findings: []Finding{}, Warnings: c.warnings(), RuledOut: []Ruled{}, Changes: []Edit{}, Events: []model.Event{}, NotAsked: append([]string{}, c.NotAsked...),
	}
	e.Proxies = c.worst()
	e.Says = c.says(e.Proxies)
	found, ruled := c.find()
	for _, x := range catalogue {
		if f, ok := found[x.Code]; ok {
			e.Findings = append(e.Findings, f)
		}
	}
	rank(e.Findings)
	e.RuledOut = append(e.RuledOut, ruled...)
	if !e.Since.IsZero() && e.Found() {
		e.Changes, e.Events = append(e.Changes, c.changedBefore(e.Since)...), append(e.Events, c.happenedBefore(e.Since)...)
	}
	return e
}

// find runs the checks, and joins what they find with what Envoys show. A cause is ruled
// out where no check finds it, and one of the case, or every Envoy that was asked, says why.
func (c *Case) find() (found map[Code]Finding, ruledOut []Ruled) {
	byEnvoys := c.ask()
	found = map[Code]Finding{}
	by := map[Code]string{}
	told := map[Code]bool{} // what Envoys show, and a finding of the case tells
	for _, x := range c.checks() {
		claim, why := x.run(c)
		switch {
		case claim == nil && why != "":
			by[x.code] = why
		case claim != nil:
			f := claim.finding(x.code)
			if before, twice := found[x.code]; twice {
				found[x.code] = before.and(f)
				continue
			}
			for _, code := range append([]Code{x.code}, x.shows...) {
				if s, ok := c.shown[code]; ok && (code == x.code || f.Strength >= Likely) {
					f, told[code] = both(f, s), true
				}
			}
			found[x.code] = f
		}
	}
	for _, f := range c.Recorded {
		if f.Code == "" || f.Code[0] == 'W' {
			continue
		}
		if x, is := found[f.Code]; is {
			f = f.and(x)
		}
		found[f.Code] = f
	}
	for code, f := range c.shown {
		if told[code] {
			continue
		}
		if code == A1 || code == A2 { // it was told so, and we would know of whom
			f.Strength = min(f.Strength, Likely)
		}
		found[code] = f
	}
	for _, r := range byEnvoys {
		if len(c.Asked) < len(c.Streams) {
			r.By += fmt.Sprintf(" (at the %d of %d proxies that were asked)", len(c.Asked), len(c.Streams))
		}
		if by[r.Code] == "" {
			by[r.Code] = r.By
		}
	}
	for _, x := range catalogue {
		if _, is := found[x.Code]; !is && by[x.Code] != "" {
			ruledOut = append(ruledOut, Ruled{x.Code, by[x.Code]})
		}
	}
	return found, ruledOut
}

// and joins two findings of one cause: the better proved says what it is.
func (f Finding) and(o Finding) Finding {
	if o.Strength > f.Strength {
		f, o = o, f
	}
	f.Evidence = append(slices.Clone(f.Evidence), o.Evidence...)
	return f
}

// both joins what is known of a cause with what Envoys show of it.
func both(f, shown Finding) Finding {
	if f.Strength >= Likely && shown.Strength >= Likely {
		f.Strength = Certain
	}
	f.Strength = max(f.Strength, shown.Strength)
	f.Evidence = append(slices.Clone(shown.Evidence), f.Evidence...)
	if f.Proxies == nil {
		f.Proxies = shown.Proxies
	}
	return f
}

// ask looks at each Envoy that answered, and merges what they show by code.
func (c *Case) ask() []Ruled {
	c.shown = map[Code]Finding{}
	var ruled []Ruled
	count := map[Code]int{}
	for i := range c.Asked {
		a := &c.Asked[i]
		a.routes = a.routed()
		x := a.answer(c.Upstream)
		shows := map[Code]Finding{} // once for each proxy
		for _, f := range slices.Concat(x.Findings, a.ofUpstream(c.Upstream)) {
			if before, twice := shows[f.Code]; twice {
				f = before.and(f)
			}
			shows[f.Code] = f
		}
		for code, f := range shows {
			c.shown[code] = c.shown[code].with(f, a, len(c.Asked))
		}
		for _, r := range x.RuledOut {
			if count[r.Code]++; count[r.Code] == len(c.Asked) {
				ruled = append(ruled, r)
			}
		}
	}
	return ruled
}

// with adds what one more Envoy shows.
func (f Finding) with(o Finding, a *Asked, of int) Finding {
	reach := &Reach{Of: of}
	if f.Proxies != nil {
		reach = f.Proxies
	}
	reach.add(a.Proxy, a.Zone)
	lines := f.Evidence
	for _, line := range o.Evidence {
		if len(lines) < 2*mostLines {
			lines = append(lines, "proxy "+a.Proxy+" "+line)
		}
	}
	if o.Strength > f.Strength {
		f = o
	}
	f.Proxies, f.Evidence = reach, lines
	return f
}

// worst are the proxies that have it worst, by what they report.
func (c *Case) worst() *Reach {
	p := c.Health.Seen.Worst()
	if p == nil {
		return nil
	}
	return &Reach{Count: p.Count, Of: max(c.Health.Seen.Reporting, p.Count), Zones: p.Zones, Some: p.Some}
}

// meetsNobody tells whether requests get 503 UH at some proxies.
func (c *Case) meetsNobody() bool {
	s := c.Health.Seen
	return s != nil && (s.Unserved != nil || s.Nobody != nil || s.Dead != nil || s.NoneMet != nil)
}

// fails tells whether requests fail, or could.
func (c *Case) fails() bool {
	s := c.Health.Seen
	return c.Health.State.Worse(health.Degraded) || c.meetsNobody() || s != nil && (s.Panicking != nil || s.Overflow != nil || s.Failing())
}

// says is the first line.
func (c *Case) says(worst *Reach) string {
	seen := c.Health.Seen
	switch {
	case c.meetsNobody():
		return "no healthy upstream in " + worst.String()
	case seen != nil && seen.Panicking != nil:
		return "panic hides an outage in " + worst.String()
	case c.Health.State == health.Unknown:
		return "nobody ever said who is there: " + c.Health.Why
	case c.Health.State == health.Empty || c.Health.State == health.Critical:
		return "no healthy upstream, by its source: " + c.Health.Why
	case c.Health.Why != "":
		return c.Health.Why
	case c.Past:
		return "its source said that all was well; what proxies saw is recorded where it turned"
	case seen == nil || seen.Reporting == 0:
		return "its source says that all is well; no proxy reports on it"
	}
	return fmt.Sprintf("%d of %d endpoints usable in %s", seen.Healthy, seen.Members, Reach{Count: seen.Reporting, Of: max(seen.Proxies, seen.Reporting), Some: []string{c.firstView()}})
}

func (c *Case) firstView() string {
	if len(c.Views) > 0 {
		return c.Views[0].Proxy
	}
	return "-"
}

// Since is when what decides began; zero where nothing is wrong.
func (c *Case) Since() time.Time {
	switch p := c.Health.Seen.Worst(); {
	case c.Health.State == health.Healthy && !c.fails():
		return time.Time{}
	case c.Health.State == health.Unknown:
		return c.Known.FailingSince
	case c.Health.State.Worse(health.Degraded):
		return c.Health.Since // of what decides
	case c.meetsNobody() && !p.Since.IsZero():
		return p.Since
	}
	since := c.begun(leastFailed) // endpoints are as they were: requests tell
	if s := c.Health.Seen; since.IsZero() && s != nil && s.Failing() {
		since = c.begun(1) // few of each kind: that the service changed was before
	}
	if since.IsZero() {
		since = c.Health.Since
	}
	return since
}

// begun is when failures began of which some are of now, so many at least.
func (c *Case) begun(least uint64) (since time.Time) {
	for _, f := range c.Failures {
		if f.Lately >= least && (since.IsZero() || f.Begun.Before(since)) {
			since = f.Begun
		}
	}
	return since
}

// lateWithin is for how long what was counted is of now.
const lateWithin = 90 * time.Second

func (c *Case) lately(f fleet.Failure) bool { return c.At.Sub(f.Last) < lateWithin }

// source names it.
func (c *Case) source() string { return c.Health.Service.Source }

// ago says how long ago something was.
func (c *Case) ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return span(max(0, c.At.Sub(t))) + " ago"
}
