package main_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/consultest"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

// TestRealImport: services of a real Consul are reached by name without a document,
// come and go with their registration, and survive a restart of the control plane
// while Consul is dead.
func TestRealImport(t *testing.T) {
	program, err := envoytest.Find("")
	proc.Need(t, err)
	consul, err := consultest.Start(t.Context(), consultest.Config{Dir: t.TempDir()})
	proc.Need(t, err)
	t.Cleanup(func() { consul.Kill() })
	other, err := consultest.Start(t.Context(), consultest.Config{Dir: t.TempDir()})
	proc.Need(t, err)
	t.Cleanup(func() { other.Kill() })
	a, b := newEcho(t, "a"), newEcho(t, "b")
	register := func(at *consultest.Consul, name string, e *echo) {
		t.Helper()
		port, _ := strconv.Atoi(portOf(e.addr))
		if err := at.Client.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: name, Name: name, Address: "127.0.0.1", Port: port, Tags: []string{"wellspring"}}); err != nil {
			t.Fatal(err)
		}
	}
	register(consul, "web", a)
	register(consul, "Web_API", b)
	register(consul, "declared", a)
	config := filepath.Join(t.TempDir(), "wellspring.yaml")
	text := fmt.Sprintf("sources:\n- {name: consul, import: all, consul: {address: '%s'}}\n- {name: other, import: tagged, consul: {address: '%s'}}\n", consul.Address, other.Address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, control: serve(t, "-c", config)}
	if s.edge, err = freeport.Addr(); err != nil {
		t.Fatal(err)
	}
	s.control.apply(fmt.Sprintf("kind: Upstream\nname: declared\nspec: {endpoints: [{address: '%s'}]}\n---\n"+
		"kind: Listener\nname: outbound\nspec: {address: '%s', autoRoutes: {domain: svc.local}, accessLog: {to: 'off'}}\n---\nkind: Group\nname: edge\nspec: {listeners: [outbound]}\n", b.addr, s.edge))
	e, err := envoytest.Start(t.Context(), envoytest.Config{Program: program, Dir: t.TempDir(), Bootstrap: bootstrap.Config{NodeID: "edge-1", Group: "edge", XDS: []string{s.control.XDS}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Kill)
	says := func(figure time.Duration, host string, status int, body string) {
		t.Helper()
		within(t, figure, host, func() string {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.edge+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			resp, err := (&http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
			if err != nil {
				return err.Error()
			}
			defer resp.Body.Close() //nolint:errcheck // read only
			text := make([]byte, 100)
			n, _ := resp.Body.Read(text)
			if got := string(text[:n]); resp.StatusCode != status || !strings.HasPrefix(got, body) {
				return fmt.Sprint(resp.StatusCode, " ", got)
			}
			return ""
		})
	}
	says(5*time.Second, "web.svc.local", 200, "a")
	says(time.Second, "x-x57eb-x5f-x41-x50-x49.svc.local", 200, "b") // Web_API
	says(time.Second, "declared.svc.local", 200, "b")                // what is declared wins
	says(time.Second, "nobody.svc.local", 404, "")

	// shown as what it is
	var list admin.List
	if err := s.control.client().Get(t.Context(), "/v1/upstreams", nil, &list); err != nil {
		t.Fatal(err)
	}
	var shown []string
	for _, x := range list.Items {
		shown = append(shown, fmt.Sprint(x.Document.(map[string]any)["name"], " ", x.Declared))
	}
	if got := strings.Join(shown, " "); got != "declared true web false x-x57eb-x5f-x41-x50-x49 false" {
		t.Errorf("upstreams: %s", got)
	}
	if out, code := s.control.cli("health"); code != 0 || !strings.Contains(out, "web ") {
		t.Errorf("health: exit %d\n%s", code, out)
	}
	if out, code := s.control.cli("get", "upstream", "web", "-o", "yaml"); code != 0 || !strings.Contains(out, "source: consul") {
		t.Errorf("get: exit %d\n%s", code, out)
	}

	// a new one, one that goes, and one that two sources have
	register(consul, "late", b)
	says(10*time.Second, "late.svc.local", 200, "b")
	if err := consul.Client.Agent().ServiceDeregister("late"); err != nil {
		t.Fatal(err)
	}
	says(5*time.Second, "late.svc.local", 503, "no healthy upstream") // nobody there, and not: no such name
	register(other, "web", b)
	within(t, 10*time.Second, "two sources have the name", func() string {
		out, _ := s.control.cli("health", "-o", "wide")
		if strings.Contains(out, "consul/web: cannot be imported: other/web would be Upstream/web too") && strings.Contains(out, "other/web: cannot be imported") {
			return ""
		}
		return out
	})
	says(time.Second, "web.svc.local", 200, "a") // who was there first stays
	if err := other.Client.Agent().ServiceDeregister("web"); err != nil {
		t.Fatal(err)
	}

	// the control plane starts again while Consul is dead: what Envoy has stays
	says(10*time.Second, "declared.svc.local", 200, "b")
	consul.Kill()
	_ = s.control.Signal(syscall.SIGKILL)
	<-s.control.Done()
	s.control.start()
	within(t, 10*time.Second, "the stream is refused with the reason", func() string {
		var p admin.Proxies
		if err := s.control.client().Get(t.Context(), "/v1/proxies", nil, &p); err != nil || len(p.Refused) == 0 {
			return "not yet"
		}
		if why := p.Refused[0].Why; !strings.Contains(why, "waits for the first list of services to import after a start, from source consul") {
			return why
		}
		return ""
	})
	says(time.Second, "declared.svc.local", 200, "b")
	says(time.Second, "x-x57eb-x5f-x41-x50-x49.svc.local", 200, "b")
	if err := consul.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "served again", func() string {
		out, _ := s.control.cli("proxies")
		if strings.Contains(out, "current") {
			return ""
		}
		return out
	})
	says(time.Second, "x-x57eb-x5f-x41-x50-x49.svc.local", 200, "b")
}

// TestRealDatacenters: one Consul leads to the services of another datacenter, as a
// source of its own that is imported, and by a document; where that datacenter dies,
// what it said last is used.
func TestRealDatacenters(t *testing.T) {
	program, err := envoytest.Find("")
	proc.Need(t, err)
	here, err := consultest.Start(t.Context(), consultest.Config{Dir: t.TempDir(), Datacenter: "dc1"})
	proc.Need(t, err)
	t.Cleanup(func() { here.Kill() })
	there, err := consultest.Start(t.Context(), consultest.Config{Dir: t.TempDir(), Datacenter: "dc2", JoinWAN: []string{here.WAN}})
	proc.Need(t, err)
	t.Cleanup(func() { there.Kill() })
	a, b, c := newEcho(t, "a"), newEcho(t, "b"), newEcho(t, "c")
	register := func(at *consultest.Consul, name string, e *echo) {
		t.Helper()
		port, _ := strconv.Atoi(portOf(e.addr))
		if err := at.Client.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: name, Name: name, Address: "127.0.0.1", Port: port}); err != nil {
			t.Fatal(err)
		}
	}
	register(here, "web", a)
	register(there, "billing", b)
	register(there, "shop", c)
	config := filepath.Join(t.TempDir(), "wellspring.yaml")
	text := fmt.Sprintf("sources:\n- {name: here, import: all, consul: {address: '%[1]s'}}\n- {name: there, import: all, consul: {address: '%[1]s', datacenter: dc2}}\n", here.Address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, control: serve(t, "-c", config)}
	if s.edge, err = freeport.Addr(); err != nil {
		t.Fatal(err)
	}
	s.control.apply(fmt.Sprintf("kind: Upstream\nname: elsewhere\nspec: {service: {source: here, name: shop, datacenter: dc2}}\n---\n"+
		"kind: Listener\nname: outbound\nspec: {address: '%s', autoRoutes: {domain: svc.local}, accessLog: {to: 'off'}}\n---\nkind: Group\nname: edge\nspec: {listeners: [outbound]}\n", s.edge))
	e, err := envoytest.Start(t.Context(), envoytest.Config{Program: program, Dir: t.TempDir(), Bootstrap: bootstrap.Config{NodeID: "edge-1", Group: "edge", XDS: []string{s.control.XDS}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Kill)
	all := func() string {
		var out []string
		for _, name := range []string{"web", "billing", "shop", "elsewhere"} {
			status, body, _ := ask(t.Context(), s.edge, "http://"+name+".svc.local/")
			out = append(out, fmt.Sprint(name, " ", status, " ", body))
		}
		return strings.Join(out, ", ")
	}
	const want = "web 200 a, billing 200 b, shop 200 c, elsewhere 200 c"
	within(t, 10*time.Second, "both datacenters are reached", func() string {
		if got := all(); got != want {
			return got
		}
		return ""
	})
	there.Kill()
	within(t, 10*time.Second, "the dead datacenter is told", func() string {
		out, _ := s.control.cli("sources")
		if regexp.MustCompile(`(?m)^there +- +fresh`).MatchString(out) || !regexp.MustCompile(`(?m)^here +- +fresh`).MatchString(out) {
			return out
		}
		return ""
	})
	if got := all(); got != want {
		t.Errorf("after its death: %s", got)
	}
}
