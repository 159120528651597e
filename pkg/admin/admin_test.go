package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/goleak"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/discovery/local"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/envoyadmin"
	"github.com/wellspring-xds/wellspring/pkg/events"
	"github.com/wellspring-xds/wellspring/pkg/evidence"
	"github.com/wellspring-xds/wellspring/pkg/findings"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/recorder"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/pkg/store"
	"github.com/wellspring-xds/wellspring/xds"
	"github.com/wellspring-xds/wellspring/xds/delivery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// streams is a fleet that says what the test says.
type streams struct {
	streams []model.Stream
	refused []model.RefusedStream
	holding map[string]model.Holding
}

func (f *streams) Streams(context.Context) []model.Stream { return f.streams }
func (f *streams) Refused() []model.RefusedStream         { return f.refused }

func (f *streams) Holding(_ context.Context, id string) (model.Holding, error) {
	h, ok := f.holding[id]
	if !ok {
		return h, fmt.Errorf("proxy %q is not connected: %w", id, model.ErrNotFound)
	}
	return h, nil
}

// found is a watch that found what the test says.
func found(ended bool) (out []findings.TimedFinding) {
	f := func(kind, name string, code diagnose.Code) findings.TimedFinding {
		return findings.TimedFinding{
			Subject: model.Subject{Kind: kind, Name: name}, Severity: findings.Critical, Begun: time.Now(), Seen: time.Now(),
			Finding: diagnose.Finding{Code: code, Strength: diagnose.Certain, Evidence: []string{}, Proxies: &diagnose.Reach{Count: 1, Of: 1, Some: []string{"edge-1"}}},
		}
	}
	if ended {
		over := f("Upstream", "gone", diagnose.A1)
		over.Ended = time.Now()
		out = append(out, over)
	}
	return append(out, f("Upstream", "web", diagnose.H3), f("Certificate", "edge.pem", diagnose.W2))
}

// lost is a source that never answers.
type lost struct{}

func (lost) Run(ctx context.Context, want <-chan []model.ServiceKey, report func(model.ServiceKey, discovery.Report)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case keys := <-want:
			failed := discovery.Failed{Reason: discovery.NoLeader, Err: errors.New("no leader")}
			report(model.ServiceKey{Source: "consul"}, failed)
			for _, k := range keys {
				report(k, failed)
			}
		}
	}
}

type declared struct{ *store.Store }

func (d declared) Spec() *spec.Spec { return d.State().Spec }

// world is the API over a real store, catalog and publisher.
type world struct {
	t        *testing.T
	api      http.Handler
	config   admin.Config // of api
	contract *contract
	fleet    *streams
	seen     *fleet.Fleet
	events   *events.Log
}

// newWorld starts one whose store holds documents from before.
func newWorld(t *testing.T, documents ...string) *world {
	t.Helper()
	w := &world{t: t, fleet: &streams{}, events: events.New(time.Now)}
	st, err := store.Open(t.Context(), store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range documents {
		docs, faults := spec.Parse("before", []byte(text))
		if err := faults.Err(); err != nil {
			t.Fatal(err)
		}
		var a store.Apply
		for _, d := range docs {
			a.Edits = append(a.Edits, store.Edit{Ref: d.Ref, Document: d})
		}
		if _, err := st.Apply(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	catalog := discovery.New(discovery.Config{Sources: map[string]discovery.Source{"local": local.Source{Store: declared{st}}, "consul": lost{}}, Emit: w.events.Emit})
	touched := health.NewTouched()
	publisher := xds.New(xds.Config{Store: declared{st}, Catalog: catalog, Engine: delivery.NewEngine(), Emit: w.events.Emit, Touched: touched})
	w.seen = fleet.New(fleet.Config{Emit: w.events.Emit})
	watch := health.NewWatch(health.WatchConfig{Source: publisher, Fleet: w.seen, Touched: touched, Emit: w.events.Emit})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = catalog.Run(ctx) })
	wg.Go(func() { _ = publisher.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		_ = st.Close()
	})
	recorded, err := recorder.Open(recorder.Config{Dir: t.TempDir(), Log: w.events})
	if err != nil {
		t.Fatal(err)
	}
	gatherer := evidence.New(evidence.Config{Store: st, Catalog: catalog, Publisher: publisher, Health: watch, Fleet: w.fleet, Seen: w.seen, Events: w.events, Recorded: recorded})
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "one"}, func() float64 { return 1 }))
	w.config = admin.Config{
		Store: st, Catalog: catalog, Publisher: publisher, Health: watch, Fleet: w.fleet, Seen: w.seen, Recorded: recorded, Events: w.events, Impact: xds.Impact, Admins: envoyadmin.Policy{}, Evidence: gatherer, Findings: found,
		Metrics: promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}), Version: admin.Version{Version: "test", Go: "go"},
		Certificates: func() []model.Certificate {
			return []model.Certificate{
				{File: "edge.pem", Users: []string{"Listener/edge"}, Names: []string{"edge.test"}, Subject: "CN=edge", NotBefore: time.Now(), NotAfter: time.Now(), State: model.CertificateExpiring},
				{File: "us.pem", Users: []string{"xds.tls"}, State: model.CertificateValid, Why: "torn"},
				{File: "fine.pem", Users: []string{"xds.tls"}, State: model.CertificateValid},
			}
		},
		Validate: func(_, after *spec.Spec) (faults, warnings spec.Faults) {
			if d := after.Document(spec.KindUpstream, "invalid"); d != nil {
				faults = append(faults, d.Fault("spec", "not on this machine"))
			}
			return faults, nil
		},
	}
	w.api = admin.New(w.config)
	w.contract = newContract(t, w.api)
	return w
}

// call sends a request; header holds "Name: value" lines.
func (w *world) call(method, path, body string, header ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/yaml")
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	return w.contract.do(r)
}

// wants sends a request and wants a status and words in the body.
func (w *world) wants(status int, words, method, path, body string, header ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	rec := w.call(method, path, body, header...)
	if rec.Code != status || !strings.Contains(rec.Body.String(), words) {
		w.t.Errorf("%s %s: %d, want %d %q\n%s", method, path, rec.Code, status, words, rec.Body)
	}
	return rec
}

// eventually asks until the answer has the words.
func (w *world) eventually(words, path string) *httptest.ResponseRecorder {
	w.t.Helper()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		rec := w.call(http.MethodGet, path, "")
		if strings.Contains(rec.Body.String(), words) {
			return rec
		}
		if time.Since(start) > 10*time.Second {
			w.t.Fatalf("%s never had %q\n%s", path, words, rec.Body)
		}
	}
}

// shop has one document of each kind, in an order in which they can be written.
var shop = []struct{ plural, name, text string }{
	{"services", "people", "kind: Service\nname: people\nspec: {endpoints: [{address: '127.0.0.1:1'}, {address: '127.0.0.1:2', health: draining}]}\n"},
	{"upstreams", "web", "kind: Upstream\nname: web\nspec: {service: {source: local, name: people}}\n"},
	{"routes", "web", "kind: Route\nname: web\nspec: {hosts: ['*'], rules: [{to: [{upstream: web}]}]}\n"},
	{"listeners", "edge", "kind: Listener\nname: edge\nspec: {address: '127.0.0.1:10000', routes: [web]}\n"},
	{"groups", "edge", "kind: Group\nname: edge\nspec: {listeners: [edge]}\n"},
}

// Every operation of the API is called, every status that it describes is seen,
// and every answer is what /openapi.json says.
func TestEveryAnswer(t *testing.T) {
	w := newWorld(t)
	revision := ""
	for _, d := range shop {
		all, one := "/v1/"+d.plural, "/v1/"+d.plural+"/"+d.name
		w.wants(404, "not found", "GET", one, "")
		w.wants(404, "not found", "DELETE", one, "")
		w.wants(412, "", "PUT", one, d.text, `If-Match: "7"`)
		w.wants(422, "is not a field here", "PUT", one, d.text+"more: 1\n")
		w.wants(422, "must be the one document", "PUT", "/v1/"+d.plural+"/other", d.text)
		created := w.wants(201, `"to":"`, "PUT", one, d.text, "If-None-Match: *")
		revision = created.Header().Get("ETag")
		w.wants(428, "send If-Match", "PUT", one, d.text)
		w.wants(412, "", "PUT", one, d.text, "If-None-Match: *")
		w.wants(412, "not an ETag", "PUT", one, d.text, "If-Match: x")
		w.wants(200, "", "PUT", one, d.text, "If-Match: "+revision)
		if got := w.wants(200, `"document":{`, "GET", one, "").Header().Get("ETag"); got != revision {
			t.Errorf("%s: ETag %s, want %s", one, got, revision)
		}
		w.wants(200, `"total":1`, "GET", all, "")
		w.wants(422, "limit", "GET", all+"?limit=0", "")
		w.wants(412, "", "DELETE", one, "", `If-Match: "99"`)
	}
	for _, d := range shop[:4] {
		w.wants(409, "is referred to", "DELETE", "/v1/"+d.plural+"/"+d.name, "")
	}
	w.wants(200, `"from":"`, "DELETE", "/v1/groups/edge?dryRun=true", "")

	// documents, many at once
	w.wants(200, `"type":"listeners"`, "POST", "/v1/apply?dryRun=true", strings.Replace(shop[3].text, "10000", "10001", 1))
	w.wants(200, `"revision":0`, "POST", "/v1/apply", shop[1].text) // nothing new
	w.wants(200, `"revision":6`, "POST", "/v1/apply?message=second&expect=5", "kind: Upstream\nname: far\nspec: {service: {source: consul}}\n---\nkind: Upstream\nname: web\nspec: {connectTimeout: 2s, service: {source: local, name: people}}\n")
	w.wants(412, "", "POST", "/v1/apply?expect=3", shop[1].text)
	w.wants(400, "not a revision", "POST", "/v1/apply?expect=x", shop[1].text)
	w.wants(422, "no documents", "POST", "/v1/apply", "# nothing\n")
	w.wants(422, "twice", "POST", "/v1/apply", shop[1].text+"---\n"+shop[1].text)
	w.wants(422, "dryrun", "POST", "/v1/apply?dryrun=true", shop[1].text) // misspelt: nothing is written

	// history
	w.wants(200, `"total":6`, "GET", "/v1/revisions?limit=2", "")
	w.wants(200, `"message":"second"`, "GET", "/v1/revisions/6", "")
	w.wants(404, "", "GET", "/v1/revisions/99", "")
	w.wants(422, "", "GET", "/v1/revisions/x", "")
	w.wants(200, `"connectTimeout":"2s"`, "GET", "/v1/revisions/6/diff", "")
	w.wants(200, `"from":1,"to":6`, "GET", "/v1/revisions/6/diff?against=1", "")
	w.wants(400, "", "GET", "/v1/revisions/6/diff?against=1x", "")
	w.wants(404, "revision 99", "GET", "/v1/revisions/99/diff", "")
	w.wants(200, `"revision":0`, "POST", "/v1/revisions/5/restore?dryRun=true", "")
	w.wants(200, `"revision":7`, "POST", "/v1/revisions/5/restore", "")
	w.wants(404, "", "POST", "/v1/revisions/99/restore", "")
	w.wants(200, `"revision":8`, "POST", "/v1/apply", "kind: Upstream\nname: far\nspec: {service: {source: consul}}\n---\nkind: Route\nname: web\nspec: {hosts: ['*'], rules: [{to: [{upstream: web}, {upstream: far}]}]}\n")

	// what runs
	w.wants(422, "exclude", "POST", "/v1/apply", w.twoGroups())
	overview := w.eventually(`"name":"far","why"`, "/v1/health")
	if o := decode[admin.Overview](t, overview); o.Proxies != (admin.ProxyCounts{Connected: 1, Refused: 1, Parked: 1}) || o.Upstreams[0].Name != "far" {
		t.Errorf("overview %+v", o)
	}
	h := decode[admin.UpstreamHealth](t, w.wants(200, `"failed_active_health_check"`, "GET", "/v1/upstreams/web/health", ""))
	if len(h.Endpoints) != 2 || len(h.Endpoints[0].Proxies) != 1 || h.Endpoints[0].Proxies[0].Usable || !slices.Contains(h.Matrix[0].Conflicts, "proxy edge-1 would not use 127.0.0.1:1; local says healthy") || h.Proxies[0].Extra[0] != "127.0.0.9:9" {
		t.Errorf("health of web: %+v", h)
	}
	w.wants(404, "there are: far, web", "GET", "/v1/upstreams/none/health", "")

	// why
	why := decode[diagnose.Explanation](t, w.wants(200, "edge-1: read /config_dump", "GET", "/v1/explain?upstream=web", "")) // its admin knows /clusters alone
	if why.Upstream != "web" || len(why.NotAsked) != 2 || !strings.Contains(why.NotAsked[1], "probes are switched off") {
		t.Errorf("explained as %+v", why)
	}
	w.wants(200, `"code":"B1"`, "GET", "/v1/explain?upstream=far", "")
	w.wants(404, "there are: far, web", "GET", "/v1/explain?upstream=none", "")
	w.wants(404, `no proxy \"edge-2\"`, "GET", "/v1/explain?upstream=web&proxy=edge-2", "")
	w.wants(200, "Route/web rules[0]: web (weight 1), far (weight 1)", "GET", "/v1/explain?host=shop.example&path=/cart&header=X-User:anna", "")
	w.wants(404, `no proxy \"edge-2\"`, "GET", "/v1/explain?host=shop.example&proxy=edge-2", "")
	w.wants(200, "no healthy endpoint to choose", "GET", "/v1/explain?log="+url.QueryEscape(`{"status":503,"flags":"UH","upstream":"web"}`), "")
	found := decode[admin.Findings](t, w.wants(200, `"H3"`, "GET", "/v1/findings", ""))
	if len(found.Items) != 2 || found.Items[0].Subject.Name != "web" || found.Items[1].Subject.Kind != "Certificate" {
		t.Errorf("found %+v", found)
	}
	for query, want := range map[string]int{"?ended=true": 3, "?upstream=web": 1, "?upstream=far": 0, "?upstream=gone&ended=true": 1, "?code=W2": 1, "?code=A1": 0} {
		if got := decode[admin.Findings](t, w.wants(200, "items", "GET", "/v1/findings"+query, "")); len(got.Items) != want {
			t.Errorf("%s: found %+v", query, got)
		}
	}
	w.wants(404, "there are: far, web", "GET", "/v1/findings?upstream=none", "")
	w.wants(400, "docs/causes.md lists them", "GET", "/v1/findings?code=Z9", "")
	w.wants(200, `"code":"not-readable"`, "GET", "/v1/lint", "")
	w.wants(200, `"code":"not-readable"`, "POST", "/v1/apply?dryRun=true", "kind: Upstream\nname: odd\nspec: {service: {source: nowhere}}\n")
	w.wants(400, "is still to come", "GET", "/v1/explain?upstream=web&at=2999-01-01T00:00:00Z", "")
	w.wants(400, "at and proxy", "GET", "/v1/explain?upstream=web&proxy=edge-1&at=2020-01-01T00:00:00Z", "")
	w.wants(404, "not found at 2020-01-01", "GET", "/v1/explain?upstream=none&at=2020-01-01T00:00:00Z", "")
	w.wants(200, "no revision of then is kept", "GET", "/v1/explain?upstream=web&at=2020-01-01T00:00:00Z", "")
	w.wants(200, "Route/web rules[0]", "GET", "/v1/explain?host=shop.example&path=/cart&header=X-User:anna&at="+time.Now().UTC().Format(time.RFC3339Nano), "")
	w.wants(400, "log: the line has", "GET", "/v1/explain?log=x", "")
	w.wants(400, "one of these", "GET", "/v1/explain", "")
	w.wants(400, "one of these", "GET", "/v1/explain?upstream=web&host=x", "")
	w.wants(400, "is not NAME: VALUE", "GET", "/v1/explain?host=x&header=x", "")
	w.seen.Joined(1, model.Proxy{ID: "edge-1", ReportKey: "k"}, model.TelemetryEndpoints)
	w.seen.Failed(fleet.Failed{Proxy: "edge-1", Upstream: "web", Flag: "UH", Path: "/cart"})
	w.wants(200, `"path":"/cart"`, "GET", "/v1/upstreams/web/failures", "")
	w.wants(404, "there are: far, web", "GET", "/v1/upstreams/none/failures", "")
	w.wants(200, `"counted":[]`, "GET", "/v1/failures", "")
	w.wants(200, `"minutes":[]`, "GET", "/v1/upstreams/web/trend", "")
	w.wants(404, "there are: far, web", "GET", "/v1/upstreams/none/trend", "")
	w.wants(200, `"state":"no leader"`, "GET", "/v1/sources", "")
	w.wants(200, `"message":"Envoy's words"`, "GET", "/v1/proxies", "")
	w.wants(200, `"content":{"@type":"x"}`, "GET", "/v1/proxies/edge-1/xds", "")
	w.wants(404, "not connected", "GET", "/v1/proxies/nobody/xds", "")
	set := func(status int, words, body string) {
		t.Helper()
		w.wants(status, words, "POST", "/v1/overrides", body, "Content-Type: application/json")
	}
	set(200, `"action":"drain"`, `{"upstream":"web","endpoint":"127.0.0.1:1","action":"drain","reason":"new disk","until":"2100-01-01T00:00:00Z"}`)
	set(404, "there is no upstream", `{"upstream":"none","endpoint":"x","action":"drain","reason":"r"}`)
	set(404, "has no endpoint", `{"upstream":"web","endpoint":"x","action":"drain","reason":"r"}`)
	set(422, "is over already", `{"upstream":"web","endpoint":"127.0.0.1:1","action":"drain","reason":"r","until":"2000-01-01T00:00:00Z"}`)
	set(422, "action", `{"upstream":"web","endpoint":"127.0.0.1:1","action":"kill","reason":"r"}`)
	set(422, "control character", `{"upstream":"web","endpoint":"127.0.0.1:1","action":"drain","reason":"a\nb"}`)
	w.wants(200, `"until":"2100-01-01T00:00:00Z"`, "GET", "/v1/overrides", "")
	w.eventually(`new disk`, "/v1/upstreams/web/health")
	w.wants(200, `"reason":"new disk"`, "DELETE", "/v1/overrides?upstream=web&endpoint=127.0.0.1:1", "")
	w.wants(404, "not found", "DELETE", "/v1/overrides?upstream=web&endpoint=127.0.0.1:1", "")
	w.wants(422, "endpoint", "DELETE", "/v1/overrides?upstream=web", "")
	w.wants(200, `"kind":"override.ended"`, "GET", "/v1/events", "")
	w.wants(200, `"level":"info"`, "GET", "/v1/log", "")
	w.wants(200, `"level":"debug"`, "PUT", "/v1/log", `{"level":"debug"}`, "Content-Type: application/json")
	w.wants(422, "debug, info, warn, error", "PUT", "/v1/log", `{"level":"loud"}`, "Content-Type: application/json")
	w.wants(200, `"kind":"log.level"`, "GET", "/v1/events", "")
	w.wants(200, "", "GET", "/v1/backup", "")
	w.wants(400, "KEY=VALUE", "POST", "/v1/apply?prune=owner", shop[0].text)
	w.wants(200, `"state":"expiring"`, "GET", "/v1/certificates", "")
	w.wants(200, `"why":"torn"`, "GET", "/v1/health", "")
	w.wants(422, "not on this machine", "POST", "/v1/apply", "kind: Upstream\nname: invalid\nspec: {endpoints: []}\n")
	w.wants(200, `"kind":"revision.applied"`, "GET", "/v1/events", "")
	w.wants(422, "", "GET", "/v1/events?limit=x", "")
	w.wants(200, `"kind":"revision.applied"`, "GET", "/v1/events?since=2020-01-01T00:00:00Z", "")
	w.wants(200, `"items":[]`, "GET", "/v1/events?until=2020-01-01T00:00:00Z", "")
	w.wants(422, "since", "GET", "/v1/events?since=yesterday", "")
	w.wants(400, "one or the other", "GET", "/v1/events?since=2020-01-01T00:00:00Z&after=x-1", "")
	posted := "Content-Type: application/json"
	w.wants(200, `"kind":"external.deploy"`, "POST", "/v1/events", `{"kind":"deploy","upstream":"web","message":"v2"}`, posted)
	w.wants(404, "there are: far, web", "POST", "/v1/events", `{"kind":"deploy","upstream":"none","message":"v2"}`, posted)
	w.wants(422, "kind", "POST", "/v1/events", `{"kind":"upstream.state","message":"v2"}`, posted)
	w.wants(422, "query.watchh", "GET", "/v1/events?watch=true&watchh=1", "")

	// the process
	w.wants(200, `"version":"test"`, "GET", "/version", "")
	w.wants(200, "ok", "GET", "/livez", "")
	w.wants(200, "one 1", "GET", "/metrics", "")
	w.wants(200, "<h1>Wellspring</h1>", "GET", "/docs", "")
	w.wants(200, "ok", "GET", "/readyz", "")
	w.wants(200, "ready: group edge", "GET", "/readyz?verbose", "")
	cold := newWorld(t, "kind: Upstream\nname: web\nspec: {service: {source: consul}}\n---\n"+shop[2].text+"---\n"+shop[3].text+"---\n"+shop[4].text)
	cold.eventually("consul/web: no leader", "/readyz?verbose")
	cold.wants(503, "/readyz?verbose", "GET", "/readyz", "")
	maps.Copy(w.contract.seen, cold.contract.seen)
	for i := len(shop) - 1; i >= 0; i-- {
		w.wants(200, `"from":"`, "DELETE", "/v1/"+shop[i].plural+"/"+shop[i].name+"?message=away", "")
	}

	// a parameter that nobody knows is refused everywhere: a misspelt dryRun must not write
	for _, op := range w.contract.unseen() {
		method, path, _ := strings.Cut(op, " ")
		path, status, _ := strings.Cut(path, " ")
		if status == "422" {
			w.wants(422, "query.dryrun", method, strings.NewReplacer("{name}", "x", "{id}", "x", "{number}", "1").Replace(path)+"?dryrun=true", "")
		}
	}
	if unseen := w.contract.unseen(); len(unseen) > 0 {
		t.Errorf("described and never seen:\n%s", strings.Join(unseen, "\n"))
	}
}

// twoGroups connects a proxy with everything that an answer can show, and returns
// a document by which it would match two groups.
func (w *world) twoGroups() string {
	envoy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(rw, `{"cluster_statuses": [{"name": "web", "host_statuses": [
			{"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}, "health_status": {"eds_health_status": "HEALTHY", "failed_active_health_check": true}},
			{"address": {"socket_address": {"address": "127.0.0.9", "port_value": 9}}, "health_status": {"eds_health_status": "HEALTHY"}}]}]}`)
	}))
	w.t.Cleanup(envoy.Close)
	now := time.Now()
	parked := model.Parked{Type: "clusters", Name: "web", Version: "1", Document: "Upstream/web", Message: "Envoy's words", Since: now}
	delivered := model.Delivery{
		Type: "clusters", Wildcard: true, Subscribed: 1, Sent: 2, Acked: 1, Version: "a", AckedVersion: "b", Open: 1, OpenSince: now, Lag: time.Second,
		Parked: []model.Parked{parked}, Waiting: []model.Waiting{{Name: "x", Why: "y", Since: now}},
	}
	proxy := model.Proxy{
		ID: "edge-1", Cluster: "edge", Group: "edge", Version: "1.40.0", Locality: model.Locality{Region: "r", Zone: "z", SubZone: "s"},
		Metadata: map[string]string{envoyadmin.MetadataKey: strings.TrimPrefix(envoy.URL, "http://")}, Peer: "127.0.0.1:1",
	}
	w.fleet.streams = []model.Stream{{Proxy: proxy, Number: 1, Kind: "delta", Connected: now, Supported: true, Duplicate: true, Delivery: []model.Delivery{delivered}}}
	w.fleet.refused = []model.RefusedStream{{Time: now, Proxy: model.Proxy{ID: "edge-2"}, Code: "Unavailable", Why: "not ready"}}
	w.fleet.holding = map[string]model.Holding{"edge-1": {Proxy: "edge-1", Delivery: []model.Delivery{delivered}, Resources: []model.HeldResource{
		{Type: "clusters", Name: "web", Version: "1", Document: "Upstream/web", Content: json.RawMessage(`{"@type":"x"}`)},
	}}}
	return "kind: Group\nname: second\nspec: {match: {id: edge-1}, listeners: [edge]}\n"
}

// A page from elsewhere cannot reach the API through a browser on this machine,
// and a body has a limit.
func TestStrangers(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		host, header, value string
		status              int
	}{
		"a name that was pointed here":  {"evil.example:18002", "", "", http.StatusMisdirectedRequest},
		"this machine's own address":    {"10.1.2.3:18002", "", "", http.StatusMisdirectedRequest},
		"a form on another site's page": {"localhost", "Sec-Fetch-Site", "cross-site", http.StatusForbidden},
		"another origin":                {"127.0.0.1:18002", "Origin", "http://evil.example", http.StatusForbidden},
		"localhost with a port":         {"localhost:18002", "", "", http.StatusOK},
		"IPv6 loopback":                 {"[::1]:18002", "", "", http.StatusOK},
	} {
		r := httptest.NewRequest(http.MethodPost, "http://localhost/v1/apply?dryRun=true", strings.NewReader(shop[0].text))
		r.Host = c.host
		if c.header != "" {
			r.Header.Set(c.header, c.value)
		}
		rec := httptest.NewRecorder()
		w.api.ServeHTTP(rec, r)
		if rec.Code != c.status {
			t.Errorf("%s: %d, want %d: %s", name, rec.Code, c.status, rec.Body)
		}
		if c.status >= 400 {
			w.isError(rec)
		}
	}
	for what, status := range map[string]int{"GET /v1/nope": 404, "PATCH /v1/health": 405, "POST /v1/upstreams/x": 405, "GET /": 404, "GET /v1//health": 307} {
		method, path, _ := strings.Cut(what, " ")
		rec := httptest.NewRecorder()
		w.api.ServeHTTP(rec, httptest.NewRequest(method, "http://localhost"+path, nil))
		if rec.Code != status {
			t.Errorf("%s: %d, want %d: %s", what, rec.Code, status, rec.Body)
		}
		if status >= 400 {
			w.isError(rec)
		}
	}
	huge := httptest.NewRequest(http.MethodPost, "http://localhost/v1/apply", strings.NewReader(strings.Repeat("#", spec.MaxText+1<<12)))
	rec := httptest.NewRecorder()
	w.api.ServeHTTP(rec, huge)
	if rec.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a huge body: %d %s", rec.Code, rec.Body)
	}
}

// Lists come in pages that miss nothing and repeat nothing.
func TestPages(t *testing.T) {
	w := newWorld(t)
	for i := range 7 {
		w.wants(200, "", "POST", "/v1/apply", fmt.Sprintf("kind: Service\nname: s%d\nspec: {endpoints: []}\n", i))
	}
	var names []string
	for next := "start"; next != ""; {
		path := "/v1/services?limit=3"
		if next != "start" {
			path += "&after=" + next
		}
		page := decode[admin.List](t, w.wants(200, `"total":7`, "GET", path, ""))
		for _, it := range page.Items {
			names = append(names, it.Document.(map[string]any)["name"].(string))
		}
		next = page.Next
	}
	if got := strings.Join(names, " "); got != "s0 s1 s2 s3 s4 s5 s6" {
		t.Errorf("services %s", got)
	}
	var numbers []string
	for before := uint64(0); ; {
		path := "/v1/revisions?limit=3"
		if before > 0 {
			path += "&before=" + strconv.FormatUint(before, 10)
		}
		page := decode[admin.Revisions](t, w.wants(200, `"total":7`, "GET", path, ""))
		for _, r := range page.Items {
			numbers = append(numbers, strconv.FormatUint(r.Number, 10))
		}
		if before = page.Next; before == 0 {
			break
		}
	}
	if got := strings.Join(numbers, " "); got != "7 6 5 4 3 2 1" {
		t.Errorf("revisions %s", got)
	}
}

// isError wants the one form of an error.
func (w *world) isError(rec *httptest.ResponseRecorder) {
	w.t.Helper()
	e := decode[admin.Error](w.t, rec)
	if ct := rec.Header().Get("Content-Type"); ct != "application/problem+json" || e.Status != rec.Code || e.Detail == "" {
		w.t.Errorf("%d %s: %s", rec.Code, ct, rec.Body)
	}
	if err := w.contract.follows(rec.Body.Bytes(), "components", "schemas", "Error"); err != nil {
		w.t.Error(err)
	}
}
