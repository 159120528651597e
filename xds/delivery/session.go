package delivery

import (
	"maps"
	"slices"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Config of sessions. Zero values are the defaults.
type Config struct {
	// PushWait is how long a cluster response may be unanswered before the next
	// one follows it. Default 1s.
	PushWait time.Duration
	// WarmWait is how long a route waits for the clusters that it newly names.
	// Default 20s.
	WarmWait time.Duration
}

const (
	defaultPushWait  = time.Second
	defaultWarmWait  = 20 * time.Second
	defaultDrainTime = 600 * time.Second
	maxOpenClusters  = 8
)

// Request is what a proxy said, delta or state of the world.
type Request struct {
	Type  Type
	Nonce string
	// Refused is Envoy's own text when it refused the response with Nonce.
	Refused *string

	// delta
	Subscribe, Unsubscribe []string
	Initial                map[string]string

	// state of the world
	Names   []string
	Version string
}

// Response is what a proxy is sent. Resources are sorted by name.
type Response struct {
	Type      Type
	Nonce     string
	Version   string
	Resources []*Resource
	Removed   []string
	// Shared keeps what it has in common with the responses of other streams: all but
	// the nonce. nil where it has nothing.
	Shared *Memo
}

// Session is the protocol of one stream. Its methods are called by one
// goroutine; it never blocks.
type Session struct {
	cfg    Config
	engine *Engine
	memory *Memory
	emit   func(model.Event)
	client Client

	table *Table
	types states
	nonce uint64
	out   []Response // of one Pump
	start time.Time
}

// Client is what is particular to the proxy at the other end of a stream.
type Client struct {
	// Delta is the incremental form of the protocol; otherwise state of the world.
	Delta bool
	// Drain is how long a removed listener drains. Default 600s.
	Drain time.Duration
	// Follows tells that it asks for clusters by name, after it read the routes: no
	// route may wait for them.
	Follows bool
	// Private tells that nobody on the way can read the stream: private keys may
	// travel on it.
	Private bool
}

// NewSession starts the protocol of a stream.
func NewSession(cfg Config, e *Engine, m *Memory, client Client, t *Table, now time.Time, emit func(model.Event)) *Session {
	if cfg.PushWait == 0 {
		cfg.PushWait = defaultPushWait
	}
	if cfg.WarmWait == 0 {
		cfg.WarmWait = defaultWarmWait
	}
	if client.Drain == 0 {
		client.Drain = defaultDrainTime
	}
	s := &Session{
		cfg: cfg, engine: e, memory: m, emit: emit, client: client, table: t, start: now,
	}
	for i, t := range Types {
		s.types[i] = &state{typ: t, overlay: overlay[standing]{say: standingOf}, waits: map[string]*wait{}, retried: map[content]bool{}, dirty: true}
	}
	s.releaseOld() // it may have been away while its content changed
	return s
}

// Close ends the session; the proxy may come back.
func (s *Session) Close(now time.Time) {
	for _, st := range s.types {
		if st.flight != nil {
			s.takeApart(st) // parts may have been accepted
		}
	}
	s.engine.leave(s.types)
	s.memory.Leave(now)
}

// SetTable takes up a newer table.
func (s *Session) SetTable(t *Table) {
	was := s.table
	s.table = t
	beyond := !maps.Equal(was.Unknown, t.Unknown) // more than endpoints or secrets changed
	for _, typ := range Types {
		beyond = beyond || !typ.everyTime() && was.set(typ) != t.set(typ)
	}
	for _, st := range s.types {
		if st.dirty = st.dirty || beyond; was.set(st.typ) == t.set(st.typ) {
			continue
		}
		for name := range st.waits {
			if t.Get(st.typ, name) == nil {
				delete(st.waits, name) // it was taken back before it went out
			}
		}
		st.dirty, st.groups, st.stuck = true, nil, false
	}
	s.releaseOld()
}

// releaseOld forgets refusals of content that is no longer what would be sent.
func (s *Session) releaseOld() {
	for _, p := range s.memory.Parked() {
		if r := s.table.Get(Type(p.Type), p.Name); r == nil || r.Version != p.Version {
			s.memory.release(p)
			s.emit(model.Event{Kind: model.EventDeliveryReleased, Subject: model.Subject{Kind: Type(p.Type).Short(), Name: p.Name}, From: p.Version, Reason: "its content changed"})
		}
	}
}

// Served tells whether a type is served.
func Served(t Type) bool { return slices.Contains(Types, t) }

// Request takes in what the proxy said about a type that is served. Where it answers a
// response, lag is how long ago that one was opened.
func (s *Session) Request(r Request, now time.Time) (lag time.Duration, answer bool) {
	st := s.types.of(r.Type)
	for _, other := range s.types {
		other.dirty = other.dirty || other == st || !r.Type.everyTime() // an answer for one type can free another
	}
	first := !st.started
	answer, stale := s.settle(st, r, now)
	if !s.client.Delta && !first {
		s.memory.setOpen(st.typ, st.open)
	}
	if s.client.Delta {
		s.subscribeDelta(st, r, first)
	} else {
		s.subscribeSotW(st, r, first, stale)
	}
	st.started = true
	return st.lag, answer
}

// Sent notes that a response of a type was handed over, of so many bytes.
func (s *Session) Sent(t Type, bytes int) {
	st := s.types.of(t)
	st.responses++
	st.bytes += bytes
}

// settle takes an answer. It tells whether it is one, and whether the nonce is not the
// newest one.
func (s *Session) settle(st *state, r Request, now time.Time) (answer, stale bool) {
	if r.Nonce == "" {
		return false, len(st.open) > 0
	}
	for i, o := range st.open {
		if o.nonce != r.Nonce {
			continue
		}
		settled := slices.Clone(st.open[:i])
		st.open = slices.Delete(st.open, 0, i+1)
		if s.client.Delta { // each nonce is answered, in order; one that is skipped is lost
			for _, lost := range settled {
				s.unknown(st, lost)
			}
		}
		st.lag = now.Sub(o.at)
		if r.Refused != nil {
			if !s.client.Delta {
				for _, earlier := range settled {
					s.unknown(st, earlier)
				}
			}
			s.refused(st, o, *r.Refused, now)
		} else {
			if !s.client.Delta { // the newest set settles those before it
				for _, earlier := range settled {
					if earlier.flight != nil && earlier.flight == st.flight {
						s.landed(st, earlier)
					}
					s.forgetRemoved(st, earlier)
				}
			}
			s.accepted(st, o)
			if st.flight == nil { // none of its parts is kept
				*o, st.flying = sent{}, flight{}
				st.spare = o
			}
		}
		return true, len(st.open) > 0
	}
	return false, r.Nonce != st.newest
}

func (s *Session) accepted(st *state, o *sent) {
	st.accepted++
	st.refused = ""
	if o.flight != nil && o.flight == st.flight {
		s.landed(st, o)
	} else {
		s.memory.settle(st.typ, st.cover)
		s.took(st, o.resources)
	}
	s.forgetRemoved(st, o)
	if st.typ == Listeners && len(o.removed) > 0 {
		s.retryAddresses()
	}
}

// took notes that the proxy has resources as they were sent.
func (s *Session) took(st *state, resources []*Resource) {
	for _, r := range resources {
		if x := st.stand(r.Name); x.holds && x.version == r.Version {
			x.res, x.acked, x.some = r, true, true
			st.put(r.Name, x)
		}
	}
	s.memory.accept(st.typ, resources...)
}

func (s *Session) forgetRemoved(st *state, o *sent) {
	for _, name := range o.removed {
		s.memory.forget(st.typ, name)
	}
}

// unheard is the version of content that a proxy may or may not hold.
const unheard = "?"

// unknown takes back what a response was thought to have brought.
func (s *Session) unknown(st *state, o *sent) {
	if o.flight != nil && o.flight == st.flight {
		s.takeApart(st)
	}
	for _, r := range o.resources {
		x := st.stand(r.Name)
		if x.version != r.Version {
			continue // a newer one is on its way
		}
		x.acked = false
		last := s.memory.last(st.typ, r.Name)
		switch {
		case s.client.Delta || !st.typ.fullState():
			x.held, x.holds = held{unheard, last}, true
		case last != nil && x.some:
			x.held, x.holds = held{last.Version, last}, true
		default:
			x.held, x.holds = held{}, false
		}
		x.ask = x.ask || st.typ == Assignments
		st.put(r.Name, x)
	}
	for _, name := range o.removed {
		x := st.stand(name)
		x.tell = true
		if !x.holds && s.client.Delta {
			x.held, x.holds, x.some = held{unheard, s.memory.last(st.typ, name)}, true, true
		}
		st.put(name, x)
	}
}

// subscribe adds names, takes others away, and says whether all are wanted. What is
// added stands as before; what is wanted no more is forgotten.
func (s *Session) subscribe(st *state, add, remove []string, all bool) {
	add = except(distinct(add), st.names.has)
	left := distinct(remove) // it may have presented what it does not subscribe to
	remove = except(left, func(name string) bool { return !st.names.has(name) })
	to := cover{at: st.at, names: st.names, all: all}
	if len(add)+len(remove) > 0 {
		to.names = s.engine.exchange(st.typ, st.names, add, remove)
	}
	if st.all && !all { // those that it did not name besides
		left = slices.Clone(left)
		st.each(func(name string, _ standing) { left = append(left, name) })
	}
	st.moveTo(to)
	for _, name := range left {
		if !to.covers(name) {
			s.memory.forget(st.typ, name)
			st.drop(name)
		}
	}
}

// distinct are names in order, each once: the very same list, where it is so.
func distinct(names []string) []string {
	for i := range names[min(1, len(names)):] {
		if names[i] >= names[i+1] {
			return slices.Compact(slices.Sorted(slices.Values(names)))
		}
	}
	return names
}

// except leaves names out: the very same list, where there are none.
func except(names []string, out func(string) bool) []string {
	if !slices.ContainsFunc(names, out) {
		return names
	}
	return slices.DeleteFunc(slices.Clone(names), out)
}

func (s *Session) subscribeDelta(st *state, r Request, first bool) {
	if first {
		for name, version := range r.Initial {
			s.presented(st, name, version)
		}
		st.fresh = len(r.Initial) == 0
	}
	all := st.all && !slices.Contains(r.Unsubscribe, "*") || slices.Contains(r.Subscribe, "*")
	if first && len(r.Subscribe) == 0 && st.typ.fullState() {
		all, st.owed = true, st.fresh
	}
	if slices.Contains(r.Subscribe, "*") {
		st.owed = st.owed || first && st.fresh
	}
	star := func(name string) bool { return name == "*" }
	names := except(r.Subscribe, star)
	leaves := except(r.Unsubscribe, func(name string) bool { return star(name) || slices.Contains(names, name) })
	s.subscribe(st, names, leaves, all)
	if first && st.fresh {
		st.begins = true
		return
	}
	for _, name := range names {
		if _, presented := r.Initial[name]; st.typ.everyTime() || !presented {
			st.asks(name)
		}
	}
}

// presented takes what a delta client says that it holds.
func (s *Session) presented(st *state, name, version string) {
	x := standing{held: held{version: version}, holds: true, acked: true, some: true}
	last := s.memory.last(st.typ, name)
	known := last != nil
	if last != nil && last.Version == version {
		x.res = last
	} else {
		s.memory.forget(st.typ, name) // it took another form meanwhile
	}
	if now := s.table.Get(st.typ, name); now != nil && now.Version == version {
		x.res = now
		s.memory.accept(st.typ, now) // to present it is to have accepted it
	}
	st.put(name, x)
	if s.table.Get(st.typ, name) == nil && (st.typ == RouteTables || st.typ == Clusters && !known) {
		// A listener that is gone may still drain: that of these routes, or one that
		// led to this cluster before anything was remembered.
		s.memory.drainEverything(s.start.Add(s.client.Drain))
	}
}

func (s *Session) subscribeSotW(st *state, r Request, first, stale bool) {
	if !first && stale {
		return // its names are older than the answer that is yet to come
	}
	all := st.all
	if first {
		st.fresh = r.Version == ""
		all = len(r.Names) == 0 && st.typ.fullState()
		st.owed = all && st.fresh
	} else if len(r.Names) > 0 {
		all = false
	}
	if first || all != st.all || !st.names.are(st.typ, r.Names) {
		s.subscribeTo(st, r.Names, all)
	}
	if first && r.Version != "" {
		s.recognise(st, r.Version)
		// What it holds is not known: the whole set tells it what is gone.
		st.owed = st.typ.fullState() && !st.base
	}
}

// subscribeTo makes these names all that are subscribed to.
func (s *Session) subscribeTo(st *state, names []string, all bool) {
	wanted := distinct(names)
	if i, star := slices.BinarySearch(wanted, "*"); star {
		wanted, all = slices.Delete(slices.Clone(wanted), i, i+1), true
	}
	add := except(wanted, st.names.has)
	var remove []string
	for name := range st.names.sorted().all() {
		if _, stays := slices.BinarySearch(wanted, name); !stays {
			remove = append(remove, name)
		}
	}
	s.subscribe(st, add, remove, all)
	if !st.started && st.fresh {
		st.begins = true
		return
	}
	for _, name := range add {
		st.asks(name)
	}
}

// recognise takes a version that a state-of-the-world client presents: when it is
// the hash of what would be sent now, of what it accepted, or of what was on its
// way when its last stream broke, the client has just that.
func (s *Session) recognise(st *state, version string) {
	served := map[string]*Resource{}
	for r := range s.table.All(st.typ) {
		served[r.Name] = r
	}
	accepted := s.memory.all(st.typ)
	sets := []map[string]*Resource{served, accepted}
	for _, open := range s.memory.open(st.typ) {
		sets = append(sets, open.view.all())
	}
	for _, from := range sets {
		var is sum
		resources := map[string]*Resource{}
		for name, r := range from {
			if st.covers(name) {
				is, resources[name] = is.plus(r.sum), r
			}
		}
		if is.version() != version {
			continue
		}
		for name := range accepted {
			if st.covers(name) && resources[name] == nil {
				s.memory.forget(st.typ, name) // that it was taken away was never acknowledged
			}
		}
		for name, r := range resources {
			x := st.stand(name)
			x.held, x.holds, x.acked, x.some = held{r.Version, r}, true, true, true
			x.ask = x.ask && st.typ.everyTime()
			st.put(name, x)
			s.memory.accept(st.typ, r)
		}
		st.base = true
		return
	}
	for name := range accepted {
		if st.covers(name) {
			s.memory.forget(st.typ, name) // it took another form meanwhile
		}
	}
	for name := range st.names.sorted().all() {
		x := st.stand(name)
		x.held, x.holds, x.some = held{version: unheard}, true, true
		st.put(name, x)
	}
}
