package xds

import (
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Health joins every declared upstream with what is known of its service, by
// name.
func (p *Publisher) Health() []health.Upstream {
	p.mu.Lock()
	s, overrides := p.spec, p.overrides
	p.mu.Unlock()
	var out []health.Upstream
	for _, d := range s.Documents(spec.KindUpstream) {
		if u, ok := d.Body.(*spec.Upstream); ok {
			out = append(out, p.healthOf(d.Name, u, overrides[d.Name]))
		}
	}
	return out
}

// HealthOf is that of one; false where none of that name is declared.
func (p *Publisher) HealthOf(name string) (health.Upstream, bool) {
	p.mu.Lock()
	s, overrides := p.spec, p.overrides[name]
	p.mu.Unlock()
	u, ok := s.Upstream(name)
	if !ok {
		return health.Upstream{}, false
	}
	return p.healthOf(name, u, overrides), true
}

func (p *Publisher) healthOf(name string, u *spec.Upstream, overrides []model.Override) health.Upstream {
	known := p.cfg.Catalog.Entry(u.Key(name))
	known.Service = known.Service.Overridden(overrides)
	for _, o := range overrides {
		if o.Since.After(known.Since) {
			known.Since = o.Since
		}
	}
	return health.Of(name, u, known)
}

// tellTouched names the upstreams that select touched services; nil is all. mu is
// held.
func (p *Publisher) tellTouched(touched map[model.ServiceKey]bool) {
	if touched == nil {
		p.cfg.Touched.TouchAll()
		return
	}
	var names []string
	for k := range touched {
		for _, d := range p.selects[k] {
			names = append(names, d.Name)
		}
	}
	p.cfg.Touched.Touch(names...)
}
