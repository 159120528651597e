package main_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

// style is the configuration of an Envoy as another control plane writes it: two clusters,
// one well and one ill, and what is to be found of that.
type style struct {
	Route    string           `json:"route"`
	Well     string           `json:"well"`
	Ill      string           `json:"ill"`
	Code     diagnose.Code    `json:"code"`
	Clusters []map[string]any `json:"clusters"`
}

// assignment is the name that a cluster asks for its endpoints by.
func (s style) assignment(cluster string) string {
	for _, c := range s.Clusters {
		if eds, ok := c["eds_cluster_config"].(map[string]any); ok && c["name"] == cluster && eds["service_name"] != nil {
			return eds["service_name"].(string)
		}
	}
	return cluster
}

// TestRealStyles runs a real Envoy for each of the styles of Istio, Consul, Contour and
// Envoy Gateway (their names, statistics names, sockets, panic and checks; the assignments
// come from files), with a fault that is usual there: doctor names it.
func TestRealStyles(t *testing.T) {
	for _, name := range []string{"istio", "consul", "contour", "envoy-gateway"} {
		t.Run(name, func(t *testing.T) { testStyle(t, name) })
	}
}

func testStyle(t *testing.T, name string) {
	program, err := envoytest.Find("")
	proc.Need(t, err)
	w := newWard(t)
	text, err := os.ReadFile(filepath.Join("testdata", "styles", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := template.Must(template.New("").Funcs(template.FuncMap{"port": portOf}).Parse(string(text))).Execute(&b, w); err != nil {
		t.Fatal(err)
	}
	var s style
	if err := yaml.UnmarshalStrict(b.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	clusters, err := yaml.Marshal(s.Clusters)
	if err != nil {
		t.Fatal(err)
	}
	hosts := map[diagnose.Code]string{diagnose.O1: w.Bad, diagnose.E4: w.TLS, diagnose.H1: w.Good, diagnose.A1: ""}
	for of, host := range map[string]string{"well": w.Good, "ill": hosts[s.Code]} {
		w.assign(name+"-"+of, host)
		file := filepath.Join(w.Dir, name+"-"+of+".yaml")
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, bytes.Replace(text, []byte("cluster_name: "+name+"-"+of), fmt.Appendf(nil, "cluster_name: %q", s.assignment(map[string]string{"well": s.Well, "ill": s.Ill}[of])), 1), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ports, err := freeport.Get(2)
	if err != nil {
		t.Fatal(err)
	}
	edge, adminAddr := fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])
	config := fmt.Sprintf(`node: {id: %s, cluster: shop}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}
static_resources:
  listeners:
  - name: %q
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
          route_config:
            name: %q
            virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /well/}, route: {cluster: %q}}, {match: {prefix: /ill/}, route: {cluster: %q}}]}]
  clusters:
%s`, name, ports[1], s.Route, ports[0], s.Route, s.Well, s.Ill, "  "+strings.ReplaceAll(strings.TrimSpace(string(clusters)), "\n", "\n  "))
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := proc.Start(program, []string{"-c", file, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if err := p.Until(t.Context(), func(ctx context.Context) error { return ready(ctx, edge) }); err != nil {
		t.Fatalf("%v\n%s", err, config)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	for _, path := range []string{"well", "ill"} {
		wg.Go(func() {
			for ctx.Err() == nil {
				visit(ctx, "http://"+edge+"/"+path+"/")
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	time.Sleep(2 * time.Second)
	folder := t.TempDir()
	save(t, adminAddr, folder, "stats")
	asked := doctor(t, "--envoy-admin", adminAddr)
	for _, what := range []string{"clusters", "config_dump", "stats:stats-later"} {
		save(t, adminAddr, folder, what)
	}
	for how, r := range map[string]diagnose.Report{"asked": asked, "saved": doctor(t, folder)} {
		i := slices.IndexFunc(r.Upstreams, func(a diagnose.Answer) bool { return a.Upstream == s.Ill })
		if i != 0 || r.Upstreams[i].Findings[0].Code != s.Code || r.Upstreams[i].Findings[0].Strength < diagnose.Likely {
			t.Errorf("%s: %+v", how, r.Upstreams)
			continue
		}
		for _, a := range r.Upstreams[1:] {
			if a.Found() {
				t.Errorf("%s: %s is well: %+v", how, a.Upstream, a.Findings)
			}
		}
		t.Logf("%s: %s: %s %s: %s", how, s.Ill, s.Code, r.Upstreams[i].Findings[0].Strength, r.Upstreams[i].State)
	}
}
