package server

import (
	"context"
	"net"
	"net/netip"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/wellspring-xds/wellspring/pkg/access"
)

// methods are those that may be called, by whoever the listener lets in. A
// method that is registered and not listed is closed.
var methods = map[string]bool{
	discoveryv3.AggregatedDiscoveryService_StreamAggregatedResources_FullMethodName: true,
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName:  true,
	healthpb.Health_Check_FullMethodName:                                            true,
	healthpb.Health_List_FullMethodName:                                             true,
	healthpb.Health_Watch_FullMethodName:                                            true,
}

// allow is the one decision for unary calls and streams.
func (s *Server) allow(ctx context.Context, method string) error {
	switch {
	case !methods[method]:
		return status.Errorf(codes.PermissionDenied, "%s may not be called", method)
	case s.cfg.NeedCertificate && len(identity(ctx)) == 0:
		return status.Error(codes.Unauthenticated, "a client certificate with a name in it is needed")
	}
	return nil
}

func (s *Server) unaryGate(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := s.allow(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (s *Server) streamGate(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := s.allow(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, stream)
}

// identity are the names in the verified certificate of a call's peer.
func identity(ctx context.Context) []string {
	if p, ok := peer.FromContext(ctx); ok {
		if t, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			return access.Names(&t.State)
		}
	}
	return nil
}

// private tells whether nobody else can read a call: it is encrypted, or it does
// not leave this machine.
func private(ctx context.Context) bool {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return false
	}
	if _, ok := p.AuthInfo.(credentials.TLSInfo); ok {
		return true
	}
	switch a := p.Addr.(type) {
	case *net.UnixAddr:
		return true
	case *net.TCPAddr:
		ip, ok := netip.AddrFromSlice(a.IP)
		return ok && ip.Unmap().IsLoopback()
	}
	return false
}
