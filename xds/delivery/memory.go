package delivery

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Memory returns what is remembered of a proxy. A new version of its Envoy
// forgets what the older one refused.
func (e *Engine) Memory(group, node, version string, now time.Time) *Memory {
	e.mu.Lock()
	defer e.mu.Unlock()
	k := memoryKey{group, node}
	m := e.memories[k]
	if m == nil {
		m = &Memory{accepted: map[Type]*view{}, parked: map[content]model.Parked{}, unheard: map[Type][]*kept{}, drains: map[string]time.Time{}}
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

type memoryKey struct{ group, node string }

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
	accepted map[Type]*view
	parked   map[content]model.Parked
	unheard  map[Type][]*kept     // state of the world: sets that no answer came for yet
	drains   map[string]time.Time // clusters that nothing names any more, while connections may use them
	drainAll time.Time            // the same of every cluster: a listener was removed whose routes are not known
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
func (m *Memory) open(t Type) []*kept {
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

// view is what was accepted of a type, to be changed. mu is held.
func (m *Memory) view(t Type) *view {
	if m.accepted[t] == nil {
		m.accepted[t] = newView()
	}
	return m.accepted[t]
}

// accept takes what a proxy accepted.
func (m *Memory) accept(t Type, resources ...*Resource) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.view(t)
	for _, r := range resources {
		v.put(r.Name, r)
		delete(m.parked, content{r.Type, r.Name, r.Version})
	}
}

// acceptAll takes that a proxy went a step, and has all that its end has.
func (m *Memory) acceptAll(t Type, p *step) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.view(t).become(p)
	for c := range m.parked {
		if r := p.to.get(c.Name); r != nil && c == (content{r.Type, r.Name, r.Version}) {
			delete(m.parked, c)
		}
	}
}

// refuses tells whether the proxy refused anything that is still to be sent.
func (m *Memory) refuses() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.parked) > 0
}

// settle says what was accepted by the set that a stream has reached.
func (m *Memory) settle(t Type, reached cover) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v := m.accepted[t]; v != nil {
		v.moveTo(reached)
	}
}

func (m *Memory) forget(t Type, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v := m.accepted[t]; v != nil {
		v.put(name, nil)
	}
}

// last is the form of a resource that the proxy accepted last; nil where none is
// known.
func (m *Memory) last(t Type, name string) *Resource {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.accepted[t].get(name)
}

// all is everything that the proxy accepted last.
func (m *Memory) all(t Type) map[string]*Resource {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.accepted[t].all()
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

// Parked counts what the connected proxies refused and would still be sent.
func (e *Engine) Parked() (n int) {
	e.mu.Lock()
	memories := slices.Collect(maps.Values(e.memories))
	e.mu.Unlock()
	for _, m := range memories {
		m.mu.Lock()
		if m.streams > 0 {
			n += len(m.parked)
		}
		m.mu.Unlock()
	}
	return n
}

// Parked lists what the proxy refused, by type and name.
func (m *Memory) Parked() []model.Parked {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.parked) == 0 {
		return nil
	}
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
