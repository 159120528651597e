// Package translate says our words in Envoy's: Upstream → Cluster, endpoints →
// ClusterLoadAssignment, Route → VirtualHost, Listener → Listener.
//
// Every function is pure and deterministic: the same documents and services give
// the same bytes on every replica. Nothing volatile (an index, a revision, a
// time, a check's output) gets into a resource, since versions are hashes of
// their content. Results are checked by Check before anybody is sent them.
//
// What is decided here and why:
//   - ignore_health_on_host_removal is always true: a deregistered endpoint goes
//     at once, whatever Envoy's own check says of it.
//   - The panic threshold is written in every cluster; `then: fail` is 0.
//   - update_merge_window is 0 where checks or outlier detection act: with the
//     default of 1s a verdict reaches the workers up to a second late, measured as
//     one second of 503 after a replacement of all endpoints.
//   - An assignment's name carries a hash of what makes endpoints and definition
//     inseparable. Envoy hands an assignment to the old, still active cluster at
//     once, so endpoints that are meant for a new definition need a new name.
package translate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Band is the minor of Envoy 1.x that resources are made for, from MinBand to
// MaxBand.
type Band int

// The supported minors.
const (
	MinBand Band = 37
	MaxBand Band = 40
	// GRPC is for gRPC's own xDS clients, which take less than any Envoy.
	GRPC Band = 0
)

func (b Band) String() string {
	if b == GRPC {
		return "gRPC"
	}
	return fmt.Sprintf("1.%d", int(b))
}

// BandOf clamps a version ("1.38.3") into the supported bands. supported is
// false for an older Envoy and for a version that cannot be read, which get the
// lowest band.
func BandOf(version string) (band Band, supported bool) {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return MinBand, false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	switch {
	case err1 != nil || err2 != nil || major < 1 || major == 1 && minor < int(MinBand):
		return MinBand, false
	case major > 1 || minor > int(MaxBand):
		return MaxBand, true
	}
	return Band(minor), true
}

// Namespace is the key of our metadata in Envoy's resources.
const Namespace = "wellspring"

// fetchTimeout ends Envoy's wait for an assignment: one that never comes must
// not hold back the acknowledgement of every other cluster for ever.
const fetchTimeout = 15 * time.Second

// AssignmentName is the upstream's name and 12 hex digits over what makes its
// endpoints and its definition inseparable: the selection, the protocol, the
// check port, TLS.
func AssignmentName(name string, u *spec.Upstream) string {
	inseparable := struct {
		Key       any
		Tags      []string
		Metadata  map[string]string
		Address   string
		Protocol  string
		CheckPort uint32
		TLS       any `json:",omitempty"`
		Envoy     any `json:",omitempty"`
	}{u.Key(name), u.Service.Tags, u.Service.Metadata, u.Service.AddressTag, u.Protocol, checkPort(u), tlsIdentity(u), patchIdentity(u)}
	text, _ := json.Marshal(inseparable) // of strings and numbers: cannot fail
	sum := sha256.Sum256(text)
	return name + "@" + hex.EncodeToString(sum[:])[:12]
}

// UpstreamOf is the upstream's name in an assignment's.
func UpstreamOf(assignment string) string {
	name, _, _ := strings.Cut(assignment, "@")
	return name
}

func checkPort(u *spec.Upstream) uint32 {
	if len(u.HealthChecks) == 0 {
		return 0
	}
	return u.HealthChecks[0].Port
}

// Check holds a resource against the rules that were generated with its type. A
// resource that passes is not refused by Envoy for the value of a field.
func Check(m proto.Message) error {
	v, ok := m.(interface{ ValidateAll() error })
	if !ok {
		return fmt.Errorf("%s has no validation rules", m.ProtoReflect().Descriptor().FullName())
	}
	return v.ValidateAll()
}

func duration(d spec.Duration) *durationpb.Duration { return durationpb.New(d.D()) }

// optional is nil for 0, so that Envoy's own default holds.
func optional(d spec.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return duration(d)
}

func u32(n uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(n) }

// packed puts a message into an Any with deterministic bytes.
func packed(m proto.Message) *anypb.Any {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("marshal %s: %v", m.ProtoReflect().Descriptor().FullName(), err)) // only invalid UTF-8 can fail, and parsing refused it
	}
	return &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: value}
}

// ads is how every resource names its source: this very stream.
func ads(fetch time.Duration) *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   durationpb.New(fetch),
	}
}

// origin says where a value was read.
func origin(source, key string) *corev3.Metadata {
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		Namespace: {Fields: map[string]*structpb.Value{
			"source": structpb.NewStringValue(source),
			"key":    structpb.NewStringValue(key),
		}},
	}}
}
