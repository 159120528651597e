package xds_test

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/discovery/local"
	"github.com/wellspring-xds/wellspring/pkg/certificate"
	"github.com/wellspring-xds/wellspring/pkg/certtest"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds"
	"github.com/wellspring-xds/wellspring/xds/delivery"
)

const secured = `
kind: Upstream
name: bank
spec: {endpoints: [{address: "127.0.0.1:1"}], tls: {ca: {file: ca.pem}, certificate: {cert: us.pem, key: us-key.pem}, sni: bank.test}}
---
kind: Upstream
name: other
spec: {endpoints: [{address: "127.0.0.1:2"}], tls: {ca: {file: ca.pem}, sni: other.test}}
---
kind: Route
name: all
spec: {hosts: ["*"], rules: [{to: [{upstream: bank}]}]}
---
kind: Route
name: others
spec: {hosts: ["*"], rules: [{to: [{upstream: other}]}]}
---
kind: Listener
name: edge
spec: {address: "127.0.0.1:10000", routes: [all], tls: {certificates: [{cert: edge.pem, key: edge-key.pem}]}}
---
kind: Listener
name: inner
spec: {address: "127.0.0.1:10001", routes: [others]}
---
kind: Group
name: edge
spec: {listeners: [edge]}
---
kind: Group
name: inner
spec: {listeners: [inner]}
`

// vault is a publisher over files.
type vault struct {
	t         *testing.T
	authority *certtest.Authority
	keeper    *certificate.Store
	store     *memoryStore
	publisher *xds.Publisher
	engine    *delivery.Engine
}

func newVault(t *testing.T) *vault {
	t.Helper()
	a, err := certtest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	v := &vault{t: t, authority: a, keeper: certificate.New(certificate.Config{Dir: a.Dir}), store: newStore(t, secured), engine: delivery.NewEngine()}
	for _, name := range []string{"us", "edge"} {
		v.issue(name)
	}
	catalog := discovery.New(discovery.Config{Sources: map[string]discovery.Source{spec.SourceLocal: local.Source{Store: v.store}}})
	v.publisher = xds.New(xds.Config{Store: v.store, Catalog: catalog, Engine: v.engine, Secrets: v.keeper, SecretsDir: a.Dir})
	for _, group := range []string{"edge", "inner"} {
		v.publisher.Join(delivery.Class{Group: group, Band: 40})
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = v.publisher.Run(t.Context()) }()
	t.Cleanup(func() { <-done })
	return v
}

func (v *vault) issue(name string) {
	v.t.Helper()
	if _, _, err := v.authority.Issue(name, time.Hour, name+".test"); err != nil {
		v.t.Fatal(err)
	}
}

func (v *vault) table(group string) *delivery.Table {
	return v.engine.Table(delivery.Class{Group: group, Band: 40})
}

// until waits for a table.
func (v *vault) until(what string, ok func(*delivery.Table) bool) *delivery.Table {
	v.t.Helper()
	for range 1000 {
		if t := v.table("edge"); ok(t) {
			return t
		}
		time.Sleep(5 * time.Millisecond)
	}
	v.t.Fatalf("%s: never", what)
	return nil
}

// What a proxy speaks to an upstream is spoken from here alike: to a name that it asks for
// and an authority that it trusts, and to no other.
func TestClientTLS(t *testing.T) {
	v := newVault(t)
	v.until("bank is published", func(t *delivery.Table) bool { return t.Get(delivery.Secrets, "upstream.bank.tls.ca") != nil })
	shakes := func(name string, c *tls.Config) error {
		cert, key, err := v.authority.Issue(name, time.Hour, name)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // a test's
		go func() {
			if conn, err := l.Accept(); err == nil {
				_, _ = conn.Read(make([]byte, 1)) // shakes hands, until the client goes
				_ = conn.Close()
			}
		}()
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", l.Addr().String(), c)
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	c, err := v.publisher.ClientTLS("bank")
	if err != nil || c == nil {
		t.Fatal(c, err)
	}
	if err := shakes("bank.test", c); err != nil {
		t.Errorf("its own name: %v", err)
	}
	if err := shakes("thief.test", c); err == nil || !strings.Contains(err.Error(), "[bank.test] is asked for") {
		t.Errorf("another name: %v", err)
	}
	other, err := certtest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	v.authority = other
	if err := shakes("bank.test", c); err == nil {
		t.Error("another authority is taken")
	}
	for name, want := range map[string]string{"none": "", "other": ""} {
		if _, err := v.publisher.ClientTLS(name); err != nil {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

// A class is served the secrets that its own listeners and clusters name, and no
// others; a renewed file changes its secret and nothing else.
func TestSecretsOfAClass(t *testing.T) {
	v := newVault(t)
	names := func(t *delivery.Table) string {
		var out []string
		for r := range t.All(delivery.Secrets) {
			out = append(out, r.Name)
		}
		return strings.Join(out, " ")
	}
	first := v.table("edge")
	if got := names(first); got != "listener.edge.tls.certificates[0] upstream.bank.tls.ca upstream.bank.tls.certificate" {
		t.Errorf("edge is served %s", got)
	}
	if got := names(v.table("inner")); got != "upstream.other.tls.ca" {
		t.Errorf("inner is served %s", got)
	}
	pair := first.Get(delivery.Secrets, "upstream.bank.tls.certificate")
	secret := &tlsv3.Secret{}
	if err := pair.Message().UnmarshalTo(secret); err != nil || !pair.Private || first.Get(delivery.Secrets, "upstream.bank.tls.ca").Private {
		t.Errorf("private: %v, %v", pair.Private, err)
	}
	key, _ := os.ReadFile(v.authority.File("us-key.pem"))
	if got := secret.GetTlsCertificate().GetPrivateKey().GetInlineBytes(); string(got) != string(key) {
		t.Error("the key is another")
	}

	v.issue("us")
	v.keeper.Reload()
	second := v.until("renewed", func(t *delivery.Table) bool {
		return t.Get(delivery.Secrets, "upstream.bank.tls.certificate").Version != pair.Version
	})
	for _, typ := range delivery.Types {
		for r := range first.All(typ) {
			if r.Name != pair.Name && second.Get(typ, r.Name).Version != r.Version {
				t.Errorf("%s %s changed with the certificate", typ.Short(), r.Name)
			}
		}
	}

	// A file that is gone leaves the last good form; the fault is shown.
	if err := os.Remove(v.authority.File("edge.pem")); err != nil {
		t.Fatal(err)
	}
	v.keeper.Reload()
	v.store.apply(t, "kind: Upstream\nname: bank\nspec: {endpoints: [{address: '127.0.0.1:3'}], tls: {ca: {file: ca.pem}, certificate: {cert: us.pem, key: us-key.pem}, sni: bank.test}}\n")
	third := v.until("applied", func(t *delivery.Table) bool { return t != second })
	if third.Get(delivery.Secrets, "listener.edge.tls.certificates[0]") == nil || len(third.Unknown) > 0 {
		t.Errorf("%s, unknown %v", names(third), third.Unknown)
	}
	// One that was never there is not known, neither served nor told as removed;
	// where another was served under its name, that stays.
	v.store.apply(t, "kind: Listener\nname: edge\nspec: {address: '127.0.0.1:10000', routes: [all], tls: {certificates: [{cert: none.pem, key: none-key.pem}, {cert: late.pem, key: late-key.pem}]}}\n")
	late := v.until("late", func(t *delivery.Table) bool { return t.Unknown["listener.edge.tls.certificates[1]"] })
	if late.Get(delivery.Secrets, "listener.edge.tls.certificates[0]") == nil {
		t.Error("the good one is gone")
	}
	if p := v.publisher.Problems(); len(p) != 2 || p[1].Document != "Listener/edge" || p[1].Field != "spec.tls.certificates[1]" || !strings.Contains(p[1].Message, "late.pem") {
		t.Errorf("problems: %v", p)
	}
	v.issue("late")
	v.keeper.Reload()
	v.until("there at last", func(t *delivery.Table) bool { return len(t.Unknown) == 0 })
}

// A change that names files which are not there, or not right, is refused by the
// place that names them; one that does not touch them is not held up.
func TestValidateFiles(t *testing.T) {
	v := newVault(t)
	before := v.store.Spec()
	if err := os.Remove(v.authority.File("edge.pem")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(v.authority.Dir, "bad.pem"), []byte("no"), 0o600); err != nil {
		t.Fatal(err)
	}
	v.store.apply(t, `kind: Upstream
name: bank
spec: {endpoints: [], tls: {ca: {file: bad.pem}, certificate: {cert: us.pem, key: edge-key.pem}, sni: bank.test}}
`)
	faults, _ := v.publisher.Validate(before, v.store.Spec())
	if len(faults) != 2 || faults[0].Field != "spec.tls.ca.file" || faults[1].Field != "spec.tls.certificate" || faults[0].Line != 3 {
		t.Errorf("faults: %v", faults)
	}
	v.store.apply(t, "kind: Upstream\nname: bank\nspec: {endpoints: [], tls: {ca: {file: ca.pem}, sni: bank.test}}\n")
	if faults, _ := v.publisher.Validate(before, v.store.Spec()); len(faults) > 0 {
		t.Errorf("held up by a listener that it does not touch: %v", faults)
	}
}
