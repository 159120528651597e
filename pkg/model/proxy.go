package model

import (
	"encoding/json"
	"time"
)

// Proxy is one Envoy, or a program that is an xDS client itself, as it introduced
// itself on a stream.
type Proxy struct {
	ID      string `json:"id"`
	Cluster string `json:"cluster,omitempty"`
	Group   string `json:"group,omitempty"`
	// Agent is the program: envoy, gRPC Go.
	Agent    string   `json:"agent,omitempty"`
	Version  string   `json:"version,omitempty"`
	Locality Locality `json:"locality,omitzero"`
	// Metadata holds the node's string values, nested keys joined by dots.
	Metadata map[string]string `json:"metadata,omitempty"`
	// Peer is the address that the stream comes from.
	Peer string `json:"peer,omitempty"`
	// Identity are the names in the client certificate of the stream; none where
	// none was asked for. All else is what the proxy says of itself.
	Identity []string `json:"identity,omitempty"`
	// Telemetry is the most that it can report, as its bootstrap says.
	Telemetry Telemetry `json:"telemetry,omitempty"`
	// ReportEvery is the time between its reports, as its bootstrap says.
	ReportEvery time.Duration `json:"reportEvery,omitempty" doc:"nanoseconds between its reports, as its bootstrap says"`
	// ReportKey is what its reports must come with; a secret of the two.
	ReportKey string `json:"-"`
}

// Delivery is what one proxy was sent, acknowledged and refused, of one type.
type Delivery struct {
	Type       string `json:"type"`
	Subscribed int    `json:"subscribed"`
	Wildcard   bool   `json:"wildcard,omitempty"`
	// Sent and Acked count resources as they stand at the proxy.
	Sent  int `json:"sent"`
	Acked int `json:"acked"`
	// Version is the hash over what the proxy should hold, AckedVersion over what
	// it acknowledged; equal means that it has everything.
	Version      string `json:"version,omitempty"`
	AckedVersion string `json:"ackedVersion,omitempty"`
	// Open counts responses without an answer, OpenSince is when the oldest left.
	Open      int       `json:"open,omitempty"`
	OpenSince time.Time `json:"openSince,omitzero"`
	// Responses and Bytes were handed to the transport on this stream.
	Responses int `json:"responses,omitempty"`
	Bytes     int `json:"bytes,omitempty"`
	// Lag is the time from the last response that was answered to its answer.
	Lag     time.Duration `json:"lag,omitempty"`
	Parked  []Parked      `json:"parked,omitempty"`
	Waiting []Waiting     `json:"waiting,omitempty"`
}

// Parked is a resource that a proxy refused. It is not sent to that proxy again
// until its content changes.
type Parked struct {
	Type     string    `json:"type"`
	Name     string    `json:"name"`
	Version  string    `json:"version"`
	Document string    `json:"document,omitempty"`
	Message  string    `json:"message"`
	Since    time.Time `json:"since"`
}

// Waiting is a resource that is held back for a proxy, and why.
type Waiting struct {
	Name  string    `json:"name"`
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
}

// Stream is one connected proxy, as of now.
type Stream struct {
	Proxy
	Number    uint64    `json:"stream"`
	Kind      string    `json:"kind" doc:"delta or sotw"`
	Connected time.Time `json:"connected"`
	Supported bool      `json:"supported" doc:"false for an Envoy older than the supported minors"`
	Duplicate bool      `json:"duplicate,omitempty" doc:"another stream has the same node id"`
	// Waited is how long the stream waited to be admitted.
	Waited time.Duration `json:"waited,omitempty" doc:"nanoseconds until it was admitted"`
	// Changes counts the changes of its class that the stream took up, Coalesced those
	// in whose place it took up a newer one.
	Changes   uint64 `json:"changes" doc:"changes that it took up"`
	Coalesced uint64 `json:"coalesced" doc:"changes in whose place it took up a newer one"`
	// Unsent is since when a response cannot be handed to the transport.
	Unsent   time.Time  `json:"unsentSince,omitzero" doc:"since when it takes nothing"`
	Delivery []Delivery `json:"delivery"`
}

// RefusedStream is a stream that was not served.
type RefusedStream struct {
	Time  time.Time `json:"time"`
	Proxy Proxy     `json:"proxy"`
	Code  string    `json:"code" doc:"the gRPC status"`
	Why   string    `json:"why"`
}

// HeldResource is one resource as a proxy holds it, in Envoy's JSON.
type HeldResource struct {
	Type     string          `json:"type"`
	Name     string          `json:"name"`
	Version  string          `json:"version"`
	Document string          `json:"document,omitempty"`
	Content  json.RawMessage `json:"content"`
}

// Holding is what one proxy was sent and what became of it.
type Holding struct {
	Proxy     string         `json:"proxy"`
	Delivery  []Delivery     `json:"delivery"`
	Resources []HeldResource `json:"resources"`
}

// Impact is one resource of Envoy that a change of documents touches.
type Impact struct {
	Type    string `json:"type" doc:"clusters, assignments, listeners, routes or secrets"`
	Name    string `json:"name"`
	Change  string `json:"change" doc:"added, changed or removed"`
	Effect  Effect `json:"effect" enum:"none,endpoints,routes,rewarms,empties,drains,closes" doc:"what it does to what runs. none: nothing. endpoints: connections to those that stay go on. routes: where requests go; no connection is closed. rewarms: the cluster is made anew beside the old one, and takes over once it is warm; connections to its endpoints are opened anew. empties: no endpoint is left, requests get 503. drains: clients' connections end within the proxy's drain time. closes: the listener, or target, is gone; new clients are turned away, and connections end within the drain time"`
	Group   string `json:"group"`
	Proxies int    `json:"proxies" doc:"proxies of the group that are connected now"`
}

// Effect is what a change of a resource does to what runs, as Envoy was measured to
// behave.
type Effect string

// The effects, from the least to the worst.
const (
	EffectNone      Effect = "none"
	EffectEndpoints Effect = "endpoints"
	EffectRoutes    Effect = "routes"
	EffectRewarms   Effect = "rewarms"
	EffectDrains    Effect = "drains"
	EffectEmpties   Effect = "empties"
	EffectCloses    Effect = "closes"
)
