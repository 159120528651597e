package evidence

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/envoyadmin"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/probe"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// askEnvoys asks the admins of some proxies for all that they hold, first of those that
// have it worst, and for their counters twice.
func (g *Gatherer) askEnvoys(ctx context.Context, how *asking, upstream string, streams []model.Stream, seen *health.Seen) (out []diagnose.Asked, notAsked []string) {
	who := worstFirst(streams, seen, how.proxies)
	all, errs := make([]*diagnose.Asked, len(who)), make([]error, len(who))
	var wg sync.WaitGroup
	for i, p := range who {
		wg.Go(func() { all[i], errs[i] = g.askEnvoy(ctx, how, p, upstream) })
	}
	wg.Wait()
	for i, p := range who {
		if errs[i] != nil {
			notAsked = append(notAsked, fmt.Sprintf("proxy %s: %v", p.ID, errs[i]))
			continue
		}
		out = append(out, *all[i])
	}
	if n := len(streams) - len(who); n > 0 {
		notAsked = append(notAsked, fmt.Sprintf("%d more proxies: %d were asked, and all that report are counted", n, len(who)))
	}
	return out, notAsked
}

// worstFirst picks whom to ask: those that have it worst, then one of each zone; among
// equals not always the same.
func worstFirst(streams []model.Stream, seen *health.Seen, most int) (out []model.Proxy) {
	streams = slices.Clone(streams)
	rand.Shuffle(len(streams), func(i, j int) { streams[i], streams[j] = streams[j], streams[i] })
	bad := map[string]bool{}
	if p := seen.Worst(); p != nil {
		for _, id := range p.Some {
			bad[id] = true
		}
	}
	taken, zones := map[string]bool{}, map[string]bool{}
	take := func(want func(model.Stream) bool, most int) {
		for _, st := range streams {
			if len(out) < most && !taken[st.ID] && !strings.HasPrefix(st.Agent, "gRPC") && want(st) {
				taken[st.ID], zones[st.Locality.Zone] = true, true
				out = append(out, st.Proxy)
			}
		}
	}
	half := (most + 1) / 2
	take(func(st model.Stream) bool { return bad[st.ID] }, half)
	take(func(st model.Stream) bool { return !zones[st.Locality.Zone] }, most)
	take(func(model.Stream) bool { return true }, half)
	return out
}

func (g *Gatherer) askEnvoy(ctx context.Context, how *asking, p model.Proxy, upstream string) (*diagnose.Asked, error) {
	client, err := g.Admins.Client(p)
	if err != nil {
		return nil, err
	}
	select {
	case how.slots <- struct{}{}:
		defer func() { <-how.slots }()
	case <-ctx.Done():
		return nil, errors.New("too many ask at once")
	}
	a := &diagnose.Asked{Proxy: p.ID, Zone: p.Locality.Zone}
	if a.Before, err = client.StatsOf(ctx, upstream); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(lookApart):
	}
	config, err := g.configOf(ctx, p.ID, client, how.keeps)
	if err == nil {
		a.Dump, err = client.DumpWith(ctx, config, upstream)
	}
	return a, err
}

// configOf is what a proxy is configured with, or was some time ago: it is large.
func (g *Gatherer) configOf(ctx context.Context, proxy string, client *envoyadmin.Client, keeps time.Duration) (*envoyadmin.Config, error) {
	if keeps == 0 {
		return client.ConfigOf(ctx)
	}
	g.mu.Lock()
	for id, c := range g.configs { // of those that are gone
		if id != proxy && c.mu.TryLock() {
			if time.Since(c.at) > time.Minute {
				delete(g.configs, id)
			}
			c.mu.Unlock()
		}
	}
	c := g.configs[proxy]
	if c == nil {
		c = &config{}
		g.configs[proxy] = c
	}
	g.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.is != nil && time.Since(c.at) < keeps {
		return c.is, nil
	}
	is, err := client.ConfigOf(ctx)
	if err == nil {
		c.is, c.at = is, time.Now()
	}
	return is, err
}

// probe tries endpoints from here: first those that a proxy would not use.
func (g *Gatherer) probe(ctx context.Context, name string, u *spec.Upstream, endpoints []model.Endpoint, views []fleet.View) ([]probe.Result, []string) {
	if g.Prober == nil {
		return nil, []string{"endpoints themselves: probes are switched off (probe.enabled)"}
	}
	if u.Hostnames() || len(endpoints) == 0 {
		return nil, nil // what a name is here need not be what it is at a proxy
	}
	out := map[string]bool{}
	for _, v := range views {
		for _, e := range v.Endpoints {
			out[e.Address] = out[e.Address] || !e.Healthy
		}
	}
	var addresses []string
	for _, bad := range []bool{true, false} {
		for _, e := range endpoints {
			if out[e.Address] == bad {
				addresses = append(addresses, e.Address)
			}
		}
	}
	results, err := g.try(ctx, name, u, addresses)
	if err != nil {
		return nil, []string{"endpoints themselves: " + err.Error()}
	}
	for _, r := range results {
		if r.Outcome == probe.NotTried {
			return results, []string{"endpoints themselves: " + r.Says}
		}
	}
	return results, nil
}

// try probes addresses as an upstream's endpoints; the error is why that cannot be done
// from here.
func (g *Gatherer) try(ctx context.Context, name string, u *spec.Upstream, addresses []string) ([]probe.Result, error) {
	t := probe.Target{Name: name, Spec: u, Addresses: addresses}
	if u.TLS != nil {
		var err error
		if t.TLS, err = g.ClientTLS(name); err != nil {
			return nil, err
		}
	}
	return g.Prober.Try(ctx, t), nil
}
