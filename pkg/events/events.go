// Package events keeps the last things that happened, for those who watch and
// for those who come back.
package events

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// size of the ring.
const size = 10_000

// Log is a ring of events. It is safe for concurrent use; its zero value is not
// usable, make it with New.
type Log struct {
	boot string
	now  func() time.Time

	mu    sync.Mutex // guards what follows
	ring  []model.Event
	next  uint64 // sequence of the next event, from 1
	moved chan struct{}
}

// New returns an empty log. IDs are BOOT-SEQ, where BOOT is the start of this
// process.
func New(now func() time.Time) *Log {
	return &Log{boot: strconv.FormatInt(now().UnixMilli(), 36), now: now, next: 1, moved: make(chan struct{})}
}

// Emit adds an event. It does not block.
func (l *Log) Emit(e model.Event) { l.Tell(e) }

// Tell adds an event and returns it with its id and time. It does not block.
func (l *Log) Tell(e model.Event) model.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.ID = fmt.Sprintf("%s-%d", l.boot, l.next)
	e.Time = l.now().UTC()
	if len(l.ring) < size {
		l.ring = append(l.ring, e)
	} else {
		l.ring[(l.next-1)%size] = e
	}
	l.next++
	close(l.moved)
	l.moved = make(chan struct{})
	return e
}

// After returns up to limit events that follow the one with an id, oldest first,
// and a channel that is closed when there are more; "" is from the oldest that
// is kept. Where the id is no longer held, the first event returned is a gap.
func (l *Log) After(id string, limit int) ([]model.Event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	oldest := uint64(1)
	if l.next > size {
		oldest = l.next - size
	}
	from := oldest
	var out []model.Event
	if id != "" {
		boot, seq, _ := strings.Cut(id, "-")
		n, err := strconv.ParseUint(seq, 10, 64)
		switch {
		case err == nil && boot == l.boot && n+1 >= oldest && n < l.next:
			from = n + 1
		default:
			out = append(out, model.Event{
				ID: fmt.Sprintf("%s-%d", l.boot, oldest-1), Time: l.now().UTC(), Kind: model.EventGap,
				Subject: model.Subject{Kind: "Event", Name: id}, Reason: "events between this id and the next one are no longer held",
			})
		}
	}
	for n := from; n < l.next && len(out) < limit; n++ {
		out = append(out, l.ring[(n-1)%size])
	}
	return out, l.moved
}

// Last returns the newest events, oldest first, at most limit.
func (l *Log) Last(limit int) []model.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(uint64(max(0, limit)), uint64(len(l.ring)))
	out := make([]model.Event, 0, n)
	for seq := l.next - n; seq < l.next; seq++ {
		out = append(out, l.ring[(seq-1)%size])
	}
	return out
}
