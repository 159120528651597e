package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/admin/client"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

// TestRealBands: what is left out for older Envoys would be refused by each of
// them, and what each of them gets instead is taken.
func TestRealBands(t *testing.T) {
	ar, err := txtar.ParseFile("../../xds/translate/testdata/bands.txtar")
	if err != nil {
		t.Fatal(err)
	}
	docs, faults := spec.Parse("bands", ar.Files[0].Data)
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i, version := range []string{"1.37", "1.38", "1.39", "1.40"} {
		program, err := envoytest.Find(version)
		proc.Need(t, err)
		own := translate.MinBand + translate.Band(i)
		for _, d := range docs {
			u, _ := d.Body.(*spec.Upstream)
			for _, band := range []translate.Band{own, translate.MaxBand} {
				c, err := translate.Cluster(d.Name, u, nil, translate.Form{Band: band})
				if err != nil {
					t.Fatal(err)
				}
				b, err := bootstrap.New(bootstrap.Config{NodeID: "e", Group: "g"})
				if err != nil {
					t.Fatal(err)
				}
				b.StaticResources.Clusters = append(b.StaticResources.Clusters, c)
				text, err := bootstrap.YAML(b)
				if err != nil {
					t.Fatal(err)
				}
				file := filepath.Join(t.TempDir(), "bootstrap.yaml")
				if err := os.WriteFile(file, text, 0o600); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				out, err := exec.CommandContext(ctx, program, "--mode", "validate", "--log-level", "error", "-c", file).CombinedOutput()
				cancel()
				if taken := err == nil; taken != (own >= band) {
					t.Errorf("Envoy %s and %s as made for %s: taken %v\n%s", version, d.Name, band, taken, out)
				} else if !taken {
					refused++
				}
			}
		}
	}
	t.Logf("%d newer forms were refused by older Envoys", refused)
	if refused != 3*len(docs) {
		t.Errorf("%d refused, want each of %d documents by each of three", refused, len(docs))
	}
}

// fleetOf is a Spec that a seed draws: what of Wellspring's words a small fleet may
// use, on listeners whose addresses stay. n marks it.
func fleetOf(r *rand.Rand, n int, edge, raw, backend string) string {
	mark := n
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	var b strings.Builder
	n = 2 + r.IntN(4)
	for i := range n {
		fields := []string{"endpoints: [{address: '" + backend + "'}]"}
		if r.IntN(2) == 0 {
			fields = append(fields, "loadBalancing: {policy: "+pick("leastRequest", "roundRobin", "random")+", localities: "+pick("any", "loadAware")+"}")
		}
		if r.IntN(2) == 0 {
			fields = append(fields, "healthChecks: ["+pick("{http: {path: /}}", "{tcp: {}}", "{http: {path: /}}, {tcp: {}}", "{http: {path: /}}, {http: {path: /other}}, {tcp: {}, interval: 9s}")+"]")
		}
		if r.IntN(2) == 0 {
			fields = append(fields, "outlierDetection: {"+pick("consecutive5xx: 3", "consecutiveGatewayFailures: 4", "successRate: {}", "failurePercentage: {threshold: 50}")+"}")
		}
		if r.IntN(3) == 0 {
			fields = append(fields, "envoy: {per_connection_buffer_limit_bytes: "+fmt.Sprint(4096+r.IntN(3)*4096)+"}")
		}
		if r.IntN(3) == 0 {
			fields = append(fields, "connectTimeout: "+pick("1s", "2s", "3s"))
		}
		fmt.Fprintf(&b, "kind: Upstream\nname: u%d\nspec: {%s}\n---\n", i, strings.Join(fields, ", "))
	}
	fmt.Fprintf(&b, "kind: Upstream\nname: raw\nspec: {protocol: tcp, endpoints: [{address: '%s'}]}\n---\nkind: Upstream\nname: named\nspec: {dns: {hosts: ['localhost:%s'], family: %s}}\n---\n", backend, portOf(backend), pick("v4", "v4Preferred"))
	var rules []string
	for i := range n {
		rules = append(rules, fmt.Sprintf("{match: {path: {prefix: /u%d}}, %s}", i, pick(
			fmt.Sprintf("to: [{upstream: u%d}]", i), fmt.Sprintf("to: [{upstream: u%d, weight: 3}, {upstream: u%d}]", i, (i+1)%n),
			fmt.Sprintf("to: [{upstream: u%d}], rewrite: {prefix: /}, requestHeaders: {set: {x-by: fleet}}", i), "redirect: {path: /elsewhere}", "respond: {status: 204}",
			fmt.Sprintf("to: [{upstream: u%d}], upgrades: [websocket]", i), "to: [{upstream: named}], rewrite: {hostOfEndpoint: true}", "respond: {status: 200, body: hello}, envoy: {decorator: {operation: hello}}")))
	}
	fmt.Fprintf(&b, "kind: Route\nname: all\nspec: {hosts: ['*'], rules: [%s, {to: [{upstream: u0}], responseHeaders: {set: {x-apply: 'n%d'}}}]}\n---\n", strings.Join(rules, ", "), mark)
	fmt.Fprintf(&b, "kind: Listener\nname: edge\nspec: {address: '%s', routes: [all], accessLog: {to: 'off'}, %s}\n---\n", edge, pick("idleTimeout: 1h", "idleTimeout: 2h", "http2: {maxConcurrentStreams: 50}", "envoyHTTP: {server_name: fleet}"))
	fmt.Fprintf(&b, "kind: Listener\nname: raw\nspec: {address: '%s', tcp: {to: [{upstream: %s}]}, accessLog: {to: 'off'}}\n---\n", raw, pick("raw", "u0", "u1"))
	fmt.Fprintf(&b, "kind: Group\nname: fleet\nspec: {listeners: [%s]}\n", pick("edge", "edge, raw", "edge, raw"))
	return b.String()
}

// TestRealMixedFleet: four Envoys of four versions are served from one Spec. After
// each of fifty random changes all of them have everything, and none refused a
// thing.
func TestRealMixedFleet(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test draws from it
	t.Logf("seed %d", seed)
	control, backend := serve(t), newEcho(t, "a")
	address := map[string]string{}
	for _, name := range []string{"edge", "raw"} {
		addr, err := freeport.Addr()
		if err != nil {
			t.Fatal(err)
		}
		address[name] = addr
	}
	control.apply(fleetOf(r, 0, address["edge"], address["raw"], backend.addr))
	for _, version := range []string{"1.37", "1.38", "1.39", "1.40"} {
		program, err := envoytest.Find(version)
		proc.Need(t, err)
		e, err := envoytest.Start(t.Context(), envoytest.Config{Program: program, Dir: t.TempDir(), Bootstrap: bootstrap.Config{
			NodeID: "v" + strings.ReplaceAll(version, ".", "-"), Group: "fleet", Zone: "zone-1", XDS: []string{control.XDS}, DrainTime: time.Second,
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.Kill)
	}
	converged := func(mark string) string {
		var p admin.Proxies
		if err := control.client().Get(t.Context(), "/v1/proxies", nil, &p); err != nil {
			return err.Error()
		}
		if len(p.Items) != 4 {
			return fmt.Sprintf("%d proxies", len(p.Items))
		}
		for _, x := range p.Items {
			if held, err := control.client().Text(t.Context(), "/v1/proxies/"+x.ID+"/xds"); err != nil || !strings.Contains(held, mark) {
				return x.ID + " was not sent " + mark
			}
			if len(x.Delivery) < 4 {
				return x.ID + " has not asked for everything"
			}
			for _, d := range x.Delivery {
				if len(d.Parked) > 0 {
					return fmt.Sprintf("%s refused %s %s: %s", x.ID, d.Type, d.Parked[0].Name, d.Parked[0].Message)
				}
				if d.Open > 0 || len(d.Waiting) > 0 || d.Version != d.AckedVersion {
					return fmt.Sprintf("%s: %s is not acknowledged", x.ID, d.Type)
				}
			}
		}
		return ""
	}
	start := time.Now()
	for i := range 50 {
		if i > 0 {
			text := fleetOf(r, i, address["edge"], address["raw"], backend.addr)
			if _, err := control.client().Apply(t.Context(), []byte(text), client.How{}); err != nil {
				t.Fatalf("apply %d: %v\n%s", i, err, text)
			}
		}
		for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			why := converged(fmt.Sprintf(`"n%d"`, i))
			if why == "" {
				break
			}
			if time.Since(begin) > 30*time.Second {
				t.Fatalf("apply %d: %s", i, why)
			}
		}
	}
	t.Logf("50 changes, each taken by four Envoys: %s", time.Since(start).Round(time.Millisecond))
	out, _ := control.cli("events", "--limit", "10000", "-o", "json")
	if n := strings.Count(out, "delivery.refused"); n > 0 {
		t.Errorf("%d refusals", n)
	}
	resp, err := http.Get("http://" + address["edge"] + "/") //nolint:noctx // a test's
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("answered %s", resp.Status)
	}
}
