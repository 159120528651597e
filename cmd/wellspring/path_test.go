package main_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/examples/backend"
	"github.com/wellspring-xds/wellspring/examples/traffic"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/admin/client"
	"github.com/wellspring-xds/wellspring/pkg/consultest"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

// binary is bin/wellspring of this checkout.
func binary(t *testing.T) string {
	t.Helper()
	p, err := filepath.Abs("../../bin/wellspring")
	if err == nil {
		_, err = os.Stat(p)
	}
	proc.Need(t, err)
	return p
}

// controlPlane is a running `wellspring serve`.
type controlPlane struct {
	*proc.Process
	t         *testing.T
	args      []string
	Admin     string
	XDS       string
	Telemetry string
	keys      *keys    // nil asks for no credentials
	within    []string // a command that runs it; nil is none
}

// serve starts a control plane on chosen ports, so that a restart has the same.
func serve(t *testing.T, args ...string) *controlPlane {
	t.Helper()
	return serveWith(t, nil, args...)
}

// serveWith starts one that asks for the credentials of k, and then listens on
// every address.
func serveWith(t *testing.T, k *keys, args ...string) *controlPlane {
	t.Helper()
	return serveWithin(t, nil, k, args...)
}

// serveWithin starts one by a command that runs another.
func serveWithin(t *testing.T, within []string, k *keys, args ...string) *controlPlane {
	t.Helper()
	ports, err := freeport.Get(3)
	if err != nil {
		t.Fatal(err)
	}
	c := &controlPlane{t: t, XDS: "127.0.0.1:" + strconv.Itoa(ports[0]), Admin: "127.0.0.1:" + strconv.Itoa(ports[1]), Telemetry: "127.0.0.1:" + strconv.Itoa(ports[2]), keys: k, within: within}
	listen := []string{"--telemetry-listen", c.Telemetry, "--xds-listen", c.XDS, "--admin-listen", c.Admin}
	if k != nil {
		listen = append([]string{"--telemetry-listen", "0.0.0.0:" + strconv.Itoa(ports[2]), "--xds-listen", "0.0.0.0:" + strconv.Itoa(ports[0]), "--admin-listen", "0.0.0.0:" + strconv.Itoa(ports[1])}, k.flags()...)
	}
	c.args = append(append([]string{"serve", "--data-dir", t.TempDir()}, listen...), args...)
	c.start()
	return c
}

// reports is how a proxy reports to it.
func (c *controlPlane) reports(key string) *bootstrap.Telemetry {
	return &bootstrap.Telemetry{Addresses: []string{c.Telemetry}, Key: key, Interval: time.Second}
}

// client calls its admin API.
func (c *controlPlane) client() *client.Client {
	return client.New(c.keys.client(c.Admin))
}

func (c *controlPlane) start() {
	c.t.Helper()
	run := slices.Concat(c.within, []string{binary(c.t)}, c.args)
	p, err := proc.Start(run[0], run[1:], nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.Process = p
	c.t.Cleanup(func() { p.Stop(5 * time.Second) })
	if err := p.Until(c.t.Context(), func(ctx context.Context) error {
		return c.client().Get(ctx, "/version", nil, nil)
	}); err != nil {
		c.t.Fatal(err)
	}
}

// apply sets documents.
func (c *controlPlane) apply(documents string) admin.Outcome {
	c.t.Helper()
	out, err := c.client().Apply(c.t.Context(), []byte(documents), client.How{})
	if err != nil {
		c.t.Fatalf("apply: %v\n%s", err, documents)
	}
	return out
}

// cli runs a verb against the control plane and returns stdout and exit code.
func (c *controlPlane) cli(args ...string) (string, int) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), binary(c.t), append(c.keys.global(c.Admin), args...)...)
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState == nil {
		c.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// within waits until ok returns "", and reports what it returned last and how
// long it took. A figure is printed; only ten times of it fails.
func within(t *testing.T, figure time.Duration, what string, ok func() string) {
	t.Helper()
	start := time.Now()
	for {
		why := ok()
		took := time.Since(start)
		if why == "" {
			t.Logf("%s: %s (figure %s)", what, took.Round(time.Millisecond), figure)
			return
		}
		if took > 10*figure {
			t.Fatalf("%s: not within %s: %s", what, 10*figure, why)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// stack is Consul, control plane, Envoy, three backends and traffic.
type stack struct {
	t        *testing.T
	consul   *consultest.Consul
	control  *controlPlane
	envoy    *envoytest.Envoy
	config   envoytest.Config
	backends []*backend.Backend
	edge     string // host:port of the listener
	load     *traffic.Load
}

const pathDocuments = `
kind: Upstream
name: web
spec:
  service: {source: consul, name: web}
  healthChecks: [{http: {path: /healthz}, interval: 200ms, timeout: 150ms, unhealthyThreshold: 2, healthyThreshold: 1}]
---
kind: Route
name: web
spec:
  hosts: ["*"]
  rules:
  - to: [{upstream: web}]
    timeout: 5s
---
kind: Listener
name: edge
spec: {address: "%s", routes: [web], accessLog: {to: "off"}}
---
kind: Group
name: edge
spec: {listeners: [edge]}
`

func newStack(t *testing.T, envoyVersion string, k *keys) *stack {
	t.Helper()
	s := &stack{t: t}
	program, err := envoytest.Find(envoyVersion)
	proc.Need(t, err)
	s.consul, err = consultest.Start(t.Context(), consultest.Config{Dir: t.TempDir()})
	proc.Need(t, err)
	t.Cleanup(func() { s.consul.Kill() })
	s.control = serveWith(t, k, "--consul", s.consul.Address)
	if s.edge, err = freeport.Addr(); err != nil {
		t.Fatal(err)
	}
	s.control.apply(fmt.Sprintf(pathDocuments, s.edge))
	for _, name := range []string{"a", "b", "c"} {
		b, err := backend.Start(name, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Kill)
		s.backends = append(s.backends, b)
	}
	s.config = envoytest.Config{Program: program, Dir: t.TempDir(), Bootstrap: bootstrap.Config{
		NodeID: "edge-1", Group: "edge", XDS: []string{s.control.XDS}, TLS: k.bootstrap("edge-1"), Telemetry: s.control.reports("edge-1"), Envoy: envoyVersion,
	}}
	if s.config.Bootstrap.Admin, err = freeport.Addr(); err != nil {
		t.Fatal(err)
	}
	s.startEnvoy()
	return s
}

func (s *stack) startEnvoy() {
	s.t.Helper()
	var err error
	if s.envoy, err = envoytest.Start(s.t.Context(), s.config); err != nil {
		s.t.Fatal(err)
	}
	e := s.envoy
	s.t.Cleanup(func() { e.Kill() })
}

func (s *stack) register(i int) {
	s.t.Helper()
	b := s.backends[i]
	_, port, _ := net.SplitHostPort(b.Addr)
	n, _ := strconv.Atoi(port)
	if err := s.consul.Client.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "web-" + b.Name, Name: "web", Address: "127.0.0.1", Port: n,
		Check: &api.AgentServiceCheck{CheckID: "ttl-" + b.Name, TTL: "1h", Status: api.HealthPassing},
	}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stack) deregister(i int) {
	s.t.Helper()
	if err := s.consul.Client.Agent().ServiceDeregister("web-" + s.backends[i].Name); err != nil {
		s.t.Fatal(err)
	}
}

// get sends one request.
func (s *stack) get() (status int, body string) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.edge+"/", nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	buf := make([]byte, 200)
	n, _ := resp.Body.Read(buf)
	return resp.StatusCode, strings.TrimSpace(string(buf[:n]))
}

// answers waits for a status and a part of the body.
func (s *stack) answers(figure time.Duration, what string, status int, body string) {
	s.t.Helper()
	within(s.t, figure, what, func() string {
		got, text := s.get()
		if got == status && strings.Contains(text, body) {
			return ""
		}
		return fmt.Sprintf("%d %s", got, text)
	})
}

// quiet waits until no request goes to a backend for a while.
func (s *stack) quiet(figure time.Duration, what string, b *backend.Backend) {
	s.t.Helper()
	last, since := b.Count(), time.Now()
	within(s.t, figure, what, func() string {
		if n := b.Count(); n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) > 300*time.Millisecond { // 60 requests at 200 a second
			return ""
		}
		return fmt.Sprintf("%d requests so far", last)
	})
}

// noneLost stops the traffic and wants every request answered with 200.
func (s *stack) noneLost(what string) {
	s.t.Helper()
	sum := traffic.Sum(s.load.Stop())
	s.t.Logf("%s: %d requests, %d lost, by backend %v", what, sum.Total, sum.Failed(), sum.Backends)
	if sum.Failed() > 0 || sum.Total == 0 {
		s.t.Errorf("%s: %d of %d requests lost: %v", what, sum.Failed(), sum.Total, sum.Failures)
	}
}

func (s *stack) startLoad() {
	s.load = traffic.Start(s.t.Context(), traffic.Config{URL: "http://" + s.edge + "/", PerSecond: 200})
}

// TestRealPath walks the whole road with a real Consul and a real Envoy.
func TestRealPath(t *testing.T) {
	for _, version := range []string{"1.40", "1.37"} {
		t.Run(version, func(t *testing.T) { walkPath(t, version, nil) })
	}
	t.Run("mutual TLS", func(t *testing.T) { walkPath(t, "1.40", newKeys(t)) })
}

// unwell says what health says while not every backend is healthy. The 503s that the
// walk asked for itself count as failures for a minute.
func (s *stack) unwell() string {
	out, code := s.control.cli("health")
	if all := strings.Contains(out, "3/3"); all && (code == 0 || strings.Contains(out, "requests failed lately")) {
		return ""
	}
	return out
}

func walkPath(t *testing.T, version string, k *keys) {
	s := newStack(t, version, k)

	// 1. nobody is registered: the listener is there, the answer is UH
	s.answers(5*time.Second, "listener with an empty upstream", 503, "no healthy upstream")

	// 2. registered → 200
	for i := range s.backends {
		s.register(i)
	}
	s.answers(time.Second, "registered → 200", 200, "")
	within(t, time.Second, "all three take traffic", func() string {
		_, _ = s.get()
		for _, b := range s.backends {
			if b.Count() == 0 {
				return b.Name + " has none"
			}
		}
		return ""
	})

	// 3. one critical: its share goes to 0, nothing is lost
	s.startLoad()
	agent := s.consul.Client.Agent()
	if err := agent.UpdateTTL("ttl-a", "disk full", api.HealthCritical); err != nil {
		t.Fatal(err)
	}
	s.quiet(time.Second, "critical → no share", s.backends[0])
	s.noneLost("one critical")
	if out, code := s.control.cli("health", "web"); code != 79 || !strings.Contains(out, "disk full") || !strings.Contains(out, "degraded") {
		t.Errorf("health web: exit %d\n%s", code, out)
	}
	if err := agent.UpdateTTL("ttl-a", "", api.HealthPassing); err != nil {
		t.Fatal(err)
	}

	// 4. one in maintenance: open requests finish, no new ones
	s.startLoad()
	s.backends[1].SetDelay(700 * time.Millisecond)
	within(t, time.Second, "requests are open at b", func() string {
		if s.backends[1].Open() > 0 {
			return ""
		}
		return "none"
	})
	if err := agent.EnableServiceMaintenance("web-b", "new disk"); err != nil {
		t.Fatal(err)
	}
	s.quiet(2*time.Second, "maintenance → no new requests", s.backends[1])
	s.backends[1].SetDelay(0)
	s.noneLost("one in maintenance")
	if err := agent.DisableServiceMaintenance("web-b"); err != nil {
		t.Fatal(err)
	}

	// 5. Consul killed and back: nothing is lost
	s.startLoad()
	s.consul.Kill()
	time.Sleep(2 * time.Second)
	if err := s.consul.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "source fresh again", func() string {
		out, code := s.control.cli("sources")
		if code == 0 {
			return ""
		}
		return out
	})
	time.Sleep(time.Second)
	s.noneLost("Consul killed and back")

	// A restarted Consul calls TTL checks critical until the service says otherwise,
	// as a live one does by its heartbeat; what follows begins when all pass.
	within(t, 5*time.Second, "healthy again", func() string {
		for _, b := range s.backends {
			if err := agent.UpdateTTL("ttl-"+b.Name, "", api.HealthPassing); err != nil {
				return err.Error()
			}
		}
		return s.unwell()
	})

	// 6. control plane restarted under traffic: nothing is lost
	s.startLoad()
	_ = s.control.Signal(syscall.SIGKILL)
	<-s.control.Done()
	time.Sleep(500 * time.Millisecond)
	s.control.start()
	within(t, 5*time.Second, "proxy connected again", func() string {
		out, _ := s.control.cli("proxies")
		if strings.Contains(out, "edge-1") && strings.Contains(out, "current") {
			return ""
		}
		return out
	})
	within(t, 5*time.Second, "the assignment, which every new stream is answered", func() string {
		if sent := s.control.metric("wellspring_xds_resources_total", `change="sent"`); sent < 1 {
			return "nothing was sent"
		}
		return ""
	})
	time.Sleep(300 * time.Millisecond)
	s.noneLost("control plane killed and back")
	if sent := s.control.metric("wellspring_xds_resources_total", `change="sent"`); sent != 1 {
		out, _ := s.control.cli("events", "-o", "wide", "--limit", "50")
		t.Errorf("the reconnect was sent %v resources, want the one assignment\n%s\n%s", sent, out, s.control.Output())
	}

	// 7. Envoy restarted
	s.envoy.Kill()
	started := time.Now()
	s.startEnvoy()
	s.answers(2*time.Second, "Envoy restarted → 200, once its admin answers", 200, "")
	t.Logf("Envoy started and answered after %s (figure 2s)", time.Since(started).Round(time.Millisecond))

	// 8. all deregistered while their processes live and pass checks: UH
	for i := range s.backends {
		s.deregister(i)
	}
	s.answers(time.Second, "deregistered → 503 UH", 503, "no healthy upstream")
	out, code := s.control.cli("health")
	if code != 79 || !strings.Contains(out, "empty") || !strings.Contains(out, `source consul knows no service "web"`) {
		t.Errorf("health: exit %d\n%s", code, out)
	}

	// 9. registered again → 200
	for i := range s.backends {
		s.register(i)
	}
	s.answers(time.Second, "registered again → 200", 200, "")
	within(t, time.Second, "health says healthy", s.unwell)
}

// metric sums the samples of a metric whose labels contain a text.
func (c *controlPlane) metric(name, label string) float64 {
	c.t.Helper()
	text, err := c.client().Text(c.t.Context(), "/metrics")
	if err != nil {
		c.t.Fatal(err)
	}
	sum := 0.0
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, name+"{") && strings.Contains(line, label) {
			v, _ := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
			sum += v
		}
	}
	return sum
}
