// Package certificate keeps certificates that lie in files, in the form in which
// they were last readable.
//
//	Ref     names a certificate and its key, or a bundle of authorities, by files
//	Bundle  one Ref as it was last readable; immutable
//	Store   the bundles that somebody wants; Reload reads their files again
//
// A certificate and its key are replaced one after the other. A pair that does not
// match, a file that is gone or cut short therefore never takes away what was good:
// it is told, and the former stays until the files are right again.
package certificate

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"
)

// Ref names files. Key is empty for a bundle of authorities. It may be a map key.
type Ref struct{ Cert, Key string }

// Bundle is one Ref as it was last readable. It is immutable.
type Bundle struct {
	Ref
	// Chain and PrivateKey are PEM, as they stand in the files; PrivateKey is nil for
	// authorities.
	Chain, PrivateKey []byte
	// Certificates are those in Chain, in their order.
	Certificates []*x509.Certificate
	// Pair is for our own listeners; zero for authorities.
	Pair tls.Certificate
}

// Pool holds the certificates of a bundle of authorities.
func (b *Bundle) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range b.Certificates {
		pool.AddCert(c)
	}
	return pool
}

// shown is the certificate whose names and end are told: the leaf of a chain, and
// of authorities the one that lasts longest, since an old one beside its successor
// is how authorities are replaced.
func (b *Bundle) shown() *x509.Certificate {
	if b.Key != "" {
		return b.Certificates[0]
	}
	return slices.MaxFunc(b.Certificates, func(x, y *x509.Certificate) int { return x.NotAfter.Compare(y.NotAfter) })
}

// SANs lists the subject alternative names of a certificate as text: URIs, DNS
// names, IP and mail addresses.
func SANs(c *x509.Certificate) []string {
	var out []string
	for _, u := range c.URIs {
		out = append(out, u.String())
	}
	out = append(out, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		out = append(out, ip.String())
	}
	return append(out, c.EmailAddresses...)
}

// maxFile bounds a file: certificates are small, and a wrong path may be large.
const maxFile = 1 << 20

// Read reads the files of a Ref. The error names the file that is wrong and never
// quotes a key.
func Read(ref Ref) (*Bundle, error) {
	b := &Bundle{Ref: ref}
	var err error
	if b.Chain, err = readFile(ref.Cert); err != nil {
		return nil, err
	}
	if b.Certificates, err = parse(ref.Cert, b.Chain); err != nil {
		return nil, err
	}
	if ref.Key == "" {
		return b, nil
	}
	if b.PrivateKey, err = readFile(ref.Key); err != nil {
		return nil, err
	}
	if b.Pair, err = tls.X509KeyPair(b.Chain, b.PrivateKey); err != nil {
		return nil, fmt.Errorf("%s and %s: %w", ref.Cert, ref.Key, err)
	}
	return b, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not hold us up
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxFile)
	}
	return text, err
}

func parse(path string, text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s has a block of type %q; only certificates belong there", path, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, c)
	}
	switch begun := bytes.Count(text, []byte("-----BEGIN ")); {
	case begun != len(out):
		return nil, fmt.Errorf("%s has %d blocks, of which %d are whole; it is cut short or damaged", path, begun, len(out))
	case begun == 0:
		return nil, fmt.Errorf("%s has no certificate in PEM form in it", path)
	}
	return out, nil
}

func (b *Bundle) equal(o *Bundle) bool {
	return o != nil && bytes.Equal(b.Chain, o.Chain) && bytes.Equal(b.PrivateKey, o.PrivateKey)
}

// expiringBelow is how much of a certificate's life may be left before it is told
// as expiring: a quarter, two weeks at most. Agents renew at a third.
func expiring(c *x509.Certificate, now time.Time) bool {
	return c.NotAfter.Sub(now) < min(14*24*time.Hour, c.NotAfter.Sub(c.NotBefore)/4)
}

// ErrUnread means that the files of a Ref were never readable.
var ErrUnread = errors.New("never readable")
