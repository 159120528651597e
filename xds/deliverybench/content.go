package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// content is what every server of a cell serves: what the real one answered a
// client of ours, so that the same bytes are compared.
type content struct {
	clusters, assignments *discoveryv3.DeltaDiscoveryResponse
}

func (c content) save(dir string) error {
	for name, m := range map[string]proto.Message{"clusters": c.clusters, "assignments": c.assignments} {
		b, err := proto.Marshal(m)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func load(dir string) (c content, err error) {
	c = content{&discoveryv3.DeltaDiscoveryResponse{}, &discoveryv3.DeltaDiscoveryResponse{}}
	for name, m := range map[string]proto.Message{"clusters": c.clusters, "assignments": c.assignments} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return c, err
		}
		if err := proto.Unmarshal(b, m); err != nil {
			return c, err
		}
	}
	return c, nil
}

// names are the assignments that the clusters ask for.
func (c content) names() (out []string) {
	for _, r := range c.clusters.Resources {
		m := &clusterv3.Cluster{}
		if err := r.Resource.UnmarshalTo(m); err != nil {
			panic(err)
		}
		out = append(out, m.EdsClusterConfig.ServiceName)
	}
	return out
}

// moving are the assignments with a mark, in order.
func (c content) moving() (out []*discoveryv3.Resource) {
	for _, r := range c.assignments.Resources {
		if bytes.Contains(r.Resource.Value, markPrefix) {
			out = append(out, r)
		}
	}
	return out
}

// marked is a moving assignment with another mark: the same bytes but for digits.
func marked(r *discoveryv3.Resource, i int) *discoveryv3.Resource {
	out := proto.Clone(r).(*discoveryv3.Resource)
	setMark(out.Resource.Value, i)
	out.Version = fmt.Sprintf("%016x", i)
	return out
}

// delta is a delta response, encoded.
func delta(typ delivery.Type, nonce int, resources ...*discoveryv3.Resource) []byte {
	b, err := proto.Marshal(&discoveryv3.DeltaDiscoveryResponse{TypeUrl: string(typ), Nonce: fmt.Sprint(nonce), SystemVersionInfo: fmt.Sprintf("%016x", nonce), Resources: resources})
	if err != nil {
		panic(err)
	}
	return b
}

// sotw is a state-of-the-world response, encoded.
func sotw(typ delivery.Type, nonce int, resources ...*discoveryv3.Resource) []byte {
	m := &discoveryv3.DiscoveryResponse{TypeUrl: string(typ), Nonce: fmt.Sprint(nonce), VersionInfo: fmt.Sprintf("%016x", nonce)}
	for _, r := range resources {
		m.Resources = append(m.Resources, r.Resource)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// assignment is the message of a resource.
func assignment(r *discoveryv3.Resource) *endpointv3.ClusterLoadAssignment {
	m := &endpointv3.ClusterLoadAssignment{}
	if err := r.Resource.UnmarshalTo(m); err != nil {
		panic(err)
	}
	return m
}
