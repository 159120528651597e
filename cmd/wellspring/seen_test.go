package main_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/examples/backend"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/consultest"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

// state is a state of a cluster, made with a real Envoy, and what is seen of it.
type state struct {
	name string
	// upstream is its document; {good}, {sick} (its check fails, its data path works), {bad}
	// (answers 500), {slow} and {dead} are addresses.
	upstream string
	rule     string // of its route, besides where it leads to
	// answer is what a client gets: a status and the beginning of the body.
	answer string
	state  health.State
	why    string
	flag   string // by which failed requests are counted; "" where none fails
}

var states = []state{
	{name: "healthy", upstream: `{endpoints: [{address: "{good}"}, {address: "{good2}"}]}`, answer: "200 good", state: health.Healthy},
	{name: "unknown", upstream: `{service: {source: lost}}`, answer: "503 ", state: health.Unknown, why: "127.0.0.1:1"},
	{name: "empty", upstream: `{endpoints: []}`, answer: "503 no healthy upstream", state: health.Empty, why: "the service has no endpoints", flag: "UH"},
	{
		name: "panic", upstream: `{endpoints: [{address: "{good}"}, {address: "{sick}"}, {address: "{sick2}"}, {address: "{sick3}"}], healthChecks: [{checks}]}`,
		answer: "200 ", state: health.Hidden, why: "1 of 4 usable, below 50 %: panic sends requests to all of them",
	},
	{
		name: "dead", upstream: `{endpoints: [{address: "{dead}"}, {address: "{dead2}"}], healthChecks: [{checks}]}`,
		answer: "503 upstream connect error", state: health.Hidden, why: "0 of 2 usable", flag: "URX,UF",
	},
	{
		name: "fail", upstream: `{endpoints: [{address: "{dead}"}, {address: "{dead2}"}], healthChecks: [{checks}], whenUnavailable: {panic: {then: fail}}}`,
		answer: "503 no healthy upstream", state: health.Critical, why: "none of 2 usable: requests get 503 UH", flag: "UH",
	},
	{
		name:     "fail-on-panic",
		upstream: `{endpoints: [{address: "{good}"}, {address: "{sick}"}, {address: "{sick2}"}, {address: "{sick3}"}], healthChecks: [{checks}], envoy: {common_lb_config: {zone_aware_lb_config: {fail_traffic_on_panic: true}}}}`,
		answer:   "503 no healthy upstream", state: health.Critical, why: "requests get 503 UH, though 1 of 4 are usable", flag: "UH",
	},
	{
		name: "half", upstream: `{endpoints: [{address: "{good}"}, {address: "{sick}"}], healthChecks: [{checks}]}`,
		answer: "200 good", state: health.Degraded, why: "1 of 2 usable, 2 are healthy by source local",
	},
	{ // 3 of 4 are below 90 %, and can take everything
		name: "enough", upstream: `{endpoints: [{address: "{good}"}, {address: "{good2}"}, {address: "{good3}"}, {address: "{sick}"}], healthChecks: [{checks}], whenUnavailable: {panic: {below: 90}}}`,
		answer: "200 good", state: health.Degraded, why: "3 of 4 usable, 4 are healthy by source local",
	},
	{
		name: "draining", upstream: `{endpoints: [{address: "{good}", health: draining}, {address: "{good2}", health: draining}]}`,
		answer: "200 good", state: health.Hidden, why: "0 of 2 usable",
	},
	{
		name: "unhealthy", upstream: `{endpoints: [{address: "{good}", health: unhealthy}, {address: "{good2}", health: unhealthy}]}`,
		answer: "200 good", state: health.Hidden, why: "0 of 2 usable",
	},
	{
		name:     "subset",
		upstream: `{endpoints: [{address: "{good}"}, {address: "{good2}"}], envoy: {lb_policy: ROUND_ROBIN, least_request_lb_config: null, lb_subset_config: {fallback_policy: NO_FALLBACK, subset_selectors: [{keys: [v]}]}}}`,
		rule:     `, envoy: {route: {metadata_match: {filter_metadata: {envoy.lb: {v: "2"}}}}}`,
		answer:   "503 no healthy upstream", state: health.Critical, why: "requests get 503 UH, though 2 of 2 are usable", flag: "UH",
	},
	{
		name: "ejected", upstream: `{endpoints: [{address: "{bad}"}, {address: "{bad2}"}], outlierDetection: {consecutive5xx: 2, interval: 500ms, maxEjectionPercent: 100}}`,
		answer: "500 ", state: health.Hidden, why: "0 of 2 usable",
	},
	{
		name: "lease", upstream: `{endpoints: [{address: "{good}"}], envoyEndpoints: {policy: {endpoint_stale_after: 2s}}}`,
		answer: "503 no healthy upstream", state: health.Critical, why: "none of 1 endpoints is there: requests get 503 UH", flag: "UH",
	},
	{
		name: "breaker", upstream: `{endpoints: [{address: "{slow}"}], circuitBreakers: {connections: 1, pendingRequests: 1, requests: 1}}`,
		answer: "503 upstream connect error or disconnect/reset before headers. reset reason: overflow", state: health.Degraded, why: "requests met a limit (503 UO)", flag: "UO",
	},
	{
		name: "timeout", upstream: `{endpoints: [{address: "{slow}"}]}`, rule: `, timeout: 200ms`,
		answer: "504 upstream request timeout", state: health.Degraded, why: "requests failed lately", flag: "UT",
	},
	{
		name: "dropped", upstream: `{endpoints: [{address: "{good}"}], envoyEndpoints: {policy: {drop_overloads: [{category: all, drop_percentage: {numerator: 100}}]}}}`,
		answer: "503 ", state: health.Degraded, why: "requests failed lately", flag: "UDO",
	},
	{
		name: "refused", upstream: `{endpoints: [{address: "{dead}"}]}`,
		answer: "503 upstream connect error", state: health.Degraded, why: "requests failed lately", flag: "URX,UF",
	},
	{ // the registry says passing, the proxy's check fails
		name: "passing", upstream: `{service: {source: consul, name: sick}, healthChecks: [{checks}]}`,
		answer: "200 sick", state: health.Hidden, why: "0 of 1 usable",
	},
	{ // the registry says critical, the proxy's check passes
		name: "failing", upstream: `{service: {source: consul, name: good}, healthChecks: [{checks}]}`,
		answer: "200 good", state: health.Hidden, why: "0 of 1 usable",
	},
}

// TestRealStates makes each state of a cluster that one machine can make, sends
// requests to it, and holds what health shows against what clients get. Reports come
// as a bootstrap has it by default. It prints the table.
func TestRealStates(t *testing.T) {
	consul, err := consultest.Start(t.Context(), consultest.Config{Dir: t.TempDir()})
	proc.Need(t, err)
	defer consul.Kill()
	config := filepath.Join(t.TempDir(), "wellspring.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "sources: [{name: consul, consul: {address: '%s'}}, {name: lost, consul: {address: '127.0.0.1:1'}}]\nxds: {readyDeadline: 1s}\n", consul.Address), 0o600); err != nil {
		t.Fatal(err)
	}
	control := serve(t, "-c", config)
	edge, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	control.apply(stateDocuments(t, consul, edge))
	r := control.reports("edge-1")
	r.Interval = 0 // as it is by default
	e, err := envoytest.Start(t.Context(), envoytest.Config{Dir: t.TempDir(), Bootstrap: bootstrap.Config{NodeID: "edge-1", Group: "edge", Zone: "a", Envoy: "1.40", XDS: []string{control.XDS}, Telemetry: r}})
	proc.Need(t, err)
	defer e.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := e.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	made := time.Now()
	var wg sync.WaitGroup
	defer wg.Wait()
	load, stop := context.WithCancel(t.Context()) // until all was looked at
	defer stop()
	for _, s := range states {
		for range 3 { // one request after the other, three at once
			wg.Go(func() {
				for load.Err() == nil {
					_, _ = answer(load, edge, s.name)
					time.Sleep(200 * time.Millisecond)
				}
			})
		}
	}
	shown := map[string]time.Duration{}
	for len(shown) < len(states) && ctx.Err() == nil {
		var o admin.Overview
		if err := control.client().Get(ctx, "/v1/health", nil, &o); err != nil {
			t.Fatal(err)
		}
		for _, s := range states {
			for _, u := range o.Upstreams {
				if u.Name == s.name && u.State == s.state && strings.Contains(u.Why, s.why) && shown[s.name] == 0 {
					shown[s.name] = time.Since(made)
				}
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("%-14s %-9s %-6s %s", "STATE MADE", "SHOWN", "DELAY", "WHY")
	for _, s := range states {
		var u admin.UpstreamHealth
		var wrong []string
		for range 10 { // on a busy machine a check of a good endpoint fails for once
			if u, wrong = control.look(t, edge, s); len(wrong) == 0 {
				break
			}
			time.Sleep(time.Second)
		}
		t.Logf("%-14s %-9s %-6s %s", s.name, u.State, shown[s.name].Round(100*time.Millisecond), u.Why)
		if shown[s.name] == 0 {
			wrong = append(wrong, "not shown in a minute")
		}
		if len(wrong) > 0 {
			t.Errorf("%s: %s", s.name, strings.Join(wrong, "; "))
		}
	}
}

// look holds a state as it is shown now against what it must be, and says what is
// wrong. Requests without the right answer are asked again: a breaker lets one
// through, panic goes to anybody.
func (c *controlPlane) look(t *testing.T, edge string, s state) (u admin.UpstreamHealth, wrong []string) {
	t.Helper()
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if err := c.client().Get(t.Context(), "/v1/upstreams/"+s.name+"/health", nil, &u); err != nil {
		t.Fatal(err)
	}
	if u.State != s.state || !strings.Contains(u.Why, s.why) {
		say("shown as %s (%s), want %s (%s)", u.State, u.Why, s.state, s.why)
	}
	got := ""
	for range 20 {
		if got, _ = answer(t.Context(), edge, s.name); strings.HasPrefix(got, s.answer) {
			break
		}
	}
	if !strings.HasPrefix(got, s.answer) {
		say("clients get %q, want %q", got, s.answer)
	}
	var f struct{ Counted []fleet.Failure }
	if err := c.client().Get(t.Context(), "/v1/upstreams/"+s.name+"/failures", nil, &f); err != nil {
		t.Fatal(err)
	}
	flags := " "
	for _, x := range f.Counted {
		flags += x.Flag + " "
	}
	if s.flag != "" && !strings.Contains(flags, " "+s.flag+" ") {
		say("failed requests are counted as %q, want %s", flags, s.flag)
	}
	if s.name == "enough" && u.Views[0].Panicked || s.name == "panic" && !u.Views[0].Panicked {
		say("panics: %t", u.Views[0].Panicked)
	}
	conflicts := ""
	for _, row := range u.Matrix {
		conflicts += strings.Join(row.Conflicts, "\n")
	}
	switch s.name {
	case "passing":
		if !strings.Contains(conflicts, "proxy edge-1 would not use ") || !strings.Contains(conflicts, "; consul says healthy") {
			say("conflicts %q", conflicts)
		}
	case "failing":
		if flags := u.Endpoints[0].Proxies[0].Flags; u.Endpoints[0].Reason == "" || len(flags) != 1 || flags[0] != "eds_unhealthy" {
			say("reason %q, the proxy says %v", u.Endpoints[0].Reason, flags)
		}
	}
	return u, wrong
}

// answer is what a client gets of a state.
func answer(ctx context.Context, edge, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+edge+"/"+name, nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, _ := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, body), nil
}

// stateDocuments starts what the states need, and writes their documents.
func stateDocuments(t *testing.T, consul *consultest.Consul, edge string) string {
	t.Helper()
	places := []string{"{checks}", "{http: {path: /healthz}, interval: 500ms, timeout: 300ms, unhealthyThreshold: 1, healthyThreshold: 1}"}
	for name, n := range map[string]int{"good": 3, "sick": 3, "bad": 2, "slow": 1, "dead": 2} {
		for i := range n {
			place := "{" + name + "}"
			if i > 0 {
				place = fmt.Sprintf("{%s%d}", name, i+1)
			}
			places = append(places, place, switched(t, name))
		}
	}
	r := strings.NewReplacer(places...)
	for name, status := range map[string]string{"sick": api.HealthPassing, "good": api.HealthCritical} {
		host, port, _ := net.SplitHostPort(r.Replace("{" + name + "}"))
		var n int
		_, _ = fmt.Sscan(port, &n)
		if err := consul.Client.Agent().ServiceRegister(&api.AgentServiceRegistration{
			Name: name, Address: host, Port: n, Check: &api.AgentServiceCheck{TTL: "1h", Status: status},
		}); err != nil {
			t.Fatal(err)
		}
	}
	var text, rules strings.Builder
	for _, s := range states {
		fmt.Fprintf(&text, "kind: Upstream\nname: %s\nspec: %s\n---\n", s.name, r.Replace(s.upstream))
		fmt.Fprintf(&rules, "  - {match: {path: {exact: /%s}}, to: [{upstream: %s}]%s}\n", s.name, s.name, s.rule)
	}
	return text.String() + "kind: Route\nname: all\nspec:\n  hosts: ['*']\n  rules:\n" + rules.String() +
		"---\nkind: Listener\nname: edge\nspec: {address: '" + edge + "', routes: [all], accessLog: {to: 'off'}}\n---\nkind: Group\nname: edge\nspec: {listeners: [edge], telemetry: endpoints}\n"
}

// switched is the address of a backend with a fault, or of nobody.
func switched(t *testing.T, fault string) string {
	t.Helper()
	if fault == "dead" {
		addr, err := freeport.Addr()
		if err != nil {
			t.Fatal(err)
		}
		return addr
	}
	b, err := backend.Start(fault, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Kill)
	set := map[string]string{"sick": "health=503", "bad": "status=500", "slow": "delay=1s"}[fault]
	if set == "" {
		return b.Addr
	}
	resp, err := http.Post("http://"+b.Addr+"/_fault?"+set, "", nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(err, resp)
	}
	_ = resp.Body.Close()
	return b.Addr
}
