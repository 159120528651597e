package consul

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/consul/api"
	"golang.org/x/time/rate"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// watch follows one key.
type watch struct {
	*runner
	key   model.ServiceKey
	known map[string]bool // ids last reported
	index uint64          // 0: read plainly next
}

// run reads until ctx ends.
func (w *watch) run(ctx context.Context) {
	pause := newBackoff()
	for ctx.Err() == nil {
		started := time.Now()
		failed := w.step(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case failed.Err != nil:
			w.report(w.key, failed)
			w.index = 0
			if !sleep(ctx, pause.NextBackOff()) {
				return
			}
		default:
			pause.Reset()
			if !sleep(ctx, minInterval-time.Since(started)) {
				return
			}
		}
	}
}

// step reads once and reports. It returns a failure for its caller to report.
func (w *watch) step(ctx context.Context) discovery.Failed {
	if w.index == 0 {
		return w.take(w.plainRead(ctx, w.key))
	}
	a := w.blockingRead(ctx, w.key, w.index)
	switch {
	case a.failed.Err != nil:
		return a.failed
	case a.index < w.index:
		// A restored snapshot or an empty cache. Waiting for the old index would
		// hang until the registry caught up with it.
		w.index = 0
		return discovery.Failed{}
	case w.suspicious(a.entries):
		w.index = 0
		return w.take(w.plainRead(ctx, w.key))
	}
	return w.take(a)
}

// take reports an answer that is believed.
func (w *watch) take(a answer) discovery.Failed {
	if a.failed.Err != nil {
		return a.failed
	}
	w.index = a.index
	w.known = ids(a.entries)
	w.report(w.key, w.reportOf(w.key, a.entries))
	return discovery.Failed{}
}

// suspicious tells whether an answer takes so much away that a plain read must
// confirm it: everything, or more than half of three or more.
func (w *watch) suspicious(entries []*api.ServiceEntry) bool {
	if len(entries) == 0 {
		return true
	}
	now, lost := ids(entries), 0
	for id := range w.known {
		if !now[id] {
			lost++
		}
	}
	return len(w.known) >= 3 && lost*2 > len(w.known)
}

func ids(entries []*api.ServiceEntry) map[string]bool {
	m := make(map[string]bool, len(entries))
	for _, e := range entries {
		if e != nil && e.Node != nil && e.Service != nil {
			m[e.Node.Node+"/"+e.Service.ID] = true
		}
	}
	return m
}

// newBackoff is 250 ms doubling to 15 s, ±50 %.
func newBackoff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier = 250*time.Millisecond, 15*time.Second, 2
	return b
}

// round is the keys that are polled for want of connections.
type round struct {
	mu   sync.Mutex
	keys []model.ServiceKey
	wake chan struct{}
}

func newRound() *round { return &round{wake: make(chan struct{}, 1)} }

func (r *round) set(keys []model.ServiceKey) {
	r.mu.Lock()
	r.keys = keys
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *round) has(k model.ServiceKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.keys, k)
}

func (r *round) get() []model.ServiceKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys
}

// poll reads the surplus keys round after round, pollParallel at once and at
// most pollRate a second; a round takes as long as it takes.
func (r *runner) poll(ctx context.Context) {
	limit := rate.NewLimiter(pollRate, 1)
	slots := make(chan struct{}, pollParallel)
	for {
		keys := r.polled.get()
		if len(keys) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-r.polled.wake:
			}
			continue
		}
		var wg sync.WaitGroup
		for _, k := range keys {
			if limit.Wait(ctx) != nil {
				break
			}
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				a := r.plainRead(ctx, k)
				switch {
				case ctx.Err() != nil, !r.polled.has(k): // it has a watch by now
				case a.failed.Err != nil:
					r.report(k, a.failed)
				default:
					r.report(k, r.reportOf(k, a.entries))
				}
			})
		}
		wg.Wait()
		if !sleep(ctx, minInterval+rand.N(minInterval)) {
			return
		}
	}
}
