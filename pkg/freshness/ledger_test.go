package freshness

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Whatever happens in whatever order, a stage is as old as a plain list of all flips
// says, and what has arrived everywhere is forgotten.
func TestLedgerProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l ledger
		now := begin
		var at []time.Time // of flip i+1
		var reached [stages]int
		var took [stages]time.Duration
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "ms")) * time.Millisecond)
			if len(at) == 0 || rapid.Bool().Draw(t, "flip") {
				number, value := l.flip(now)
				at = append(at, now)
				if number != uint64(len(at)) || l.numberOf(value) != number {
					t.Fatalf("flip %d is number %d, and of its value %d is number %d", len(at), number, value, l.numberOf(value))
				}
			} else {
				to, number := rapid.IntRange(0, int(stages)-1).Draw(t, "stage"), rapid.IntRange(0, len(at)).Draw(t, "number")
				l.reach(stage(to), uint64(number), now)
				for ; to >= 0; to-- { // with it at every stage before
					if number > reached[to] {
						reached[to], took[to] = number, now.Sub(at[number-1])
					}
				}
			}
			least := len(at)
			for s := range stages {
				want := took[s]
				if reached[s] < len(at) {
					want = max(want, now.Sub(at[reached[s]]))
				}
				if got := l.age(s, now); got != want {
					t.Fatalf("%s is %s old, want %s", s, got, want)
				}
				least = min(least, reached[s]+1)
			}
			if len(l.flips) != len(at)-least+1 {
				t.Fatalf("%d flips are kept of %d, of which %d have not arrived everywhere", len(l.flips), len(at), len(at)-least+1)
			}
		}
	})
}

// What never arrives is bounded, and the oldest still says how old it is.
func TestLedgerIsBounded(t *testing.T) {
	var l ledger
	for i := range 3 * maxFlips {
		l.flip(begin.Add(time.Duration(i) * time.Second))
	}
	now := begin.Add(3 * maxFlips * time.Second)
	if age := l.age(seen, now); len(l.flips) != maxFlips || age != now.Sub(begin) {
		t.Errorf("%d flips, %s old", len(l.flips), age)
	}
	l.reach(acknowledged, 100, now) // which is forgotten by now: the next one counts
	if _, waits := l.oldest(acknowledged, now); !waits || l.reached[seen].number != 100 {
		t.Errorf("%+v", l.reached)
	}
	l.reach(acknowledged, l.last, now)
	if _, waits := l.oldest(written, now); waits || len(l.flips) != 1 {
		t.Errorf("%d flips", len(l.flips))
	}
}

// Values fit a weight, and come again: then they are the newest flip's.
func TestValues(t *testing.T) {
	var l ledger
	l.last = model.MaxCanary - 1
	for _, want := range []uint32{model.MaxCanary, 1, 2} {
		number, value := l.flip(begin)
		if value != want || l.numberOf(value) != number {
			t.Errorf("number %d has value %d, want %d", number, value, want)
		}
	}
	if n := l.numberOf(77); n != 0 {
		t.Errorf("a value of nobody is number %d", n)
	}
}
