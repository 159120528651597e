// Package server carries the aggregated discovery service, delta and state of
// the world: it turns streams into sessions and sessions into bytes.
//
// A stream has one goroutine that receives, and one that sends while there is
// something to send; the session between them is worked in steps, which take no
// time. No lock is held across a send; while one send is under way newer tables
// coalesce behind it.
//
// A response that cannot be handed to gRPC for Stall ends the stream. gRPC takes
// some of a stream that nobody reads, so that a proxy which reads nothing is
// noticed by the response after that; one whose process stopped is noticed by
// keepalive, after 30 s. Until then it costs what is open: one response of a type,
// eight of clusters, and the set of resources that it has reached, which it shares.
// Nobody else waits for it.
package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// Publisher knows who is served what. No method blocks for long.
type Publisher interface {
	// GroupOf finds the one group of a proxy, and what it is asked to report, or says
	// why there is none.
	GroupOf(model.Proxy) (group string, level model.Telemetry, err error)
	// Ready says why a group cannot be served yet; nil when it can.
	Ready(group string) error
	// Join makes sure that the engine has a table for a class.
	Join(delivery.Class)
}

// Roster is told who is connected. No method blocks.
type Roster interface {
	// Joined has a new stream, of a number of its own.
	Joined(stream uint64, p model.Proxy, level model.Telemetry)
	// Moved belongs to another group, or reports at another level.
	Moved(id, group string, level model.Telemetry)
	// Left has a stream less.
	Left(stream uint64, id string)
}

// Config of a server. Zero values of durations and counts are the defaults.
type Config struct {
	Publisher Publisher
	Engine    *delivery.Engine
	Session   delivery.Config
	// Roster is told who is connected; nil is nobody's.
	Roster Roster
	// SpecChanged returns a channel that is closed when the publisher has taken up
	// a Spec by which proxies may belong to other groups.
	SpecChanged func() <-chan struct{}
	// NeedCertificate closes every method to callers without a verified client
	// certificate.
	NeedCertificate bool
	Logger          *slog.Logger
	// Emit takes the events; it does not block. nil drops them.
	Emit func(model.Event)
	// MaxStreams that are open at once; more are refused. Default 20000.
	MaxStreams int
	// Stall ends a stream whose bytes are not read for this long. Default 30s.
	Stall time.Duration
	// MaxAge is how old a connection becomes, a tenth more or less, before its proxy is
	// asked to connect anew: where several servers stand behind one address, so does the
	// fleet spread over one that is new. Default is for ever.
	MaxAge time.Duration
}

const (
	defaultMaxStreams = 20_000
	defaultStall      = 30 * time.Second
	receiveLimit      = 64 << 20
	receiveWindow     = 256 << 10 // bytes of a stream that may wait to be read
	readBuffer        = 4 << 10
	maxNames          = 100_000 // in one request
	refusedKept       = 10 * time.Minute
	maxRefused        = 1000
	maxWhy            = 2 << 10     // bytes of a refusal: clients bound their trailers
	ageGrace          = time.Second // that an old connection has to end by itself
)

// Server is the aggregated discovery service.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	cfg       Config
	next      atomic.Uint64
	metrics   *metrics
	admission admission

	mu      sync.Mutex // guards what follows
	streams map[uint64]*stream
	none    chan struct{} // closed when the last of them is gone
	refused []model.RefusedStream
}

// New returns a server without streams.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Emit == nil {
		cfg.Emit = func(model.Event) {}
	}
	if cfg.Roster == nil {
		cfg.Roster = nobody{}
	}
	cfg.MaxStreams = cmp.Or(cfg.MaxStreams, defaultMaxStreams)
	cfg.Stall = cmp.Or(cfg.Stall, defaultStall)
	return &Server{cfg: cfg, streams: map[uint64]*stream{}, metrics: newMetrics(cfg.Engine), admission: newAdmission()}
}

// nobody keeps no roster.
type nobody struct{}

func (nobody) Joined(uint64, model.Proxy, model.Telemetry) {}
func (nobody) Moved(string, string, model.Telemetry)       {}
func (nobody) Left(uint64, string)                         {}

// GRPC returns a gRPC server that serves s and gRPC's health service. Its
// keepalive takes the pings of our bootstrap (every 20s).
func (s *Server) GRPC(opts ...grpc.ServerOption) *grpc.Server {
	g := grpc.NewServer(append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(receiveLimit),
		grpc.ForceServerCodecV2(newCodec()),
		// A window that grows by measuring costs a ping and an update for each
		// acknowledgement: twice the system calls.
		grpc.StaticStreamWindowSize(receiveWindow),
		grpc.StaticConnWindowSize(receiveWindow),
		grpc.ReadBufferSize(readBuffer),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(s.unaryGate),
		grpc.ChainStreamInterceptor(s.streamGate),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 20 * time.Second, Timeout: 10 * time.Second,
			MaxConnectionAge: s.cfg.MaxAge, MaxConnectionAgeGrace: ageGrace,
		}),
	}, opts...)...)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
	h := health.NewServer()
	h.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(g, h)
	return g
}

// DeltaAggregatedResources serves one delta stream.
func (s *Server) DeltaAggregatedResources(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return s.serve(g, true)
}

// StreamAggregatedResources serves one state-of-the-world stream.
func (s *Server) StreamAggregatedResources(g discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return s.serve(g, false)
}

// serve runs one stream to its end and says how it ended.
func (s *Server) serve(g grpc.ServerStream, delta bool) error {
	ctx, end := context.WithCancelCause(g.Context())
	defer end(nil)
	st := &stream{server: s, grpc: g, delta: delta, id: s.next.Add(1), end: end}
	st.run(ctx)
	err := context.Cause(ctx)
	var r *refusal
	switch {
	case errors.Is(err, errEnded):
		return nil
	case errors.As(err, &r):
		if len(r.why) > maxWhy {
			r.why = strings.ToValidUTF8(r.why[:maxWhy], "") + "…"
		}
		st.mu.Lock()
		p := st.proxy
		st.mu.Unlock()
		s.remember(p, r)
		return status.Error(r.code, r.why)
	}
	return err
}

// refusal ends a stream with a reason that is shown.
type refusal struct {
	code codes.Code
	why  string
}

func (r *refusal) Error() string { return r.why }

func refuse(code codes.Code, format string, args ...any) error {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

func (s *Server) remember(p model.Proxy, r *refusal) {
	s.cfg.Logger.Warn("stream refused", "proxy", p.ID, "err", r.why)
	s.cfg.Emit(model.Event{Kind: model.EventProxyRefused, Subject: model.Subject{Kind: "Proxy", Name: p.ID}, Proxy: p.ID, Group: p.Group, Reason: r.why})
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, old := range s.refused { // one line for each proxy and reason
		if old.Proxy.ID == p.ID && old.Why == r.why {
			s.refused = slices.Delete(s.refused, i, i+1)
			break
		}
	}
	s.refused = append(s.refused, model.RefusedStream{Time: time.Now(), Proxy: p, Code: r.code.String(), Why: r.why})
	if n := len(s.refused); n > maxRefused {
		s.refused = s.refused[n-maxRefused:]
	}
}

func (s *Server) add(st *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.streams) >= s.cfg.MaxStreams {
		return refuse(codes.ResourceExhausted, "%d streams are open, which is the limit", len(s.streams))
	}
	s.streams[st.id] = st
	if len(s.streams) == 1 {
		s.none = make(chan struct{})
		go s.follow(s.none)
	}
	s.metrics.streams.Set(float64(len(s.streams)))
	return nil
}

// served forgets that a proxy was refused.
func (s *Server) served(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = slices.DeleteFunc(s.refused, func(r model.RefusedStream) bool { return r.Proxy.ID == node })
}

func (s *Server) remove(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[st.id] == nil {
		return
	}
	delete(s.streams, st.id)
	if len(s.streams) == 0 {
		close(s.none)
	}
	s.metrics.streams.Set(float64(len(s.streams)))
}

// follow has every stream look for its group when the Spec changed, while there are
// streams.
func (s *Server) follow(none <-chan struct{}) {
	for {
		changed := s.cfg.SpecChanged()
		for _, st := range s.open() {
			st.regroup()
		}
		select {
		case <-none:
			return
		case <-changed:
		}
	}
}

func (s *Server) open() []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.streams))
}

func kind(delta bool) string {
	if delta {
		return "delta"
	}
	return "sotw"
}

// Streams lists the connected proxies by id, then stream.
func (s *Server) Streams(context.Context) []model.Stream {
	all := s.open()
	ids := map[string]int{}
	out := make([]model.Stream, 0, len(all))
	for _, st := range all {
		st.look(func(x *delivery.Session) {
			p := model.Stream{
				Proxy: st.proxy, Number: st.id, Kind: kind(st.delta), Connected: st.connected, Supported: st.supported, Delivery: x.Deliveries(),
				Waited: st.waited, Changes: st.changes, Coalesced: st.coalesced, Unsent: st.unsent,
			}
			p.Group = st.class.Group
			ids[p.ID]++
			out = append(out, p)
		})
	}
	for i := range out {
		out[i].Duplicate = ids[out[i].ID] > 1
	}
	slices.SortFunc(out, func(a, b model.Stream) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Number, b.Number)) })
	return out
}

// Acked calls f with every stream that subscribes to an assignment, and the version that
// it acknowledged last, "" before its first answer.
func (s *Server) Acked(assignment string, f func(proxy, version string)) {
	for _, st := range s.open() {
		st.look(func(x *delivery.Session) {
			if version, subscribed := x.Acked(delivery.Assignments, assignment); subscribed {
				f(st.node, version)
			}
		})
	}
}

// Refused lists the streams that were refused in the last ten minutes, newest
// first.
func (s *Server) Refused() []model.RefusedStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.DeleteFunc(slices.Clone(s.refused), func(r model.RefusedStream) bool { return time.Since(r.Time) > refusedKept })
	slices.Reverse(out)
	return out
}

// Holding returns what a proxy holds as Envoy's JSON, and what it refused. The
// newest stream of the id counts; the error is model.ErrNotFound when none is
// connected.
func (s *Server) Holding(_ context.Context, id string) (model.Holding, error) {
	all := slices.DeleteFunc(s.open(), func(st *stream) bool { return st.node != id })
	slices.SortFunc(all, func(a, b *stream) int { return cmp.Compare(b.id, a.id) })
	out := model.Holding{Proxy: id}
	var held map[delivery.Type][]*delivery.Resource
	served := slices.ContainsFunc(all, func(st *stream) bool { // the newest may still wait to be admitted
		return st.look(func(x *delivery.Session) { held, out.Delivery = x.Holds(), x.Deliveries() })
	})
	if !served {
		return out, fmt.Errorf("proxy %q is not connected: %w", id, model.ErrNotFound)
	}
	for _, typ := range delivery.Types {
		for _, r := range held[typ] {
			content, err := shown(r)
			if err != nil {
				return out, fmt.Errorf("print %s %q: %w", typ.Short(), r.Name, err)
			}
			out.Resources = append(out.Resources, model.HeldResource{Type: typ.Short(), Name: r.Name, Version: r.Version, Document: r.Document, Content: content})
		}
	}
	return out, nil
}

// shown is a resource as Envoy's JSON. A private key is left out.
func shown(r *delivery.Resource) ([]byte, error) {
	if r.Type != delivery.Secrets {
		return protojson.Marshal(r.Message())
	}
	secret := &tlsv3.Secret{}
	if err := r.Message().UnmarshalTo(secret); err != nil {
		return nil, err
	}
	if pair := secret.GetTlsCertificate(); pair != nil {
		pair.PrivateKey = &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "[redacted]"}}
	}
	return protojson.Marshal(secret)
}
