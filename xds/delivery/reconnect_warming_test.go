package delivery

import "testing"

// The stream broke while a cluster warmed: the new one starts with assignments,
// then listeners and routes; clusters are asked for only when all is warm.
func TestReconnectWhileWarming(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(shop()...)
		p.start()
		// 1. c is new and warms; the stream breaks before its assignment came
		p.update(table(with(shop(), cluster("c", "1"), assignment("c@1", "1"), routes("edge", "2", "a", "b", "c"))...))
		r := p.pump()
		p.take(r[0])
		delete(p.holds[Clusters], "c") // not acknowledged
		p.connect()
		// 2. every assignment that it asks for is answered, listed or not
		p.ask(Assignments, "a@1", "b@1", "c@1")
		p.want(p.settle(), "assignments[a@1=1 b@1=1 c@1=1]")
		p.ask(Listeners)
		p.silent()
		// 3. the routes wait for the cluster request that shows what it has
		p.ask(RouteTables, "edge")
		p.silent()
		p.ask(Clusters)
		all := p.settle()
		if say(all[len(all)-1:]) != "routes[edge=2]" {
			t.Fatalf("the routes were not last: %s", say(all))
		}
		p.wantHolds(Clusters, "a=1", "b=1", "c=1")
	})
}
