package findings

import (
	"strings"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

var now = time.Date(2026, 7, 1, 14, 9, 22, 0, time.UTC)

func finding(code diagnose.Code, s diagnose.Strength, severity Severity) TimedFinding {
	return TimedFinding{Severity: severity, Finding: diagnose.Finding{Code: code, Strength: s, Says: string(code)}}
}

func codes(all []TimedFinding) string {
	var out []string
	for _, f := range all {
		out = append(out, string(f.Code))
	}
	return strings.Join(out, " ")
}

// A finding begins when it is certain, or at the second look; it is over when two looks
// and twenty seconds do not find it, and ended with the first of them.
func TestBook(t *testing.T) {
	b := newBook()
	web := upstream("web")
	at := func(s int) time.Time { return now.Add(time.Duration(s) * time.Second) }
	h3, a2, w1 := finding("H3", diagnose.Certain, Critical), finding("A2", diagnose.Likely, Critical), finding("W1", diagnose.Likely, Warning)
	for i, step := range []struct {
		at                int
		found             []TimedFinding
		begun, over, open string
	}{
		{0, []TimedFinding{h3, a2}, "H3", "", "H3"},
		{5, []TimedFinding{h3, a2}, "A2", "", "H3 A2"},
		{10, []TimedFinding{h3, w1}, "", "", "H3 A2"},                                  // A2 is missed, W1 found, once
		{15, []TimedFinding{h3}, "", "", "H3 A2"},                                      // W1 was one look's
		{20, []TimedFinding{h3, w1}, "", "", "H3 A2"},                                  // so it begins anew
		{29, []TimedFinding{h3}, "", "", "H3 A2"},                                      // twenty seconds after the first miss are not over
		{30, []TimedFinding{h3}, "", "A2", "H3"},                                       // now
		{31, nil, "", "", "H3"},                                                        // one look
		{35, []TimedFinding{h3}, "", "", "H3"},                                         // there again: what was missed is forgotten
		{52, nil, "", "", "H3"},                                                        // missed anew
		{60, nil, "", "", "H3"},                                                        // twice
		{72, nil, "", "H3", ""},                                                        // twenty seconds
		{80, []TimedFinding{w1}, "", "", ""},                                           // a warning
		{81, []TimedFinding{w1}, "W1", "", "W1"},                                       // begins
		{82, []TimedFinding{finding("W1", diagnose.Likely, Critical)}, "W1", "", "W1"}, // and is told again when it is an outage
		{83, []TimedFinding{finding("W1", diagnose.Likely, Critical)}, "", "", "W1"},
		{84, []TimedFinding{w1}, "", "", "W1"}, // but not when it is none any more
	} {
		begun, ended := b.take(web, step.found, time.Time{}, at(step.at))
		if codes(begun) != step.begun || codes(ended) != step.over || codes(b.open()) != step.open {
			t.Errorf("%d: begun %q, over %q, open %q; want %q, %q, %q", i, codes(begun), codes(ended), codes(b.open()), step.begun, step.over, step.open)
		}
	}
	if codes(b.ended) != "A2 H3" || !b.ended[0].Ended.Equal(at(10)) || !b.ended[0].Begun.Equal(at(0)) || !b.ended[1].Ended.Equal(at(52)) {
		t.Errorf("ended: %+v", b.ended)
	}
	for range 2 { // what is known of its begin goes before the look; what is of another is left alone
		b.take(upstream("api"), []TimedFinding{h3}, at(-60), at(90))
	}
	if b.take(web, []TimedFinding{w1, h3}, at(-60), at(95)); !b.open()[0].Begun.Equal(at(-60)) || !b.open()[1].Begun.Equal(at(84)) { // the look before did not find it
		t.Errorf("of the look before: %+v", b.open())
	}
	delete(b.pages[web].entries, "H3")
	if open := b.open(); codes(open) != "H3 W1" || !open[0].Begun.Equal(at(-60)) || !open[0].Seen.Equal(at(90)) {
		t.Errorf("of two: %+v", open)
	}
	ended := b.drop(func(of model.Subject, _ time.Time) bool { return of.Name == "api" }, at(100))
	if codes(ended) != "H3" || codes(b.open()) != "W1" || b.isOpen(upstream("api")) || !b.isOpen(web) {
		t.Errorf("dropped %q, open %q", codes(ended), codes(b.open()))
	}
	if len(b.pages) != 1 {
		t.Errorf("%d subjects are kept", len(b.pages))
	}
}

// After a restart what was open is open since then, and is over where it is not found.
func TestRestore(t *testing.T) {
	b := newBook()
	event := func(kind, name, from, to string, s int) model.Event {
		return model.Event{Kind: kind, Subject: upstream(name), From: from, To: to, Reason: "says", Time: now.Add(time.Duration(s)*time.Second + time.Second), Since: now.Add(time.Duration(s) * time.Second)}
	}
	b.restore([]model.Event{
		event(model.EventFindingBegun, "web", "warning", "H3", -60), event(model.EventFindingBegun, "web", "critical", "H3", -55), event(model.EventFindingBegun, "web", "warning", "W1", -50),
		event(model.EventFindingEnded, "web", "W1", "over", -40), event(model.EventFindingBegun, "web", "critical", "Z9", -30), // of another version
		event(model.EventUpstreamState, "web", "healthy", "empty", -20), event(model.EventFindingEnded, "web", "A1", "over", -10),
	})
	if open := b.open(); codes(open) != "H3" || open[0].Severity != Critical || open[0].Title == "" || open[0].Says != "says" || codes(b.ended) != "W1" {
		t.Errorf("%+v, ended %+v", open, b.ended)
	}
	if ended := b.drop(func(_ model.Subject, looked time.Time) bool {
		return !looked.Equal(now.Add(-29*time.Second)) && !looked.Equal(now.Add(-9*time.Second))
	}, now); len(ended) != 0 {
		t.Errorf("not looked at when it was told: %+v", ended)
	}
	begun, _ := b.take(upstream("web"), []TimedFinding{finding("H3", diagnose.Certain, Critical)}, now, now)
	if len(begun) > 0 || !b.open()[0].Begun.Equal(now.Add(-60*time.Second)) {
		t.Errorf("begun again: %+v", b.open())
	}
}

// The first look at what may be wrong is at once, the next ones at growing distances; what
// turned is looked at soon, and each of the others has its turn.
func TestSchedule(t *testing.T) {
	s := schedule{map[string]*place{}}
	all := map[string]bool{"bad": true, "fine": false}
	var asked []int
	quiet := 0
	for sec := range 400 {
		at := now.Add(time.Duration(sec) * time.Second)
		if sec == 200 { // something turns
			s.places["bad"].touched = true
		}
		s.keep(at, all, nil)
		for _, name := range s.next(at, true, 4) {
			s.places[name].began(at)
			asked = append(asked, sec)
		}
		for _, name := range s.next(at, false, 1) {
			s.places[name].began(at)
			quiet++
		}
	}
	if want := []int{0, 5, 15, 35, 65, 95, 125, 155, 185, 200, 205, 215, 235, 265, 295, 325, 355, 385}; !equal(asked, want) {
		t.Errorf("asked at %v, want %v", asked, want)
	}
	if quiet < 1 || quiet > 2 {
		t.Errorf("%d quiet looks in 400 s", quiet)
	}
	all["fine"] = true // it may be wrong now
	end := now.Add(400 * time.Second)
	s.keep(end, all, nil)
	if got := s.next(end, true, 4); len(got) != 1 || got[0] != "fine" {
		t.Errorf("due: %v", got)
	}
	s.places["fine"].running = true
	if s.keep(end, map[string]bool{}, nil); len(s.places) != 1 || len(s.next(end, true, 4)) != 0 {
		t.Errorf("who is being looked at is kept, and not due: %v", s.places)
	}
	s.places["fine"].running = false
	s.places = map[string]*place{"old": {ask: true, looks: fewLooks, last: end.Add(-time.Hour)}, "new": {ask: true, looks: fewLooks - 1, last: end.Add(-time.Minute)}}
	if got := s.next(end, true, 1); len(got) != 1 || got[0] != "new" {
		t.Errorf("a second look goes first: %v", got)
	}
	s.places = map[string]*place{}
	for range 2 {
		s.keep(end, map[string]bool{"web": false}, map[string]bool{"web": true})
		s.places["web"].last = end.Add(-unread)
	}
	if got := s.next(end, false, 1); len(got) != 1 {
		t.Errorf("its source is away: %v", got)
	}
	for i := range 100 {
		all[string(rune('a'+i))] = true
	}
	if s.keep(end, all, nil); len(s.next(end, true, 4)) != 4 {
		t.Error("more than are wanted")
	}
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
