package lint

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/probe"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// World is what runs. It is safe for concurrent use.
type World interface {
	// Known is what the source of a service says, asked for the occasion where nobody
	// watches it.
	Known(ctx context.Context, key model.ServiceKey) model.Known
	// Happened are the events in memory, oldest first.
	Happened() []model.Event
	Streams(ctx context.Context) []model.Stream
	// Replay tries an upstream's health check at endpoints; nil tries none.
	Replay(ctx context.Context, name string, u *spec.Upstream, endpoints []model.Endpoint) []probe.Result
}

// What it may take.
const (
	atOnce   = 8
	deadline = 5 * time.Second
)

// Living holds some of a Spec's documents against what runs. tries tells of which upstreams
// the health check is tried. What there was no time for is said.
func Living(ctx context.Context, s *spec.Spec, of []*spec.Document, w World, tries func(d *spec.Document, u *spec.Upstream) bool) []spec.Fault {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	x := living{World: w, events: w.Happened(), local: map[model.ServiceKey]*model.Service{}, tries: tries}
	for _, svc := range s.LocalServices() {
		x.local[svc.Key] = &svc
	}
	found := make([][]spec.Fault, len(of))
	var late atomic.Int32
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, d := range of {
		u, ok := d.Body.(*spec.Upstream)
		if !ok || u.Key(d.Name).Source == spec.SourceLocal && len(u.HealthChecks) == 0 || u.DNS != nil && len(u.DNS.Hosts) > 0 {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if ctx.Err() == nil {
				found[i] = x.upstream(ctx, d, u)
			}
			if ctx.Err() != nil { // what did not answer by then is no finding
				late.Add(1)
				found[i] = nil
			}
		})
	}
	wg.Wait()
	all := s.Heeded(slices.Concat(found...))
	if n := late.Load(); n > 0 {
		all = append(all, spec.Fault{Document: string(spec.KindUpstream), Message: fmt.Sprintf("%d upstreams were not held against what runs: there was no time; send fewer documents", n)})
	}
	return all
}

// living is what runs, as one call looks at it.
type living struct {
	World
	events []model.Event
	local  map[model.ServiceKey]*model.Service
	tries  func(d *spec.Document, u *spec.Upstream) bool
}

// upstream holds one against its source and its endpoints.
func (x *living) upstream(ctx context.Context, d *spec.Document, u *spec.Upstream) (out []spec.Fault) {
	key := u.Key(d.Name)
	svc := x.local[key] // what is declared, maybe only now
	if key.Source != spec.SourceLocal {
		k := x.Known(ctx, key)
		if svc = k.Service; svc == nil {
			if k.Failure != nil {
				out = append(out, d.Advise(spec.AdviceNotReadable, "spec.service", "source %s: %v", key.Source, k.Failure))
			}
			return out
		}
	}
	endpoints, _ := u.Select(d.Name, svc)
	if key.Source != spec.SourceLocal {
		switch {
		case len(endpoints) > 0:
			out = append(out, few(d, u, len(endpoints))...)
		case len(svc.Endpoints) > 0:
			out = append(out, d.Advise(spec.AdviceNoEndpoints, "spec.service", "source %s has %d instances of %s, and tags, metadata or address tag select none", key.Source, len(svc.Endpoints), key.Name))
		default:
			out = append(out, d.Advise(spec.AdviceNoEndpoints, "spec.service", "source %s knows nobody named %s", key.Source, key.Name))
		}
	}
	if len(u.HealthChecks) == 0 || len(endpoints) == 0 {
		return out
	}
	out = append(out, slow(d, u, endpoints, key, x.events)...)
	if x.tries(d, u) {
		out = append(out, replayed(d, x.Replay(ctx, d.Name, u, endpoints), endpoints)...)
	}
	return out
}

// replayed says which healthy endpoints the check fails at.
func replayed(d *spec.Document, results []probe.Result, endpoints []model.Endpoint) []spec.Fault {
	healthy := map[string]bool{}
	for _, e := range endpoints {
		healthy[e.Address] = e.Health == model.Healthy
	}
	tried, failed, says := 0, 0, ""
	for _, r := range results {
		if !r.Checked || !healthy[r.Endpoint] || r.Outcome == probe.NotTried {
			continue
		}
		if tried++; r.Outcome != probe.Passes {
			if failed++; says == "" {
				says = fmt.Sprintf("%s: %s", r.Target, r.Says)
			}
		}
	}
	if failed == 0 {
		return nil
	}
	return []spec.Fault{d.Advise(spec.AdviceCheckFails, "spec.healthChecks[0]", "it fails at %d of %d endpoints that are healthy now (%s)", failed, tried, says)}
}

// A rollout is endpoints that leave one after the other while others come.
const (
	rolloutGap = 5 * time.Minute
	together   = 100 * time.Millisecond // a registry that comes back tells of all at once
)

// pace is how long the fastest rollout of a service took for each endpoint that left;
// false where none was seen.
func pace(key model.ServiceKey, events []model.Event) (time.Duration, bool) {
	var left, came []time.Time
	var first time.Time // this process tells of all that are there when it begins
	for _, e := range events {
		switch {
		case e.Subject.Kind != "Service" || e.Subject.Name != key.String():
		case e.Kind == model.EventEndpointRemoved:
			left = append(left, e.Time)
		case e.Kind == model.EventEndpointAdded:
			if first.IsZero() {
				first = e.Time
			}
			if e.Time.Sub(first) > together {
				came = append(came, e.Time)
			}
		}
	}
	best, seen := time.Duration(0), false
	for i := 0; i < len(left); {
		j := i
		for j+1 < len(left) && left[j+1].Sub(left[j]) <= rolloutGap {
			j++
		}
		in := 0
		for _, t := range came {
			if t.After(left[i].Add(-rolloutGap)) && t.Before(left[j].Add(rolloutGap)) {
				in++
			}
		}
		if n := j - i; n > 0 && in > n { // as many came as left
			if p := left[j].Sub(left[i]) / time.Duration(n); p > together && (!seen || p < best) {
				best, seen = p, true
			}
		}
		i = j + 1
	}
	return best, seen
}

// slow says that more endpoints are replaced than may be missing while the check notices
// one.
func slow(d *spec.Document, u *spec.Upstream, endpoints []model.Endpoint, key model.ServiceKey, events []model.Event) []spec.Fault {
	p, seen := pace(key, events)
	if !seen {
		return nil
	}
	h := u.HealthChecks[0]
	notices := h.Interval.D()*time.Duration(h.UnhealthyThreshold) + h.Timeout.D()
	between := min(len(endpoints), int((notices+p-1)/p))
	if between < 2 || between*2 < len(endpoints) {
		return nil
	}
	return []spec.Fault{d.Advise(spec.AdviceSlowCheck, "spec.healthChecks[0].interval", "a check notices a dead endpoint after %s (interval × unhealthyThreshold + timeout), and the fastest rollout replaced one each %s: %d of %d may be dead and in use at once", notices, p.Round(100*time.Millisecond), between, len(endpoints))}
}

// Settled leaves out what is of Envoys that are not there: warnings of those before 1.40,
// in groups of which proxies are connected, and every one is newer.
func Settled(s *spec.Spec, all []spec.Fault, streams []model.Stream) []spec.Fault {
	connected, olds := map[string]int{}, map[string]bool{}
	for _, st := range streams {
		connected[st.Group]++
		olds[st.Group] = olds[st.Group] || before140(st.Version)
	}
	return slices.DeleteFunc(all, func(f spec.Fault) bool {
		if f.Code != spec.AdviceFirstCheck && f.Code != spec.AdviceLocalities {
			return false
		}
		leads := false
		for _, g := range s.Documents(spec.KindGroup) {
			if slices.ContainsFunc(s.Upstreams(g.Name), func(name string) bool { return f.Document == string(spec.KindUpstream)+"/"+name }) {
				if connected[g.Name] == 0 || olds[g.Name] {
					return false
				}
				leads = true
			}
		}
		return leads
	})
}

// before140 tells whether an Envoy is older; what cannot be read is.
func before140(version string) bool {
	minor := 0
	_, err := fmt.Sscanf(version, "1.%d", &minor)
	return err != nil || minor < 40
}

// NoProxies are the groups with listeners of which no proxy is connected.
func NoProxies(s *spec.Spec, streams []model.Stream) (out []spec.Fault) {
	for _, d := range s.Documents(spec.KindGroup) {
		g, ok := d.Body.(*spec.Group)
		if ok && len(g.Listeners) > 0 && !slices.ContainsFunc(streams, func(st model.Stream) bool { return st.Group == d.Name }) {
			out = append(out, d.Advise(spec.AdviceNoProxies, "name", "no proxy of this group is connected"))
		}
	}
	return s.Heeded(out)
}
