package main_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/examples/traffic"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/certtest"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/proc"
	"github.com/wellspring-xds/wellspring/xds/xdstest"
)

// bank is a backend that speaks TLS, wants a client certificate, and says whose it
// was.
type bank struct {
	addr string
	seen sync.Map // names in client certificates → their serial numbers
}

func newBank(t *testing.T, a *certtest.Authority) *bank {
	t.Helper()
	ca, err := a.ClientTLS("")
	if err != nil {
		t.Fatal(err)
	}
	b := &bank{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr = l.Addr().String()
	s := &http.Server{ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer := r.TLS.PeerCertificates[0]
		b.seen.Store(peer.SerialNumber.String(), true)
		w.Header().Set("X-Backend", "bank")
		_, _ = fmt.Fprintf(w, "%s asked %s over %s", peer.Subject.CommonName, r.TLS.ServerName, r.Proto)
	})}
	s.TLSConfig = &tls.Config{
		MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.RootCAs, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(a.File("bank.pem"), a.File("bank-key.pem"))
			return &pair, err
		},
	}
	go func() { _ = s.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = s.Close() })
	return b
}

func (b *bank) serials() (n int) {
	b.seen.Range(func(any, any) bool { n++; return true })
	return n
}

// vault is a control plane, an Envoy and a bank that speak TLS to each other.
type vault struct {
	*scene
	keys   *keys
	bank   *bank
	inner  string // listener that wants client certificates
	plain  string // listener whose upstream names a wrong authority
	secret string // folder of the secrets
}

const vaultDocuments = `
kind: Upstream
name: bank
spec: {endpoints: [{address: "%[1]s"}], connectTimeout: 5s, protocol: http2, tls: {ca: {file: ca.pem}, certificate: {cert: us.pem, key: us-key.pem}, sni: bank.test}}
---
kind: Upstream
name: wrong
spec: {endpoints: [{address: "%[1]s"}], tls: {ca: {file: ca.pem}, certificate: {cert: us.pem, key: us-key.pem}, sni: bank.test, sans: [other.test]}}
---
kind: Upstream
name: unverified
spec: {endpoints: [{address: "%[1]s"}], tls: {insecureSkipVerify: true, certificate: {cert: us.pem, key: us-key.pem}}}
---
kind: Upstream
name: own
spec: {endpoints: [{address: "%[1]s"}], tls: {ca: {proxyFile: %[5]s}, certificate: {cert: us.pem, key: us-key.pem}, sans: ["*.test"], minVersion: 1.3}}
---
kind: Route
name: shop
spec:
  hosts: ["*"]
  rules:
  - {match: {path: {prefix: /wrong}}, to: [{upstream: wrong}], retry: {attempts: 1}}
  - {match: {path: {prefix: /unverified}}, to: [{upstream: unverified}]}
  - {match: {path: {prefix: /own}}, to: [{upstream: own}]}
  - {to: [{upstream: bank}]}
---
kind: Listener
name: edge
spec:
  address: "%[2]s"
  routes: [shop]
  accessLog: {to: "off"}
  tls: {certificates: [{cert: shop.pem, key: shop-key.pem}, {cert: api.pem, key: api-key.pem}]}
---
kind: Listener
name: inner
spec:
  address: "%[3]s"
  routes: [shop]
  accessLog: {to: "off"}
  tls: {certificates: [{cert: shop.pem, key: shop-key.pem}], clientCA: ca.pem, minVersion: 1.3, alpn: [http/1.1]}
---
kind: Listener
name: maybe
spec:
  address: "%[4]s"
  routes: [shop]
  accessLog: {to: "off"}
  tls: {certificates: [{cert: shop.pem, key: shop-key.pem}], clientCA: ca.pem, requireClient: false}
---
kind: Group
name: edge
spec: {listeners: [edge, inner, maybe], identities: ["spiffe://test/edge/*"]}
`

// canaryKey is the report key of the vault's proxy.
const canaryKey = "canary-report-key"

func newVault(t *testing.T, version string) *vault {
	t.Helper()
	program, err := envoytest.Find(version)
	proc.Need(t, err)
	v := &vault{scene: &scene{t: t}, keys: newKeys(t)}
	v.secret = v.keys.authority.Dir
	for name, san := range map[string]string{"shop": "shop.test", "api": "api.test", "us": "spiffe://test/us", "bank": "bank.test", "client": "spiffe://test/client"} {
		v.keys.issue(name, san)
	}
	v.bank = newBank(t, v.keys.authority)
	v.control = serveWith(t, v.keys, "--secrets-dir", v.secret)
	for _, addr := range []*string{&v.edge, &v.inner, &v.plain} {
		if *addr, err = freeport.Addr(); err != nil {
			t.Fatal(err)
		}
	}
	v.control.apply(fmt.Sprintf(vaultDocuments, v.bank.addr, v.edge, v.inner, v.plain, v.keys.authority.CA()))
	e, err := envoytest.Start(t.Context(), envoytest.Config{Program: program, Dir: t.TempDir(), Bootstrap: bootstrap.Config{
		NodeID: "edge-1", Group: "edge", XDS: []string{v.control.XDS}, TLS: v.keys.bootstrap("edge-1"), Telemetry: v.control.reports(canaryKey),
	}})
	if err != nil {
		t.Fatal(err)
	}
	v.envoy = e
	t.Cleanup(e.Kill)
	return v
}

// ask sends one request and returns the answer, or how the connection failed.
func (v *vault) ask(addr, path, host, certificate string, change func(*tls.Config)) (text string, state *tls.ConnectionState) {
	v.t.Helper()
	c, err := v.keys.authority.ClientTLS(certificate)
	if err != nil {
		v.t.Fatal(err)
	}
	c.ServerName = host
	if change != nil {
		change(c)
	}
	transport := &http.Transport{TLSClientConfig: c, DisableKeepAlives: true, ForceAttemptHTTP2: c.NextProtos == nil}
	req, err := http.NewRequestWithContext(v.t.Context(), http.MethodGet, "https://"+addr+path, nil)
	if err != nil {
		v.t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Do(req)
	if err != nil {
		return err.Error(), nil
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error(), resp.TLS
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, body), resp.TLS
}

// refused is a connection that does not come about; in which words is chance.
const refused = "refused"

// TestRealCertificates: what clients and endpoints see of TLS in a listener and an
// upstream, on the oldest and the newest Envoy.
func TestRealCertificates(t *testing.T) {
	for _, version := range []string{"1.40", "1.37"} {
		t.Run(version, func(t *testing.T) {
			v := newVault(t, version)
			within(t, 5*time.Second, "the first answer", func() string {
				got, _ := v.ask(v.edge, "/", "shop.test", "", nil)
				if strings.HasPrefix(got, "200 us asked bank.test over HTTP/2.0") {
					return ""
				}
				return got
			})
			for what, c := range map[string]struct {
				addr, path, host, certificate string
				change                        func(*tls.Config)
				want, protocol, name          string
			}{
				"the name that is asked for":        {addr: v.edge, host: "api.test", want: "200 us asked", protocol: "h2", name: "api"},
				"the first for any other":           {addr: v.edge, host: "other.test", change: func(c *tls.Config) { c.InsecureSkipVerify = true }, want: "200", protocol: "h2", name: "shop"}, //nolint:gosec // the certificate is looked at
				"HTTP/1 where that is asked for":    {addr: v.edge, host: "shop.test", change: func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }, want: "200", protocol: "http/1.1", name: "shop"},
				"no certificate where one is due":   {addr: v.inner, host: "shop.test", want: refused},
				"a certificate":                     {addr: v.inner, host: "shop.test", certificate: "client", want: "200", protocol: "http/1.1", name: "shop"},
				"an old TLS":                        {addr: v.inner, host: "shop.test", certificate: "client", change: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, want: refused},
				"no certificate where one may be":   {addr: v.plain, host: "shop.test", want: "200", protocol: "h2", name: "shop"},
				"a certificate where one may be":    {addr: v.plain, host: "shop.test", certificate: "client", want: "200", protocol: "h2", name: "shop"},
				"an endpoint of another name":       {addr: v.edge, host: "shop.test", path: "/wrong", want: "503", protocol: "h2", name: "shop"},
				"an endpoint that is not verified":  {addr: v.edge, host: "shop.test", path: "/unverified", want: "200 us asked  over", protocol: "h2", name: "shop"},
				"an authority that the proxy keeps": {addr: v.edge, host: "shop.test", path: "/own", want: "200 us asked", protocol: "h2", name: "shop"},
			} {
				got, state := v.ask(c.addr, c.path, c.host, c.certificate, c.change)
				switch {
				case c.want == refused && !strings.HasPrefix(got, "Get "), c.want != refused && !strings.HasPrefix(got, c.want):
					t.Errorf("%s: %q, want %q", what, got, c.want)
				case c.protocol != "" && (state.NegotiatedProtocol != c.protocol || state.PeerCertificates[0].Subject.CommonName != c.name):
					t.Errorf("%s: %s by %s, want %s by %s", what, state.NegotiatedProtocol, state.PeerCertificates[0].Subject, c.protocol, c.name)
				}
			}
			// A certificate by somebody else is refused wherever one is looked at.
			other, err := certtest.New(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			cert, key, err := other.Issue("client", time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			strange := func(c *tls.Config) {
				pair, err := tls.LoadX509KeyPair(cert, key)
				if err != nil {
					t.Fatal(err)
				}
				c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
			}
			for _, addr := range []string{v.inner, v.plain} {
				if got, _ := v.ask(addr, "/", "shop.test", "", strange); !strings.HasPrefix(got, "Get ") {
					t.Errorf("a stranger's certificate: %q", got)
				}
			}
		})
	}
}

// TestRealRotation: every certificate and every authority is replaced at 200
// requests a second and with 100 more streams. No request is lost, no stream ends,
// and what comes after is signed by the new authority.
func TestRealRotation(t *testing.T) {
	v := newVault(t, "")
	ready := func() string {
		got, _ := v.ask(v.edge, "/", "shop.test", "", nil)
		if strings.HasPrefix(got, "200") {
			return ""
		}
		return got
	}
	within(t, 5*time.Second, "the first answer", ready)

	// 1. a hundred proxies of the same kind, each on a connection of its own
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	for i := range 100 {
		c, err := v.keys.authority.ClientTLS("edge-1")
		if err != nil {
			t.Fatal(err)
		}
		c.ServerName = "localhost"
		conn, err := grpc.NewClient(v.control.XDS, grpc.WithTransportCredentials(credentials.NewTLS(c)))
		if err != nil {
			t.Fatal(err)
		}
		e := xdstest.New(xdstest.Config{ID: fmt.Sprintf("sim-%d", i), Cluster: "edge", SotW: i%2 == 1})
		wg.Go(func() {
			defer conn.Close() //nolint:errcheck // a test's
			if err := e.Run(ctx, conn); err != nil {
				t.Errorf("a stream ended: %v", err)
			}
		})
	}
	streams := func() (n int) {
		var p admin.Proxies
		if err := v.control.client().Get(t.Context(), "/v1/proxies", nil, &p); err != nil {
			t.Fatal(err)
		}
		return p.Total
	}
	within(t, 5*time.Second, "101 streams", func() string {
		if n := streams(); n != 101 {
			return fmt.Sprint(n)
		}
		return ""
	})

	// 2. traffic, on connections that last and on new ones
	trust := x509.NewCertPool()
	anybody := &tls.Config{ServerName: "shop.test", RootCAs: trust, MinVersion: tls.VersionTLS12, InsecureSkipVerify: true} //nolint:gosec // verified below: by either authority
	var mu sync.Mutex
	serials := map[string]bool{}
	anybody.VerifyConnection = func(s tls.ConnectionState) error {
		mu.Lock()
		defer mu.Unlock()
		serials[s.PeerCertificates[0].SerialNumber.String()] = true
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: "shop.test", Roots: trust})
		return err
	}
	add := func(a *certtest.Authority) {
		t.Helper()
		text, err := os.ReadFile(a.CA())
		if err != nil || !trust.AppendCertsFromPEM(text) {
			t.Fatal(err)
		}
	}
	add(v.keys.authority)
	lasting := traffic.Start(t.Context(), traffic.Config{URL: "https://" + v.edge + "/", PerSecond: 100, TLS: anybody.Clone()})
	fresh := traffic.Start(t.Context(), traffic.Config{URL: "https://" + v.edge + "/", PerSecond: 100, TLS: anybody.Clone(), Fresh: true})
	time.Sleep(500 * time.Millisecond)

	// 3. every certificate again, one after the other, as an agent does it
	events := func(kind string) int {
		out, _ := v.control.cli("events", "--limit", "1000", "-o", "json")
		return strings.Count(out, kind)
	}
	for _, name := range []string{"shop", "api", "us", "control", "edge-1"} {
		san := map[string]string{"shop": "shop.test", "api": "api.test", "us": "spiffe://test/us", "edge-1": "spiffe://test/edge/edge-1"}[name]
		if name == "control" {
			v.keys.issue("control", "127.0.0.1", "localhost")
		} else {
			v.keys.issue(name, san)
		}
	}
	v.keys.issue("bank", "bank.test")
	within(t, 5*time.Second, "read again", func() string {
		if n := events("certificate.renewed"); n < 4 { // shop, api, us and control; who signs them is the same
			return fmt.Sprint(n)
		}
		return ""
	})

	// 4. the authority: first both are trusted, then everything is signed by the new
	// one, then the old one goes
	dir := t.TempDir()
	next, err := certtest.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	add(next)
	mu.Unlock()
	old, err := os.ReadFile(v.keys.authority.CA())
	if err != nil {
		t.Fatal(err)
	}
	newer, err := os.ReadFile(next.CA())
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, text []byte) {
		t.Helper()
		tmp := filepath.Join(v.secret, "."+name)
		if err := os.WriteFile(tmp, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(v.secret, name)); err != nil {
			t.Fatal(err)
		}
	}
	put("ca.pem", slices.Concat(old, newer))
	time.Sleep(time.Second)
	for name, sans := range map[string][]string{"shop": {"shop.test"}, "api": {"api.test"}, "us": {"spiffe://test/us"}, "bank": {"bank.test"}} {
		if _, _, err := next.Issue(name, time.Hour, sans...); err != nil {
			t.Fatal(err)
		}
		if name == "us" {
			continue // the bank of this test trusts the old authority only
		}
		for _, file := range []string{name + "-key.pem", name + ".pem"} {
			text, err := os.ReadFile(next.File(file))
			if err != nil {
				t.Fatal(err)
			}
			put(file, text)
		}
	}
	time.Sleep(2 * time.Second)
	for what, load := range map[string]*traffic.Load{"lasting": lasting, "fresh": fresh} {
		sum := traffic.Sum(load.Stop())
		t.Logf("%s connections: %d requests, %d lost", what, sum.Total, sum.Failed())
		if sum.Failed() > 0 || sum.Total < 100 {
			t.Errorf("%s connections: %d of %d requests lost: %v", what, sum.Failed(), sum.Total, sum.Failures)
		}
	}
	if mu.Lock(); len(serials) < 3 {
		t.Errorf("clients saw %d certificates, want the first, its renewal and that of the new authority", len(serials))
	}
	mu.Unlock()
	if n := v.bank.serials(); n < 1 {
		t.Errorf("the bank saw %d client certificates", n)
	}
	if n := streams(); n != 101 {
		t.Errorf("%d streams, want 101", n)
	}
	if n := events("proxy.gone"); n != 0 {
		t.Errorf("%d streams ended", n)
	}
	if n := events("delivery.refused"); n != 0 {
		out, _ := v.control.cli("events", "--limit", "1000", "-o", "wide")
		t.Errorf("%d refusals\n%s", n, out)
	}
	var list struct{ Items []model.Certificate }
	if err := v.control.client().Get(t.Context(), "/v1/certificates", nil, &list); err != nil {
		t.Fatal(err)
	}
	for _, c := range list.Items {
		if c.State != model.CertificateValid || c.Why != "" {
			t.Errorf("afterwards %+v", c)
		}
	}
}
