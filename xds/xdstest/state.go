package xdstest

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
)

// state is what an Envoy holds and owes. It has no I/O and no lock of its own.
type state struct {
	sotw     bool
	refuse   func(proto.Message) string
	violate  func(string)
	kinds    map[string]*kind
	clusters map[string]*cluster
	drains   map[string]time.Time // until when connections may use a cluster that nothing names any more
	warm     bool                 // the first clusters were answered, on whatever stream: listeners are asked for
}

// kind is one type.
type kind struct {
	typ     string
	asked   bool                // on this stream
	names   map[string]bool     // subscribed; empty for the wildcard types
	held    map[string]resource // taken
	version string              // state of the world: of the last set that was taken
	nonce   string              // of the newest response that was answered
	owed    []request           // answers that are withheld
}

// cluster has up to two forms: the one that serves, and the one that warms.
type cluster struct{ active, warming *form }

type form struct {
	content    string
	assignment string
	endpoints  []string
	since      time.Time // when it began to warm on this stream
}

// open begins a stream: what is held is said, what was withheld is forgotten.
func (s *state) open(now time.Time) []request {
	for _, k := range s.kinds {
		k.asked, k.nonce, k.owed = false, "", nil
	}
	for _, c := range s.clusters {
		if c.warming != nil {
			c.warming.since = now
		}
	}
	order := []string{Clusters, Assignments, Listeners, RouteTables}
	if s.warms() {
		order = []string{Assignments, Listeners, RouteTables} // clusters follow when they are warm
	}
	var out []request
	for _, typ := range order {
		k := s.kinds[typ]
		fresh := typ != Clusters && len(k.held) == 0 && len(k.names) == 0 && (typ != Listeners || !s.warm)
		if !fresh {
			out = append(out, s.ask(k))
		}
	}
	return out
}

// ask is the first request of a type on a stream.
func (s *state) ask(k *kind) request {
	k.asked = true
	r := request{typ: k.typ}
	names := slices.Sorted(maps.Keys(k.names))
	if s.sotw {
		r.names, r.version = names, k.version
		return r
	}
	r.subscribe = names
	for name, res := range k.held {
		if r.initial == nil {
			r.initial = map[string]string{}
		}
		r.initial[name] = res.version
	}
	return r
}

// subscribe changes what a type is subscribed to. Repeat asks again in state of
// the world where no name is new.
func (s *state) subscribe(typ string, add, drop []string, repeat bool) []request {
	k := s.kinds[typ]
	add = slices.DeleteFunc(slices.Clone(add), func(n string) bool { return k.names[n] })
	drop = slices.DeleteFunc(slices.Clone(drop), func(n string) bool { return !k.names[n] })
	for _, n := range add {
		k.names[n] = true
	}
	for _, n := range drop {
		delete(k.names, n)
		delete(k.held, n)
	}
	switch {
	case len(add)+len(drop) == 0 && (!repeat || !s.sotw):
		return nil
	case !k.asked:
		return []request{s.ask(k)}
	case s.sotw:
		return []request{{typ: typ, names: slices.Sorted(maps.Keys(k.names)), version: k.version, nonce: k.nonce}}
	}
	slices.Sort(add)
	slices.Sort(drop)
	return []request{{typ: typ, subscribe: add, unsubscribe: drop}}
}

// receive takes a response and returns what is sent for it.
func (s *state) receive(r response, now time.Time) []request {
	switch r.typ {
	case Clusters:
		return s.takeClusters(r, now)
	case Assignments:
		return s.takeAssignments(r)
	case Listeners:
		return s.takeListeners(r, now)
	case RouteTables:
		return s.takeRoutes(r)
	}
	return nil
}

// answer is the answer to a response; refused is "" for a yes.
func (s *state) answer(k *kind, r response, refused string) request {
	k.nonce = r.nonce
	out := request{typ: k.typ, nonce: r.nonce, refused: refused}
	if s.sotw {
		if refused == "" {
			k.version = r.version
		}
		out.version, out.names = k.version, slices.Sorted(maps.Keys(k.names))
	}
	return out
}

// inPart is how Envoy says which resources it did not take.
func inPart(what string, refused []string) string {
	if refused == nil {
		return ""
	}
	return fmt.Sprintf("Error adding/updating %s(s) %s", what, strings.Join(refused, ", "))
}

// gone lists what a response of a full-state type takes away.
func (s *state) gone(k *kind, r response) []string {
	if !s.sotw {
		return r.removed
	}
	in := map[string]bool{}
	for _, x := range r.resources {
		in[x.name] = true
	}
	var out []string
	for name := range k.held {
		if !in[name] {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func (s *state) takeClusters(r response, now time.Time) (out []request) {
	k := s.kinds[Clusters]
	var refused, subscribe, leave []string
	repeat := false
	for _, x := range r.resources {
		if why := s.refuse(x.body); why != "" {
			refused = append(refused, x.name+": "+why)
			continue
		}
		k.held[x.name] = x
		c := s.clusters[x.name]
		if c == nil {
			c = &cluster{}
			s.clusters[x.name] = c
		}
		newest := c.warming
		if newest == nil {
			newest = c.active
		}
		if newest != nil && newest.content == x.content {
			continue // equal content does not warm again
		}
		if c.warming != nil && (c.active == nil || c.active.assignment != c.warming.assignment) && c.warming.assignment != x.refers[0] {
			leave = append(leave, c.warming.assignment)
		}
		c.warming = &form{content: x.content, assignment: x.refers[0], since: now}
		subscribe = append(subscribe, x.refers[0])
		repeat = true
	}
	for _, name := range s.gone(k, r) {
		c := s.clusters[name]
		if c == nil {
			continue
		}
		for _, by := range s.namedBy(name) {
			s.violate(fmt.Sprintf("cluster %s went while %s names it", name, by))
		}
		if now.Before(s.drains[name]) {
			s.violate(fmt.Sprintf("cluster %s went while connections that a listener passed on drain", name))
		}
		for _, f := range []*form{c.active, c.warming} {
			if f != nil {
				leave = append(leave, f.assignment)
			}
		}
		delete(s.clusters, name)
		delete(k.held, name)
	}
	out = s.subscribe(Assignments, subscribe, s.unneeded(leave), repeat)
	k.owed = append(k.owed, s.answer(k, r, inPart("cluster", refused)))
	return append(out, s.settle()...)
}

// unneeded are those of some assignments that no cluster needs.
func (s *state) unneeded(names []string) []string {
	return slices.DeleteFunc(names, func(n string) bool {
		for _, c := range s.clusters {
			if c.active != nil && c.active.assignment == n || c.warming != nil && c.warming.assignment == n {
				return true
			}
		}
		return false
	})
}

func (s *state) warms() bool {
	for _, c := range s.clusters {
		if c.warming != nil {
			return true
		}
	}
	return false
}

// settle gives the withheld answers once nothing warms, and begins what waits for
// that.
func (s *state) settle() (out []request) {
	if s.warms() {
		return nil
	}
	k := s.kinds[Clusters]
	if !k.asked { // a stream that began while clusters warmed
		out = append(out, s.ask(k))
	}
	if n := len(k.owed); n > 0 && s.sotw {
		k.owed = k.owed[n-1:]
	}
	out = append(out, k.owed...)
	s.warm = s.warm || len(k.owed) > 0
	k.owed = nil
	if l := s.kinds[Listeners]; s.warm && !l.asked {
		out = append(out, s.ask(l))
	}
	return out
}

func (s *state) takeAssignments(r response) (out []request) {
	k := s.kinds[Assignments]
	for _, x := range r.resources {
		if why := s.refuse(x.body); why != "" {
			return []request{s.answer(k, r, why)}
		}
	}
	var leave []string
	for _, x := range r.resources {
		if k.names[x.name] {
			k.held[x.name] = x
		}
		for _, c := range s.clusters {
			if c.active != nil && c.active.assignment == x.name {
				c.active.endpoints = x.endpoints
			}
			if c.warming == nil || c.warming.assignment != x.name {
				continue
			}
			c.warming.endpoints = x.endpoints
			leave = append(leave, s.warmed(c)...)
		}
	}
	for _, name := range r.removed {
		delete(k.held, name)
		for _, c := range s.clusters {
			if c.warming != nil && c.warming.assignment == name {
				leave = append(leave, s.warmed(c)...)
			}
		}
	}
	s.judge()
	out = append(out, s.answer(k, r, ""))
	out = append(out, s.subscribe(Assignments, nil, s.unneeded(leave), false)...)
	return append(out, s.settle()...)
}

// warmed makes the form that warmed the active one, and returns the assignment that
// only the one before needed.
func (s *state) warmed(c *cluster) (leave []string) {
	if c.active != nil && c.active.assignment != c.warming.assignment {
		leave = []string{c.active.assignment}
	}
	c.active, c.warming = c.warming, nil
	return leave
}

// judge looks for routes to clusters that were given nobody by losing their
// assignment.
func (s *state) judge() {
	for name, c := range s.clusters {
		if c.active == nil || s.kinds[Assignments].has(c.active.assignment) {
			continue
		}
		for _, by := range s.namedBy(name) {
			s.violate(fmt.Sprintf("cluster %s is served without its assignment %s while %s names it", name, c.active.assignment, by))
		}
	}
}

// namedBy lists what leads to a cluster.
func (s *state) namedBy(cluster string) (out []string) {
	for typ, what := range map[string]string{RouteTables: "route table ", Listeners: "listener "} {
		for name, x := range s.kinds[typ].held {
			if slices.Contains(x.leads, cluster) {
				out = append(out, what+name)
			}
		}
	}
	return out
}

// leads judges what newly leads to clusters that are not there.
func (s *state) leads(what string, before, x resource) {
	for _, name := range x.leads {
		if c := s.clusters[name]; (c == nil || c.active == nil) && !slices.Contains(before.leads, name) {
			s.violate(fmt.Sprintf("%s %s newly names cluster %s, which is not there", what, x.name, name))
		}
	}
}

// drain notes that a listener leads somewhere else: what it passed on lasts.
func (s *state) drain(before, x resource, now time.Time) {
	for _, name := range before.leads {
		if !slices.Contains(x.leads, name) {
			s.drains[name] = now.Add(drainTime)
		}
	}
}

func (k *kind) has(name string) bool {
	_, ok := k.held[name]
	return ok
}

// patience is how long the next warming goes on at most.
func (s *state) patience(now time.Time) time.Duration {
	least := time.Hour
	for _, c := range s.clusters {
		if c.warming != nil {
			least = min(least, c.warming.since.Add(fetchTimeout).Sub(now))
		}
	}
	return least
}

// giveUp ends what warmed for too long: with the assignment that is known, or with
// nobody.
func (s *state) giveUp(now time.Time) []request {
	var leave []string
	for _, c := range s.clusters {
		if c.warming != nil && !now.Before(c.warming.since.Add(fetchTimeout)) {
			c.warming.endpoints = s.kinds[Assignments].held[c.warming.assignment].endpoints
			leave = append(leave, s.warmed(c)...)
		}
	}
	s.judge()
	return append(s.subscribe(Assignments, nil, s.unneeded(leave), false), s.settle()...)
}

func (s *state) takeListeners(r response, now time.Time) (out []request) {
	k := s.kinds[Listeners]
	var refused []string
	for _, x := range r.resources {
		if why := s.refuse(x.body); why != "" {
			refused = append(refused, x.name+": "+why)
			continue
		}
		s.leads("listener", k.held[x.name], x)
		s.drain(k.held[x.name], x, now)
		k.held[x.name] = x
	}
	for _, name := range s.gone(k, r) {
		s.drain(k.held[name], resource{}, now)
		delete(k.held, name)
	}
	needed := map[string]bool{}
	for _, x := range k.held {
		for _, table := range x.refers {
			needed[table] = true
		}
	}
	var leave []string
	for name := range s.kinds[RouteTables].names {
		if !needed[name] {
			leave = append(leave, name)
		}
	}
	return append(s.subscribe(RouteTables, slices.Collect(maps.Keys(needed)), leave, false), s.answer(k, r, inPart("listener", refused)))
}

func (s *state) takeRoutes(r response) []request {
	k := s.kinds[RouteTables]
	for _, x := range r.resources {
		if why := s.refuse(x.body); why != "" {
			return []request{s.answer(k, r, why)}
		}
	}
	for _, x := range r.resources {
		if !k.names[x.name] {
			continue
		}
		s.leads("route table", k.held[x.name], x)
		k.held[x.name] = x
	}
	for _, name := range r.removed {
		delete(k.held, name)
	}
	return []request{s.answer(k, r, "")}
}

func address(a *corev3.SocketAddress) string {
	return net.JoinHostPort(a.GetAddress(), strconv.Itoa(int(a.GetPortValue())))
}

// mark tells an endpoint's health apart where it is not healthy.
func mark(h corev3.HealthStatus) string {
	if h == corev3.HealthStatus_HEALTHY || h == corev3.HealthStatus_UNKNOWN {
		return ""
	}
	return "=" + h.String()
}
