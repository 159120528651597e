// Package delivery decides what each proxy is sent, and when.
//
//	publisher ─ Table ─► Engine ─┬─► Session (one per stream) ─ Response ─► stream
//	                             └── Memory (one per proxy): accepted, parked
//
// Its nouns:
//
//	Resource  one xDS resource, encoded once; its version is a hash of its content
//	Set       all resources of a type that a class is served, by name; immutable
//	Table     the sets of a class at one moment; immutable
//	Names     what a stream subscribes to by name; shared by all that subscribe to it
//	Session   the protocol of one stream: requests, tables and time go in,
//	          responses come out; it has no goroutine, clock or socket
//	Memory    what a proxy accepted and refused, kept while streams come and go
//	step      the way of a stream from one set to another, with what is sent on it;
//	          found once for all streams that go it
//	round     one telling of all streams of a class
//
// A push costs what changed, not what is subscribed to. A set is a persistent map in
// pages: a change copies a page, and two sets are compared by the pages that they do
// not share. A session keeps the set that it has reached, and the names that stand
// otherwise than the set says: on their way, held back, refused. Where there are none
// the session goes a step, of which it keeps nothing but that it is on its way. So a
// stream that is behind costs no more than one that is not, and there is no log of
// changes that would have to be kept for the slowest. (Given up: walking from one
// set to a much older one looks at every page that changed since.)
//
// The version of a set is a sum of hashes of its names and versions, so that it can
// follow a change; it is the same on every replica.
//
// A fleet is told in rounds: the first change after quiet goes at once, and while
// changes follow each other those of a pause go together, which is twice as long
// as the fleet takes. Streams go from round to round, which is why they go the same steps.
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
