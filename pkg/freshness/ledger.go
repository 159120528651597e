package freshness

import (
	"slices"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// stage is how far a flip came.
type stage int

const (
	written stage = iota
	seen
	published
	acknowledged
	stages
)

func (s stage) String() string { return [...]string{"written", "seen", "published", "acknowledged"}[s] }

// ledger is what became of the flips. It is not safe for concurrent use.
type ledger struct {
	last    uint64 // number of the newest; the first is 1
	flips   []flip // oldest first: the newest, and those that have not arrived everywhere
	reached [stages]mark
}

// flip is when one began.
type flip struct {
	number uint64
	at     time.Time
}

// mark is the newest flip that reached a stage, and how long it took.
type mark struct {
	number uint64
	took   time.Duration
}

// maxFlips bounds those on their way: eight hours of them at two a minute.
const maxFlips = 1000

// flip begins one: its number, and the value by which it is recognised.
func (l *ledger) flip(now time.Time) (number uint64, value uint32) {
	l.last++
	l.flips = append(l.flips, flip{l.last, now})
	l.prune()
	if len(l.flips) > maxFlips {
		l.flips = slices.Delete(l.flips, 1, 2) // the oldest says how old
	}
	return l.last, valueOf(l.last)
}

func valueOf(number uint64) uint32 {
	return uint32((number-1)%model.MaxCanary) + 1 //nolint:gosec // below 2^16
}

func (l *ledger) newest() flip { return l.flips[len(l.flips)-1] }

// numberOf is the newest flip with a value, 0 where none is known.
func (l *ledger) numberOf(value uint32) uint64 {
	for _, f := range slices.Backward(l.flips) {
		if valueOf(f.number) == value {
			return f.number
		}
	}
	return 0
}

// reach notes that a flip is at a stage, with all flips before it, and so at all stages
// before: that a write failed may be a wrong word.
func (l *ledger) reach(at stage, number uint64, now time.Time) {
	i := slices.IndexFunc(l.flips, func(f flip) bool { return f.number >= number })
	for ; at >= 0; at-- {
		if number > l.reached[at].number {
			l.reached[at] = mark{number, now.Sub(l.flips[i].at)}
		}
	}
	l.prune()
}

// prune forgets what has arrived everywhere, but for the newest.
func (l *ledger) prune() {
	least := l.last
	for _, m := range l.reached {
		least = min(least, m.number+1)
	}
	l.flips = slices.DeleteFunc(l.flips, func(f flip) bool { return f.number < least })
}

// oldest is the age of the oldest flip that has not reached a stage; false where all
// have.
func (l *ledger) oldest(at stage, now time.Time) (time.Duration, bool) {
	for _, f := range l.flips {
		if f.number > l.reached[at].number {
			return now.Sub(f.at), true
		}
	}
	return 0, false
}

// age is how long the newest flip took to a stage, or the age of the oldest that is on
// its way there, whichever is longer.
func (l *ledger) age(at stage, now time.Time) time.Duration {
	waiting, _ := l.oldest(at, now)
	return max(waiting, l.reached[at].took)
}
