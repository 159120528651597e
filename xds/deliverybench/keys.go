package main

import (
	"crypto/tls"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/wellspring-xds/wellspring/pkg/certtest"
)

// keys are an authority, a certificate of loopback and its key, in a folder.
type keys struct {
	certtest.Authority
	trust *tls.Config
}

func (k *keys) cert() string { return k.File("server.pem") }
func (k *keys) key() string  { return k.File("server-key.pem") }

func newKeys(dir string) (*keys, error) {
	a, err := certtest.New(dir)
	if err != nil {
		return nil, err
	}
	if _, _, err := a.Issue("server", 24*time.Hour, "127.0.0.1"); err != nil {
		return nil, err
	}
	trust, err := a.ClientTLS("")
	return &keys{Authority: *a, trust: trust}, err
}

// client is how a client of ours meets a server with TLS.
func (k *keys) client() *tls.Config {
	c := k.trust.Clone()
	c.ServerName, c.NextProtos, c.MinVersion = "127.0.0.1", []string{"h2"}, tls.VersionTLS13
	return c
}

func (k *keys) credentials(on bool) credentials.TransportCredentials {
	if on {
		return credentials.NewTLS(k.client())
	}
	return insecure.NewCredentials()
}
