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

func (p *Publisher) healthOf(name string, u *spec.Upstream, overrides []model.Override) health.Upstream {
	known := p.cfg.Catalog.Entry(u.Key(name))
	known.Service = known.Service.Overridden(overrides)
	return health.Of(name, u, known)
}

// tellHealth emits an event for each upstream whose state changed, of those that
// select touched services; nil is all. mu is held.
func (p *Publisher) tellHealth(touched map[model.ServiceKey]bool) {
	if touched == nil {
		before := p.health
		p.health = make(map[string]health.State, len(before))
		for _, d := range p.spec.Documents(spec.KindUpstream) {
			p.health[d.Name] = before[d.Name]
			p.tellHealthOf(d)
		}
		return
	}
	for k := range touched {
		for _, d := range p.selects[k] {
			p.tellHealthOf(d)
		}
	}
}

func (p *Publisher) tellHealthOf(d *spec.Document) {
	u, ok := d.Body.(*spec.Upstream)
	if !ok {
		return
	}
	was, h := p.health[d.Name], p.healthOf(d.Name, u, p.overrides[d.Name])
	p.health[d.Name] = h.State
	if was != h.State {
		p.cfg.Emit(model.Event{
			Kind: model.EventUpstreamState, Subject: model.Subject{Kind: string(spec.KindUpstream), Name: d.Name},
			From: string(was), To: string(h.State), Reason: h.Why, Revision: p.spec.Revision,
		})
	}
}
