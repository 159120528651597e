package model

import (
	"errors"
	"time"
)

// Event is one thing that happened.
type Event struct {
	// ID is BOOT-SEQ: the start of the process and a count.
	ID       string    `json:"id"`
	Time     time.Time `json:"time"`
	Kind     string    `json:"kind"`
	Subject  Subject   `json:"subject"`
	Endpoint string    `json:"endpoint,omitempty"`
	Proxy    string    `json:"proxy,omitempty"`
	Group    string    `json:"group,omitempty"`
	Revision uint64    `json:"revision,omitempty"`
	From     string    `json:"from,omitempty"`
	To       string    `json:"to,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Actor    string    `json:"actor,omitempty"`
	// Since, Strength and Evidence are of a finding.
	Since    time.Time `json:"since,omitzero" doc:"when what was found began"`
	Strength string    `json:"strength,omitempty"`
	Evidence []string  `json:"evidence,omitempty"`
}

// Subject is what an event is about: a document kind, Source, Service or Proxy,
// and its name.
type Subject struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// The kinds of events.
const (
	EventEndpointAdded   = "endpoint.added"
	EventEndpointRemoved = "endpoint.removed"
	EventEndpointHealth  = "endpoint.health"
	EventUpstreamState   = "upstream.state"
	// Proxies began to send requests to whoever, healthy or not; requests began to meet
	// nobody (503 UH); and the ends of both.
	EventUpstreamPanic    = "upstream.panic"
	EventUpstreamNobody   = "upstream.nobody"
	EventSourceState      = "source.state"
	EventSourceFreshness  = "source.freshness" // the canary of a source does not reach the proxies any more, or does again
	EventProxyConnected   = "proxy.connected"
	EventProxyGone        = "proxy.gone"
	EventProxyRefused     = "proxy.refused"
	EventDeliveryRefused  = "delivery.refused"
	EventDeliveryParked   = "delivery.parked"
	EventDeliveryReleased = "delivery.released"
	EventDeliveryWaiting  = "delivery.waiting"
	EventRevisionApplied  = "revision.applied"
	// A proxy does not report any more; a report came for a node that is not the
	// reporter's.
	EventProxySilent   = "proxy.silent"
	EventReportRefused = "report.refused"
	// A certificate in files: replaced; cannot be read, so that the last good one
	// stays; ends soon or ended.
	EventCertificateRenewed  = "certificate.renewed"
	EventCertificateFailed   = "certificate.failed"
	EventCertificateExpiring = "certificate.expiring"
	// An operator's word about one endpoint, and its end.
	EventOverrideSet   = "override.set"
	EventOverrideEnded = "override.ended"
	// Somebody set how much is logged, or took a copy of the store.
	EventLogLevel = "log.level"
	EventBackup   = "backup.taken"
	// The file of admin tokens was read again, or is faulty.
	EventTokensRead = "tokens.read"
	// The standing watch found a cause, or finds it no more; a hook ran for one.
	EventFindingBegun = "finding.begun"
	EventFindingEnded = "finding.ended"
	EventHookRun      = "hook.run"
	EventGap          = "gap"
	// EventExternal begins the kinds of what others tell: external.deploy.
	EventExternal = "external."
)

// The errors on which callers branch.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("conflict")
	ErrInvalid  = errors.New("invalid")
	ErrDenied   = errors.New("not allowed")
)
