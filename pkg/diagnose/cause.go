package diagnose

import (
	"cmp"
	"slices"
	"strings"
)

// Code of a cause. One that was released is never reused.
type Code string

// The codes, by the hop at which the request is lost.
const (
	// The registry says that nobody is there.
	A1 Code = "A1"
	A2 Code = "A2"
	// Envoy did not get it, or refused it.
	C1  Code = "C1"
	C2  Code = "C2"
	C3  Code = "C3"
	C9  Code = "C9"
	C10 Code = "C10"
	// Envoy's active check says no.
	H1 Code = "H1"
	H2 Code = "H2"
	H3 Code = "H3"
	H5 Code = "H5"
	H7 Code = "H7"
	H8 Code = "H8"
	// Outlier detection.
	O1 Code = "O1"
	O2 Code = "O2"
	O3 Code = "O3"
	// The balancer refuses or hides.
	P1 Code = "P1"
	P2 Code = "P2"
	P3 Code = "P3"
	P4 Code = "P4"
	// Name resolution.
	D1 Code = "D1"
	D2 Code = "D2"
	// The connection fails.
	E1 Code = "E1"
	E2 Code = "E2"
	E4 Code = "E4"
	E5 Code = "E5"
	// Capacity.
	F1 Code = "F1"
	F2 Code = "F2"
	F3 Code = "F3"
	// Routing.
	G1 Code = "G1"
)

// Cause is one entry of the catalogue.
type Cause struct {
	Code  Code   `json:"code"`
	Title string `json:"title"`
	// Proof is what shows it, Excluded what rules it out.
	Proof    string `json:"proof"`
	Excluded string `json:"excluded,omitempty"`
}

// causes is the catalogue.
var causes = map[Code]Cause{
	A1:  {A1, "nobody is in what Envoy was told", "an assignment was taken, and has no host", "there are hosts"},
	A2:  {A2, "its control plane says that the hosts are unhealthy", "hosts with the status UNHEALTHY or TIMEOUT in their assignment", "no host has that status"},
	C1:  {C1, "not connected to its control plane", "control_plane.connected_state is 0", "it is 1"},
	C2:  {C2, "Envoy refused its configuration", "an error state in /config_dump, or update_rejected that grows", "there is neither"},
	C3:  {C3, "the assignment was never answered", "the cluster warms, or its wait for an assignment ran out", "an assignment was taken"},
	C9:  {C9, "hosts that were removed are kept", "pending_dynamic_removal", "no host has that flag"},
	C10: {C10, "the lease of the hosts ran out", "assignment_stale, and no host is left", "there are hosts"},
	H1:  {H1, "the health check gets an answer that it does not expect", "checks fail, and not by the network", "checks fail by the network alone"},
	H2:  {H2, "the health check gets no answer in time", "active_hc_timeout", "no host has that flag"},
	H3:  {H3, "the health check cannot connect", "checks fail by the network, at once", "checks reach the host"},
	H5:  {H5, "TLS fails at the health check", "checks fail by the network, and handshakes fail", "no handshake fails"},
	H7:  {H7, "the hosts were never checked yet", "pending_active_hc", "no host has that flag"},
	H8:  {H8, "the hosts ask to be left alone", "draining, or excluded by the header of a check's answer", "no host has such a flag"},
	O1:  {O1, "outlier detection ejected the hosts", "failed_outlier_check", "nobody is ejected"},
	O2:  {O2, "outlier detection in a small cluster", "three hosts or less, and one ejection is more than the share that may be ejected", "nobody is ejected, or there are more hosts"},
	O3:  {O3, "outlier detection wants hosts out and may not", "ejections_overflow grows", "it does not grow"},
	P1:  {P1, "panic is off", "a panic threshold of 0, or fail_traffic_on_panic, and too few usable hosts", "panic is on"},
	P2:  {P2, "panic hides an outage", "lb_healthy_panic grows while hosts are out", "it does not grow"},
	P3:  {P3, "no member of the aggregate has a usable host", "all members without one", "a member has one"},
	P4:  {P4, "no subset matches", "requests meet nobody though hosts are usable, and the cluster has subsets", "no request meets nobody"},
	D1:  {D1, "names cannot be resolved", "update_failure, and no host", "there are hosts"},
	D2:  {D2, "the name has no address", "names are answered (update_success), and no host", "there are hosts"},
	E1:  {E1, "connections are refused", "connections fail at once", "none fails"},
	E2:  {E2, "connections time out", "upstream_cx_connect_timeout grows", "it does not grow"},
	E4:  {E4, "TLS to the hosts fails", "handshakes or verifications fail, or a secret is missing", "none fails"},
	E5:  {E5, "the protocol is another one", "upstream_cx_protocol_error grows", "it does not grow"},
	F1:  {F1, "a circuit breaker is open", "an open gauge, or an overflow that grows", "both are 0"},
	F2:  {F2, "requests time out", "upstream_rq_timeout grows", "it does not grow"},
	F3:  {F3, "a retry storm", "more than a fifth of what is sent are retries, and the budget is spent", "there are few retries"},
	G1:  {G1, "the route leads to a cluster that is not there", "a route names it, and /clusters does not", "it is there"},
}

// Causes lists the catalogue, by code.
func Causes() []Cause {
	out := make([]Cause, 0, len(causes))
	for _, c := range causes {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Cause) int {
		return cmp.Or(strings.Compare(string(a.Code[:1]), string(b.Code[:1])), cmp.Compare(len(a.Code), len(b.Code)), strings.Compare(string(a.Code), string(b.Code)))
	})
	return out
}
