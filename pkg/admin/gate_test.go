package admin_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wellspring-xds/wellspring/pkg/access"
	"github.com/wellspring-xds/wellspring/pkg/admin"
)

// gated is the API with tokens for a reader and a writer, and certificates.
func gated(t *testing.T, w *world) (api http.Handler, reader, writer string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens")
	reader, line1, err := access.NewToken("rita", access.Read)
	if err != nil {
		t.Fatal(err)
	}
	writer, line2, err := access.NewToken("will", access.Write)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(line1+"\n"+line2+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := w.config
	if cfg.Gate.Tokens, err = access.NewTokens(file); err != nil {
		t.Fatal(err)
	}
	cfg.Gate.Certificates, cfg.Gate.Writers = true, []string{"spiffe://test/ops/*"}
	cfg.AllowedHosts = []string{"wellspring.internal"}
	return admin.New(cfg), reader, writer
}

func ask(api http.Handler, method, path, token string, more ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader(""))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for _, f := range more {
		f(r)
	}
	rec := httptest.NewRecorder()
	api.ServeHTTP(rec, r)
	return rec
}

// Every operation that the API has is closed to who brings nothing or something
// wrong, whatever the method and however the path is spelled; a reader may read.
func TestEveryOperationIsClosed(t *testing.T) {
	w := newWorld(t)
	var api struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(ask(w.api, "GET", "/openapi.json", "").Body.Bytes(), &api); err != nil {
		t.Fatal(err)
	}
	closed, reader, writer := gated(t, w)
	if len(api.Paths) < 20 {
		t.Fatalf("%d paths", len(api.Paths))
	}
	for path, item := range api.Paths {
		path = strings.NewReplacer("{name}", "edge", "{number}", "1", "{id}", "x").Replace(path)
		for _, method := range []string{"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"} {
			_, has := item[strings.ToLower(method)]
			for what, token := range map[string]string{"nothing": "", "a wrong token": access.TokenPrefix + "x"} {
				rec := ask(closed, method, path, token)
				open := (method == "GET" || method == "HEAD") && (path == "/livez" || path == "/readyz")
				if open != (rec.Code != http.StatusUnauthorized) {
					t.Errorf("%s %s with %s: %d", method, path, what, rec.Code)
				}
				if rec.Code == http.StatusUnauthorized && (rec.Header().Get("WWW-Authenticate") == "" || !strings.Contains(rec.Body.String(), `"status":401`)) {
					t.Errorf("%s %s: %v %s", method, path, rec.Header(), rec.Body)
				}
			}
			rec := ask(closed, method, path, reader)
			if reads := method == "GET" || method == "HEAD"; reads == (rec.Code == http.StatusForbidden) {
				t.Errorf("%s %s as a reader: %d", method, path, rec.Code)
			}
			if rec := ask(closed, method, path, writer); has && (rec.Code == http.StatusUnauthorized || rec.Code == http.StatusForbidden) {
				t.Errorf("%s %s as a writer: %d", method, path, rec.Code)
			}
		}
	}
	for _, path := range []string{"/", "//livez", "/livez/", "/livez/..", "/readyz?verbose", "/LIVEZ", "/openapi.json", "/openapi.yaml", "/openapi-3.0.json", "/v1/events?watch=true", "/debug/pprof/", "/nothing"} {
		if rec := ask(closed, "GET", path, ""); rec.Code != http.StatusUnauthorized {
			t.Errorf("GET %s: %d", path, rec.Code)
		}
	}
}

// Who did it stands in the history and the events, by the credential's name.
func TestActor(t *testing.T) {
	w := newWorld(t)
	api, reader, writer := gated(t, w)
	put := func(token, path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "http://localhost"+path, strings.NewReader(shop[0].text))
		r.Header.Set("Authorization", "bearer "+token)
		rec := httptest.NewRecorder()
		api.ServeHTTP(rec, r)
		return rec
	}
	if rec := put(reader, "/v1/apply"); rec.Code != http.StatusForbidden || !strings.Contains(rec.Body.String(), "rita may only read") {
		t.Errorf("a reader applied: %d %s", rec.Code, rec.Body)
	}
	if rec := put(reader, "/v1/apply?dryRun=true"); rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), `"revision":0`) {
		t.Errorf("a reader's dry run: %d %s", rec.Code, rec.Body)
	}
	for _, query := range []string{"dryRun=true&dryRun=false", "dryRun=1", "dryRun=false", "dryRun=True", "dryrun=true", "dryRun=%zz&dryRun=true", "dryRun=true&dryRun=%zz", "dryRun=true;dryRun=false"} {
		if rec := put(reader, "/v1/apply?"+query); rec.Code != http.StatusForbidden {
			t.Errorf("a reader with %s: %d %s", query, rec.Code, rec.Body)
		}
	}
	if rec := put(writer, "/v1/apply"); rec.Code != http.StatusOK {
		t.Fatalf("a writer: %d %s", rec.Code, rec.Body)
	}
	if rec := ask(api, "GET", "/v1/revisions", reader); !strings.Contains(rec.Body.String(), `"author":"will"`) {
		t.Errorf("history: %s", rec.Body)
	}
	if rec := ask(api, "GET", "/v1/events", reader); !strings.Contains(rec.Body.String(), `"actor":"will"`) {
		t.Errorf("events: %s", rec.Body)
	}
}

// A client certificate reads; one with a writer's name writes.
func TestCertificateIsACredential(t *testing.T) {
	api, _, _ := gated(t, newWorld(t))
	with := func(uri string) func(*http.Request) {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{URIs: []*url.URL{u}}
		return func(r *http.Request) {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}, VerifiedChains: [][]*x509.Certificate{{c}}}
		}
	}
	unverified := func(r *http.Request) {
		with("spiffe://test/ops/anna")(r)
		r.TLS.VerifiedChains = nil
	}
	for what, c := range map[string]struct {
		method string
		has    func(*http.Request)
		want   int
	}{
		"a reader reads":           {"GET", with("spiffe://test/web/1"), 200},
		"a reader writes":          {"DELETE", with("spiffe://test/web/1"), 403},
		"a writer writes":          {"DELETE", with("spiffe://test/ops/anna"), 404},
		"a certificate by nobody":  {"GET", unverified, 401},
		"beside a token of nobody": {"GET", func(r *http.Request) { with("spiffe://test/ops/anna")(r); r.Header.Set("Authorization", "Bearer x") }, 401},
	} {
		path := "/v1/upstreams"
		if c.method == "DELETE" {
			path += "/none"
		}
		if rec := ask(api, c.method, path, "", c.has); rec.Code != c.want {
			t.Errorf("%s: %d, want %d: %s", what, rec.Code, c.want, rec.Body)
		}
	}
}

// A name that a page made point here is no name of ours; one that is listed is.
func TestHosts(t *testing.T) {
	api, reader, _ := gated(t, newWorld(t))
	for host, want := range map[string]int{
		"localhost:18002": 200, "127.0.0.1": 200, "[::1]:18002": 200, "wellspring.internal": 200, "wellspring.internal:18002": 200,
		"evil.example": 421, "192.0.2.1": 421, "localhost.evil.example": 421, "": 421,
	} {
		if rec := ask(api, "GET", "/version", reader, func(r *http.Request) { r.Host = host }); rec.Code != want {
			t.Errorf("host %q: %d, want %d", host, rec.Code, want)
		}
	}
}

// Profiles are there where they were switched on, and for writers: they slow the
// process down, and show what is in it.
func TestProfiles(t *testing.T) {
	w := newWorld(t)
	off, _, writer := gated(t, w)
	if rec := ask(off, "GET", "/debug/pprof/heap", writer); rec.Code != http.StatusNotFound {
		t.Errorf("not switched on: %d", rec.Code)
	}
	w.config.Profiles = true
	on, reader, writer := gated(t, w)
	for token, want := range map[string]int{"": http.StatusUnauthorized, reader: http.StatusForbidden, writer: http.StatusOK} {
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap?gc=1", "/debug/pprof/profile?seconds=1", "/debug/pprof/trace?seconds=0.1"} {
			if rec := ask(on, "GET", path, token); rec.Code != want {
				t.Errorf("GET %s: %d, want %d: %s", path, rec.Code, want, rec.Body)
			}
		}
	}
}
