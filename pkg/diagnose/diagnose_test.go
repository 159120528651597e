package diagnose

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/wellspring-xds/wellspring/pkg/envoyadmin"
)

var update = flag.Bool("update", false, "write the golden files")

// ward is what a real Envoy said with a fault in each of its clusters: TestRealDoctor of
// cmd/wellspring records it.
func ward(t testing.TB) Envoy {
	t.Helper()
	d, before, err := envoyadmin.ReadDump(os.DirFS(filepath.Join("testdata", "ward")))
	if err != nil {
		t.Fatal(err)
	}
	return Envoy{Dump: d, Before: before}
}

// What is said of a recorded Envoy is always the same, to the letter.
func TestWard(t *testing.T) {
	say := func() string {
		text, err := json.MarshalIndent(Of(ward(t)), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		return string(text) + "\n"
	}
	got, golden := say(), filepath.Join("testdata", "ward.json")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the report is another one; look at it, and go test ./pkg/diagnose -update\n%s", got)
	}
	for range 5 {
		if say() != got {
			t.Fatal("the same Envoy, another report")
		}
	}
}

// Each code has a check, an entry in the catalogue, and a case of a real Envoy.
func TestEveryCode(t *testing.T) {
	found := map[Code]bool{}
	r := Of(ward(t))
	for _, f := range r.Own {
		found[f.Code] = true
	}
	for _, a := range r.Upstreams {
		for _, f := range a.Findings {
			found[f.Code] = true
			if f.Title == "" || f.Says == "" || len(f.Evidence) == 0 || f.Next == "" {
				t.Errorf("%s: a finding that says too little: %+v", a.Upstream, f)
			}
		}
	}
	checked := map[Code]bool{}
	for _, code := range []Code{G2, G4} {
		checked[code], found[code] = true, true // TestNoWay, TestSibling
	}
	checked[W2], found[W2] = true, true // TestOfCertificate
	for _, x := range slices.Concat(caseChecks, warningChecks) {
		checked[x.code], found[x.code] = true, true // TestCases
	}
	for _, x := range checks {
		checked[x.code] = true
	}
	for _, x := range own {
		checked[x.code] = true
	}
	for _, c := range Causes() {
		if !checked[c.Code] || !found[c.Code] || c.Title == "" || c.Proof == "" {
			t.Errorf("%s: has a check: %v, a case: %v: %+v", c.Code, checked[c.Code], found[c.Code], c)
		}
		delete(checked, c.Code)
	}
	for code := range checked {
		t.Errorf("%s is not in the catalogue", code)
	}
}

// hosts are written as HEALTH, or HEALTH/PRIORITY: h usable, u out, d draining, g degraded.
func hosts(text string) (out []envoyadmin.Host) {
	for i, h := range strings.Fields(text) {
		x := envoyadmin.Host{Address: fmt.Sprintf("10.0.0.%d:80", i+1)}
		_, _ = fmt.Sscanf(h[1:], "/%d", &x.Priority)
		switch h[0] {
		case 'h':
			x.Usable = true
		case 'g':
			x.Usable, x.Degraded = true, true
		case 'd':
			x.Excluded, x.Flags = true, []string{"eds_draining"}
		default:
			x.Flags = []string{"failed_active_health_check"}
		}
		out = append(out, x)
	}
	return out
}

// envoy has one cluster, c.
func envoy(change func(c *envoyadmin.ClusterConfig), in ...envoyadmin.Host) *Envoy {
	conf := &envoyadmin.ClusterConfig{Name: "c", Type: "EDS", Serving: true}
	if change != nil {
		change(conf)
	}
	return &Envoy{Dump: &envoyadmin.Dump{
		Stats:    envoyadmin.Stats{},
		Clusters: map[string]*envoyadmin.Cluster{"c": {Name: "c", StatName: "c", Hosts: in}},
		Config:   &envoyadmin.Config{Clusters: map[string]*envoyadmin.ClusterConfig{"c": conf}},
	}}
}

func threshold(x float64) func(c *envoyadmin.ClusterConfig) {
	return func(c *envoyadmin.ClusterConfig) {
		c.Common.Panic = &struct {
			Value float64 `json:"value"`
		}{x}
	}
}

func failOnPanic(c *envoyadmin.ClusterConfig) { c.Common.ZoneAware.FailOnPanic = true }

// What an Envoy does with a request, as it was measured: with hosts out, in several
// priorities, and by what panic is allowed to do.
func TestOutcome(t *testing.T) {
	for _, x := range []struct {
		hosts  string
		change func(c *envoyadmin.ClusterConfig)
		want   Outcome
	}{
		{"", nil, Nobody},
		{"", threshold(0), Nobody},
		{"h h", nil, Serves},
		{"h u", nil, Serves}, // 50 is not below 50
		{"h u u u", nil, Panics},
		{"h h u u u", nil, Panics},
		{"h h h u", nil, Serves},
		{"u u", nil, Panics},
		{"u u", threshold(0), Nobody},
		{"h u u u", threshold(0), Serves},
		{"h u u u", failOnPanic, Nobody},
		{"h u", failOnPanic, Serves},
		{"h u u u", threshold(20), Serves},
		{"u/0 u/0 h/1", nil, Serves},
		{"h/0 u/0 u/0 u/0 h/1", nil, Serves}, // the next priority takes what is missing
		{"h/0 u/0 u/0 u/0 u/0 h/1 u/1 u/1 u/1 u/1", nil, Panics},
		{"h/0 h/0 u/0 u/0 u/0 h/1 h/1 u/1 u/1 u/1", nil, Serves}, // 1.4 × 40 % of each is more than all
		{"h/0 u/0 u/0 u/0 u/0 u/0 u/0 u/0 u/0 u/0 h/1 h/1 h/1 u/1 u/1", nil, Panics}, // a seventh goes to the first priority
		{"u/0 u/0 h/1 h/1 h/1 u/1 u/1", nil, Serves},                                 // none does
		{"d d", nil, Panics},
		{"d d", threshold(0), Nobody},
		{"h d d d", nil, Serves}, // who drains does not count
		{"g", threshold(0), Serves},
	} {
		if got := envoy(x.change, hosts(x.hosts)...).cluster("c").outcome; got != x.want {
			t.Errorf("%q (%p): %s, want %s", x.hosts, x.change, got, x.want)
		}
	}
	warming := envoy(func(c *envoyadmin.ClusterConfig) { c.Serving, c.Warming = false, true }, hosts("h")...)
	if got := warming.cluster("c").outcome; got != Absent {
		t.Errorf("warming for the first time: %s", got)
	}
	if got := warming.cluster("other").outcome; got != Absent {
		t.Errorf("no such cluster: %s", got)
	}
	itself := envoy(func(c *envoyadmin.ClusterConfig) { c.Type = "ORIGINAL_DST" })
	if got := itself.cluster("c").outcome; got != Serves {
		t.Errorf("hosts are made as requests come: %s", got)
	}
}

// aggregate makes a cluster one of others.
func aggregate(e *Envoy, name, members string) {
	if e.Clusters[name] == nil {
		e.Clusters[name] = &envoyadmin.Cluster{Name: name, StatName: name}
		e.Config.Clusters[name] = &envoyadmin.ClusterConfig{Name: name, Serving: true}
	}
	typed := &e.Config.Clusters[name].Custom
	typed.Name = "envoy.clusters.aggregate"
	typed.Typed.Type, typed.Typed.Clusters = "x/envoy.extensions.clusters.aggregate.v3.ClusterConfig", json.RawMessage(members)
}

// An aggregate does what the best of its members does.
func TestMembers(t *testing.T) {
	e := envoy(nil)
	for name, text := range map[string]string{"good": "h", "dead": "u u", "none": ""} {
		e.Clusters[name] = &envoyadmin.Cluster{Name: name, StatName: name, Hosts: hosts(text)}
		e.Config.Clusters[name] = &envoyadmin.ClusterConfig{Name: name, Serving: true}
	}
	for members, want := range map[string]Outcome{`["none","good"]`: Serves, `["none","dead"]`: Panics, `["none"]`: Nobody, `["unknown"]`: Nobody, `[{"name":"good"}]`: Serves} {
		aggregate(e, "c", members)
		if got := e.cluster("c").outcome; got != want {
			t.Errorf("%s: %s, want %s", members, got, want)
		}
	}
}

// Aggregates that lead to each other end.
func TestMembersInACircle(t *testing.T) {
	e := envoy(nil)
	aggregate(e, "c", `["c", "d"]`)
	aggregate(e, "d", `["c"]`)
	if got := e.cluster("c").outcome; got != Nobody {
		t.Errorf("%s", got)
	}
}

// first is the best proved finding.
func first(e *Envoy) string {
	a := e.answer("c")
	if len(a.Findings) == 0 {
		return ""
	}
	return fmt.Sprint(a.Findings[0].Code, " ", a.Findings[0].Strength)
}

// What one Envoy of a test can hardly be brought to.
func TestRare(t *testing.T) {
	warming := func(taken uint64) *Envoy {
		e := envoy(func(c *envoyadmin.ClusterConfig) { c.Serving, c.Warming = false, true })
		e.Stats["cluster.c.update_success"] = taken
		return e
	}
	if got := first(warming(0)); got != "C3 certain" {
		t.Errorf("warming, and nothing was answered: %s", got)
	}
	if got := first(warming(1)); got != "C3 possible" {
		t.Errorf("warming, and it was answered: %s", got)
	}
	secret := envoy(func(c *envoyadmin.ClusterConfig) {
		if err := json.Unmarshal([]byte(`{"transport_socket": {"typed_config": {"@type": "x/UpstreamTlsContext"}}}`), c); err != nil {
			t.Fatal(err)
		}
	}, hosts("h")...)
	secret.Before = envoyadmin.Stats{}
	secret.Stats["cluster.c.client_ssl_socket_factory.upstream_context_secrets_not_ready"] = 3
	if got := first(secret); got != "E4 certain" {
		t.Errorf("a secret is missing: %s", got)
	}
	mixed := envoy(nil, hosts("u u u")...)
	mixed.Stats["cluster.c.health_check.failure"], mixed.Stats["cluster.c.health_check.network_failure"] = 9, 4
	if got := first(mixed); got != "H1 likely" {
		t.Errorf("some checks fail by the network, and some by what is answered: %s", got)
	}
	restarted := envoy(nil, hosts("h")...)
	restarted.Before = envoyadmin.Stats{"cluster.c.upstream_rq_pending_overflow": 100}
	restarted.Stats["cluster.c.upstream_rq_pending_overflow"] = 2
	if a := restarted.answer("c"); first(restarted) != "F1 certain" || !strings.HasSuffix(a.Findings[0].Evidence[0], "grew by 2") {
		t.Errorf("its counters began anew: %+v", a.Findings)
	}
	once := envoy(nil, envoyadmin.Host{Address: "10.0.0.1:80", Usable: true, Connections: 3, ConnectFailed: 3})
	once.Stats["cluster.c.upstream_cx_connect_timeout"], once.Stats["cluster.c.upstream_cx_connect_fail"] = 3, 3
	if got := first(once); got != "E2 likely" {
		t.Errorf("asked once, and no connection ever came about: %s", got)
	}
	if a := once.answer("c"); len(a.Findings) != 1 {
		t.Errorf("connections that run out of time are not refused: %+v", a.Findings)
	}
	atOnce := envoy(nil, hosts("h")...)
	atOnce.Before = envoyadmin.Stats{}
	atOnce.Stats["cluster.c.upstream_rq_active_overflow"] = 7
	if a := atOnce.answer("c"); first(atOnce) != "F1 certain" || !strings.HasSuffix(a.Findings[0].Evidence[0], "upstream_rq_active_overflow grew by 7") {
		t.Errorf("more at once than requests may: %+v", a.Findings)
	}
	names := envoy(func(c *envoyadmin.ClusterConfig) { c.Type = "STRICT_DNS" })
	names.Before = envoyadmin.Stats{}
	names.Stats["cluster.c.update_failure"], names.Stats["cluster.c.update_success"] = 1, 10
	if got := first(names); got != "D2 certain" {
		t.Errorf("names are answered, but for once: %s", got)
	}
	for _, x := range []struct {
		failed, answered, failedBefore, answeredBefore uint64
		want                                           string
	}{
		{1, 1, 0, 0, "D1 likely"},
		{1, 0, 0, 20, "D1 certain"},
		{0, 1, 20, 0, "D2 certain"},
		{3, 2, 0, 0, "D1 likely"},
		{2, 3, 0, 0, "D2 likely"},
		{0, 0, 1, 20, "D2 likely"},
		{0, 0, 20, 1, "D1 likely"},
		{0, 0, 20, 0, "D1 certain"},
		{0, 0, 0, 20, "D2 certain"},
		{0, 0, 0, 0, ""},
	} {
		names.Before["cluster.c.update_failure"], names.Before["cluster.c.update_success"] = x.failedBefore, x.answeredBefore
		names.Stats["cluster.c.update_failure"], names.Stats["cluster.c.update_success"] = x.failedBefore+x.failed, x.answeredBefore+x.answered
		if got := first(names); got != x.want {
			t.Errorf("%+v: %q", x, got)
		}
	}
	names.Before = nil
	names.Stats["cluster.c.update_failure"], names.Stats["cluster.c.update_success"] = 2, 20
	if got := first(names); got != "D2 likely" {
		t.Errorf("looked at once, names were answered and not: %s", got)
	}
	for name, prefix := range map[string]string{"10.0.0.1:80": "10.0.0.1_80", "http://a:80/x": "http_a_80/x", "q::z": "q__z", "dots.": "dots", "outbound|80||a.b.c": "outbound|80||a.b.c"} {
		if got := (&cluster{name: name}).prefix(); got != "cluster."+prefix+"." {
			t.Errorf("the stats of %s are below %s", name, got)
		}
	}
	calm := envoy(nil, hosts("h")...)
	calm.Before = envoyadmin.Stats{}
	calm.Stats["cluster.c.upstream_rq_retry"], calm.Stats["cluster.c.upstream_rq_total"], calm.Stats["cluster.c.upstream_rq_retry_overflow"] = 19, 100, 1
	if got := first(calm); got != "" {
		t.Errorf("a fifth is the least of a storm: %s", got)
	}
	noisy := envoy(nil, hosts("h h")...)
	noisy.Before = envoyadmin.Stats{}
	noisy.Stats["cluster.c.upstream_rq_total"] = 1000
	for _, failure := range []string{"upstream_cx_connect_fail", "upstream_cx_connect_timeout", "upstream_rq_timeout", "upstream_rq_pending_overflow", "upstream_cx_protocol_error"} {
		noisy.Stats["cluster.c."+failure] = 9
	}
	if r := Of(*noisy); r.Found() {
		t.Errorf("less than one in a hundred requests fail: %+v", r.Upstreams)
	}
	noisy.Stats["cluster.c.upstream_rq_total"] = 900
	if got := first(noisy); got != "E2 certain" {
		t.Errorf("one in a hundred fails: %s", got)
	}
	custom := envoy(func(c *envoyadmin.ClusterConfig) { c.Type, c.Custom.Name = "", "envoy.clusters.redis" })
	custom.Stats["cluster.c.upstream_cx_none_healthy"] = 1
	if got := first(custom); got != "" {
		t.Errorf("who finds its hosts is not known: %s", got)
	}
	// what a review found: counters of long ago, and what is as it should be
	old := envoy(func(c *envoyadmin.ClusterConfig) {
		if err := json.Unmarshal([]byte(`{"transport_socket": {"typed_config": {"@type": "x/UpstreamTlsContext"}}}`), c); err != nil {
			t.Fatal(err)
		}
	}, hosts("u")...)
	old.Before = envoyadmin.Stats{"cluster.c.ssl.fail_verify_san": 1}
	old.Stats = envoyadmin.Stats{"cluster.c.ssl.fail_verify_san": 1, "cluster.c.health_check.failure": 9, "cluster.c.health_check.network_failure": 9, "cluster.c.ssl.handshake": 7}
	if got := first(old); got != "H3 likely" {
		t.Errorf("TLS failed long ago: %s", got)
	}
	passive := envoy(nil, envoyadmin.Host{Address: "10.0.0.1:80", Excluded: true, Flags: []string{"excluded_via_immediate_hc_fail", "failed_active_health_check"}})
	passive.Stats["cluster.c.health_check.failure"], passive.Stats["cluster.c.health_check.passive_failure"] = 1, 1
	if got := first(passive); got != "H8 certain" {
		t.Errorf("it asked to be left alone in the answer to a request: %s", got)
	}
	two := envoy(nil, append(hosts("u"), passive.Clusters["c"].Hosts...)...)
	two.Stats["cluster.c.health_check.failure"], two.Stats["cluster.c.health_check.passive_failure"], two.Stats["cluster.c.health_check.network_failure"] = 6, 1, 5
	if a := two.answer("c"); !slices.ContainsFunc(a.Findings, func(f Finding) bool { return f.Code == H3 && strings.HasPrefix(f.Says, "1 of 2 hosts") }) || slices.ContainsFunc(a.Findings, func(f Finding) bool { return f.Code == H1 }) {
		t.Errorf("one asked to be left alone, one cannot be reached: %+v", a.Findings)
	}
	old.Before = nil
	if got := first(old); got != "H3 likely" {
		t.Errorf("asked once, TLS failed some time: %s", got)
	}
	silent := envoy(nil)
	silent.Stats["cluster.c.upstream_cx_none_healthy"] = 1
	if got := first(silent); got != "" {
		t.Errorf("no stat says whether it was answered: %s", got)
	}
	refused := envoy(nil)
	refused.Before = envoyadmin.Stats{}
	refused.Stats = envoyadmin.Stats{"cluster.c.update_success": 0, "cluster.c.update_rejected": 1, "cluster.c.upstream_cx_none_healthy": 1}
	if a := refused.answer("c"); first(refused) != "C2 certain" || len(a.Findings) != 1 {
		t.Errorf("its assignment was refused: %+v", a.Findings)
	}
	rollout := envoy(nil, append(hosts("h h h"), envoyadmin.Host{Address: "10.0.0.9:80", Excluded: true, Flags: []string{"pending_active_hc"}})...)
	if got := first(rollout); got != "H7 possible" {
		t.Errorf("one of four is new: %s", got)
	}
	routes := func(weight string) *Envoy {
		e := envoy(nil, hosts("h")...)
		var err error
		e.Config, err = envoyadmin.ParseConfig([]byte(`{"configs": [{"@type": "x/envoy.admin.v3.RoutesConfigDump", "static_route_configs": [{"route_config": {"virtual_hosts": [{"routes": [
			{"route": {"weighted_clusters": {"clusters": [{"name": "gone", "weight": ` + weight + `}]}}}]}]}}]}]}`))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if r := Of(*routes("1")); len(r.Upstreams) != 1 || r.Upstreams[0].Findings[0].Code != G1 {
		t.Errorf("a weighted route: %+v", r.Upstreams)
	}
	if r := Of(*routes("0")); r.Found() {
		t.Errorf("a route of weight 0: %+v", r.Upstreams)
	}
	for what, x := range map[string]struct {
		before envoyadmin.Stats
		want   Strength
	}{"asked once": {nil, Likely}, "again": {envoyadmin.Stats{"control_plane.connected_state": 0}, Certain}, "just now": {envoyadmin.Stats{"control_plane.connected_state": 1}, Possible}} {
		e := envoy(nil, hosts("h")...)
		e.Before, e.Stats["control_plane.connected_state"] = x.before, 0
		if r := Of(*e); len(r.Own) != 1 || r.Own[0].Code != C1 || r.Own[0].Strength != x.want {
			t.Errorf("not connected, %s: %+v", what, r.Own)
		}
	}
	cds := envoy(nil, hosts("h")...)
	cds.Stats["cluster_manager.cds.update_rejected"] = 1
	if r := Of(*cds); len(r.Own) != 1 || r.Own[0].Code != C2 || r.Own[0].Strength != Possible {
		t.Errorf("clusters were refused once: %+v", r.Own)
	}
	cds.Before = envoyadmin.Stats{}
	if r := Of(*cds); len(r.Own) != 1 || r.Own[0].Strength != Likely {
		t.Errorf("clusters are refused: %+v", r.Own)
	}
	proxy := envoy(func(c *envoyadmin.ClusterConfig) { c.Type, c.Custom.Name = "", "envoy.clusters.dynamic_forward_proxy" })
	if got := proxy.cluster("c").outcome; got != Serves {
		t.Errorf("its hosts are made as requests come: %s", got)
	}
	sly := envoy(func(c *envoyadmin.ClusterConfig) {
		if err := json.Unmarshal([]byte(`{"health_checks": [{"http_health_check": {"path": "/x'; rm -rf ~; '"}}]}`), c); err != nil {
			t.Fatal(err)
		}
	}, hosts("u")...)
	sly.Stats["cluster.c.health_check.failure"] = 1
	if a := sly.answer("c"); first(sly) != "H1 certain" || !strings.HasSuffix(a.Findings[0].Next, " 'http://10.0.0.1:80/x%27; rm -rf ~; %27'") {
		t.Errorf("a path that is more than a path: %+v", a.Findings)
	}
	alone := envoy(nil, hosts("h")...)
	if r := Of(*alone); len(r.Own) != 0 {
		t.Errorf("an Envoy without a control plane: %+v", r.Own)
	}
	other := envoy(nil)
	other.Clusters["c"].StatName = "named"
	other.Stats["cluster.named.update_success"] = 1
	if got := first(other); got != "A1 possible" {
		t.Errorf("nobody asks for it: %s", got)
	}
	other.Stats["cluster.named.upstream_cx_none_healthy"] = 1
	other.Before = other.Stats
	if got := first(other); got != "A1 possible" {
		t.Errorf("nobody asks for it any more: %s", got)
	}
	other.Before = nil
	if got := first(other); got != "A1 likely" {
		t.Errorf("its stats have another name: %s", got)
	}
}

// counters that a diagnosis reads, and some that it does not.
func counters(t *rapid.T, name string) envoyadmin.Stats {
	out := envoyadmin.Stats{}
	for _, s := range []string{
		"upstream_cx_connect_fail", "upstream_cx_connect_timeout", "upstream_rq_timeout", "upstream_rq_pending_overflow", "upstream_rq_retry", "upstream_rq_total", "upstream_rq_retry_overflow",
		"upstream_cx_protocol_error", "upstream_cx_none_healthy", "lb_healthy_panic", "health_check.failure", "health_check.network_failure", "outlier_detection.ejections_overflow",
		"ssl.fail_verify_san", "ssl.connection_error", "update_success", "update_failure", "update_empty", "assignment_stale", "membership_total",
	} {
		out["cluster.c."+s] = rapid.Uint64Range(0, 1000).Draw(t, name+" "+s)
	}
	return out
}

// A cluster whose hosts are all usable, and whose counters stand still, has no finding
// above possible, whatever was counted before and whatever its settings.
func TestWell(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := hosts(strings.Repeat("h ", rapid.IntRange(1, 6).Draw(t, "hosts")))
		for i := range in {
			in[i].Requests, in[i].Connections = rapid.Uint64Range(1, 100).Draw(t, "requests"), 10
			in[i].ConnectFailed = rapid.Uint64Range(0, 9).Draw(t, "failed")
		}
		e := envoy(threshold(rapid.SampledFrom([]float64{0, 20, 50, 100}).Draw(t, "panic")), in...)
		e.Stats = counters(t, "total")
		if rapid.Bool().Draw(t, "asked twice") {
			e.Before = e.Stats
		}
		e.Config.Clusters["c"].Type = rapid.SampledFrom([]string{"EDS", "STATIC", "STRICT_DNS", "LOGICAL_DNS"}).Draw(t, "type")
		e.Stats["cluster.c.update_success"]++ // or its hosts would not be there
		r := Of(*e)
		if r.Found() {
			t.Fatalf("%+v", r.Upstreams)
		}
	})
}

// Whatever an Envoy says, a finding is complete, the best proved is first, and nothing is
// ruled out that was found.
func TestReportProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := hosts(rapid.StringMatching(`([hudg](/[01])? ){0,5}`).Draw(t, "hosts"))
		for i := range in {
			in[i].Flags = append(in[i].Flags, rapid.SliceOfN(rapid.SampledFrom([]string{"active_hc_timeout", "failed_outlier_check", "eds_unhealthy", "pending_active_hc", "pending_dynamic_removal", "failed_active_health_check"}), 0, 2).Draw(t, "flags")...)
		}
		e := envoy(threshold(rapid.SampledFrom([]float64{0, 50}).Draw(t, "panic")), in...)
		e.Stats = counters(t, "now")
		if rapid.Bool().Draw(t, "asked twice") {
			e.Before = counters(t, "before")
		}
		for _, a := range Of(*e).Upstreams {
			found := map[Code]bool{}
			for _, f := range a.Findings {
				found[f.Code] = true
				if f.Strength < Possible || f.Says == "" || len(f.Evidence) == 0 || f.Next == "" {
					t.Fatalf("%+v", f)
				}
			}
			if a.Found() != slices.ContainsFunc(a.Findings, func(f Finding) bool { return f.Strength >= Likely }) {
				t.Fatalf("the best proved is not first: %+v", a.Findings)
			}
			for _, x := range a.RuledOut {
				if found[x.Code] || x.By == "" {
					t.Fatalf("%s is ruled out by %q, and found", x.Code, x.By)
				}
			}
		}
	})
}

func TestStrength(t *testing.T) {
	for _, s := range []Strength{Possible, Likely, Certain} {
		text, err := json.Marshal(s)
		var back Strength
		if err == nil {
			err = json.Unmarshal(text, &back)
		}
		if err != nil || back != s {
			t.Errorf("%s became %s (%v)", s, back, err)
		}
	}
	var s Strength
	if err := json.Unmarshal([]byte(`"sure"`), &s); err == nil || !strings.Contains(err.Error(), "possible, likely, certain") {
		t.Errorf("%v", err)
	}
}
