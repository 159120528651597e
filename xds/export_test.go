package xds

import (
	"reflect"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// Whole is the same for as long as nothing was made as a whole.
func (p *Publisher) Whole() uintptr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return reflect.ValueOf(p.selects).Pointer()
}

// Remade makes everything as a whole. It returns the classes that are served
// otherwise then, and the problems before and after.
func (p *Publisher) Remade() (other []delivery.Class, before, after []model.Problem) {
	before = p.Problems()
	p.mu.Lock()
	tables := map[delivery.Class]*delivery.Table{}
	for c := range p.classes {
		tables[c] = p.cfg.Engine.Table(c)
	}
	p.respec(p.declared)
	for c := range p.classes {
		if p.cfg.Engine.Table(c) != tables[c] {
			other = append(other, c)
		}
	}
	p.mu.Unlock()
	return other, before, p.Problems()
}
