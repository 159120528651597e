package evidence

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/probe"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// around adds what others have to do with it.
func (g *Gatherer) around(c *diagnose.Case) {
	key := c.Health.Service
	c.Unseen = g.unseen(key)
	c.Minutes, _ = g.Seen.Trend(c.Upstream)
	if c.Health.State == health.Healthy {
		return // nobody is out that others could have to do with
	}
	c.Elsewhere = elsewhere(g.Publisher.Spec(), g.Catalog.Entry, key, c.Endpoints)
	c.Together, c.TogetherBy = together(g.Events.Last(maxEvents), key)
}

// mostNames of an upstream are resolved, each within resolveIn.
const (
	mostNames = 8
	resolveIn = time.Second
)

// resolve asks this machine's resolver for the names of an upstream.
func resolve(ctx context.Context, u *spec.Upstream, endpoints []model.Endpoint) (out []string) {
	if !u.Hostnames() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveIn)
	defer cancel()
	names := map[string]bool{}
	if u.DNS != nil {
		for _, h := range u.DNS.Hosts {
			if host, _, err := net.SplitHostPort(h); err == nil {
				names[host] = true
			}
		}
	}
	for _, e := range endpoints {
		if host, _, err := net.SplitHostPort(e.Address); err == nil {
			names[host] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names))[:min(len(names), mostNames)] {
		all, err := net.DefaultResolver.LookupHost(ctx, name)
		if err != nil {
			return nil // a part of them says nothing
		}
		out = append(out, all...)
	}
	return out
}

// leftLately is for how long an address that left is still tried: it was this upstream's.
const leftLately = 10 * time.Minute

// tryLeft tries addresses that left the registry lately and did not come back.
func (g *Gatherer) tryLeft(ctx context.Context, u *spec.Upstream, name string, key model.ServiceKey, now []model.Endpoint, recent []model.Event) []probe.Result {
	if g.Prober == nil || u.Hostnames() || key.Source == spec.SourceLocal {
		return nil
	}
	var left []string
	for _, e := range slices.Backward(recent) {
		if time.Since(e.Time) > leftLately {
			break
		}
		there := slices.ContainsFunc(now, func(x model.Endpoint) bool { return x.Address == e.Endpoint })
		if e.Kind == model.EventEndpointRemoved && e.Subject.Name == key.String() && !there && !slices.Contains(left, e.Endpoint) {
			left = append(left, e.Endpoint)
		}
	}
	if len(left) == 0 {
		return nil
	}
	results, err := g.try(ctx, name, u, left)
	if err != nil {
		return nil // probe says it
	}
	return slices.DeleteFunc(results, func(r probe.Result) bool { return r.Outcome == probe.NotTried })
}

// elsewhere are the other services of the catalog that have an address of this one; what a
// document declares is meant so.
func elsewhere(sp *spec.Spec, entry func(model.ServiceKey) model.Known, key model.ServiceKey, endpoints []model.Endpoint) map[string][]string {
	if key.Source == spec.SourceLocal {
		return nil
	}
	mine := map[string]bool{}
	for _, e := range endpoints {
		mine[e.Address] = true
	}
	out := map[string][]string{}
	for _, d := range sp.Documents(spec.KindUpstream) {
		u, ok := d.Body.(*spec.Upstream)
		if !ok {
			continue
		}
		other := u.Key(d.Name)
		if other == key {
			continue
		}
		svc := entry(other).Service
		if svc == nil {
			continue
		}
		for _, e := range svc.Endpoints {
			if mine[e.Address] && !slices.Contains(out[e.Address], other.Name) {
				out[e.Address] = append(out[e.Address], other.Name)
			}
		}
	}
	return out
}

// sameMoment is how far apart checks fail that fail by one cause.
const sameMoment = 30 * time.Second

// together are the services whose checks failed when this one's last did, with the same
// words; none where these say nothing.
func together(events []model.Event, key model.ServiceKey) (out []string, words string) {
	var at time.Time
	for _, e := range slices.Backward(events) {
		if fails(e) && e.Subject.Name == key.String() {
			at, words = e.Time, outputOf(e)
			break
		}
	}
	if len(words) < leastWords {
		return nil, ""
	}
	for _, e := range events {
		if fails(e) && e.Subject.Name != key.String() && e.Time.Sub(at).Abs() <= sameMoment && outputOf(e) == words && !slices.Contains(out, e.Subject.Name) {
			out = append(out, e.Subject.Name)
		}
	}
	return out, words
}

// leastWords of a check's output name something.
const leastWords = 12

func fails(e model.Event) bool {
	return e.Kind == model.EventEndpointHealth && e.To == string(model.Unhealthy)
}

// outputOf is the first line of what a check says. Its name is before that, and has the
// service's in it where nobody gave it another one.
func outputOf(e model.Event) string {
	line, _, _ := strings.Cut(strings.TrimSpace(e.Reason), "\n")
	if _, words, ok := strings.Cut(line, ": "); ok {
		return words
	}
	return line
}

func (g *Gatherer) unseen(key model.ServiceKey) time.Duration {
	if g.Unseen == nil || key.Datacenter != "" {
		return 0
	}
	return g.Unseen(key.Source)
}
