package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// cell is one server under one load.
type cell struct {
	Server    string `json:"server"`
	Clusters  int    `json:"clusters"`
	Endpoints int    `json:"endpoints"`
	Streams   int    `json:"streams"`
	Pushes    int    `json:"pushes"`
	SotW      bool   `json:"sotw,omitempty"`
	FullNode  bool   `json:"fullNode,omitempty"`
	Stopped   int    `json:"stopped,omitempty"`
	Storm     int    `json:"storm,omitempty"` // changes, 100 a second
	Profile   string `json:"-"`
}

// moving are the services that change; the others stand still.
func (c cell) moving() int { return min(100, c.Clusters) }

func (c cell) String() string { return c.Server + " " + c.short() }

func (c cell) short() string {
	s := fmt.Sprintf("%d×%d, %d streams", c.Clusters, c.Endpoints, c.Streams)
	if c.SotW {
		s += ", sotw"
	}
	if c.FullNode {
		s += ", full node"
	}
	if c.Stopped > 0 {
		s += fmt.Sprintf(", %d stopped", c.Stopped)
	}
	return s
}

// result is what was measured; CPU is the server's.
type result struct {
	cell
	CPU       float64 `json:"cpuMicros"` // for each stream and push, acknowledgement included
	Allocs    float64 `json:"allocs"`    // the same
	Bytes     float64 `json:"allocBytes"`
	Wire      float64 `json:"wireBytes"`
	KB        float64 `json:"kbPerStream"` // live, idle
	ColdCPU   float64 `json:"coldMillis"`  // for each stream that connects
	ColdWall  float64 `json:"coldSeconds"` // until all have everything
	P50       float64 `json:"p50Millis"`   // change → bytes at a stream
	P99       float64 `json:"p99Millis"`
	StormCPU  float64 `json:"stormCores,omitempty"`
	StormRate float64 `json:"stormPushes,omitempty"` // a second to each stream
	StormP50  float64 `json:"stormP50Millis,omitempty"`
	StormP99  float64 `json:"stormP99Millis,omitempty"`
	StormLost int     `json:"stormLost,omitempty"`
	Stolen    float64 `json:"stolen"` // share of the machine's busy time that another one took
}

// window is that of servers that have none of their own.
const window = 50 * time.Millisecond

// bench runs cells; the contents that the real server answered are kept in dir.
type bench struct {
	binary  string
	dir     string
	results []result
	setter  time.Duration
}

func (b *bench) contentDir(c cell) string {
	return filepath.Join(b.dir, fmt.Sprintf("content-%d-%d", c.Clusters, c.Endpoints))
}

func (b *bench) run(c cell) (r result, err error) {
	r.cell = c
	dir, err := os.MkdirTemp(b.dir, "cell-")
	if err != nil {
		return r, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var t *target
	if c.Server == "wellspring" {
		t, err = startReal(b.binary, dir, c)
	} else {
		t, err = startPeer(c.Server, b.contentDir(c), c.SotW)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", c, err)
	}
	defer t.stop()
	if c.Server == "wellspring" {
		if err := learn(t.address, b.contentDir(c), c.Clusters); err != nil {
			return r, fmt.Errorf("%s: %w", c, err)
		}
	}
	content, err := load(b.contentDir(c))
	if err != nil {
		return r, err
	}
	names := content.names()
	f := &fleet{clientConfig: clientConfig{address: t.address, sotw: c.SotW, fullNode: c.FullNode}, subscribe: subscriptions(names), want: len(names)}
	f.names = f.subscribe
	defer f.close()
	busy, stolen := machine()
	for _, step := range []func(*target, *fleet, *result) error{cold, pushes, storm} {
		if err := step(t, f, &r); err != nil {
			return r, fmt.Errorf("%s: %w", c, err)
		}
	}
	busyThen, stolenThen := machine()
	r.Stolen = (stolenThen - stolen) / max(1, busyThen-busy)
	return r, nil
}

// cold connects all streams at once.
func cold(t *target, f *fleet, r *result) error {
	empty, err := t.stats()
	if err != nil {
		return err
	}
	cpu, began := t.cpu(), time.Now()
	if err := f.connect(r.Streams); err != nil {
		return err
	}
	r.ColdWall = time.Since(began).Seconds()
	r.ColdCPU = float64(t.cpu()-cpu) / float64(time.Millisecond) / float64(r.Streams)
	time.Sleep(time.Second) // what is idle is measured
	full, err := t.stats()
	r.KB = (float64(full.Live) - float64(empty.Live)) / 1024 / float64(r.Streams)
	return err
}

// pushes makes one change after the other, each when all have the one before.
func pushes(t *target, f *fleet, r *result) error {
	if r.Pushes == 0 {
		return nil
	}
	f.stop(r.Stopped)
	f.marks = newMarks(r.Pushes+1, r.Streams-r.Stopped)
	if err := one(t, f, 1); err != nil { // what is made once is not counted
		return err
	}
	f.marks.late = histogram{}
	asked, err := t.stats()
	if err != nil {
		return err
	}
	before, err := t.stats() // what asking costs is between the two
	if err != nil {
		return err
	}
	f.bytes.Store(0)
	profiled := make(chan error, 1)
	go func() { profiled <- t.profile(r.Profile) }()
	cpu := t.cpu()
	for i := range r.Pushes {
		if err := one(t, f, i+2); err != nil {
			return err
		}
		time.Sleep(settle) // each push and its acknowledgements are apart from the next
	}
	spent := t.cpu() - cpu
	wire := f.bytes.Load()
	if err := <-profiled; err != nil {
		return err
	}
	after, err := t.stats()
	n := float64(r.Pushes * (r.Streams - r.Stopped))
	r.CPU = float64(spent) / float64(time.Microsecond) / n
	r.Allocs = (float64(after.Mallocs) - float64(before.Mallocs) - float64(before.Mallocs-asked.Mallocs)) / n
	r.Bytes = (float64(after.AllocBytes) - float64(before.AllocBytes) - float64(before.AllocBytes-asked.AllocBytes)) / n
	r.Wire = float64(wire) / n
	r.P50, r.P99 = millis(f.marks.late.quantile(0.5)), millis(f.marks.late.quantile(0.99))
	return err
}

// settle is how long the server has for the last acknowledgements of a push.
const settle = 60 * time.Millisecond

func one(t *target, f *fleet, i int) error {
	f.marks.make(i)
	if err := t.flip(i, 0); err != nil {
		return err
	}
	select {
	case <-f.marks.done:
		return nil
	case err := <-f.failed:
		return err
	case <-time.After(time.Minute):
		return fmt.Errorf("change %d did not arrive: %d streams lack it", i, f.marks.left[i].Load())
	}
}

// storms is how often a storm is repeated; what is told is the median. Machines that
// are shared stop for a second now and then, which no percentile survives.
const storms = 3

func storm(t *target, f *fleet, r *result) error {
	if r.Storm == 0 {
		return nil
	}
	var cores, rate, p50, p99 []float64
	first := r.Pushes + 2 // a mark that was there is no change
	for i := range storms {
		one, err := stormOnce(t, f, r.cell, first+i*r.Storm)
		if err != nil {
			return err
		}
		cores, rate = append(cores, one.StormCPU), append(rate, one.StormRate)
		p50, p99 = append(p50, one.StormP50), append(p99, one.StormP99)
		r.StormLost += one.StormLost
	}
	r.StormCPU, r.StormRate, r.StormP50, r.StormP99 = median(cores), median(rate), median(p50), median(p99)
	return nil
}

// stormOnce makes a hundred changes a second, whoever has them by then.
func stormOnce(t *target, f *fleet, c cell, first int) (r result, err error) {
	f.marks = newMarks(first+c.Storm, c.Streams)
	f.messages.Store(0)
	cpu, began := t.cpu(), time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := range c.Storm {
		<-tick.C
		f.marks.make(first + i)
		if err := t.flip(first+i, window); err != nil {
			return r, err
		}
	}
	r.StormCPU = float64(t.cpu()-cpu) / float64(time.Since(began))
	r.StormRate = float64(f.messages.Load()) / float64(c.Streams) / time.Since(began).Seconds()
	lost := time.After(20 * time.Second)
	for n := range c.Storm {
		select {
		case <-f.marks.done:
		case err := <-f.failed:
			return r, err
		case <-lost:
			r.StormLost = c.Storm - n
			return r, nil
		}
	}
	r.StormP50, r.StormP99 = millis(f.marks.late.quantile(0.5)), millis(f.marks.late.quantile(0.99))
	return r, nil
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// profile takes a profile of the real server while it is loaded.
func (t *target) profile(file string) error {
	if file == "" || t.admin == "" {
		return nil
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	return get("http://"+t.admin+"/debug/pprof/profile?seconds=2", io.Writer(out))
}

// learn asks the real server for everything and keeps it.
func learn(address, dir string, clusters int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	for {
		c, err := ask(ctx, conn, clusters)
		if err == nil {
			return c.save(dir)
		}
		select { // it is refused until every service has answered
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func ask(ctx context.Context, conn *grpc.ClientConn, clusters int) (c content, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return c, err
	}
	node := &corev3.Node{}
	if err := proto.Unmarshal(nodeOf(0, false), node); err != nil {
		return c, err
	}
	c = content{&discoveryv3.DeltaDiscoveryResponse{}, &discoveryv3.DeltaDiscoveryResponse{}}
	all := func(typ delivery.Type, into *discoveryv3.DeltaDiscoveryResponse, want int, names ...string) error {
		if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(typ), Node: node, ResourceNamesSubscribe: names}); err != nil {
			return err
		}
		by := map[string]*discoveryv3.Resource{}
		for len(by) < want {
			m, err := s.Recv()
			if err != nil {
				return err
			}
			for _, r := range m.Resources {
				if m.TypeUrl == string(typ) {
					by[r.Name] = r
				}
			}
			if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce}); err != nil {
				return err
			}
		}
		for _, name := range slices.Sorted(maps.Keys(by)) {
			into.Resources = append(into.Resources, by[name])
		}
		return nil
	}
	if err := all(delivery.Clusters, c.clusters, clusters); err != nil {
		return c, err
	}
	names := c.names()
	return c, all(delivery.Assignments, c.assignments, len(names), names...)
}

func median[T cmp.Ordered](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}
