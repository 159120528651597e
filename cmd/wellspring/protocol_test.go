package main_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/examples/backend"
	"github.com/wellspring-xds/wellspring/examples/traffic"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/admin/client"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

// scene is a control plane, one real Envoy and two backends, a and b.
type scene struct {
	t       *testing.T
	control *controlPlane
	envoy   *envoytest.Envoy
	config  envoytest.Config
	a, b    *backend.Backend
	edge    string
}

// sceneDocuments leads everything to upstream web, which is served by a.
const sceneDocuments = `
kind: Upstream
name: web
spec: {endpoints: [{address: "%s"}]}
---
kind: Route
name: web
spec: {hosts: ["*"], rules: [{to: [{upstream: web}]}]}
---
kind: Listener
name: edge
spec: {address: "%s", routes: [web], accessLog: {to: "off"}}
---
kind: Group
name: edge
spec: {listeners: [edge]}
`

func newScene(t *testing.T, sotw bool, args ...string) *scene {
	t.Helper()
	_, err := envoytest.Find("")
	proc.Need(t, err)
	s := &scene{t: t, control: serve(t, args...)}
	if s.edge, err = freeport.Addr(); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]**backend.Backend{"a": &s.a, "b": &s.b} {
		if *b, err = backend.Start(name, "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup((*b).Kill)
	}
	s.control.apply(fmt.Sprintf(sceneDocuments, s.a.Addr, s.edge))
	s.config = envoytest.Config{Dir: t.TempDir(), Bootstrap: bootstrap.Config{NodeID: "e", Group: "edge", XDS: []string{s.control.XDS}}}
	if sotw {
		s.config.Change = stateOfTheWorld
	}
	s.envoy = s.start(s.config)
	s.says("the listener serves", 200, "a ")
	s.settled()
	return s
}

// stateOfTheWorld makes an Envoy speak that in place of delta.
func stateOfTheWorld(b *bootstrapv3.Bootstrap) {
	b.DynamicResources.AdsConfig.ApiType = corev3.ApiConfigSource_GRPC
}

func (s *scene) start(c envoytest.Config) *envoytest.Envoy {
	s.t.Helper()
	e, err := envoytest.Start(s.t.Context(), c)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(e.Kill)
	return e
}

// says waits until a request to a path is answered with a status and words.
func (s *scene) says(what string, status int, words string, path ...string) {
	s.t.Helper()
	within(s.t, 2*time.Second, what, func() string {
		got, body := s.get(path...)
		if got == status && strings.HasPrefix(body, words) {
			return ""
		}
		return fmt.Sprintf("%d %q", got, body)
	})
}

func (s *scene) get(path ...string) (int, string) {
	c := http.Client{Timeout: 5 * time.Second}
	resp, err := c.Get("http://" + s.edge + "/" + strings.Join(path, ""))
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, strings.TrimSpace(string(text))
}

// stream is what the control plane knows of a proxy, nil while it has no stream.
func (s *scene) stream(id string) *model.Stream {
	s.t.Helper()
	var p admin.Proxies
	if err := client.New(client.Config{Server: s.control.Admin}).Get(s.t.Context(), "/v1/proxies", nil, &p); err != nil {
		return nil
	}
	for i := range p.Items {
		if p.Items[i].ID == id {
			return &p.Items[i].Stream
		}
	}
	return nil
}

// settled waits until the Envoy has acknowledged all, in the form that it speaks.
func (s *scene) settled() {
	s.t.Helper()
	kind := "delta"
	if s.config.Change != nil {
		kind = "sotw"
	}
	within(s.t, 5*time.Second, "acknowledged", func() string {
		st := s.stream("e")
		if st == nil || st.Kind != kind {
			return fmt.Sprintf("%+v", st)
		}
		for _, d := range st.Delivery {
			if d.Open > 0 || len(d.Waiting)+len(d.Parked) > 0 || d.Version != d.AckedVersion {
				return fmt.Sprintf("%+v", d)
			}
		}
		return ""
	})
}

// parked waits until just one resource is refused, and wants Envoy's words.
func (s *scene) parked(typ, name, document, words string) {
	s.t.Helper()
	within(s.t, 3*time.Second, typ+" "+name+" refused", func() string {
		st := s.stream("e")
		if st == nil {
			return "no stream"
		}
		var all []model.Parked
		for _, d := range st.Delivery {
			if d.Type == typ {
				all = append(all, d.Parked...)
			}
		}
		if len(all) != 1 || all[0].Name != name || all[0].Document != document || !strings.Contains(all[0].Message, words) {
			return fmt.Sprintf("%+v", all)
		}
		return ""
	})
}

// unharmed runs something under traffic and wants no request lost.
func (s *scene) unharmed(what string, do func()) {
	s.t.Helper()
	load := traffic.Start(s.t.Context(), traffic.Config{URL: "http://" + s.edge + "/", PerSecond: 200})
	time.Sleep(200 * time.Millisecond)
	do()
	time.Sleep(300 * time.Millisecond)
	sum := traffic.Sum(load.Stop())
	s.t.Logf("%s: %d requests, %d lost, by backend %v", what, sum.Total, sum.Failed(), sum.Backends)
	if sum.Failed() > 0 || sum.Total == 0 {
		s.t.Errorf("%s: %d of %d requests lost: %v", what, sum.Failed(), sum.Total, sum.Failures)
	}
}

// TestRealProtocol: what Envoy itself decides of the protocol, delta and state of
// the world.
func TestRealProtocol(t *testing.T) {
	behaviours := map[string]func(t *testing.T, s *scene){
		"listener refused":        listenerRefused,
		"routes refused":          routesRefused,
		"make before break":       makeBeforeBreak,
		"changed cluster":         changedCluster,
		"generations":             generations,
		"reconnect":               reconnect,
		"reconnect while warming": reconnectWhileWarming,
		"slow reader":             slowReader,
	}
	for name, f := range behaviours {
		for kind, sotw := range map[string]bool{"delta": false, "sotw": true} {
			t.Run(name+"/"+kind, func(t *testing.T) { f(t, newScene(t, sotw)) })
		}
	}
}

// A listener whose port is taken is refused in part: it is parked in Envoy's words,
// the others are served and changed, and another port is tried at once.
func listenerRefused(t *testing.T, s *scene) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // nothing is lost
	free, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	second := func(addr string) string {
		return fmt.Sprintf("kind: Listener\nname: second\nspec: {address: %q, routes: [web], accessLog: {to: 'off'}}\n---\nkind: Group\nname: edge\nspec: {listeners: [edge, second]}\n", addr)
	}
	s.unharmed("a listener is refused", func() {
		s.control.apply(second(taken.Addr().String()))
		s.parked("listeners", "second", "Listener/second", "Address already in use")
		s.control.apply(fmt.Sprintf("kind: Upstream\nname: web\nspec: {endpoints: [{address: %q}]}\n", s.b.Addr))
		s.says("the rest goes on", 200, "b ")
	})
	if out, code := s.control.cli("proxies"); code != 79 || !strings.Contains(out, "second") {
		t.Errorf("proxies: exit %d\n%s", code, out)
	}
	s.control.apply(second(free))
	s.settled()
	resp, err := http.Get("http://" + free + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
}

// A route table that Envoy refuses as a whole (an expression that is too large for
// an Envoy whose bootstrap is not ours) leaves the one before in use.
func routesRefused(t *testing.T, s *scene) {
	s.envoy.Kill()
	change := s.config.Change
	s.config.Change = func(b *bootstrapv3.Bootstrap) {
		b.LayeredRuntime = nil
		if change != nil {
			change(b)
		}
	}
	if change == nil {
		defer func() { s.config.Change = nil }()
	}
	s.envoy = s.start(s.config)
	s.says("it serves", 200, "a ")
	route := func(regex string) string {
		return fmt.Sprintf("kind: Route\nname: web\nspec: {hosts: ['*'], rules: [{match: {path: {regex: %q}}, to: [{upstream: web}]}, {match: {path: {prefix: /new}}, to: [{upstream: web}]}]}\n", regex)
	}
	s.unharmed("a route table is refused", func() {
		s.control.apply(route("/[a-z]{1,200}"))
		s.parked("routes", "edge", "Listener/edge", "regex")
		time.Sleep(200 * time.Millisecond)
	})
	s.says("the table before", 200, "a ", "anything")
	s.control.apply(route("/ok"))
	s.says("the next table", 404, "", "anything")
	s.says("the next table", 200, "a ", "ok")
}

// New upstreams and the routes to them, one after the other, under traffic; then
// they go.
func makeBeforeBreak(_ *testing.T, s *scene) {
	s.unharmed("upstreams come and go", func() {
		for i := range 8 {
			name := fmt.Sprintf("u%d", i)
			addr := []string{s.a.Addr, s.b.Addr}[i%2]
			s.control.apply(fmt.Sprintf("kind: Upstream\nname: %s\nspec: {endpoints: [{address: %q}]}\n---\nkind: Route\nname: web\nspec: {hosts: ['*'], rules: [{to: [{upstream: %s}]}]}\n", name, addr, name))
			s.says("over "+name, 200, []string{"a ", "b "}[i%2])
			if i > 0 {
				if _, code := s.control.cli("delete", "upstream", fmt.Sprintf("u%d", i-1)); code != 0 {
					s.t.Errorf("delete u%d: exit %d", i-1, code)
				}
			}
		}
	})
	s.settled()
	out, _ := s.control.cli("xds", "e", "-o", "name")
	if got := strings.Count(out, "clusters/"); got != 1 {
		s.t.Errorf("%d clusters are left:\n%s", got, out)
	}
}

// A cluster that changes and keeps its endpoints is warm at once: Envoy asks for
// nothing, and would wait 15 s for the assignment that must follow unasked.
func changedCluster(t *testing.T, s *scene) {
	s.unharmed("a cluster changes", func() {
		s.control.apply(fmt.Sprintf("kind: Upstream\nname: web\nspec: {endpoints: [{address: %q}], connectTimeout: 3s}\n", s.a.Addr))
		within(t, time.Second, "the changed cluster is warm", func() string {
			out, err := s.envoy.Get(t.Context(), "/config_dump?resource=dynamic_active_clusters")
			if err != nil || !strings.Contains(out, `"connect_timeout": "3s"`) {
				return fmt.Sprint("not yet ", err)
			}
			return ""
		})
	})
	s.settled()
}

// An upstream moves between services and protocols, each time with endpoints of
// its own: the old definition never gets the new endpoints.
func generations(_ *testing.T, s *scene) {
	forms := []string{
		"service: {source: local, name: two}, connectTimeout: 2s, protocol: http2, healthChecks: [{http: {path: /healthz}}]",
		fmt.Sprintf("endpoints: [{address: %q}]", s.a.Addr),
		fmt.Sprintf("endpoints: [{address: %q}], protocol: http2", s.b.Addr),
		"service: {source: local, name: two}",
	}
	s.control.apply(fmt.Sprintf("kind: Service\nname: two\nspec: {endpoints: [{address: %q}, {address: %q}]}\n", s.a.Addr, s.b.Addr))
	s.unharmed("generations follow each other", func() {
		for i := range 12 {
			s.control.apply("kind: Upstream\nname: web\nspec: {" + forms[i%len(forms)] + "}\n")
			time.Sleep(time.Duration(i%4) * 70 * time.Millisecond) // some before the one before is warm
		}
		s.settled()
	})
}

// The control plane is killed and comes back under traffic: what changed meanwhile
// arrives, and what did not is not sent.
func reconnect(t *testing.T, s *scene) {
	s.unharmed("control plane killed and back", func() {
		s.control.Kill()
		time.Sleep(300 * time.Millisecond)
		s.control.start()
		s.settled()
	})
	out, _ := s.control.cli("events", "--limit", "100")
	if strings.Contains(out, "refused") {
		t.Errorf("something was refused:\n%s", out)
	}
	if got := sentTypes(t, s.control.Admin); !slices.Equal(got, []string{"assignments 1"}) {
		t.Errorf("a new stream was sent %v, want the one assignment", got)
	}
}

// The stream breaks while a cluster warms: its first round of checks hangs at a
// host that says nothing. Nothing is lost, and in the end it is served.
func reconnectWhileWarming(_ *testing.T, s *scene) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	defer silent.Close() //nolint:errcheck // nothing is lost
	s.unharmed("the stream breaks while a cluster warms", func() {
		s.control.apply(fmt.Sprintf("kind: Upstream\nname: slow\nspec: {endpoints: [{address: %q}, {address: %q}], healthChecks: [{http: {path: /healthz}, timeout: 3s, interval: 3s}]}\n---\n"+
			"kind: Route\nname: web\nspec: {hosts: ['*'], rules: [{match: {path: {prefix: /slow}}, to: [{upstream: slow}]}, {to: [{upstream: web}]}]}\n", s.b.Addr, silent.Addr()))
		within(s.t, time.Second, "it warms", func() string {
			if out, err := s.envoy.Get(context.Background(), "/config_dump?resource=dynamic_warming_clusters"); err != nil || !strings.Contains(out, `"slow"`) {
				return fmt.Sprint(err, " nothing warms")
			}
			return ""
		})
		s.control.Kill()
		s.control.start()
		s.says("the new upstream", 200, "b ", "slow")
		s.settled()
	})
}

// An Envoy whose process is stopped reads nothing. Another one is served meanwhile
// as if nothing were, and the stopped one has the newest state when it goes on.
func slowReader(t *testing.T, s *scene) {
	other := s.config
	other.Bootstrap.NodeID, other.Bootstrap.Admin = "other", ""
	addr, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	s.control.apply(fmt.Sprintf("kind: Listener\nname: second\nspec: {address: %q, routes: [web], accessLog: {to: 'off'}}\n---\nkind: Group\nname: second\nspec: {match: {id: other}, listeners: [second]}\n---\nkind: Group\nname: edge\nspec: {match: {id: e}, listeners: [edge]}\n", addr))
	s.start(other)
	if err := s.envoy.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	moved := *s
	moved.edge = addr
	for i := range 6 {
		b := []*backend.Backend{s.b, s.a}[i%2]
		s.control.apply(fmt.Sprintf("kind: Upstream\nname: web\nspec: {endpoints: [{address: %q}], connectTimeout: %dms}\n", b.Addr, 1000+i))
		moved.says("the other one", 200, b.Name+" ")
	}
	s.control.apply(fmt.Sprintf("kind: Upstream\nname: web\nspec: {endpoints: [{address: %q}]}\n", s.b.Addr))
	if err := s.envoy.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.says("the stopped one, afterwards", 200, "b ")
	s.settled()
}

// sentTypes lists what a control plane has sent since its start, from its metrics.
func sentTypes(t *testing.T, addr string) (out []string) {
	t.Helper()
	text, err := client.New(client.Config{Server: addr}).Text(t.Context(), "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "wellspring_xds_resources_total{") || !strings.Contains(line, `change="sent"`) {
			continue
		}
		_, typ, _ := strings.Cut(line, `type="`)
		typ, _, _ = strings.Cut(typ, `"`)
		if n := strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]); n != "0" {
			out = append(out, typ+" "+n)
		}
	}
	return out
}

// A real Envoy whose connection becomes old connects anew, again and again, loses no
// request, and hears of changes on each.
func TestRealConnectionAge(t *testing.T) {
	for kind, sotw := range map[string]bool{"delta": false, "sotw": true} {
		t.Run(kind, func(t *testing.T) {
			s := newScene(t, sotw, "--xds-max-connection-age", "2s")
			s.unharmed("connections of two seconds", func() {
				number := uint64(0)
				for range 3 {
					within(t, 10*time.Second, "a newer stream", func() string {
						st := s.stream("e")
						if st == nil || st.Number <= number {
							return fmt.Sprintf("%+v", st)
						}
						number = st.Number
						return ""
					})
					s.settled()
				}
				s.control.apply(fmt.Sprintf(sceneDocuments, s.b.Addr, s.edge))
				s.says("the change", 200, "b ")
			})
		})
	}
}
