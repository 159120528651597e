package main

import "testing"

// A small heap may grow by much of itself, a large one by as much again, as Go's
// default is.
func TestGrowth(t *testing.T) {
	for scanned, want := range map[uint64]int{0: 1000, 8 << 20: 1000, 32 << 20: 400, 96 << 20: 200, 400 << 20: 100, 4 << 30: 100} {
		if got := growth(scanned); got != want {
			t.Errorf("%d MB: %d %%, want %d %%", scanned>>20, got, want)
		}
	}
}
