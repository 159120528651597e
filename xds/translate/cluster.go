package translate

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dnscommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	localityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/load_aware_locality/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// httpOptionsName is the key of the protocol options in a cluster.
const httpOptionsName = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// Cluster is the definition of an upstream. Its endpoints come as the assignment
// AssignmentName; those of one with hostnames are part of it, and are what svc
// says (nil: nobody). The error is a PatchError.
func Cluster(name string, u *spec.Upstream, svc *model.Service, f Form) (*clusterv3.Cluster, error) {
	c, _, err := patchedCluster(name, u, svc, f)
	return c, err
}

// patchedCluster tells besides what `envoy:` overrides.
func patchedCluster(name string, u *spec.Upstream, svc *model.Service, f Form) (*clusterv3.Cluster, []string, error) {
	if f.Band == GRPC {
		return grpcCluster(name, u, svc), nil, nil
	}
	c := cluster(name, u, svc, f.Band)
	over, err := patch(c, u.Envoy, "spec.envoy", "name", "type", "cluster_type", "eds_cluster_config", "load_assignment")
	observeCluster(c, f)
	return c, over, err
}

func cluster(name string, u *spec.Upstream, svc *model.Service, band Band) *clusterv3.Cluster {
	key := u.Key(name)
	c := &clusterv3.Cluster{
		Name:            name,
		ConnectTimeout:  duration(u.ConnectTimeout),
		CircuitBreakers: circuitBreakers(u.CircuitBreakers),
		HealthChecks:    healthChecks(name, u, band),
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{
			HealthyPanicThreshold: &typev3.Percent{Value: panicThreshold(u.WhenUnavailable.Panic)},
		},
		IgnoreHealthOnHostRemoval: true,
		UpstreamConnectionOptions: &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{
			KeepaliveProbes:   u32(u.Keepalive.Probes),
			KeepaliveTime:     u32(uint32(u.Keepalive.Time.D().Seconds())),
			KeepaliveInterval: u32(uint32(u.Keepalive.Interval.D().Seconds())),
		}},
		TransportSocket: upstreamTLS(name, u),
		Metadata:        origin(key.Source, key.String()),
	}
	if u.Hostnames() {
		resolved(c, name, u, svc)
	} else {
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
		c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(fetchTimeout), ServiceName: AssignmentName(name, u)}
	}
	if u.Protocol != "tcp" {
		c.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpOptionsName: packed(httpOptions(u))}
	}
	if u.Outlier != nil {
		c.OutlierDetection = outlierDetection(u.Outlier)
	}
	if u.Outlier != nil || len(u.HealthChecks) > 0 {
		c.CommonLbConfig.UpdateMergeWindow = durationpb.New(0)
	}
	loadBalancing(c, u.LoadBalancing, band)
	return c
}

func panicThreshold(p spec.Panic) float64 {
	if p.Then == "fail" {
		return 0
	}
	return p.Below
}

// loadAware is the first minor that has the policy of that name.
const loadAware Band = 40

func loadBalancing(c *clusterv3.Cluster, lb spec.LoadBalancing, band Band) {
	if lb.Localities == "loadAware" && band >= loadAware {
		c.LoadBalancingPolicy = policies("envoy.load_balancing_policies.load_aware_locality", &localityv3.LoadAwareLocality{EndpointPickingPolicy: picking(lb)})
		return
	}
	switch lb.Policy {
	case "roundRobin":
		c.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
	case "random":
		c.LbPolicy = clusterv3.Cluster_RANDOM
	case "ringHash":
		c.LbPolicy = clusterv3.Cluster_RING_HASH
		c.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{
			MinimumRingSize: wrapperspb.UInt64(lb.MinRingSize), MaximumRingSize: wrapperspb.UInt64(lb.MaxRingSize),
		}}
	case "maglev":
		c.LbPolicy = clusterv3.Cluster_MAGLEV
		c.LbConfig = &clusterv3.Cluster_MaglevLbConfig_{MaglevLbConfig: &clusterv3.Cluster_MaglevLbConfig{
			TableSize: wrapperspb.UInt64(lb.TableSize),
		}}
	default:
		c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
		c.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{
			ChoiceCount: u32(lb.ChoiceCount),
		}}
	}
}

// picking is the policy within a locality.
func picking(lb spec.LoadBalancing) *clusterv3.LoadBalancingPolicy {
	switch lb.Policy {
	case "roundRobin":
		return policies("envoy.load_balancing_policies.round_robin", &roundrobinv3.RoundRobin{})
	case "random":
		return policies("envoy.load_balancing_policies.random", &randomv3.Random{})
	}
	return policies("envoy.load_balancing_policies.least_request", &leastrequestv3.LeastRequest{ChoiceCount: u32(lb.ChoiceCount)})
}

func policies(name string, m proto.Message) *clusterv3.LoadBalancingPolicy {
	return &clusterv3.LoadBalancingPolicy{Policies: []*clusterv3.LoadBalancingPolicy_Policy{{
		TypedExtensionConfig: &corev3.TypedExtensionConfig{Name: name, TypedConfig: packed(m)},
	}}}
}

func circuitBreakers(b spec.CircuitBreakers) *clusterv3.CircuitBreakers {
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		Priority:           corev3.RoutingPriority_DEFAULT,
		MaxConnections:     u32(b.Connections),
		MaxPendingRequests: u32(b.Pending),
		MaxRequests:        u32(b.Requests),
		RetryBudget: &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
			BudgetPercent:       &typev3.Percent{Value: b.RetryBudget.Percent},
			MinRetryConcurrency: u32(b.RetryBudget.MinConcurrency),
		},
		TrackRemaining: true,
	}}}
}

func httpOptions(u *spec.Upstream) *httpv3.HttpProtocolOptions {
	o := &httpv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: duration(u.IdleTimeout)},
	}
	if u.MaxRequests > 0 {
		o.CommonHttpProtocolOptions.MaxRequestsPerConnection = u32(u.MaxRequests)
	}
	explicit := &httpv3.HttpProtocolOptions_ExplicitHttpConfig{}
	if u.SpeaksHTTP2() {
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: http2Options(u.HTTP2)}
	} else {
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &corev3.Http1ProtocolOptions{}}
	}
	o.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit}
	return o
}

// pingTimeout is how long a peer may take to answer a ping.
const pingTimeout = 5 * time.Second

func http2Options(h spec.HTTP2) *corev3.Http2ProtocolOptions {
	o := &corev3.Http2ProtocolOptions{MaxConcurrentStreams: written(h.MaxStreams), InitialStreamWindowSize: written(h.StreamWindow), InitialConnectionWindowSize: written(h.ConnectionWindow)}
	if h.PingInterval > 0 {
		o.ConnectionKeepalive = &corev3.KeepaliveSettings{Interval: duration(h.PingInterval), Timeout: durationpb.New(pingTimeout)}
	}
	return o
}

// written is nil for 0, so that Envoy's own default holds.
func written(n uint32) *wrapperspb.UInt32Value {
	if n == 0 {
		return nil
	}
	return u32(n)
}

// families is Envoy's word for each of ours.
var families = map[string]dnscommonv3.DnsLookupFamily{
	"v4Preferred": dnscommonv3.DnsLookupFamily_V4_PREFERRED, "v4": dnscommonv3.DnsLookupFamily_V4_ONLY,
	"v6": dnscommonv3.DnsLookupFamily_V6_ONLY, "all": dnscommonv3.DnsLookupFamily_ALL,
}

// resolved makes c a cluster whose endpoints each proxy resolves by itself.
func resolved(c *clusterv3.Cluster, name string, u *spec.Upstream, svc *model.Service) {
	d := spec.DNS{}
	if u.DNS != nil {
		d = *u.DNS
	} else {
		spec.SetDefaults(&d)
	}
	c.ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
		Name: "envoy.clusters.dns",
		TypedConfig: packed(&dnsv3.DnsCluster{
			DnsRefreshRate: duration(d.Refresh), RespectDnsTtl: d.FollowTTL, DnsLookupFamily: families[d.Family], AllAddressesInSingleEndpoint: d.Resolve == "one",
		}),
	}}
	c.LoadAssignment, _ = Assignment(name, u, svc) // its problems are told where they are made
	c.LoadAssignment.ClusterName = name
}

// outlierDetection writes every detector's enforcement: Envoy would enforce some
// of them unasked.
func outlierDetection(o *spec.OutlierDetection) *clusterv3.OutlierDetection {
	enforce := func(on bool) *wrapperspb.UInt32Value {
		if on {
			return u32(100)
		}
		return u32(0)
	}
	d := &clusterv3.OutlierDetection{
		Interval:                           duration(o.Interval),
		BaseEjectionTime:                   duration(o.BaseEjection),
		MaxEjectionTime:                    duration(o.MaxEjection),
		MaxEjectionTimeJitter:              optional(o.MaxEjectionJitter),
		MaxEjectionPercent:                 u32(o.MaxEjectionPercent),
		SplitExternalLocalOriginErrors:     o.SplitLocalOrigin,
		EnforcingConsecutive_5Xx:           enforce(o.Consecutive5xx > 0),
		EnforcingConsecutiveGatewayFailure: enforce(o.ConsecutiveGateway > 0),
		EnforcingSuccessRate:               enforce(o.SuccessRate != nil),
		EnforcingFailurePercentage:         enforce(o.FailurePercentage != nil),
	}
	if o.SplitLocalOrigin {
		d.EnforcingConsecutiveLocalOriginFailure = enforce(o.ConsecutiveLocal > 0)
		d.EnforcingLocalOriginSuccessRate = enforce(o.SuccessRate != nil)
		d.EnforcingFailurePercentageLocalOrigin = enforce(o.FailurePercentage != nil)
	}
	if o.Consecutive5xx > 0 {
		d.Consecutive_5Xx = u32(o.Consecutive5xx)
	}
	if o.ConsecutiveGateway > 0 {
		d.ConsecutiveGatewayFailure = u32(o.ConsecutiveGateway)
	}
	if o.ConsecutiveLocal > 0 {
		d.ConsecutiveLocalOriginFailure = u32(o.ConsecutiveLocal)
	}
	if s := o.SuccessRate; s != nil {
		d.SuccessRateMinimumHosts = u32(s.MinHosts)
		d.SuccessRateRequestVolume = u32(s.RequestVolume)
		d.SuccessRateStdevFactor = u32(uint32(s.StdevFactor*1000 + 0.5)) // Envoy counts thousandths
	}
	if f := o.FailurePercentage; f != nil {
		d.FailurePercentageThreshold = u32(f.Threshold)
		d.FailurePercentageMinimumHosts = u32(f.MinHosts)
		d.FailurePercentageRequestVolume = u32(f.RequestVolume)
	}
	return d
}
