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
// nothing happens in between; zero is never.
func (s *Session) Pump(now time.Time) (out []Response, again time.Time) {
	soonest := func(t time.Time) {
		if !t.IsZero() && (again.IsZero() || t.Before(again)) {
			again = t
		}
	}
	for _, typ := range Types {
		st := s.types[typ]
		if !st.started || !st.dirty {
			continue
		}
		wait, ok := s.mayOpen(st, now)
		if !ok {
			soonest(wait)
			continue
		}
		st.dirty = false
		r, later := s.next(st, now)
		if r != nil {
			out = append(out, *r)
			st.dirty = true // there may be more behind it
			if typ == Clusters {
				s.types[Assignments].dirty = true
				soonest(now.Add(s.cfg.PushWait))
			}
		}
		if !later.IsZero() {
			st.dirty = true
			soonest(later)
		}
	}
	return out, again
}

// mayOpen tells whether another response of the type may be opened now, or when
// to ask again.
func (s *Session) mayOpen(st *state, now time.Time) (time.Time, bool) {
	if len(st.open) == 0 {
		return time.Time{}, true
	}
	if st.typ != Clusters || len(st.open) >= maxOpenClusters {
		return time.Time{}, false
	}
	next := st.open[len(st.open)-1].at.Add(s.cfg.PushWait)
	return next, !now.Before(next)
}

// change is what a type owes its proxy.
type change struct {
	send   map[string]*Resource
	remove map[string]bool
	later  time.Time // a hold ends then
}

// next builds the next response of a type, nil when nothing is owed.
func (s *Session) next(st *state, now time.Time) (*Response, time.Time) {
	if st.stuck || s.silentAboutClusters(st) {
		return nil, time.Time{}
	}
	c := s.changes(st, now)
	if len(c.send) == 0 && len(c.remove) == 0 && !st.owed {
		return nil, c.later
	}
	s.pick(st, &c)
	if st.typ == Listeners {
		s.pairAddresses(st, &c)
	}
	if len(c.send) == 0 && len(c.remove) == 0 && !st.owed || st.refused != "" && st.versionAfter(c) == st.refused {
		return nil, c.later
	}
	return s.respond(st, c, now), c.later
}

// silentAboutClusters is the answer to a state-of-the-world client that holds a
// set while something in it may be unknown: a set that leaves it out would
// delete it.
func (s *Session) silentAboutClusters(st *state) bool {
	return !s.client.Delta && st.typ == Clusters && !st.fresh && !st.base && st.accepted == 0 && len(s.table.Unknown) > 0
}

// changes compares what the proxy should have with what it has.
func (s *Session) changes(st *state, now time.Time) change {
	c := change{send: map[string]*Resource{}, remove: map[string]bool{}}
	for name := range s.concerned(st) {
		r, keep, later := s.want(st, name, now)
		if !later.IsZero() && (c.later.IsZero() || later.Before(c.later)) {
			c.later = later
		}
		has, holds := st.has[name]
		switch {
		case keep:
		case r == nil && (holds || st.ask[name] || st.tell[name]):
			if s.client.Delta || st.typ.fullState() && (holds || st.tell[name]) {
				c.remove[name] = true
			}
		case r != nil && (!holds || has.version != r.Version || st.ask[name]):
			c.send[name] = r
		}
	}
	return c
}

// concerned is every name that the stream has to do with.
func (s *Session) concerned(st *state) map[string]bool {
	if !st.wildcard && len(st.tell) == 0 {
		return st.names
	}
	all := maps.Clone(st.names)
	if st.wildcard {
		for name := range s.table.Resources[st.typ] {
			all[name] = true
		}
		for name := range st.has {
			all[name] = true
		}
	}
	for name := range st.tell {
		all[name] = true
	}
	return all
}

// want is what a proxy should have of a name: a resource, nothing (it is gone),
// or what it has already (keep).
func (s *Session) want(st *state, name string, now time.Time) (r *Resource, keep bool, later time.Time) {
	r = s.table.get(st.typ, name)
	switch {
	case r == nil && st.typ == Clusters:
		keep, later = s.stillNeeded(st, name, now)
		return nil, keep, later
	case r == nil && st.typ == Assignments:
		return nil, s.assignmentMayReturn(name), time.Time{}
	case r == nil && st.typ == Secrets:
		// Whoever has it uses it until it names another: what is taken from a warm
		// listener would leave it without a certificate.
		_, holds := st.has[name]
		return nil, holds || s.table.Unknown[name], time.Time{}
	case st.typ == Secrets && r.Private && !s.client.Private:
		s.hold(st, r, now, "the stream is not encrypted and leaves this machine; a private key does not travel on it")
		return nil, true, time.Time{}
	case r == nil && st.typ == RouteTables:
		// The connections of a listener that drains still route by it.
		_, holds := st.has[name]
		return nil, holds, time.Time{}
	case r == nil:
		return nil, false, time.Time{}
	case st.typ == Assignments && !s.belongs(st, name):
		return nil, !s.types[Clusters].started, time.Time{} // it is kept for others: this proxy never had the cluster
	case s.memory.isParked(r):
		return s.instead(st, r)
	case st.typ == RouteTables, st.typ == Listeners:
		return s.makeBeforeBreak(st, r, now)
	}
	return r, false, time.Time{}
}

// instead is what a proxy gets in place of content that it refused: what it
// accepted last, or, once on each stream, the refused content again.
func (s *Session) instead(st *state, r *Resource) (*Resource, bool, time.Time) {
	key := content{r.Type, r.Name, r.Version}
	if last := s.memory.last(r.Type, r.Name); last != nil && last.Version != r.Version {
		return last, false, time.Time{}
	}
	if st.some[r.Name] {
		return nil, true, time.Time{} // it has a form that we do not know
	}
	if !st.retried[key] {
		return r, false, time.Time{}
	}
	return nil, true, time.Time{}
}

// assignmentMayReturn tells whether an assignment that is not served may be
// again: its upstream is published, unknown, or still held by this proxy. Before a
// stream's first cluster request nobody knows what it holds: an Envoy that asks
// for assignments first is warming clusters, and one that is told that its
// assignment is gone ends that with nobody, under a route that still names it.
func (s *Session) assignmentMayReturn(name string) bool {
	upstream := upstreamOf(name)
	_, held := s.types[Clusters].has[upstream]
	return !s.types[Clusters].started || held || s.table.Unknown[upstream] || s.table.get(Clusters, upstream) != nil
}

// belongs tells whether a proxy may be sent an assignment that is in its table: its
// cluster is served to it, or it had it, as it says or we remember.
func (s *Session) belongs(st *state, name string) bool {
	upstream := upstreamOf(name)
	_, held := s.types[Clusters].has[upstream]
	return held || st.some[name] || s.table.Unknown[upstream] || s.table.get(Clusters, upstream) != nil || s.memory.last(Assignments, name) != nil
}

func upstreamOf(assignment string) string {
	name, _, _ := strings.Cut(assignment, "@")
	return name
}

// makeBeforeBreak holds a route table, or a listener that passes connections on,
// back until the clusters that it newly names are warm.
func (s *Session) makeBeforeBreak(st *state, r *Resource, now time.Time) (*Resource, bool, time.Time) {
	if h, ok := st.has[r.Name]; s.client.Follows || ok && h.version == r.Version {
		delete(st.waits, r.Name)
		return r, false, time.Time{}
	}
	older := s.memory.last(st.typ, r.Name)
	h := st.has[r.Name]
	if h.res != nil {
		older = h.res
	}
	named := map[string]bool{}
	if older != nil {
		for _, c := range older.Clusters {
			named[c] = true
		}
	}
	clusters := s.types[Clusters]
	var without, cold string
	for _, c := range r.Clusters {
		if named[c] {
			continue
		}
		served := s.table.get(Clusters, c)
		refused := served != nil && s.memory.isParked(served)
		switch {
		case served == nil, refused && !clusters.some[c] && s.memory.last(Clusters, c) == nil:
			without = c
		case refused && clusters.some[c]: // its older form serves on
		case !clusters.acked[c]:
			cold = c
		}
	}
	switch {
	case without != "" && (older != nil || st.some[r.Name]):
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
	if _, holds := st.has[name]; !holds {
		return false, time.Time{}
	}
	routes, listeners := s.types[RouteTables], s.types[Listeners]
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
func (s *Session) names(st *state, cluster string) bool {
	listeners := s.types[Listeners]
	for name, h := range st.has {
		if _, listens := listeners.has[name]; !listens && listeners.started && s.table.get(st.typ, name) == nil {
			continue // it drains
		}
		last := s.memory.last(st.typ, name)
		switch {
		case h.res == nil, slices.Contains(h.res.Clusters, cluster):
			return true // it is named, or what names it is not known
		case st.acked[name]:
		case last != nil && slices.Contains(last.Clusters, cluster), last == nil && st.some[name]:
			return true // the form before is in use until the answer comes
		}
	}
	return false
}

func (s *Session) servesRoutes() bool { return len(s.table.Resources[RouteTables]) > 0 }

// listenerGone starts the drain of what a removed listener reached; own is the form
// that the proxy had, nil where that is not known.
func (s *Session) listenerGone(name string, own *Resource, now time.Time) {
	reached := own // it passed connections on, and had no routes
	if own == nil || len(own.Clusters) == 0 {
		if reached = s.types[RouteTables].has[name].res; reached == nil {
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
	for name := range c.remove {
		old := st.has[name].res
		if old == nil {
			continue
		}
		for other, r := range s.table.Resources[Listeners] {
			_, now := c.send[other]
			if r.Address == old.Address && !now && st.has[other].version != r.Version && !s.memory.isParked(r) {
				delete(c.remove, name)
			}
		}
	}
}

// pick narrows a change to what goes into one response: what is tried apart, and
// content that another proxy refused last and alone.
func (s *Session) pick(st *state, c *change) {
	for len(st.groups) > 0 {
		group := st.groups[0]
		narrowed := map[string]*Resource{}
		for name, r := range c.send {
			if group[name] {
				narrowed[name] = r
			}
		}
		if len(narrowed) > 0 {
			c.send = narrowed
			return
		}
		st.groups = st.groups[1:]
	}
	var suspects []string
	for name, r := range c.send {
		if s.engine.suspect(content{r.Type, r.Name, r.Version}) {
			suspects = append(suspects, name)
		}
	}
	if len(suspects) == 0 || len(suspects) == 1 && len(c.send) == 1 {
		return
	}
	slices.Sort(suspects)
	if len(suspects) == len(c.send) {
		only := suspects[0]
		c.send = map[string]*Resource{only: c.send[only]}
		c.remove = map[string]bool{}
		return
	}
	for _, name := range suspects {
		delete(c.send, name)
	}
}

// respond opens a response.
func (s *Session) respond(st *state, c change, now time.Time) *Response {
	s.nonce++
	o := &sent{nonce: strconv.FormatUint(s.nonce, 10), at: now, resources: c.send, removed: slices.Sorted(maps.Keys(c.remove))}
	for name, r := range c.send {
		if had := st.has[name].res; had != nil && st.typ == Listeners {
			s.memory.drain(had.Clusters, r.Clusters, now.Add(s.client.Drain)) // connections that it passed on
		}
		st.has[name] = held{r.Version, r}
		delete(st.acked, name)
		delete(st.ask, name)
		delete(st.tell, name)
		if s.memory.isParked(r) {
			st.retried[content{r.Type, r.Name, r.Version}] = true
		}
		if st.typ == Clusters && r.Assignment != "" && s.types[Assignments].names[r.Assignment] {
			s.types[Assignments].ask[r.Assignment] = true
		}
	}
	for _, name := range o.removed {
		had := st.has[name].res
		st.drop(name)
		if st.typ == Listeners {
			s.listenerGone(name, had, now)
		}
	}
	st.owed = false
	out := &Response{Type: st.typ, Nonce: o.nonce}
	if s.client.Delta {
		out.Resources, out.Removed = sorted(c.send), o.removed
	} else {
		o.set = st.fullSet()
		if st.typ.fullState() {
			o.resources = o.set
		}
		out.Resources = sorted(o.resources)
	}
	out.Version = setVersion(st.versions())
	o.version = out.Version
	st.open = append(st.open, o)
	st.newest = o.nonce
	if !s.client.Delta {
		s.memory.setOpen(st.typ, st.open)
	}
	return out
}

// fullSet is all that a state-of-the-world client has once it took the response.
func (st *state) fullSet() map[string]*Resource {
	all := make(map[string]*Resource, len(st.has))
	for name, h := range st.has {
		if h.res != nil {
			all[name] = h.res
		}
	}
	return all
}

// versionAfter is the version that a response with this change would have.
func (st *state) versionAfter(c change) string {
	versions := st.versions()
	for name, r := range c.send {
		versions[name] = r.Version
	}
	for name := range c.remove {
		delete(versions, name)
	}
	return setVersion(versions)
}

func (st *state) versions() map[string]string {
	m := make(map[string]string, len(st.has))
	for name, h := range st.has {
		m[name] = h.version
	}
	return m
}

func sorted(m map[string]*Resource) []*Resource {
	out := make([]*Resource, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[name])
	}
	return out
}
