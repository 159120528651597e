// Package xdstest is an ADS client that behaves like Envoy, delta and state of the
// world: what it asks for, when it answers, what it keeps over a broken stream.
//
//	stream ─ response ─► Envoy ─ requests ─► stream
//	                       └─ View, Frames, Violations ◄─ test
//
// What of Envoy's behaviour matters to a control plane is here, as it was measured
// on Envoy 1.40:
//
//   - Clusters are asked for first; listeners when the first clusters are warm.
//   - A cluster warms until its assignment comes, 15 s at most, and the answer to clusters is
//     withheld while any warms: delta then answers each response in order, state of
//     the world the last only. Assignments, listeners and routes are answered at once.
//   - A changed cluster whose assignment keeps its name asks for nothing in delta,
//     and repeats its request in state of the world; it waits for the assignment all
//     the same, while the form before it serves on and takes that assignment too.
//   - An assignment of an unknown cluster is forgotten. One that is told as removed
//     is ignored by an active cluster and ends the warming of a new one with nobody.
//   - A refused response of clusters or listeners is refused in part, by name; one
//     of assignments or routes as a whole.
//   - After a broken stream, assignments are asked for first while clusters warm, and
//     clusters when they are warm.
//
// An Envoy also judges: what would have cost requests is a violation.
package xdstest

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// The types, in the order in which a fresh Envoy asks for them.
const (
	Clusters    = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	Assignments = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	Listeners   = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteTables = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

// Config of an Envoy.
type Config struct {
	ID      string
	Cluster string
	// Version of the Envoy that it says it is. Default 1.40.0.
	Version [3]uint32
	// Metadata of the node, below "wellspring".
	Metadata map[string]any
	// SotW speaks state of the world in place of delta.
	SotW bool
	// Refuse says in Envoy's place why a resource is refused; "" takes it. nil takes
	// everything. It must not call this Envoy's methods.
	Refuse func(m proto.Message) string
}

// Envoy is one simulated Envoy. What it holds outlives its streams. Its methods may
// be called from any goroutine; Run by one at a time.
type Envoy struct {
	cfg Config

	mu         sync.Mutex // guards what follows
	state      *state
	frames     []Frame
	violations []string
	changed    chan struct{}
	gate       chan struct{} // closed while it reads
}

// New returns an Envoy that holds nothing.
func New(cfg Config) *Envoy {
	if cfg.Version == [3]uint32{} {
		cfg.Version = [3]uint32{1, 40, 0}
	}
	if cfg.Refuse == nil {
		cfg.Refuse = func(proto.Message) string { return "" }
	}
	e := &Envoy{cfg: cfg, changed: make(chan struct{}), gate: make(chan struct{})}
	close(e.gate)
	e.state = &state{sotw: cfg.SotW, refuse: cfg.Refuse, kinds: map[string]*kind{}, clusters: map[string]*cluster{}, drains: map[string]time.Time{}, violate: e.violate}
	for _, typ := range []string{Clusters, Assignments, Listeners, RouteTables} {
		e.state.kinds[typ] = &kind{typ: typ, names: map[string]bool{}, held: map[string]resource{}}
	}
	return e
}

func (e *Envoy) violate(what string) { e.violations = append(e.violations, what) }

func (e *Envoy) node() *corev3.Node {
	said, err := structpb.NewStruct(map[string]any{"wellspring": e.cfg.Metadata})
	if err != nil {
		e.violate(err.Error())
	}
	return &corev3.Node{
		Metadata: said, Id: e.cfg.ID, Cluster: e.cfg.Cluster, UserAgentName: "envoy",
		UserAgentVersionType: &corev3.Node_UserAgentBuildVersion{UserAgentBuildVersion: &corev3.BuildVersion{
			Version: &typev3.SemanticVersion{MajorNumber: e.cfg.Version[0], MinorNumber: e.cfg.Version[1], Patch: e.cfg.Version[2]},
		}},
	}
}

// Run is the life of one stream: it returns how the stream ended, nil after the
// end of ctx or of the server's side.
func (e *Envoy) Run(ctx context.Context, conn grpc.ClientConnInterface) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client := discoveryv3.NewAggregatedDiscoveryServiceClient(conn)
	var w wire
	if e.cfg.SotW {
		s, err := client.StreamAggregatedResources(ctx)
		if err != nil {
			return err
		}
		w = sotw{s, e.node()}
	} else {
		s, err := client.DeltaAggregatedResources(ctx)
		if err != nil {
			return err
		}
		w = delta{s, e.node()}
	}
	err := e.talk(ctx, w)
	if ctx.Err() != nil || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// drainTime is how long a listener's connections outlive a change of it: Envoy's
// --drain-time-s.
const drainTime = 600 * time.Second

// fetchTimeout ends the warming of a cluster whose assignment was not answered, as
// our bootstrap and clusters have it.
const fetchTimeout = 15 * time.Second

// received is one message, or how the stream ended.
type received struct {
	response
	err error
}

func (e *Envoy) talk(ctx context.Context, w wire) error {
	e.mu.Lock()
	requests := e.state.open(time.Now())
	e.mu.Unlock()
	in := make(chan received)
	go e.listen(ctx, w, in)
	for first := true; ; first = false {
		for i, r := range requests {
			e.note(r.frame())
			if err := w.send(r, first && i == 0); err != nil && !errors.Is(err, io.EOF) { // the end is read below
				return err
			}
		}
		e.mu.Lock()
		patience := time.NewTimer(e.state.patience(time.Now()))
		e.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-patience.C:
			e.mu.Lock()
			requests = e.state.giveUp(time.Now())
		case r := <-in:
			if r.err != nil {
				return r.err
			}
			e.note(r.frame())
			e.mu.Lock()
			requests = e.state.receive(r.response, time.Now())
		}
		patience.Stop()
		e.wake()
		e.mu.Unlock()
	}
}

// listen reads until the stream ends, and not while paused.
func (e *Envoy) listen(ctx context.Context, w wire, in chan<- received) {
	for {
		e.mu.Lock()
		gate := e.gate
		e.mu.Unlock()
		select {
		case <-gate:
		case <-ctx.Done():
			return
		}
		r, err := w.receive()
		select {
		case in <- received{r, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

func (e *Envoy) note(f Frame) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.frames = append(e.frames, f)
	e.wake()
}

func (e *Envoy) wake() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// Pause stops reading what the server sends; Resume reads on.
func (e *Envoy) Pause() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gate = make(chan struct{})
}

// Resume ends a Pause.
func (e *Envoy) Resume() {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.gate)
}

// Frame is one message of a stream.
type Frame struct {
	// Sent is true for requests.
	Sent bool
	Type string
	// Names are the resources of a response, or what a request subscribes to; in
	// state of the world, all that it names.
	Names []string
	// Removed are the resources told as removed, or what a request leaves.
	Removed []string
	Nonce   string
	// Refused is what a request says of the response with that nonce.
	Refused string
}

// Frames are the messages so far.
func (e *Envoy) Frames() []Frame {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.frames)
}

// Violations are what would have cost requests or connections: a route, or a listener
// that passes connections on, to a cluster that is not there; a cluster that goes, or
// loses everybody by warming, while one of them names it, or while connections drain.
func (e *Envoy) Violations() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.violations)
}

// View is what an Envoy holds.
type View struct {
	// Endpoints are the addresses of each active cluster, as they were sent.
	Endpoints map[string][]string
	// Warming are the clusters that wait for their assignment.
	Warming []string
	// Listeners are the names of listeners, Routes the clusters that each route table
	// names.
	Listeners []string
	Routes    map[string][]string
}

// View returns what is held now.
func (e *Envoy) View() View {
	e.mu.Lock()
	defer e.mu.Unlock()
	v := View{Endpoints: map[string][]string{}, Routes: map[string][]string{}}
	for name, c := range e.state.clusters {
		if c.active != nil {
			v.Endpoints[name] = slices.Clone(c.active.endpoints)
		}
		if c.warming != nil {
			v.Warming = append(v.Warming, name)
		}
	}
	slices.Sort(v.Warming)
	v.Listeners = slices.Sorted(maps.Keys(e.state.kinds[Listeners].held))
	for name, r := range e.state.kinds[RouteTables].held {
		v.Routes[name] = r.leads
	}
	return v
}

// Until waits until ok returns nil of what is held, and returns what it said last
// when ctx ends first.
func (e *Envoy) Until(ctx context.Context, ok func(View) error) error {
	for {
		e.mu.Lock()
		changed := e.changed
		e.mu.Unlock()
		err := ok(e.View())
		if err == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return err
		}
	}
}
