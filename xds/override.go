package xds

import (
	"maps"
	"slices"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

func overridesOf(all []model.Override) map[string][]model.Override {
	out := map[string][]model.Override{}
	for _, o := range all {
		out[o.Upstream] = append(out[o.Upstream], o)
	}
	return out
}

// override takes up what operators say of endpoints, and re-makes what that touches.
func (p *Publisher) override() {
	next := overridesOf(p.cfg.Store.Overrides())
	p.mu.Lock()
	defer p.mu.Unlock()
	if maps.EqualFunc(p.overrides, next, slices.Equal) {
		return
	}
	touched := map[model.ServiceKey]bool{}
	for _, by := range []map[string][]model.Override{p.overrides, next} {
		for name := range by {
			if slices.Equal(p.overrides[name], next[name]) {
				continue
			}
			if u, ok := p.spec.Upstream(name); ok {
				touched[u.Key(name)] = true
			}
			if pub := p.published[name]; pub != nil {
				touched[pub.key] = true
			}
			for assignment := range p.older {
				if d := p.definitions[assignment]; d.name == name {
					touched[d.body.Key(name)] = true
				}
			}
		}
	}
	p.overrides = next
	p.publish(touched)
}

// serviceOf is a service as an upstream uses it: the last authoritative answer, and
// what an operator says of its endpoints. mu is held.
func (p *Publisher) serviceOf(upstream string, k model.ServiceKey) *model.Service {
	return p.service(k).Overridden(p.overrides[upstream])
}

// Endpoints are those that an upstream uses, as they are published, and a problem for
// each that it cannot; false where there is no such upstream.
func (p *Publisher) Endpoints(upstream string) ([]model.Endpoint, []model.Problem, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u, ok := p.spec.Upstream(upstream)
	if !ok {
		return nil, nil, false
	}
	eps, problems := u.Select(upstream, p.serviceOf(upstream, u.Key(upstream)))
	return eps, problems, true
}
