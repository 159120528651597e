package bootstrap

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
)

// TLS of the stream to the control plane. All paths are on the proxy's machine.
type TLS struct {
	// CA is a file with the authorities that sign the control plane's certificate;
	// required.
	CA string
	// Cert and Key are files with the proxy's own certificate; "" presents none.
	Cert, Key string
	// ServerName is the name that the control plane's certificate must have.
	// Default: the host of the first address.
	ServerName string
	// SecretsDir is the folder of the files that Secrets builds. By them Envoy reads
	// Cert, Key and CA again when they are replaced; without, only when it starts.
	SecretsDir string
}

// The names of the secrets, and of their files with .json: Envoy takes one secret
// from a file.
const (
	ownSecret       = "wellspring-xds-certificate"
	authoritySecret = "wellspring-xds-authority"
)

// Secrets builds the files of TLS.SecretsDir, by name.
func Secrets(t TLS) (map[string][]byte, error) {
	all := []*tlsv3.Secret{{Name: authoritySecret, Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
		TrustedCa: file(t.CA), WatchedDirectory: folder(t.CA),
	}}}}
	if t.Cert != "" {
		all = append(all, &tlsv3.Secret{Name: ownSecret, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: file(t.Cert), PrivateKey: file(t.Key), WatchedDirectory: folder(t.Cert),
		}}})
	}
	out := map[string][]byte{}
	for _, s := range all {
		a, err := packed(s)
		if err != nil {
			return nil, err
		}
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(&discoveryv3.DiscoveryResponse{Resources: []*anypb.Any{a}})
		if err != nil {
			return nil, err
		}
		out[s.Name+".json"] = append(text, '\n')
	}
	return out, nil
}

func (t *TLS) socket(addresses []string) (*corev3.TransportSocket, error) {
	name := t.ServerName
	if name == "" && !strings.HasPrefix(addresses[0], "unix://") {
		name, _, _ = net.SplitHostPort(addresses[0])
	}
	switch {
	case t.CA == "":
		return nil, fmt.Errorf("TLS to the control plane needs the authority that signs its certificate")
	case (t.Cert == "") != (t.Key == ""):
		return nil, fmt.Errorf("a certificate and its key go together")
	case name == "":
		return nil, fmt.Errorf("the name in the control plane's certificate is needed: %q has none", addresses[0])
	}
	for _, path := range []string{t.CA, t.Cert, t.Key, t.SecretsDir} {
		if path != "" && !filepath.IsAbs(path) {
			return nil, fmt.Errorf("%q is not an absolute path; Envoy may be started in any folder", path)
		}
	}
	names := &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{altName(name)}}
	common := &tlsv3.CommonTlsContext{AlpnProtocols: []string{"h2"}}
	if t.SecretsDir == "" {
		names.TrustedCa = file(t.CA)
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: names}
		if t.Cert != "" {
			common.TlsCertificates = []*tlsv3.TlsCertificate{{CertificateChain: file(t.Cert), PrivateKey: file(t.Key)}}
		}
	} else {
		common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext: names, ValidationContextSdsSecretConfig: t.secret(authoritySecret),
			},
		}
		if t.Cert != "" {
			common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{t.secret(ownSecret)}
		}
	}
	context := &tlsv3.UpstreamTlsContext{CommonTlsContext: common}
	if _, err := netip.ParseAddr(name); err != nil { // an address is no server name
		context.Sni = name
	}
	a, err := packed(context)
	return &corev3.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: a}}, err
}

func (t *TLS) secret(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: &corev3.ConfigSource{
		ResourceApiVersion: corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{
			Path: filepath.Join(t.SecretsDir, name+".json"), WatchedDirectory: &corev3.WatchedDirectory{Path: t.SecretsDir},
		}},
	}}
}

func altName(name string) *tlsv3.SubjectAltNameMatcher {
	kind := tlsv3.SubjectAltNameMatcher_DNS
	if ip, err := netip.ParseAddr(name); err == nil {
		kind, name = tlsv3.SubjectAltNameMatcher_IP_ADDRESS, ip.String() // Envoy compares texts
	}
	return &tlsv3.SubjectAltNameMatcher{SanType: kind, Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: name}}}
}

func file(path string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
}

func folder(path string) *corev3.WatchedDirectory {
	return &corev3.WatchedDirectory{Path: filepath.Dir(path)}
}
