package spec

import (
	"net/netip"
	"slices"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// applications are the upstreams that inbound listeners of a group lead to: the
// application beside each proxy. On another machine its address is something else, so
// that nothing leads there by itself.
func (s *Spec) applications() map[string]bool {
	out := map[string]bool{}
	for _, d := range s.docs {
		g, ok := d.Body.(*Group)
		if !ok {
			continue
		}
		for _, name := range g.Listeners {
			if l, ok := s.Listener(name); ok && l.Inbound {
				for _, upstream := range s.leadsTo(l) {
					out[upstream] = true
				}
			}
		}
	}
	return out
}

// HiddenServices are services that a source imports, by the upstream of their name
// that is an application beside its proxies: no caller would reach them by that name.
func (s *Spec) HiddenServices(keys []model.ServiceKey) map[string]model.ServiceKey {
	applications := s.applications()
	out := map[string]model.ServiceKey{}
	for _, k := range keys {
		if name, err := Escape(k.Name); err == nil && applications[name] {
			out[name] = k
		}
	}
	return out
}

// inbound wants what an inbound listener leads to on loopback: one document is sent
// to each proxy of a group, and no other address is beside all of them.
func (l *linker) inbound(d *Document, li *Listener) {
	names := l.spec.leadsTo(li)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		u, ok := l.spec.Upstream(name)
		if !ok {
			continue // said already
		}
		key := u.Key(name)
		eps := u.Endpoints
		if s, ok := body[*Service](l.spec, KindService, key.Name); ok && eps == nil {
			eps = s.Endpoints
		}
		if key.Source != SourceLocal || u.DNS != nil {
			l.fault(d, "spec.inbound", "Upstream/%s has its endpoints from elsewhere; an inbound listener leads to the application beside the proxy: write endpoints on 127.0.0.1 or [::1]", name)
			continue
		}
		for _, e := range eps {
			if at, err := netip.ParseAddrPort(e.Address); err == nil && !at.Addr().IsLoopback() {
				l.fault(d, "spec.inbound", "Upstream/%s has the endpoint %s; an inbound listener leads to the application beside the proxy: write an address on 127.0.0.1 or [::1]", name, e.Address)
			}
		}
	}
}
