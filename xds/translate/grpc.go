package translate

import (
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	wrrlocalityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// gRPC's own xDS clients are programs that pick endpoints themselves (gRFC A27 and
// those that follow it). They refuse what they do not know, so that they are sent
// only what they use:
//
//   - a listener for each host, named like it, which holds an API listener;
//   - prefixes with their slash: a path is /SERVICE/METHOD;
//   - round robin where they do not have the policy;
//   - localities with an id and a weight, without which they leave them out;
//   - a rule's timeout as the longest duration of a stream (gRFC A31);
//   - no TLS, which a program brings itself.

// Targets lists the hosts of a listener for gRPC's own clients, sorted: the names
// of its resources.
func Targets(l *spec.Listener, s *spec.Spec) []string {
	var out []string
	for _, name := range l.Routes {
		if r, ok := s.Route(name); ok {
			out = append(out, r.Hosts...)
		}
	}
	if l.AutoRoutes != nil {
		for _, name := range s.AutoRouted(l) {
			out = append(out, name+"."+l.AutoRoutes.Domain)
		}
	}
	slices.Sort(out)
	return out
}

// APIListener is what a program asks for by its target's host; routes come as the
// table of the listener's own name.
func APIListener(host, name string) *listenerv3.Listener {
	return &listenerv3.Listener{Name: host, ApiListener: &listenerv3.ApiListener{ApiListener: packed(&hcmv3.HttpConnectionManager{
		StatPrefix: name,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			RouteConfigName: name, ConfigSource: ads(0),
		}},
		HttpFilters: []*hcmv3.HttpFilter{{
			Name: "envoy.filters.http.router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(&routerv3.Router{})},
		}},
	})}}
}

func grpcRouteTable(listener string, l *spec.Listener, s *spec.Spec) *routev3.RouteConfiguration {
	t := &routev3.RouteConfiguration{Name: listener}
	for _, name := range l.Routes {
		r, ok := s.Route(name)
		if !ok {
			continue
		}
		vh := &routev3.VirtualHost{Name: name, Domains: r.Hosts}
		for _, rule := range r.Rules {
			if len(rule.To) > 0 && (len(rule.Match.Methods) == 0 || slices.Contains(rule.Match.Methods, "POST")) {
				vh.Routes = append(vh.Routes, grpcRoute(rule, s))
			}
		}
		t.VirtualHosts = append(t.VirtualHosts, vh)
	}
	if l.AutoRoutes != nil {
		for _, name := range s.AutoRouted(l) {
			t.VirtualHosts = append(t.VirtualHosts, &routev3.VirtualHost{
				Name: name, Domains: []string{name + "." + l.AutoRoutes.Domain}, Routes: []*routev3.Route{grpcRoute(autoRule(name), s)},
			})
		}
	}
	return t
}

func grpcRoute(rule spec.Rule, s *spec.Spec) *routev3.Route {
	r := &routev3.Route{Match: match(spec.Match{Path: rule.Match.Path, Headers: rule.Match.Headers})}
	if p := r.Match.GetPathSeparatedPrefix(); p != "" {
		r.Match.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: p + "/"}
	}
	full := forward(rule, s)
	a := &routev3.RouteAction{ClusterSpecifier: full.ClusterSpecifier, HashPolicy: full.HashPolicy}
	if rule.Timeout != nil && *rule.Timeout > 0 {
		a.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: duration(*rule.Timeout)}
	}
	if p := full.RetryPolicy; p != nil {
		if on := grpcRetryOn(p.RetryOn); on != "" {
			a.RetryPolicy = &routev3.RetryPolicy{RetryOn: on, NumRetries: p.NumRetries, RetryBackOff: p.RetryBackOff}
		}
	}
	r.Action = &routev3.Route_Route{Route: a}
	return r
}

// grpcRetryOn keeps the conditions that gRPC's own clients have (gRFC A44). They try
// again by themselves what no server saw.
func grpcRetryOn(on string) string {
	var out []string
	for _, word := range strings.Split(on, ",") {
		switch word {
		case "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable":
			out = append(out, word)
		}
	}
	return strings.Join(out, ",")
}

func grpcCluster(name string, u *spec.Upstream, svc *model.Service) *clusterv3.Cluster {
	full := cluster(name, u, svc, MinBand)
	c := &clusterv3.Cluster{
		Name: name, ClusterDiscoveryType: full.ClusterDiscoveryType, EdsClusterConfig: full.EdsClusterConfig, OutlierDetection: full.OutlierDetection,
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			Priority: corev3.RoutingPriority_DEFAULT, MaxRequests: u32(u.CircuitBreakers.Requests),
		}}},
		LbPolicy: clusterv3.Cluster_ROUND_ROBIN,
	}
	switch u.LoadBalancing.Policy {
	case "ringHash":
		c.LbPolicy, c.LbConfig = full.LbPolicy, full.LbConfig
	case "leastRequest": // not every language has it: who does not takes the next of the list (gRFC A52)
		pick := picking(u.LoadBalancing)
		pick.Policies = append(pick.Policies, picking(spec.LoadBalancing{Policy: "roundRobin"}).Policies...)
		c.LoadBalancingPolicy = policies("envoy.load_balancing_policies.wrr_locality", &wrrlocalityv3.WrrLocality{EndpointPickingPolicy: pick})
	}
	if u.Hostnames() { // one name, by its own resolver (gRFC A37)
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_LOGICAL_DNS}
		c.LoadAssignment = full.LoadAssignment
	}
	return c
}

// GRPCAssignment is the endpoints for gRPC's own clients: a locality without a
// weight would be left out, and has that of its healthy endpoints.
func GRPCAssignment(a *endpointv3.ClusterLoadAssignment) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: a.ClusterName}
	for _, l := range a.Endpoints {
		weight := uint32(0)
		for _, e := range l.LbEndpoints {
			if e.HealthStatus == corev3.HealthStatus_HEALTHY { // it uses no others
				weight += e.LoadBalancingWeight.GetValue()
			}
		}
		in := l.Locality
		if in == nil {
			in = &corev3.Locality{}
		}
		out.Endpoints = append(out.Endpoints, &endpointv3.LocalityLbEndpoints{Locality: in, LbEndpoints: l.LbEndpoints, LoadBalancingWeight: u32(max(1, weight))})
	}
	return out
}
