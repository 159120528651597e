package translate

import (
	"net/netip"
	"slices"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamlogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Listener accepts HTTP/1 and HTTP/2 and routes by the table of its own name, or
// passes connections on. The error is a PatchError.
func Listener(name string, l *spec.Listener, f Form) (*listenerv3.Listener, error) {
	m, _, err := patchedListener(name, l, f)
	return m, err
}

// patchedListener tells besides what `envoy:` overrides, by the document's fields.
func patchedListener(name string, l *spec.Listener, f Form) (*listenerv3.Listener, map[string][]string, error) {
	ap, _ := netip.ParseAddrPort(l.Address) // the document's check let nothing else through
	at := address(ap)
	if ap.Addr().IsUnspecified() && ap.Addr().Is6() {
		at.GetSocketAddress().Ipv4Compat = true // every address of both families
	}
	var over []string
	filter := &listenerv3.Filter{Name: "envoy.filters.network.http_connection_manager"}
	if l.TCP != nil {
		filter.Name = "envoy.filters.network.tcp_proxy"
		proxy := tcpProxy(name, l)
		observeTCP(proxy, f)
		filter.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed(proxy)}
	} else {
		manager := connectionManager(name, l)
		var err error
		if over, err = patch(manager, l.EnvoyHTTP, "spec.envoyHTTP", "rds", "route_config", "scoped_routes"); err != nil {
			return nil, nil, err
		}
		if err := observeHTTP(manager, f); err != nil {
			return nil, nil, &PatchError{"spec.envoyHTTP", "http_filters", err}
		}
		filter.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed(manager)}
	}
	m := &listenerv3.Listener{
		Name:                          name,
		Address:                       at,
		PerConnectionBufferLimitBytes: u32(l.BufferLimit),
		FilterChains:                  []*listenerv3.FilterChain{{TransportSocket: downstreamTLS(name, l), Filters: []*listenerv3.Filter{filter}}},
		Metadata:                      origin(spec.SourceLocal, string(spec.KindListener)+"/"+name),
	}
	if l.Inbound {
		m.TrafficDirection = corev3.TrafficDirection_INBOUND
	}
	more, err := patch(m, l.Envoy, "spec.envoy", "name", "address")
	return m, map[string][]string{"spec.envoyHTTP": over, "spec.envoy": more}, err
}

// ListenerClusters lists the clusters that a listener itself names, sorted.
func ListenerClusters(l *spec.Listener) []string {
	var out []string
	for _, to := range l.Destinations() {
		out = append(out, to.Upstream)
	}
	slices.Sort(out)
	return out
}

// tcpProxy passes connections on. Weights of 0 are left out, since Envoy refuses
// them here.
func tcpProxy(name string, l *spec.Listener) *tcpv3.TcpProxy {
	p := &tcpv3.TcpProxy{
		StatPrefix: name, IdleTimeout: duration(l.IdleTimeout), MaxConnectAttempts: u32(l.TCP.ConnectAttempts), AccessLog: accessLog(l.AccessLog.To),
	}
	if len(l.TCP.To) == 1 {
		p.ClusterSpecifier = &tcpv3.TcpProxy_Cluster{Cluster: l.TCP.To[0].Upstream}
	} else {
		w := &tcpv3.TcpProxy_WeightedCluster{}
		for _, to := range l.TCP.To {
			if to.Weight > 0 {
				w.Clusters = append(w.Clusters, &tcpv3.TcpProxy_WeightedCluster_ClusterWeight{Name: to.Upstream, Weight: to.Weight})
			}
		}
		p.ClusterSpecifier = &tcpv3.TcpProxy_WeightedClusters{WeightedClusters: w}
	}
	if l.TCP.HashSourceIP {
		p.HashPolicy = []*typev3.HashPolicy{{PolicySpecifier: &typev3.HashPolicy_SourceIp_{SourceIp: &typev3.HashPolicy_SourceIp{}}}}
	}
	return p
}

func connectionManager(name string, l *spec.Listener) *hcmv3.HttpConnectionManager {
	m := &hcmv3.HttpConnectionManager{
		StatPrefix: name,
		CodecType:  hcmv3.HttpConnectionManager_AUTO,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			RouteConfigName: name, ConfigSource: ads(0),
		}},
		HttpFilters: []*hcmv3.HttpFilter{{
			Name:       "envoy.filters.http.router",
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(&routerv3.Router{})},
		}},
		AccessLog:                 accessLog(l.AccessLog.To),
		UseRemoteAddress:          wrapperspb.Bool(true),
		XffNumTrustedHops:         l.TrustedHops,
		NormalizePath:             wrapperspb.Bool(true),
		StreamIdleTimeout:         duration(l.StreamIdleTimeout),
		RequestHeadersTimeout:     duration(l.HeadersTimeout),
		MaxRequestHeadersKb:       u32(l.MaxHeadersKB),
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: duration(l.IdleTimeout)},
	}
	if l.HTTP2 != (spec.HTTP2{}) {
		m.Http2ProtocolOptions = http2Options(l.HTTP2)
	}
	return m
}

// logFields are Envoy's operators by the key under which they are logged.
var logFields = map[string]string{
	"time": "%START_TIME%", "listener": "%METADATA(LISTENER:wellspring:key)%",
	"method": "%REQ(:METHOD)%", "host": "%REQ(:AUTHORITY)%", "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "protocol": "%PROTOCOL%",
	"status": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%", "details": "%RESPONSE_CODE_DETAILS%",
	"route": "%ROUTE_NAME%", "upstream": "%UPSTREAM_CLUSTER%", "endpoint": "%UPSTREAM_HOST%",
	"failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%", "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
	"durationMs": "%DURATION%", "bytesIn": "%BYTES_RECEIVED%", "bytesOut": "%BYTES_SENT%",
	"client": "%DOWNSTREAM_REMOTE_ADDRESS%", "requestId": "%REQ(X-REQUEST-ID)%", "grpcStatus": "%GRPC_STATUS(SNAKE_STRING)%",
}

func accessLog(to string) []*accesslogv3.AccessLog {
	fields := make(map[string]*structpb.Value, len(logFields))
	for k, v := range logFields {
		fields[k] = structpb.NewStringValue(v)
	}
	format := &corev3.SubstitutionFormatString{
		Format:          &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: fields}},
		OmitEmptyValues: true,
	}
	entry := &accesslogv3.AccessLog{}
	switch to {
	case "off":
		return nil
	case "stdout":
		entry.Name = "envoy.access_loggers.stdout"
		entry.ConfigType = &accesslogv3.AccessLog_TypedConfig{TypedConfig: packed(&streamlogv3.StdoutAccessLog{
			AccessLogFormat: &streamlogv3.StdoutAccessLog_LogFormat{LogFormat: format},
		})}
	case "stderr":
		entry.Name = "envoy.access_loggers.stderr"
		entry.ConfigType = &accesslogv3.AccessLog_TypedConfig{TypedConfig: packed(&streamlogv3.StderrAccessLog{
			AccessLogFormat: &streamlogv3.StderrAccessLog_LogFormat{LogFormat: format},
		})}
	default:
		entry.Name = "envoy.access_loggers.file"
		entry.ConfigType = &accesslogv3.AccessLog_TypedConfig{TypedConfig: packed(&filelogv3.FileAccessLog{
			Path: to, AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{LogFormat: format},
		})}
	}
	return []*accesslogv3.AccessLog{entry}
}
