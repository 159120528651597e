package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/examples/backend"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/proc"
	"github.com/wellspring-xds/wellspring/xds/xdstest"
)

// TestRealExplain asks why by an upstream, by a request, by a proxy, and by lines that a
// real Envoy wrote to its access logs: ours, Envoy's default, and Istio's format.
func TestRealExplain(t *testing.T) {
	control := serve(t, "--probe-allow-loopback")
	b, err := backend.Start("b", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Kill()
	edge, other := closed(t), closed(t)
	const (
		istio = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%`
		file  = `{name: envoy.access_loggers.file, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: '{dir}/NAME'FORMAT}}`
	)
	dir := t.TempDir()
	istioFile := strings.NewReplacer("NAME", "istio", "FORMAT", ", log_format: {text_format_source: {inline_string: "+strconv.Quote(istio+"\n")+"}}").Replace(file)
	defaultFile := strings.NewReplacer("NAME", "default", "FORMAT", "").Replace(file)
	documents := strings.NewReplacer("{b}", b.Addr, "{check}", labCheck, "{gone}", closed(t), "{edge}", edge, "{other}", other, "{files}", defaultFile+", "+istioFile, "{dir}", dir)
	control.apply(documents.Replace(documents.Replace(`kind: Upstream
name: catalog
spec: {endpoints: [{address: "{b}"}], healthChecks: [{check}]}
---
kind: Upstream
name: cart
spec: {endpoints: [{address: "{b}"}]}
---
kind: Upstream
name: gone
spec: {endpoints: [{address: "{gone}"}]}
---
kind: Route
name: shop
spec:
  hosts: [shop.example]
  rules:
  - {match: {path: {prefix: /cart}, headers: [{name: x-user, exact: anna}]}, to: [{upstream: cart}]}
  - {match: {path: {prefix: /closed}}, respond: {status: 403, body: closed}}
  - {match: {path: {prefix: /catalog}}, to: [{upstream: catalog}]}
  - {match: {path: {prefix: /both}}, to: [{upstream: gone, weight: 1}, {upstream: cart, weight: 3}]}
---
kind: Listener
name: edge
spec: {address: "{edge}", routes: [shop], accessLog: {to: "{dir}/ours"}}
---
kind: Listener
name: other
spec: {address: "{other}", routes: [shop], envoyHTTP: {access_log: [{files}]}}
---
kind: Group
name: edge
spec: {listeners: [edge, other]}
`)))
	e, err := envoytest.Start(t.Context(), envoytest.Config{Dir: t.TempDir(), Bootstrap: bootstrap.Config{
		NodeID: "edge-1", Group: "edge", Envoy: "1.40", XDS: []string{control.XDS}, Telemetry: control.reports("edge-1"),
	}})
	proc.Need(t, err)
	defer e.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := e.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	get := func(path string) (code int) {
		for _, at := range []string{other, edge} {
			code = visitAs(t, at, "shop.example", path)
		}
		return code
	}
	within(t, 5*time.Second, "it serves", func() string {
		if code := get("/catalog"); code != 200 {
			return fmt.Sprint(code)
		}
		return ""
	})
	if out, code := control.cli("explain", "catalog"); code != 0 || !strings.Contains(out, "ruled out") || strings.Contains(out, "likely") {
		t.Errorf("well: exit %d\n%s", code, out)
	}
	b.SetHealth(404)
	says := func(what string, words []string, args ...string) {
		t.Helper()
		within(t, 6*time.Second, what, func() string {
			get("/catalog")
			out, code := control.cli(append([]string{"explain"}, args...)...)
			for _, w := range words {
				if !strings.Contains(out, w) {
					return fmt.Sprintf("no %q, exit %d:\n%s", w, code, out)
				}
			}
			for line := range strings.Lines(out) {
				if n := len([]rune(strings.TrimRight(line, "\n"))); n > 80 {
					return fmt.Sprintf("a line of %d characters: %s", n, line)
				}
			}
			if code != 79 {
				return fmt.Sprintf("exit %d", code)
			}
			return ""
		})
	}
	says("by its name", []string{"upstream catalog: panic hides", "CAUSE H1", "certain", "from here: " + b.Addr + ": GET /healthz: 404, expected 200", "CAUSE P2"}, "catalog")
	says("by a request", []string{"Route/shop rules[2]: catalog", "CAUSE H1"}, "--host", "shop.example", "--path", "/catalog/7?x=1")
	says("by a request of anna's", []string{"Route/shop rules[1]: the proxy answers 403", "CAUSE G3"}, "--host", "shop.example:80", "--path", "/closed", "-H", "x-user: anna")
	says("by a request that goes nowhere", []string{"CAUSE G2", "rules[2]: path"}, "--host", "shop.example", "--path", "/nowhere")
	within(t, 10*time.Second, "by a request of which a part goes there", func() string {
		for range 10 {
			visitAs(t, other, "shop.example", "/both")
		}
		out, _ := control.cli("explain", "--host", "shop.example", "--path", "/both")
		if !strings.Contains(out, "gone (weight 1)") || !strings.Contains(out, "CAUSE E1") || !strings.Contains(out, "CAUSE G4") {
			return out
		}
		return ""
	})
	for code, query := range map[diagnose.Code]url.Values{diagnose.G2: {"host": {"shop.example"}, "path": {"/nowhere"}}, diagnose.G4: {"host": {"shop.example"}, "path": {"/both"}}} {
		var x diagnose.Explanation
		if err := control.client().Get(t.Context(), "/v1/explain", query, &x); err != nil || !slices.ContainsFunc(x.Findings, func(f diagnose.Finding) bool { return f.Code == code }) {
			t.Errorf("%s: %v, %+v", code, err, x.Findings)
		}
		keepAnswer(t, string(code), x)
	}
	says("by a proxy", []string{"CAUSE H1"}, "catalog", "--proxy", "edge-1")
	if out, code := control.cli("explain", "--host", "shop.example", "--path", "/cart", "-H", "x-user: anna"); code != 0 || !strings.Contains(out, "rules[0]: cart") {
		t.Errorf("another upstream: exit %d\n%s", code, out)
	}
	for _, args := range [][]string{{"explain"}, {"explain", "none"}, {"explain", "catalog", "--proxy", "edge-9"}, {"explain", "--log", "what"}, {"explain", "--host", "x", "-H", "y"}} {
		if out, code := control.cli(args...); code == 0 || code == 79 || out != "" {
			t.Errorf("%v: exit %d: %s", args, code, out)
		}
	}
	out, code := control.cli("explain", "catalog", "-o", "json")
	var x diagnose.Explanation
	if err := json.Unmarshal([]byte(out), &x); err != nil || code != 79 || x.Findings[0].Code != diagnose.H1 || x.Findings[0].Proxies.Count != 1 {
		t.Errorf("JSON: %v, exit %d\n%s", err, code, out)
	}
	if out, code := control.cli("explain", "catalog", "-o", "name"); code != 79 || !strings.HasPrefix(out, "H1\n") {
		t.Errorf("names: exit %d: %s", code, out)
	}

	asReadme(t, control, edge)

	// lines that a real Envoy wrote
	b.Kill()
	for _, name := range []string{"ours", "default", "istio"} {
		within(t, 12*time.Second, "a line of the log "+name, func() string {
			get("/catalog")
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				return err.Error()
			}
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			last := lines[len(lines)-1]
			cmd := exec.CommandContext(t.Context(), binary(t), "--server", control.Admin, "explain", "--log", "-")
			cmd.Stdin = strings.NewReader("older\n" + last + "\n")
			out, _ := cmd.Output()
			for _, w := range []string{"upstream catalog:", "log: status 503, flag U", "CAUSE H3"} {
				if !strings.Contains(string(out), w) {
					return fmt.Sprintf("no %q of %s:\n%s", w, last, out)
				}
			}
			return ""
		})
	}
}

// asReadme takes the endpoints of cart away, while somebody asks for it, and wants what
// README shows of that.
func asReadme(t *testing.T, control *controlPlane, edge string) {
	t.Helper()
	control.apply("kind: Upstream\nname: cart\nspec: {endpoints: []}\n")
	var asks sync.WaitGroup
	enough := make(chan struct{})
	asks.Go(func() {
		for {
			select {
			case <-enough:
				return
			default:
			}
			visitAs(t, edge, "shop.example", "/cart", "x-user", "anna")
			time.Sleep(50 * time.Millisecond)
		}
	})
	defer asks.Wait()
	defer close(enough)
	within(t, 6*time.Second, "as README shows it", func() string {
		readme, err := os.ReadFile("../../README.md")
		if err != nil {
			return err.Error()
		}
		out, _ := control.cli("explain", "cart")
		_, shown, _ := strings.Cut(string(readme), "\nCAUSE ")
		line, _, _ := strings.Cut(shown, "\n")
		if !strings.Contains(out, "upstream cart: no healthy upstream in proxy edge-1, since ") || !strings.Contains(out, "\nCAUSE "+line+"\n") {
			return fmt.Sprintf("no %q:\n%s", line, out)
		}
		return ""
	})
}

// visitAs is the status of a request for a host; 0 is none.
func visitAs(t *testing.T, at, host, path string, headers ...string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// The figures of TestRealExplainSpeed.
const (
	speedUpstreams = 1000
	speedProxies   = 200
)

// TestRealExplainSpeed asks why of 1,000 upstreams, as 200 proxies report on them; and
// then where nobody who is asked answers: neither admins nor endpoints. It prints the
// 99th percentile, and how long the silent ones take.
func TestRealExplainSpeed(t *testing.T) {
	control := serve(t, "--probe-allow-loopback")
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes connections, and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() //nolint:errcheck // a test's
	var text, to strings.Builder
	for i := range speedUpstreams {
		fmt.Fprintf(&text, "kind: Upstream\nname: u-%d\nspec: {endpoints: [{address: '127.0.0.2:%d'}]}\n---\n", i, 1000+i)
		fmt.Fprintf(&to, "{upstream: u-%d}, ", i)
	}
	group := func(name, to string) string {
		return fmt.Sprintf("---\nkind: Route\nname: %s\nspec: {hosts: ['*'], rules: [{to: [%s]}]}\n---\nkind: Listener\nname: %[1]s\nspec: {address: '127.0.0.1:1', routes: [%[1]s]}\n---\nkind: Group\nname: %[1]s\nspec: {listeners: [%[1]s]}\n", name, to)
	}
	control.apply(text.String() + "kind: Upstream\nname: dead\nspec: {endpoints: [{address: '" + silent.Addr().String() + "'}], healthChecks: [" + strings.Replace(labCheck, "400ms", "10s", 1) + "]}\n" +
		group("edge", to.String()) + group("dead", "{upstream: dead}"))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i := range speedProxies + 6 {
		conn, err := grpc.NewClient(control.XDS, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // a test's
		c := xdstest.Config{ID: fmt.Sprintf("p-%d", i), Cluster: "edge", Metadata: map[string]any{bootstrap.MetadataTelemetry: "upstreams", bootstrap.MetadataReportKey: "k"}}
		if i >= speedProxies {
			c.Cluster = "dead"
			c.Metadata["admin"] = silent.Addr().String()
		}
		e := xdstest.New(c)
		wg.Go(func() { _ = e.Run(ctx, conn) })
	}
	within(t, 60*time.Second, "all proxies are current", func() string {
		var o admin.Overview
		if err := control.client().Get(t.Context(), "/v1/health", nil, &o); err != nil {
			t.Fatal(err)
		}
		if o.Proxies.Current != speedProxies+6 {
			return fmt.Sprintf("%+v", o.Proxies)
		}
		return ""
	})
	report := zippedReport(speedUpstreams)
	client := &http.Client{}
	defer client.CloseIdleConnections()
	for i := range speedProxies {
		for code := 0; code != http.StatusOK; {
			if code, err = postReport(t.Context(), client, control.Telemetry, fmt.Sprintf("p-%d", i), report); err != nil {
				t.Fatal(err)
			}
			if code == http.StatusTooManyRequests {
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
	ask := func(upstream string) (e diagnose.Explanation, took time.Duration) {
		start := time.Now()
		if err := control.client().Get(t.Context(), "/v1/explain", url.Values{"upstream": {upstream}}, &e); err != nil {
			t.Fatal(err)
		}
		return e, time.Since(start)
	}
	var all []time.Duration
	for range 300 {
		e, took := ask(fmt.Sprintf("u-%d", rand.IntN(speedUpstreams)))
		all = append(all, took)
		if len(all) == 1 {
			t.Logf("%s: %s", e.Upstream, e.Says)
		}
	}
	slices.Sort(all)
	p99 := all[len(all)*99/100]
	t.Logf("explain at %d upstreams and %d proxies: p50 %s, p99 %s (figure 300ms)", speedUpstreams, speedProxies, all[len(all)/2].Round(time.Millisecond), p99.Round(time.Millisecond))
	if p99 > 3*time.Second {
		t.Errorf("p99 %s", p99)
	}
	e, took := ask("dead")
	t.Logf("nobody answers: %s (figure 2s): %s; not asked: %v", took.Round(time.Millisecond), e.Says, e.NotAsked)
	if took > 20*time.Second || len(e.NotAsked) < 3 {
		t.Errorf("%s; not asked: %v", took, e.NotAsked)
	}
}
