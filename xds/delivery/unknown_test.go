package delivery

import "testing"

// A name that is not served and not unknown: removed in delta, silence in state
// of the world. An assignment whose cluster is published is never removed, and
// none is before the first cluster request: what the proxy holds is not known.
func TestNotServed(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(with(shop(), assignment("far@1", "1"))...) // far is kept for others
		p.table.Unknown["soon"] = true
		p.connect()
		p.ask(Assignments, "far@1", "gone@1")
		p.silent()
		p.ask(Clusters)
		p.want(p.settle(), map[bool]string{true: "clusters[a=1 b=1] assignments[-far@1 -gone@1]", false: "clusters[a=1 b=1]"}[p.delta])
		p.more(Assignments, "a@older", "soon@1")
		p.silent()
		p.ask(RouteTables, "nobody")
		p.want(p.settle(), map[bool]string{true: "routes[-nobody]", false: ""}[p.delta])
	})
}

// Unknown is never told as a deletion.
func TestUnknown(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.holds[Clusters] = map[string]string{"a": "1", "b": "1", "soon": "1"}
		p.table = table(shop()...)
		p.table.Unknown["soon"] = true
		p.connect()
		p.ask(Clusters)
		p.now = p.now.Add(time100)
		p.silent()
		// once it is known, everybody has everything
		p.update(table(with(shop(), cluster("soon", "2"))...))
		p.settle()
		p.wantHolds(Clusters, "a=1", "b=1", "soon=2")
	})
}
