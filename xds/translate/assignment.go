package translate

import (
	"net"
	"net/netip"
	"slices"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Assignment is the endpoints of an upstream by locality. Endpoints that are not
// healthy are in it, marked: panic mode and the diagnosis need to see them. A
// service that is empty or absent gives an empty assignment.
func Assignment(name string, u *spec.Upstream, svc *model.Service) (*endpointv3.ClusterLoadAssignment, []model.Problem) {
	eps, problems := u.Select(name, svc)
	a, err := patchedAssignment(name, u)
	if err != nil { // it was taken by another version of this program
		problems = append(problems, model.Problem{Document: "Upstream/" + name, Message: err.Error()})
	}
	by := map[model.Locality]*endpointv3.LocalityLbEndpoints{}
	var order []model.Locality
	for _, e := range eps {
		group := by[e.Locality]
		if group == nil {
			group = &endpointv3.LocalityLbEndpoints{Locality: locality(e.Locality)}
			by[e.Locality] = group
			order = append(order, e.Locality)
		}
		group.LbEndpoints = append(group.LbEndpoints, endpoint(e, checkPort(u)))
	}
	slices.SortFunc(order, model.Locality.Compare)
	for _, l := range order {
		a.Endpoints = append(a.Endpoints, by[l])
	}
	return a, problems
}

// patchedAssignment is an assignment without endpoints. `envoyEndpoints:` overrides
// nothing in it: the fields that are made may not be set.
func patchedAssignment(name string, u *spec.Upstream) (*endpointv3.ClusterLoadAssignment, error) {
	a := &endpointv3.ClusterLoadAssignment{ClusterName: AssignmentName(name, u)}
	_, err := patch(a, u.EnvoyEndpoints, "spec.envoyEndpoints", "cluster_name", "endpoints", "named_endpoints")
	return a, err
}

func locality(l model.Locality) *corev3.Locality {
	if l == (model.Locality{}) {
		return nil
	}
	return &corev3.Locality{Region: l.Region, Zone: l.Zone, SubZone: l.SubZone}
}

func endpoint(e model.Endpoint, checkPort uint32) *endpointv3.LbEndpoint {
	host, port, _ := net.SplitHostPort(e.Address) // Select let nothing else through
	n, _ := strconv.ParseUint(port, 10, 16)
	ep := &endpointv3.Endpoint{Address: socketAddress(host, uint32(n))}
	if _, err := netip.ParseAddr(host); err != nil {
		ep.Hostname = host // what rewrite.hostOfEndpoint says
	}
	if checkPort != 0 {
		ep.HealthCheckConfig = &endpointv3.Endpoint_HealthCheckConfig{PortValue: checkPort}
	}
	return &endpointv3.LbEndpoint{
		HostIdentifier:      &endpointv3.LbEndpoint_Endpoint{Endpoint: ep},
		HealthStatus:        healthStatus(e.Health),
		LoadBalancingWeight: u32(max(1, e.Weight)),
		Metadata:            origin(e.Origin.Source, e.Origin.Key),
	}
}

func healthStatus(h model.Health) corev3.HealthStatus {
	switch h {
	case model.Healthy:
		return corev3.HealthStatus_HEALTHY
	case model.Draining:
		return corev3.HealthStatus_DRAINING
	}
	return corev3.HealthStatus_UNHEALTHY
}

func address(ap netip.AddrPort) *corev3.Address {
	return socketAddress(ap.Addr().String(), uint32(ap.Port()))
}

func socketAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}
