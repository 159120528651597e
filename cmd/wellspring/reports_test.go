package main_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	sinkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/stat_sinks/open_telemetry/v3"
	"google.golang.org/protobuf/types/known/anypb"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/examples/traffic"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/notify"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

// gap is a way to the telemetry listener that can be cut.
type gap struct {
	t        *testing.T
	from, to string

	mu       sync.Mutex // guards what follows
	listener net.Listener
	open     []net.Conn
	received int // bytes from the proxy
}

func newGap(t *testing.T, to string) *gap {
	t.Helper()
	from, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	g := &gap{t: t, from: from, to: to}
	g.close(false)
	t.Cleanup(func() { g.close(true) })
	return g
}

// close cuts the way, or opens it again.
func (g *gap) close(closed bool) {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if closed {
		_ = g.listener.Close()
		for _, c := range g.open {
			_ = c.Close()
		}
		g.open = nil
		return
	}
	l, err := net.Listen("tcp", g.from)
	if err != nil {
		g.t.Fatal(err)
	}
	g.listener = l
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go g.pass(c)
		}
	}()
}

func (g *gap) pass(in net.Conn) {
	out, err := net.Dial("tcp", g.to)
	if err != nil {
		_ = in.Close()
		return
	}
	g.mu.Lock()
	g.open = append(g.open, in, out)
	g.mu.Unlock()
	go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := in.Read(buf)
		g.mu.Lock()
		g.received += n
		g.mu.Unlock()
		if err == nil {
			_, err = out.Write(buf[:n])
		}
		if err != nil {
			_ = out.Close()
			return
		}
	}
}

func (g *gap) bytes() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.received
}

// fleetDocuments are upstreams a, which answers, and nobody.
const fleetDocuments = `
kind: Upstream
name: a
spec: {endpoints: [{address: "%s"}]}
---
kind: Upstream
name: nobody
spec: {endpoints: []}
---
kind: Route
name: all
spec:
  hosts: ["*"]
  rules:
  - {match: {path: {prefix: /nobody}}, to: [{upstream: nobody}]}
  - {to: [{upstream: a}]}
---
kind: Listener
name: edge
spec: {address: "%s", routes: [all], accessLog: {to: "off"}}
---
kind: Group
name: edge
spec: {listeners: [edge]}
`

// reporting starts an Envoy of group edge, and returns where it listens.
func reporting(t *testing.T, control *controlPlane, c envoytest.Config) (e *envoytest.Envoy, edge string) {
	t.Helper()
	edge, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	control.apply(fmt.Sprintf(fleetDocuments, switched(t, "good"), edge))
	c.Dir, c.Bootstrap.Group, c.Bootstrap.XDS = t.TempDir(), "edge", []string{control.XDS}
	e, err = envoytest.Start(t.Context(), c)
	proc.Need(t, err)
	t.Cleanup(e.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := e.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return e, edge
}

// proxies is the fleet as it is shown.
func (c *controlPlane) proxies() (p admin.Proxies) {
	c.t.Helper()
	if err := c.client().Get(c.t.Context(), "/v1/proxies", nil, &p); err != nil {
		c.t.Fatal(err)
	}
	return p
}

// reports is how a proxy reports.
func (c *controlPlane) reportsOf(id string) fleet.Reports {
	c.t.Helper()
	for _, p := range c.proxies().Items {
		if p.ID == id && p.Reports != nil {
			return *p.Reports
		}
	}
	return fleet.Reports{}
}

// TestRealGap: the telemetry listener is gone for a minute. No request is lost, Envoy's
// memory stays, the gap is said while it lasts and after, and the counts are right.
func TestRealGap(t *testing.T) {
	control := serve(t)
	way := newGap(t, control.Telemetry)
	e, edge := reporting(t, control, envoytest.Config{Bootstrap: bootstrap.Config{NodeID: "edge-1", Envoy: "1.40", Telemetry: &bootstrap.Telemetry{Addresses: []string{way.from}, Key: "k"}}})
	within(t, 10*time.Second, "the first report", func() string {
		if r := control.reportsOf("edge-1"); r.State != fleet.ReportsVerified {
			return fmt.Sprintf("%+v", r)
		}
		return ""
	})
	fine := traffic.Start(t.Context(), traffic.Config{URL: "http://" + edge + "/", PerSecond: 50})
	lost := traffic.Start(t.Context(), traffic.Config{URL: "http://" + edge + "/nobody", PerSecond: 20})
	time.Sleep(10 * time.Second)
	before := resident(t, e.Pid())
	way.close(true)
	time.Sleep(30 * time.Second)
	if out, _ := control.cli("health"); !strings.Contains(out, "reports: 0 proxies report; 1 do not report any more: edge-1") {
		t.Errorf("the gap is not said:\n%s", out)
	}
	time.Sleep(30 * time.Second)
	after := resident(t, e.Pid())
	way.close(false)
	time.Sleep(7 * time.Second)
	failed := traffic.Sum(lost.Stop())
	if s := traffic.Sum(fine.Stop()); s.Failed() > 0 {
		t.Errorf("%d of %d requests were lost: %v", s.Failed(), s.Total, s.Failures)
	}
	if failed.OK > 0 {
		t.Fatalf("%+v", failed)
	}
	within(t, 12*time.Second, "the counts", func() string {
		var f struct{ Counted []fleet.Failure }
		if err := control.client().Get(t.Context(), "/v1/upstreams/nobody/failures", nil, &f); err != nil {
			t.Fatal(err)
		}
		if len(f.Counted) != 1 || f.Counted[0].Flag != "UH" || f.Counted[0].Count != uint64(failed.Total) {
			return fmt.Sprintf("%+v, %d were sent", f.Counted, failed.Total)
		}
		return ""
	})
	r := control.reportsOf("edge-1")
	if r.State != fleet.ReportsVerified || r.Gap == nil || r.Gap.To.Sub(r.Gap.From) < time.Minute || r.Gap.To.Sub(r.Gap.From) > 90*time.Second {
		t.Errorf("reports %+v, gap %+v", r, r.Gap)
	}
	out, _ := control.cli("events", "--limit", "50")
	if !strings.Contains(out, "proxy.silent  edge-1") {
		t.Errorf("no event:\n%s", out)
	}
	t.Logf("Envoy holds %d MB before, %d MB after; %d of 503 UH counted", before>>20, after>>20, failed.Total)
	if after > before+64<<20 {
		t.Errorf("Envoy grew from %d to %d bytes", before, after)
	}
}

// TestRealImpostor: a proxy that reports for another's node is refused and shown; the
// other's own reports go on, and so does the traffic.
func TestRealImpostor(t *testing.T) {
	control := serve(t)
	_, edge := reporting(t, control, envoytest.Config{Bootstrap: bootstrap.Config{NodeID: "edge-1", Telemetry: control.reports("first")}})
	second := envoytest.Config{Dir: t.TempDir(), Bootstrap: bootstrap.Config{NodeID: "edge-2", Envoy: "1.40", Group: "edge", XDS: []string{control.XDS}, Telemetry: control.reports("second")}, Change: func(b *bootstrapv3.Bootstrap) {
		sink := &sinkv3.SinkConfig{}
		if err := b.StatsSinks[0].GetTypedConfig().UnmarshalTo(sink); err != nil {
			t.Error(err)
		}
		for _, h := range sink.GetHttpService().RequestHeadersToAdd {
			if h.Header.Key == bootstrap.NodeHeader {
				h.Header = &corev3.HeaderValue{Key: h.Header.Key, Value: bootstrap.Header.EncodeToString([]byte("edge-1"))}
			}
		}
		packed, err := anypb.New(sink)
		if err != nil {
			t.Error(err)
		}
		b.StatsSinks[0].GetTypedConfig().Value = packed.Value
	}}
	e, err := envoytest.Start(t.Context(), second)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Kill()
	within(t, 5*time.Second, "the impostor is shown", func() string {
		for _, r := range control.proxies().RefusedReports {
			if r.Node == "edge-1" && r.Peer == "127.0.0.1" && strings.Contains(r.Why, "report key is not that of the node's stream") && r.Count > 1 {
				return ""
			}
		}
		return "nobody is refused"
	})
	if got := control.reportsOf("edge-1").State; got != fleet.ReportsVerified {
		t.Errorf("the other's reports are %s", got)
	}
	if got := control.reportsOf("edge-2").State; got != fleet.ReportsDue {
		t.Errorf("its own are %s", got)
	}
	out, code := control.cli("proxies", "-o", "wide")
	if !strings.Contains(out, "reports from 127.0.0.1: its report key is not that of the node's stream") || code != 79 {
		t.Errorf("exit %d\n%s", code, out)
	}
	if out, _ = control.cli("health"); !strings.Contains(out, "1 reports were another node's") {
		t.Error(out)
	}
	if out, _ = control.cli("events", "--limit", "50"); !strings.Contains(out, "report.refused  edge-1") {
		t.Error(out)
	}
	if got, err := answer(t.Context(), edge, ""); !strings.HasPrefix(got, "200") {
		t.Error(got, err)
	}
}

// TestRealOldBootstrap: an Envoy whose bootstrap does not report serves as before; its
// admin is asked from time to time, and health says that a new one is needed.
func TestRealOldBootstrap(t *testing.T) {
	control := serve(t)
	_, edge := reporting(t, control, envoytest.Config{Bootstrap: bootstrap.Config{NodeID: "edge-1"}})
	if got, err := answer(t.Context(), edge, ""); !strings.HasPrefix(got, "200") {
		t.Error(got, err)
	}
	within(t, 15*time.Second, "its admin is asked", func() string {
		if r := control.reportsOf("edge-1"); r.State != fleet.ReportsAsked {
			return fmt.Sprintf("%+v", r)
		}
		return ""
	})
	within(t, 5*time.Second, "health is of the proxy too", func() string {
		var o admin.Overview
		if err := control.client().Get(t.Context(), "/v1/health", nil, &o); err != nil {
			t.Fatal(err)
		}
		for _, u := range o.Upstreams {
			if u.Name == "a" && u.Seen.Reporting == 1 && u.Seen.Members == 1 {
				return ""
			}
		}
		return fmt.Sprintf("%+v", o.Upstreams)
	})
	if out, _ := control.cli("health"); !strings.Contains(out, "reports: 0 proxies report; 1 need a new bootstrap (wellspring bootstrap): edge-1") {
		t.Error(out)
	}
}

// TestRealReportBytes: what an Envoy sends about 200 upstreams that are used, with the
// bootstrap that runs on each and with that of 1.40: the figure is 20 kB a second.
func TestRealReportBytes(t *testing.T) {
	for version, span := range map[string]time.Duration{"": 40 * time.Second, "1.40": 20 * time.Second} {
		t.Run("bootstrap for "+cmp.Or(version, "any"), func(t *testing.T) { reportBytes(t, version, span) })
	}
}

func reportBytes(t *testing.T, version string, span time.Duration) {
	control := serve(t)
	way := newGap(t, control.Telemetry)
	good := switched(t, "good")
	var text, rules strings.Builder
	for i := range 200 {
		fmt.Fprintf(&text, "kind: Upstream\nname: service-%d\nspec: {endpoints: [{address: '%s'}, {address: '127.0.0.2:%d'}], healthChecks: [{tcp: {}, interval: 5s}]}\n---\n", i, good, 1000+i)
		fmt.Fprintf(&rules, "  - {match: {path: {exact: /service-%d}}, to: [{upstream: service-%d}]}\n", i, i)
	}
	e, edge := reporting(t, control, envoytest.Config{Bootstrap: bootstrap.Config{NodeID: "edge-1", Envoy: version, Telemetry: &bootstrap.Telemetry{Addresses: []string{way.from}, Key: "k"}}})
	control.apply(text.String() + "kind: Route\nname: all\nspec:\n  hosts: ['*']\n  rules:\n" + rules.String())
	within(t, 45*time.Second, "all upstreams are there", func() string {
		var o admin.Overview
		if err := control.client().Get(t.Context(), "/v1/health", nil, &o); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, u := range o.Upstreams {
			if u.Seen.Reporting == 1 {
				n++
			}
		}
		if n < 200 {
			return fmt.Sprintf("%d are seen", n)
		}
		return ""
	})
	use := func() {
		for i := range 200 {
			_, _ = answer(t.Context(), edge, fmt.Sprintf("service-%d", i))
		}
	}
	use()
	from := way.bytes()
	for range 4 {
		use()
		time.Sleep(span / 4)
	}
	perSecond := float64(way.bytes()-from) / span.Seconds() / 1000
	stats, err := e.Get(t.Context(), "/memory")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f kB a second (figure 20) for 200 upstreams; Envoy's memory: %s", perSecond, strings.Join(strings.Fields(stats), " "))
	if perSecond > 200 || perSecond == 0 {
		t.Errorf("%.1f kB a second", perSecond)
	}
}

// TestRealWebhook: an outage of two upstreams is one message, and one when it is over;
// an address that is not allowed is never called.
func TestRealWebhook(t *testing.T) {
	var mu sync.Mutex
	var got []notify.Message
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m notify.Message
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, m)
	}))
	defer s.Close()
	config := filepath.Join(t.TempDir(), "wellspring.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "notify: {after: 1s, clear: 1s, allowLoopback: true, receivers: [{name: chat, url: '%s/hook'}, {name: metadata, url: 'http://169.254.169.254/'}]}\n", s.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	control := serve(t, "-c", config)
	const documents = "kind: Upstream\nname: a\nspec: {endpoints: [%[1]s]}\n---\nkind: Upstream\nname: b\nspec: {endpoints: [%[1]s]}\n"
	control.apply(fmt.Sprintf(documents, ""))
	messages := func(want ...string) func() string {
		return func() string {
			mu.Lock()
			defer mu.Unlock()
			var is []string
			for _, m := range got {
				is = append(is, fmt.Sprintf("%s %d %t", m.Status, len(m.Upstreams), m.ID == got[0].ID))
			}
			if !slices.Equal(is, want) {
				return fmt.Sprint(is)
			}
			return ""
		}
	}
	within(t, 15*time.Second, "the outage is told", messages("firing 2 true"))
	control.apply(fmt.Sprintf(documents, "{address: '127.0.0.1:1'}"))
	within(t, 5*time.Second, "its end is told", messages("firing 2 true", "resolved 2 true"))
	if !strings.Contains(control.Output(), "outage told") || strings.Contains(control.Output(), "panic") {
		t.Error(control.Output())
	}
	if text, err := control.client().Text(t.Context(), "/metrics"); err != nil || !strings.Contains(text, `wellspring_notifications_total{receiver="chat",result="sent"} 2`) {
		t.Error(err)
	}
}
