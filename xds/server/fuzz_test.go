package server

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// Whatever a node says of itself: it is read without a panic, and what is kept of
// its metadata is bounded.
func FuzzNode(f *testing.F) {
	meta, err := structpb.NewStruct(map[string]any{"wellspring": map[string]any{"admin": "127.0.0.1:9901", "deep": map[string]any{"n": 1.5, "b": true, "list": []any{"x"}, "null": nil}}})
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range []*corev3.Node{{}, {Id: "e", Cluster: "edge", Metadata: meta, Locality: &corev3.Locality{Zone: "z"}}} {
		text, err := proto.Marshal(n)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		n := &corev3.Node{}
		if proto.Unmarshal(text, n) != nil {
			return
		}
		p := proxyOf(n)
		if p.ID != n.Id || len(p.Metadata) > maxMetadata {
			t.Errorf("%+v", p)
		}
		for k := range p.Metadata {
			if strings.Count(k, ".") > strings.Count(string(text), ".")+maxMetadataDepth {
				t.Errorf("key %q", k)
			}
		}
	})
}

func TestNode(t *testing.T) {
	deep := map[string]any{"leaf": "x"}
	for range 20 {
		deep = map[string]any{"d": deep}
	}
	many := map[string]any{}
	for i := range 1000 {
		many[strings.Repeat("k", i+1)] = "v"
	}
	meta, err := structpb.NewStruct(map[string]any{"a": "text", "b": map[string]any{"c": 2.0, "d": true}, "list": []any{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	p := proxyOf(&corev3.Node{Id: "e", Metadata: meta})
	if len(p.Metadata) != 3 || p.Metadata["a"] != "text" || p.Metadata["b.c"] != "2" || p.Metadata["b.d"] != "true" {
		t.Errorf("%v", p.Metadata)
	}
	for name, m := range map[string]map[string]any{"deep": deep, "many": many} {
		meta, err := structpb.NewStruct(m)
		if err != nil {
			t.Fatal(err)
		}
		if got := proxyOf(&corev3.Node{Id: "e", Metadata: meta}).Metadata; len(got) > maxMetadata || name == "deep" && len(got) > 0 {
			t.Errorf("%s: %d values are kept", name, len(got))
		}
	}
}
