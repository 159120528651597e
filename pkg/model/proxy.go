package model

import "time"

// Proxy is one Envoy as it introduced itself on a stream.
type Proxy struct {
	ID       string   `json:"id"`
	Cluster  string   `json:"cluster,omitempty"`
	Group    string   `json:"group,omitempty"`
	Version  string   `json:"version,omitempty"`
	Locality Locality `json:"locality,omitzero"`
	// Metadata holds the node's string values, nested keys joined by dots.
	Metadata map[string]string `json:"metadata,omitempty"`
	// Peer is the address that the stream comes from.
	Peer string `json:"peer,omitempty"`
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
	// Lag is the time from the last response to its answer.
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
