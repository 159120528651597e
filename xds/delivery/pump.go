package delivery

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Pump returns what is to be sent now, in order, and when to call again though
// nothing happens in between; zero is never. What it returned is over with the next
// call.
func (s *Session) Pump(now time.Time) (out []Response, again time.Time) {
	soonest := func(t time.Time) {
		if !t.IsZero() && (again.IsZero() || t.Before(again)) {
			again = t
		}
	}
	s.out = s.out[:0]
	for _, st := range s.types {
		if !st.started || !st.dirty {
			continue
		}
		wait, ok := s.mayOpen(st, now)
		if !ok {
			soonest(wait)
			continue
		}
		st.dirty = false
		sent, later := s.next(st, now)
		if sent {
			st.dirty = true // there may be more behind it
			if st.typ == Clusters {
				s.types.of(Assignments).dirty = true
				soonest(now.Add(s.cfg.PushWait))
			}
		}
		if !later.IsZero() {
			st.dirty = true
			soonest(later)
		}
	}
	return s.out, again
}

// Waits tells whether something may be owed that goes when an answer comes.
func (s *Session) Waits() bool {
	return slices.ContainsFunc(s.types[:], func(st *state) bool { return st.dirty && len(st.open) > 0 })
}

// mayOpen tells whether another response of the type may be opened now, or when
// to ask again.
func (s *Session) mayOpen(st *state, now time.Time) (time.Time, bool) {
	if len(st.open) == 0 {
		return time.Time{}, true
	}
	responses := 0
	for _, o := range st.open {
		if o.part == 0 {
			responses++
		}
	}
	if st.typ != Clusters || responses >= maxOpenClusters {
		return time.Time{}, false
	}
	next := st.open[len(st.open)-1].at.Add(s.cfg.PushWait)
	return next, !now.Before(next)
}

// change is what a type owes its proxy.
type change struct {
	send   []*Resource
	remove []string
	later  time.Time // a hold ends then
}

func (c change) empty() bool { return len(c.send) == 0 && len(c.remove) == 0 }

// next opens the next response of a type, where one is owed.
func (s *Session) next(st *state, now time.Time) (sent bool, later time.Time) {
	if st.stuck || s.silentAboutClusters(st) {
		return false, time.Time{}
	}
	to := cover{s.table.set(st.typ), st.names, st.all}
	if s.sendStep(st, to, now) {
		return true, time.Time{}
	}
	if st.begins {
		st.begins = false
		for name := range st.names.sorted().all() {
			st.asks(name)
		}
	}
	if st.flight != nil && st.at != to.at {
		s.takeApart(st)
	}
	st.moveTo(to)
	for name := range st.waits { // what was taken back waits no more
		if _, otherwise := st.over[name]; !otherwise {
			delete(st.waits, name)
		}
	}
	c := s.changes(st, now)
	if c.empty() && !st.owed {
		return false, c.later
	}
	s.pick(st, &c)
	if st.typ == Listeners {
		s.pairAddresses(st, &c)
	}
	if c.empty() && !st.owed || st.refused != "" && st.versionAfter(c) == st.refused {
		return false, c.later
	}
	s.respond(st, c, now)
	return true, c.later
}

// silentAboutClusters is the answer to a state-of-the-world client that holds a
// set while something in it may be unknown: a set that leaves it out would
// delete it.
func (s *Session) silentAboutClusters(st *state) bool {
	return !s.client.Delta && st.typ == Clusters && !st.fresh && !st.base && st.accepted == 0 && len(s.table.Unknown) > 0
}

// changes compares what the proxy should have with what it has.
func (s *Session) changes(st *state, now time.Time) (c change) {
	for name, e := range st.over {
		x := e.value
		if !st.covers(name) && !x.tell {
			continue
		}
		r, keep, later := s.want(st, name, e.plain, now)
		if !later.IsZero() && (c.later.IsZero() || later.Before(c.later)) {
			c.later = later
		}
		switch {
		case keep:
		case r == nil && (x.holds || x.ask || x.tell):
			if s.client.Delta || st.typ.fullState() && (x.holds || x.tell) {
				c.remove = append(c.remove, name)
			}
		case r != nil && (!x.holds || x.version != r.Version || x.ask):
			c.send = append(c.send, r)
		case r != nil && r == e.plain && x.acked && !x.tell && x.res != r: // this very form, made anew
			x.res = r
			st.put(name, x)
		}
	}
	return c
}

// want is what a proxy should have of a name: a resource, nothing (it is gone),
// or what it has already (keep). served is what the set that the stream has reached
// says, where it subscribes to the name.
func (s *Session) want(st *state, name string, served *Resource, now time.Time) (r *Resource, keep bool, later time.Time) {
	if r = served; r == nil && !st.covers(name) {
		r = s.table.Get(st.typ, name)
	}
	switch {
	case r == nil && st.typ == Clusters:
		keep, later = s.stillNeeded(st, name, now)
		return nil, keep, later
	case r == nil && st.typ == Assignments:
		return nil, s.assignmentMayReturn(name), time.Time{}
	case r == nil && st.typ == Secrets:
		// Whoever has it uses it until it names another: what is taken from a warm
		// listener would leave it without a certificate.
		return nil, st.stand(name).holds || s.table.Unknown[name], time.Time{}
	case st.typ == Secrets && r.Private && !s.client.Private:
		s.hold(st, r, now, "the stream is not encrypted and leaves this machine; a private key does not travel on it")
		return nil, true, time.Time{}
	case r == nil && st.typ == RouteTables:
		// The connections of a listener that drains still route by it.
		return nil, st.stand(name).holds, time.Time{}
	case r == nil:
		return nil, false, time.Time{}
	case st.typ == Assignments && !s.belongs(st, name):
		return nil, !s.types.of(Clusters).started, time.Time{} // it is kept for others: this proxy never had the cluster
	}
	if s.memory.isParked(r) {
		if other, keep := s.instead(st, r); other != r {
			return other, keep, time.Time{}
		}
	}
	if st.typ == RouteTables || st.typ == Listeners {
		return s.makeBeforeBreak(st, r, now)
	}
	return r, false, time.Time{}
}

// instead is what a proxy gets in place of content that it refused: what it
// accepted last, or, once on each stream, the refused content again.
func (s *Session) instead(st *state, r *Resource) (other *Resource, keep bool) {
	key := content{r.Type, r.Name, r.Version}
	if last := s.memory.last(r.Type, r.Name); last != nil && last.Version != r.Version {
		return last, false
	}
	if st.stand(r.Name).some {
		return nil, true // it has a form that we do not know
	}
	if !st.retried[key] {
		return r, false
	}
	return nil, true
}

// assignmentMayReturn tells whether an assignment that is not served may be
// again: its upstream is published, unknown, or still held by this proxy. Before a
// stream's first cluster request nobody knows what it holds: an Envoy that asks
// for assignments first is warming clusters, and one that is told that its
// assignment is gone ends that with nobody, under a route that still names it.
func (s *Session) assignmentMayReturn(name string) bool {
	upstream := upstreamOf(name)
	clusters := s.types.of(Clusters)
	return !clusters.started || clusters.stand(upstream).holds || s.table.Unknown[upstream] || s.table.Get(Clusters, upstream) != nil
}

// belongs tells whether a proxy may be sent an assignment that is in its table: its
// cluster is served to it, or it had it, as it says or we remember.
func (s *Session) belongs(st *state, name string) bool {
	if st.stand(name).some {
		return true
	}
	upstream := upstreamOf(name)
	return s.types.of(Clusters).stand(upstream).holds || s.table.Unknown[upstream] || s.table.Get(Clusters, upstream) != nil || s.memory.last(Assignments, name) != nil
}

func upstreamOf(assignment string) string {
	name, _, _ := strings.Cut(assignment, "@")
	return name
}

// makeBeforeBreak holds a route table, or a listener that passes connections on,
// back until the clusters that it newly names are warm.
func (s *Session) makeBeforeBreak(st *state, r *Resource, now time.Time) (*Resource, bool, time.Time) {
	x := st.stand(r.Name)
	if s.client.Follows || x.holds && x.version == r.Version {
		delete(st.waits, r.Name)
		return r, false, time.Time{}
	}
	older := s.memory.last(st.typ, r.Name)
	if x.res != nil {
		older = x.res
	}
	clusters := s.types.of(Clusters)
	var without, cold string
	for _, c := range r.Clusters {
		if older != nil && slices.Contains(older.Clusters, c) {
			continue
		}
		served := s.table.Get(Clusters, c)
		refused := served != nil && s.memory.isParked(served)
		has := clusters.stand(c)
		switch {
		case served == nil, refused && !has.some && s.memory.last(Clusters, c) == nil:
			without = c
		case refused && has.some: // its older form serves on
		case !has.acked:
			cold = c
		}
	}
	switch {
	case without != "" && (older != nil || x.some):
		s.hold(st, r, now, "cluster "+without+" is not served to this proxy")
		if older == nil {
			return nil, true, time.Time{} // the proxy has a form that we do not know
		}
		return older, false, time.Time{}
	case cold != "":
		w := s.hold(st, r, now, "cluster "+cold+" is not acknowledged yet")
		if end := w.since.Add(s.cfg.WarmWait); now.Before(end) {
			if older != nil {
				return older, false, end
			}
			return nil, true, end
		}
		if !w.over {
			w.over = true
			s.emit(model.Event{
				Kind: model.EventDeliveryReleased, Subject: model.Subject{Kind: st.typ.Short(), Name: r.Name}, To: r.Version,
				Reason: "sent though " + w.why + " after " + s.cfg.WarmWait.String(),
			})
		}
	default:
		delete(st.waits, r.Name)
	}
	return r, false, time.Time{}
}

func (s *Session) hold(st *state, r *Resource, now time.Time, why string) *wait {
	w := st.waits[r.Name]
	if w == nil || w.version != r.Version {
		w = &wait{version: r.Version, since: now}
		st.waits[r.Name] = w
	}
	if w.why != why {
		w.why = why
		s.emit(model.Event{Kind: model.EventDeliveryWaiting, Subject: model.Subject{Kind: st.typ.Short(), Name: r.Name}, To: r.Version, Reason: why})
	}
	return w
}

// stillNeeded tells whether a cluster that is no longer served must stay at this
// proxy for now.
func (s *Session) stillNeeded(st *state, name string, now time.Time) (bool, time.Time) {
	if s.table.Unknown[name] {
		return true, time.Time{}
	}
	if !st.stand(name).holds {
		return false, time.Time{}
	}
	routes, listeners := s.types.of(RouteTables), s.types.of(Listeners)
	settled := now.Sub(s.start) >= s.cfg.WarmWait
	if !settled && (!listeners.started || !routes.started && s.servesRoutes()) {
		return true, s.start.Add(s.cfg.WarmWait) // what the proxy routes by is not known yet
	}
	for _, naming := range []*state{routes, listeners} {
		if s.names(naming, name) {
			return true, time.Time{}
		}
	}
	if until := s.memory.drainsUntil(name, now); now.Before(until) {
		return true, until
	}
	return false, time.Time{}
}

// names tells whether the proxy may use anything of a type that names a cluster.
func (s *Session) names(st *state, cluster string) (named bool) {
	listeners := s.types.of(Listeners)
	st.each(func(name string, x standing) {
		if named || !x.holds || listeners.started && !listeners.stand(name).holds && s.table.Get(st.typ, name) == nil {
			return // it drains
		}
		last := s.memory.last(st.typ, name)
		switch {
		case x.res == nil, slices.Contains(x.res.Clusters, cluster):
			named = true // it is named, or what names it is not known
		case x.acked:
		case last != nil && slices.Contains(last.Clusters, cluster), last == nil && x.some:
			named = true // the form before is in use until the answer comes
		}
	})
	return named
}

func (s *Session) servesRoutes() bool { return s.table.set(RouteTables).resources.n > 0 }

// listenerGone starts the drain of what a removed listener reached; own is the form
// that the proxy had, nil where that is not known.
func (s *Session) listenerGone(name string, own *Resource, now time.Time) {
	reached := own // it passed connections on, and had no routes
	if own == nil || len(own.Clusters) == 0 {
		if reached = s.types.of(RouteTables).stand(name).res; reached == nil {
			reached = s.memory.last(RouteTables, name)
		}
	}
	if reached == nil {
		s.memory.drainEverything(now.Add(s.client.Drain))
		return
	}
	s.memory.drain(reached.Clusters, nil, now.Add(s.client.Drain))
}

// retryAddresses gives listeners another try that were refused for an address
// which a removed one may have held.
func (s *Session) retryAddresses() {
	for _, p := range s.memory.Parked() {
		if Type(p.Type) == Listeners && strings.Contains(p.Message, "duplicate address") {
			s.memory.release(p)
		}
	}
}

// pairAddresses keeps a listener whose address another one takes until that one
// is sent: Envoy would otherwise listen on nothing in between.
func (s *Session) pairAddresses(st *state, c *change) {
	if !s.client.Delta {
		return // a full set removes and adds at once
	}
	c.remove = slices.DeleteFunc(c.remove, func(name string) bool {
		old := st.stand(name).res
		if old == nil {
			return false
		}
		for r := range s.table.All(Listeners) {
			now := slices.ContainsFunc(c.send, func(x *Resource) bool { return x.Name == r.Name })
			if r.Address == old.Address && !now && st.covers(r.Name) && st.stand(r.Name).version != r.Version && !s.memory.isParked(r) {
				return true
			}
		}
		return false
	})
}

// pick narrows a change to what goes into one response: what is tried apart, and
// content that another proxy refused last and alone.
func (s *Session) pick(st *state, c *change) {
	for len(st.groups) > 0 {
		group := st.groups[0]
		if slices.ContainsFunc(c.send, func(r *Resource) bool { return group[r.Name] }) {
			c.send = slices.DeleteFunc(c.send, func(r *Resource) bool { return !group[r.Name] })
			return
		}
		st.groups = st.groups[1:]
	}
	suspects := s.engine.suspected(c.send)
	switch {
	case len(suspects) == 0, len(suspects) == 1 && len(c.send) == 1:
	case len(suspects) == len(c.send):
		c.send, c.remove = []*Resource{slices.MinFunc(suspects, inOrder)}, nil
	default:
		c.send = slices.DeleteFunc(c.send, func(r *Resource) bool { return slices.Contains(suspects, r) })
	}
}

// respond answers with a change.
func (s *Session) respond(st *state, c change, now time.Time) {
	slices.SortFunc(c.send, inOrder)
	slices.Sort(c.remove)
	for _, r := range c.send {
		x := st.stand(r.Name)
		if x.res != nil && st.typ == Listeners {
			s.memory.drain(x.res.Clusters, r.Clusters, now.Add(s.client.Drain)) // connections that it passed on
		}
		st.put(r.Name, standing{held: held{r.Version, r}, holds: true, some: x.some})
		if s.memory.isParked(r) {
			st.retried[content{r.Type, r.Name, r.Version}] = true
		}
	}
	if st.typ == Clusters {
		s.askAssignments(c.send)
	}
	for _, name := range c.remove {
		had := st.stand(name).res
		st.drop(name)
		if st.typ == Listeners {
			s.listenerGone(name, had, now)
		}
	}
	if !s.client.Delta && st.typ.fullState() {
		c.send = byName(st.fullSet())
	}
	s.open(st, c.send, c.remove, now)
}

// askAssignments has the assignments of clusters that are sent follow them.
func (s *Session) askAssignments(clusters []*Resource) {
	assignments := s.types.of(Assignments)
	if assignments.names.len() == 0 {
		return
	}
	for _, r := range clusters {
		if r.Assignment != "" && assignments.names.has(r.Assignment) {
			assignments.asks(r.Assignment)
		}
	}
}

// maxDelta is from where on a delta response is split. Its parts go back to back.
const maxDelta = 2 << 20

// open opens a response: a step's, where one has just begun its flight.
func (s *Session) open(st *state, resources []*Resource, removed []string, now time.Time) {
	st.owed = false
	step := st.flight
	if step != nil && step.left > 0 {
		step = nil // it has begun before
	}
	version := st.version(step)
	split := s.client.Delta && st.typ != Listeners && (step == nil || step.size > maxDelta) // an address may go from one to another
	for part := 0; part == 0 || len(resources) > 0; part++ {
		n := len(resources)
		if split {
			n = fitting(resources)
		}
		s.nonce++
		o := st.spare
		if st.spare = nil; o == nil {
			o = &sent{}
		}
		*o = sent{nonce: strconv.FormatUint(s.nonce, 10), at: now, part: part, flight: step, resources: resources[:n:n], version: version}
		r := Response{Type: st.typ, Nonce: o.nonce, Version: version, Resources: o.resources}
		if step != nil {
			step.left++
			if n == len(step.resources) && version == step.version {
				r.Shared = step.memo(s.client.Delta)
			}
		}
		if resources = resources[n:]; len(resources) == 0 {
			o.removed = removed
		}
		if s.client.Delta {
			r.Removed = o.removed
		} else {
			o.set = st.snapshot()
		}
		st.open = append(st.open, o)
		st.newest = o.nonce
		s.out = append(s.out, r)
	}
	if !s.client.Delta {
		s.memory.setOpen(st.typ, st.open)
	}
}

// fitting is how many resources go into one part.
func fitting(resources []*Resource) int {
	size := 0
	for i, r := range resources {
		if size += len(r.field); size > maxDelta && i > 0 {
			return i
		}
	}
	return len(resources)
}

// versionAfter is the version that a response with this change would have.
func (st *state) versionAfter(c change) string {
	after := st.sum
	for _, name := range c.remove {
		if x := st.stand(name); x.holds {
			after = after.minus(x.sum(name))
		}
	}
	for _, r := range c.send {
		if x := st.stand(r.Name); x.holds {
			after = after.minus(x.sum(r.Name))
		}
		after = after.plus(r.sum)
	}
	return after.version()
}

func byName(m map[string]*Resource) []*Resource {
	return slices.SortedFunc(maps.Values(m), inOrder)
}

// inOrder compares resources by name.
func inOrder(a, b *Resource) int { return strings.Compare(a.Name, b.Name) }
