package server

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/xds/delivery"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

// stream is one proxy's stream.
type stream struct {
	server *Server
	wire   wire
	id     uint64

	// set before the stream is listed, then read-only
	proxy     model.Proxy
	supported bool
	connected time.Time

	// touched by run's goroutine only
	class   delivery.Class
	session *delivery.Session
	unknown map[delivery.Type]bool

	inspect chan func(*delivery.Session)
}

// look runs f on the session in the goroutine that owns it, or returns false when
// the stream or ctx ends first.
func (st *stream) look(ctx context.Context, f func(*delivery.Session)) bool {
	done := make(chan struct{})
	select {
	case st.inspect <- func(s *delivery.Session) { f(s); close(done) }:
		<-done
		return true
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
	return false
}

// received is what came in, or how receiving ended.
type received struct {
	request message
	err     error
}

// guarded runs the stream; a panic ends this stream and nothing else.
func (st *stream) guarded(ctx context.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			st.server.cfg.Logger.Error("stream panicked", "proxy", st.proxy.ID, "err", r, "stack", string(debug.Stack()))
			err = refuse(codes.Internal, "the control plane failed on this stream; its log says how")
		}
	}()
	return st.run(ctx)
}

// run is the stream's life.
func (st *stream) run(ctx context.Context) error {
	requests := make(chan received)
	go st.receive(ctx, requests)
	first, err := st.hello(ctx, requests)
	if err != nil {
		return err
	}
	s := st.server
	if err := s.add(st); err != nil {
		return err
	}
	defer s.remove(st)
	memory := s.cfg.Engine.Memory(st.class.Group, st.proxy.ID, st.proxy.Version, time.Now())
	table, changed, err := st.join()
	if err != nil {
		memory.Leave(time.Now())
		return err
	}
	st.session = delivery.NewSession(s.cfg.Session, s.cfg.Engine, memory, delivery.Client{Delta: st.wire.delta(), Drain: st.drain(), Private: private(ctx), Follows: st.class.Band == int(translate.GRPC)}, table, time.Now(), st.emit)
	defer func() { st.session.Close(time.Now()) }()
	s.cfg.Logger.Info("proxy connected", "proxy", st.proxy.ID, "group", st.class.Group, "version", st.proxy.Version)
	st.emit(model.Event{Kind: model.EventProxyConnected, Subject: model.Subject{Kind: "Proxy", Name: st.proxy.ID}, Reason: st.proxy.Peer})
	defer func() {
		st.emit(model.Event{Kind: model.EventProxyGone, Subject: model.Subject{Kind: "Proxy", Name: st.proxy.ID}, Reason: st.proxy.Peer})
		s.cfg.Logger.Info("proxy gone", "proxy", st.proxy.ID, "group", st.class.Group)
	}()
	return st.loop(ctx, first, requests, changed)
}

// loop feeds the session and sends what it says, one response at a time.
func (st *stream) loop(ctx context.Context, first message, requests <-chan received, changed <-chan struct{}) error {
	s := st.server
	outbox := make(chan delivery.Response)
	sentBack := make(chan error, 1)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case r := <-outbox:
				sentBack <- st.wire.send(r)
			}
		}
	}()
	var queue []delivery.Response
	var sending bool
	var stalled <-chan time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	if err := st.take(first); err != nil {
		return err
	}
	specChanged := s.cfg.SpecChanged()
	for {
		if len(queue) == 0 && !sending {
			out, again := st.session.Pump(time.Now())
			queue = out
			if !again.IsZero() {
				timer.Reset(max(0, time.Until(again)))
			}
		}
		var box chan<- delivery.Response
		var next delivery.Response
		if len(queue) > 0 && !sending {
			if n := queue[0].Size(); st.class.Band == int(translate.GRPC) && n > grpcLimit {
				return refuse(codes.ResourceExhausted, "a response of %d bytes of %s is more than the %d that gRPC's own clients take: split the group, so that its listeners reach less", n, queue[0].Type.Short(), grpcLimit)
			}
			box, next = outbox, queue[0]
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case box <- next:
			queue, sending = queue[1:], true
			stalled = time.After(s.cfg.Stall)
			s.cfg.Metrics.push(next.Type, len(next.Resources), len(next.Removed))
		case err := <-sentBack:
			if err != nil {
				return err
			}
			sending, stalled = false, nil
		case <-stalled:
			return refuse(codes.ResourceExhausted, "the proxy read nothing for %s; it is cut off so that it comes back", s.cfg.Stall)
		case r := <-requests:
			if r.err != nil {
				if errors.Is(r.err, io.EOF) || ctx.Err() != nil {
					return nil
				}
				return r.err
			}
			if err := st.take(r.request); err != nil {
				return err
			}
		case f := <-st.inspect:
			f(st.session)
		case <-changed:
			var t *delivery.Table
			if t, changed = s.cfg.Engine.Table(st.class); t == nil { // the group went, and may be back
				var err error
				if t, changed, err = st.join(); err != nil {
					return err
				}
			}
			st.session.SetTable(t)
		case <-specChanged:
			specChanged = s.cfg.SpecChanged()
			moved, err := st.regroup()
			if err != nil {
				return err
			}
			if moved {
				var t *delivery.Table
				if t, changed, err = st.join(); err != nil {
					return err
				}
				st.session.SetTable(t)
			}
		case <-timer.C:
		}
	}
}

// take hands one request to the session.
func (st *stream) take(m message) error {
	if n := len(m.request.Subscribe) + len(m.request.Unsubscribe) + len(m.request.Names) + len(m.request.Initial); n > maxNames {
		return refuse(codes.ResourceExhausted, "one request names %d resources; at most %d are taken", n, maxNames)
	}
	if m.node != nil && m.node.ID != st.proxy.ID {
		return refuse(codes.InvalidArgument, "the node id changed from %q to %q on one stream", st.proxy.ID, m.node.ID)
	}
	if !delivery.Served(m.request.Type) {
		if !st.unknown[m.request.Type] {
			if st.unknown == nil {
				st.unknown = map[delivery.Type]bool{}
			}
			if len(st.unknown) < 16 {
				st.unknown[m.request.Type] = true
			}
			st.server.cfg.Logger.Warn("type not served was asked for", "proxy", st.proxy.ID, "type", string(m.request.Type))
		}
		return nil
	}
	if m.request.Refused != nil {
		st.server.cfg.Metrics.refusal(m.request.Type)
		st.server.cfg.Logger.Warn("response refused by proxy", "proxy", st.proxy.ID, "type", m.request.Type.Short(), "nonce", m.request.Nonce, "err", *m.request.Refused)
	}
	st.session.Request(m.request, time.Now())
	return nil
}

// hello waits for the first request and settles who this is.
func (st *stream) hello(ctx context.Context, requests <-chan received) (message, error) {
	var m message
	select {
	case <-ctx.Done():
		return m, ctx.Err()
	case <-time.After(helloWait):
		return m, refuse(codes.DeadlineExceeded, "no request came within %s", helloWait)
	case r := <-requests:
		if r.err != nil {
			if errors.Is(r.err, io.EOF) {
				return m, refuse(codes.InvalidArgument, "the stream ended without a request")
			}
			return m, r.err
		}
		m = r.request
	}
	if m.node == nil || m.node.ID == "" {
		return m, refuse(codes.InvalidArgument, "the first request has no node id; set node.id in the bootstrap")
	}
	st.proxy = *m.node
	if p, ok := peer.FromContext(ctx); ok {
		st.proxy.Peer = p.Addr.String()
	}
	st.proxy.Identity = identity(ctx)
	st.connected = time.Now()
	pub := st.server.cfg.Publisher
	group, err := st.groupOf()
	if err != nil {
		return m, err
	}
	st.proxy.Group = group
	if err := pub.Ready(group); err != nil {
		return m, refuse(codes.Unavailable, "%s", err)
	}
	band, supported := translate.BandOf(st.proxy.Version)
	st.supported = supported
	if strings.HasPrefix(st.proxy.Agent, "gRPC") {
		band, st.supported = translate.GRPC, true
	}
	st.class = delivery.Class{Group: group, Band: int(band)}
	return m, nil
}

// grpcLimit is the largest message that gRPC's own clients receive, less what frames
// one.
const grpcLimit = 4<<20 - 64<<10

// helloWait bounds the wait for a first request.
const helloWait = 30 * time.Second

// regroup follows the proxy into another group, or ends the stream when there is
// no longer exactly one.
func (st *stream) regroup() (moved bool, err error) {
	group, err := st.groupOf()
	if err != nil {
		return false, err
	}
	if group == st.class.Group {
		return false, nil
	}
	st.class.Group = group
	return true, nil
}

// groupOf is the proxy's one group, or the refusal that ends its stream.
func (st *stream) groupOf() (string, error) {
	group, err := st.server.cfg.Publisher.GroupOf(st.proxy)
	switch {
	case errors.Is(err, model.ErrDenied):
		return "", refuse(codes.PermissionDenied, "%s", err)
	case err != nil:
		return "", refuse(codes.FailedPrecondition, "%s", err)
	}
	return group, nil
}

// join takes the table of the stream's class. The group may be gone since it was
// found.
func (st *stream) join() (*delivery.Table, <-chan struct{}, error) {
	st.server.cfg.Publisher.Join(st.class)
	t, changed := st.server.cfg.Engine.Table(st.class)
	if t == nil {
		return nil, nil, refuse(codes.FailedPrecondition, "group %q was deleted", st.class.Group)
	}
	return t, changed, nil
}

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

func (st *stream) receive(ctx context.Context, to chan<- received) {
	for {
		m, err := st.wire.receive()
		select {
		case to <- received{m, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}
