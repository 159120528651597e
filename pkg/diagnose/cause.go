package diagnose

import (
	"slices"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Code of a cause. One that was released is never reused.
type Code string

// The codes, by the hop at which the request is lost.
const (
	// The registry says that nobody is there.
	A1 Code = "A1"
	A2 Code = "A2"
	A3 Code = "A3"
	A4 Code = "A4"
	A5 Code = "A5"
	A6 Code = "A6"
	A7 Code = "A7"
	A8 Code = "A8"
	// We cannot see the registry.
	B1 Code = "B1"
	B2 Code = "B2"
	B3 Code = "B3"
	B4 Code = "B4"
	B5 Code = "B5"
	B6 Code = "B6"
	// Envoy did not get it, or refused it.
	C1  Code = "C1"
	C2  Code = "C2"
	C3  Code = "C3"
	C5  Code = "C5"
	C6  Code = "C6"
	C7  Code = "C7"
	C8  Code = "C8"
	C9  Code = "C9"
	C10 Code = "C10"
	C11 Code = "C11"
	// Envoy's active check says no.
	H1  Code = "H1"
	H2  Code = "H2"
	H3  Code = "H3"
	H4  Code = "H4"
	H5  Code = "H5"
	H6  Code = "H6"
	H7  Code = "H7"
	H8  Code = "H8"
	H9  Code = "H9"
	H10 Code = "H10"
	H11 Code = "H11"
	// Outlier detection.
	O1 Code = "O1"
	O2 Code = "O2"
	O3 Code = "O3"
	// The balancer refuses or hides.
	P1 Code = "P1"
	P2 Code = "P2"
	P3 Code = "P3"
	P4 Code = "P4"
	P5 Code = "P5"
	// Name resolution.
	D1 Code = "D1"
	D2 Code = "D2"
	D3 Code = "D3"
	// The connection fails.
	E1 Code = "E1"
	E2 Code = "E2"
	E3 Code = "E3"
	E4 Code = "E4"
	E5 Code = "E5"
	// Capacity.
	F1 Code = "F1"
	F2 Code = "F2"
	F3 Code = "F3"
	F4 Code = "F4"
	// Routing.
	G1 Code = "G1"
	G2 Code = "G2"
	G3 Code = "G3"
	G4 Code = "G4"
	// Began with a change.
	K1 Code = "K1"
	K2 Code = "K2"
	K3 Code = "K3"
	K4 Code = "K4"
	// No outage yet.
	W1 Code = "W1"
	W2 Code = "W2"
	W3 Code = "W3"
	W4 Code = "W4"
)

// Cause is one entry of the catalogue.
type Cause struct {
	Code  Code
	Title string
	// Proof is what shows it, Excluded what rules it out.
	Proof, Excluded string
}

// catalogue is in the order in which findings of equal strength are told: first why there
// is nobody to choose from, then why the hosts are out, then what fails at those in use,
// and at last what the balancer makes of it, and what came shortly before. Those with W
// are warnings: nothing fails for them yet.
var catalogue = []Cause{
	{C1, "not connected to its control plane", "control_plane.connected_state is 0; or no proxy that reaches the upstream has a stream", "it is 1; proxies are connected"},
	{C2, "Envoy refused its configuration", "what it answered; an error state in /config_dump, or update_rejected that grows", "there is neither"},
	{C5, "it asks for the endpoints of another name", "eds_service_name in its cluster, against what is served", "it asks for what is served"},
	{C3, "the assignment was never answered", "the cluster warms, or its wait for an assignment ran out", "an assignment was taken"},
	{C6, "what was sent is not acknowledged", "a response is open, or cannot be handed over, for more than 5 s", "every proxy acknowledged"},
	{C8, "what it is to be sent is too large", "a stream that was refused for the size of a response", ""},
	{C7, "proxies hold different endpoints", "the endpoints that they report, against those that are published", "all hold what is published"},
	{C10, "the lease of the hosts ran out", "assignment_stale, and no host is left", "there are hosts"},
	{D1, "names cannot be resolved", "update_failure, and no host", "there are hosts"},
	{D2, "the name has no address", "names are answered (update_success), and no host", "there are hosts"},
	{B2, "the registry denies or hides it", "403, or an answer that says that it is filtered", ""},
	{B1, "the registry cannot be read", "no answer, no leader, no such source or datacenter", "it was read just now"},
	{B3, "the registry has stopped telling", "a canary that it took, and that is not read back", ""},
	{B6, "the registry was not read yet", "no answer so far, and no failure", ""},
	{B4, "records that cannot be used", "what is wrong with each", ""},
	{A5, "tags or metadata select nobody", "instances are registered, and the document selects none: counts before and after", "none is left out"},
	{B5, "many left the registry in one step, and still answer", "events; what left is tried from the control plane", "who left does not answer"},
	{A6, "the last instance left", "events: endpoints removed, and the registry lists none", ""},
	{A1, "nobody is in what Envoy was told", "the registry lists none; an assignment was taken, and has no host", "there are instances, or hosts"},
	{A7, "registrations of somebody who is not there", "another service has the same address; or nobody answers for ten minutes, and the registry says healthy", ""},
	{A8, "the health of endpoints comes and goes", "six turns of one endpoint in ten minutes", "fewer"},
	{A4, "in maintenance", "Consul's maintenance check", ""},
	{A3, "nodes that the registry lost", "Consul's serfHealth is critical", ""},
	{A2, "the hosts are said to be unhealthy", "the registry's checks; hosts with the status UNHEALTHY or TIMEOUT in their assignment", "checks pass; no host has that status"},
	{H8, "the hosts ask to be left alone", "draining, or excluded by the header of a check's answer", "no host has such a flag"},
	{C9, "hosts that were removed are kept", "pending_dynamic_removal", "no host has that flag"},
	{H4, "some proxies cannot reach the hosts", "the check fails at some proxies, and passes at others or from the control plane", "it fails, or passes, at all"},
	{H10, "checks of several services failed together", "the same words, in the same moment", ""},
	{H11, "a check that fails for once takes endpoints out", "short turns of the upstream's health; a threshold of 1, or none for statuses", "fewer turns, or more failures are needed"},
	{H9, "the check is told that there is too much to do", "429, or 503 with Retry-After, when the check is replayed", ""},
	{H6, "the check speaks another protocol", "what comes back when the check is replayed", ""},
	{H1, "the health check gets an answer that it does not expect", "checks fail, and not by the network; the answer when the check is replayed", "checks fail by the network alone"},
	{H2, "the health check gets no answer in time", "active_hc_timeout; no answer when the check is replayed", "no host has that flag"},
	{H5, "TLS fails at the health check", "checks fail by the network, and handshakes fail", "no handshake fails"},
	{H3, "the health check cannot connect", "checks fail by the network, at once; refused when the check is replayed", "checks reach the host"},
	{H7, "the hosts were never checked yet", "pending_active_hc", "no host has that flag"},
	{O1, "outlier detection ejected the hosts", "failed_outlier_check", "nobody is ejected"},
	{O2, "outlier detection in a small cluster", "three hosts or less, and one ejection is more than the share that may be ejected", "nobody is ejected, or there are more hosts"},
	{O3, "outlier detection wants hosts out and may not", "ejections_overflow grows", "it does not grow"},
	{D3, "addresses of before are used", "what names resolve to here, against the hosts of proxies", "they are the same"},
	{E4, "TLS to the hosts fails", "handshakes or verifications fail, or a secret is missing", "none fails"},
	{E3, "no way leads to the hosts", "\"no route to host\", at a proxy or from the control plane", ""},
	{E2, "connections time out", "upstream_cx_connect_timeout grows", "it does not grow"},
	{E1, "connections are refused", "connections fail at once", "none fails"},
	{E5, "the protocol is another one", "upstream_cx_protocol_error grows; flags UC, UPE, UR", "it does not grow"},
	{F1, "a circuit breaker is open", "an open gauge, or an overflow that grows; flag UO", "both are 0"},
	{F4, "many more requests come than usual", "the last minute against the hour before", "as many as usual"},
	{F3, "a retry storm", "more than a fifth of what is sent are retries and the budget is spent, or more than three fifths", "there are few retries"},
	{F2, "requests time out", "upstream_rq_timeout grows; flag UT", "it does not grow"},
	{G1, "the route leads to a cluster that is not there", "a route names it, and /clusters does not; flag NC", "it is there"},
	{G2, "no route leads there", "hosts and rules, and why each does not match", ""},
	{G3, "the proxy answers by itself", "flag UDO (a policy); a rule that responds or redirects", "no request has it"},
	{C11, "localities without a weight get no request", "a cluster that weighs localities, and hosts in one without a weight while others have one", "every locality has a weight"},
	{G4, "a part goes to an upstream in vain", "weights of the rule that matches, and the health of its siblings", ""},
	{P3, "no member of the aggregate has a usable host", "all members without one", "a member has one"},
	{P4, "no subset matches", "requests meet nobody though hosts are usable, and the cluster has subsets", "no request meets nobody"},
	{P5, "a session is bound to a host that is not there", "requests meet nobody though hosts are usable, and a stateful session is strict", "no request meets nobody"},
	{P1, "panic is off", "a panic threshold of 0, or fail_traffic_on_panic, and too few usable hosts", "panic is on"},
	{P2, "panic hides an outage", "lb_healthy_panic grows while hosts are out", "it does not grow"},
	{K1, "it began with a revision", "a revision that touches the upstream's road, up to a minute before", "no revision touches it"},
	{K2, "it began with a change outside", "an event that was posted, up to a minute before", ""},
	{K3, "it began with another certificate", "a certificate was replaced up to a minute before", ""},
	{K4, "it began with the Envoy", "the processes of those proxies, and of no others, began just then", ""},
	{W1, "one more loss is an outage", "no endpoint is to spare before panic, or 503 UH", "some are"},
	{W2, "a certificate ends soon", "the time in the certificate that is in use", "it lasts"},
	{W3, "a circuit breaker is nearly full", "requests that run, or wait, are four fifths of its limit at a proxy", "fewer are"},
	{W4, "what is served may be old", "the source cannot be read for half a minute", "it was read just now"},
}

// order is where a code stands in the catalogue.
func order(code Code) int {
	return slices.IndexFunc(catalogue, func(c Cause) bool { return c.Code == code })
}

// CauseOf is the entry of a code; false where there is none.
func CauseOf(code Code) (Cause, bool) {
	if i := order(code); i >= 0 {
		return catalogue[i], true
	}
	return Cause{}, false
}

// Recorded is a finding as the event of its begin has it.
func Recorded(e model.Event) Finding {
	cause, _ := CauseOf(Code(e.To))
	f := Finding{Code: cause.Code, Title: cause.Title, Strength: Likely, Says: e.Reason, Evidence: append([]string{}, e.Evidence...), Next: "see what is found now: wellspring findings " + e.Subject.Name}
	_ = f.Strength.UnmarshalText([]byte(e.Strength)) // of an older version, without one: likely
	return f
}

// Causes lists the catalogue, in the order in which findings of equal strength are told.
func Causes() []Cause { return slices.Clone(catalogue) }
