package telemetry

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/envoyadmin"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Asker asks the admins of proxies that should report and do not: with an old
// bootstrap, or cut off from the telemetry listener. A few at a time; what they answer
// is what they hold now, without counts.
type Asker struct {
	Fleet *fleet.Fleet
	// Wanted is what a group asks its proxies to report.
	Wanted func(group string) model.Telemetry
	// Client is for a proxy's admin, or says why it may not be asked.
	Client func(model.Proxy) (*envoyadmin.Client, error)

	next string // the last id that was asked
}

const (
	askEvery  = 10 * time.Second
	maxAsked  = 50 // in one round
	askAtOnce = 5
)

// Run asks until ctx ends.
func (a *Asker) Run(ctx context.Context) error {
	t := time.NewTicker(askEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			a.round(ctx)
		}
	}
}

// round asks those whose turn it is.
func (a *Asker) round(ctx context.Context) {
	slots := make(chan struct{}, askAtOnce)
	var wg sync.WaitGroup
	for _, p := range a.turn() {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			a.ask(ctx, p)
		})
	}
	wg.Wait()
}

// turn lists the next of those that do not report.
func (a *Asker) turn() []model.Proxy {
	var silent []model.Proxy
	for _, p := range a.Fleet.Proxies() {
		if p.Gone.IsZero() && p.Reports.State != fleet.ReportsVerified && !strings.HasPrefix(p.Agent, "gRPC") && a.Wanted(p.Group).Includes(model.TelemetryUpstreams) {
			silent = append(silent, p.Proxy)
		}
	}
	if len(silent) > maxAsked {
		i, _ := slices.BinarySearchFunc(silent, a.next, func(p model.Proxy, id string) int {
			if p.ID <= id {
				return -1
			}
			return 1
		})
		silent = slices.Concat(silent[i:], silent[:i])[:maxAsked]
		a.next = silent[maxAsked-1].ID
	}
	return silent
}

// ask has one proxy's answer stand for a report.
func (a *Asker) ask(ctx context.Context, p model.Proxy) {
	c, err := a.Client(p)
	if err != nil {
		return // who asks for the proxy's health is told why
	}
	clusters, err := c.AllClusters(ctx)
	if err != nil {
		return
	}
	r := a.Fleet.OpenAsked(p.ID)
	if r == nil {
		return
	}
	defer r.Close()
	for name, hosts := range clusters {
		if strings.HasPrefix(name, bootstrap.Reserved) {
			continue
		}
		healthy, degraded, excluded := envoyadmin.Count(hosts)
		counts := map[fleet.Metric]int{fleet.Members: len(hosts), fleet.Healthy: healthy, fleet.Degraded: degraded, fleet.Excluded: excluded}
		for _, h := range hosts {
			point := fleet.Point{Metric: fleet.EndpointHealthy, Upstream: []byte(name), Endpoint: []byte(h.Address)}
			if h.Usable && !h.Degraded {
				point.Value = 1
			}
			r.Add(point)
		}
		for metric, n := range counts {
			r.Add(fleet.Point{Metric: metric, Upstream: []byte(name), Value: uint64(n)}) //nolint:gosec // a count
		}
	}
}
