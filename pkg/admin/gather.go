package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/probe"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// adminsAtOnce are asked for all that they hold; each takes a second at least.
const adminsAtOnce = 32

// What gathering may take: each part by itself, and all together.
const (
	gatherAll  = 1900 * time.Millisecond
	gatherDisk = time.Second
	lookApart  = time.Second // two looks at counters
	explained  = 6           // proxies whose admins are asked for all
	lastHour   = time.Hour
)

// gather collects what is known of an upstream, or of what one proxy has of it: what must
// be asked for in parallel, each part with a deadline, and then what is in memory, so that
// it is of the time of the answers. What did not answer is said.
func (s *server) gather(ctx context.Context, name, proxy string) (c diagnose.Case, err error) {
	if err := s.remember(ctx, &c, name, proxy); err != nil {
		return c, err
	}
	var wg sync.WaitGroup
	var notAsked [3][]string
	wg.Go(func() { c.Events, notAsked[0] = s.happened(ctx, c.Health.Service, name) })
	wg.Go(func() { c.Asked, notAsked[1] = s.askEnvoys(ctx, name, c.Streams, c.Health.Seen) })
	wg.Go(func() { c.Probes, notAsked[2] = s.probe(ctx, name, c.Spec, c.Endpoints, c.Views) })
	wg.Wait()
	if err := s.remember(ctx, &c, name, proxy); err != nil {
		return c, err
	}
	c.NotAsked = slices.Concat(notAsked[:]...)
	if proxy != "" {
		c.NotAsked = append(c.NotAsked, "how its requests failed: that is counted for all proxies together")
	}
	since := c.Since()
	var cut []string
	c.Changes, cut = s.touching(name, c.Spec, since)
	c.HistoryRead, c.NotAsked = len(cut) == 0, append(c.NotAsked, cut...)
	if !since.IsZero() && proxy == "" {
		c.Requests, c.Lost = s.lost(name, since)
	}
	return c, nil
}

// remember fills in what is in memory.
func (s *server) remember(ctx context.Context, c *diagnose.Case, name, proxy string) error {
	sp := s.withImports()
	u, ok := sp.Upstream(name)
	if !ok {
		return failed(s.notFound(spec.Ref{Kind: spec.KindUpstream, Name: name}))
	}
	of := func(id string) bool { return proxy == "" || id == proxy }
	c.At, c.Upstream, c.Spec, c.Known = time.Now(), name, u, s.Catalog.Entry(u.Key(name))
	c.Views = slices.DeleteFunc(s.Seen.Views(name, true), func(v fleet.View) bool { return !of(v.Proxy) })
	c.Health, _ = s.Health.HealthBy(name, c.Views)
	c.Endpoints, c.Problems, _ = s.Publisher.Endpoints(name)
	if c.Known.Service != nil {
		c.Problems = append(slices.Clone(c.Problems), c.Known.Service.Problems...)
	}
	for _, x := range s.Catalog.Sources() {
		if k := u.Key(name); x.Name == k.Source && x.Datacenter == k.Datacenter {
			c.LastFresh = x.LastFresh
		}
	}
	if proxy == "" {
		c.Failures, c.Reasons = s.Seen.Failures(name)
	} else if c.Health.Seen != nil {
		c.Health.Seen.Requests, c.Health.Seen.Failed = 0, 0 // of all proxies together
	}
	c.Groups, c.Streams, c.Members = groupsOf(sp, name), nil, nil
	for _, st := range s.Fleet.Streams(ctx) {
		if slices.Contains(c.Groups, st.Group) && of(st.ID) {
			c.Streams = append(c.Streams, st)
		}
	}
	for _, m := range s.Seen.Proxies() {
		if slices.Contains(c.Groups, m.Group) && of(m.ID) {
			c.Members = append(c.Members, m)
		}
	}
	if proxy != "" && len(c.Members) == 0 {
		return newError(http.StatusNotFound, fmt.Sprintf("no proxy %q reaches upstream %s; wellspring proxies lists them", proxy, name))
	}
	c.Refused = s.Fleet.Refused()
	return nil
}

func groupsOf(sp *spec.Spec, upstream string) (out []string) {
	for _, d := range sp.Documents(spec.KindGroup) {
		if slices.Contains(sp.Upstreams(d.Name), upstream) {
			out = append(out, d.Name)
		}
	}
	return out
}

// happened are the events of the last hour that are of an upstream, of its service or its
// source, oldest first: those in memory and, where that is not an hour long, on disk.
func (s *server) happened(ctx context.Context, k model.ServiceKey, upstream string) (out []model.Event, notAsked []string) {
	from := time.Now().Add(-lastHour)
	all := s.Events.Last(maxEvents)
	if len(all) < maxEvents && (len(all) == 0 || all[0].Time.After(from)) { // more is not read from disk either
		ctx, cancel := context.WithTimeout(ctx, gatherDisk)
		defer cancel()
		recorded, err := s.Recorded.Between(ctx, from, time.Time{}, maxEvents)
		if err != nil {
			notAsked = append(notAsked, "events before this server began: "+err.Error())
		} else {
			all = recorded
		}
	}
	source := model.ServiceKey{Source: k.Source, Datacenter: k.Datacenter}
	for _, e := range all {
		switch {
		case e.Time.Before(from):
		case e.Subject.Kind == "Service" && e.Subject.Name == k.String(),
			e.Subject.Kind == string(spec.KindUpstream) && e.Subject.Name == upstream,
			e.Subject.Kind == "Source" && e.Subject.Name == source.String(),
			e.Subject.Kind == "External", strings.HasPrefix(e.Kind, "certificate."):
			out = append(out, e)
		}
	}
	return out, notAsked
}

const maxEvents = 10_000

// askEnvoys asks the admins of some proxies for all that they hold, first of those that
// have it worst, and for their counters twice.
func (s *server) askEnvoys(ctx context.Context, upstream string, streams []model.Stream, seen *health.Seen) (out []diagnose.Asked, notAsked []string) {
	who := worstFirst(streams, seen)
	all, errs := make([]*diagnose.Asked, len(who)), make([]error, len(who))
	var wg sync.WaitGroup
	for i, p := range who {
		wg.Go(func() { all[i], errs[i] = s.askEnvoy(ctx, p, upstream) })
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

// worstFirst picks whom to ask: those that have it worst, then one of each zone.
func worstFirst(streams []model.Stream, seen *health.Seen) (out []model.Proxy) {
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
	take(func(st model.Stream) bool { return bad[st.ID] }, explained/2)
	take(func(st model.Stream) bool { return !zones[st.Locality.Zone] }, explained)
	take(func(model.Stream) bool { return true }, explained/2)
	return out
}

func (s *server) askEnvoy(ctx context.Context, p model.Proxy, upstream string) (*diagnose.Asked, error) {
	client, err := s.Admins.Client(p)
	if err != nil {
		return nil, err
	}
	select {
	case s.admins <- struct{}{}:
		defer func() { <-s.admins }()
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
	a.Dump, err = client.DumpOf(ctx, upstream)
	return a, err
}

// probe tries endpoints from here: first those that a proxy would not use.
func (s *server) probe(ctx context.Context, name string, u *spec.Upstream, endpoints []model.Endpoint, views []fleet.View) ([]probe.Result, []string) {
	if s.Prober == nil {
		return nil, []string{"endpoints themselves: probes are switched off (probe.enabled)"}
	}
	if u.Hostnames() || len(endpoints) == 0 {
		return nil, nil // what a name is here need not be what it is at a proxy
	}
	t := probe.Target{Name: name, Spec: u}
	var err error
	if t.TLS, err = s.ClientTLS(name); err != nil {
		return nil, []string{"endpoints themselves: " + err.Error()}
	}
	out := map[string]bool{}
	for _, v := range views {
		for _, e := range v.Endpoints {
			out[e.Address] = out[e.Address] || !e.Healthy
		}
	}
	for _, bad := range []bool{true, false} {
		for _, e := range endpoints {
			if out[e.Address] == bad {
				t.Addresses = append(t.Addresses, e.Address)
			}
		}
	}
	results := s.Prober.Try(ctx, t)
	for _, r := range results {
		if r.Outcome == probe.NotTried {
			return results, []string{"endpoints themselves: " + r.Says}
		}
	}
	return results, nil
}

// lost counts the requests since a time, to the minute; of more than an hour, to the hour.
func (s *server) lost(name string, since time.Time) (requests, lost uint64) {
	minutes, hours := s.Seen.Trend(name)
	spans, from := minutes, since.Truncate(time.Minute)
	if time.Since(since) > lastHour {
		spans, from = hours, since.Truncate(time.Hour)
	}
	for _, x := range spans {
		if !x.From.Before(from) {
			requests, lost = requests+x.Requests, lost+x.Failed
		}
	}
	return max(requests, lost), lost
}
