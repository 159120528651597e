package server

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/xds/delivery"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

// stream is one proxy's stream. What happens to it, a request, a newer table, time
// that passed, is a step; a step that has something to send starts a goroutine that
// sends until nothing is left.
type stream struct {
	server *Server
	grpc   grpc.ServerStream
	delta  bool
	id     uint64
	end    context.CancelCauseFunc // ends the stream; the first cause counts

	node string // the proxy's id; set before the stream is listed, then read-only

	mu        sync.Mutex // guards what follows; never held while sending
	proxy     model.Proxy
	supported bool
	connected time.Time
	waited    time.Duration // to be admitted
	class     delivery.Class
	session   *delivery.Session // nil before the first request and after the end
	feed      *delivery.Feed
	table     *delivery.Table // that the session has
	number    uint64          // of that table in its class
	queue     []delivery.Response
	sending   bool
	last      delivery.Response // that is being sent,
	lastSize  int
	unsent    time.Time   // since when
	again     *time.Timer // steps though nothing happens
	stall     *time.Timer // ends a stream that does not take what is sent
	unknown   map[delivery.Type]bool

	changes, coalesced uint64 // tables that it took up, and those that it was spared
	large              bool   // a large response was told of
}

var errEnded = errors.New("the client ended the stream")

// run is the stream's life. ctx ends with it.
func (st *stream) run(ctx context.Context) {
	defer st.close()
	go func() {
		defer st.guard()
		st.end(st.receive(ctx))
	}()
	<-ctx.Done()
}

// guard makes of a panic the end of this stream and of nothing else.
func (st *stream) guard() {
	if r := recover(); r != nil {
		st.server.cfg.Logger.Error("stream panicked", "proxy", st.proxy.ID, "err", r, "stack", string(debug.Stack()))
		st.end(refuse(codes.Internal, "the control plane failed on this stream; its log says how"))
	}
}

// receive takes requests until the stream ends, and says why it did.
func (st *stream) receive(ctx context.Context) error {
	m := message{delta: st.delta, first: true}
	silent := time.AfterFunc(helloWait, func() { st.end(refuse(codes.DeadlineExceeded, "no request came within %s", helloWait)) })
	err := st.grpc.RecvMsg(&m)
	switch {
	case !silent.Stop():
		return context.Cause(ctx)
	case errors.Is(err, io.EOF):
		return refuse(codes.InvalidArgument, "the stream ended without a request")
	case err != nil:
		return err
	}
	if err := st.hello(ctx, m); err != nil {
		return err
	}
	st.regroup() // the Spec may have changed before the session began
	if ctx.Err() != nil {
		return context.Cause(ctx) // and what it asks for is not its to have
	}
	m.first = false
	for {
		if err := st.take(m); err != nil {
			return err
		}
		if err := st.grpc.RecvMsg(&m); errors.Is(err, io.EOF) {
			return errEnded
		} else if err != nil {
			return err
		}
	}
}

// step sends what is owed now.
func (st *stream) step() { st.Wake(nil) }

// Wake sends what is owed now, if nothing is being sent.
func (st *stream) Wake(round *delivery.Round) {
	defer st.guard()
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.sending || !st.pump() {
		if st.sending || st.session != nil && st.session.Waits() {
			round.Busy()
		}
		return
	}
	st.sending = true
	round.Begin()
	go st.send(round)
}

// pump makes what is to be sent next. While something is sent newer tables
// coalesce. mu is held.
func (st *stream) pump() bool {
	if st.session == nil {
		return false
	}
	if len(st.queue) > 0 {
		return true
	}
	if err := st.refresh(); err != nil {
		st.end(err)
		return false
	}
	out, again := st.session.Pump(time.Now())
	st.queue = out
	if !again.IsZero() {
		wait := max(0, time.Until(again))
		if st.again == nil {
			st.again = time.AfterFunc(wait, st.step)
		} else {
			st.again.Reset(wait)
		}
	}
	return len(out) > 0
}

// refresh hands the session the newest table. mu is held.
func (st *stream) refresh() error {
	t, number := st.feed.Numbered()
	if t == nil { // the group went, and may be back
		var err error
		if t, err = st.join(st.class); err != nil {
			return err
		}
		number = st.number
	}
	if t == st.table {
		return nil
	}
	if newer := number - st.number; newer > 1 {
		st.coalesced += newer - 1
		st.server.metrics.coalesced.Add(float64(newer - 1))
	}
	st.table, st.number = t, number
	st.changes++
	st.session.SetTable(t)
	return nil
}

// send sends until nothing is owed. The first response is part of a round.
func (st *stream) send(round *delivery.Round) {
	defer st.guard()
	defer func() { round.End() }()
	for {
		bytes, err := st.pop()
		if bytes == nil && err == nil {
			return
		}
		if err == nil {
			err = st.grpc.SendMsg(bytes)
			st.stall.Stop()
		}
		if err != nil {
			st.end(err)
			return
		}
		round.End()
		round = nil
	}
}

// pop encodes what is sent next, from when on it may stall; nil where nothing is owed.
func (st *stream) pop() (mem.BufferSlice, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.unsent.IsZero() { // it was handed over
		st.server.metrics.push(st.last, st.lastSize)
		if st.session != nil {
			st.session.Sent(st.last.Type, st.lastSize)
		}
		st.unsent, st.last = time.Time{}, delivery.Response{}
	}
	if !st.pump() {
		st.sending = false
		return nil, nil
	}
	next := st.queue[0]
	st.queue = slices.Delete(st.queue, 0, 1)
	bytes := encoded(next, st.delta)
	n := bytes.Len()
	if err := st.mayBeLarge(next.Type, n); err != nil {
		return nil, err
	}
	st.last, st.lastSize, st.unsent = next, n, time.Now()
	if st.stall == nil {
		st.stall = time.AfterFunc(st.server.cfg.Stall, st.stalled)
	} else {
		st.stall.Reset(st.server.cfg.Stall)
	}
	return bytes, nil
}

const (
	// grpcLimit is the largest message that gRPC's own clients receive, less what frames
	// one.
	grpcLimit = 4<<20 - 64<<10
	// largeResponse is from where on a response is told of. Envoy takes larger ones, and
	// is busy with them.
	largeResponse = 4 << 20
)

// mayBeLarge tells once of a response that is large, and refuses one that the client
// cannot take. mu is held.
func (st *stream) mayBeLarge(t delivery.Type, bytes int) error {
	if st.class.Band == int(translate.GRPC) && bytes > grpcLimit {
		return refuse(codes.ResourceExhausted, "a response of %d bytes of %s is more than the %d that gRPC's own clients take: split the group, so that its listeners reach less", bytes, t.Short(), grpcLimit)
	}
	if bytes > largeResponse && !st.large {
		st.large = true
		st.server.cfg.Logger.Warn("large response", "proxy", st.proxy.ID, "type", t.Short(), "bytes", bytes, "kind", kind(st.delta))
	}
	return nil
}

func (st *stream) stalled() {
	st.server.metrics.stalled.Inc()
	st.end(refuse(codes.ResourceExhausted, "the proxy read nothing for %s; it is cut off so that it comes back", st.server.cfg.Stall))
}

// close ends what the stream has begun.
func (st *stream) close() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.server.remove(st)
	for _, t := range []*time.Timer{st.again, st.stall} {
		if t != nil {
			t.Stop()
		}
	}
	if st.session == nil {
		return
	}
	s := st.server
	s.cfg.Engine.Leave(st.class, st)
	st.session.Close(time.Now())
	st.session = nil
	s.cfg.Roster.Left(st.id, st.proxy.ID)
	st.emit(model.Event{Kind: model.EventProxyGone, Subject: model.Subject{Kind: "Proxy", Name: st.proxy.ID}, Reason: st.proxy.Peer})
	s.cfg.Logger.Info("proxy gone", "proxy", st.proxy.ID, "group", st.class.Group)
}

// look runs f on the session; false when there is none.
func (st *stream) look(f func(*delivery.Session)) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.session == nil {
		return false
	}
	f(st.session)
	return true
}

// take hands one request to the session.
func (st *stream) take(m message) error {
	r := m.request
	if n := len(r.Subscribe) + len(r.Unsubscribe) + len(r.Names) + len(r.Initial); n > maxNames {
		return refuse(codes.ResourceExhausted, "one request names %d resources; at most %d are taken", n, maxNames)
	}
	if m.carries && m.nodeID != st.proxy.ID {
		return refuse(codes.InvalidArgument, "the node id changed from %q to %q on one stream", st.proxy.ID, m.nodeID)
	}
	if !delivery.Served(r.Type) {
		st.notServed(r.Type)
		return nil
	}
	if r.Refused != nil {
		st.server.metrics.types[r.Type].refused.Inc()
		st.server.cfg.Logger.Warn("response refused by proxy", "proxy", st.proxy.ID, "type", r.Type.Short(), "nonce", r.Nonce, "err", *r.Refused)
	}
	if st.look(func(s *delivery.Session) {
		if lag, answer := s.Request(r, time.Now()); answer {
			st.server.metrics.types[r.Type].answered.Observe(lag.Seconds())
		}
	}) {
		st.step()
	}
	return nil
}

// notServed says once that a type was asked for. It is called by receive only.
func (st *stream) notServed(t delivery.Type) {
	if !st.unknown[t] {
		if st.unknown == nil {
			st.unknown = map[delivery.Type]bool{}
		}
		if len(st.unknown) < 16 {
			st.unknown[t] = true
		}
		st.server.cfg.Logger.Warn("type not served was asked for", "proxy", st.proxy.ID, "type", string(t))
	}
}

// hello settles by the first request who this is, waits for its turn and begins the
// session.
func (st *stream) hello(ctx context.Context, m message) error {
	if m.node == nil || m.node.ID == "" {
		return refuse(codes.InvalidArgument, "the first request has no node id; set node.id in the bootstrap")
	}
	proxy := *m.node
	if p, ok := peer.FromContext(ctx); ok {
		proxy.Peer = p.Addr.String()
	}
	proxy.Identity = identity(ctx)
	if err := st.list(ctx, proxy); err != nil {
		return err
	}
	class, err := st.classOf()
	if err != nil {
		return err
	}
	s := st.server
	s.cfg.Publisher.Join(class)
	waited, err := s.admit(ctx, s.cfg.Engine.Table(class))
	if err != nil {
		return err
	}
	if class, err = st.classOf(); err != nil { // the Spec may have changed meanwhile
		return err
	}
	return st.begin(ctx, class, waited)
}

// list makes the stream one of the server's, where it has not ended.
func (st *stream) list(ctx context.Context, proxy model.Proxy) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.proxy, st.connected = proxy, time.Now()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	st.node = proxy.ID
	return st.server.add(st)
}

// classOf is the class that the proxy belongs to now, or why it cannot be served.
func (st *stream) classOf() (c delivery.Class, err error) {
	group, level, err := st.groupOf()
	if err != nil {
		return c, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.proxy.Group = group
	if err := st.server.cfg.Publisher.Ready(group); err != nil {
		return c, refuse(codes.Unavailable, "%s", err)
	}
	band, supported := translate.BandOf(st.proxy.Version)
	if strings.HasPrefix(st.proxy.Agent, "gRPC") {
		band, supported = translate.GRPC, true
	}
	st.supported = supported
	return delivery.Class{Group: group, Band: int(band), Telemetry: level}, nil
}

// begin starts the session of the stream.
func (st *stream) begin(ctx context.Context, class delivery.Class, waited time.Duration) error {
	s := st.server
	st.mu.Lock()
	defer st.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	table, err := st.join(class)
	if err != nil {
		return err
	}
	memory := s.cfg.Engine.Memory(class.Group, st.proxy.ID, st.proxy.Version, time.Now())
	client := delivery.Client{Delta: st.delta, Drain: st.drain(), Private: private(ctx), Follows: class.Band == int(translate.GRPC)}
	st.class, st.table, st.waited = class, table, waited
	st.session = delivery.NewSession(s.cfg.Session, s.cfg.Engine, memory, client, table, time.Now(), st.emit)
	s.served(st.proxy.ID)
	s.cfg.Roster.Joined(st.id, st.proxy, class.Telemetry)
	s.cfg.Logger.Info("proxy connected", "proxy", st.proxy.ID, "group", class.Group, "version", st.proxy.Version)
	st.emit(model.Event{Kind: model.EventProxyConnected, Subject: model.Subject{Kind: "Proxy", Name: st.proxy.ID}, Reason: st.proxy.Peer})
	return nil
}

// helloWait bounds the wait for a first request.
const helloWait = 30 * time.Second

// regroup follows the proxy into another group, or ends the stream when there is
// no longer exactly one.
func (st *stream) regroup() {
	defer st.guard()
	if moved, err := st.move(); err != nil {
		st.end(err)
	} else if moved {
		st.step()
	}
}

// move makes the stream a member of the class that its proxy belongs to now.
func (st *stream) move() (moved bool, err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.session == nil {
		return false, nil
	}
	was := st.class
	group, level, err := st.groupOf() // with the lock held: two of these must not overtake each other
	if err != nil || group == was.Group && level == was.Telemetry {
		return false, err
	}
	st.class.Group, st.class.Telemetry = group, level
	st.server.cfg.Roster.Moved(st.proxy.ID, group, level)
	_, err = st.join(st.class)
	st.server.cfg.Engine.Leave(was, st)
	return true, err
}

// groupOf is the proxy's one group, or the refusal that ends its stream.
func (st *stream) groupOf() (string, model.Telemetry, error) {
	group, level, err := st.server.cfg.Publisher.GroupOf(st.proxy)
	switch {
	case errors.Is(err, model.ErrDenied):
		return "", "", refuse(codes.PermissionDenied, "%s", err)
	case err != nil:
		return "", "", refuse(codes.FailedPrecondition, "%s", err)
	}
	return group, level, nil
}

// join makes the stream a member of a class and returns its table. The group may be
// gone since it was found. mu is held.
func (st *stream) join(c delivery.Class) (*delivery.Table, error) {
	st.server.cfg.Publisher.Join(c)
	st.feed = st.server.cfg.Engine.Join(c, st)
	var t *delivery.Table
	if t, st.number = st.feed.Numbered(); t != nil {
		return t, nil
	}
	st.server.cfg.Engine.Leave(c, st)
	return nil, refuse(codes.FailedPrecondition, "group %q was deleted", c.Group)
}

// emit tells what happened on the stream. mu is held.
func (st *stream) emit(e model.Event) {
	e.Proxy, e.Group = st.proxy.ID, st.class.Group
	st.server.cfg.Emit(e)
}

// drainKey in the node's metadata says how long the proxy's listeners drain.
const drainKey = "wellspring.drainTime"

func (st *stream) drain() time.Duration {
	d, err := time.ParseDuration(st.proxy.Metadata[drainKey])
	if err != nil || d < 0 {
		return 0
	}
	return max(d, time.Millisecond)
}
