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
//     that may be the begin of it, nothing is to spare, a finding is open) is looked at
//     like one that somebody asks about: proxies, endpoints and all. That is done when
//     something turns, 5 s later, and then at growing distances up to half a minute; a few
//     at a time.
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

// page is what is known of one subject.
type page struct {
	entries map[diagnose.Code]*entry
	looked  time.Time // last
}

// book keeps findings. It is pure but for its own state.
type book struct {
	pages map[model.Subject]*page
	ended []TimedFinding // oldest first
}

func newBook() *book { return &book{pages: map[model.Subject]*page{}} }

// of is the page of a subject, a new one where there is none.
func (b *book) of(s model.Subject) *page {
	p := b.pages[s]
	if p == nil {
		p = &page{entries: map[diagnose.Code]*entry{}}
		b.pages[s] = p
	}
	return p
}

// take says what one look at a subject found, and returns what began, or turned from a
// warning to an outage, and what ended by it. since is when it began by what is known, and
// zero where it is not; what the look before did not find began after that.
func (b *book) take(of model.Subject, found []TimedFinding, since, now time.Time) (begun, ended []TimedFinding) {
	p, there := b.of(of), map[diagnose.Code]bool{}
	for i, f := range found {
		there[f.Code] = true
		e := p.entries[f.Code]
		if e == nil {
			e = &entry{}
			e.Begun = now
			if !since.IsZero() && since.Before(now) {
				e.Begun = since.UTC()
			}
			if e.Begun.Before(p.looked) {
				e.Begun = p.looked
			}
			p.entries[f.Code] = e
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
	for code, e := range p.entries {
		if there[code] {
			continue
		}
		if !e.open {
			delete(p.entries, code)
			continue
		}
		if e.missed.IsZero() {
			e.missed = now
		}
		if now.Sub(e.missed) >= leastGone { // at the second look, or later
			ended = append(ended, b.end(p, code, e.missed))
		}
	}
	p.looked = now
	slices.SortFunc(ended, func(a, c TimedFinding) int { return cmp.Compare(a.Code, c.Code) })
	return begun, ended
}

// drop ends what is open of a subject that is no more; looked is the last look at it.
func (b *book) drop(gone func(of model.Subject, looked time.Time) bool, now time.Time) (ended []TimedFinding) {
	for of, p := range b.pages {
		if !gone(of, p.looked) {
			continue
		}
		for code, e := range p.entries {
			if e.open {
				ended = append(ended, b.end(p, code, now))
			}
		}
		delete(b.pages, of)
	}
	slices.SortFunc(ended, inOrder)
	return ended
}

func (b *book) end(p *page, code diagnose.Code, at time.Time) TimedFinding {
	f := p.entries[code].TimedFinding
	f.Ended = at.UTC()
	delete(p.entries, code)
	b.ended = append(b.ended, f)
	b.ended = b.ended[max(0, len(b.ended)-keepEnded):]
	return f
}

// isOpen tells whether a finding of a subject is, or may soon be.
func (b *book) isOpen(of model.Subject) bool {
	p := b.pages[of]
	return p != nil && len(p.entries) > 0
}

// openOf lists what goes on in a subject, as its explanation has it.
func (b *book) openOf(of model.Subject) (out []TimedFinding) {
	if p := b.pages[of]; p != nil {
		out = p.open()
	}
	slices.SortFunc(out, func(a, b TimedFinding) int { return a.rank - b.rank })
	return out
}

// open lists what goes on: what is critical first, then by when it began.
func (b *book) open() []TimedFinding {
	out := []TimedFinding{}
	for _, p := range b.pages {
		out = append(out, p.open()...)
	}
	slices.SortFunc(out, inOrder)
	return out
}

func (p *page) open() (out []TimedFinding) {
	for _, e := range p.entries {
		if e.open {
			out = append(out, e.TimedFinding)
		}
	}
	return out
}

func inOrder(a, b TimedFinding) int {
	return cmp.Or(cmp.Compare(a.Severity, b.Severity), a.Begun.Compare(b.Begun), cmp.Compare(a.Subject.Name, b.Subject.Name), cmp.Compare(a.rank, b.rank), cmp.Compare(a.Code, b.Code))
}

// restore takes what is recorded of findings, oldest first.
func (b *book) restore(all []model.Event) {
	for _, e := range all {
		if e.Kind != model.EventFindingBegun && e.Kind != model.EventFindingEnded {
			continue
		}
		p, begun, over := b.of(e.Subject), diagnose.Code(e.To), diagnose.Code(e.From)
		p.looked = e.Time
		_, known := diagnose.CauseOf(begun)
		switch {
		case e.Kind == model.EventFindingEnded:
			if p.entries[over] != nil {
				b.end(p, over, e.Time)
			}
		case p.entries[begun] != nil: // it turned from a warning to an outage
			p.entries[begun].Severity = Severity(e.From)
		case known:
			x := &entry{open: true, looks: leastLooks}
			x.TimedFinding = TimedFinding{
				Subject: e.Subject, Severity: Severity(e.From), Begun: e.Since, Seen: e.Time,
				Finding: diagnose.Recorded(e),
			}
			p.entries[begun] = x
		}
	}
}
