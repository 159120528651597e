package xds

import (
	"maps"
	"slices"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

// generations takes up which older assignments streams want.
func (p *Publisher) generations() {
	wanted := p.cfg.Engine.Wanted()
	if p.stranger(wanted) {
		p.readHistory()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.olderOf(wanted)
	if maps.Equal(next, p.older) {
		return
	}
	p.older = next
	p.cfg.Catalog.Want(p.wants())
	p.publish(map[model.ServiceKey]bool{}) // makes what is not made yet
}

// stranger tells whether an assignment is wanted whose definition is not known
// and may stand in the history.
func (p *Publisher) stranger(wanted []string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.history && slices.ContainsFunc(wanted, func(name string) bool {
		_, known := p.definitions[name]
		return !known && !isCanary(translate.UpstreamOf(name))
	})
}

// readHistory learns every generation that the store's history has.
func (p *Publisher) readHistory() {
	docs, err := p.cfg.Store.Upstreams()
	if err != nil {
		p.cfg.Logger.Error("history of upstreams not read", "err", err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.history = true
	for _, d := range docs {
		if def, ok := definitionOf(d); ok {
			name := translate.AssignmentName(d.Name, def.body)
			if _, known := p.definitions[name]; !known {
				p.definitions[name] = def
			}
		}
	}
}
