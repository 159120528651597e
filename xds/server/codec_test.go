package server

import (
	"maps"
	"slices"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// A request is read as protobuf's own reader reads it, in both forms.
func TestRequestIsReadAsProtobufDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfN(rapid.String(), 0, 5)
		node := &corev3.Node{Id: rapid.String().Draw(t, "id"), Cluster: rapid.String().Draw(t, "cluster"), UserAgentName: "envoy"}
		var refused *statuspb.Status
		if rapid.Bool().Draw(t, "refused") {
			refused = &statuspb.Status{Code: 3, Message: rapid.String().Draw(t, "message")}
		}
		if !rapid.Bool().Draw(t, "with node") {
			node = nil
		}
		typ := rapid.SampledFrom([]string{string(delivery.Clusters), string(delivery.RouteTables), "another", ""}).Draw(t, "type")
		d := &discoveryv3.DeltaDiscoveryRequest{
			Node: node, TypeUrl: typ, ResponseNonce: rapid.String().Draw(t, "nonce"), ErrorDetail: refused,
			ResourceNamesSubscribe: names.Draw(t, "subscribe"), ResourceNamesUnsubscribe: names.Draw(t, "unsubscribe"),
			InitialResourceVersions: rapid.MapOfN(rapid.String(), rapid.String(), 0, 4).Draw(t, "initial"),
		}
		w := &discoveryv3.DiscoveryRequest{
			Node: node, TypeUrl: typ, ResponseNonce: d.ResponseNonce, ErrorDetail: refused, VersionInfo: rapid.String().Draw(t, "version"),
			ResourceNames: names.Draw(t, "names"),
		}
		for _, first := range []bool{true, false} {
			m := read(t, d, true, first)
			r := m.request
			if !slices.Equal(r.Subscribe, d.ResourceNamesSubscribe) || !slices.Equal(r.Unsubscribe, d.ResourceNamesUnsubscribe) || !maps.Equal(r.Initial, d.InitialResourceVersions) {
				t.Errorf("%+v of %v", r, d)
			}
			same(t, m, first, typ, d.ResponseNonce, refused, node)
			m = read(t, w, false, first)
			if r = m.request; !slices.Equal(r.Names, w.ResourceNames) || r.Version != w.VersionInfo {
				t.Errorf("%+v of %v", r, w)
			}
			same(t, m, first, typ, w.ResponseNonce, refused, node)
		}
	})
}

// read reads a request of which the bytes are gone afterwards.
func read(t *rapid.T, from proto.Message, delta, first bool) message {
	t.Helper()
	b, err := proto.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	m := message{delta: delta, first: first}
	half := len(b) / 2
	if err := newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(b[:half]), mem.SliceBuffer(b[half:])}, &m); err != nil {
		t.Fatal(err)
	}
	clear(b)
	return m
}

func same(t *rapid.T, m message, first bool, typ, nonce string, refused *statuspb.Status, node *corev3.Node) {
	t.Helper()
	if string(m.request.Type) != typ || m.request.Nonce != nonce || (m.request.Refused != nil) != (refused != nil) || refused != nil && *m.request.Refused != refused.Message {
		t.Errorf("%+v", m.request)
	}
	if m.carries != (node != nil) || m.nodeID != node.GetId() || (m.node != nil) != (first && node != nil) || m.node != nil && m.node.Cluster != node.Cluster {
		t.Errorf("node %+v, id %q, of %v", m.node, m.nodeID, node)
	}
}

// Whatever bytes come as a request: they are read without a panic, and what is read
// is what protobuf reads of them, or an error of both.
func FuzzRequest(f *testing.F) {
	for _, m := range []proto.Message{
		&discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(delivery.Clusters), ResourceNamesSubscribe: []string{"a", "b"}, InitialResourceVersions: map[string]string{"a": "1"}},
		&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: "7", ErrorDetail: &statuspb.Status{Message: "no"}, Node: &corev3.Node{Id: "e"}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := message{delta: true, first: true}
		err := m.read(b)
		d := &discoveryv3.DeltaDiscoveryRequest{}
		if proto.Unmarshal(b, d) != nil {
			return // it may be broken in what is not looked at
		}
		if err != nil {
			t.Fatalf("%v: %v", d, err)
		}
		if r := m.request; !slices.Equal(r.Subscribe, d.ResourceNamesSubscribe) || !maps.Equal(r.Initial, d.InitialResourceVersions) || r.Nonce != d.ResponseNonce || string(r.Type) != d.TypeUrl {
			t.Errorf("%+v of %v", r, d)
		}
	})
}

// A response is, in both forms and shared or not, what protobuf makes of it.
func TestResponseIsWhatProtobufWrites(t *testing.T) {
	a, b := delivery.NewResource(delivery.Clusters, "a", []byte("one")), delivery.NewResource(delivery.Clusters, "b", nil)
	r := delivery.Response{Type: delivery.Clusters, Nonce: "12345678901234567890", Version: "v", Resources: []*delivery.Resource{a, b}, Removed: []string{"c", "d"}}
	for range 2 {
		d := &discoveryv3.DeltaDiscoveryResponse{}
		if err := proto.Unmarshal(encoded(r, true).Materialize(), d); err != nil {
			t.Fatal(err)
		}
		want := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: string(r.Type), Nonce: r.Nonce, SystemVersionInfo: "v", RemovedResources: r.Removed}
		for _, x := range r.Resources {
			want.Resources = append(want.Resources, &discoveryv3.Resource{Name: x.Name, Version: x.Version, Resource: x.Message()})
		}
		if !proto.Equal(d, want) {
			t.Errorf("got  %v\nwant %v", d, want)
		}
		r.Shared = &delivery.Memo{}
	}
	r.Removed, r.Shared = nil, &delivery.Memo{}
	w := &discoveryv3.DiscoveryResponse{}
	if err := proto.Unmarshal(encoded(r, false).Materialize(), w); err != nil {
		t.Fatal(err)
	}
	want := &discoveryv3.DiscoveryResponse{TypeUrl: string(r.Type), Nonce: r.Nonce, VersionInfo: "v"}
	for _, x := range r.Resources {
		want.Resources = append(want.Resources, x.Message())
	}
	if !proto.Equal(w, want) {
		t.Errorf("got  %v\nwant %v", w, want)
	}
}
