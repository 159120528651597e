package spec

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// SourceLocal is the source of the services that are declared in documents.
const SourceLocal = "local"

// Service declares endpoints by hand. It is known to upstreams as a service of
// source "local".
type Service struct {
	Endpoints []Endpoint `json:"endpoints" required:"true" doc:"The instances. An empty list says that nobody is there."`
}

// Endpoint is one declared instance.
type Endpoint struct {
	Address  string            `json:"address" required:"true" doc:"IP and port: 10.2.0.7:8080 or [2001:db8::7]:8080."`
	ID       string            `json:"id,omitempty" maxLength:"253" doc:"Name of the instance, unique in the service. Default: the address."`
	Weight   uint32            `json:"weight,omitempty" default:"1" minimum:"1" maximum:"128" doc:"Share of traffic relative to the other endpoints of its locality."`
	Region   string            `json:"region,omitempty" maxLength:"128" doc:"Region of the endpoint's locality."`
	Zone     string            `json:"zone,omitempty" maxLength:"128" doc:"Zone of the endpoint's locality."`
	SubZone  string            `json:"subzone,omitempty" maxLength:"128" doc:"Sub-zone of the endpoint's locality."`
	Health   string            `json:"health,omitempty" default:"healthy" enum:"healthy,unhealthy,draining" doc:"Unhealthy endpoints are sent, marked; draining ones take no new requests."`
	Metadata map[string]string `json:"metadata,omitempty" doc:"Keys and values that an upstream can select by."`
}

func (e Endpoint) id() string {
	if e.ID != "" {
		return e.ID
	}
	return e.Address
}

func (s *Service) check(c *checker) { checkEndpoints(c, "spec.endpoints", s.Endpoints) }

func checkEndpoints(c *checker, path string, eps []Endpoint) {
	ids, addrs := map[string]int{}, map[string]int{}
	for i, e := range eps {
		at := index(path, i)
		c.ipPort(at+".address", e.Address)
		if j, ok := ids[e.id()]; ok {
			c.faultf(at+".id", "%q is the id of endpoints[%d] too; ids are unique in a service", e.id(), j)
		} else if j, ok := addrs[e.Address]; ok {
			c.faultf(at+".address", "%q is the address of endpoints[%d] too; Envoy would keep only the first", e.Address, j)
		}
		ids[e.id()], addrs[e.Address] = i, i
	}
}

// Model says the declared endpoints in the words of what runs, sorted by ID.
func (s *Service) Model(name string, revision uint64) []model.Endpoint {
	return modelEndpoints(s.Endpoints, model.Origin{Source: SourceLocal, Key: string(KindService) + "/" + name, Revision: revision})
}

func modelEndpoints(eps []Endpoint, origin model.Origin) []model.Endpoint {
	out := make([]model.Endpoint, 0, len(eps))
	for _, e := range eps {
		reason := ""
		if e.Health != string(model.Healthy) {
			reason = "declared " + e.Health
		}
		out = append(out, model.Endpoint{
			ID: e.id(), Address: e.Address, Health: model.Health(e.Health), Reason: reason, Weight: e.Weight,
			Locality: model.Locality{Region: e.Region, Zone: e.Zone, SubZone: e.SubZone},
			Metadata: e.Metadata, Origin: origin,
		})
	}
	slices.SortFunc(out, func(a, b model.Endpoint) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// dnsEndpoints are names that each proxy resolves, sorted by ID.
func dnsEndpoints(hosts []string, origin model.Origin) []model.Endpoint {
	out := make([]model.Endpoint, 0, len(hosts))
	for _, h := range hosts {
		out = append(out, model.Endpoint{ID: h, Address: h, Health: model.Healthy, Weight: 1, Origin: origin})
	}
	slices.SortFunc(out, func(a, b model.Endpoint) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// declaresEndpoints tells whether the upstream is its own local service.
func (u *Upstream) declaresEndpoints() bool {
	return u.Endpoints != nil || u.DNS != nil && len(u.DNS.Hosts) > 0
}

// ipPort accepts an IP address with a port from 1 to 65535.
func (c *checker) ipPort(field, s string) {
	ap, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		c.faultf(field, "%q is not IP:PORT; write 10.2.0.7:8080 or [2001:db8::7]:8080", s)
	case ap.Port() == 0:
		c.faultf(field, "port 0 means nothing here; write the port that is listened on, 1 to 65535")
	case ap.Addr().Zone() != "":
		c.faultf(field, "%q has an IPv6 zone; Envoy takes addresses without one", s)
	}
}
