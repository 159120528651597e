package delivery

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// hearer is a member that notes which table it takes up when, and takes a while to
// hand over what it sends.
type hearer struct {
	feed  *Feed
	takes time.Duration
	began time.Time
	mu    sync.Mutex
	heard []string
}

func (h *hearer) Wake(r *Round) {
	h.mu.Lock()
	defer h.mu.Unlock()
	version := ""
	if x := h.feed.Table().Get(Clusters, "a"); x != nil {
		version = x.Version
	}
	h.heard = append(h.heard, fmt.Sprintf("%s@%s", version, time.Since(h.began)))
	if h.takes > 0 {
		r.Begin()
		time.AfterFunc(h.takes, r.End)
	}
}

// The first change after quiet leaves at once; what changes during a round and the
// pause after it goes together in the next; the pause is twice as long as the fleet takes.
// A member that takes nothing holds up nobody for long.
func TestRounds(t *testing.T) {
	for what, c := range map[string]struct {
		takes time.Duration
		want  string
	}{
		"a quick fleet":                {0, "[1@0s 2@1ms 3@2ms 4@3ms 5@4ms 6@5ms]"},
		"a fleet that takes 2.3 ms":    {2300 * time.Microsecond, "[1@0s 6@6.9ms]"},
		"a member that takes for ever": {time.Hour, "[1@0s 6@60ms]"},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, class := NewEngine(), Class{Group: "g"}
				e.Publish(class, table(cluster("a", "0")))
				h := &hearer{takes: c.takes, began: time.Now()}
				h.feed = e.Join(class, h)
				if h.feed.Table() == nil {
					t.Fatal("who joins is told nothing")
				}
				for i := range 6 {
					e.Publish(class, table(cluster("a", fmt.Sprint(i+1))))
					time.Sleep(time.Millisecond)
				}
				time.Sleep(time.Second)
				h.mu.Lock()
				defer h.mu.Unlock()
				if got := fmt.Sprint(h.heard); got != c.want {
					t.Errorf("heard %s, want %s", got, c.want)
				}
			})
		})
	}
}

// A class whose table is dropped tells its members, and one that comes back too.
func TestDroppedClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, class := NewEngine(), Class{Group: "g"}
		e.Publish(class, table(cluster("a", "1")))
		h := &hearer{began: time.Now()}
		h.feed = e.Join(class, h)
		e.Drop(class)
		time.Sleep(time.Second)
		if h.feed.Table() != nil {
			t.Error("a dropped class has a table")
		}
		e.Publish(class, table(cluster("a", "2")))
		time.Sleep(time.Second)
		e.Leave(class, h)
		if got := fmt.Sprint(h.heard); got != "[@0s 2@1s]" {
			t.Errorf("heard %s", got)
		}
		e.Drop(class)
		if len(e.classes) != 0 {
			t.Errorf("%d classes are kept", len(e.classes))
		}
	})
}

// A class that went and came back in the pause after a round has its table for who
// joins then.
func TestClassThatCameBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, class := NewEngine(), Class{Group: "g"}
		e.Publish(class, table(cluster("a", "1")))
		slow := &hearer{takes: 10 * time.Millisecond, began: time.Now()}
		slow.feed = e.Join(class, slow)
		e.Drop(class)
		synctest.Wait()
		e.Publish(class, table(cluster("a", "2")))
		if f := e.Join(class, slow); f.Table() == nil || f.Table().Get(Clusters, "a").Version != "2" {
			t.Error("there is none")
		}
		time.Sleep(time.Second)
	})
}

// The pause after a round goes by what the fleet takes: not by a round that was held up
// once, and not by one that found most of it busy.
func TestPause(t *testing.T) {
	ms := time.Millisecond
	s := &classState{}
	for i, x := range []struct {
		took     time.Duration
		measured bool
		want     time.Duration
	}{
		{1 * ms, false, 2 * ms}, // nothing else is known
		{20 * ms, true, 2 * ms},
		{20 * ms, true, 40 * ms},
		{100 * ms, true, 40 * ms}, // held up once
		{100 * ms, true, 200 * ms},
		{40 * ms, true, 80 * ms},
		{1 * ms, false, 120 * ms}, // busy: as long as a round and its pause
		{1 * ms, false, 120 * ms},
		{40 * ms, true, 80 * ms},
		{600 * ms, true, 80 * ms}, // held up once,
		{1 * ms, false, 120 * ms}, // which the busy fleet after it is not measured by
	} {
		if got := s.pause(x.took, x.measured); got != x.want {
			t.Errorf("%d: the pause after %s is %s, want %s", i, x.took, got, x.want)
		}
	}
}

// answering is a member that sends, is busy, or has nothing to do.
type answering struct {
	sends, busy bool
	takes       time.Duration
}

func (a *answering) Wake(r *Round) {
	switch {
	case a.busy:
		r.Busy()
	case a.sends:
		r.Begin()
		time.AfterFunc(a.takes, r.End)
	}
}

// What a round took is reckoned for those too that were busy; it says nothing where
// most were.
func TestRoundIsMeasured(t *testing.T) {
	for what, c := range map[string]struct {
		sends, busy, idle int
		want              time.Duration
		measured          bool
	}{
		"all send":          {4, 0, 0, 4 * time.Millisecond, true},
		"idle do not count": {4, 0, 100, 4 * time.Millisecond, true},
		"some are busy":     {4, 2, 0, 6 * time.Millisecond, true},
		"most are busy":     {4, 5, 0, 4 * time.Millisecond, false},
		"all are idle":      {0, 0, 9, 0, true},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var members []Member
				for i := range c.sends + c.busy + c.idle {
					members = append(members, &answering{sends: i < c.sends, busy: i >= c.sends && i < c.sends+c.busy, takes: 4 * time.Millisecond})
				}
				if took, measured := wake(members); took != c.want || measured != c.measured {
					t.Errorf("took %s (%v), want %s (%v)", took, measured, c.want, c.measured)
				}
			})
		})
	}
}
