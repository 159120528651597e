package evidence

import (
	"context"
	"reflect"
	"slices"

	"github.com/wellspring-xds/wellspring/pkg/lint"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/probe"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// A gatherer is what lint holds documents against.
var _ lint.World = (*Gatherer)(nil)

// Known implements lint.World.
func (g *Gatherer) Known(ctx context.Context, key model.ServiceKey) model.Known {
	return g.Catalog.Look(ctx, key)
}

// Happened implements lint.World.
func (g *Gatherer) Happened() []model.Event { return g.Events.Last(maxEvents) }

// Streams implements lint.World.
func (g *Gatherer) Streams(ctx context.Context) []model.Stream { return g.Fleet.Streams(ctx) }

// Replay implements lint.World. A check over TLS is tried where that is as it is served
// now: certificates of a document that is not applied are not read. Of endpoints that a
// document declares those are tried that are served now: it must not choose whom to call.
func (g *Gatherer) Replay(ctx context.Context, name string, u *spec.Upstream, endpoints []model.Endpoint) []probe.Result {
	if g.Prober == nil || u.Hostnames() {
		return nil
	}
	if u.TLS != nil {
		now, ok := g.Publisher.Spec().Upstream(name)
		if !ok || !reflect.DeepEqual(now.TLS, u.TLS) {
			return nil
		}
	}
	var addresses []string
	served, _, _ := g.Publisher.Endpoints(name)
	for _, e := range endpoints {
		if u.Key(name).Source != spec.SourceLocal || slices.ContainsFunc(served, func(x model.Endpoint) bool { return x.Address == e.Address }) {
			addresses = append(addresses, e.Address)
		}
	}
	results, _ := g.try(ctx, name, u, addresses) // one that cannot be tried says nothing
	return results
}
