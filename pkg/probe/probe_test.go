package probe_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/wellspring-xds/wellspring/pkg/outbound"
	"github.com/wellspring-xds/wellspring/pkg/probe"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// try probes one address of an upstream.
func try(t *testing.T, p probe.Prober, u *spec.Upstream, secure *tls.Config, address string) probe.Result {
	t.Helper()
	r := p.Try(t.Context(), probe.Target{Name: "catalog", Spec: u, TLS: secure, Addresses: []string{address}})
	if len(r) != 1 || r[0].Endpoint != address {
		t.Fatalf("%+v", r)
	}
	return r[0]
}

func here() probe.Prober {
	return probe.Prober{Dial: outbound.Policy{Loopback: true}.Dialer(time.Second).DialContext}
}

func upstream(check spec.HealthCheck) *spec.Upstream {
	check.Timeout = spec.Duration(400 * time.Millisecond)
	return &spec.Upstream{Protocol: "http1", HealthChecks: []spec.HealthCheck{check}}
}

func get(path string, expected ...string) *spec.Upstream {
	return upstream(spec.HealthCheck{HTTP: &spec.HTTPCheck{Path: path, Method: http.MethodGet, Expected: expected, Headers: map[string]string{"x-check": "yes"}}})
}

// server answers by path: /slow late, /moved elsewhere, /busy 503 with Retry-After, /who
// with 200 where host, agent and header are a check's.
func server(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			select {
			case <-time.After(2 * time.Second):
			case <-r.Context().Done():
			}
		case "/moved":
			http.Redirect(w, r, "/who", http.StatusFound)
		case "/busy":
			w.Header().Set("Retry-After", "5")
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/who":
			if r.Host != "catalog" || r.UserAgent() != "Envoy/HC" || r.Header.Get("X-Check") != "yes" {
				w.WriteHeader(http.StatusTeapot)
			}
		case "/h2":
			if r.ProtoMajor != 2 {
				w.WriteHeader(http.StatusTeapot)
			}
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// A check by HTTP is sent as Envoy sends it, and where it ends is told apart.
func TestHTTP(t *testing.T) {
	s := server(t)
	address := s.Listener.Addr().String()
	for path, want := range map[string]string{
		"/who": "passes GET /who: 200", "/none": "unexpected GET /none: 404, expected 200", "/moved": "unexpected GET /moved: 302, expected 200",
		"/busy": "unexpected GET /busy: 503 with Retry-After, expected 200", "/slow": "timed out no answer in time",
	} {
		r := try(t, here(), get(path), nil, address)
		if got := fmt.Sprintf("%s %s", r.Outcome, r.Says); got != want || !r.Checked || r.Took > time.Second { // the check's timeout is 400ms
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if r := try(t, here(), get("/none", "200-299", "404"), nil, address); r.Outcome != probe.Passes {
		t.Errorf("an expected status: %+v", r)
	}
	u := get("/h2")
	u.Protocol = "http2"
	if r := try(t, here(), u, nil, address); r.Outcome != probe.Passes {
		t.Errorf("over HTTP/2: %+v", r)
	}
	if r := try(t, here(), &spec.Upstream{}, nil, address); r.Outcome != probe.Passes || r.Checked {
		t.Errorf("without a check: %+v", r)
	}
}

// raw serves connections with f.
func raw(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); f(c) }() //nolint:errcheck // a test's
		}
	}()
	return l.Addr().String()
}

func TestConnections(t *testing.T) {
	closes := raw(t, func(net.Conn) {})
	silent := raw(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	babbles := raw(t, func(c net.Conn) { _, _ = c.Write([]byte("220 mail.example ESMTP\r\n")); _, _ = io.Copy(io.Discard, c) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	_ = l.Close()
	for name, x := range map[string]struct {
		address string
		want    probe.Outcome
	}{
		"closes": {closes, probe.Closed}, "silent": {silent, probe.TimedOut}, "babbles": {babbles, probe.OtherWords}, "gone": {gone, probe.Refused},
	} {
		if r := try(t, here(), get("/"), nil, x.address); r.Outcome != x.want {
			t.Errorf("%s: %+v", name, r)
		}
	}
	u := get("/who")
	_, port, _ := net.SplitHostPort(gone)
	var n uint32
	_, _ = fmt.Sscan(port, &n)
	u.HealthChecks[0].Port = n
	r := try(t, here(), u, nil, server(t).Listener.Addr().String())
	if r.Outcome != probe.Refused || r.Target != gone || !r.OpenElsewhere {
		t.Errorf("a check's port: %+v", r)
	}
}

// Bytes that are expected may come in parts, and in their order.
func TestBytes(t *testing.T) {
	address := raw(t, func(c net.Conn) {
		buffer := make([]byte, 4)
		if _, err := io.ReadFull(c, buffer); err != nil || string(buffer) != "PING" {
			return
		}
		for _, part := range []string{"+P", "ON", "G done"} {
			_, _ = c.Write([]byte(part))
			time.Sleep(10 * time.Millisecond)
		}
	})
	check := func(receive ...string) *spec.Upstream {
		return upstream(spec.HealthCheck{TCP: &spec.TCPCheck{Send: "50494e47", Receive: receive}})
	}
	if r := try(t, here(), check("2b504f4e47", "646f6e65"), nil, address); r.Outcome != probe.Passes {
		t.Errorf("%+v", r)
	}
	for _, receive := range [][]string{{"646f6e65", "2b504f4e47"}, {"ffff"}} {
		if r := try(t, here(), check(receive...), nil, address); r.Outcome != probe.Unexpected {
			t.Errorf("%v: %+v", receive, r)
		}
	}
}

func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, h := grpc.NewServer(), health.NewServer()
	h.SetServingStatus("sick", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(s, h)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	busy := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return status.Error(codes.Unavailable, "later") }))
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = busy.Serve(other) }()
	t.Cleanup(busy.Stop)
	unavailable := upstream(spec.HealthCheck{GRPC: &spec.GRPCCheck{}})
	unavailable.Protocol = "grpc"
	if r := try(t, here(), unavailable, nil, other.Addr().String()); r.Outcome != probe.Unexpected {
		t.Errorf("a status of its own: %+v", r)
	}
	for service, want := range map[string]probe.Outcome{"": probe.Passes, "sick": probe.Unexpected, "none": probe.Unexpected} {
		u := upstream(spec.HealthCheck{GRPC: &spec.GRPCCheck{Service: service}})
		u.Protocol = "grpc"
		if r := try(t, here(), u, nil, l.Addr().String()); r.Outcome != want {
			t.Errorf("%q: %+v", service, r)
		}
	}
	u := upstream(spec.HealthCheck{GRPC: &spec.GRPCCheck{}})
	u.Protocol = "grpc"
	if r := try(t, here(), u, nil, raw(t, func(net.Conn) {})); r.Outcome != probe.Closed {
		t.Errorf("closed: %+v", r)
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	address := s.Listener.Addr().String()
	if r := try(t, here(), get("/"), &tls.Config{RootCAs: roots, ServerName: "example.com"}, address); r.Outcome != probe.Passes {
		t.Errorf("%+v", r)
	}
	for name, c := range map[string]*tls.Config{"another name": {RootCAs: roots, ServerName: "other.example"}, "nobody is trusted": {RootCAs: x509.NewCertPool(), ServerName: "example.com"}} {
		if r := try(t, here(), get("/"), c, address); r.Outcome != probe.BadTLS {
			t.Errorf("%s: %+v", name, r)
		}
	}
	plain := server(t).Listener.Addr().String()
	if r := try(t, here(), &spec.Upstream{}, &tls.Config{RootCAs: roots, ServerName: "example.com"}, plain); r.Outcome != probe.OtherWords {
		t.Errorf("no TLS there: %+v", r)
	}
}

// What may not be reached is not tried, whatever the registry says.
func TestGuard(t *testing.T) {
	address := server(t).Listener.Addr().String()
	ap := address[strings.LastIndex(address, ":")+1:]
	var port uint16
	_, _ = fmt.Sscan(ap, &port)
	for name, x := range map[string]struct {
		policy  outbound.Policy
		address string
	}{
		"loopback": {outbound.Policy{}, address}, "our own": {outbound.Policy{Loopback: true, OwnPorts: []uint16{port}}, address},
		"credentials of a cloud": {outbound.Policy{Loopback: true}, "169.254.169.254:80"},
	} {
		r := try(t, probe.Prober{Dial: x.policy.Dialer(time.Second).DialContext}, get("/who"), nil, x.address)
		if r.Outcome != probe.NotTried {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// Where we wait for less long than the check does, silence says nothing.
func TestShorter(t *testing.T) {
	u := get("/slow")
	u.HealthChecks[0].Timeout = spec.Duration(5 * time.Second)
	p := here()
	p.Deadline = 200 * time.Millisecond
	if r := try(t, p, u, nil, server(t).Listener.Addr().String()); r.Outcome != probe.NotTried || !strings.Contains(r.Says, "the check itself waits 5s") {
		t.Errorf("%+v", r)
	}
}

// Only the first few are tried, and all together within the time of one.
func TestAtOnce(t *testing.T) {
	silent := raw(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	start := time.Now()
	addresses := make([]string, 20)
	for i := range addresses {
		addresses[i] = silent
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	results := here().Try(ctx, probe.Target{Name: "x", Spec: get("/"), Addresses: addresses})
	if len(results) != 8 || time.Since(start) > 4*time.Second {
		t.Errorf("%d results after %s", len(results), time.Since(start))
	}
}
