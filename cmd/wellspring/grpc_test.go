package main_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/xds"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/diagnose"
)

// worker is a gRPC service that says who it is in a header.
type worker struct {
	healthpb.UnimplementedHealthServer
	name  string
	addr  string
	calls atomic.Int64
	slow  atomic.Int64 // milliseconds
}

func newWorker(t *testing.T, name string) *worker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{name: name, addr: l.Addr().String()}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, w)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return w
}

func (w *worker) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	w.calls.Add(1)
	if ms := w.slow.Load(); ms > 0 {
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, grpc.SetHeader(ctx, metadata.Pairs("worker", w.name))
}

const programs = `
kind: Upstream
name: rpc
spec: {protocol: grpc, endpoints: [%s], loadBalancing: {policy: roundRobin}}
---
kind: Upstream
name: canary
spec: {protocol: grpc, endpoints: [{address: "%s"}], circuitBreakers: {requests: 50}}
---
kind: Route
name: rpc
spec:
  hosts: [rpc.internal]
  rules:
  - {match: {path: {prefix: /grpc.health.v1.Health}, headers: [{name: x-canary, exact: "1"}]}, to: [{upstream: canary}], timeout: 300ms}
  - {match: {path: {prefix: /grpc.health.v1.Health}}, to: [{upstream: %s}]}
---
kind: Listener
name: programs
spec: {grpc: true, routes: [rpc]}
---
kind: Group
name: programs
spec: {listeners: [programs]}
`

// TestRealGRPCClient: gRPC's own xDS client finds a service by its host, follows
// its endpoints and its routes, and is shown with what it holds.
func TestRealGRPCClient(t *testing.T) {
	control := serve(t)
	a, b, c := newWorker(t, "a"), newWorker(t, "b"), newWorker(t, "c")
	address := func(ws ...*worker) string {
		var out []string
		for _, w := range ws {
			out = append(out, "{address: '"+w.addr+"'}")
		}
		return strings.Join(out, ", ")
	}
	control.apply(fmt.Sprintf(programs, address(a, b), c.addr, "rpc"))
	text, err := bootstrap.GRPC(bootstrap.Config{NodeID: "billing-1", Group: "programs", Zone: "a", XDS: []string{control.XDS}})
	if err != nil {
		t.Fatal(err)
	}
	resolver, err := xds.NewXDSResolverWithConfigForTesting(text)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("xds:///rpc.internal", grpc.WithResolvers(resolver), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a test's
	client := healthpb.NewHealthClient(conn)
	call := func(pairs ...string) (string, error) {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), pairs...), 5*time.Second)
		defer cancel()
		var header metadata.MD
		_, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Header(&header))
		return strings.Join(header.Get("worker"), ""), err
	}
	// shares counts who answers.
	shares := func() string {
		n := map[string]int{}
		for range 40 {
			who, err := call()
			if err != nil {
				who = status.Code(err).String()
			}
			n[who]++
		}
		return fmt.Sprint(n)
	}
	within(t, 2*time.Second, "both answer in turn", func() string {
		if got := shares(); got != "map[a:20 b:20]" {
			return got
		}
		return ""
	})

	// 1. the registry: one goes, nobody is lost
	control.apply(fmt.Sprintf(programs, address(b), c.addr, "rpc"))
	within(t, 2*time.Second, "one is gone", func() string {
		if got := shares(); got != "map[b:40]" {
			return got
		}
		return ""
	})

	// 2. a header leads elsewhere, and its rule's timeout counts
	if who, err := call("x-canary", "1"); who != "c" {
		t.Errorf("the canary is %q: %v", who, err)
	}
	c.slow.Store(3000)
	if _, err := call("x-canary", "1"); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a slow canary: %v", err)
	}
	c.slow.Store(0)

	// 3. the route leads elsewhere: no call is lost on the way
	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(failed)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := call(); err != nil {
				failed <- err
				return
			}
		}
	}()
	start := time.Now()
	control.apply(fmt.Sprintf(programs, address(b), c.addr, "canary"))
	within(t, 2*time.Second, "the route leads to the canary", func() string {
		if who, err := call(); who != "c" {
			return fmt.Sprint(who, err)
		}
		return ""
	})
	t.Logf("after %s", time.Since(start).Round(time.Millisecond))
	close(stop)
	if err := <-failed; err != nil {
		t.Errorf("lost: %v", err)
	}

	// 4. what is known of it
	var p admin.Proxies
	if err := control.client().Get(t.Context(), "/v1/proxies", nil, &p); err != nil || p.Total != 1 {
		t.Fatal(p, err)
	}
	if x := p.Items[0]; x.ID != "billing-1" || !strings.HasPrefix(x.Agent, "gRPC Go") || x.Group != "programs" || !x.Supported || x.Kind != "sotw" {
		t.Errorf("shown as %+v", x)
	}
	for _, d := range p.Items[0].Delivery {
		if len(d.Parked) > 0 || len(d.Waiting) > 0 {
			t.Errorf("%+v", d)
		}
	}
	if out, code := control.cli("proxies"); code != 0 || !strings.Contains(out, "billing-1") {
		t.Errorf("proxies: exit %d\n%s", code, out)
	}
	if held, err := control.client().Text(t.Context(), "/v1/proxies/billing-1/xds"); err != nil || !strings.Contains(held, `"name":"rpc.internal"`) {
		t.Errorf("holds %s: %v", held, err)
	}

	// 5. more than it takes: it is refused, serves on by what it holds, and explain says why
	many, names := new(strings.Builder), "rpc"
	for doc := range 5 {
		names += fmt.Sprintf(", more-%d", doc)
		fmt.Fprintf(many, "---\nkind: Route\nname: more-%d\nspec:\n  hosts: [more-%[1]d.internal]\n  rules:\n", doc)
		for i := range 900 {
			fmt.Fprintf(many, "  - {match: {path: {prefix: /%d%s}}, to: [{upstream: rpc}]}\n", i, strings.Repeat("/of-somebody", 80))
		}
	}
	control.apply(strings.Replace(fmt.Sprintf(programs, address(b), c.addr, "rpc"), "routes: [rpc]", "routes: ["+names+"]", 1) + many.String())
	var e diagnose.Explanation
	within(t, 20*time.Second, "explain names it", func() string {
		if err := control.client().Get(t.Context(), "/v1/explain", url.Values{"upstream": {"rpc"}}, &e); err != nil {
			return err.Error()
		}
		if len(e.Findings) == 0 || e.Findings[0].Code != diagnose.C8 {
			return fmt.Sprintf("%+v", e.Findings)
		}
		return ""
	})
	keepAnswer(t, string(diagnose.C8), e)
	if who, err := call("x-canary", "1"); who != "c" {
		t.Errorf("the canary is %q: %v", who, err)
	}
}
