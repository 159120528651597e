package main

import (
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// mainCell is the cell of most targets.
var mainCell = cell{Clusters: 1000, Endpoints: 10, Streams: 1000}

// quickPlan is what the targets need. A push of the caches takes seconds, and 1,000
// streams that connect to SnapshotCache 90.
var quickPlan = [][]cell{
	{
		{Server: "wellspring", Clusters: 1000, Endpoints: 10, Streams: 1000, Colds: 3, Turns: 5, Pushes: 10, Storms: 3, Changes: 300},
		{Server: "rawgrpc", Clusters: 1000, Endpoints: 10, Streams: 1000, Colds: 3, Turns: 5, Pushes: 10, Storms: 3, Changes: 300},
		{Server: "h2raw", Clusters: 1000, Endpoints: 10, Streams: 1000, Turns: 5, Pushes: 10},
	},
	{
		{Server: "wellspring", Clusters: 100, Endpoints: 10, Streams: 100, Turns: 5, Pushes: 20},
		{Server: "wellspring", Clusters: 1000, Endpoints: 10, Streams: 100, Turns: 5, Pushes: 20},
		{Server: "wellspring", Clusters: 10_000, Endpoints: 10, Streams: 100, Turns: 5, Pushes: 20},
	},
	{{Server: "linear", Clusters: 1000, Endpoints: 10, Streams: 1000, Turns: 1, Pushes: 5}},
	{{Server: "snapshot", Clusters: 1000, Endpoints: 10, Streams: 1000, Turns: 1, Pushes: 5}},
}

// morePlan are the rows besides.
var morePlan = [][]cell{
	{
		{Server: "wellspring", Clusters: 100, Endpoints: 10, Streams: 4000, Turns: 3, Pushes: 5},
		{Server: "rawgrpc", Clusters: 100, Endpoints: 10, Streams: 4000, Turns: 3, Pushes: 5},
	},
	{
		{Server: "wellspring", Clusters: 1000, Endpoints: 100, Streams: 100, Turns: 3, Pushes: 20},
		{Server: "rawgrpc", Clusters: 1000, Endpoints: 100, Streams: 100, Turns: 3, Pushes: 20},
		{Server: "linear", Clusters: 1000, Endpoints: 100, Streams: 100, Turns: 1, Pushes: 5},
	},
	{
		{Server: "wellspring", Clusters: 1000, Endpoints: 10, Streams: 1000, Turns: 3, Pushes: 10, FullNode: true},
		{Server: "rawgrpc", Clusters: 1000, Endpoints: 10, Streams: 1000, Turns: 3, Pushes: 10, FullNode: true},
	},
	{
		{Server: "wellspring", Clusters: 1000, Endpoints: 10, Streams: 1000, Colds: 3, Turns: 3, Pushes: 10, TLS: true},
		{Server: "rawgrpc", Clusters: 1000, Endpoints: 10, Streams: 1000, Colds: 3, Turns: 3, Pushes: 10, TLS: true},
	},
	{
		{Server: "wellspring", Clusters: 1000, Endpoints: 10, Streams: 100, Turns: 3, Pushes: 20, SotW: true},
		{Server: "wellspring", Clusters: 1000, Endpoints: 10, Streams: 100, Turns: 3, Pushes: 20},
		{Server: "rawgrpc", Clusters: 1000, Endpoints: 10, Streams: 100, Turns: 3, Pushes: 20, SotW: true},
		{Server: "linear", Clusters: 1000, Endpoints: 10, Streams: 100, Turns: 1, Pushes: 5, SotW: true},
		{Server: "snapshot", Clusters: 1000, Endpoints: 10, Streams: 100, Turns: 1, Pushes: 5, SotW: true},
	},
	{
		{Server: "wellspring", Clusters: 1000, Endpoints: 10, Streams: 500, Turns: 5, Pushes: 10},
		{Server: "wellspring", Clusters: 1000, Endpoints: 10, Streams: 500, Turns: 5, Pushes: 10, Stopped: 1},
		{Server: "wellspring", Clusters: 1000, Endpoints: 10, Streams: 500, Turns: 5, Pushes: 10, Stopped: 500},
	},
	{{Server: "wellspring", Clusters: 100, Endpoints: 10, Streams: 10_000, Turns: 1, Pushes: 3}},
}

// is tells whether a cell is of a size, in its plain form.
func (c cell) is(size cell) bool {
	return c.Clusters == size.Clusters && c.Endpoints == size.Endpoints && c.Streams == size.Streams && !c.SotW && !c.FullNode && !c.TLS && c.Stopped == 0
}

// find returns the first result of a server in a cell.
func (b *bench) find(server string, size cell) *result {
	for _, r := range b.results {
		if r.Server == server && r.is(size) {
			return r
		}
	}
	return &result{}
}

// summary is the figures that have targets.
func (b *bench) summary() map[string]float64 {
	growth := func(clusters int) []float64 {
		return b.find("wellspring", cell{Clusters: clusters, Endpoints: 10, Streams: 100}).CPU
	}
	ours, raw := b.find("wellspring", mainCell), b.find("rawgrpc", mainCell)
	return map[string]float64{
		"cpu_vs_rawgrpc_1000x10":  paired(ours.CPU, raw.CPU),
		"growth_100_to_1000":      paired(growth(1000), growth(100)),
		"growth_1000_to_10000":    paired(growth(10_000), growth(1000)),
		"times_under_linear":      ratio(median(b.find("linear", mainCell).CPU), median(ours.CPU)),
		"times_under_snapshot":    ratio(median(b.find("snapshot", mainCell).CPU), median(ours.CPU)),
		"kb_per_stream":           round(ours.KB),
		"kb_per_stream_rawgrpc":   round(raw.KB),
		"setter_us":               round(float64(b.setter) / float64(time.Microsecond)),
		"storm_p99_vs_rawgrpc":    paired(ours.StormP99, raw.StormP99),
		"storm_cpu_vs_rawgrpc":    paired(ours.StormCPU, raw.StormCPU),
		"cold_vs_rawgrpc":         max(paired(ours.ColdCPU, raw.ColdCPU), paired(ours.ColdWall, raw.ColdWall)),
		"allocs_per_push":         round(ours.Allocs),
		"allocs_per_push_rawgrpc": round(raw.Allocs),
	}
}

// paired is the median of the ratios of what was measured one after the other.
func paired(a, b []float64) float64 {
	var all []float64
	for i := range min(len(a), len(b)) {
		all = append(all, ratio(a[i], b[i]))
	}
	return median(all)
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return round(a / b)
}

func round(x float64) float64 { return float64(int(x*100+0.5)) / 100 }

// report is everything that was measured.
func (b *bench) report() map[string]any {
	return map[string]any{"summary": b.summary(), "cells": b.results, "consul": b.churns, "go": runtime.Version(), "cores": 2}
}

// table prints the results, a line for each cell.
func (b *bench) table(to io.Writer) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "server\tcell\tCPU µs\tallocs\tbytes\tp50 ms\tp99 ms\tkB\tcold ms\tcold s\tstolen\t")
	for _, r := range b.results {
		fmt.Fprintf(w, "%s\t%s\t%.1f\t%.1f\t%.0f\t%.1f\t%.1f\t%.1f\t%.2f\t%.1f\t%.0f %%\t\n",
			r.Server, r.short(), median(r.CPU), r.Allocs, r.Bytes, r.P50, r.P99, r.KB, median(r.ColdCPU), median(r.ColdWall), 100*r.Stolen)
	}
	_ = w.Flush()
	for _, r := range b.results {
		if r.Stopped >= 100 { // of one it is noise
			fmt.Fprintf(to, "%s: %.1f kB for each that is stopped\n", r.cell, r.StoppedKB)
		}
		if r.Storms == 0 {
			continue
		}
		fmt.Fprintf(to, "storms of %d changes at 100 a second, %s: %.2f cores, %.1f pushes a second, p50 %.0f ms, p99 %.0f ms",
			r.Changes, r.Server, median(r.StormCPU), median(r.StormRate), median(r.StormP50), median(r.StormP99))
		if r.StormLost > 0 {
			fmt.Fprintf(to, ", %d not absorbed", r.StormLost)
		}
		fmt.Fprintln(to)
	}
	for _, c := range b.churns {
		c.print(to)
	}
	fmt.Fprintf(to, "setter, 10,000 resources, until the last of 1,000 streams knows: %s\n", b.setter)
}

// setter is how long it takes from a change of one of many resources until the last
// of many streams knows of it, at the median of a hundred times.
func setter(resources, streams int) (time.Duration, error) {
	e := delivery.NewEngine()
	class := delivery.Class{Group: "bench", Band: 40}
	all := map[string]*delivery.Resource{}
	for i := range resources {
		name := fmt.Sprintf("%05d", i)
		all[name] = delivery.NewResource(delivery.Assignments, name, []byte(name))
	}
	t := delivery.NewTable(nil, map[delivery.Type]map[string]*delivery.Resource{delivery.Assignments: all}, nil)
	e.Publish(class, t)
	know := &listeners{all: make(chan struct{}, 1)}
	for i := range streams {
		e.Join(class, listener{know, i})
	}
	var took []time.Duration
	for i := range 101 {
		know.left.Store(int64(streams))
		began := time.Now()
		t = t.With(delivery.NewResource(delivery.Assignments, "05000", fmt.Appendf(nil, "form %d", i)))
		e.Publish(class, t)
		select {
		case <-know.all:
		case <-time.After(10 * time.Second):
			return 0, fmt.Errorf("change %d was not told to every stream", i)
		}
		took = append(took, time.Since(began))
		time.Sleep(20 * time.Millisecond) // the pause after a round
	}
	return median(took), nil
}

// listeners are streams that only hear that there is something.
type listeners struct {
	left atomic.Int64
	all  chan struct{}
}

type listener struct {
	*listeners
	number int
}

func (l listener) Wake(*delivery.Round) {
	if l.left.Add(-1) == 0 {
		l.all <- struct{}{}
	}
}
