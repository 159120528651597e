package main_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/access"
	"github.com/wellspring-xds/wellspring/pkg/admin/client"
	"github.com/wellspring-xds/wellspring/pkg/certtest"
)

// keys are the credentials of a control plane, its operator and its proxies.
type keys struct {
	t         *testing.T
	authority *certtest.Authority
	tokens    string // file of the server
	token     string // file of the operator
}

func newKeys(t *testing.T) *keys {
	t.Helper()
	a, err := certtest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	k := &keys{t: t, authority: a, tokens: filepath.Join(t.TempDir(), "tokens"), token: filepath.Join(t.TempDir(), "token")}
	k.issue("control", "127.0.0.1", "localhost")
	k.issue("edge-1", "spiffe://test/edge/edge-1")
	token, line, err := access.NewToken("operator", access.Write)
	if err != nil {
		t.Fatal(err)
	}
	k.write(k.tokens, line+"\n")
	k.write(k.token, token+"\n")
	return k
}

func (k *keys) issue(name string, sans ...string) {
	k.t.Helper()
	if _, _, err := k.authority.Issue(name, time.Hour, sans...); err != nil {
		k.t.Fatal(err)
	}
}

func (k *keys) write(file, text string) {
	k.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
}

// flags of a server that asks for them.
func (k *keys) flags() []string {
	cert, key := k.authority.File("control.pem"), k.authority.File("control-key.pem")
	return []string{
		"--xds-tls-cert", cert, "--xds-tls-key", key, "--xds-tls-client-ca", k.authority.CA(),
		"--telemetry-tls-cert", cert, "--telemetry-tls-key", key, "--telemetry-tls-client-ca", k.authority.CA(),
		"--admin-tls-cert", cert, "--admin-tls-key", key, "--admin-tokens-file", k.tokens,
	}
}

// client has them; nil has none.
func (k *keys) client(server string) client.Config {
	if k == nil {
		return client.Config{Server: server}
	}
	return client.Config{Server: server, CA: k.authority.CA(), TokenFile: k.token}
}

// global are the flags of a verb.
func (k *keys) global(server string) []string {
	if k == nil {
		return []string{"--server", server}
	}
	return []string{"--server", server, "--ca", k.authority.CA(), "--token-file", k.token}
}

// bootstrap is the TLS of a proxy that has a certificate.
func (k *keys) bootstrap(name string) *bootstrap.TLS {
	if k == nil {
		return nil
	}
	k.t.Helper()
	t := &bootstrap.TLS{
		CA: k.authority.CA(), Cert: k.authority.File(name + ".pem"), Key: k.authority.File(name + "-key.pem"),
		ServerName: "localhost", SecretsDir: k.t.TempDir(),
	}
	files, err := bootstrap.Secrets(*t)
	if err != nil {
		k.t.Fatal(err)
	}
	for file, text := range files {
		k.write(filepath.Join(t.SecretsDir, file), string(text))
	}
	return t
}
