package main

import (
	"context"
	"maps"
	"os"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// learn asks the real server for everything and keeps it.
func learn(address string, creds credentials.TransportCredentials, dir string, clusters int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(creds), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	for {
		c, err := ask(ctx, conn, clusters)
		if err == nil {
			return c.save(dir)
		}
		select { // it is refused until every service has answered
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func ask(ctx context.Context, conn *grpc.ClientConn, clusters int) (c content, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return c, err
	}
	node := &corev3.Node{}
	if err := proto.Unmarshal(nodeOf(0, false), node); err != nil {
		return c, err
	}
	c = content{&discoveryv3.DeltaDiscoveryResponse{}, &discoveryv3.DeltaDiscoveryResponse{}}
	all := func(typ delivery.Type, into *discoveryv3.DeltaDiscoveryResponse, want int, names ...string) error {
		if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(typ), Node: node, ResourceNamesSubscribe: names}); err != nil {
			return err
		}
		by := map[string]*discoveryv3.Resource{}
		for len(by) < want {
			m, err := s.Recv()
			if err != nil {
				return err
			}
			for _, r := range m.Resources {
				if m.TypeUrl == string(typ) {
					by[r.Name] = r
				}
			}
			if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce}); err != nil {
				return err
			}
		}
		for _, name := range slices.Sorted(maps.Keys(by)) {
			into.Resources = append(into.Resources, by[name])
		}
		return nil
	}
	if err := all(delivery.Clusters, c.clusters, clusters); err != nil {
		return c, err
	}
	names := c.names()
	return c, all(delivery.Assignments, c.assignments, len(names), names...)
}
