package consul

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/consultest"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
)

// authority issues certificates into files of a folder.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue(name, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	return a
}

// issue writes NAME.pem and NAME-key.pem; by is nil for the authority's own.
func (a *authority) issue(name string, c *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	text, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + "-key.pem": {Type: "EC PRIVATE KEY", Bytes: text}} {
		if err := os.WriteFile(a.file(file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return out, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// A real Consul that speaks TLS and wants a client's certificate: who has the right
// files reads, and everybody else is told what is wrong.
func TestRealTLS(t *testing.T) {
	t.Parallel()
	ours, other := newAuthority(t, "ca"), newAuthority(t, "ca")
	ours.issue("server", &x509.Certificate{
		DNSNames: []string{"server.dc1.consul", "localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, ours)
	ours.issue("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ours)
	ports, err := freeport.Get(1)
	if err != nil {
		t.Fatal(err)
	}
	a := agent(t, consultest.Config{HTTPS: ports[0], Extra: map[string]any{"tls": map[string]any{"https": map[string]any{
		"ca_file": ours.file("ca.pem"), "cert_file": ours.file("server.pem"), "key_file": ours.file("server-key.pem"), "verify_incoming": true,
	}}}})
	register(t, a, "web", "a")
	address := net.JoinHostPort("127.0.0.1", fmt.Sprint(ports[0]))
	right := TLS{CAFile: ours.file("ca.pem"), CertFile: ours.file("client.pem"), KeyFile: ours.file("client-key.pem"), ServerName: "server.dc1.consul"}
	change := func(f func(*TLS)) TLS {
		x := right
		f(&x)
		return x
	}
	for what, c := range map[string]struct {
		tls  TLS
		says string // of the failure; "" reads
	}{
		"the right files":     {right, ""},
		"verification is off": {change(func(x *TLS) { x.CAFile, x.ServerName, x.InsecureSkipVerify = "", "", true }), ""},
		"another authority":   {change(func(x *TLS) { x.CAFile = other.file("ca.pem") }), "certificate signed by unknown authority"},
		"another name":        {change(func(x *TLS) { x.ServerName = "elsewhere" }), "certificate is valid for server.dc1.consul, localhost, not elsewhere"},
		"no certificate":      {change(func(x *TLS) { x.CertFile, x.KeyFile = "", "" }), "https://"}, // TLS 1.3 tells it when the connection is used: in which words is chance
	} {
		src, err := New(Config{Name: "consul", Address: address, TLS: &c.tls})
		if err != nil {
			t.Fatal(err)
		}
		got := src.plainRead(t.Context(), key("web"))
		switch {
		case c.says == "" && (got.failed.Err != nil || len(got.entries) != 1):
			t.Errorf("%s: %v", what, got.failed.Err)
		case c.says != "" && (got.failed.Err == nil || !strings.Contains(got.failed.Err.Error(), c.says)):
			t.Errorf("%s: %v, want %q", what, got.failed.Err, c.says)
		}
	}
	if _, err := New(Config{Name: "consul", Address: address, TLS: &TLS{CAFile: ours.file("none.pem")}}); err == nil || !strings.Contains(err.Error(), "none.pem") {
		t.Errorf("a file that is not there: %v", err)
	}
}
