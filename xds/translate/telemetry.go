package translate

import (
	"slices"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	statslogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stats/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tagv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Form is what a resource is made for: the version of the client, and what it is
// asked to report. An Envoy whose bootstrap does not carry the clusters that it would
// report to is asked for nothing.
type Form struct {
	Band      Band
	Telemetry model.Telemetry
}

// OfCluster and OfListener are the form as far as it matters to one, so that those
// who need the same share it.
func (f Form) OfCluster() Form { return f.above(model.TelemetryEndpoints) }

// OfListener is the form as far as it matters to a listener.
func (f Form) OfListener() Form { return f.above(model.TelemetryFailures) }

func (f Form) above(level model.Telemetry) Form {
	if f.Band == GRPC || !f.Telemetry.Includes(level) {
		return Form{Band: f.Band}
	}
	return Form{Band: f.Band, Telemetry: level}
}

// What follows is added after `envoy:`, which would take its place where it sets a
// list of its own.

// observeCluster has a cluster say how each of its endpoints does.
func observeCluster(c *clusterv3.Cluster, f Form) {
	if !f.Telemetry.Includes(model.TelemetryEndpoints) {
		return
	}
	if c.TrackClusterStats == nil {
		c.TrackClusterStats = &clusterv3.TrackClusterStats{}
	}
	c.TrackClusterStats.PerEndpointStats = true
}

// observeHTTP has a listener tell which requests failed, and which attempts.
func observeHTTP(m *hcmv3.HttpConnectionManager, f Form) error {
	if !f.Telemetry.Includes(model.TelemetryFailures) {
		return nil
	}
	m.AccessLog = append(m.AccessLog,
		failureLog("envoy.access_loggers.http_grpc", requestFlags, &grpclogv3.HttpGrpcAccessLogConfig{CommonConfig: told(bootstrap.RequestsLog)}),
		failureCount(f.Band))
	i := slices.IndexFunc(m.HttpFilters, func(x *hcmv3.HttpFilter) bool { return x.GetTypedConfig().MessageIs(&routerv3.Router{}) })
	if i < 0 {
		return nil // the listener has a filter of its own in its place
	}
	router := &routerv3.Router{}
	if err := m.HttpFilters[i].GetTypedConfig().UnmarshalTo(router); err != nil {
		return err
	}
	router.UpstreamLog = append(router.UpstreamLog,
		failureLog("envoy.access_loggers.http_grpc", attemptFlags, &grpclogv3.HttpGrpcAccessLogConfig{CommonConfig: told(bootstrap.AttemptsLog)}))
	m.HttpFilters[i].ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(router)}
	return nil
}

// observeTCP has a listener of connections tell which failed.
func observeTCP(p *tcpv3.TcpProxy, f Form) {
	if f.Telemetry.Includes(model.TelemetryFailures) {
		p.AccessLog = append(p.AccessLog,
			failureLog("envoy.access_loggers.tcp_grpc", requestFlags, &grpclogv3.TcpGrpcAccessLogConfig{CommonConfig: told(bootstrap.RequestsLog)}),
			failureCount(f.Band))
	}
}

// The flags of Envoy by which requests, and attempts, failed; those of clients that
// left or asked wrongly are not among them.
var (
	requestFlags = []string{"UH", "UF", "UO", "NC", "NR", "URX", "UT", "UC", "UR", "UPE", "DF", "DO", "UDO", "OM"}
	attemptFlags = []string{"UF", "UO", "UT", "UC", "UR", "UPE"}
)

func failureLog(name string, flags []string, m proto.Message) *accesslogv3.AccessLog {
	return &accesslogv3.AccessLog{
		Name: name,
		Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
			ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: flags},
		}},
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: packed(m)},
	}
}

// The operators of what is told of a failed request. Flags are read from here: the
// typed field has no word for UDO, and that of the cluster is empty for UH.
var failureTags = []struct{ tag, value string }{
	{bootstrap.FailureFlag, "%RESPONSE_FLAGS%"},
	{bootstrap.FailureUpstream, "%UPSTREAM_CLUSTER%"},
	{bootstrap.FailureRoute, "%ROUTE_NAME%"},
	{bootstrap.FailureDetail, "%RESPONSE_CODE_DETAILS%"},
}

// told is how failures are told one by one. What is told while nobody listens is
// lost, and what nobody reads is dropped soon: counts come from failureCount.
func told(name string) *grpclogv3.CommonGrpcAccessLogConfig {
	c := &grpclogv3.CommonGrpcAccessLogConfig{
		LogName: name, TransportApiVersion: corev3.ApiVersion_V3, BufferFlushInterval: durationpb.New(time.Second),
		GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: bootstrap.FailuresCluster}}},
	}
	for _, t := range failureTags {
		c.CustomTags = append(c.CustomTags, &tagv3.CustomTag{Tag: t.tag, Type: &tagv3.CustomTag_Value{Value: t.value}})
	}
	return c
}

// scopedStats is the first minor that can bound what a listener counts apart, by
// maxFailureCounters.
const (
	scopedStats        Band   = 39
	maxFailureCounters uint32 = 2000
)

// failureCount counts failed requests by flag, route and upstream, in statistics of
// which none is lost.
func failureCount(band Band) *accesslogv3.AccessLog {
	stat := &statslogv3.Config_Stat{Name: bootstrap.FailureCounter}
	for _, t := range failureTags[:3] { // details would be without end
		stat.Tags = append(stat.Tags, &statslogv3.Config_Tag{Name: t.tag, ValueFormat: t.value})
	}
	c := &statslogv3.Config{Counters: []*statslogv3.Config_Counter{{Stat: stat, ValueFixed: wrapperspb.UInt64(1)}}}
	if band >= scopedStats {
		c.StatsScope = &typev3.Scope{Prefix: bootstrap.FailureScope, MaxCounters: wrapperspb.UInt32(maxFailureCounters)}
	} else {
		c.StatPrefix = bootstrap.FailureScope //nolint:staticcheck // older ones have nothing else
	}
	return failureLog("envoy.access_loggers.stats", requestFlags, c)
}
