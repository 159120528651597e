package translate

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// httpOptionsName is the key of the protocol options in a cluster.
const httpOptionsName = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// Cluster is the definition of an upstream; its endpoints come as the assignment
// AssignmentName.
func Cluster(name string, u *spec.Upstream, band Band) *clusterv3.Cluster {
	key := u.Key(name)
	c := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(fetchTimeout), ServiceName: AssignmentName(name, u)},
		ConnectTimeout:       duration(u.ConnectTimeout),
		CircuitBreakers:      circuitBreakers(u.CircuitBreakers),
		HealthChecks:         healthChecks(name, u, band),
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{
			HealthyPanicThreshold: &typev3.Percent{Value: panicThreshold(u.WhenUnavailable.Panic)},
		},
		IgnoreHealthOnHostRemoval: true,
		UpstreamConnectionOptions: &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{
			KeepaliveProbes:   u32(u.Keepalive.Probes),
			KeepaliveTime:     u32(uint32(u.Keepalive.Time.D().Seconds())),
			KeepaliveInterval: u32(uint32(u.Keepalive.Interval.D().Seconds())),
		}},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{httpOptionsName: packed(httpOptions(u))},
		TransportSocket:               upstreamTLS(name, u),
		Metadata:                      origin(key.Source, key.String()),
	}
	if u.Outlier != nil {
		c.OutlierDetection = outlierDetection(u.Outlier)
	}
	if u.Outlier != nil || len(u.HealthChecks) > 0 {
		c.CommonLbConfig.UpdateMergeWindow = durationpb.New(0)
	}
	loadBalancing(c, u.LoadBalancing)
	return c
}

func panicThreshold(p spec.Panic) float64 {
	if p.Then == "fail" {
		return 0
	}
	return p.Below
}

func loadBalancing(c *clusterv3.Cluster, lb spec.LoadBalancing) {
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
	if speaksHTTP2(u) {
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{}}
	} else {
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &corev3.Http1ProtocolOptions{}}
	}
	o.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit}
	return o
}

func speaksHTTP2(u *spec.Upstream) bool { return u.Protocol == "http2" || u.Protocol == "grpc" }

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
