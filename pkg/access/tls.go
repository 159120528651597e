package access

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"

	"github.com/wellspring-xds/wellspring/pkg/certificate"
)

// TLS is that of one listener. The files lie in a store that reads them again, so
// that a new connection gets what they hold now and an open one is left alone.
type TLS struct {
	// Store keeps the bundles; the listener's user name there wants them.
	Store *certificate.Store
	// Server is our certificate.
	Server certificate.Ref
	// ClientCA signs the certificates of clients; the zero Ref asks for none.
	ClientCA certificate.Ref
	// Optional lets in a client without a certificate, which needs another
	// credential then.
	Optional bool
	// Protocols for ALPN, best first.
	Protocols []string

	mu     sync.Mutex // guards what follows
	from   [2]*certificate.Bundle
	config *tls.Config
}

// Config is for a server that takes TLS.
func (t *TLS) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: t.Protocols, SessionTicketsDisabled: true,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return t.current() },
	}
}

// current is the configuration by today's files.
func (t *TLS) current() (*tls.Config, error) {
	var from [2]*certificate.Bundle
	for i, r := range []certificate.Ref{t.Server, t.ClientCA} {
		if r == (certificate.Ref{}) {
			continue
		}
		var err error
		if from[i], err = t.Store.Get(r); err != nil {
			return nil, err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.config != nil && from == t.from {
		return t.config, nil
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: t.Protocols, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{from[0].Pair},
	}
	if from[1] != nil {
		c.ClientCAs, c.ClientAuth = from[1].Pool(), tls.RequireAndVerifyClientCert
		if t.Optional {
			c.ClientAuth = tls.VerifyClientCertIfGiven
		}
	}
	t.from, t.config = from, c
	return c, nil
}

// Names are the subject alternative names of the client's certificate, where one
// was verified.
func Names(s *tls.ConnectionState) []string {
	if s == nil || len(s.VerifiedChains) == 0 {
		return nil
	}
	return certificate.SANs(s.PeerCertificates[0])
}

// nameOf is a certificate in one word.
func nameOf(c *x509.Certificate) string {
	if names := certificate.SANs(c); len(names) > 0 {
		return names[0]
	}
	return fmt.Sprintf("%q", c.Subject.String())
}
