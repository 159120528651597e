// Package diagnose says why requests to an upstream fail, or soon will. It is pure: what
// was asked goes in, findings with stable codes come out.
//
//	/clusters /stats /config_dump ──► Envoy ─┬─► checks of a cluster ─► Answer ─► Report
//	of each Envoy that was asked             └─► outcome: what it does with a request
//
//	documents, revisions, events ──┐
//	registry, deliveries, reports ─┼─► Case ─► checks of a case ─┐
//	probes from here ──────────────┘                             ├─► Explanation
//	Answers of the Envoys that were asked ───────────────────────┘
//
// Decisions:
//   - A check looks at one cluster of one Envoy, or at one upstream of the control plane,
//     and says that its cause is there, that it is ruled out and by what, or nothing. It
//     does not know of the others.
//   - A claim is as strong as its proof. What an Envoy itself shows as it is now (a flag
//     of a host, a gauge, a counter that grows while one looks) may be certain. What it
//     counted since it began may be long over, and is possible at most. What a registry,
//     a probe or a time says is likely at most; where an Envoy shows the same by itself,
//     the two are certain together.
//   - What an Envoy shows has often one word for several causes (it was told of nobody).
//     The control plane knows which; its finding takes the Envoy's evidence, and the
//     general one is not told beside it.
//   - Why the hosts are out, why panic did not save the request and what came shortly
//     before are parts of one cause: the first is ranked before the others.
//   - A cluster whose hosts are all usable, and which counts no failure, has no finding
//     above possible, whatever its settings.
//   - What was not asked is said. Nothing is called healthy that nobody looked at.
package diagnose

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/wellspring-xds/wellspring/pkg/envoyadmin"
)

// Strength is how well a claim is proved.
type Strength int

// The strengths.
const (
	Possible Strength = iota + 1 // nothing speaks against it
	Likely                       // it explains what is seen
	Certain                      // an Envoy shows it
)

var strengths = []string{"", "possible", "likely", "certain"}

func (s Strength) String() string { return strengths[s] }

// MarshalText writes its name.
func (s Strength) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads it.
func (s *Strength) UnmarshalText(text []byte) error {
	i := slices.Index(strengths, string(text))
	if i < int(Possible) {
		return fmt.Errorf("%q is no strength; there are %s", text, strings.Join(strengths[Possible:], ", "))
	}
	*s = Strength(i)
	return nil
}

// Envoy is what was asked of one.
type Envoy struct {
	// Dump is complete.
	*envoyadmin.Dump
	// Before are its stats some time earlier; nil where they were asked once.
	Before envoyadmin.Stats

	routes map[string][]string // set in Of: by cluster, the routes that lead to it
}

// Finding is one cause of what is wrong with an upstream.
type Finding struct {
	Code     Code     `json:"code"`
	Title    string   `json:"title"`
	Strength Strength `json:"strength" enum:"possible,likely,certain"`
	// Says is one sentence.
	Says string `json:"says"`
	// Evidence are lines, each with where it was read.
	Evidence []string `json:"evidence"`
	// Next is what to do.
	Next string `json:"next"`
	// Proxies are those that show it, of those that were asked; nil where it is not theirs.
	Proxies *Reach `json:"proxies,omitempty"`
}

// Ruled is a cause that it is not, and by what.
type Ruled struct {
	Code Code   `json:"code"`
	By   string `json:"by"`
}

// Answer is what is to be said of one upstream.
type Answer struct {
	Upstream string  `json:"upstream"`
	Outcome  Outcome `json:"outcome"`
	// State is the same in a phrase, with counts.
	State    string    `json:"state"`
	Findings []Finding `json:"findings" doc:"the best proved first"`
	RuledOut []Ruled   `json:"ruledOut"`
}

// Found tells whether something is wrong: a finding that is at least likely.
func (a Answer) Found() bool { return len(a.Findings) > 0 && a.Findings[0].Strength >= Likely }

// Report is what is to be said of one Envoy.
type Report struct {
	Envoy   string `json:"envoy" doc:"id of its node"`
	Version string `json:"version,omitempty"`
	// Own are findings that are not of one upstream.
	Own []Finding `json:"own"`
	// Upstreams of which something is to be said, the worst first.
	Upstreams []Answer `json:"upstreams"`
	// Fine are those in which nothing was found.
	Fine []string `json:"fine"`
	// NotAsked is what could not be looked at.
	NotAsked []string `json:"notAsked"`
}

// Found tells whether something is wrong.
func (r Report) Found() bool {
	return slices.ContainsFunc(r.Own, func(f Finding) bool { return f.Strength >= Likely }) || slices.ContainsFunc(r.Upstreams, Answer.Found)
}

// Of looks at every cluster of an Envoy.
func Of(e Envoy) Report {
	e.routes = e.routed()
	n := e.Config.Node
	r := Report{Envoy: n.ID, Own: []Finding{}, Upstreams: []Answer{}, Fine: []string{}, NotAsked: []string{}}
	if v := n.Version.Number; v.Major > 0 {
		r.Version = fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch)
	}
	if e.Before == nil {
		r.NotAsked = append(r.NotAsked, "whether counters grow: the stats were asked once, and count since this Envoy began")
	}
	for _, f := range own {
		if c := f.run(&e); c != nil {
			r.Own = append(r.Own, c.finding(f.code))
		}
	}
	rank(r.Own)
	for _, name := range e.names() {
		a := e.answer(name)
		if len(a.Findings) == 0 {
			r.Fine = append(r.Fine, name)
		} else {
			r.Upstreams = append(r.Upstreams, a)
		}
	}
	slices.SortStableFunc(r.Upstreams, func(a, b Answer) int {
		return cmp.Or(found(b)-found(a), cmp.Compare(b.Outcome.rank(), a.Outcome.rank()), cmp.Compare(b.Findings[0].Strength, a.Findings[0].Strength))
	})
	return r
}

// found is 1 where something is wrong.
func found(a Answer) int {
	if a.Found() {
		return 1
	}
	return 0
}

// names of the clusters that are there, or that a route names.
func (e *Envoy) names() []string {
	all := map[string]bool{}
	for name := range e.Clusters {
		all[name] = true
	}
	for name := range e.Config.Clusters {
		all[name] = true
	}
	for name := range e.routes {
		all[name] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// answer looks at one cluster.
func (e *Envoy) answer(name string) Answer {
	c := e.cluster(name)
	a := Answer{Upstream: name, Outcome: c.outcome, State: c.state(), Findings: []Finding{}, RuledOut: []Ruled{}}
	for _, x := range checks {
		claim, ruled := x.run(c)
		switch {
		case claim != nil:
			a.Findings = append(a.Findings, claim.finding(x.code))
		case ruled != "":
			a.RuledOut = append(a.RuledOut, Ruled{x.code, ruled})
		}
	}
	rank(a.Findings)
	return a
}

// rank orders by strength of proof; of equal ones, in the order of the checks. Panic, and
// what came shortly before, are the second half of a cause: where the first is likely at
// least, they stand behind that.
func rank(all []Finding) {
	half := func(f Finding) bool { return f.Code == P1 || f.Code == P2 || f.Code[0] == 'K' }
	reason := slices.ContainsFunc(all, func(f Finding) bool { return !half(f) && f.Strength >= Likely })
	weight := func(f Finding) int {
		if half(f) && reason {
			return min(2*int(f.Strength), 2*int(Likely)-1)
		}
		return 2 * int(f.Strength)
	}
	slices.SortStableFunc(all, func(a, b Finding) int { return -cmp.Compare(weight(a), weight(b)) })
}

// check looks for one cause in a cluster: a claim, or what rules it out, or neither.
type check struct {
	code Code
	run  func(c *cluster) (*claim, string)
}

// ownCheck looks for one cause in an Envoy.
type ownCheck struct {
	code Code
	run  func(e *Envoy) *claim
}

// checks in the order in which findings of equal strength are told: first why there is
// nobody to choose from, then why the hosts are out, then what fails at those in use, and
// at last what the balancer makes of it.
var checks = slices.Concat(deliveryChecks, resolutionChecks, registryChecks, activeChecks, outlierChecks, connectionChecks, capacityChecks, routingChecks, balancerChecks)

// own are the checks of an Envoy.
var own = []ownCheck{{C1, notConnected}, {C2, rejected}}

// claim is what a check found.
type claim struct {
	strength Strength
	says     string
	evidence []string
	next     string
}

func (c *claim) finding(code Code) Finding {
	return Finding{Code: code, Title: catalogue[order(code)].Title, Strength: c.strength, Says: c.says, Evidence: c.evidence, Next: c.next}
}

// unless is a strength, or Possible.
func (s Strength) unless(minor bool) Strength {
	if minor {
		return Possible
	}
	return s
}

// list names a few.
func list(names []string) string {
	const most = 4
	if n := len(names) - most; n > 0 {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(names, ", ")
}
