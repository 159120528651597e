package delivery

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"

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

// everyTime tells the types of which every name that a new stream asks for is
// answered, whatever version the proxy says it has: what named it may have been
// warming when the last stream broke.
func (t Type) everyTime() bool { return t == Assignments || t == Secrets }

// fullState tells the types of which a state-of-the-world response names all:
// leaving one out deletes it.
func (t Type) fullState() bool { return t == Clusters || t == Listeners }

// Resource is one encoded resource. It is immutable and shared by all streams.
type Resource struct {
	Type Type
	Name string
	// Version is 16 hex digits of SHA-256 over the encoded content.
	Version string
	Body    *anypb.Any
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
}

// VersionOf hashes encoded content.
func VersionOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])[:16]
}

// Table is everything a class is served. It is immutable once published; two
// tables share the inner maps of the types that did not change.
type Table struct {
	Resources map[Type]map[string]*Resource
	// Unknown are the names of upstreams that are declared and of which nothing is
	// known yet, and of secrets whose files were never readable: they are neither
	// served nor told as removed.
	Unknown map[string]bool
}

// get finds a resource; nil when it is not served.
func (t *Table) get(typ Type, name string) *Resource { return t.Resources[typ][name] }

// setVersion hashes a set of resources: what a state-of-the-world client
// presents when it comes back.
func setVersion(versions map[string]string) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		h.Write([]byte(name))
		h.Write([]byte{0})
		h.Write([]byte(versions[name]))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// Class is the proxies that are served the very same resources.
type Class struct {
	Group string
	// Band is the minor of Envoy's version, clamped to what is supported; 0 are
	// gRPC's own clients.
	Band int
}
