package delivery

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Engine holds the newest table of every class and the memory of every proxy. It
// is safe for concurrent use.
type Engine struct {
	mu       sync.Mutex // guards what follows; never held across I/O
	classes  map[Class]*classState
	memories map[memoryKey]*Memory
	suspects map[content]bool
	wanted   map[string]int // assignments that streams subscribe to, by count
	demand   chan struct{}
	swept    time.Time // when forgotten proxies were last looked for
}

type memoryKey struct{ group, node string }

// content names one form of one resource.
type content struct {
	Type          Type
	Name, Version string
}

type classState struct {
	table   *Table
	changed chan struct{}
}

// NewEngine returns an engine without tables.
func NewEngine() *Engine {
	return &Engine{
		classes: map[Class]*classState{}, memories: map[memoryKey]*Memory{}, suspects: map[content]bool{},
		wanted: map[string]int{}, demand: make(chan struct{}, 1),
	}
}

func (e *Engine) class(c Class) *classState {
	s := e.classes[c]
	if s == nil {
		s = &classState{changed: make(chan struct{})}
		e.classes[c] = s
	}
	return s
}

// Publish makes t the table of a class. Streams take it up by themselves.
func (e *Engine) Publish(c Class, t *Table) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.class(c)
	s.table = t
	close(s.changed)
	s.changed = make(chan struct{})
}

// Table returns the newest table of a class, nil before the first, and a channel
// that is closed when there is a newer one.
func (e *Engine) Table(c Class) (*Table, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.class(c)
	return s.table, s.changed
}

// Drop forgets a class; its streams are woken and find no table.
func (e *Engine) Drop(c Class) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.classes[c]; s != nil {
		close(s.changed)
	}
	delete(e.classes, c)
}

// subscribe counts the streams that want an assignment, so that older
// generations can be kept for them.
func (e *Engine) subscribe(name string, delta int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.wanted[name] += delta; e.wanted[name] <= 0 {
		delete(e.wanted, name)
	}
	select {
	case e.demand <- struct{}{}:
	default:
	}
}

// Wanted lists the assignments that any stream subscribes to, sorted.
func (e *Engine) Wanted() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.wanted))
}

// Demand receives after Wanted changed. There is one reader.
func (e *Engine) Demand() <-chan struct{} { return e.demand }

func (e *Engine) suspect(c content) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.suspects[c]
}

func (e *Engine) setSuspect(c content) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.suspects) > 10_000 { // what was refused long ago and never again
		clear(e.suspects)
	}
	e.suspects[c] = true
}

// Memory returns what is remembered of a proxy. A new version of its Envoy
// forgets what the older one refused.
func (e *Engine) Memory(group, node, version string, now time.Time) *Memory {
	e.mu.Lock()
	defer e.mu.Unlock()
	k := memoryKey{group, node}
	m := e.memories[k]
	if m == nil {
		m = &Memory{accepted: map[Type]map[string]*Resource{}, parked: map[content]model.Parked{}, unheard: map[Type][]map[string]*Resource{}, drains: map[string]time.Time{}}
		e.memories[k] = m
	}
	m.mu.Lock()
	if m.version != version {
		clear(m.parked)
		m.version = version
	}
	m.streams++
	m.mu.Unlock()
	if now.Sub(e.swept) > sweepEvery {
		e.swept = now
		for k, old := range e.memories {
			if old.idle(now) {
				delete(e.memories, k)
			}
		}
	}
	return m
}

// memoryKept is how long a proxy without a stream is remembered.
const memoryKept = time.Hour

// sweepEvery bounds how often all memories are looked at.
const sweepEvery = time.Minute

// Memory is what one proxy accepted and refused, over all its streams.
type Memory struct {
	mu       sync.Mutex
	version  string
	streams  int
	left     time.Time
	accepted map[Type]map[string]*Resource
	parked   map[content]model.Parked
	unheard  map[Type][]map[string]*Resource // state of the world: sets that no answer came for yet
	drains   map[string]time.Time            // clusters that nothing names any more, while connections may use them
	drainAll time.Time                       // the same of every cluster: a listener was removed whose routes are not known
}

// drain keeps the clusters that are named no more until a time.
func (m *Memory) drain(named, still []string, until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range named {
		if !slices.Contains(still, c) {
			m.drains[c] = until
		}
	}
}

// drainEverything keeps every cluster until a time.
func (m *Memory) drainEverything(until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drainAll = until
}

// drainsUntil is when the last connection to a cluster ends; one that is over is
// forgotten.
func (m *Memory) drainsUntil(cluster string, now time.Time) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	until := m.drains[cluster]
	if !now.Before(until) {
		delete(m.drains, cluster)
	}
	if m.drainAll.After(until) {
		return m.drainAll
	}
	return until
}

// setOpen keeps what was sent and is not answered: should the stream break, the
// proxy may have taken it, and be back before the break is noticed.
func (m *Memory) setOpen(t Type, open []*sent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.unheard, t)
	for _, o := range open {
		m.unheard[t] = append(m.unheard[t], o.set)
	}
}

// open returns what setOpen kept, newest first.
func (m *Memory) open(t Type) []map[string]*Resource {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := slices.Clone(m.unheard[t])
	slices.Reverse(out)
	return out
}

func (m *Memory) idle(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.streams == 0 && now.Sub(m.left) > memoryKept
}

// Leave ends a stream's use of the memory.
func (m *Memory) Leave(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.streams--
	m.left = now
}

func (m *Memory) accept(r *Resource) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.accepted[r.Type] == nil {
		m.accepted[r.Type] = map[string]*Resource{}
	}
	m.accepted[r.Type][r.Name] = r
	delete(m.parked, content{r.Type, r.Name, r.Version})
}

func (m *Memory) forget(t Type, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.accepted[t], name)
}

func (m *Memory) last(t Type, name string) *Resource {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.accepted[t][name]
}

func (m *Memory) all(t Type) map[string]*Resource {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.accepted[t])
}

func (m *Memory) park(p model.Parked) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.parked {
		if c.Type == Type(p.Type) && c.Name == p.Name {
			delete(m.parked, c)
		}
	}
	m.parked[content{Type(p.Type), p.Name, p.Version}] = p
}

func (m *Memory) isParked(r *Resource) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.parked[content{r.Type, r.Name, r.Version}]
	return ok
}

// release forgets a refusal whose content is no longer what would be sent.
func (m *Memory) release(p model.Parked) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.parked, content{Type(p.Type), p.Name, p.Version})
}

// Parked lists what the proxy refused, by type and name.
func (m *Memory) Parked() []model.Parked {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := slices.Collect(maps.Values(m.parked))
	slices.SortFunc(out, func(a, b model.Parked) int {
		if a.Type != b.Type {
			return slices.Index(Types, Type(a.Type)) - slices.Index(Types, Type(b.Type))
		}
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}
