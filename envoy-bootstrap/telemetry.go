package bootstrap

import (
	"cmp"
	"encoding/base64"
	"strings"
	"time"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	gzipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/gzip/compressor/v3"
	compressorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/compressor/v3"
	codecv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	inputv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/stats/v3"
	sinkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/stat_sinks/open_telemetry/v3"
	stringv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// The clusters that an Envoy reports to. Resources that it is sent name them, so
// only an Envoy whose metadata says that it reports is sent such ones.
const (
	TelemetryCluster = "wellspring-telemetry" // statistics: OTLP over HTTP, compressed
	FailuresCluster  = "wellspring-failures"  // access logs of failed requests: gRPC
)

// FailureScope and FailureCounter name the statistic by which listeners count failed
// requests, the others its tags.
const (
	FailureScope    = "wellspring"
	FailureCounter  = "failed_requests"
	FailureUpstream = "upstream"
	FailureRoute    = "route"
	FailureFlag     = "flag"
)

// The names of the access logs of failed requests, and of failed attempts; their
// tags are named like the statistic's, and FailureDetail.
const (
	RequestsLog   = "wellspring-requests"
	AttemptsLog   = "wellspring-attempts"
	FailureDetail = "detail"
)

// The headers of a report: whose it is, and the key that the node said on its
// stream, both in base64. Envoy reads a % in plain text as an operator, over HTTP; over
// gRPC it refuses it, and sends two where two are written.
const (
	NodeHeader = "x-wellspring-node"
	KeyHeader  = "x-wellspring-report-key"
)

// Header is how their values are written.
var Header = base64.RawURLEncoding

// The keys of the node's metadata, below "wellspring".
const (
	MetadataTelemetry = "telemetry"
	MetadataReportKey = "reportKey"
	MetadataInterval  = "reportInterval"
)

// Telemetry is what an Envoy reports to the control plane.
type Telemetry struct {
	// Level is the most that it can be asked for; groups choose up to it. Default
	// endpoints, since what a group does not ask for is not made.
	Level model.Telemetry
	// Addresses are the control plane's, HOST:PORT or unix:///path; default
	// 127.0.0.1:18001.
	Addresses []string
	// Key ties reports to the stream of the same node: whoever does not know it
	// cannot report for the node. It is a secret of the two.
	Key string
	// Interval between reports. Default 5s where they are compressed (Config.Envoy), else
	// 20s.
	Interval time.Duration
}

const (
	defaultTelemetry = "127.0.0.1:18001"
	defaultInterval  = 5 * time.Second
	longInterval     = 20 * time.Second
	reportTimeout    = 2 * time.Second
	// What may wait to be sent to somebody who does not read: without a limit Envoy
	// buffers 16 MiB for each stream.
	failuresWindow = 64 << 10
	failuresBuffer = 128 << 10
)

// kept are the statistics of a cluster that are reported, by the level that first
// has them. Envoy drops all others before it sends.
var kept = map[model.Telemetry][]string{
	model.TelemetryUpstreams: {
		"membership_(total|healthy|degraded|excluded)", "warming_state", "lb_healthy_panic",
		"upstream_cx_(total|none_healthy|connect_fail|overflow)",
		"upstream_rq_(active|pending_active|completed|5xx|timeout|retry|retry_overflow|pending_overflow|active_overflow|time)",
		`outlier_detection\.ejections_(active|overflow)`, `health_check\.(failure|network_failure)`, "update_(failure|empty)", "assignment_stale",
	},
	model.TelemetryEndpoints: {`endpoint\..*\.(healthy|cx_connect_fail)`},
}

// latencyBuckets are the upper bounds, in milliseconds, in which the time of
// requests is counted.
var latencyBuckets = []float64{1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000}

// keep is the regular expression of the statistics that a level needs.
func keep(level model.Telemetry) string {
	all := []string{`server\.uptime`, FailureScope + `\.` + FailureCounter + `.*`}
	var ofCluster []string
	for _, l := range model.TelemetryLevels {
		if level.Includes(l) {
			ofCluster = append(ofCluster, kept[l]...)
		}
	}
	if len(ofCluster) > 0 {
		all = append(all, `cluster\.[^.]+\.(`+strings.Join(ofCluster, "|")+")")
	}
	return strings.Join(all, "|")
}

// compresses is the first minor that can compress what it sends to a cluster.
const compresses = 40

// interval is the time between reports.
func (t *Telemetry) interval(c Config) time.Duration {
	if c.minor() >= compresses {
		return cmp.Or(t.Interval, defaultInterval)
	}
	return cmp.Or(t.Interval, longInterval)
}

// report adds to a bootstrap what it takes to report.
func (t *Telemetry) report(b *bootstrapv3.Bootstrap, c Config) error {
	addresses := t.Addresses
	if len(addresses) == 0 {
		addresses = []string{defaultTelemetry}
	}
	var filters []*hcmv3.HttpFilter
	if c.minor() >= compresses {
		filters = compressed()
	}
	statistics, err := controlPlane(TelemetryCluster, addresses, &corev3.Http2ProtocolOptions{}, filters...)
	if err != nil {
		return err
	}
	failures, err := controlPlane(FailuresCluster, addresses, &corev3.Http2ProtocolOptions{
		InitialStreamWindowSize: wrapperspb.UInt32(failuresWindow), InitialConnectionWindowSize: wrapperspb.UInt32(failuresWindow),
	})
	if err != nil {
		return err
	}
	failures.PerConnectionBufferLimitBytes = wrapperspb.UInt32(failuresBuffer)
	if c.TLS != nil {
		for _, cluster := range []*clusterv3.Cluster{statistics, failures} {
			if cluster.TransportSocket, err = c.TLS.socket(addresses); err != nil {
				return err
			}
		}
	}
	sink, err := packed(t.sink(c))
	if err != nil {
		return err
	}
	b.StaticResources.Clusters = append(b.StaticResources.Clusters, statistics, failures)
	b.StatsFlushInterval = durationpb.New(t.interval(c))
	b.StatsSinks = []*metricsv3.StatsSink{{
		Name: "envoy.stat_sinks.open_telemetry", ConfigType: &metricsv3.StatsSink_TypedConfig{TypedConfig: sink},
	}}
	b.StatsConfig = &metricsv3.StatsConfig{HistogramBucketSettings: []*metricsv3.HistogramBucketSettings{{
		Match:   &stringv3.StringMatcher{MatchPattern: &stringv3.StringMatcher_Suffix{Suffix: ".upstream_rq_time"}},
		Buckets: latencyBuckets,
	}}}
	return nil
}

// sink sends what is kept, counters and histograms since Envoy's start: what is
// lost while we are away is in the next report.
func (t *Telemetry) sink(c Config) *sinkv3.SinkConfig {
	s := &sinkv3.SinkConfig{CustomMetricConversions: onlyKept(keep(t.Level))}
	who := []*corev3.HeaderValue{{Key: NodeHeader, Value: Header.EncodeToString([]byte(c.NodeID))}, {Key: KeyHeader, Value: Header.EncodeToString([]byte(t.Key))}}
	if c.minor() < compresses {
		s.ProtocolSpecifier = &sinkv3.SinkConfig_GrpcService{GrpcService: &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: TelemetryCluster}},
			Timeout:         durationpb.New(reportTimeout), InitialMetadata: who,
		}}
		return s
	}
	h := &corev3.HttpService{HttpUri: &corev3.HttpUri{
		Uri: "http://" + TelemetryCluster + "/v1/metrics", Timeout: durationpb.New(reportTimeout),
		HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: TelemetryCluster},
	}}
	for _, v := range who {
		h.RequestHeadersToAdd = append(h.RequestHeadersToAdd, &corev3.HeaderValueOption{
			Header: v, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	s.ProtocolSpecifier = &sinkv3.SinkConfig_HttpService{HttpService: h}
	return s
}

// onlyKept drops every statistic that a regular expression does not match.
func onlyKept(expression string) *matcherv3.Matcher {
	return &matcherv3.Matcher{MatcherType: &matcherv3.Matcher_MatcherList_{MatcherList: &matcherv3.Matcher_MatcherList{
		Matchers: []*matcherv3.Matcher_MatcherList_FieldMatcher{{
			Predicate: &matcherv3.Matcher_MatcherList_Predicate{MatchType: &matcherv3.Matcher_MatcherList_Predicate_NotMatcher{
				NotMatcher: &matcherv3.Matcher_MatcherList_Predicate{MatchType: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_{
					SinglePredicate: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate{
						Input: extension("stat_full_name", &inputv3.StatFullNameMatchInput{}),
						Matcher: &matcherv3.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{ValueMatch: &matcherv3.StringMatcher{
							MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{
								EngineType: &matcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &matcherv3.RegexMatcher_GoogleRE2{}}, Regex: expression,
							}},
						}},
					},
				}},
			}},
			OnMatch: &matcherv3.Matcher_OnMatch{OnMatch: &matcherv3.Matcher_OnMatch_Action{Action: extension("drop", &sinkv3.SinkConfig_DropAction{})}},
		}},
	}}}
}

// compressed sends reports with gzip, a twentieth of their size.
func compressed() []*hcmv3.HttpFilter {
	filter := func(name string, m proto.Message) *hcmv3.HttpFilter {
		return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: constant(m)}}
	}
	return []*hcmv3.HttpFilter{
		filter("envoy.filters.http.compressor", &compressorv3.Compressor{
			RequestDirectionConfig: &compressorv3.Compressor_RequestDirectionConfig{CommonConfig: &compressorv3.Compressor_CommonDirectionConfig{
				Enabled:            &corev3.RuntimeFeatureFlag{DefaultValue: wrapperspb.Bool(true), RuntimeKey: "wellspring.compress_reports"},
				ContentTypeMatcher: []*stringv3.StringMatcher{{MatchPattern: &stringv3.StringMatcher_Exact{Exact: "application/x-protobuf"}}},
			}},
			ResponseDirectionConfig: &compressorv3.Compressor_ResponseDirectionConfig{CommonConfig: &compressorv3.Compressor_CommonDirectionConfig{
				Enabled: &corev3.RuntimeFeatureFlag{DefaultValue: wrapperspb.Bool(false), RuntimeKey: "wellspring.compress_answers"},
			}},
			CompressorLibrary: &corev3.TypedExtensionConfig{Name: "gzip", TypedConfig: constant(&gzipv3.Gzip{})},
		}),
		filter("envoy.filters.http.upstream_codec", &codecv3.UpstreamCodec{}),
	}
}

func extension(name string, m proto.Message) *xdscorev3.TypedExtensionConfig {
	return &xdscorev3.TypedExtensionConfig{Name: name, TypedConfig: constant(m)}
}
