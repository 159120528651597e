package delivery

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Engine holds the newest table of every class and the memory of every proxy. It
// is safe for concurrent use.
type Engine struct {
	mu       sync.Mutex // guards what follows; never held across I/O
	classes  map[Class]*classState
	memories map[memoryKey]*Memory
	suspects map[content]bool
	names    map[namesID]*Names // what streams subscribe to
	demand   chan struct{}
	swept    time.Time // when forgotten proxies were last looked for
}

type memoryKey struct{ group, node string }

// content names one form of one resource.
type content struct {
	Type          Type
	Name, Version string
}

// Member is a stream as the engine sees it.
type Member interface {
	// Wake makes it take up the newest table of its class. It does not block.
	Wake()
}

type classState struct {
	table   *Table
	changed chan struct{}
	members map[Member]struct{}
	told    *Table // what the members were woken for last
	telling bool   // somebody wakes them
}

// NewEngine returns an engine without tables.
func NewEngine() *Engine {
	return &Engine{
		classes: map[Class]*classState{}, memories: map[memoryKey]*Memory{}, suspects: map[content]bool{},
		names: map[namesID]*Names{}, demand: make(chan struct{}, 1),
	}
}

func (e *Engine) class(c Class) *classState {
	s := e.classes[c]
	if s == nil {
		s = &classState{changed: make(chan struct{}), members: map[Member]struct{}{}}
		e.classes[c] = s
	}
	return s
}

// Publish makes t the table of a class and has its streams woken. It waits for
// none of them.
func (e *Engine) Publish(c Class, t *Table) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.class(c)
	s.table = t
	e.tell(s)
}

// Drop forgets the table of a class; its streams are woken and find none.
func (e *Engine) Drop(c Class) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.classes[c]; s != nil {
		s.table = nil
		e.tell(s)
		e.forget(c, s)
	}
}

// tell has the members of a class woken. mu is held.
func (e *Engine) tell(s *classState) {
	close(s.changed)
	s.changed = make(chan struct{})
	if !s.telling && len(s.members) > 0 {
		s.telling = true
		go e.wake(s)
	}
}

// wake wakes the members of a class until they were woken for its newest table.
func (e *Engine) wake(s *classState) {
	var members []Member
	for {
		e.mu.Lock()
		if s.told == s.table {
			s.telling = false
			e.mu.Unlock()
			return
		}
		s.told = s.table
		members = slices.AppendSeq(members[:0], maps.Keys(s.members))
		e.mu.Unlock()
		for _, m := range members {
			m.Wake()
		}
	}
}

// Join makes a stream a member of a class, and returns its table; nil where it has
// none.
func (e *Engine) Join(c Class, m Member) *Table {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.class(c)
	s.members[m] = struct{}{}
	return s.table
}

// Leave ends a membership.
func (e *Engine) Leave(c Class, m Member) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.classes[c]; s != nil {
		delete(s.members, m)
		e.forget(c, s)
	}
}

// forget drops a class that has neither table nor members. mu is held.
func (e *Engine) forget(c Class, s *classState) {
	if s.table == nil && len(s.members) == 0 {
		delete(e.classes, c)
	}
}

// Table returns the newest table of a class, nil where it has none, and a channel
// that is closed when there is a newer one.
func (e *Engine) Table(c Class) (*Table, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.class(c)
	return s.table, s.changed
}

// suspicious tells whether anybody refused anything.
func (e *Engine) suspicious() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.suspects) > 0
}

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
