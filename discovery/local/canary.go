package local

import (
	"context"
	"sync"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Canary is the registry of canaries of the local source. It is in memory: what nobody
// declared is not written to the store. It is safe for concurrent use.
type Canary struct {
	mu      sync.Mutex // guards what follows
	now     model.Canary
	changed chan struct{} // closed when now is another one
}

var _ discovery.Registry = (*Canary)(nil)

// NewCanary returns a registry without any.
func NewCanary() *Canary { return &Canary{changed: make(chan struct{})} }

// Flip implements discovery.Registry.
func (c *Canary) Flip(_ context.Context, to model.Canary) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = to
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

// Retire implements discovery.Registry.
func (c *Canary) Retire(ctx context.Context, _ string) error { return c.Flip(ctx, model.Canary{}) }

// state is what is registered, and a channel that is closed when it is another; nil is
// a registry without any for ever.
func (c *Canary) state() (model.Service, <-chan struct{}) {
	svc := model.Service{Key: model.CanaryKey(spec.SourceLocal)}
	if c == nil {
		return svc, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now.ID != "" {
		svc.Endpoints = []model.Endpoint{{
			ID: c.now.ID, Address: "127.0.0.1:9", Health: model.Healthy, Weight: c.now.Value, Origin: model.Origin{Source: spec.SourceLocal, Key: svc.Key.String()},
		}}
	}
	return svc, c.changed
}
