// Package certtest issues certificates for tests and the demo.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Authority issues certificates into the files of a folder: NAME.pem and
// NAME-key.pem, the authority's own as ca.pem and ca-key.pem.
type Authority struct {
	// Dir is where the files lie.
	Dir string

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New makes an authority whose files lie in dir, which exists.
func New(dir string) (*Authority, error) {
	a := &Authority{Dir: dir}
	var err error
	a.cert, a.key, err = a.issue("ca", &x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotAfter: time.Now().Add(24 * time.Hour),
	})
	return a, err
}

// CA is the file of the authority's own certificate.
func (a *Authority) CA() string { return a.File("ca.pem") }

// File is a file of the folder.
func (a *Authority) File(name string) string { return filepath.Join(a.Dir, name) }

// Issue writes a certificate for subject alternative names (DNS names, IP
// addresses, URIs) that ends after life, and returns its files.
func (a *Authority) Issue(name string, life time.Duration, sans ...string) (cert, key string, err error) {
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, san := range sans {
		if ip, err := netip.ParseAddr(san); err == nil {
			c.IPAddresses = append(c.IPAddresses, ip.AsSlice())
		} else if strings.Contains(san, "://") {
			u, err := url.Parse(san)
			if err != nil {
				return "", "", err
			}
			c.URIs = append(c.URIs, u)
		} else {
			c.DNSNames = append(c.DNSNames, san)
		}
	}
	_, _, err = a.issue(name, c)
	return a.File(name + ".pem"), a.File(name + "-key.pem"), err
}

func (a *Authority) issue(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	c.SerialNumber, c.NotBefore = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, nil, err
	}
	text, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	// The key first and both by renaming, as a careful agent does it.
	for _, f := range []struct {
		name  string
		block *pem.Block
	}{{name + "-key.pem", &pem.Block{Type: "EC PRIVATE KEY", Bytes: text}}, {name + ".pem", &pem.Block{Type: "CERTIFICATE", Bytes: der}}} {
		if err := os.WriteFile(a.File("."+f.name), pem.EncodeToMemory(f.block), 0o600); err != nil {
			return nil, nil, err
		}
		if err := os.Rename(a.File("."+f.name), a.File(f.name)); err != nil {
			return nil, nil, err
		}
	}
	out, err := x509.ParseCertificate(der)
	return out, key, err
}

// ClientTLS verifies servers by this authority and presents a certificate that it
// issued ("" presents none).
func (a *Authority) ClientTLS(name string) (*tls.Config, error) {
	text, err := os.ReadFile(a.CA())
	if err != nil {
		return nil, err
	}
	c := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !c.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate in it", a.CA())
	}
	if name != "" {
		pair, err := tls.LoadX509KeyPair(a.File(name+".pem"), a.File(name+"-key.pem"))
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
