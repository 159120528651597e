// Package notify tells people of an outage: one message when it begins, however many
// upstreams are in it, another when more join, and one when it is over.
//
//	pkg/health ─► tracker: what is down, since when ─► Message ─► webhook, Alertmanager
//
// An upstream is down that is hidden, critical or empty for After, and up again that is
// none of these for Clear. Those that are down at one time are one outage. What a
// receiver does not take is tried again, with back-off, until a newer message takes its
// place.
package notify

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/health"
)

// The statuses of a message.
const (
	Firing   = "firing"
	Resolved = "resolved"
)

// Message is what people are told.
type Message struct {
	// ID is of the outage: every message of it has the same.
	ID     string    `json:"id"`
	Status string    `json:"status"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"`
	// Summary is one line.
	Summary   string     `json:"summary"`
	Upstreams []Upstream `json:"upstreams"`
}

// Upstream is one that is, or was, down.
type Upstream struct {
	Name  string       `json:"name"`
	State health.State `json:"state"`
	Why   string       `json:"why,omitempty"`
	Since time.Time    `json:"since"`
	// Until is when it was up again; zero while it is down.
	Until   time.Time `json:"until,omitzero"`
	Healthy int       `json:"healthy"`
	Total   int       `json:"total"`
	// Reporting proxies of Proxies that reach it say what they see.
	Reporting int `json:"reporting"`
	Proxies   int `json:"proxies"`
	// Lost are requests that failed since it is down, as proxies report them.
	Lost uint64 `json:"lost"`
	// Causes are codes and titles, the best proved first; those of while it was down.
	Causes []string `json:"causes"`
	// Next is the command to run.
	Next string `json:"next"`
}

// tracker finds outages. It is pure but for its own state.
type tracker struct {
	after, clear, wait, again time.Duration
	lost                      func(upstream string) uint64
	causes                    func(upstream string) []string

	turns map[string]time.Time // of upstreams that are otherwise than counted: since when
	down  map[string]*Upstream
	base  map[string]uint64 // of lost, when it turned

	open time.Time           // since when there is an outage; zero is none
	told time.Time           // the last message of it
	with map[string]Upstream // all that were in it
	news bool                // more joined since
}

func bad(s health.State) bool { return s.Worse(health.Unknown) }

// step takes how upstreams do now, and returns what is to be told.
func (t *tracker) step(now time.Time, all []health.Upstream) *Message {
	there := map[string]bool{}
	for _, u := range all {
		there[u.Name] = true
		t.turn(now, u)
	}
	for name := range t.down {
		if !there[name] { // it is declared no more
			t.up(now, name)
		}
	}
	for name := range t.turns {
		if !there[name] {
			delete(t.turns, name)
		}
	}
	switch {
	case t.open.IsZero() && len(t.down) > 0:
		t.open, t.with, t.news = now, map[string]Upstream{}, true
	case t.open.IsZero():
		return nil
	case len(t.down) == 0:
		return t.close(now)
	}
	if t.news && (t.told.IsZero() && now.Sub(t.open) >= t.wait || !t.told.IsZero() && now.Sub(t.told) >= t.again) {
		t.told, t.news = now, false
		return t.message(now, Firing)
	}
	return nil
}

// turn counts for how long an upstream is otherwise than it counts.
func (t *tracker) turn(now time.Time, u health.Upstream) {
	x := t.down[u.Name]
	if x != nil && bad(u.State) {
		t.show(x, u)
	}
	if (x != nil) == bad(u.State) {
		delete(t.turns, u.Name)
		return
	}
	since, turning := t.turns[u.Name]
	if !turning {
		since = now
		t.turns[u.Name], t.base[u.Name] = now, t.lost(u.Name)
	}
	switch {
	case x == nil && now.Sub(since) >= t.after:
		delete(t.turns, u.Name)
		x = &Upstream{Name: u.Name, Since: since.UTC(), Next: "wellspring explain " + u.Name}
		t.show(x, u)
		t.down[u.Name], t.news = x, true
	case x != nil && now.Sub(since) >= t.clear:
		delete(t.turns, u.Name)
		t.up(since, u.Name)
	}
}

func (t *tracker) show(x *Upstream, u health.Upstream) {
	x.State, x.Why, x.Healthy, x.Total = u.State, u.Why, u.Counts.Healthy, u.Counts.Total
	if u.Seen != nil {
		x.Reporting, x.Proxies = u.Seen.Reporting, u.Seen.Proxies
	}
	if causes := t.causes(u.Name); len(causes) > 0 || x.Causes == nil {
		x.Causes = append([]string{}, causes...)
	}
	if n, base := t.lost(u.Name), t.base[u.Name]; n > base {
		x.Lost = n - base
	}
}

// up takes an upstream out of those that are down; its part of the outage is kept.
func (t *tracker) up(now time.Time, name string) {
	x := *t.down[name]
	x.Until = now.UTC()
	delete(t.down, name)
	delete(t.base, name)
	if t.with != nil {
		t.with[name] = x
	}
}

// close ends the outage; nil where nobody was told that it began.
func (t *tracker) close(now time.Time) (m *Message) {
	if !t.told.IsZero() {
		m = t.message(now, Resolved)
	}
	t.open, t.told, t.with, t.news = time.Time{}, time.Time{}, nil, false
	return m
}

// current is the outage as it is now; nil where nobody was told of one.
func (t *tracker) current(now time.Time) *Message {
	if t.told.IsZero() || len(t.down) == 0 {
		return nil
	}
	return t.message(now, Firing)
}

func (t *tracker) message(now time.Time, status string) *Message {
	m := &Message{ID: "outage-" + t.open.UTC().Format("20060102T150405"), Status: status, Since: t.open.UTC(), Upstreams: []Upstream{}}
	all := maps.Clone(t.with)
	for _, x := range t.down { // one may be down again
		all[x.Name] = *x
	}
	var lost uint64
	for _, x := range all {
		if x.Since.Before(m.Since) {
			m.Since = x.Since
		}
		lost += x.Lost
		m.Upstreams = append(m.Upstreams, x)
	}
	slices.SortFunc(m.Upstreams, func(a, b Upstream) int {
		switch up := a.Until.IsZero() != b.Until.IsZero(); {
		case up && a.Until.IsZero():
			return -1
		case up:
			return 1
		case a.State.Worse(b.State):
			return -1
		case b.State.Worse(a.State):
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	what, n := m.Upstreams[0].Name, len(t.down)
	if status == Resolved {
		n = len(m.Upstreams)
	}
	if n > 1 {
		what = fmt.Sprintf("%d upstreams (%s and others)", n, what)
	}
	first := m.Upstreams[0]
	m.Summary = fmt.Sprintf("%s: %s", what, first.State)
	if first.Why != "" {
		m.Summary += ", " + first.Why
	}
	if status == Resolved {
		m.Until = now.UTC()
		m.Summary = fmt.Sprintf("%s: up again after %s, %d requests failed", what, now.Sub(m.Since).Round(time.Second), lost)
	}
	if len(first.Causes) > 0 {
		m.Summary += " (" + first.Causes[0] + ")"
	}
	return m
}
