package xds

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/wellspring-xds/wellspring/pkg/certificate"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// ClientTLS is what a proxy speaks to an upstream's endpoints, for who tries the same from
// here; nil where it speaks no TLS. An error says why that cannot be done from here: the
// authority lies at the proxies, or a file cannot be read.
func (p *Publisher) ClientTLS(name string) (*tls.Config, error) {
	u, ok := p.Spec().Upstream(name)
	if !ok || u.TLS == nil {
		return nil, nil
	}
	c := &tls.Config{ServerName: u.TLS.ServerName(), InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // the chain and its names are verified below, as Envoy does
	if u.TLS.MinVersion == 1.3 {
		c.MinVersion = tls.VersionTLS13
	}
	if u.SpeaksHTTP2() {
		c.NextProtos = []string{"h2"}
	}
	if u.TLS.CA.ProxyFile != "" {
		return nil, errors.New("its authority lies at the proxies (tls.ca.proxyFile)")
	}
	var roots *x509.CertPool
	for _, s := range u.Secrets(name) {
		b, err := p.cfg.Secrets.Get(p.ref(s))
		if err != nil {
			return nil, err
		}
		if s.Key != "" {
			c.Certificates = []tls.Certificate{b.Pair}
		} else {
			roots = b.Pool()
		}
	}
	if !u.TLS.InsecureSkipVerify {
		c.VerifyConnection = func(s tls.ConnectionState) error { return verify(s.PeerCertificates, roots, u.TLS) }
	}
	return c, nil
}

// verify holds what an endpoint presents against what its upstream asks for: a chain to
// an authority, and one of its names.
func verify(chain []*x509.Certificate, roots *x509.CertPool, t *spec.UpstreamTLS) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return err
	}
	names := certificate.SANs(chain[0])
	if want := t.Names(); len(want) > 0 && !model.MatchAnyName(want, names) {
		return fmt.Errorf("its certificate is for %v, and one of %v is asked for", names, want)
	}
	return nil
}
