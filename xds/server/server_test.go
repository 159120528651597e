package server

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/xds/delivery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// everybody is a publisher of one group with nothing in it.
type everybody struct{}

func (everybody) GroupOf(model.Proxy) (string, model.Telemetry, error) { return "g", "", nil }
func (everybody) Ready(string) error                                   { return nil }
func (everybody) Join(delivery.Class)                                  {}

// serving runs a server on a clock of its own and hands a connection to it.
func serving(t *testing.T, cfg Config, f func(t *testing.T, s *Server, conn *grpc.ClientConn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Publisher, cfg.Engine = everybody{}, delivery.NewEngine()
		cfg.SpecChanged = func() <-chan struct{} { return nil }
		for band := range 100 {
			cfg.Engine.Publish(delivery.Class{Group: "g", Band: band}, &delivery.Table{})
		}
		over(t, New(cfg), f)
	})
}

// over runs f with a connection to a server, in a bubble.
func over(t *testing.T, s *Server, f func(t *testing.T, s *Server, conn *grpc.ClientConn)) {
	t.Helper()
	g := s.GRPC()
	l := bufconn.Listen(1 << 20)
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(l) })
	conn, err := grpc.NewClient("passthrough:///test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return l.Dial() }))
	if err != nil {
		t.Fatal(err)
	}
	f(t, s, conn)
	_ = conn.Close()
	g.Stop()
	wg.Wait()
}

type clientStream = discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

func open(t *testing.T, conn *grpc.ClientConn) clientStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	t.Cleanup(cancel)
	s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func hello(t *testing.T, conn *grpc.ClientConn, id string) clientStream {
	t.Helper()
	s := open(t, conn)
	if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(delivery.Clusters), Node: &corev3.Node{Id: id}}); err != nil {
		t.Fatal(err)
	}
	return s
}

func ends(t *testing.T, s clientStream, code codes.Code, words string) {
	t.Helper()
	for {
		if _, err := s.Recv(); err != nil {
			if status.Code(err) != code || !strings.Contains(err.Error(), words) {
				t.Errorf("ended with %v, want %v %q", err, code, words)
			}
			return
		}
	}
}

// What is registered is the two streams of the aggregated service and health:
// nothing unary that an interceptor of streams would miss.
func TestServices(t *testing.T) {
	serving(t, Config{}, func(t *testing.T, s *Server, conn *grpc.ClientConn) {
		var streams []string
		info := s.GRPC().GetServiceInfo()
		for _, m := range info["envoy.service.discovery.v3.AggregatedDiscoveryService"].Methods {
			if !m.IsClientStream || !m.IsServerStream {
				t.Errorf("%s is no stream", m.Name)
			}
			streams = append(streams, m.Name)
		}
		if len(streams) != 2 || len(info) != 2 {
			t.Errorf("services %v, streams %v", slices.Sorted(maps.Keys(info)), streams)
		}
		answer, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil || answer.Status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("health %v, %v", answer, err)
		}
	})
}

// One stream too many is refused and shown; when another has gone it is served.
func TestStreamLimit(t *testing.T) {
	serving(t, Config{MaxStreams: 2}, func(t *testing.T, s *Server, conn *grpc.ClientConn) {
		a := hello(t, conn, "a")
		_ = hello(t, conn, "b")
		synctest.Wait()
		ends(t, hello(t, conn, "c"), codes.ResourceExhausted, "2 streams are open, which is the limit")
		if r := s.Refused(); len(r) != 1 || r[0].Proxy.ID != "c" {
			t.Errorf("refused %+v", r)
		}
		_ = a.CloseSend()
		synctest.Wait()
		_ = hello(t, conn, "c")
		synctest.Wait()
		if all := s.Streams(t.Context()); len(all) != 2 || all[1].ID != "c" {
			t.Errorf("streams %+v", all)
		}
		if r := s.Refused(); len(r) != 0 {
			t.Errorf("still shown as refused: %+v", r)
		}
	})
}

// A request of 10 MiB is taken (an Envoy before 1.38 sends its whole node each
// time, and a refusal may dump what was refused); one that is too large ends its
// stream, and no other.
func TestReceiveLimit(t *testing.T) {
	serving(t, Config{}, func(t *testing.T, s *Server, conn *grpc.ClientConn) {
		large := func(size int) *discoveryv3.DeltaDiscoveryRequest {
			return &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(delivery.Clusters), ResponseNonce: "1", ErrorDetail: &statuspb.Status{Message: strings.Repeat("x", size)}}
		}
		_ = hello(t, conn, "other").Send(large(10 << 20))
		big := hello(t, conn, "big")
		_ = big.Send(large(receiveLimit + 1))
		ends(t, big, codes.ResourceExhausted, "larger than max")
		synctest.Wait()
		if all := s.Streams(t.Context()); len(all) != 1 || all[0].ID != "other" {
			t.Errorf("streams %+v", all)
		}
	})
}

// Who opens a stream and says nothing does not keep it.
func TestSilentStream(t *testing.T) {
	serving(t, Config{}, func(t *testing.T, _ *Server, conn *grpc.ClientConn) {
		s := open(t, conn)
		start := time.Now()
		ends(t, s, codes.DeadlineExceeded, "no request came within 30s")
		if took := time.Since(start); took < 30*time.Second || took > 31*time.Second {
			t.Errorf("after %s", took)
		}
	})
}

// gRPC's own clients receive 4 MiB at most: a response above it ends the stream with
// what to do, which is shown; an Envoy takes it.
func TestTooMuchForGRPC(t *testing.T) {
	big := (&delivery.Table{}).With(delivery.NewResource(delivery.Clusters, "big", make([]byte, 4<<20)))
	for agent, want := range map[string]codes.Code{"gRPC Go": codes.ResourceExhausted, "envoy": codes.OK} {
		serving(t, Config{}, func(t *testing.T, s *Server, conn *grpc.ClientConn) {
			for band := range 100 {
				s.cfg.Engine.Publish(delivery.Class{Group: "g", Band: band}, big)
			}
			st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(context.Background(), grpc.MaxCallRecvMsgSize(64<<20))
			if err != nil {
				t.Fatal(err)
			}
			node := &corev3.Node{Id: "billing-1", UserAgentName: agent, UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: "1.85.0"}}
			if err := st.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(delivery.Clusters), Node: node}); err != nil {
				t.Fatal(err)
			}
			_, err = st.Recv()
			if status.Code(err) != want {
				t.Errorf("%s: %v", agent, err)
			}
			if r := s.Refused(); want != codes.OK && (len(r) != 1 || !strings.Contains(r[0].Why, "split the group")) {
				t.Errorf("%s: shown %+v", agent, r)
			}
		})
	}
}

// leveled is a publisher whose group asks for something else once told to.
type leveled struct {
	everybody
	level   *atomic.Value
	changed chan struct{}
}

func (l leveled) GroupOf(model.Proxy) (string, model.Telemetry, error) {
	level, _ := l.level.Load().(model.Telemetry)
	return "g", level, nil
}

// roster keeps what it was told.
type roster struct {
	mu   sync.Mutex
	told []string
}

func (r *roster) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, fmt.Sprintf(format, args...))
}

func (r *roster) Joined(stream uint64, p model.Proxy, level model.Telemetry) {
	r.say("joined %d %s %s %s %s %s %v", stream, p.ID, level, p.Telemetry, p.ReportKey, p.ReportEvery, p.Metadata)
}

func (r *roster) Moved(id, group string, level model.Telemetry) {
	r.say("moved %s %s %s", id, group, level)
}
func (r *roster) Left(stream uint64, id string) { r.say("left %d %s", stream, id) }

// A roster is told who comes, with what the bootstrap says of reports, what it is asked
// for from then on, and who leaves; the report key stands nowhere else.
func TestRoster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pub := leveled{level: &atomic.Value{}, changed: make(chan struct{})}
		pub.level.Store(model.TelemetryUpstreams)
		later := make(chan struct{})
		var once atomic.Bool
		r := &roster{}
		cfg := Config{Publisher: pub, Engine: delivery.NewEngine(), Roster: r, SpecChanged: func() <-chan struct{} {
			if once.Swap(true) {
				return later
			}
			return pub.changed
		}}
		for _, level := range []model.Telemetry{model.TelemetryUpstreams, model.TelemetryEndpoints} {
			cfg.Engine.Publish(delivery.Class{Group: "g", Band: 37, Telemetry: level}, &delivery.Table{})
		}
		said, err := structpb.NewStruct(map[string]any{"wellspring": map[string]any{"telemetry": "endpoints", "reportKey": "secret", "reportInterval": "5s"}})
		if err != nil {
			t.Fatal(err)
		}
		over(t, New(cfg), func(t *testing.T, s *Server, conn *grpc.ClientConn) {
			stream := open(t, conn)
			if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(delivery.Clusters), Node: &corev3.Node{Id: "e", Metadata: said}}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			pub.level.Store(model.TelemetryEndpoints)
			close(pub.changed)
			synctest.Wait()
			if got := s.Streams(t.Context()); len(got) != 1 || got[0].Metadata["wellspring.reportKey"] != "" || got[0].Metadata["wellspring.telemetry"] != "endpoints" {
				t.Errorf("shown: %+v", got)
			}
		})
		synctest.Wait()
		want := []string{"joined 1 e upstreams endpoints secret 5s map[wellspring.reportInterval:5s wellspring.telemetry:endpoints]", "moved e g endpoints", "left 1 e"}
		if !slices.Equal(r.told, want) {
			t.Errorf("told %q, want %q", r.told, want)
		}
	})
}
