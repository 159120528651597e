package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// bench runs cells; the contents that the real server answered are kept in dir.
type bench struct {
	binary  string
	dir     string
	keys    *keys
	results []*result
	churns  []churn
	setter  time.Duration
}

func (b *bench) contentDir(c cell) string {
	return filepath.Join(b.dir, fmt.Sprintf("content-%d-%d", c.Clusters, c.Endpoints))
}

// trial is a cell while it is measured.
type trial struct {
	cell
	t *target
	f *fleet
	r *result

	clients int    // that ever connected
	mark    int    // of the last change
	late    *marks // of the turns of pushes
	before  stats  // before the first push
	asking  stats  // what asking for them cost
	idle    uint64 // live bytes before the first push
	pushed  int    // pushes that were counted
}

// together measures cells in turns. The first one's server is the real one, whose
// content the others serve.
func (b *bench) together(cells ...cell) error {
	var trials []*trial
	defer func() {
		for _, r := range trials {
			r.f.close()
			r.t.stop()
		}
	}()
	for _, c := range cells {
		fmt.Fprintf(os.Stderr, "%s …\n", c)
		r, err := b.start(c)
		if err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
		trials = append(trials, r)
	}
	busy, stolen := machine()
	for _, phase := range []struct {
		turns func(cell) int
		do    func(*trial, int) error
	}{
		{func(c cell) int { return max(1, c.Colds) }, (*trial).cold},
		{func(c cell) int { return c.Turns }, (*trial).push},
		{func(c cell) int { return min(1, c.Turns) }, (*trial).pushedAll},
		{func(c cell) int { return c.Storms }, (*trial).storm},
	} {
		for turn, more := 0, true; more; turn++ {
			more = false
			for _, r := range trials {
				if turn >= phase.turns(r.cell) {
					continue
				}
				more = true
				if err := phase.do(r, turn); err != nil {
					return fmt.Errorf("%s: %w", r.cell, err)
				}
			}
		}
	}
	busyThen, stolenThen := machine()
	for _, r := range trials {
		r.r.Stolen = (stolenThen - stolen) / max(1, busyThen-busy)
		b.results = append(b.results, r.r)
	}
	return nil
}

// start begins a cell's server.
func (b *bench) start(c cell) (r *trial, err error) {
	dir, err := os.MkdirTemp(b.dir, "cell-")
	if err != nil {
		return nil, err
	}
	r = &trial{cell: c, r: &result{cell: c}}
	if c.Server == "wellspring" {
		r.t, err = startReal(b.binary, dir, c, b.keys)
	} else {
		r.t, err = startPeer(b.contentDir(c), c)
	}
	if err == nil {
		err = b.meet(r)
	}
	if err != nil && r.t != nil {
		r.t.stop()
	}
	return r, err
}

// meet makes the clients of a server that was started.
func (b *bench) meet(r *trial) error {
	dir := b.contentDir(r.cell)
	if r.Server == "wellspring" {
		if err := learn(r.t.address, b.keys.credentials(r.TLS), dir, r.Clusters); err != nil {
			return err
		}
	}
	content, err := load(dir)
	if err != nil {
		return err
	}
	names := content.names()
	r.f = &fleet{address: r.t.address, sotw: r.SotW, fullNode: r.FullNode, subscribe: subscriptions(names), want: len(names), moving: r.moving()}
	if r.TLS {
		r.f.tls = b.keys.client()
	}
	return nil
}

// cold connects all streams at once, those of the turn before being gone.
func (r *trial) cold(turn int) error {
	if turn > 0 {
		r.f.close()
		time.Sleep(500 * time.Millisecond) // for the server to see it
	}
	empty, err := r.t.stats()
	if err != nil {
		return err
	}
	n := r.Streams + r.Stopped
	cpu, began := r.t.cpu(), time.Now()
	if err := r.f.connect(r.clients, n); err != nil {
		return err
	}
	r.clients += n
	r.r.ColdWall = append(r.r.ColdWall, time.Since(began).Seconds())
	time.Sleep(settle)
	r.r.ColdCPU = append(r.r.ColdCPU, millis(r.t.cpu()-cpu)/float64(n))
	if turn > 0 {
		return nil
	}
	time.Sleep(time.Second) // what is idle is measured
	full, err := r.t.stats()
	r.r.KB = (float64(full.Live) - float64(empty.Live)) / 1024 / float64(n)
	return err
}

// push makes one change after the other, each when all have the one before.
func (r *trial) push(turn int) error {
	if turn == 0 {
		r.late = newMarks(2+r.Turns*r.Pushes, r.Streams)
		r.f.marks = r.late
		if err := r.beforeAll(); err != nil {
			return err
		}
	}
	cpu := r.t.cpu()
	for range r.Pushes {
		if err := r.one(); err != nil {
			return err
		}
		time.Sleep(settle) // each push and its acknowledgements are apart from the next
	}
	r.r.CPU = append(r.r.CPU, float64(r.t.cpu()-cpu)/float64(time.Microsecond)/float64(r.Pushes*r.Streams))
	r.pushed += r.Pushes
	return nil
}

// beforeAll stops those that are to read nothing, has made what is made once, and
// asks what the server has allocated so far.
func (r *trial) beforeAll() error {
	idle, err := r.t.stats()
	if err != nil {
		return err
	}
	r.f.stop(r.Stopped)
	if err := r.one(); err != nil {
		return err
	}
	time.Sleep(settle)
	asked, err := r.t.stats()
	if err != nil {
		return err
	}
	if r.before, err = r.t.stats(); err != nil {
		return err
	}
	r.asking = stats{Mallocs: r.before.Mallocs - asked.Mallocs, AllocBytes: r.before.AllocBytes - asked.AllocBytes}
	r.idle = idle.Live
	r.late.late = histogram{}
	r.f.bytes.Store(0)
	return nil
}

// pushedAll tells what all turns of pushes cost.
func (r *trial) pushedAll(int) error {
	wire := r.f.bytes.Load()
	after, err := r.t.stats()
	if err != nil {
		return err
	}
	n := float64(r.pushed * r.Streams)
	r.r.Allocs = float64(int64(after.Mallocs-r.before.Mallocs-r.asking.Mallocs)) / n
	r.r.Bytes = float64(int64(after.AllocBytes-r.before.AllocBytes-r.asking.AllocBytes)) / n
	r.r.Wire = float64(wire) / n
	r.r.P50, r.r.P99 = millis(r.late.late.quantile(0.5)), millis(r.late.late.quantile(0.99))
	if r.Stopped > 0 {
		r.r.StoppedKB = (float64(after.Live) - float64(r.idle)) / 1024 / float64(r.Stopped)
	}
	if r.Profiled == "" {
		return nil
	}
	r.f.marks = newMarks(r.mark+profiledPushes, r.Streams)
	profile := make(chan error, 1)
	go func() { profile <- r.t.profile(r.Profiled) }()
	for range profiledPushes {
		if err := r.one(); err != nil {
			return err
		}
	}
	return <-profile
}

// profiledPushes follow each other while a profile is taken.
const profiledPushes = 60

// settle is how long the server has for the last acknowledgements of a push.
const settle = 60 * time.Millisecond

// one makes a change and waits until all have it.
func (r *trial) one() error {
	r.mark++
	r.f.marks.make(r.mark)
	if err := r.t.flip(r.mark, 0); err != nil {
		return err
	}
	select {
	case <-r.f.marks.done:
		return nil
	case err := <-r.f.failed:
		return err
	case <-time.After(time.Minute):
		return fmt.Errorf("change %d did not arrive: %d streams lack it", r.mark, r.f.marks.left[r.mark].Load())
	}
}

// window is that of servers that have none of their own.
const window = 50 * time.Millisecond

// absorbed is how long after a storm its last change may arrive.
const absorbed = 20 * time.Second

// storm makes a hundred changes a second, whoever has them by then.
func (r *trial) storm(int) error {
	r.f.marks = newMarks(r.mark+r.Changes, r.Streams)
	r.f.messages.Store(0)
	cpu, began := r.t.cpu(), time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range r.Changes {
		<-tick.C
		r.mark++
		r.f.marks.make(r.mark)
		if err := r.t.flip(r.mark, window); err != nil {
			return err
		}
	}
	took := time.Since(began)
	late, lost := &r.f.marks.late, time.After(absorbed)
	for n, over := 0, false; n < r.Changes && !over; n++ {
		select {
		case <-r.f.marks.done:
		case err := <-r.f.failed:
			return err
		case <-lost:
			r.r.StormLost += r.Changes - n
			for range (r.Changes - n) * r.Streams { // so that it is no merit
				late.add(absorbed)
			}
			over = true
		}
	}
	time.Sleep(settle)
	r.r.StormCPU = append(r.r.StormCPU, float64(r.t.cpu()-cpu)/float64(took)) // all that it costs, by how long changes came
	r.r.StormRate = append(r.r.StormRate, float64(r.f.messages.Load())/float64(r.Streams)/took.Seconds())
	r.r.StormP50 = append(r.r.StormP50, millis(late.quantile(0.5)))
	r.r.StormP99 = append(r.r.StormP99, millis(late.quantile(0.99)))
	return nil
}
