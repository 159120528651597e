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
}

// Size is about how many bytes it is on the wire.
func (r Response) Size() int {
	n := 0
	for _, x := range r.Resources {
		n += len(x.Body.Value) + len(x.Body.TypeUrl) + 2*len(x.Name) + 32
	}
	return n
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
	types map[Type]*state
	nonce uint64
	start time.Time
}

// held is what the proxy has of a name: res is nil where only the version is
// known, from what the proxy presented.
type held struct {
	version string
	res     *Resource
}

// state is one type on one stream.
type state struct {
	typ      Type
	started  bool // a request came
	fresh    bool // the first request presented no version
	wildcard bool
	names    map[string]bool
	has      map[string]held // what was sent last, or presented; answers pending
	acked    map[string]bool // of has: covered by an answer, or presented
	some     map[string]bool // the proxy has some form of it, acknowledged or presented
	ask      map[string]bool // answer though the version is the same
	owed     bool            // a response is due though nothing differs
	tell     map[string]bool // removals that were refused and are told again
	open     []*sent         // oldest first
	newest   string          // nonce of the newest response
	accepted int             // responses that were accepted on this stream
	dirty    bool

	groups  []map[string]bool // what is tried apart, after a refusal without names
	refused string            // version of the set that was refused last: not sent again
	stuck   bool              // nothing is sent until the content changes
	waits   map[string]*wait  // what is held back
	retried map[content]bool  // parked content tried once more on this stream

	base bool // what a state-of-the-world client came with is known
	lag  time.Duration
}

// sent is a response without an answer.
type sent struct {
	nonce     string
	at        time.Time
	resources map[string]*Resource
	removed   []string
	version   string
	set       map[string]*Resource // state of the world: all that the client has once it took this
}

// wait is a route table that is held back.
type wait struct {
	version string
	since   time.Time
	why     string
	over    bool
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
		types: map[Type]*state{},
	}
	for _, t := range Types {
		s.types[t] = &state{
			typ: t, names: map[string]bool{}, has: map[string]held{}, acked: map[string]bool{}, some: map[string]bool{}, ask: map[string]bool{},
			tell: map[string]bool{}, waits: map[string]*wait{}, retried: map[content]bool{}, dirty: true,
		}
	}
	s.releaseOld() // it may have been away while its content changed
	return s
}

// Close ends the session; the proxy may come back.
func (s *Session) Close(now time.Time) {
	for name := range s.types[Assignments].names {
		s.engine.subscribe(name, -1)
	}
	s.memory.Leave(now)
}

// SetTable takes up a newer table.
func (s *Session) SetTable(t *Table) {
	for _, st := range s.types {
		for name := range st.waits {
			if t.get(st.typ, name) == nil {
				delete(st.waits, name) // it was taken back before it went out
			}
		}
		st.dirty = true
		st.groups = nil
		st.stuck = st.stuck && maps.Equal(s.table.Resources[st.typ], t.Resources[st.typ])
	}
	s.table = t
	s.releaseOld()
}

// releaseOld forgets refusals of content that is no longer what would be sent.
func (s *Session) releaseOld() {
	for _, p := range s.memory.Parked() {
		if r := s.table.get(Type(p.Type), p.Name); r == nil || r.Version != p.Version {
			s.memory.release(p)
			s.emit(model.Event{Kind: model.EventDeliveryReleased, Subject: model.Subject{Kind: Type(p.Type).Short(), Name: p.Name}, From: p.Version, Reason: "its content changed"})
		}
	}
}

// Served tells whether a type is served.
func Served(t Type) bool { return slices.Contains(Types, t) }

// Request takes in what the proxy said about a type that is served.
func (s *Session) Request(r Request, now time.Time) {
	st := s.types[r.Type]
	for _, other := range s.types {
		other.dirty = true // an answer for one type can free another
	}
	first := !st.started
	stale := s.settle(st, r, now)
	if !s.client.Delta && !first {
		s.memory.setOpen(st.typ, st.open)
	}
	if s.client.Delta {
		s.subscribeDelta(st, r, first)
	} else {
		s.subscribeSotW(st, r, first, stale)
	}
	st.started = true
}

// settle takes an answer. It tells whether the nonce is not the newest one.
func (s *Session) settle(st *state, r Request, now time.Time) (stale bool) {
	if r.Nonce == "" {
		return len(st.open) > 0
	}
	for i, o := range st.open {
		if o.nonce != r.Nonce {
			continue
		}
		settled := st.open[:i+1]
		st.open = st.open[i+1:]
		if s.client.Delta { // each nonce is answered, in order; one that is skipped is lost
			for _, lost := range settled[:i] {
				s.unknown(st, lost)
			}
		}
		st.lag = now.Sub(o.at)
		if r.Refused != nil {
			if !s.client.Delta {
				for _, earlier := range settled[:i] {
					s.unknown(st, earlier)
				}
			}
			s.refused(st, o, *r.Refused, now)
		} else {
			if !s.client.Delta { // the newest set settles those before it
				for _, earlier := range settled[:i] {
					s.forgetRemoved(st, earlier)
				}
			}
			s.accepted(st, o)
		}
		return len(st.open) > 0
	}
	return r.Nonce != st.newest
}

func (s *Session) accepted(st *state, o *sent) {
	st.accepted++
	st.refused = ""
	for name, r := range o.resources {
		s.memory.accept(r)
		if h, ok := st.has[name]; ok && h.version == r.Version {
			st.acked[name], st.some[name] = true, true
			st.has[name] = held{r.Version, r}
		}
	}
	s.forgetRemoved(st, o)
	if st.typ == Listeners && len(o.removed) > 0 {
		s.retryAddresses()
	}
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
	for name, r := range o.resources {
		if st.has[name].version != r.Version {
			continue // a newer one is on its way
		}
		delete(st.acked, name)
		last := s.memory.last(st.typ, name)
		switch {
		case s.client.Delta || !st.typ.fullState():
			st.has[name] = held{unheard, last}
		case last != nil && st.some[name]:
			st.has[name] = held{last.Version, last}
		default:
			delete(st.has, name)
		}
		if st.typ == Assignments {
			st.ask[name] = true
		}
	}
	for _, name := range o.removed {
		st.tell[name] = true
		if _, again := st.has[name]; again || !s.client.Delta {
			continue
		}
		st.has[name], st.some[name] = held{unheard, s.memory.last(st.typ, name)}, true
	}
}

func (s *Session) subscribeDelta(st *state, r Request, first bool) {
	for _, name := range r.Unsubscribe {
		if name == "*" {
			st.wildcard = false
			continue
		}
		if st.names[name] && st.typ == Assignments {
			s.engine.subscribe(name, -1)
		}
		delete(st.names, name)
		if !st.wildcard {
			s.memory.forget(st.typ, name)
			st.drop(name)
		}
	}
	if first {
		for name, version := range r.Initial {
			h := held{version: version}
			last := s.memory.last(st.typ, name)
			known := last != nil
			if last != nil && last.Version == version {
				h.res = last
			} else {
				s.memory.forget(st.typ, name) // it took another form meanwhile
			}
			if now := s.table.get(st.typ, name); now != nil && now.Version == version {
				h.res = now
				s.memory.accept(now) // to present it is to have accepted it
			}
			st.has[name], st.acked[name], st.some[name] = h, true, true
			if s.table.get(st.typ, name) == nil && (st.typ == RouteTables || st.typ == Clusters && !known) {
				// A listener that is gone may still drain: that of these routes, or one that
				// led to this cluster before anything was remembered.
				s.memory.drainEverything(s.start.Add(s.client.Drain))
			}
		}
		st.fresh = len(r.Initial) == 0
		if len(r.Subscribe) == 0 && st.typ.fullState() {
			st.wildcard, st.owed = true, st.fresh
		}
	}
	for _, name := range r.Subscribe {
		if name == "*" {
			st.owed = st.owed || first && st.fresh
			st.wildcard = true
			continue
		}
		_, presented := r.Initial[name]
		if !st.names[name] && st.typ == Assignments {
			s.engine.subscribe(name, 1)
		}
		st.names[name] = true
		if st.typ.everyTime() || !presented {
			st.ask[name] = true
		}
	}
}

func (s *Session) subscribeSotW(st *state, r Request, first, stale bool) {
	if !first && stale {
		return // its names are older than the answer that is yet to come
	}
	if first {
		st.fresh = r.Version == ""
		st.wildcard = len(r.Names) == 0 && st.typ.fullState()
		st.owed = st.wildcard && st.fresh
	} else if len(r.Names) > 0 {
		st.wildcard = false
	}
	names := map[string]bool{}
	for _, name := range r.Names {
		if name == "*" {
			st.wildcard = true
			continue
		}
		names[name] = true
		if !st.names[name] {
			if st.typ == Assignments {
				s.engine.subscribe(name, 1)
			}
			st.ask[name] = true
		}
	}
	for name := range st.names {
		if names[name] {
			continue
		}
		if st.typ == Assignments {
			s.engine.subscribe(name, -1)
		}
		st.drop(name)
		s.memory.forget(st.typ, name)
	}
	st.names = names
	if first && r.Version != "" {
		s.recognise(st, r.Version)
		// What it holds is not known: the whole set tells it what is gone.
		st.owed = st.typ.fullState() && !st.base
	}
}

// drop forgets a name that the proxy left or was told to be gone.
func (st *state) drop(name string) {
	delete(st.has, name)
	delete(st.acked, name)
	delete(st.some, name)
	delete(st.ask, name)
	delete(st.tell, name)
	delete(st.waits, name)
}

// recognise takes a version that a state-of-the-world client presents: when it is
// the hash of what would be sent now, of what it accepted, or of what was on its
// way when its last stream broke, the client has just that.
func (s *Session) recognise(st *state, version string) {
	sets := []map[string]*Resource{s.table.Resources[st.typ], s.memory.all(st.typ)}
	for _, from := range append(sets, s.memory.open(st.typ)...) {
		versions, resources := map[string]string{}, map[string]*Resource{}
		for name, r := range from {
			if st.wildcard || st.names[name] {
				versions[name], resources[name] = r.Version, r
			}
		}
		if setVersion(versions) != version {
			continue
		}
		for name := range s.memory.all(st.typ) {
			if (st.wildcard || st.names[name]) && resources[name] == nil {
				s.memory.forget(st.typ, name) // that it was taken away was never acknowledged
			}
		}
		for name, r := range resources {
			st.has[name], st.acked[name], st.some[name] = held{r.Version, r}, true, true
			s.memory.accept(r)
			if !st.typ.everyTime() {
				delete(st.ask, name)
			}
		}
		st.base = true
		return
	}
	for name := range s.memory.all(st.typ) {
		if st.wildcard || st.names[name] {
			s.memory.forget(st.typ, name) // it took another form meanwhile
		}
	}
	for name := range st.names {
		st.has[name], st.some[name] = held{version: unheard}, true
	}
}
