package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// cell is one server under one load. Those that are measured together take turns, so
// that what else the machine does meets all of them.
type cell struct {
	Server    string `json:"server"`
	Clusters  int    `json:"clusters"`
	Endpoints int    `json:"endpoints"`
	Streams   int    `json:"streams"`
	SotW      bool   `json:"sotw,omitempty"`
	FullNode  bool   `json:"fullNode,omitempty"`
	TLS       bool   `json:"tls,omitempty"`
	Stopped   int    `json:"stopped,omitempty"` // clients besides that read nothing

	Colds    int    `json:"-"` // how often all streams connect; 1 at least
	Turns    int    `json:"-"` // of pushes
	Pushes   int    `json:"-"` // in each turn
	Storms   int    `json:"-"` // turns of changes, 100 a second
	Changes  int    `json:"-"` // in each storm
	Profiled string `json:"-"` // file for a profile of more pushes
}

// moving are the services that change; the others stand still.
func (c cell) moving() int { return min(100, c.Clusters) }

func (c cell) String() string { return c.Server + " " + c.short() }

func (c cell) short() string {
	words := []string{fmt.Sprintf("%d×%d, %d streams", c.Clusters, c.Endpoints, c.Streams)}
	for word, is := range map[string]bool{"sotw": c.SotW, "full node": c.FullNode, "TLS": c.TLS} {
		if is {
			words = append(words, word)
		}
	}
	slices.Sort(words[1:])
	if c.Stopped > 0 {
		words = append(words, fmt.Sprintf("%d stopped", c.Stopped))
	}
	return strings.Join(words, ", ")
}

// result is what was measured; CPU is the server's. Lists have a figure for each turn.
type result struct {
	cell
	CPU       []float64 `json:"cpuMicros"`   // for each stream and push, acknowledgement included
	Allocs    float64   `json:"allocs"`      // the same
	Bytes     float64   `json:"allocBytes"`  // the same
	Wire      float64   `json:"wireBytes"`   // the same
	P50       float64   `json:"p50Millis"`   // change → bytes at a stream
	P99       float64   `json:"p99Millis"`   // the same
	KB        float64   `json:"kbPerStream"` // live, idle
	StoppedKB float64   `json:"kbPerStopped,omitempty"`
	ColdCPU   []float64 `json:"coldMillis"`  // for each stream that connects
	ColdWall  []float64 `json:"coldSeconds"` // until all have everything
	StormCPU  []float64 `json:"stormCores,omitempty"`
	StormRate []float64 `json:"stormPushes,omitempty"` // a second to each stream
	StormP50  []float64 `json:"stormP50Millis,omitempty"`
	StormP99  []float64 `json:"stormP99Millis,omitempty"`
	StormLost int       `json:"stormLost,omitempty"`
	Stolen    float64   `json:"stolen"` // share of the machine's busy time that another one took
}

func median[T cmp.Ordered](all []T) (middle T) {
	if len(all) == 0 {
		return middle
	}
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
