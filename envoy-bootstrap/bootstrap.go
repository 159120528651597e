// Package bootstrap builds the file that an Envoy is started with: who it is,
// where its control plane is, and where its own admin listens.
//
// It is built as Envoy's own message and printed as YAML or JSON, never by text
// templates. What is set and why:
//   - Delta ADS, the node said once per stream.
//   - No fetch timeout for clusters and listeners: an Envoy that is refused for a
//     while must not become ready with nothing.
//   - Back-off of the stream from 250ms to 5s, with jitter by Envoy.
//   - HTTP/2 keepalive to the control plane every 20s, 5s to answer: a peer that
//     vanished is noticed while Envoy goes on serving what it has.
//   - Several control-plane addresses are endpoints of one cluster; a broken
//     stream is opened again on another.
package bootstrap

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	heapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"sigs.k8s.io/yaml"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// XDSCluster is the name of the control plane's cluster.
const XDSCluster = "wellspring-xds"

// Reserved begins the names of a bootstrap's own clusters; documents may not use such.
const Reserved = "wellspring-"

// Config of a bootstrap. NodeID and Group are required.
type Config struct {
	// NodeID is unique for each proxy.
	NodeID string
	// Group becomes the node's cluster, which a Group matches by default.
	Group string
	Zone  string
	// Envoy is the version that reads it, from 1.37; "" is any. It says only how Telemetry
	// is sent: from 1.40 on compressed, which older ones do not start with.
	Envoy string
	// XDS are the control plane's addresses, HOST:PORT or unix:///path; default 127.0.0.1:18000.
	XDS []string
	// TLS to the control plane; nil is none.
	TLS *TLS
	// Admin is where Envoy's admin listens: IP:PORT on loopback, or the absolute
	// path of a unix socket. Default 127.0.0.1:9901.
	Admin string
	// Telemetry is what Envoy reports, and where; nil is nothing.
	Telemetry *Telemetry
	// DrainTime is what Envoy is started with as --drain-time-s; the control plane
	// keeps the clusters of a removed listener for that long. Default 600s.
	DrainTime time.Duration
	// MaxConnections from clients to the whole Envoy. Default 50000.
	MaxConnections int64
	// MaxHeapBytes at which Envoy refuses requests; zero is no limit.
	MaxHeapBytes uint64
}

const (
	defaultXDS            = "127.0.0.1:18000"
	defaultAdmin          = "127.0.0.1:9901"
	defaultDrainTime      = 600 * time.Second
	defaultMaxConnections = 50_000
	maxRegexProgram       = 1 << 20
)

// label is what a Group's name looks like (RFC 1123).
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// New builds the bootstrap, or names what is wrong with the configuration.
func New(c Config) (*bootstrapv3.Bootstrap, error) {
	if c.NodeID == "" || c.Group == "" {
		return nil, fmt.Errorf("a node id and a group are needed")
	}
	if !label.MatchString(c.Group) {
		return nil, fmt.Errorf("group %q is no name that a document can have: lower-case letters, digits and -, at most 63", c.Group)
	}
	if len(c.XDS) == 0 {
		c.XDS = []string{defaultXDS}
	}
	c.Admin = cmp.Or(c.Admin, defaultAdmin)
	c.DrainTime = cmp.Or(c.DrainTime, defaultDrainTime)
	c.MaxConnections = cmp.Or(c.MaxConnections, defaultMaxConnections)
	if c.minor() == 0 {
		return nil, fmt.Errorf("version %q of Envoy is none from 1.%d", c.Envoy, oldest)
	}
	admin, err := adminAddress(c.Admin)
	if err != nil {
		return nil, err
	}
	cluster, err := controlPlane(XDSCluster, c.XDS, &corev3.Http2ProtocolOptions{})
	if err != nil {
		return nil, err
	}
	if c.TLS != nil {
		if cluster.TransportSocket, err = c.TLS.socket(c.XDS); err != nil {
			return nil, err
		}
	}
	said := map[string]any{"admin": c.Admin, "drainTime": c.DrainTime.String()}
	if c.Telemetry != nil {
		t := *c.Telemetry
		c.Telemetry, t.Level = &t, cmp.Or(t.Level, model.TelemetryEndpoints)
		said[MetadataTelemetry], said[MetadataReportKey] = string(c.Telemetry.Level), c.Telemetry.Key
		said[MetadataInterval] = c.Telemetry.interval(c).String()
	}
	ours, err := structpb.NewStruct(map[string]any{"wellspring": said})
	if err != nil {
		return nil, err
	}
	// Envoy refuses regular expressions above a program size of 100 by default, and
	// with one of them the whole route table; their size is bounded in documents.
	runtime, err := structpb.NewStruct(map[string]any{"re2.max_program_size.error_level": maxRegexProgram})
	if err != nil {
		return nil, err
	}
	b := &bootstrapv3.Bootstrap{
		Node:  &corev3.Node{Id: c.NodeID, Cluster: c.Group, Metadata: ours},
		Admin: &bootstrapv3.Admin{Address: admin},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			AdsConfig: adsConfig(),
			CdsConfig: overADS(),
			LdsConfig: overADS(),
		},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{cluster}},
		OverloadManager: overload(c),
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
			Name:           "wellspring",
			LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: runtime},
		}}},
	}
	if c.Zone != "" {
		b.Node.Locality = &corev3.Locality{Zone: c.Zone}
	}
	if c.Telemetry != nil {
		if err := c.Telemetry.report(b, c); err != nil {
			return nil, err
		}
	}
	if err := b.ValidateAll(); err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	return b, nil
}

// oldest is the first supported minor of Envoy 1.x.
const oldest = 37

// minor of the Envoy that reads the bootstrap; 0 where it cannot be told or is too
// old.
func (c Config) minor() int {
	if c.Envoy == "" {
		return oldest
	}
	var minor int
	if n, _ := fmt.Sscanf(c.Envoy, "1.%d", &minor); n != 1 || minor < oldest {
		return 0
	}
	return minor
}

// JSON prints a bootstrap as JSON.
func JSON(b *bootstrapv3.Bootstrap) ([]byte, error) {
	return protojson.MarshalOptions{UseProtoNames: true}.Marshal(b)
}

// YAML prints a bootstrap as YAML that Envoy reads, which is YAML 1.1: texts that
// it would take for a boolean are quoted.
func YAML(b *bootstrapv3.Bootstrap) ([]byte, error) {
	text, err := JSON(b)
	if err != nil {
		return nil, err
	}
	return yaml.JSONToYAML(text)
}

func overADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   durationpb.New(0),
	}
}

func adsConfig() *corev3.ApiConfigSource {
	return &corev3.ApiConfigSource{
		ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
		TransportApiVersion:       corev3.ApiVersion_V3,
		SetNodeOnFirstMessageOnly: true,
		GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
			ClusterName: XDSCluster,
			RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
				BaseInterval: durationpb.New(250 * time.Millisecond), MaxInterval: durationpb.New(5 * time.Second),
			}},
		}}}},
	}
}

// adminAddress takes loopback and unix sockets: Envoy's admin has no
// authentication.
func adminAddress(a string) (*corev3.Address, error) {
	if strings.HasPrefix(a, "/") {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: a, Mode: 0o600}}}, nil
	}
	ap, err := netip.ParseAddrPort(a)
	switch {
	case err != nil:
		return nil, fmt.Errorf("admin address %q is neither IP:PORT nor the absolute path of a socket", a)
	case !ap.Addr().IsLoopback():
		return nil, fmt.Errorf("admin address %q is not loopback; Envoy's admin has no authentication: use 127.0.0.1 or a unix socket", a)
	}
	return socket(ap.Addr().String(), uint32(ap.Port())), nil
}

// overload bounds connections, and the heap where a limit is given.
func overload(c Config) *overloadv3.OverloadManager {
	m := &overloadv3.OverloadManager{
		RefreshInterval:  durationpb.New(250 * time.Millisecond),
		ResourceMonitors: []*overloadv3.ResourceMonitor{monitor("envoy.resource_monitors.global_downstream_max_connections", &connectionsv3.DownstreamConnectionsConfig{MaxActiveDownstreamConnections: c.MaxConnections})},
	}
	if c.MaxHeapBytes > 0 {
		const heap = "envoy.resource_monitors.fixed_heap"
		m.ResourceMonitors = append(m.ResourceMonitors, monitor(heap, &heapv3.FixedHeapConfig{MaxHeapSizeBytes: c.MaxHeapBytes}))
		m.Actions = []*overloadv3.OverloadAction{
			action("envoy.overload_actions.shrink_heap", heap, 0.95),
			action("envoy.overload_actions.stop_accepting_requests", heap, 0.98),
		}
	}
	return m
}

func monitor(name string, m proto.Message) *overloadv3.ResourceMonitor {
	return &overloadv3.ResourceMonitor{Name: name, ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: constant(m)}}
}

func action(name, monitor string, above float64) *overloadv3.OverloadAction {
	return &overloadv3.OverloadAction{Name: name, Triggers: []*overloadv3.Trigger{{
		Name:         monitor,
		TriggerOneof: &overloadv3.Trigger_Threshold{Threshold: &overloadv3.ThresholdTrigger{Value: above}},
	}}}
}

// constant packs what no text of a user is in.
func constant(m proto.Message) *anypb.Any {
	a, err := packed(m)
	if err != nil {
		panic(fmt.Sprintf("pack %T: %v", m, err)) // only what is no UTF-8 fails
	}
	return a
}

func packed(m proto.Message) (*anypb.Any, error) {
	a := &anypb.Any{}
	return a, anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true})
}
