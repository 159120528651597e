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
		st := s.types.of(typ)
		if !st.started {
			continue
		}
		d := model.Delivery{
			Type: typ.Short(), Wildcard: st.all, Subscribed: st.names.len(), Sent: st.count,
			Open: len(st.open), Responses: st.responses, Bytes: st.bytes, Lag: st.lag, Version: st.sum.version(),
		}
		d.AckedVersion, d.Acked = st.ackedVersion()
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

// Acked is the version of a resource that the proxy acknowledged last, "" before its first
// answer; false where the proxy does not subscribe to it.
func (s *Session) Acked(typ Type, name string) (version string, subscribed bool) {
	st := s.types.of(typ)
	if !st.started || !st.covers(name) {
		return "", false
	}
	if x := st.stand(name); x.acked {
		return x.version, true
	}
	if last := s.memory.last(typ, name); last != nil {
		return last.Version, true
	}
	return "", true
}

// Holds returns the resources that the proxy holds or was just sent, by type.
func (s *Session) Holds() map[Type][]*Resource {
	out := map[Type][]*Resource{}
	for _, st := range s.types {
		if st.started {
			out[st.typ] = byName(st.fullSet())
		}
	}
	return out
}
