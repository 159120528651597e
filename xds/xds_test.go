package xds_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/discovery/local"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds"
	"github.com/wellspring-xds/wellspring/xds/delivery"
	"github.com/wellspring-xds/wellspring/xds/server"
	"github.com/wellspring-xds/wellspring/xds/xdstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memoryStore is a store without a disk.
type memoryStore struct {
	mu       sync.Mutex
	spec     *spec.Spec
	docs     map[spec.Ref]*spec.Document
	past     []*spec.Document
	changed  chan struct{}
	answered map[model.ServiceKey]bool
	imported map[string]model.ServiceKey
	read     int // how often the history was
}

func newStore(t testing.TB, text string) *memoryStore {
	s := &memoryStore{changed: make(chan struct{}), docs: map[spec.Ref]*spec.Document{}, answered: map[model.ServiceKey]bool{}, imported: map[string]model.ServiceKey{}}
	s.apply(t, text)
	return s
}

func parse(t testing.TB, text string) []*spec.Document {
	t.Helper()
	docs, faults := spec.Parse("test", []byte(text))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return docs
}

// apply sets documents; "-Kind/name" lines delete.
func (s *memoryStore) apply(t testing.TB, text string) {
	t.Helper()
	docs := parse(t, text)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range docs {
		s.docs[d.Ref] = d
		if d.Kind == spec.KindUpstream {
			s.past = append(s.past, d)
		}
	}
	s.link(t)
}

// change sets documents as the real store does, which has others too.
func (s *memoryStore) change(t testing.TB, text string) {
	t.Helper()
	docs := parse(t, text)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range docs {
		s.docs[d.Ref] = d
	}
	sp := s.spec.With(s.spec.Revision+1, docs, nil)
	if _, faults := sp.Check(); len(faults) > 0 {
		t.Fatal(faults)
	}
	s.tell(sp)
}

func (s *memoryStore) tell(sp *spec.Spec) {
	s.spec = sp
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *memoryStore) remove(t testing.TB, refs ...spec.Ref) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range refs {
		delete(s.docs, r)
	}
	s.link(t)
}

// drop deletes a document with the next apply.
func (s *memoryStore) drop(r spec.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.docs, r)
}

func (s *memoryStore) link(t testing.TB) {
	t.Helper()
	sp, _, faults := spec.New(1, slices.Collect(maps.Values(s.docs)))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	s.tell(sp)
}

func (s *memoryStore) Overrides() []model.Override { return nil }

func (s *memoryStore) Spec() *spec.Spec {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spec
}

func (s *memoryStore) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *memoryStore) Upstreams() ([]*spec.Document, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read++
	return slices.Clone(s.past), nil
}

func (s *memoryStore) Answered() map[model.ServiceKey]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.answered)
}

func (s *memoryStore) Imported() map[string]model.ServiceKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.imported)
}

func (s *memoryStore) MarkImported(holders map[string]model.ServiceKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.imported, holders)
	return nil
}

func (s *memoryStore) MarkAnswered(keys []model.ServiceKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		s.answered[k] = true
	}
	return nil
}

// registry is a source that says what the test says.
type registry struct {
	mu     sync.Mutex
	mute   bool // takes what is wanted and says nothing
	said   map[string]discovery.Report
	wanted map[model.ServiceKey]bool
	report func(model.ServiceKey, discovery.Report)
}

func (r *registry) Run(ctx context.Context, want <-chan []model.ServiceKey, report func(model.ServiceKey, discovery.Report)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case keys := <-want:
			r.mu.Lock()
			before := r.wanted
			r.report, r.wanted = report, map[model.ServiceKey]bool{}
			for _, k := range keys {
				r.wanted[k] = true
				if x := r.said[k.Name]; x != nil && !r.mute && !before[k] { // as Consul's: what is watched already says nothing
					report(k, x)
				}
			}
			r.mu.Unlock()
		}
	}
}

func (r *registry) silence(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mute = on
}

func (r *registry) say(name string, x discovery.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said[name] = x
	for k := range r.wanted {
		if k.Name == name {
			r.report(k, x)
		}
	}
}

// late is a source whose word takes a moment.
type late struct{ discovery.Source }

func (l late) Run(ctx context.Context, want <-chan []model.ServiceKey, report func(model.ServiceKey, discovery.Report)) error {
	return l.Source.Run(ctx, want, func(k model.ServiceKey, r discovery.Report) {
		time.Sleep(time.Millisecond)
		report(k, r)
	})
}

// world is a running control plane without sockets and disk.
type world struct {
	t         testing.TB
	store     *memoryStore
	registry  *registry
	canary    *local.Canary
	publisher *xds.Publisher
	engine    *delivery.Engine
	server    *server.Server
	conn      *grpc.ClientConn
	freeze    func() // the clients' side of every connection stops, as a stopped process does
}

// freezer is a connection whose process may be stopped.
type freezer struct {
	net.Conn
	frozen, thawed chan struct{}
}

func (f *freezer) Write(b []byte) (int, error) {
	select {
	case <-f.frozen:
		<-f.thawed
	default:
	}
	return f.Conn.Write(b)
}

// newWorld starts a world; canaries are the sources of which every Envoy holds them.
func newWorld(t testing.TB, store *memoryStore, canaries ...string) *world {
	t.Helper()
	w := &world{t: t, store: store, registry: &registry{said: map[string]discovery.Report{}}}
	w.canary = local.NewCanary()
	catalog := discovery.New(discovery.Config{Sources: map[string]discovery.Source{"local": late{local.Source{Store: store, Canary: w.canary}}, "consul": w.registry}})
	engine := delivery.NewEngine()
	w.engine = engine
	w.publisher = xds.New(xds.Config{Store: store, Catalog: catalog, Engine: engine, Canaries: canaries})
	w.server = server.New(server.Config{Publisher: w.publisher, Engine: engine, SpecChanged: w.publisher.Changed, Stall: 300 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = catalog.Run(ctx) })
	wg.Go(func() { _ = w.publisher.Run(ctx) })
	l := bufconn.Listen(1 << 20)
	g := w.server.GRPC()
	wg.Go(func() { _ = g.Serve(l) })
	frozen, thawed := make(chan struct{}), make(chan struct{})
	w.freeze = sync.OnceFunc(func() { close(frozen) })
	conn, err := grpc.NewClient("passthrough:///test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			c, err := l.Dial()
			return &freezer{Conn: c, frozen: frozen, thawed: thawed}, err
		}), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)),
		grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(16<<20)) // as Envoy's do not grow either
	if err != nil {
		t.Fatal(err)
	}
	w.conn = conn
	t.Cleanup(func() {
		close(thawed)
		_ = conn.Close()
		g.Stop()
		cancel()
		wg.Wait()
	})
	return w
}

// client is a delta client that acknowledges all and keeps what it is sent.
type client struct {
	t      testing.TB
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	frames chan *discoveryv3.DeltaDiscoveryResponse
	ended  chan error
}

func (w *world) connect(id, cluster string) *client {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(w.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &client{t: w.t, stream: s, frames: make(chan *discoveryv3.DeltaDiscoveryResponse, 100), ended: make(chan error, 1)}
	go func() {
		for {
			r, err := s.Recv()
			if err != nil {
				c.ended <- err
				close(c.frames)
				return
			}
			c.frames <- r
			_ = s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce})
		}
	}()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(delivery.Clusters), Node: &corev3.Node{
		Id: id, Cluster: cluster,
		UserAgentVersionType: &corev3.Node_UserAgentBuildVersion{UserAgentBuildVersion: &corev3.BuildVersion{Version: &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: 40}}},
	}})
	return c
}

func (c *client) send(r *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	if err := c.stream.Send(r); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) subscribe(typ delivery.Type, names ...string) {
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(typ), ResourceNamesSubscribe: names})
}

// next is the next response, or how the stream ended.
func (c *client) next() *discoveryv3.DeltaDiscoveryResponse {
	c.t.Helper()
	select {
	case r, ok := <-c.frames:
		if !ok {
			c.t.Fatalf("the stream ended: %v", <-c.ended)
		}
		return r
	case err := <-c.ended:
		c.t.Fatalf("the stream ended: %v", err)
	case <-time.After(10 * time.Second):
		c.t.Fatal("no response came")
	}
	return nil
}

// refusedWith wants the stream to end with a code and words.
func (c *client) refusedWith(code codes.Code, words string) {
	c.t.Helper()
	select {
	case err := <-c.ended:
		if status.Code(err) != code || !strings.Contains(err.Error(), words) {
			c.t.Errorf("the stream ended with %v, want %v %q", err, code, words)
		}
	case <-time.After(10 * time.Second):
		c.t.Errorf("the stream did not end")
	}
}

func names(r *discoveryv3.DeltaDiscoveryResponse) string {
	var out []string
	for _, x := range r.Resources {
		out = append(out, x.Name)
	}
	for _, n := range r.RemovedResources {
		out = append(out, "-"+n)
	}
	return strings.Join(out, " ")
}

func (c *client) wants(want string) {
	c.t.Helper()
	if got := names(c.next()); got != want {
		c.t.Fatalf("sent %q, want %q", got, want)
	}
}

func (c *client) silent(d time.Duration) {
	c.t.Helper()
	select {
	case r := <-c.frames:
		c.t.Fatalf("sent %s %q though nothing is owed", delivery.Type(r.TypeUrl).Short(), names(r))
	case <-time.After(d):
	}
}

// fleet is documents of n upstreams from Consul behind one listener.
func fleet(n int) string {
	var b strings.Builder
	var to []string
	for i := range n {
		fmt.Fprintf(&b, "kind: Upstream\nname: u%d\nspec: {service: {source: consul}}\n---\n", i)
		to = append(to, fmt.Sprintf("{match: {path: {prefix: /u%d}}, to: [{upstream: u%d}]}", i, i))
	}
	fmt.Fprintf(&b, "kind: Route\nname: all\nspec: {hosts: ['*'], rules: [%s]}\n---\n", strings.Join(to, ", "))
	b.WriteString("kind: Listener\nname: edge\nspec: {address: '127.0.0.1:10000', routes: [all]}\n---\nkind: Group\nname: edge\nspec: {listeners: [edge]}\n")
	return b.String()
}

func present(n int, unhealthy ...int) discovery.Present {
	var p discovery.Present
	for i := range n {
		e := model.Endpoint{ID: fmt.Sprintf("n/%03d", i), Address: fmt.Sprintf("10.0.0.%d:80", i+1), Health: model.Healthy, Weight: 1, Origin: model.Origin{Source: "consul"}}
		if slices.Contains(unhealthy, i) {
			e.Health = model.Unhealthy
		}
		p.Endpoints = append(p.Endpoints, e)
	}
	return p
}

// One endpoint flips among 1,000 upstreams × 10: exactly one assignment is sent.
func TestOneFlip(t *testing.T) {
	const n = 1000
	w := newWorld(t, newStore(t, fleet(n)))
	for i := range n {
		w.registry.say(fmt.Sprintf("u%d", i), present(10))
	}
	waitReady(t, w, "edge")
	c := w.connect("edge-1", "edge")
	r := c.next()
	if len(r.Resources) != n {
		t.Fatalf("%d clusters were sent", len(r.Resources))
	}
	c.subscribe(delivery.Assignments, slices.Collect(maps.Values(w.assignments()))...)
	if got := len(c.next().Resources); got != n {
		t.Fatalf("%d assignments were sent", got)
	}
	w.registry.say("u500", present(10, 3))
	r = c.next()
	if len(r.Resources) != 1 || !strings.HasPrefix(r.Resources[0].Name, "u500@") || len(r.RemovedResources) > 0 {
		t.Errorf("sent %q, want the one assignment", names(r))
	}
	c.silent(300 * time.Millisecond)
	// the same answer again is no change
	w.registry.say("u500", present(10, 3))
	c.silent(300 * time.Millisecond)
}

// assignments are the assignments' names, by upstream, of what edge-1 holds.
func (w *world) assignments() map[string]string {
	out := map[string]string{}
	h, err := w.server.Holding(context.Background(), "edge-1")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range h.Resources {
		if r.Type == "clusters" {
			_, rest, _ := strings.Cut(string(r.Content), `"serviceName":`)
			out[r.Name] = strings.SplitN(rest, `"`, 3)[1]
		}
	}
	return out
}

func waitReady(t testing.TB, w *world, group string) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := w.publisher.Ready(group)
		if err == nil {
			return
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal(err)
		}
	}
}

// After a start a stream is refused until every service that its group reaches has
// answered; a source that is dead does not refuse groups that do not use it.
func TestRefusedUntilKnown(t *testing.T) {
	w := newWorld(t, newStore(t, fleet(2)+"---\nkind: Upstream\nname: here\nspec: {endpoints: []}\n---\n"+
		"kind: Route\nname: here\nspec: {hosts: ['*'], rules: [{to: [{upstream: here}]}]}\n---\n"+
		"kind: Listener\nname: other\nspec: {address: '127.0.0.1:10001', routes: [here]}\n---\nkind: Group\nname: other\nspec: {listeners: [other]}\n"))
	w.registry.say("u0", present(1))
	w.registry.say("u1", discovery.Failed{Reason: discovery.NoLeader, Err: errors.New("no leader")})
	waitReady(t, w, "other")
	for start := time.Now(); !strings.Contains(fmt.Sprint(w.publisher.Ready("edge")), "consul/u1: no leader") && time.Since(start) < 10*time.Second; {
		time.Sleep(time.Millisecond)
	}
	w.connect("e", "edge").refusedWith(codes.Unavailable, "consul/u1: no leader")
	w.connect("o", "other").wants("here")
	if r := w.server.Refused(); len(r) != 1 || r[0].Proxy.ID != "e" {
		t.Errorf("refused %+v", r)
	}
	if err := newWorld(t, newStore(t, fleet(600))).publisher.Ready("edge"); err == nil || len(err.Error()) > 500 || !strings.HasSuffix(err.Error(), "and 595 more") {
		t.Errorf("600 unknown services: %v", err)
	}
	w.registry.say("u1", discovery.Absent{})
	waitReady(t, w, "edge")
	w.connect("e", "edge").wants("u0 u1")
	if r := w.server.Refused(); len(r) != 0 {
		t.Errorf("still shown as refused: %+v", r)
	}
}

// A service that never had an answer holds back only its own upstream, once the
// store knows others; unknown is never told as a deletion.
func TestUnknownHoldsBackItself(t *testing.T) {
	store := newStore(t, fleet(1))
	store.answered[model.ServiceKey{Source: "consul", Name: "u0"}] = true
	w := newWorld(t, store)
	w.registry.say("u0", present(1))
	waitReady(t, w, "edge")
	c := w.connect("e", "edge")
	c.wants("u0")
	store.apply(t, fleet(2))
	c.silent(200 * time.Millisecond)
	if held := w.publisher.Held(); !held["u1"] {
		t.Errorf("held %v", held)
	}
	// u0 moves to a service that nobody knows: it keeps its form
	store.apply(t, "kind: Upstream\nname: u0\nspec: {service: {source: consul, name: misspelt}}\n")
	c.silent(200 * time.Millisecond)
	w.registry.say("u1", present(1))
	c.wants("u1")
	w.registry.say("misspelt", present(2))
	c.wants("u0")
}

// An older generation is served from its own definition for as long as somebody
// subscribes to it.
func TestOlderGeneration(t *testing.T) {
	store := newStore(t, fleet(1))
	w := newWorld(t, store)
	w.registry.say("u0", present(1))
	waitReady(t, w, "edge")
	c := w.connect("edge-1", "edge")
	c.wants("u0")
	first := w.assignments()["u0"]
	c.subscribe(delivery.Assignments, first)
	c.wants(first)
	w.registry.say("other", present(3))
	store.apply(t, "kind: Upstream\nname: u0\nspec: {service: {source: consul, name: other}}\n")
	c.wants("u0")
	// the older service changes: who still holds it is told
	w.registry.say("u0", present(2))
	c.wants(first)
}

// A generation that a document brought is remembered like one that a first answer
// brought: its successor may be refused, and nobody then asks for anything.
func TestOlderGenerationByDocument(t *testing.T) {
	store := newStore(t, fleet(1))
	w := newWorld(t, store)
	w.registry.say("u0", present(1))
	waitReady(t, w, "edge")
	c := w.connect("edge-1", "edge")
	c.wants("u0")
	// its service is known already, so that the document alone makes the generation
	store.apply(t, "kind: Upstream\nname: u0\nspec: {service: {source: consul}, protocol: http2}\n")
	c.wants("u0")
	store.mu.Lock()
	store.past = nil // it must be remembered, not looked up
	store.mu.Unlock()
	second := w.assignments()["u0"]
	c.subscribe(delivery.Assignments, second)
	c.wants(second)
	store.apply(t, "kind: Upstream\nname: u0\nspec: {service: {source: consul}, protocol: grpc}\n")
	c.wants("u0")
	w.registry.say("u0", present(2))
	c.wants(second)
}

// Who matches no group, or two, is refused with a reason; a deleted group ends its
// streams.
func TestGroups(t *testing.T) {
	store := newStore(t, fleet(1)+"---\nkind: Group\nname: twice\nspec: {match: {id: both}, listeners: []}\n")
	w := newWorld(t, store)
	w.registry.say("u0", present(1))
	waitReady(t, w, "edge")
	w.connect("x", "nobody").refusedWith(codes.FailedPrecondition, "no group matches this proxy")
	w.connect("both", "edge").refusedWith(codes.FailedPrecondition, "edge, twice")
	w.connect("", "edge").refusedWith(codes.InvalidArgument, "no node id")
	c := w.connect("e", "edge")
	c.wants("u0")
	store.remove(t, spec.Ref{Kind: spec.KindGroup, Name: "edge"})
	c.refusedWith(codes.FailedPrecondition, "group") // that none matches, or that it was deleted: whichever is seen first
}

// A type that is not served is answered by silence, and the stream lives.
func TestStrangeRequests(t *testing.T) {
	w := newWorld(t, newStore(t, fleet(1)))
	w.registry.say("u0", present(1))
	waitReady(t, w, "edge")
	c := w.connect("e", "edge")
	c.wants("u0")
	c.subscribe("type.googleapis.com/envoy.config.nothing", "a")
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(delivery.Clusters), ResponseNonce: "forged"})
	c.subscribe(delivery.Listeners)
	c.wants("edge")
	many := make([]string, 200_000)
	c.subscribe(delivery.Assignments, many...)
	c.refusedWith(codes.ResourceExhausted, "at most")
}

// Two streams with one node id are both served and shown.
func TestDuplicate(t *testing.T) {
	w := newWorld(t, newStore(t, fleet(1)))
	w.registry.say("u0", present(1))
	waitReady(t, w, "edge")
	w.connect("e", "edge").wants("u0")
	w.connect("e", "edge").wants("u0")
	streams := w.server.Streams(t.Context())
	if len(streams) != 2 || !streams[0].Duplicate || !streams[1].Duplicate {
		t.Errorf("%+v", streams)
	}
}

// An upstream that moves to a service which answered long ago, and which nobody
// wanted since, gets its new form once that has answered again.
func TestServiceWantedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t, fleet(1))
		w := newWorld(t, store)
		w.registry.say("u0", present(1))
		w.registry.say("other", present(2))
		waitReady(t, w, "edge")
		e := w.envoy(xdstest.Config{ID: "e"})
		e.holds("u0=1")
		move := func(service string) {
			store.apply(t, "kind: Upstream\nname: u0\nspec: {service: {source: consul, name: "+service+"}}\n")
		}
		move("other")
		e.holds("u0=2")
		time.Sleep(time.Hour)
		w.registry.silence(true) // it takes a while to answer
		move("u0")
		e.quiet(0)
		if held := w.publisher.Held(); len(held) != 1 {
			t.Errorf("held: %v", held)
		}
		w.registry.silence(false)
		w.registry.say("u0", present(3))
		e.holds("u0=3")
	})
}

// An Envoy that warms a cluster which its group no longer reaches is still given
// the assignment: its old routes name the cluster until the new ones come. Who
// never had the cluster is not.
func TestAssignmentOutOfReach(t *testing.T) {
	store := newStore(t, fleet(2))
	w := newWorld(t, store)
	w.registry.say("u0", present(1))
	w.registry.say("u1", present(1))
	waitReady(t, w, "edge")
	c := w.connect("edge-1", "edge")
	c.wants("u0 u1")
	first := w.assignments()["u1"]
	c.subscribe(delivery.Assignments, first)
	c.wants(first)
	c.subscribe(delivery.Listeners)
	c.wants("edge")
	changed := w.publisher.Changed()
	store.apply(t, fleet(1)) // u1 stays declared, and nothing leads to it
	<-changed
	second := w.connect("stranger", "edge")
	second.wants("u0")
	second.subscribe(delivery.Assignments, first)
	second.wants("-" + first)
	w.registry.say("u1", present(2))
	for {
		if r := c.next(); names(r) == first {
			break
		}
	}
}

// After a restart an older generation that declared its own endpoints is served
// with those: today's document has none any more.
func TestOlderGenerationOfItsOwn(t *testing.T) {
	store := newStore(t, fleet(1)+"---\nkind: Upstream\nname: u0\nspec: {endpoints: [{address: '10.1.0.1:80'}]}\n")
	w := newWorld(t, store)
	waitReady(t, w, "edge")
	w.connect("edge-1", "edge").wants("u0")
	first := w.assignments()["u0"]
	store.apply(t, "kind: Upstream\nname: u0\nspec: {service: {source: local, name: two}}\n---\nkind: Service\nname: two\nspec: {endpoints: [{address: '10.2.0.1:80'}]}\n")
	restarted := newWorld(t, store)
	waitReady(t, restarted, "edge")
	c := restarted.connect("edge-1", "edge")
	c.wants("u0")
	c.subscribe(delivery.Assignments, first)
	r := c.next()
	if names(r) != first || !strings.Contains(r.Resources[0].String(), "10.1.0.1") {
		t.Errorf("sent %v", r)
	}
}
