package delivery

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Engine holds the newest table of every class and the memory of every proxy. It
// is safe for concurrent use.
type Engine struct {
	changes atomic.Uint64

	mu       sync.Mutex // guards what follows; never held across I/O
	classes  map[Class]*classState
	memories map[memoryKey]*Memory
	suspects map[content]bool
	names    map[namesID]*Names // what streams subscribe to
	demand   chan struct{}
	swept    time.Time // when forgotten proxies were last looked for
}

// content names one form of one resource.
type content struct {
	Type          Type
	Name, Version string
}

// Member is a stream as the engine sees it.
type Member interface {
	// Wake makes it take up the newest table of its class. It does not block. What it
	// sends because of that counts for the round until it is handed over.
	Wake(*Round)
}

// Round is one telling of members of a class. nil counts nothing.
type Round struct {
	sending    atomic.Int64
	over       chan struct{} // receives when nothing is being sent any more
	sent, busy int           // members that sent, and that could not
}

// Begin notes that a member sends. It is called in Wake, as is Busy.
func (r *Round) Begin() {
	if r != nil {
		r.sending.Add(1)
		r.sent++
	}
}

// Busy notes that a member takes up the table when what it sent before is taken.
func (r *Round) Busy() {
	if r != nil {
		r.busy++
	}
}

// End notes that it has handed over what it sent.
func (r *Round) End() {
	if r != nil && r.sending.Add(-1) == 0 {
		r.over <- struct{}{}
	}
}

type classState struct {
	table   *Table // the newest
	number  uint64 // of tables that there were
	members map[Member]struct{}
	feed    *Feed
	telling bool          // there was a round, and its pause is not over
	took    time.Duration // the last round
	fleet   time.Duration // what the last pause was reckoned from
}

// Feed is what the members of a class take up: the table of the last round.
type Feed struct{ told atomic.Pointer[told] }

type told struct {
	table  *Table
	number uint64
}

// Table is what to take up now; nil where the class has nothing any more.
func (f *Feed) Table() *Table { return f.told.Load().table }

// Numbered is Table, and how many tables of the class there were until then.
func (f *Feed) Numbered() (*Table, uint64) {
	now := f.told.Load()
	return now.table, now.number
}

func (f *Feed) tell(s *classState) { f.told.Store(&told{s.table, s.number}) }

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
		s = &classState{members: map[Member]struct{}{}, feed: &Feed{}}
		s.feed.tell(s)
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
	s.number++
	e.changes.Add(1)
	e.tell(s)
}

// Changes counts the tables that were published.
func (e *Engine) Changes() uint64 { return e.changes.Load() }

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

// tell has the members of a class take up its newest table. The first change after
// quiet leaves at once. While one follows the other, what happens in a pause after
// each round goes together in the next; the pause is twice as long as the round
// was, so that a fleet that takes long to tell is told less often, of more. A member that
// was busy in a round takes up the table of that round when it can, and so all go the
// same way. mu is held.
func (e *Engine) tell(s *classState) {
	if !s.telling {
		e.round(s)
	}
}

// round begins a round, where there is anything to tell. mu is held.
func (e *Engine) round(s *classState) {
	s.telling = s.feed.Table() != s.table && len(s.members) > 0
	s.feed.tell(s)
	if !s.telling {
		return
	}
	members := slices.AppendSeq(make([]Member, 0, len(s.members)), maps.Keys(s.members))
	go func() {
		took, measured := wake(members)
		e.mu.Lock()
		defer e.mu.Unlock()
		time.AfterFunc(s.pause(took, measured), func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.round(s)
		})
	}()
}

// pause is how long after a round the next one begins: twice as long as the fleet
// takes. A round that was held up once by what else the machine does is no measure of
// that: of two the shorter one counts. Nor is one that met a fleet which is still busy;
// that is left alone for as long as a round and its pause. mu is held.
func (s *classState) pause(took time.Duration, measured bool) time.Duration {
	if !measured && s.fleet > 0 {
		return s.fleet * 3
	}
	s.fleet = took
	if s.took > 0 {
		s.fleet = min(took, s.took)
	}
	s.took = took
	return s.fleet * 2
}

// batch is how many members are woken at once: those of a whole fleet would stand in
// the way of whatever else there is to do, acknowledgements and newer changes too.
const batch = 64

// batchWait bounds the wait for a batch; a member that takes nothing may keep one
// open for ever.
const batchWait = 20 * time.Millisecond

// wake wakes members and returns how long it took until each has handed over what it
// sent; what those will take that are busy is reckoned by the others. It is no measure of the
// fleet where most are busy.
func wake(members []Member) (took time.Duration, measured bool) {
	began := time.Now()
	limit := time.NewTimer(batchWait)
	defer limit.Stop()
	sent, busy := 0, 0
	for some := range slices.Chunk(members, batch) {
		r := &Round{over: make(chan struct{}, 1)}
		r.sending.Add(1)
		for _, m := range some {
			m.Wake(r)
		}
		sent, busy = sent+r.sent, busy+r.busy
		r.End()
		limit.Reset(batchWait)
		select {
		case <-r.over:
		case <-limit.C:
		}
	}
	took = time.Since(began)
	if sent >= busy {
		return took * time.Duration(sent+busy) / time.Duration(max(1, sent)), true
	}
	return took, false
}

// Join makes a stream a member of a class, and returns what it takes up.
func (e *Engine) Join(c Class, m Member) *Feed {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.class(c)
	s.members[m] = struct{}{}
	if s.feed.Table() == nil { // the class came back, and a pause is not over
		s.feed.tell(s)
	}
	return s.feed
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

// Table returns the newest table of a class, nil where it has none.
func (e *Engine) Table(c Class) *Table {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.classes[c]; s != nil {
		return s.table
	}
	return nil
}

// suspected are those of some resources that any proxy refused.
func (e *Engine) suspected(among []*Resource) (out []*Resource) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.suspects) == 0 {
		return nil
	}
	for _, r := range among {
		if e.suspects[content{r.Type, r.Name, r.Version}] {
			out = append(out, r)
		}
	}
	return out
}

func (e *Engine) setSuspect(c content) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.suspects) > 10_000 { // what was refused long ago and never again
		clear(e.suspects)
	}
	e.suspects[c] = true
}
