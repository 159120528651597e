package main_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/certtest"
	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/envoyadmin"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

// patient is one cluster of an Envoy that somebody else configured: what is wrong with it,
// and what is to be found.
type patient struct {
	name string
	code diagnose.Code // "" is nothing
	then string        // codes that are found besides, best first; "" does not matter
	yaml string        // of the cluster, without its name
	path string        // of the route: how requests are sent; "" is a plain route
	load int           // requests at once
	also string        // what stands beside the action of its route
}

const (
	checks   = "health_checks: [{timeout: 0.3s, interval: 0.3s, unhealthy_threshold: 1, healthy_threshold: 1, no_traffic_interval: 0.3s, http_health_check: {path: /healthz, host: x}}]\n"
	noPanic  = "common_lb_config: {healthy_panic_threshold: {value: 0}}\n"
	tlsTo    = "transport_socket: {name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: x, common_tls_context: {validation_context: {trusted_ca: {filename: {{.CA}}}, match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: other.example}}]}}}}\n"
	http2    = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}\n"
	subsets  = "lb_subset_config: {fallback_policy: NO_FALLBACK, subset_selectors: [{keys: [version]}]}\n"
	resolver = "typed_dns_resolver_config: {name: envoy.network.dns_resolver.cares, typed_config: {'@type': type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig, resolvers: [{socket_address: {protocol: UDP, address: 127.0.0.1, port_value: {{port .%s}}}}], dns_resolver_options: {no_default_search_domain: true}}}\n"
)

// patients are the faults that one Envoy can have by itself. Addresses are those of the
// ward: Good answers, Bad answers 500, Slow after a second, Silent never, Closed nobody,
// Full takes no connection any more, Late answers when it is asked about.
var patients = []patient{
	{name: "well", yaml: checks + "hosts: Good Good2"},
	{name: "one-draining", yaml: checks + "hosts: Good Good2:DRAINING"},
	{name: "recovered", yaml: "hosts: Late"},
	{name: "kept", then: "C9", yaml: checks + "type: EDS\neds_cluster_config: {eds_config: {path_config_source: {path: '{{.Dir}}/kept.yaml'}}}"},
	{name: "unchecked", code: "H7", yaml: strings.ReplaceAll(checks, "0.3s", "30s") + "ignore_health_on_host_removal: true\ncommon_lb_config: {ignore_new_hosts_until_first_hc: true}\ntype: EDS\neds_cluster_config: {eds_config: {path_config_source: {path: '{{.Dir}}/unchecked.yaml'}}}"},
	{name: "refused-check", code: "H3", then: "P1", yaml: checks + noPanic + "hosts: Closed"},
	{name: "status-check", code: "H1", then: "P1", yaml: strings.Replace(checks, "/healthz", "/none", 1) + noPanic + "hosts: Good Good2"},
	{name: "slow-check", code: "H2", then: "P1", yaml: checks + noPanic + "hosts: Silent"},
	{name: "tls-check", code: "H5", then: "P1", yaml: checks + noPanic + tlsTo + "hosts: TLS"},
	{name: "hidden", code: "H3", then: "P2", yaml: checks + "hosts: Good Closed Closed2 Closed3"},
	{name: "nobody", code: "A1", yaml: "hosts:"},
	{name: "told-unhealthy", code: "A2", then: "P1", yaml: noPanic + "hosts: Good:UNHEALTHY Good2:UNHEALTHY"},
	{name: "draining", code: "H8", then: "P1", yaml: noPanic + "hosts: Good:DRAINING Good2:DRAINING"},
	{name: "ejected", code: "O1", then: "P1", yaml: noPanic + "outlier_detection: {consecutive_5xx: 1, interval: 0.2s, base_ejection_time: 60s, max_ejection_percent: 100, enforcing_consecutive_5xx: 100}\nhosts: Bad"},
	{name: "held-back", code: "O3", yaml: "outlier_detection: {consecutive_5xx: 1, interval: 0.2s}\nhosts: Bad Good"},
	{name: "refused", code: "E1", yaml: "hosts: Closed"},
	{name: "times-out", code: "E2", yaml: "hosts: Full"},
	{name: "tls", code: "E4", yaml: tlsTo + "hosts: TLS"},
	{name: "protocol", code: "E5", yaml: http2 + "hosts: Plain"},
	{name: "breaker", code: "F1", yaml: "circuit_breakers: {thresholds: [{max_connections: 1, max_pending_requests: 1, max_requests: 1}]}\nhosts: Slow", load: 8},
	{name: "slow", code: "F2", yaml: "hosts: Slow", path: "timeout: 0.2s"},
	{name: "storm", code: "F3", yaml: "circuit_breakers: {thresholds: [{max_retries: 1}]}\nhosts: Bad", path: "retry_policy: {retry_on: 5xx, num_retries: 5, retry_back_off: {base_interval: 0.001s}}", load: 8},
	{name: "missing", code: "G1", yaml: "none"},
	{name: "all-members", code: "P3", yaml: "lb_policy: CLUSTER_PROVIDED\ncluster_type: {name: envoy.clusters.aggregate, typed_config: {'@type': type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [nobody, refused-check]}}"},
	{name: "subset", code: "P4", yaml: subsets + "hosts: Good", path: "metadata_match: {filter_metadata: {envoy.lb: {version: v9}}}"},
	{name: "sticky", code: "P5", yaml: "hosts: Good", also: ", typed_per_filter_config: {envoy.filters.http.stateful_session: {'@type': type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute, stateful_session: {strict: true, session_state: {name: envoy.http.stateful_session.cookie, typed_config: {'@type': type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState, cookie: {name: host, path: /}}}}}}"},
	{name: "weightless", code: "C11", yaml: "common_lb_config: {locality_weighted_lb_config: {}}\nlocalities: Good Closed"},
	{name: "no-resolver", code: "D1", yaml: "type: STRICT_DNS\ndns_lookup_family: V4_ONLY\ndns_refresh_rate: 0.5s\n" + fmt.Sprintf(resolver, "ClosedUDP") + "names: shop.example"},
	{name: "emptied", code: "A1", yaml: "type: EDS\neds_cluster_config: {eds_config: {path_config_source: {path: '{{.Dir}}/emptied.yaml'}}}"},
	{name: "lease", code: "C10", yaml: "type: EDS\neds_cluster_config: {eds_config: {path_config_source: {path: '{{.Dir}}/lease.yaml'}}}"},
	{name: "unanswered", code: "C3", yaml: "type: EDS\neds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0.5s}}"},
	{name: "control", code: "E1", yaml: http2 + "hosts: Closed"},
	{name: "no-record", code: "D2", yaml: "type: STRICT_DNS\ndns_lookup_family: V4_ONLY\ndns_refresh_rate: 0.5s\n" + fmt.Sprintf(resolver, "Names") + "names: shop.example"},
}

// ward is where the patients' hosts are.
type ward struct {
	t                                                                                                           *testing.T
	Good, Good2, Bad, Slow, Silent, TLS, Plain, Full, Late, Closed, Closed2, Closed3, Names, ClosedUDP, CA, Dir string
}

func newWard(t *testing.T) ward {
	t.Helper()
	good, good2, bad, slow, secure := newEcho(t, "good"), newEcho(t, "good2"), newEcho(t, "bad"), newEcho(t, "slow"), newEcho(t, "secure")
	for _, e := range []*echo{good, good2} {
		e.check(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/healthz" {
				w.WriteHeader(http.StatusNotFound)
			}
		})
	}
	bad.answers(http.StatusInternalServerError)
	slow.handle(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(time.Second):
		case <-r.Context().Done():
		}
	})
	authority, err := certtest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := ward{t: t, Good: good.addr, Good2: good2.addr, Bad: bad.addr, Slow: slow.addr, CA: authority.CA(), Names: newNameServer(t).addr, Dir: t.TempDir()}
	w.TLS = secured(t, authority, secure)
	w.Plain = plainHTTP1(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes connections, and nobody reads
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	w.Silent = silent.Addr().String()
	if w.Full, err = freeport.Addr(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(deaf(t, w.Full))
	ports, err := freeport.Get(5)
	if err != nil {
		t.Fatal(err)
	}
	for i, to := range []*string{&w.Closed, &w.Closed2, &w.Closed3, &w.ClosedUDP, &w.Late} {
		*to = fmt.Sprintf("127.0.0.1:%d", ports[i])
	}
	return w
}

// bring writes a file that the Envoy watches: one resource.
func (w ward) bring(name, resource string) {
	w.t.Helper()
	file := filepath.Join(w.Dir, name)
	err := os.WriteFile(file, []byte("version_info: '1'\nresources:\n- '@type': type.googleapis.com/envoy.config."+resource), 0o600)
	if err == nil {
		err = os.Rename(file, file+".yaml")
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// assign writes who is in a cluster: one host or, with "", nobody.
func (w ward) assign(cluster, host string, also ...string) {
	w.t.Helper()
	text := "endpoint.v3.ClusterLoadAssignment\n  cluster_name: " + cluster + "\n"
	if ip, port, err := net.SplitHostPort(host); err == nil {
		text += "  endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: " + ip + ", port_value: " + port + "}}}}]}]\n"
	}
	for _, line := range also {
		text += "  " + line + "\n"
	}
	w.bring(cluster, text)
}

// record keeps a saved folder for tests without an Envoy, without what nobody reads.
func (w ward) record(from, to string) {
	w.t.Helper()
	for _, file := range []string{"clusters", "stats", "stats-later", "config_dump"} {
		text, err := os.ReadFile(filepath.Join(from, file))
		if err != nil {
			w.t.Fatal(err)
		}
		said := strings.NewReplacer(w.Dir, "/ward", filepath.Dir(w.CA), "/ward").Replace(string(text))
		switch file {
		case "config_dump":
			var all any
			if err := json.Unmarshal([]byte(said), &all); err != nil {
				w.t.Fatal(err)
			}
			without(all, "extensions")
			text, err := json.MarshalIndent(all, "", " ")
			if err != nil {
				w.t.Fatal(err)
			}
			said = string(text) + "\n"
		case "stats", "stats-later":
			var kept strings.Builder
			for line := range strings.Lines(said) {
				if !strings.HasSuffix(line, ": 0\n") && !strings.Contains(line, "recorded values") && !strings.Contains(line, ": P0(") || strings.HasPrefix(line, "control_plane") || strings.Contains(line, ".update_success") {
					kept.WriteString(line)
				}
			}
			said = kept.String()
		}
		if err := os.WriteFile(filepath.Join(to, file), []byte(said), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
}

// without takes a key out of JSON, wherever it stands.
func without(v any, key string) {
	switch x := v.(type) {
	case map[string]any:
		delete(x, key)
		for _, y := range x {
			without(y, key)
		}
	case []any:
		for _, y := range x {
			without(y, key)
		}
	}
}

// secured serves with a certificate for x.
func secured(t *testing.T, a *certtest.Authority, e *echo) string {
	t.Helper()
	cert, key, err := a.Issue("secure", time.Hour, "x")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: e, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go func() { _ = s.ServeTLS(l, cert, key) }()
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().String()
}

// plainHTTP1 is a server that knows no HTTP/2.
func plainHTTP1(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().String()
}

// definition of a patient's cluster.
func (p patient) definition(w ward) string {
	if p.yaml == "none" {
		return ""
	}
	at := map[string]string{"Good": w.Good, "Good2": w.Good2, "Bad": w.Bad, "Slow": w.Slow, "Silent": w.Silent, "TLS": w.TLS, "Plain": w.Plain, "Full": w.Full, "Late": w.Late, "Closed": w.Closed, "Closed2": w.Closed2, "Closed3": w.Closed3}
	var b strings.Builder
	fmt.Fprintf(&b, "name: %s\nconnect_timeout: 0.4s\n", p.name)
	for line := range strings.Lines(p.yaml) {
		kind, hosts, _ := strings.Cut(strings.TrimSpace(line), ":")
		if kind != "hosts" && kind != "names" && kind != "localities" {
			b.WriteString(strings.TrimRight(line, "\n") + "\n")
			continue
		}
		var all []string
		for h := range strings.FieldsSeq(hosts) {
			h, status, _ := strings.Cut(h, ":")
			if status == "" {
				status = "UNKNOWN"
			}
			host, port := h, "80"
			if kind != "names" {
				host, port, _ = net.SplitHostPort(at[h])
			}
			all = append(all, fmt.Sprintf("{health_status: %s, metadata: {filter_metadata: {envoy.lb: {version: v1}}}, endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}", status, host, port))
		}
		if kind == "localities" { // one each, the last with a weight
			for i, h := range all {
				weight := ""
				if i == len(all)-1 {
					weight = ", load_balancing_weight: 1"
				}
				all[i] = fmt.Sprintf("{locality: {zone: z%d}%s, lb_endpoints: [%s]}", i, weight, h)
			}
			fmt.Fprintf(&b, "load_assignment: {cluster_name: %s, endpoints: [%s]}\n", p.name, strings.Join(all, ", "))
			continue
		}
		fmt.Fprintf(&b, "load_assignment: {cluster_name: %s, endpoints: [{lb_endpoints: [%s]}]}\n", p.name, strings.Join(all, ", "))
	}
	return b.String()
}

// TestRealDoctor: an Envoy that nobody of ours configured, with a fault in each of its
// clusters: the first finding of each is the right one, by its admin as by what was saved
// of it, and nothing that is false is certain.
func TestRealDoctor(t *testing.T) {
	for _, version := range []string{"", "1.37"} {
		t.Run("envoy"+version, func(t *testing.T) { testDoctor(t, version) })
	}
}

func testDoctor(t *testing.T, version string) {
	program, err := envoytest.Find(version)
	proc.Need(t, err)
	w := newWard(t)
	adminAddr, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	edge, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	var clusters, routes strings.Builder
	for _, p := range patients {
		indent := "  "
		for i, line := range strings.Split(strings.TrimSpace(p.definition(w)), "\n") {
			if line == "" {
				continue
			}
			head := indent + "  "
			if i == 0 {
				head = indent + "- "
			}
			clusters.WriteString(head + line + "\n")
		}
		action := "cluster: " + p.name
		if p.path != "" {
			action += ", " + p.path
		}
		fmt.Fprintf(&routes, "              - {match: {prefix: /%s/}, route: {%s}%s}\n", p.name, action, p.also)
	}
	host, port, _ := net.SplitHostPort(edge)
	text := fmt.Sprintf(`node: {id: patient, cluster: ward}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}
dynamic_resources:
  ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: control}}]}
  lds_config: {path_config_source: {path: '{{.Dir}}/listeners.yaml'}}
static_resources:
  listeners:
  - name: edge
    address: {socket_address: {address: %s, port_value: %s}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          http_filters: [{name: envoy.filters.http.stateful_session, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSession}}, {name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
          route_config:
            name: edge
            validate_clusters: false
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
%s  clusters:
%s`, portOf(adminAddr), host, port, routes.String(), clusters.String())
	var b bytes.Buffer
	if err := template.Must(template.New("").Funcs(template.FuncMap{"port": portOf}).Parse(text)).Execute(&b, w); err != nil {
		t.Fatal(err)
	}
	w.bring("listeners", "listener.v3.Listener\n  name: clash\n  address: {socket_address: {address: "+host+", port_value: "+port+"}}\n  filter_chains: [{filters: [{name: tcp, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: well}}]}]\n")
	w.assign("emptied", "")
	w.assign("kept", w.Good)
	w.assign("unchecked", w.Good)
	w.assign("lease", "127.0.0.1:1", "policy: {endpoint_stale_after: 0.5s}")
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := proc.Start(program, []string{"-c", file, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if err := p.Until(t.Context(), func(ctx context.Context) error { return ready(ctx, edge) }); err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	for _, p := range patients {
		for range max(1, p.load) {
			wg.Go(func() {
				for ctx.Err() == nil {
					visit(ctx, "http://"+edge+"/"+p.name+"/")
					select {
					case <-ctx.Done():
					case <-time.After(50 * time.Millisecond):
					}
				}
			})
		}
	}
	time.Sleep(time.Second)
	w.assign("kept", "")
	w.assign("unchecked", w.Silent)
	time.Sleep(time.Second)
	l, err := net.Listen("tcp", w.Late)
	if err != nil {
		t.Fatal(err)
	}
	late := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go func() { _ = late.Serve(l) }()
	t.Cleanup(func() { _ = late.Close() })
	time.Sleep(time.Second)
	folder, once := t.TempDir(), t.TempDir()
	save(t, adminAddr, folder, "stats")
	out := doctor(t, "--envoy-admin", adminAddr)
	for _, file := range []string{"clusters", "config_dump", "stats"} {
		to := file
		if file == "stats" {
			to = "stats-later"
		}
		save(t, adminAddr, folder, file+":"+to)
		save(t, adminAddr, once, file+":"+file+".txt")
	}
	save(t, adminAddr, once, "clusters?format=json:clusters.json")
	if err := os.Rename(filepath.Join(once, "clusters.txt"), filepath.Join(once, "text")); err != nil {
		t.Fatal(err)
	}
	if keep := os.Getenv("KEEP_WARD"); keep != "" && version == "" {
		w.record(folder, keep)
	}
	t.Run("asked", func(t *testing.T) { examine(t, out, true) })
	t.Run("saved", func(t *testing.T) { examine(t, doctor(t, folder), true) })
	t.Run("saved once", func(t *testing.T) { examine(t, doctor(t, once), false) })
	t.Run("text and JSON", func(t *testing.T) { sameClusters(t, filepath.Join(once, "text"), filepath.Join(once, "clusters.json")) })
}

// sameClusters: both forms of /clusters say the same.
func sameClusters(t *testing.T, files ...string) {
	t.Helper()
	var said [2]string
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		clusters, err := envoyadmin.ParseClusters(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Sorted(maps.Keys(clusters)) {
			c := clusters[name]
			said[i] += fmt.Sprintf("%s %s %v %q %+v\n", c.Name, c.StatName, c.ByAPI, c.Service, c.Limits)
			for _, h := range c.Hosts {
				h.Requests, h.Errors, h.Connections, h.ConnectFailed = 0, 0, 0, 0 // they grow meanwhile
				said[i] += fmt.Sprintf("  %+v\n", h)
			}
		}
	}
	if said[0] != said[1] {
		t.Errorf("as text:\n%s\nas JSON:\n%s", said[0], said[1])
	}
}

// examine holds a report against what is wrong with the patients. Who asked once does not
// know what goes on: the right cause is first, and may be possible only.
func examine(t *testing.T, r diagnose.Report, twice bool) {
	t.Helper()
	found := map[string]diagnose.Answer{}
	for _, a := range r.Upstreams {
		found[a.Upstream] = a
	}
	for _, p := range patients {
		var codes []string
		for _, f := range found[p.name].Findings {
			codes = append(codes, fmt.Sprintf("%s %s", f.Code, f.Strength))
		}
		got := strings.Join(codes, ", ")
		switch a := found[p.name]; {
		case p.code == "" && a.Found():
			t.Errorf("%s: found %s, and it is well", p.name, got)
		case p.code != "" && (len(a.Findings) == 0 || twice && !a.Found() || a.Findings[0].Code != p.code):
			t.Errorf("%s: found %q, want %s first (%s)", p.name, got, p.code, a.State)
		case p.then != "" && !strings.Contains(got, p.then), p.then != "" && p.code != "" && twice && !strings.Contains(got, p.then+" certain"):
			t.Errorf("%s: found %q, want %s too", p.name, got, p.then)
		}
		t.Logf("%-15s %s", p.name, got)
	}
	var codes []string
	for _, f := range r.Own {
		codes = append(codes, fmt.Sprintf("%s %s", f.Code, f.Strength))
	}
	want := "C1 certain, C2 certain"
	if !twice {
		want = "C2 certain, C1 likely"
	}
	if got := strings.Join(codes, ", "); got != want {
		t.Errorf("of the Envoy itself: %s", got)
	}
}

func ready(ctx context.Context, edge string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", edge)
	if err == nil {
		_ = c.Close()
	}
	return err
}

func visit(ctx context.Context, url string) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return
	}
	req.AddCookie(&http.Cookie{Name: "host", Value: base64.StdEncoding.EncodeToString([]byte("10.9.9.9:1"))}) // a host that is in none
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

// save keeps what an admin answers in a folder; FROM:TO under another name.
func save(t *testing.T, adminAddr, folder, what string) {
	t.Helper()
	from, to, ok := strings.Cut(what, ":")
	if !ok {
		to = from
	}
	resp, err := http.Get("http://" + adminAddr + "/" + from) //nolint:noctx // a test's
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(resp.Body)
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, to), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// doctor runs the verb.
func doctor(t *testing.T, args ...string) (r diagnose.Report) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary(t), append([]string{"doctor", "-o", "json"}, args...)...) //nolint:gosec // ours
	out, err := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != 79 {
		t.Fatalf("exit %d: %v\n%s", code, err, out)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return r
}
