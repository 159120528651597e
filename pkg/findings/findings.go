// Package findings is the standing watch: the server asks by itself why requests fail, and
// keeps what it found, with begin and end.
//
//	every upstream ──────┐
//	events: what turned ─┴─► schedule: who is due ─► Evidence ─► diagnose.Explain ─┐
//	certificates, proxies ─────────────────────────────────────────────────────────┴─► book
//	                                                                                    │
//	                         List, metrics, events, Begun (hooks, notifications) ◄──────┘
//
// Decisions:
//   - An upstream in which something may be wrong (it is not healthy, something is counted
//     that may be the begin of it, nothing is to spare, a finding is open) is looked at like one that somebody asks
//     about: proxies, endpoints and all. That is done when something turns, 5 s later, and
//     then at growing distances up to half a minute; a few at a time.
//   - All others are looked at by what is in memory, one by one, each five minutes, and
//     when something turns. That takes a fiftieth of one core at most: with very many
//     upstreams it takes longer until each had its turn.
//   - What concerns a proxy whatever it leads to (it takes nothing, it refused something)
//     is one finding of that proxy, beside those of upstreams that suffer from it.
//   - What is certain is a finding at once; what is likely is one when a second look finds
//     it too. A finding is over when two looks, and twenty seconds, do not find it; it
//     ended with the first of them.
//   - After a restart those that were open are read back from what is recorded, so that
//     they keep when they began: among the newest 10,000 events.
package findings

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Severity is how bad it is.
type Severity string

// The severities.
const (
	// Critical: requests fail, or would.
	Critical Severity = "critical"
	// Warning: it is no outage yet.
	Warning Severity = "warning"
)

// TimedFinding is a cause of something, for as long as it is found.
type TimedFinding struct {
	Subject  model.Subject `json:"subject" doc:"Upstream, Proxy or Certificate, and its name"`
	Severity Severity      `json:"severity" enum:"critical,warning" doc:"critical: requests fail, or would. warning: it is no outage yet"`
	diagnose.Finding
	Begun time.Time `json:"begun"`
	// Seen is the last look that found it.
	Seen  time.Time `json:"seen" doc:"when it was last found"`
	Ended time.Time `json:"ended,omitzero"`

	rank int // in the explanation that it is from
}

// Open tells whether it goes on.
func (f TimedFinding) Open() bool { return f.Ended.IsZero() }

// key is what makes a finding one.
type key struct {
	of   model.Subject
	code diagnose.Code
}

// When a finding begins and ends.
const (
	leastLooks = 2 // that find what is likely, or do not find what was open
	leastGone  = 20 * time.Second
	keepEnded  = 1000
)

// entry is a finding that is open or may become one.
type entry struct {
	TimedFinding
	open   bool
	looks  int       // that found it, until it is open
	missed time.Time // since when looks do not find it
}

// book keeps findings. It is pure but for its own state.
type book struct {
	entries map[key]*entry
	looked  map[model.Subject]time.Time // last
	ended   []TimedFinding              // oldest first
}

func newBook() *book { return &book{entries: map[key]*entry{}, looked: map[model.Subject]time.Time{}} }

// take says what one look at a subject found, and returns what began, or turned from a
// warning to an outage, and what ended by it. since is when it began by what is known, and
// zero where it is not; what the look before did not find began after that.
func (b *book) take(of model.Subject, found []TimedFinding, since, now time.Time) (begun, ended []TimedFinding) {
	there := map[diagnose.Code]bool{}
	for i, f := range found {
		there[f.Code] = true
		e := b.entries[key{of, f.Code}]
		if e == nil {
			e = &entry{}
			e.Begun = now
			if !since.IsZero() && since.Before(now) {
				e.Begun = since.UTC()
			}
			if last := b.looked[of]; e.Begun.Before(last) {
				e.Begun = last
			}
			b.entries[key{of, f.Code}] = e
		}
		begin, worse := e.Begun, e.open && e.Severity == Warning && f.Severity == Critical
		e.TimedFinding = f
		e.Subject, e.Begun, e.Seen, e.rank = of, begin, now, i
		e.looks, e.missed = e.looks+1, time.Time{}
		if worse || !e.open && (f.Strength == diagnose.Certain || e.looks >= leastLooks) {
			e.open = true
			begun = append(begun, e.TimedFinding)
		}
	}
	for k, e := range b.entries {
		if k.of != of || there[k.code] {
			continue
		}
		if !e.open {
			delete(b.entries, k)
			continue
		}
		if e.missed.IsZero() {
			e.missed = now
		}
		if now.Sub(e.missed) >= leastGone { // at the second look, or later
			ended = append(ended, b.end(k, e.missed))
		}
	}
	b.looked[of] = now
	slices.SortFunc(ended, func(a, c TimedFinding) int { return cmp.Compare(a.Code, c.Code) })
	return begun, ended
}

// drop ends what is open of a subject that is no more; seen is the last look at it.
func (b *book) drop(gone func(of model.Subject, seen time.Time) bool, now time.Time) (ended []TimedFinding) {
	maps.DeleteFunc(b.looked, gone)
	for k, e := range b.entries {
		switch {
		case !gone(k.of, e.Seen):
		case e.open:
			ended = append(ended, b.end(k, now))
		default:
			delete(b.entries, k)
		}
	}
	slices.SortFunc(ended, inOrder)
	return ended
}

func (b *book) end(k key, at time.Time) TimedFinding {
	f := b.entries[k].TimedFinding
	f.Ended = at.UTC()
	delete(b.entries, k)
	b.ended = append(b.ended, f)
	b.ended = b.ended[max(0, len(b.ended)-keepEnded):]
	return f
}

// isOpen tells whether a finding of a subject is, or may soon be.
func (b *book) isOpen(of model.Subject) bool {
	for k := range b.entries {
		if k.of == of {
			return true
		}
	}
	return false
}

// open lists what goes on: what is critical first, then by when it began.
func (b *book) open() []TimedFinding {
	out := []TimedFinding{}
	for _, e := range b.entries {
		if e.open {
			out = append(out, e.TimedFinding)
		}
	}
	slices.SortFunc(out, inOrder)
	return out
}

func inOrder(a, b TimedFinding) int {
	return cmp.Or(cmp.Compare(a.Severity, b.Severity), a.Begun.Compare(b.Begun), cmp.Compare(a.Subject.Name, b.Subject.Name), cmp.Compare(a.rank, b.rank), cmp.Compare(a.Code, b.Code))
}

// restore takes what is recorded of findings, oldest first.
func (b *book) restore(all []model.Event) {
	for _, e := range all {
		begun, over := key{e.Subject, diagnose.Code(e.To)}, key{e.Subject, diagnose.Code(e.From)}
		_, known := diagnose.CauseOf(begun.code)
		switch {
		case e.Kind == model.EventFindingEnded && b.entries[over] != nil:
			b.end(over, e.Time)
		case e.Kind == model.EventFindingBegun && b.entries[begun] != nil: // it turned from a warning to an outage
			b.entries[begun].Severity = Severity(e.From)
		case e.Kind == model.EventFindingBegun && known:
			x := &entry{open: true, looks: leastLooks}
			x.TimedFinding = TimedFinding{
				Subject: e.Subject, Severity: Severity(e.From), Begun: e.Since, Seen: e.Time,
				Finding: diagnose.Recorded(e),
			}
			b.entries[begun] = x
		}
	}
}
