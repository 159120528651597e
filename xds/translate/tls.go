package translate

import (
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// KeyPair is a certificate and its key as a secret.
func KeyPair(name string, chain, key []byte) *tlsv3.Secret {
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline(chain), PrivateKey: inline(key),
	}}}
}

// Authority is a bundle of authorities as a secret.
func Authority(name string, bundle []byte) *tlsv3.Secret {
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
		TrustedCa: inline(bundle),
	}}}
}

func inline(text []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: text}}
}

// sds names a secret that comes on this very stream.
func sds(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: ads(fetchTimeout)}
}

const tlsSocket = "envoy.transport_sockets.tls"

func transportSocket(m proto.Message) *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: tlsSocket, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(m)}}
}

func tlsParameters(least float64) *tlsv3.TlsParameters {
	p := &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3}
	if least == 1.3 {
		p.TlsMinimumProtocolVersion = tlsv3.TlsParameters_TLSv1_3
	}
	return p
}

// downstreamTLS ends the TLS of clients.
func downstreamTLS(name string, l *spec.Listener) *corev3.TransportSocket {
	if l.TLS == nil {
		return nil
	}
	common := &tlsv3.CommonTlsContext{TlsParams: tlsParameters(l.TLS.MinVersion), AlpnProtocols: l.TLS.ALPN}
	if len(l.TLS.ALPN) == 0 && l.RoutesHTTP() {
		common.AlpnProtocols = []string{"h2", "http/1.1"}
	}
	for _, s := range l.Secrets(name) {
		if s.Key == "" {
			common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{ValidationContextSdsSecretConfig: sds(s.Name)}
			continue
		}
		common.TlsCertificateSdsSecretConfigs = append(common.TlsCertificateSdsSecretConfigs, sds(s.Name))
	}
	return transportSocket(&tlsv3.DownstreamTlsContext{
		CommonTlsContext: common, RequireClientCertificate: wrapperspb.Bool(l.TLS.ClientsPresent()),
	})
}

// upstreamTLS is spoken to endpoints.
func upstreamTLS(name string, u *spec.Upstream) *corev3.TransportSocket {
	t := u.TLS
	if t == nil {
		return nil
	}
	common := &tlsv3.CommonTlsContext{TlsParams: tlsParameters(t.MinVersion)}
	if u.SpeaksHTTP2() {
		common.AlpnProtocols = []string{"h2"} // many servers speak HTTP/1 to who does not ask for more
	}
	names := &tlsv3.CertificateValidationContext{}
	for _, n := range t.Names() {
		names.MatchTypedSubjectAltNames = append(names.MatchTypedSubjectAltNames, altName(n))
	}
	for _, s := range u.Secrets(name) {
		if s.Key != "" {
			common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{sds(s.Name)}
			continue
		}
		common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext: names, ValidationContextSdsSecretConfig: sds(s.Name),
			},
		}
	}
	if t.CA.ProxyFile != "" {
		names.TrustedCa = &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: t.CA.ProxyFile}}
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: names}
	}
	return transportSocket(&tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: t.ServerName()})
}

// altName matches one name in a certificate, of the kind that it looks like.
func altName(name string) *tlsv3.SubjectAltNameMatcher {
	m := &tlsv3.SubjectAltNameMatcher{SanType: tlsv3.SubjectAltNameMatcher_DNS, Matcher: &matcherv3.StringMatcher{}}
	if ip, err := netip.ParseAddr(name); err == nil {
		m.SanType, name = tlsv3.SubjectAltNameMatcher_IP_ADDRESS, ip.String() // Envoy compares texts
	} else if strings.Contains(name, ":/") {
		m.SanType = tlsv3.SubjectAltNameMatcher_URI
	}
	if rest, ok := strings.CutPrefix(name, "*"); ok {
		m.Matcher.MatchPattern = &matcherv3.StringMatcher_Suffix{Suffix: rest}
	} else if rest, ok := strings.CutSuffix(name, "*"); ok {
		m.Matcher.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: rest}
	} else {
		m.Matcher.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: name}
	}
	return m
}

// tlsIdentity is what of an upstream's TLS makes endpoints and definition
// inseparable: not the files, whose content comes by SDS.
func tlsIdentity(u *spec.Upstream) any {
	if u.TLS == nil {
		return nil
	}
	t := *u.TLS
	t.CA.File = present(t.CA.File)
	if t.Certificate != nil {
		t.Certificate = &spec.CertificateFiles{}
	}
	return t
}

func present(s string) string {
	if s != "" {
		return "present"
	}
	return ""
}
