// Package delivery decides what each proxy is sent, and when.
//
//	publisher ─ Table ─► Engine ─┬─► Session (one per stream) ─ Response ─► stream
//	                             └── Memory (one per proxy): accepted, parked
//
// Its nouns:
//
//	Resource  one encoded xDS resource; its version is a hash of its content
//	Table     all resources of a class at one moment; immutable
//	Session   the protocol of one stream: requests, tables and time go in,
//	          responses come out; it has no goroutine, clock or socket
//	Memory    what a proxy accepted and refused, kept while streams come and go
//
// Rules, and where they come from:
//   - At most one response of a type is unanswered on a stream. Clusters are
//     excepted: Envoy withholds their answers while any cluster warms, so after
//     PushWait the next may follow, up to eight.
//   - Every assignment whose cluster was sent follows it unasked: Envoy asks for
//     nothing when a cluster is updated, and would warm without endpoints. One
//     that is asked for is always answered.
//   - A route table that newly names a cluster waits until a cluster answer
//     covers it, WarmWait at most. One that names a cluster which is not served,
//     or which this proxy refused, stays at its last accepted form.
//   - A cluster leaves after the last route table that names it was replaced and
//     that was acknowledged; one that only a removed listener reached, or that a
//     listener passed connections on to, after the drain time, whatever streams break
//     meanwhile. What a proxy presents and nobody remembers drains for as long.
//   - What a proxy refused is parked for that proxy until its content changes; the
//     rest of the refused response is sent again, since Envoy may have taken any
//     part of it. Where Envoy names nobody, halves are tried until one resource
//     is refused alone.
//   - What any proxy refused goes to every other in a response of its own, last.
//   - Silence is the answer of not knowing. Only what is known to be gone is told
//     as removed, and a published cluster's assignment never is.
//
// Before a stream's first cluster request nobody knows what the proxy holds: an
// Envoy that asks for assignments first is warming clusters, so that none is told
// as removed until then. What was sent and not answered when a stream broke may
// have been taken; a state-of-the-world client that presents its version is known
// by it.
//
// A state-of-the-world client whose set is not known (it was accepted from a
// control plane that forgot it) is sent the whole new set at once: what only its
// old routes name goes with it, a moment before the routes do. Delta clients say
// what they hold, and lose nothing.
//
// An older generation of an assignment is kept up to date for as long as somebody
// subscribes to it and is never frozen: its content comes from its own definition,
// so nothing meant for its successor can reach it, and an endpoint that goes away
// while the successor warms goes at once.
package delivery
