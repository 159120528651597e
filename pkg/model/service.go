// Package model holds the words of what runs: Service, Endpoint, Proxy,
// Delivery, Event and the Origin of a value.
//
// Everything here is a plain value. No type has a goroutine, a lock, a protobuf
// or a registry's format in it; whoever builds a value sorts it, and nobody
// changes it afterwards.
package model

import (
	"cmp"
	"strings"
	"time"
)

// ServiceKey names one service of one source. Datacenter, Namespace and
// Partition are empty where the source has no such notion or its default is
// meant. It is comparable and may be a map key.
type ServiceKey struct {
	Source     string `json:"source"`
	Datacenter string `json:"datacenter,omitempty"`
	Namespace  string `json:"namespace,omitempty"`
	Partition  string `json:"partition,omitempty"`
	Name       string `json:"name"`
}

// String prints the key for people, outermost part first and empty parts left
// out: "consul/dc1/web".
func (k ServiceKey) String() string {
	parts := make([]string, 0, 5)
	for _, p := range []string{k.Source, k.Partition, k.Namespace, k.Datacenter, k.Name} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "/")
}

// OfSource is the key of what the service is read from: its source, in its datacenter.
func (k ServiceKey) OfSource() ServiceKey {
	return ServiceKey{Source: k.Source, Datacenter: k.Datacenter}
}

// Compare orders keys by source, then datacenter, namespace, partition, name.
func (k ServiceKey) Compare(o ServiceKey) int {
	return cmp.Or(
		cmp.Compare(k.Source, o.Source), cmp.Compare(k.Datacenter, o.Datacenter),
		cmp.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Partition, o.Partition),
		cmp.Compare(k.Name, o.Name))
}

// Presence says what a source knows about a service as a whole.
type Presence string

const (
	// Unknown means that no authoritative answer was ever read. It is never
	// published as an empty assignment.
	Unknown Presence = "unknown"
	// Present means at least one instance.
	Present Presence = "present"
	// Empty means that the name exists and nobody is there: authoritative.
	Empty Presence = "empty"
	// Absent means that the source knows no such name: authoritative.
	Absent Presence = "absent"
)

// Authoritative tells whether the answer may be acted on.
func (p Presence) Authoritative() bool { return p == Present || p == Empty || p == Absent }

// Service is what a source said last about one key. It is immutable; Endpoints
// are sorted by ID and the IDs are unique.
type Service struct {
	Key       ServiceKey `json:"key"`
	Presence  Presence   `json:"presence"`
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	// Problems are the records of this service that could not be used.
	Problems []Problem `json:"problems,omitempty"`
}

// Known is what is known of one key as of now: the last authoritative answer, and
// why nothing newer is known.
type Known struct {
	// Service is the last authoritative answer, nil before the first.
	Service *Service
	// Since is when Service last changed.
	Since time.Time
	// Failure is nil while the source answers; Reason sorts it.
	Failure error
	Reason  string
	// FailingSince is when the failure began, zero while the source answers.
	FailingSince time.Time
}

// Health is what the registry says about one endpoint.
type Health string

const (
	// Healthy endpoints take traffic.
	Healthy Health = "healthy"
	// Unhealthy endpoints are sent, marked, and not removed.
	Unhealthy Health = "unhealthy"
	// Draining endpoints take no new requests and leave the denominator.
	Draining Health = "draining"
)

// Locality says where an endpoint or a proxy is. Empty parts are not known.
type Locality struct {
	Region  string `json:"region,omitempty"`
	Zone    string `json:"zone,omitempty"`
	SubZone string `json:"subzone,omitempty"`
}

// Compare orders localities by region, zone, sub-zone.
func (l Locality) Compare(o Locality) int {
	return cmp.Or(cmp.Compare(l.Region, o.Region), cmp.Compare(l.Zone, o.Zone), cmp.Compare(l.SubZone, o.SubZone))
}

// Endpoint is one reachable instance of a service.
type Endpoint struct {
	// ID is unique within the service: NODE/SERVICE_ID in Consul, the address in
	// a Service document without ids.
	ID string `json:"id"`
	// Address is host:port; the host is an IP except where an Upstream declares
	// hostnames.
	Address string `json:"address"`
	// Addresses are the tagged alternatives to Address (Consul's TaggedAddresses).
	Addresses map[string]string `json:"addresses,omitempty"`
	Health    Health            `json:"health"`
	// Reason says why the endpoint is not healthy: the check's name and output.
	Reason string `json:"reason,omitempty"`
	// Check is the id of the source's check that decides where it is not healthy.
	Check string `json:"check,omitempty" doc:"id of the source's check that decides, where it is not healthy"`
	// Weight is relative to the endpoints of the same locality, at least 1.
	Weight   uint32            `json:"weight"`
	Locality Locality          `json:"locality,omitzero"`
	Tags     []string          `json:"tags,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Origin   Origin            `json:"origin"`
}

// Origin says where a value was read. Source and Key may travel in resource
// metadata; Index and Revision never do, since they would change a version that
// nothing else changed.
type Origin struct {
	Source   string `json:"source"`
	Key      string `json:"key,omitempty"`
	Index    uint64 `json:"index,omitempty"`
	Revision uint64 `json:"revision,omitempty"`
}

// Problem is one thing that could not be used, told without harming the rest.
type Problem struct {
	// Document is KIND/NAME, or the service key for a registry's record.
	Document string `json:"document"`
	// Field is the path inside the document or the record's id.
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
}

func (p Problem) String() string {
	if p.Field == "" {
		return p.Document + ": " + p.Message
	}
	return p.Document + ": " + p.Field + ": " + p.Message
}
