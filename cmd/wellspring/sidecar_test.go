package main_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/examples/traffic"
	"github.com/wellspring-xds/wellspring/pkg/consultest"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

// pod is an application with a sidecar before and behind it.
type pod struct {
	t       *testing.T
	m       *mesh
	name    string // of its group, which is of it alone: all of them are on one machine
	service string
	handler http.HandlerFunc

	inbound, outbound string
	config            envoytest.Config
	port              string // the application's own
	app               *http.Server
	envoy             *envoytest.Envoy
	asked             atomic.Int64 // requests of others
}

// mesh is pods, Consul, and a control plane that imports what Consul has.
type mesh struct {
	t       *testing.T
	consul  *consultest.Consul
	control *controlPlane
	pods    []*pod
}

func newMesh(t *testing.T) *mesh {
	t.Helper()
	m := &mesh{t: t}
	var err error
	m.consul, err = consultest.Start(t.Context(), consultest.Config{Dir: t.TempDir()})
	proc.Need(t, err)
	t.Cleanup(func() { m.consul.Kill() })
	config := filepath.Join(t.TempDir(), "wellspring.yaml")
	if err := os.WriteFile(config, []byte("sources: [{name: consul, import: all, consul: {address: '"+m.consul.Address+"'}}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.control = serve(t, "-c", config)
	return m
}

func (m *mesh) add(name, service string, handler http.HandlerFunc) *pod {
	m.t.Helper()
	ports, err := freeport.Get(4)
	if err != nil {
		m.t.Fatal(err)
	}
	at := func(i int) string { return "127.0.0.1:" + strconv.Itoa(ports[i]) }
	p := &pod{t: m.t, m: m, name: name, service: service, port: at(0), inbound: at(1), outbound: at(2)}
	p.config = envoytest.Config{Dir: m.t.TempDir(), Bootstrap: bootstrap.Config{
		NodeID: name, Group: name, XDS: []string{m.control.XDS}, Admin: at(3), DrainTime: 20 * time.Second,
	}}
	p.handler = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			p.asked.Add(1)
			handler(w, r)
		}
	}
	m.pods = append(m.pods, p)
	return p
}

// documents of one pod: what comes in, and what the application calls.
func (p *pod) documents() string {
	return strings.NewReplacer("{name}", p.name, "{app}", p.port, "{in}", p.inbound, "{out}", p.outbound).Replace(`
kind: Upstream
name: {name}-app
spec: {endpoints: [{address: "{app}"}]}
---
kind: Route
name: {name}-in
spec: {hosts: ["*"], rules: [{to: [{upstream: {name}-app}]}]}
---
kind: Listener
name: {name}-in
spec: {address: "{in}", inbound: true, routes: [{name}-in], accessLog: {to: "off"}}
---
kind: Listener
name: {name}-out
spec: {address: "{out}", autoRoutes: {domain: svc.local}, accessLog: {to: "off"}}
---
kind: Group
name: {name}
spec: {listeners: [{name}-in, {name}-out]}
`)
}

// start is the order of a graceful one: the sidecar, the application, and then the
// registry, whose check asks both.
func (p *pod) start() {
	p.t.Helper()
	var err error
	if p.envoy, err = envoytest.Start(p.t.Context(), p.config); err != nil {
		p.t.Fatal(err)
	}
	e := p.envoy
	p.t.Cleanup(e.Kill)
	if err := e.Ready(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	l, err := net.Listen("tcp", p.port)
	if err != nil {
		p.t.Fatal(err)
	}
	p.app = &http.Server{Handler: p.handler, ReadHeaderTimeout: time.Minute}
	app := p.app
	go func() { _ = app.Serve(l) }()
	p.t.Cleanup(func() { _ = app.Close() })
	port, _ := strconv.Atoi(portOf(p.inbound))
	agent := p.m.consul.Client.Agent()
	if err := agent.ServiceRegister(&api.AgentServiceRegistration{
		ID: p.name, Name: p.service, Address: "127.0.0.1", Port: port,
		Check: &api.AgentServiceCheck{HTTP: "http://" + p.inbound + "/healthz", Interval: "1s", Timeout: "1s"},
	}); err != nil {
		p.t.Fatal(err)
	}
	if err := agent.DisableServiceMaintenance(p.name); err != nil {
		p.t.Fatal(err)
	}
}

// drain runs the example's script.
func (p *pod) drain() {
	p.t.Helper()
	consul, err := proc.Find("CONSUL", "consul")
	proc.Need(p.t, err)
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "../../examples/sidecar/drain.sh", p.config.Bootstrap.Admin, p.name+"-in", p.name)
	cmd.Env = append(os.Environ(), "CONSUL="+consul, "CONSUL_HTTP_ADDR="+p.m.consul.Address)
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("drain.sh: %v\n%s", err, out)
	}
}

// stop ends the application once nobody calls it, then the sidecar.
func (p *pod) stop() {
	p.t.Helper()
	p.drain()
	asked := p.asked.Load()
	time.Sleep(500 * time.Millisecond)
	if n := p.asked.Load() - asked; n > 0 {
		p.t.Errorf("%s drained, and was sent %d requests", p.name, n)
	}
	_ = p.app.Close()
	p.envoy.Stop(5 * time.Second)
}

// ask sends a request; through is an HTTP proxy, "" is none. last tells whether the
// answer closes the connection.
func ask(ctx context.Context, through, target string) (status int, body string, last bool) {
	transport := &http.Transport{}
	if through != "" {
		transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: through})
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return 0, err.Error(), false
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, err.Error(), false
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), resp.Close
}

// TestRealSidecar: applications call each other through their sidecars by name, and
// one after the other is stopped and started again without a lost request.
func TestRealSidecar(t *testing.T) {
	m := newMesh(t)
	says := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				time.Sleep(4 * time.Second)
			}
			_, _ = io.WriteString(w, name)
		}
	}
	a := m.add("catalog-a", "catalog", says("a"))
	b := m.add("catalog-b", "catalog", says("b"))
	var front *pod
	front = m.add("front", "front", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			time.Sleep(7 * time.Second)
		}
		status, body, _ := ask(r.Context(), front.outbound, "http://catalog.svc.local"+r.URL.Path)
		w.Header().Set("X-Backend", body)
		w.WriteHeader(cmp.Or(status, http.StatusBadGateway))
		_, _ = io.WriteString(w, body)
	})
	var all []string
	for _, p := range m.pods {
		all = append(all, p.documents())
	}
	m.control.apply(strings.Join(all, "---"))
	for _, p := range m.pods {
		p.start()
	}
	through := "http://" + front.inbound
	seen := map[string]bool{}
	within(t, 10*time.Second, "front calls both", func() string {
		status, body, _ := ask(t.Context(), "", through+"/")
		seen[body] = status == 200
		if seen["a"] && seen["b"] {
			return ""
		}
		return fmt.Sprint(seen)
	})
	if status, body, _ := ask(t.Context(), front.outbound, "http://catalog-a-app.svc.local/"); status != 404 {
		t.Errorf("another's application is reached past its sidecar: %d %s", status, body)
	}

	// one after the other goes and comes back; a slow request is under way each time
	load := traffic.Start(t.Context(), traffic.Config{URL: through + "/", PerSecond: 50})
	for _, p := range []*pod{a, b} {
		slow := make(chan string, 1)
		go func() {
			status, body, _ := ask(t.Context(), "", "http://"+p.inbound+"/slow")
			slow <- fmt.Sprint(status, " ", body)
		}()
		time.Sleep(100 * time.Millisecond)
		p.stop()
		if got, want := <-slow, "200 "+strings.TrimPrefix(p.name, "catalog-"); got != want {
			t.Errorf("the request under way at %s: %s, want %s", p.name, got, want)
		}
		time.Sleep(time.Second)
		p.start()
		within(t, 5*time.Second, p.name+" is used again", func() string {
			if _, body, _ := ask(t.Context(), "", through+"/"); body == strings.TrimPrefix(p.name, "catalog-") {
				return ""
			}
			return "not yet"
		})
	}
	sum := traffic.Sum(load.Stop())
	t.Logf("%d requests, %d lost, by backend %v", sum.Total, sum.Failed(), sum.Backends)
	if sum.Failed() > 0 || sum.Total == 0 {
		t.Errorf("%d of %d requests lost: %v", sum.Failed(), sum.Total, sum.Failures)
	}

	// one that drains still calls out: what it has under way needs others
	late := make(chan string, 1)
	go func() {
		status, body, last := ask(t.Context(), "", through+"/late")
		late <- fmt.Sprint(status, " ", body != "", " ", last)
	}()
	time.Sleep(100 * time.Millisecond)
	front.drain()
	if got := <-late; got != "200 true true" {
		t.Errorf("a request under way at front: %s, want an answer, and the connection closed", got)
	}
	if status, _, last := ask(t.Context(), front.outbound, "http://catalog.svc.local/"); status != 200 || last {
		t.Errorf("its outbound listener drains too: %d, closes: %t", status, last)
	}
	front.stop()
}
