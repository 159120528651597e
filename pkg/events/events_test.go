package events_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/events"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

func say(es []model.Event) string {
	var out []string
	for _, e := range es {
		if e.Kind == model.EventGap {
			out = append(out, "gap")
			continue
		}
		out = append(out, e.Subject.Name)
	}
	return strings.Join(out, " ")
}

func fill(l *events.Log, from, to int) {
	for i := from; i < to; i++ {
		l.Emit(model.Event{Kind: model.EventProxyGone, Subject: model.Subject{Name: fmt.Sprint(i)}})
	}
}

// The ring keeps the last 10,000; what is asked for by id comes in order, and an
// id that is no longer held is answered by a gap and all that is kept.
func TestLog(t *testing.T) {
	l := events.New(time.Now)
	if got, _ := l.After("", 10); len(got) != 0 {
		t.Errorf("empty: %s", say(got))
	}
	fill(l, 0, 5)
	last := l.Last(2)
	if say(last) != "3 4" {
		t.Errorf("last two: %s", say(last))
	}
	got, _ := l.After(last[0].ID, 10)
	if say(got) != "4" {
		t.Errorf("after 3: %s", say(got))
	}
	if got, _ = l.After(last[1].ID, 10); len(got) != 0 {
		t.Errorf("after the newest: %s", say(got))
	}
	if got, _ = l.After("", 3); say(got) != "0 1 2" {
		t.Errorf("a page from the oldest: %s", say(got))
	}
	fill(l, 5, 10_004) // 3 is the last that fell out, 4 the oldest kept
	if got, _ = l.After(last[0].ID, 2); say(got) != "4 5" {
		t.Errorf("the one after the last that is gone: %s", say(got))
	}
	fill(l, 10_004, 10_005)
	if got, _ = l.After(last[0].ID, 3); say(got) != "gap 5 6" {
		t.Errorf("one too late: %s", say(got))
	}
	next, _ := l.After(got[0].ID, 1)
	if say(next) != "5" {
		t.Errorf("from the id of the gap: %s", say(next))
	}
	if n := len(l.Last(20_000)); n != 10_000 {
		t.Errorf("%d are kept", n)
	}
}

// Who waits is woken by the next event, whoever emits it.
func TestLogWakes(t *testing.T) {
	l := events.New(time.Now)
	_, moved := l.After("", 1)
	select {
	case <-moved:
		t.Fatal("woken by nothing")
	default:
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() { fill(l, i*100, i*100+100) })
	}
	<-moved
	wg.Wait()
	seen := map[string]bool{}
	all, _ := l.After("", 1000)
	for _, e := range all {
		seen[e.ID] = true
	}
	if len(seen) != 800 {
		t.Errorf("%d ids for 800 events", len(seen))
	}
}
