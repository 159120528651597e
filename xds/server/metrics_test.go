package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// counted are a server's metrics, by name without what they all begin with and by
// label values.
func counted(t *testing.T, s *Server) map[string]float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(s.Metrics())
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := strings.TrimPrefix(f.GetName(), "wellspring_xds_")
			for i := len(m.Label) - 1; i >= 0; i-- {
				name += " " + m.Label[i].GetValue()
			}
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			if h := m.Histogram; h != nil {
				out[name], out[name+" sum"] = float64(h.GetSampleCount()), h.GetSampleSum()
			}
		}
	}
	return out
}

func wants(t *testing.T, s *Server, want map[string]float64) {
	t.Helper()
	synctest.Wait()
	got := counted(t, s)
	for name, v := range want {
		if is, ok := got[name]; !ok || is != v {
			t.Errorf("%s is %v, want %v", name, is, v)
		}
	}
}

func clusterOf(size int, mark string) *delivery.Resource {
	return delivery.NewResource(delivery.Clusters, "a", append(make([]byte, size), mark...))
}

// publish gives every class a table.
func (s *Server) publish(t *delivery.Table) {
	for band := range 100 {
		s.cfg.Engine.Publish(delivery.Class{Group: "g", Band: band}, t)
	}
}

// What a server counts is what happened, and each proxy's own part is shown with it.
func TestMetrics(t *testing.T) {
	serving(t, Config{}, func(t *testing.T, s *Server, conn *grpc.ClientConn) {
		table := &delivery.Table{}
		change := func(mark string) {
			table = table.With(clusterOf(0, mark))
			s.publish(table)
			synctest.Wait()
			time.Sleep(100 * time.Millisecond) // the pause after a round
		}
		change("1")
		before := counted(t, s)["changes_total"]
		a := hello(t, conn, "a")
		first, err := a.Recv()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(400 * time.Millisecond)
		answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(delivery.Clusters), ResponseNonce: first.Nonce}
		if err := a.Send(answer); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		change("2")
		second, err := a.Recv()
		if err != nil {
			t.Fatal(err)
		}
		change("3") // while the second is not answered
		change("4")
		answer.ResponseNonce, answer.ErrorDetail = second.Nonce, &statuspb.Status{Message: "no"}
		if err := a.Send(answer); err != nil {
			t.Fatal(err)
		}
		third, err := a.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got := len(third.Resources); got != 1 {
			t.Errorf("%d resources after a refusal", got)
		}
		size := 0.0
		for _, r := range []*discoveryv3.DeltaDiscoveryResponse{first, second, third} {
			size += float64(len(encodedAs(t, r)))
		}
		wants(t, s, map[string]float64{
			"streams": 1, "streams_waiting": 0, "admitted_total": 1, "stalled_total": 0, "parked": 0,
			"changes_total": before + 300, "coalesced_total": 0,
			"responses_total clusters": 3, "response_bytes_total clusters": size, "large_responses_total clusters": 0,
			"resources_total clusters sent": 3, "resources_total clusters removed": 0, "refusals_total clusters": 1,
			"responses_total routes": 0, "ack_seconds clusters": 2, "ack_seconds clusters sum": 0.7,
		})
		p := s.Streams(t.Context())[0]
		if p.Changes != 3 || p.Coalesced != 0 || !p.Unsent.IsZero() || p.Delivery[0].Responses != 3 || float64(p.Delivery[0].Bytes) != size {
			t.Errorf("shown %+v", p)
		}

		for band := range 100 {
			s.cfg.Engine.Join(delivery.Class{Group: "g", Band: band}, slow{})
		}
		for i := range 5 { // faster than a round takes: the first is told, then the last
			table = table.With(clusterOf(0, fmt.Sprint("more", i)))
			s.publish(table)
		}
		synctest.Wait()
		time.Sleep(100 * time.Millisecond)
		answer.ResponseNonce, answer.ErrorDetail = third.Nonce, nil
		if err := a.Send(answer); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		p = s.Streams(t.Context())[0]
		if p.Coalesced != 3 || p.Changes != 5 {
			t.Errorf("took up %d, was spared %d", p.Changes, p.Coalesced)
		}
		wants(t, s, map[string]float64{"coalesced_total": float64(p.Coalesced)})
	})
}

// slow is a member that takes a while to hand over what it sends.
type slow struct{}

func (slow) Wake(r *delivery.Round) {
	r.Begin()
	time.AfterFunc(5*time.Millisecond, r.End)
}

func encodedAs(t *testing.T, r *discoveryv3.DeltaDiscoveryResponse) []byte {
	t.Helper()
	b, err := newCodec().Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return b.Materialize()
}

// What a proxy refused counts for as long as it is connected and would be sent it.
func TestParkedMetric(t *testing.T) {
	serving(t, Config{}, func(t *testing.T, s *Server, conn *grpc.ClientConn) {
		s.publish((&delivery.Table{}).With(clusterOf(0, "bad")))
		a := hello(t, conn, "a")
		r, err := a.Recv()
		if err != nil {
			t.Fatal(err)
		}
		_ = a.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce, ErrorDetail: &statuspb.Status{Message: "no"}})
		wants(t, s, map[string]float64{"parked": 1})
		s.publish((&delivery.Table{}).With(clusterOf(0, "good")))
		time.Sleep(time.Second)
		wants(t, s, map[string]float64{"parked": 0})
	})
}

// A response that is large is counted each time, and told of once.
func TestLarge(t *testing.T) {
	var log strings.Builder
	cfg := Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	serving(t, cfg, func(t *testing.T, s *Server, conn *grpc.ClientConn) {
		st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(context.Background(), grpc.MaxCallRecvMsgSize(64<<20))
		if err != nil {
			t.Fatal(err)
		}
		request := &discoveryv3.DiscoveryRequest{TypeUrl: string(delivery.Clusters), Node: &corev3.Node{Id: "a"}}
		for i := range 2 {
			s.publish((&delivery.Table{}).With(clusterOf(largeResponse, fmt.Sprint(i))))
			time.Sleep(time.Second)
			if err := st.Send(request); err != nil {
				t.Fatal(err)
			}
			r, err := st.Recv()
			if err != nil {
				t.Fatal(err)
			}
			request.ResponseNonce, request.VersionInfo = r.Nonce, r.VersionInfo
		}
		wants(t, s, map[string]float64{"large_responses_total clusters": 2})
	})
	if n := strings.Count(log.String(), "large response"); n != 1 || !strings.Contains(log.String(), "bytes=41944") {
		t.Errorf("%d times in the log:\n%s", n, log.String())
	}
}

// A response that the proxy does not take is seen for as long as that lasts, and when it
// is cut off.
func TestStalled(t *testing.T) {
	serving(t, Config{}, func(t *testing.T, s *Server, conn *grpc.ClientConn) {
		s.publish((&delivery.Table{}).With(clusterOf(1<<20, "1"), delivery.NewResource(delivery.Listeners, "l", make([]byte, 1000))))
		st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, typ := range []delivery.Type{delivery.Clusters, delivery.Listeners} {
			if err := st.Send(&discoveryv3.DiscoveryRequest{TypeUrl: string(typ), Node: &corev3.Node{Id: "deaf"}}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		began := time.Now()
		time.Sleep(10 * time.Second)
		wants(t, s, map[string]float64{"stalled_total": 0, "streams": 1})
		if p := s.Streams(t.Context()); len(p) != 1 || !p[0].Unsent.Equal(began) {
			t.Errorf("shown %+v", p)
		}
		time.Sleep(30 * time.Second)
		wants(t, s, map[string]float64{"stalled_total": 1, "streams": 0, "responses_total clusters": 1, "responses_total listeners": 0})
		if r := s.Refused(); len(r) != 1 || r[0].Code != codes.ResourceExhausted.String() {
			t.Errorf("shown %+v", r)
		}
	})
}

// Of many streams that connect at once those beyond what a moment admits wait for
// their turn, which comes by how much they will be sent; they are shown as waiting, and
// count.
func TestAdmission(t *testing.T) {
	const (
		streams   = 60
		each      = 20_000 + streamCost
		atOnce    = 24
		perSecond = 2_000_000
	)
	serving(t, Config{MaxStreams: streams}, func(t *testing.T, s *Server, conn *grpc.ClientConn) {
		s.admission.tokens = rate.NewLimiter(perSecond, atOnce*each)
		all := map[string]*delivery.Resource{}
		for i := range each - streamCost {
			name := fmt.Sprintf("c%05d", i)
			all[name] = delivery.NewResource(delivery.Clusters, name, nil)
		}
		s.publish(delivery.NewTable(nil, map[delivery.Type]map[string]*delivery.Resource{delivery.Clusters: all}, nil))
		for i := range streams {
			st := hello(t, conn, fmt.Sprintf("p%02d", i))
			go func() {
				for {
					if _, err := st.Recv(); err != nil {
						return
					}
				}
			}()
		}
		synctest.Wait()
		ends(t, hello(t, conn, "one too many"), codes.ResourceExhausted, fmt.Sprint(streams, " streams are open"))
		wants(t, s, map[string]float64{"streams": streams, "admitted_total": atOnce, "streams_waiting": streams - atOnce})
		if got := len(s.Streams(t.Context())); got != atOnce {
			t.Errorf("%d are served at once, want %d", got, atOnce)
		}
		time.Sleep(time.Minute)
		last := model.Stream{}
		for _, p := range s.Streams(t.Context()) {
			if p.Waited > last.Waited {
				last = p
			}
		}
		want := (streams - atOnce) * each * time.Second / perSecond
		if off := last.Waited - want; off.Abs() > time.Millisecond {
			t.Errorf("the last waited %s, want %s", last.Waited, want)
		}
		wants(t, s, map[string]float64{"streams": streams, "admitted_total": streams, "streams_waiting": 0})
	})
}

// waiting runs a server with one stream, "served", after which nobody is admitted for ten
// seconds.
func waiting(t *testing.T, groups Publisher, f func(t *testing.T, s *Server, conn *grpc.ClientConn)) {
	serving(t, Config{}, func(t *testing.T, s *Server, conn *grpc.ClientConn) {
		s.cfg.Publisher = groups
		s.publish((&delivery.Table{}).With(clusterOf(0, "secret")))
		s.admission.tokens = rate.NewLimiter((streamCost+1)/10.0, streamCost+1)
		_ = hello(t, conn, "served")
		synctest.Wait()
		f(t, s, conn)
	})
}

// Streams that give up while they wait leave nothing behind: who comes after them is
// admitted as if they had never been.
func TestAdmissionGivenUp(t *testing.T) {
	waiting(t, everybody{}, func(t *testing.T, s *Server, conn *grpc.ClientConn) {
		for range 20 {
			ctx, giveUp := context.WithCancel(t.Context())
			for range 50 {
				st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := st.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(delivery.Clusters), Node: &corev3.Node{Id: "hasty"}}); err != nil {
					t.Fatal(err)
				}
			}
			wants(t, s, map[string]float64{"streams": 51, "streams_waiting": 50})
			giveUp()
			wants(t, s, map[string]float64{"streams": 1, "streams_waiting": 0, "admitted_total": 1})
		}
		began := time.Now()
		if _, err := hello(t, conn, "patient").Recv(); err != nil || time.Since(began) > 10*time.Second {
			t.Errorf("admitted after %s (%v)", time.Since(began), err)
		}
	})
}

// changing is a publisher that says otherwise once told to.
type changing struct {
	everybody
	denied *atomic.Bool
}

func (c changing) GroupOf(p model.Proxy) (string, model.Telemetry, error) {
	if c.denied.Load() {
		return "", "", fmt.Errorf("%w: its certificate is not one of the group's", model.ErrDenied)
	}
	return c.everybody.GroupOf(p)
}

// Who belongs to nobody any more once it is its turn is sent nothing.
func TestDeniedWhileWaiting(t *testing.T) {
	denied := &atomic.Bool{}
	waiting(t, changing{denied: denied}, func(t *testing.T, s *Server, conn *grpc.ClientConn) {
		st := hello(t, conn, "late")
		synctest.Wait()
		denied.Store(true)
		if r, err := st.Recv(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("sent %v, %v", r, err)
		}
	})
}

// A stream that waits does not hide another one of its proxy that is served.
func TestHoldingWhileWaiting(t *testing.T) {
	waiting(t, everybody{}, func(t *testing.T, s *Server, conn *grpc.ClientConn) {
		_ = hello(t, conn, "served")
		synctest.Wait()
		if _, err := s.Holding(t.Context(), "served"); errors.Is(err, model.ErrNotFound) {
			t.Error(err)
		}
		if p := s.Streams(t.Context()); len(p) != 1 || p[0].Duplicate {
			t.Errorf("shown %+v", p)
		}
		time.Sleep(11 * time.Second)
		if p := s.Streams(t.Context()); len(p) != 2 || !p[0].Duplicate || p[1].Waited < 9*time.Second {
			t.Errorf("shown %+v", p)
		}
	})
}

// A connection that has become old is ended, a tenth sooner or later, and the proxy
// comes back on another.
func TestConnectionAge(t *testing.T) {
	serving(t, Config{MaxAge: 10 * time.Minute}, func(t *testing.T, s *Server, conn *grpc.ClientConn) {
		began := time.Now()
		st := hello(t, conn, "a")
		synctest.Wait()
		for {
			if _, err := st.Recv(); err != nil {
				break
			}
		}
		if age := time.Since(began); age < 9*time.Minute || age > 11*time.Minute+ageGrace+5*time.Second {
			t.Errorf("ended after %s", age)
		}
		_ = hello(t, conn, "a")
		synctest.Wait()
		if p := s.Streams(t.Context()); len(p) != 1 || p[0].Connected.Before(began.Add(9*time.Minute)) {
			t.Errorf("shown %+v", p)
		}
		if len(s.Refused()) != 0 {
			t.Errorf("shown as refused: %+v", s.Refused())
		}
	})
}
