package findings

import (
	"cmp"
	"hash/fnv"
	"slices"
	"time"
)

// How long after a look the next one is due.
const (
	shortest   = 2 * time.Second // however much turns
	firstAgain = 5 * time.Second
	suspicious = 30 * time.Second
	quiet      = 5 * time.Minute
	unread     = time.Minute // where the source is away
	fewLooks   = 3           // go first: a likely cause needs a second one
)

// place is when an upstream was looked at.
type place struct {
	last    time.Time
	looks   int  // since something turned
	touched bool // something turned since the last look
	ask     bool // something may be wrong
	stale   bool // its source is away
	running bool // taken to be looked at
}

// due tells whether it is to be looked at.
func (p *place) due(now time.Time) bool {
	if p.running {
		return false
	}
	every := quiet
	switch {
	case p.ask:
		every = min(suspicious, firstAgain<<min(p.looks, 10))
	case p.stale:
		every = unread
	}
	if p.touched {
		every = min(every, shortest)
	}
	return now.Sub(p.last) >= every
}

// began marks that a look begins.
func (p *place) began(now time.Time) {
	p.last = now
	if p.looks++; p.touched {
		p.looks, p.touched = 0, false
	}
}

// schedule is who is looked at when. It is pure but for its own state.
type schedule struct{ places map[string]*place }

// keep takes which upstreams there are, and which of them may have something wrong. Of
// those that are new the first look is spread over the time in which each has its turn.
func (s *schedule) keep(now time.Time, all, stale map[string]bool) {
	for name, ask := range all {
		p := s.places[name]
		if p == nil {
			p = &place{last: now.Add(-spread(name))}
			s.places[name] = p
		}
		if ask && !p.ask {
			p.touched, p.last = true, time.Time{}
		}
		p.ask, p.stale = ask, stale[name]
	}
	for name, p := range s.places {
		if _, there := all[name]; !there && !p.running {
			delete(s.places, name)
		}
	}
}

// touch has some be looked at soon.
func (s *schedule) touch(names []string) {
	for _, name := range names {
		if p := s.places[name]; p != nil {
			p.touched = true
		}
	}
}

// spread is where in the time of all a name has its turn.
func spread(name string) time.Duration {
	h := fnv.New32a()
	h.Write([]byte(name))
	return time.Duration(h.Sum32()%uint32(quiet/time.Second)) * time.Second
}

// next are those that are due, at most so many: those first that were looked at few times
// since something turned, then those that wait longest.
func (s *schedule) next(now time.Time, ask bool, most int) (out []string) {
	for name, p := range s.places {
		if p.ask == ask && p.due(now) {
			out = append(out, name)
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		return cmp.Or(boolean(s.places[a].looks >= fewLooks)-boolean(s.places[b].looks >= fewLooks), s.places[a].last.Compare(s.places[b].last), cmp.Compare(a, b))
	})
	return out[:min(len(out), max(0, most))]
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}
