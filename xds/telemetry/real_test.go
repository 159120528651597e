package telemetry_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/proc"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds/telemetry"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

const documents = `
kind: Upstream
name: catalog
spec:
  endpoints: [{address: "%s"}, {address: "%s", health: unhealthy}]
  whenUnavailable: {panic: {then: fail}}
---
kind: Upstream
name: nobody
spec: {endpoints: []}
---
kind: Upstream
name: dead
spec: {endpoints: [{address: "%s"}]}
---
kind: Route
name: shop
spec:
  hosts: ["*"]
  rules:
  - {match: {path: {prefix: /nobody}}, to: [{upstream: nobody}]}
  - {match: {path: {prefix: /dead}}, to: [{upstream: dead}]}
  - {match: {path: {prefix: /}}, to: [{upstream: catalog}]}
---
kind: Listener
name: edge
spec: {address: "%s", routes: [shop], accessLog: {to: "off"}}
`

// static makes of documents a configuration that needs no control plane.
func static(t *testing.T, text string, form translate.Form) func(*bootstrapv3.Bootstrap) {
	t.Helper()
	docs, faults := spec.Parse("test", []byte(text))
	s, _, linked := spec.New(1, docs)
	if faults = append(faults, linked...); len(faults) > 0 {
		t.Fatal(faults)
	}
	var clusters []*clusterv3.Cluster
	for _, svc := range s.LocalServices() {
		u, _ := s.Upstream(svc.Key.Name)
		c, err := translate.Cluster(svc.Key.Name, u, &svc, form)
		if err != nil {
			t.Fatal(err)
		}
		c.ClusterDiscoveryType, c.EdsClusterConfig = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, nil
		c.LoadAssignment, _ = translate.Assignment(svc.Key.Name, u, &svc)
		if c.LoadAssignment == nil {
			c.LoadAssignment = &endpointv3.ClusterLoadAssignment{}
		}
		c.LoadAssignment.ClusterName = c.Name
		clusters = append(clusters, c)
	}
	l, _ := s.Listener("edge")
	m, err := translate.Listener("edge", l, form)
	if err != nil {
		t.Fatal(err)
	}
	filter := m.FilterChains[0].Filters[0]
	manager := &hcmv3.HttpConnectionManager{}
	if err := filter.GetTypedConfig().UnmarshalTo(manager); err != nil {
		t.Fatal(err)
	}
	routes, err := translate.RouteTable("edge", l, s, form.Band)
	if err != nil {
		t.Fatal(err)
	}
	manager.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes}
	packed, err := anypb.New(manager)
	if err != nil {
		t.Fatal(err)
	}
	filter.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed}
	return func(b *bootstrapv3.Bootstrap) {
		b.DynamicResources = nil
		b.StaticResources.Clusters = append(b.StaticResources.Clusters, clusters...)
		b.StaticResources.Listeners = []*listenerv3.Listener{m}
	}
}

// TestRealReports: what each supported Envoy reports, over HTTP or gRPC, of upstreams
// that do, and do not, and of requests that failed; counted, and told one by one.
func TestRealReports(t *testing.T) {
	for i, version := range []string{"1.37", "1.38", "1.39", "1.40"} {
		t.Run(version, func(t *testing.T) {
			program, err := envoytest.Find(version)
			proc.Need(t, err)
			f := fleet.New(fleet.Config{})
			const node, key = "100% \"ä\"", "a%b" // what Envoy could take for an operator, and no header holds
			f.Joined(1, model.Proxy{ID: node, ReportKey: key}, model.TelemetryEndpoints)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := telemetry.New(telemetry.Config{Fleet: f}).HTTP()
			go server.Serve(l)   //nolint:errcheck // until it is closed
			defer server.Close() //nolint:errcheck // the test is over
			fine := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			defer fine.Close()
			ports, err := freeport.Get(3)
			if err != nil {
				t.Fatal(err)
			}
			good, out, dead, edge := fine.Listener.Addr().String(), at(ports[0]), at(ports[1]), at(ports[2])
			form := translate.Form{Band: translate.MinBand + translate.Band(i), Telemetry: model.TelemetryEndpoints}
			e, err := envoytest.Start(t.Context(), envoytest.Config{
				Program: program, Dir: t.TempDir(), Change: static(t, fmt.Sprintf(documents, good, out, dead, edge), form),
				Bootstrap: bootstrap.Config{NodeID: node, Group: "edge", Envoy: version, Telemetry: &bootstrap.Telemetry{
					Level: model.TelemetryEndpoints, Key: key, Addresses: []string{l.Addr().String()}, Interval: time.Second,
				}},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Kill()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := e.Ready(ctx); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{"/", "/", "/nobody?secret=1", "/dead", "/dead"} {
				resp, err := http.Get("http://" + edge + path)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
			}
			want := []string{
				"catalog 1/2, " + min(good+" up, "+out+" down", out+" down, "+good+" up"),
				"catalog 2 requests, 0 failed, latency true", "catalog told ",
				"dead 1/1, " + dead + " up unreachable", "dead 2 requests, 2 failed, 4 not connected, 2 retries", "dead counted 2 shop[1] URX,UF",
				"dead told 4 attempts shop[1] UF: delayed connect error: Connection refused /dead, 2 shop[1] URX,UF: delayed connect error: Connection refused /dead",
				"nobody 0/0 none panicked", "nobody 1 requests, 1 failed, 1 none", "nobody counted 1 shop[0] UH", "nobody told 1 shop[0] UH:  /nobody",
			}
			slices.Sort(want)
			var got []string
			for !slices.Equal(got, want) {
				if ctx.Err() != nil {
					t.Fatalf("seen\n%s\nwanted\n%s\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), e.Output())
				}
				time.Sleep(100 * time.Millisecond)
				got = seen(f)
			}
			p := f.Proxies()[0]
			if age := time.Since(p.Began); p.Reports.State != fleet.ReportsVerified || age < 0 || age > time.Minute {
				t.Errorf("proxy %+v", p)
			}
		})
	}
}

func at(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// seen is what a fleet of one proxy knows of the upstreams of the test, in lines.
func seen(f *fleet.Fleet) (out []string) {
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, name := range []string{"catalog", "nobody", "dead"} {
		for _, v := range f.Views(name, true) {
			line := fmt.Sprintf("%s %d/%d", name, v.Healthy, v.Members)
			if v.NoneHealthy {
				line += " none"
			}
			if v.Panicked {
				line += " panicked"
			}
			for _, e := range v.Endpoints {
				line += ", " + e.Address + map[bool]string{true: " up", false: " down"}[e.Healthy]
				if !e.Unreachable.IsZero() {
					line += " unreachable"
				}
			}
			say("%s", line)
		}
		_, hours := f.Trend(name)
		var sum fleet.Span
		for _, h := range hours { // the test may run over the full hour
			sum.Requests, sum.Failed, sum.NoneHealthy, sum.ConnectFailed, sum.Retries = sum.Requests+h.Requests, sum.Failed+h.Failed, sum.NoneHealthy+h.NoneHealthy, sum.ConnectFailed+h.ConnectFailed, sum.Retries+h.Retries
			sum.P99 = max(sum.P99, h.P99)
		}
		switch name {
		case "catalog":
			say("catalog %d requests, %d failed, latency %t", sum.Requests, sum.Failed, sum.P99 > 0)
		case "nobody":
			say("nobody %d requests, %d failed, %d none", sum.Requests, sum.Failed, sum.NoneHealthy)
		default:
			say("dead %d requests, %d failed, %d not connected, %d retries", sum.Requests, sum.Failed, sum.ConnectFailed, sum.Retries)
		}
		counted, told := f.Failures(name)
		for _, c := range counted {
			say("%s counted %d %s %s", name, c.Count, c.Route, c.Flag)
		}
		var lines []string
		for _, r := range told {
			what := fmt.Sprintf("%d ", r.Count)
			if r.Attempt {
				what += "attempts "
			}
			lines = append(lines, fmt.Sprintf("%s%s %s: %s %s", what, r.Route, r.Flag, r.Samples[0].Failure, r.Samples[0].Path))
		}
		say("%s told %s", name, strings.Join(lines, ", "))
	}
	slices.Sort(out)
	return out
}
