package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// keys are a certificate of this machine's loopback address and its key, in a folder.
type keys struct {
	dir  string
	pool *x509.CertPool
}

func (k *keys) cert() string { return filepath.Join(k.dir, "cert.pem") }
func (k *keys) key() string  { return filepath.Join(k.dir, "key.pem") }

func newKeys(dir string) (*keys, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "deliverybench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	k := &keys{dir: dir, pool: x509.NewCertPool()}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	k.pool.AppendCertsFromPEM(public)
	if err := os.WriteFile(k.cert(), public, 0o600); err != nil {
		return nil, err
	}
	return k, os.WriteFile(k.key(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600)
}

// client is how a client of ours meets a server with TLS.
func (k *keys) client() *tls.Config {
	return &tls.Config{RootCAs: k.pool, ServerName: "127.0.0.1", NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13}
}

func (k *keys) credentials(on bool) credentials.TransportCredentials {
	if on {
		return credentials.NewTLS(k.client())
	}
	return insecure.NewCredentials()
}
