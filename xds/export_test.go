package xds

import (
	"fmt"
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

// Anew is a publisher of the same that was just started, and serves the same classes.
func (p *Publisher) Anew() *Publisher {
	cfg := p.cfg
	cfg.Engine, cfg.Emit = delivery.NewEngine(), nil
	out := New(cfg)
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.older { // its engine has no streams that want them
		out.older[name], out.definitions[name] = true, p.definitions[name]
	}
	out.publish(nil)
	for c := range p.classes {
		out.Join(c)
	}
	return out
}

// Served is everything that classes are served, with its version, and what is known of
// nobody.
func (p *Publisher) Served() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]string{}
	for c := range p.classes {
		t := p.cfg.Engine.Table(c)
		for _, typ := range delivery.Types {
			for r := range t.All(typ) {
				out[fmt.Sprint(c, typ.Short(), r.Name)] = r.Version
			}
		}
		for name := range t.Unknown {
			out[fmt.Sprint(c, name)] = "unknown"
		}
	}
	return out
}
