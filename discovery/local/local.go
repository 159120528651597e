// Package local is the source of the services that operators declare in
// documents: Service documents and the short form in upstreams.
package local

import (
	"context"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Store is where the documents are. Both methods return at once; the channel is
// closed when what Spec returns moves on.
type Store interface {
	Spec() *spec.Spec
	Changed() <-chan struct{}
}

// Source reads the declared services, and the canary's. It never fails.
type Source struct {
	Store  Store
	Canary *Canary // nil has none
}

// Run implements discovery.Source.
func (s Source) Run(ctx context.Context, want <-chan []model.ServiceKey, report func(model.ServiceKey, discovery.Report)) error {
	var keys []model.ServiceKey
	for {
		changed := s.Store.Changed()
		report(model.ServiceKey{Source: spec.SourceLocal}, discovery.Fresh{})
		services := map[model.ServiceKey]model.Service{}
		for _, svc := range s.Store.Spec().LocalServices() {
			services[svc.Key] = svc
		}
		canary, flipped := s.Canary.state()
		services[canary.Key] = canary
		for _, k := range keys {
			svc, ok := services[k]
			switch {
			case !ok:
				report(k, discovery.Absent{})
			case len(svc.Endpoints) == 0:
				report(k, discovery.Empty{})
			default:
				report(k, discovery.Present{Endpoints: svc.Endpoints})
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case keys = <-want:
		case <-changed:
		case <-flipped:
		}
	}
}
