package model

import "slices"

// Telemetry is how much a proxy reports of what it sees. Each level includes those
// before it.
type Telemetry string

// The levels, from nothing to all.
const (
	TelemetryOff       Telemetry = "off"
	TelemetryFailures  Telemetry = "failures"  // failed requests: counts, and samples with the reason
	TelemetryUpstreams Telemetry = "upstreams" // how each upstream does: members, panic, overflow, latency
	TelemetryEndpoints Telemetry = "endpoints" // which endpoints its balancer would pick
)

// TelemetryLevels are the levels in their order.
var TelemetryLevels = []Telemetry{TelemetryOff, TelemetryFailures, TelemetryUpstreams, TelemetryEndpoints}

// TelemetryOf reads a level; what is none is off.
func TelemetryOf(s string) Telemetry {
	return TelemetryLevels[max(0, slices.Index(TelemetryLevels, Telemetry(s)))]
}

// Includes tells whether a level is t's or before it.
func (t Telemetry) Includes(level Telemetry) bool { return rank(t) >= rank(level) }

// Least is the lower one of two levels.
func (t Telemetry) Least(o Telemetry) Telemetry {
	return TelemetryLevels[min(rank(t), rank(o))]
}

func rank(t Telemetry) int { return max(0, slices.Index(TelemetryLevels, t)) }
