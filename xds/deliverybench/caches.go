package main

import (
	"context"
	"fmt"
	"net"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// serveCache serves one of go-control-plane's caches.
func serveCache(c cache.Cache, l net.Listener) error {
	g := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, server.NewServer(context.Background(), c, nil))
	return g.Serve(l)
}

func clusterMessages(c content) map[string]types.Resource {
	out := map[string]types.Resource{}
	for _, r := range c.clusters.Resources {
		m := &clusterv3.Cluster{}
		if err := r.Resource.UnmarshalTo(m); err != nil {
			panic(err)
		}
		out[r.Name] = m
	}
	return out
}

func assignmentMessages(c content) map[string]types.Resource {
	out := map[string]types.Resource{}
	for _, r := range c.assignments.Resources {
		out[r.Name] = assignment(r)
	}
	return out
}

// linear is a LinearCache for each type.
type linear struct {
	cache       cache.Cache
	assignments *cache.LinearCache
	moving      []*discoveryv3.Resource
}

func newLinear(c content) *linear {
	clusters := cache.NewLinearCache(resource.ClusterType, cache.WithInitialResources(clusterMessages(c)))
	assignments := cache.NewLinearCache(resource.EndpointType, cache.WithInitialResources(assignmentMessages(c)))
	return &linear{&cache.MuxCache{
		Classify:      func(r *cache.Request) string { return r.GetTypeUrl() },
		ClassifyDelta: func(r *cache.DeltaRequest) string { return r.GetTypeUrl() },
		Caches:        map[string]cache.Cache{resource.ClusterType: clusters, resource.EndpointType: assignments},
	}, assignments, c.moving()}
}

func (l *linear) serve(at net.Listener) error { return serveCache(l.cache, at) }

func (l *linear) flip(i int) {
	r := marked(l.moving[i%len(l.moving)], i)
	if err := l.assignments.UpdateResource(r.Name, assignment(r)); err != nil {
		panic(err)
	}
}

// snapshot is a SnapshotCache in which all nodes share one snapshot.
type snapshot struct {
	cache                 cache.SnapshotCache
	clusters, assignments map[string]types.Resource
	moving                []*discoveryv3.Resource
}

type oneNode struct{}

func (oneNode) ID(*corev3.Node) string { return "all" }

func newSnapshot(c content) *snapshot {
	s := &snapshot{cache.NewSnapshotCache(true, oneNode{}, nil), clusterMessages(c), assignmentMessages(c), c.moving()}
	s.set(0)
	return s
}

func (s *snapshot) set(i int) {
	var clusters, assignments []types.Resource
	for _, m := range s.clusters {
		clusters = append(clusters, m)
	}
	for _, m := range s.assignments {
		assignments = append(assignments, m)
	}
	snap, err := cache.NewSnapshot(fmt.Sprint(i), map[resource.Type][]types.Resource{resource.ClusterType: clusters, resource.EndpointType: assignments})
	if err != nil {
		panic(err)
	}
	if err := s.cache.SetSnapshot(context.Background(), "all", snap); err != nil {
		panic(err)
	}
}

func (s *snapshot) serve(at net.Listener) error { return serveCache(s.cache, at) }

func (s *snapshot) flip(i int) {
	r := marked(s.moving[i%len(s.moving)], i)
	s.assignments[r.Name] = proto.Clone(assignment(r)).(*endpointv3.ClusterLoadAssignment)
	s.set(i)
}
