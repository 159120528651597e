package spec

import (
	"net/netip"
	"path/filepath"
	"strings"
)

// ListenerTLS ends the TLS of clients.
type ListenerTLS struct {
	Certificates  []CertificateFiles `json:"certificates" required:"true" doc:"The server's certificates; the name that a client asks for (SNI) picks one, the first is for all others."`
	ClientCA      string             `json:"clientCA,omitempty" doc:"File with the authorities of client certificates, below the server's secrets.dir."`
	RequireClient *bool              `json:"requireClient,omitempty" doc:"Clients must present a certificate. Default: true where clientCA is written; false takes clients without one too."`
	MinVersion    float64            `json:"minVersion,omitempty" default:"1.2" minimum:"1.2" maximum:"1.3" doc:"Least version of TLS: 1.2 or 1.3."`
	ALPN          []string           `json:"alpn,omitempty" doc:"Protocols that are offered, best first. Default: h2, http/1.1; none for tcp."`
}

// CertificateFiles are a certificate and its key.
type CertificateFiles struct {
	Cert string `json:"cert" required:"true" doc:"File with the certificate and what it was signed by, as PEM, below the server's secrets.dir."`
	Key  string `json:"key" required:"true" doc:"File with its private key, as PEM, below the server's secrets.dir."`
}

// UpstreamTLS is spoken to endpoints.
type UpstreamTLS struct {
	CA                 CAFile            `json:"ca,omitempty" doc:"Who signs the endpoints' certificates. Needed unless insecureSkipVerify is written."`
	Certificate        *CertificateFiles `json:"certificate,omitempty" doc:"Presented to endpoints that ask for one."`
	SNI                string            `json:"sni,omitempty" maxLength:"253" doc:"Server name that is asked for. Default: the first of sans that is an exact DNS name; else none."`
	SANs               []string          `json:"sans,omitempty" doc:"Names of which the endpoints' certificates must have one: DNS names, IP addresses, URIs; exact, or with one * at the beginning or the end. Default: the sni."`
	InsecureSkipVerify bool              `json:"insecureSkipVerify,omitempty" doc:"Take any certificate."`
	MinVersion         float64           `json:"minVersion,omitempty" default:"1.2" minimum:"1.2" maximum:"1.3" doc:"Least version of TLS: 1.2 or 1.3."`
}

// CAFile is a file of the control plane, or one that lies at each proxy.
type CAFile struct {
	File      string `json:"file,omitempty" doc:"File below the server's secrets.dir."`
	ProxyFile string `json:"proxyFile,omitempty" doc:"Absolute path of a file on each proxy's machine. It is read when the cluster is made."`
}

// Secret is something that travels by SDS, and the files that it lies in, relative
// to the server's secrets.dir. Key is empty for authorities.
type Secret struct {
	// Name in Envoy: KIND.NAME.FIELD. No document's name has a dot, so that a
	// secret's name is never an upstream's.
	Name string
	// Field of the document that names the files.
	Field     string
	Cert, Key string
}

// Secrets lists what a document's TLS needs; none for a kind that has no TLS.
func (d *Document) Secrets() []Secret {
	if b, ok := d.Body.(interface{ Secrets(string) []Secret }); ok {
		return b.Secrets(d.Name)
	}
	return nil
}

// Secrets lists what a listener's TLS needs, in the order of its fields.
func (l *Listener) Secrets(name string) []Secret {
	if l.TLS == nil {
		return nil
	}
	var out []Secret
	for i, c := range l.TLS.Certificates {
		field := index("tls.certificates", i)
		out = append(out, Secret{"listener." + name + "." + field, "spec." + field, c.Cert, c.Key})
	}
	if l.TLS.ClientCA != "" {
		out = append(out, Secret{"listener." + name + ".tls.clientCA", "spec.tls.clientCA", l.TLS.ClientCA, ""})
	}
	return out
}

// ClientsPresent tells whether clients must present a certificate.
func (t *ListenerTLS) ClientsPresent() bool {
	if t.RequireClient != nil {
		return *t.RequireClient
	}
	return t.ClientCA != ""
}

// Secrets lists what an upstream's TLS needs, in the order of its fields.
func (u *Upstream) Secrets(name string) []Secret {
	if u.TLS == nil {
		return nil
	}
	var out []Secret
	if u.TLS.CA.File != "" {
		out = append(out, Secret{"upstream." + name + ".tls.ca", "spec.tls.ca.file", u.TLS.CA.File, ""})
	}
	if c := u.TLS.Certificate; c != nil {
		out = append(out, Secret{"upstream." + name + ".tls.certificate", "spec.tls.certificate", c.Cert, c.Key})
	}
	return out
}

// ServerName is the name that is asked for, "" for none.
func (t *UpstreamTLS) ServerName() string {
	if t.SNI != "" {
		return t.SNI
	}
	for _, san := range t.SANs {
		if _, err := netip.ParseAddr(san); err != nil && !strings.ContainsAny(san, "*:/") {
			return san
		}
	}
	return ""
}

// Names are those of which an endpoint's certificate must have one.
func (t *UpstreamTLS) Names() []string {
	if len(t.SANs) == 0 && t.SNI != "" {
		return []string{t.SNI}
	}
	return t.SANs
}

func (t *ListenerTLS) check(c *checker, path string) {
	if len(t.Certificates) == 0 {
		c.faultf(path+".certificates", "is empty; name a certificate and its key")
	}
	for i, f := range t.Certificates {
		f.check(c, index(path+".certificates", i))
	}
	c.secretFile(path+".clientCA", t.ClientCA)
	if t.ClientCA == "" && t.ClientsPresent() {
		c.faultf(path+".requireClient", "needs clientCA: the authorities whose certificates are taken")
	}
	c.tlsVersion(path+".minVersion", t.MinVersion)
	for i, p := range t.ALPN {
		if p == "" || len(p) > 255 {
			c.faultf(index(path+".alpn", i), "%q is not the name of a protocol", p)
		}
	}
}

func (f CertificateFiles) check(c *checker, path string) {
	c.secretFile(path+".cert", f.Cert)
	c.secretFile(path+".key", f.Key)
}

func (t *UpstreamTLS) check(c *checker, path string) {
	c.secretFile(path+".ca.file", t.CA.File)
	if p := t.CA.ProxyFile; p != "" && !filepath.IsAbs(p) {
		c.faultf(path+".ca.proxyFile", "%q is not an absolute path", p)
	}
	hasCA := t.CA != CAFile{}
	switch {
	case t.CA.File != "" && t.CA.ProxyFile != "":
		c.faultf(path+".ca", "both file and proxyFile are written; write one")
	case t.InsecureSkipVerify && (hasCA || len(t.SANs) > 0):
		c.faultf(path+".insecureSkipVerify", "nothing is verified, so that ca and sans mean nothing; leave it out, or them")
	case !t.InsecureSkipVerify && !hasCA:
		c.faultf(path+".ca", "is missing; say who signs the endpoints' certificates, or write insecureSkipVerify: true")
	case !t.InsecureSkipVerify && len(t.Names()) == 0:
		c.faultf(path+".sans", "is missing; without sni or sans any certificate of these authorities would do")
	}
	if t.Certificate != nil {
		t.Certificate.check(c, path+".certificate")
	}
	if t.SNI != "" {
		c.host(path+".sni", t.SNI)
		if _, err := netip.ParseAddr(t.SNI); err == nil || strings.Contains(t.SNI, "*") {
			c.faultf(path+".sni", "%q is not a name that a client can ask for; TLS knows DNS names only", t.SNI)
		}
	}
	for i, san := range t.SANs {
		c.pattern(index(path+".sans", i), san)
	}
	c.tlsVersion(path+".minVersion", t.MinVersion)
}

func (c *checker) tlsVersion(field string, v float64) {
	if v != 1.2 && v != 1.3 {
		c.faultf(field, "%v is not a version of TLS; write 1.2 or 1.3", v)
	}
}

// secretFile accepts a path below the folder of secrets: an absolute one, or one
// that leads out, would let a document read any file of the server.
func (c *checker) secretFile(field, path string) {
	if path != "" && !filepath.IsLocal(path) {
		c.faultf(field, "%q does not lie below the server's secrets.dir; write a path relative to it", path)
	}
	c.headerValue(field, path)
}

// pattern accepts a name in a certificate: exact, or with one * at the beginning or
// the end.
func (c *checker) pattern(field, s string) {
	switch inner := strings.TrimSuffix(strings.TrimPrefix(s, "*"), "*"); {
	case inner == "":
		c.faultf(field, "%q is any name there is; leave the field out for that", s)
	case strings.Contains(inner, "*") || strings.HasPrefix(s, "*") && strings.HasSuffix(s, "*"):
		c.faultf(field, "%q has a * elsewhere than once at the beginning or the end", s)
	}
	c.headerValue(field, s)
}
