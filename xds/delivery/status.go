package delivery

import (
	"maps"
	"slices"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Deliveries says where each type stands, in the order of Types; types that the
// proxy never asked for are left out.
func (s *Session) Deliveries() []model.Delivery {
	parked := s.memory.Parked()
	var out []model.Delivery
	for _, typ := range Types {
		st := s.types[typ]
		if !st.started {
			continue
		}
		d := model.Delivery{
			Type: typ.Short(), Wildcard: st.wildcard, Subscribed: len(st.names), Sent: len(st.has), Acked: len(st.acked),
			Open: len(st.open), Lag: st.lag, Version: setVersion(st.versions()),
		}
		acked := map[string]string{}
		for name := range st.acked {
			acked[name] = st.has[name].version
		}
		d.AckedVersion = setVersion(acked)
		if len(st.open) > 0 {
			d.OpenSince = st.open[0].at
		}
		for _, p := range parked {
			if Type(p.Type) == typ {
				d.Parked = append(d.Parked, p)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(st.waits)) {
			if w := st.waits[name]; !w.over {
				d.Waiting = append(d.Waiting, model.Waiting{Name: name, Why: w.why, Since: w.since})
			}
		}
		out = append(out, d)
	}
	return out
}

// Holds returns the resources that the proxy holds or was just sent, by type.
func (s *Session) Holds() map[Type][]*Resource {
	out := map[Type][]*Resource{}
	for typ, st := range s.types {
		if st.started {
			out[typ] = sorted(st.fullSet())
		}
	}
	return out
}
