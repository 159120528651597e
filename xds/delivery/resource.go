package delivery

import (
	"crypto/sha256"
	"encoding/hex"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
)

// Type is the URL of a resource type.
type Type string

// The types that are served, in the order in which they are sent.
const (
	Clusters    Type = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	Assignments Type = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	Secrets     Type = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	Listeners   Type = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteTables Type = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

// Types lists the served types in the order in which they are sent: make before
// break.
var Types = []Type{Clusters, Assignments, Secrets, Listeners, RouteTables}

// Short is the type in words: clusters, assignments, secrets, listeners, routes.
func (t Type) Short() string {
	switch t {
	case Clusters:
		return "clusters"
	case Assignments:
		return "assignments"
	case Secrets:
		return "secrets"
	case Listeners:
		return "listeners"
	case RouteTables:
		return "routes"
	}
	return string(t)
}

// index is the type's place in Types, -1 where it is not served.
func (t Type) index() int {
	switch t {
	case Clusters:
		return 0
	case Assignments:
		return 1
	case Secrets:
		return 2
	case Listeners:
		return 3
	case RouteTables:
		return 4
	}
	return -1
}

// typeCount is how many types are served.
const typeCount = 5

// everyTime tells the types of which every name that a new stream asks for is
// answered, whatever version the proxy says it has: what named it may have been
// warming when the last stream broke.
func (t Type) everyTime() bool { return t == Assignments || t == Secrets }

// fullState tells the types of which a state-of-the-world response names all:
// leaving one out deletes it.
func (t Type) fullState() bool { return t == Clusters || t == Listeners }

// Resource is one resource, encoded once. It is immutable and shared by all
// streams; the fields besides those of NewResource are set before it is published.
type Resource struct {
	Type Type
	Name string
	// Version is 16 hex digits of SHA-256 over the encoded content.
	Version string
	// Document is what the operator wrote it in: "Upstream/catalog".
	Document string
	// Clusters are those that a route table, or a listener that passes connections on,
	// names, sorted.
	Clusters []string
	// Assignment is the name of a cluster's assignment.
	Assignment string
	// Address is where a listener listens.
	Address string
	// Private tells that a secret holds a private key.
	Private bool

	// field is a delta response's field for it: its name, its version and, last, an Any
	// of its content. The Any has the very field number that a state-of-the-world
	// response has for it, so that both forms are sent from these bytes.
	field          []byte
	any, contentAt int // where in field the Any's own field begins, and its content
	sum            sum // of its name and version
}

// NewResource makes a resource of its encoded content.
func NewResource(typ Type, name string, content []byte) *Resource {
	sum := sha256.Sum256(content)
	return newResource(typ, name, hex.EncodeToString(sum[:8]), content)
}

// The fields of DeltaDiscoveryResponse.Resource, of Any, and of both responses for a
// resource (envoy/service/discovery/v3/discovery.proto).
const (
	fieldVersion  = 1
	fieldResource = 2
	fieldName     = 3
	anyType       = 1
	anyContent    = 2
)

func newResource(typ Type, name, version string, content []byte) *Resource {
	size := func(n int) int { return 1 + protowire.SizeBytes(n) }
	inAny := size(len(typ)) + size(len(content))
	inField := size(len(name)) + size(len(version)) + size(inAny)
	b := make([]byte, 0, size(inField))
	b = protowire.AppendTag(b, fieldResource, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(inField))
	b = protowire.AppendTag(b, fieldName, protowire.BytesType)
	b = protowire.AppendString(b, name)
	b = protowire.AppendTag(b, fieldVersion, protowire.BytesType)
	b = protowire.AppendString(b, version)
	r := &Resource{Type: typ, Name: name, Version: version, any: len(b), sum: sumOf(name, version)}
	b = protowire.AppendTag(b, fieldResource, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(inAny))
	b = protowire.AppendTag(b, anyType, protowire.BytesType)
	b = protowire.AppendString(b, string(typ))
	b = protowire.AppendTag(b, anyContent, protowire.BytesType)
	b = protowire.AppendBytes(b, content)
	r.field, r.contentAt = b, len(b)-len(content)
	return r
}

// Content is the encoded message. It is not to be changed.
func (r *Resource) Content() []byte { return r.field[r.contentAt:] }

// Message is the content as it stands in a response.
func (r *Resource) Message() *anypb.Any {
	return &anypb.Any{TypeUrl: string(r.Type), Value: r.Content()}
}

// Field is what a response carries of it, with the number of its field: a delta
// response its name, version and content, a state-of-the-world response its content.
// It is not to be changed.
func (r *Resource) Field(delta bool) []byte {
	if delta {
		return r.field
	}
	return r.field[r.any:]
}
