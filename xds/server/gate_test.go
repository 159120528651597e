package server

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/wellspring-xds/wellspring/pkg/access"
	"github.com/wellspring-xds/wellspring/pkg/certificate"
	"github.com/wellspring-xds/wellspring/pkg/certtest"
	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// Every method that is registered is closed to who has no certificate, unary and
// streaming alike, and a method that nobody listed is closed to everybody.
func TestEveryMethodIsClosed(t *testing.T) {
	serving(t, Config{NeedCertificate: true}, func(t *testing.T, s *Server, conn *grpc.ClientConn) {
		n := 0
		for service, info := range s.GRPC().GetServiceInfo() {
			for _, m := range info.Methods {
				n++
				name := "/" + service + "/" + m.Name
				if err := call(conn, name, m); status.Code(err) != codes.Unauthenticated {
					t.Errorf("%s: %v", name, err)
				}
				if !methods[name] {
					t.Errorf("%s is served and not listed", name)
				}
			}
		}
		if n != 5 || len(methods) != n {
			t.Errorf("%d methods are registered, %d listed", n, len(methods))
		}
		if err := s.allow(context.Background(), "/any.Service/Method"); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a method that is not listed: %v", err)
		}
	})
}

// call calls a method with an empty message and returns how it ended.
func call(conn *grpc.ClientConn, name string, m grpc.MethodInfo) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if !m.IsClientStream && !m.IsServerStream {
		return conn.Invoke(ctx, name, &emptypb.Empty{}, &emptypb.Empty{})
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: m.IsClientStream, ServerStreams: m.IsServerStream}, name)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil && err != io.EOF { //nolint:errorlint // gRPC's own word
		return err
	}
	return stream.RecvMsg(&emptypb.Empty{})
}

// secured is a server with TLS on loopback, and how it is dialled.
type secured struct {
	authority *certtest.Authority
	store     *certificate.Store
	address   string
}

func newSecured(t *testing.T, cfg Config) *secured {
	t.Helper()
	a, err := certtest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	x := &secured{authority: a, store: certificate.New(certificate.Config{})}
	cert, key, err := a.Issue("server", time.Hour, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	tls := &access.TLS{Store: x.store, Server: certificate.Ref{Cert: cert, Key: key}, ClientCA: certificate.Ref{Cert: a.CA()}}
	x.store.Want("test", tls.Server, tls.ClientCA)
	cfg.Publisher, cfg.Engine, cfg.NeedCertificate = everybody{}, delivery.NewEngine(), true
	cfg.SpecChanged = func() <-chan struct{} { return nil }
	for band := range 100 {
		cfg.Engine.Publish(delivery.Class{Group: "g", Band: band}, &delivery.Table{})
	}
	g := New(cfg).GRPC(grpc.Creds(credentials.NewTLS(tls.Config())))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x.address = l.Addr().String()
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-done })
	return x
}

func (x *secured) dial(t *testing.T, name string) *grpc.ClientConn {
	t.Helper()
	c, err := x.authority.ClientTLS(name)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(x.address, grpc.WithTransportCredentials(credentials.NewTLS(c)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// The names in a verified certificate are the proxy's identity; a certificate
// without a name, by another authority, or none at all lets nobody in; and a new
// certificate of ours leaves a hundred open streams alone.
func TestMutualTLS(t *testing.T) {
	x := newSecured(t, Config{})
	for _, c := range []struct{ name, san string }{{"edge", "spiffe://test/edge"}, {"nameless", ""}} {
		var sans []string
		if c.san != "" {
			sans = []string{c.san}
		}
		if _, _, err := x.authority.Issue(c.name, time.Hour, sans...); err != nil {
			t.Fatal(err)
		}
	}
	other, err := certtest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := other.Issue("edge", time.Hour, "spiffe://test/edge"); err != nil {
		t.Fatal(err)
	}
	stranger, err := other.ClientTLS("edge")
	if err != nil {
		t.Fatal(err)
	}
	trusts, err := x.authority.ClientTLS("")
	if err != nil {
		t.Fatal(err)
	}
	stranger.RootCAs = trusts.RootCAs
	strange, err := grpc.NewClient(x.address, grpc.WithTransportCredentials(credentials.NewTLS(stranger)))
	if err != nil {
		t.Fatal(err)
	}
	defer strange.Close() //nolint:errcheck // a test's
	plain, err := grpc.NewClient(x.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close() //nolint:errcheck // a test's
	for what, c := range map[string]struct {
		conn *grpc.ClientConn
		want codes.Code
	}{
		"without a certificate":              {x.dial(t, ""), codes.Unavailable},
		"with one by another authority":      {strange, codes.Unavailable},
		"without TLS":                        {plain, codes.Unavailable},
		"with a certificate without a name":  {x.dial(t, "nameless"), codes.Unauthenticated},
		"with a certificate and a node's id": {x.dial(t, "edge"), codes.OK},
	} {
		s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(c.conn).DeltaAggregatedResources(t.Context())
		if err == nil {
			_ = s.Send(request("edge-1"))
			_, err = s.Recv()
		}
		if status.Code(err) != c.want {
			t.Errorf("%s: %v, want %s", what, err, c.want)
		}
	}

	conn := x.dial(t, "edge")
	var streams []clientStream
	for range 100 {
		s := open(t, conn)
		if err := s.Send(request("edge-1")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
	}
	serial := func() string {
		c, err := x.authority.ClientTLS("edge")
		if err != nil {
			t.Fatal(err)
		}
		raw, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", x.address)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close() //nolint:errcheck // a test's
		c.ServerName = "127.0.0.1"
		_, info, err := credentials.NewTLS(c).ClientHandshake(t.Context(), "127.0.0.1", raw)
		if err != nil {
			t.Fatal(err)
		}
		ti, _ := info.(credentials.TLSInfo)
		return ti.State.PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	if _, _, err := x.authority.Issue("server", time.Hour, "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	x.store.Reload()
	if before == serial() {
		t.Error("a new connection is shown the old certificate")
	}
	for _, s := range streams {
		again := request("edge-1")
		again.Node, again.TypeUrl = nil, string(delivery.Listeners)
		if err := s.Send(again); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatalf("an open stream ended with the renewal: %v", err)
		}
	}
}

// Whether somebody else on the way could read a stream.
func TestPrivate(t *testing.T) {
	for what, c := range map[string]struct {
		peer peer.Peer
		want bool
	}{
		"loopback":           {peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}, true},
		"loopback in IPv6":   {peer.Peer{Addr: &net.TCPAddr{IP: net.IPv6loopback}}, true},
		"a socket":           {peer.Peer{Addr: &net.UnixAddr{Name: "@"}}, true},
		"elsewhere":          {peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}}, false},
		"elsewhere with TLS": {peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, AuthInfo: credentials.TLSInfo{}}, true},
		"something unheard":  {peer.Peer{Addr: &net.IPAddr{}}, false},
	} {
		if got := private(peer.NewContext(t.Context(), &c.peer)); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
	if private(t.Context()) {
		t.Error("nobody at all")
	}
}

func request(node string) *discoveryv3.DeltaDiscoveryRequest {
	return &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(delivery.Clusters), Node: &corev3.Node{Id: node}}
}
