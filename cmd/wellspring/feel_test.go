package main_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

var update = flag.Bool("update", false, "rewrite docs/felt.txt")

// feeling is one thing that a real Envoy does because of some fields: documents,
// the fields that are felt, and what is seen.
type feeling struct {
	name string
	// feels are the leaves, KIND and path; each of them stands in documents.
	feels []string
	// documents have {a}, {b} and {c} for the backends, {d} for an address where
	// nobody listens, {file} for a file, {listen} for the listener. A Listener, a
	// Route and an Upstream "web" that they do not have are added.
	documents string
	see       func(t *testing.T, f *felt)
}

// felt is a running control plane with an Envoy and backends.
type felt struct {
	control *controlPlane
	envoy   *envoytest.Envoy
	listen  string
	file    string
	dead    string
	a, b, c *echo
	names   *nameServer
}

// echo is a backend whose answers a test chooses.
type echo struct {
	name, addr string

	mu      sync.Mutex
	handler http.HandlerFunc
	checks  http.HandlerFunc
	seen    []*http.Request
	checked []*http.Request
	conns   map[string]bool // remote addresses of requests
	at      []time.Time     // of checks
}

func newEcho(t *testing.T, name string) *echo {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{name: name, addr: l.Addr().String()}
	e.reset()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: e, Protocols: protocols, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return e
}

func (e *echo) reset() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.handler, e.checks, e.seen, e.checked, e.conns, e.at = nil, nil, nil, nil, map[string]bool{}, nil
}

// isCheck tells a check of Envoy from a request.
func isCheck(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("User-Agent"), "Envoy/HC") || strings.HasPrefix(r.URL.Path, "/grpc.health")
}

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	h := e.handler
	if isCheck(r) {
		h = e.checks
		e.checked, e.at = append(e.checked, r.Clone(context.WithoutCancel(r.Context()))), append(e.at, time.Now())
	} else {
		e.seen = append(e.seen, r.Clone(context.WithoutCancel(r.Context())))
	}
	e.conns[r.RemoteAddr] = true
	e.mu.Unlock()
	if h != nil {
		h(w, r)
		return
	}
	_, _ = io.WriteString(w, e.name)
}

// answers makes a backend answer with a status.
func (e *echo) answers(status int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.handler = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

func (e *echo) handle(h http.HandlerFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.handler = h
}

func (e *echo) check(h http.HandlerFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.checks = h
}

func (e *echo) count() (requests, checks, conns int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.seen), len(e.checked), len(e.conns)
}

func (e *echo) lastCheck() *http.Request {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.checked) == 0 {
		return nil
	}
	return e.checked[len(e.checked)-1]
}

// complete fills in addresses and adds the documents that are missing.
func (f *felt) complete(documents string) string {
	for kind, text := range map[string]string{
		"Upstream": "kind: Upstream\nname: web\nspec: {endpoints: [{address: '{a}'}]}\n",
		"Route":    "kind: Route\nname: web\nspec: {hosts: ['*'], rules: [{to: [{upstream: web}]}]}\n",
		"Listener": "kind: Listener\nname: feel\nspec: {address: '{listen}', routes: [web], accessLog: {to: 'off'}}\n",
		"Group":    "kind: Group\nname: feel\nspec: {listeners: [feel]}\n",
	} {
		// What speaks TCP is named raw; the default Route leads to web.
		if !strings.Contains(documents, "kind: "+kind+"\n") || kind == "Upstream" && !strings.Contains(documents, "kind: Upstream\nname: web\n") {
			documents += "\n---\n" + text
		}
	}
	return strings.NewReplacer("{a}", f.a.addr, "{b}", f.b.addr, "{c}", f.c.addr, "{d}", f.dead, "{listen}", f.listen, "{file}", f.file, "{port-of-a}", portOf(f.a.addr), "{port-of-b}", portOf(f.b.addr), "{listen-port}", portOf(f.listen)).Replace(documents)
}

// get sends one request on a connection of its own; header holds "Name: value".
func (f *felt) get(path string, header ...string) (status int, body string, answer http.Header) {
	return f.send(http.MethodGet, path, nil, header...)
}

func (f *felt) send(method, path string, in io.Reader, header ...string) (status int, body string, answer http.Header) {
	req, err := http.NewRequest(method, "http://"+f.listen+path, in) //nolint:noctx // the client has a deadline
	if err != nil {
		return 0, err.Error(), nil
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	c := http.Client{Timeout: 8 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, err.Error(), resp.Header
	}
	return resp.StatusCode, strings.TrimSpace(string(text)), resp.Header
}

// shares sends n requests and counts who answered.
func (f *felt) shares(n int, path string, header func(i int) []string) map[string]int {
	out := map[string]int{}
	for i := range n {
		var h []string
		if header != nil {
			h = header(i)
		}
		status, body, _ := f.get(path, h...)
		if status != http.StatusOK {
			body = fmt.Sprint(status)
		}
		out[body]++
	}
	return out
}

// wants sends a request and wants a status and a body.
func (f *felt) wants(t *testing.T, status int, body, path string, header ...string) {
	t.Helper()
	if got, text, _ := f.get(path, header...); got != status || !strings.HasPrefix(text, body) {
		t.Errorf("%s %v: %d %q, want %d %q", path, header, got, text, status, body)
	}
}

// stat is one of Envoy's counters or gauges of upstream web.
func (f *felt) stat(t *testing.T, name string) string {
	t.Helper()
	out, err := f.envoy.Get(t.Context(), "/stats?filter=^cluster.web."+strings.ReplaceAll(name, ".", "[.]")+"$")
	if err != nil {
		t.Fatal(err)
	}
	_, value, _ := strings.Cut(strings.TrimSpace(out), ": ")
	return value
}

// TestRealFeel: a real Envoy does what a field says. docs/felt.txt, and with it the
// reference, says which fields are seen here.
func TestRealFeel(t *testing.T) {
	_, err := envoytest.Find("")
	proc.Need(t, err)
	f := &felt{control: serve(t), a: newEcho(t, "a"), b: newEcho(t, "b"), c: newEcho(t, "c"), names: newNameServer(t)}
	f.names.set("web.wellspring.test.", [4]byte{127, 0, 0, 1})
	config := envoytest.Config{Dir: t.TempDir(), Bootstrap: bootstrap.Config{NodeID: "e", Group: "feel", Zone: "zone-1", XDS: []string{f.control.XDS}, DrainTime: time.Second}, Change: f.names.resolve}
	if f.dead, err = freeport.Addr(); err != nil {
		t.Fatal(err)
	}
	if f.listen, err = freeport.Addr(); err != nil {
		t.Fatal(err)
	}
	f.control.apply(f.complete(""))
	if f.envoy, err = envoytest.Start(context.Background(), config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.envoy.Kill)
	for _, one := range feelings() {
		t.Run(one.name, func(t *testing.T) {
			if f.listen, err = freeport.Addr(); err != nil { // a listener of its own: nothing of the case before lingers
				t.Fatal(err)
			}
			f.file = filepath.Join(t.TempDir(), "file")
			for _, e := range []*echo{f.a, f.b, f.c} {
				e.reset()
			}
			text := f.complete(one.documents)
			standsIn(t, one, text)
			f.control.apply(text)
			s := &scene{t: t, control: f.control, config: envoytest.Config{}}
			within(t, 3*time.Second, "listens", func() string {
				c, err := net.Dial("tcp", f.listen)
				if err != nil {
					return err.Error()
				}
				return fmt.Sprint(c.Close())[:0]
			})
			s.settled()
			one.see(t, f)
			if t.Failed() {
				t.Log(text)
			}
		})
	}
}

// standsIn wants every field that a case says to be felt in its documents.
func standsIn(t *testing.T, one feeling, text string) {
	t.Helper()
	docs, faults := spec.Parse(one.name, []byte(text))
	if err := faults.Err(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var all []string
	for _, d := range docs {
		for _, field := range d.Fields() {
			all = append(all, string(d.Kind)+" "+field)
		}
	}
	for _, leaf := range one.feels {
		if !slices.Contains(all, leaf) {
			t.Errorf("%q does not stand in the documents", leaf)
		}
	}
}

// feltElsewhere are leaves that other tests with a real Envoy feel.
var feltElsewhere = map[string]string{
	"Upstream spec.service.source": "TestRealPath",
	"Upstream spec.service.name":   "TestRealPath",
	"Upstream spec.service.tags":   "TestRealExamples/consul",

	"Upstream spec.service.addresses":       "TestRealHostnames",
	"Listener spec.grpc":                    "TestRealGRPCClient",
	"Listener spec.autoRoutes.domain":       "TestRealImport",
	"Listener spec.inbound":                 "TestRealSidecar",
	"Group spec.identities":                 "TestRealIdentity",
	"Listener spec.tls.certificates[].cert": "TestRealCertificates",
	"Listener spec.tls.certificates[].key":  "TestRealCertificates",
	"Listener spec.tls.clientCA":            "TestRealCertificates",
	"Listener spec.tls.requireClient":       "TestRealCertificates",
	"Listener spec.tls.minVersion":          "TestRealCertificates",
	"Listener spec.tls.alpn":                "TestRealCertificates",
	"Upstream spec.tls.ca.file":             "TestRealCertificates",
	"Upstream spec.tls.ca.proxyFile":        "TestRealCertificates",
	"Upstream spec.tls.certificate.cert":    "TestRealCertificates",
	"Upstream spec.tls.certificate.key":     "TestRealCertificates",
	"Upstream spec.tls.sni":                 "TestRealCertificates",
	"Upstream spec.tls.sans":                "TestRealCertificates",
	"Upstream spec.tls.insecureSkipVerify":  "TestRealCertificates",
}

// docs/felt.txt says for each leaf which test feels it, and is what the tests say
// today; at most a third of the leaves is only in golden stories.
func TestFelt(t *testing.T) {
	by := map[string]string{}
	for leaf, test := range feltElsewhere {
		by[leaf] = test
	}
	for _, one := range feelings() {
		for _, leaf := range one.feels {
			if by[leaf] == "" {
				by[leaf] = "TestRealFeel/" + strings.ReplaceAll(one.name, " ", "_")
			}
		}
	}
	var b strings.Builder
	leaves, golden := 0, 0
	for _, kind := range spec.Kinds {
		for _, l := range spec.Leaves(kind) {
			leaves++
			leaf := string(kind) + " " + l.Path
			if by[leaf] == "" {
				golden++
				continue
			}
			fmt.Fprintf(&b, "%s %s\n", leaf, by[leaf])
			delete(by, leaf)
		}
	}
	for leaf := range by {
		t.Errorf("%q is no leaf of the documents", leaf)
	}
	t.Logf("%d of %d leaves are golden only", golden, leaves)
	if golden*3 > leaves {
		t.Errorf("%d of %d leaves are golden only: more than a third", golden, leaves)
	}
	const file = "../../docs/felt.txt"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != b.String() {
		t.Errorf("%s is not what the tests say; go test ./cmd/wellspring -run TestFelt -update, then make docs (%v)", file, err)
	}
}
