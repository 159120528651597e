package consul

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/certtest"
	"github.com/wellspring-xds/wellspring/pkg/consultest"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
)

// A real Consul that speaks TLS and wants a client's certificate: who has the right
// files reads, and everybody else is told what is wrong.
func TestRealTLS(t *testing.T) {
	t.Parallel()
	ours, err := certtest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	other, err := certtest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	serverCert, serverKey, err := ours.Issue("server", time.Hour, "server.dc1.consul", "localhost")
	if err != nil {
		t.Fatal(err)
	}
	clientCert, clientKey, err := ours.Issue("client", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ports, err := freeport.Get(1)
	if err != nil {
		t.Fatal(err)
	}
	a := agent(t, consultest.Config{HTTPS: ports[0], Extra: map[string]any{"tls": map[string]any{"https": map[string]any{
		"ca_file": ours.CA(), "cert_file": serverCert, "key_file": serverKey, "verify_incoming": true,
	}}}})
	register(t, a, "web", "a")
	address := net.JoinHostPort("127.0.0.1", fmt.Sprint(ports[0]))
	right := TLS{CAFile: ours.CA(), CertFile: clientCert, KeyFile: clientKey, ServerName: "server.dc1.consul"}
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
		"another authority":   {change(func(x *TLS) { x.CAFile = other.CA() }), "certificate signed by unknown authority"},
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
	if _, err := New(Config{Name: "consul", Address: address, TLS: &TLS{CAFile: ours.File("none.pem")}}); err == nil || !strings.Contains(err.Error(), "none.pem") {
		t.Errorf("a file that is not there: %v", err)
	}
}
