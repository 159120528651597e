package xds_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds"
)

const impactDocuments = `
kind: Upstream
name: web
spec: {endpoints: [{address: "127.0.0.1:10001"}, {address: "127.0.0.1:10002"}]}
---
kind: Upstream
name: api
spec: {service: {source: consul}}
---
kind: Route
name: web
spec: {hosts: ["*"], rules: [{match: {path: {prefix: /api}}, to: [{upstream: api}]}, {to: [{upstream: web}]}]}
---
kind: Listener
name: edge
spec: {address: "127.0.0.1:10000", routes: [web]}
---
kind: Listener
name: rpc
spec: {grpc: true, routes: [calls]}
---
kind: Route
name: calls
spec: {hosts: ["rpc.internal"], rules: [{to: [{upstream: api}]}]}
---
kind: Group
name: edge
spec: {listeners: [edge]}
---
kind: Group
name: programs
spec: {listeners: [rpc]}
`

// TestImpact: each change of documents is said to do to what runs what it does
// (TestRealImpact has a real Envoy confirm the effects).
func TestImpact(t *testing.T) {
	read := func(text string) *spec.Spec {
		t.Helper()
		docs, faults := spec.Parse("documents", []byte(text))
		if err := faults.Err(); err != nil {
			t.Fatal(err)
		}
		s, _, linked := spec.New(1, docs)
		if err := linked.Err(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"nothing", "kind", "kind", ""},
		{"a label", "name: api\n", "name: api\nlabels: {owner: shop}\n", ""},
		{"an endpoint", ":10002", ":10003", "assignments web changed: endpoints"},
		{"the endpoints", `[{address: "127.0.0.1:10001"}, {address: "127.0.0.1:10002"}]`, "[]", "assignments web changed: empties"},
		{"an option of the upstream", "10002\"}]", "10002\"}], connectTimeout: 2s", "clusters web changed: rewarms"},
		{
			"what is selected", "source: consul", "source: consul, tags: [v2]",
			"clusters api changed: rewarms; clusters api changed: rewarms", // in both groups
		},
		{
			"what endpoints speak", "10002\"}]", "10002\"}], protocol: http2",
			"assignments web added: none; assignments web removed: none; clusters web changed: rewarms",
		},
		{"a route", "prefix: /api", "prefix: /v2", "routes edge changed: routes"},
		{"a listener", "routes: [web]", "routes: [web], idleTimeout: 5m", "listeners edge changed: drains"},
		{
			"a listener less", "spec: {listeners: [edge]}", "spec: {listeners: []}",
			"assignments web removed: none; clusters api removed: none; clusters web removed: none; listeners edge removed: closes; routes edge removed: none",
		},
		{
			"another certificate", "routes: [web]", "routes: [web], tls: {certificates: [{cert: a.pem, key: a-key.pem}]}",
			"listeners edge changed: drains; secrets listener.edge.tls.certificates[0] added: none",
		},
		{
			"a group less", "kind: Group\nname: edge\nspec: {listeners: [edge]}", "kind: Group\nname: other\nspec: {listeners: []}",
			"assignments web removed: none; clusters api removed: none; clusters web removed: none; listeners edge removed: none; routes edge removed: none",
		},
		{"another target of gRPC", "rpc.internal", "calls.internal", "listeners calls.internal added: none; listeners rpc.internal removed: closes; routes rpc changed: routes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(impactDocuments, c.old) {
				t.Fatalf("%q does not stand in the documents", c.old)
			}
			say := func(before, after *spec.Spec) string {
				var all []string
				for _, i := range xds.Impact(before, after) {
					name, _, _ := strings.Cut(i.Name, "@")
					all = append(all, fmt.Sprintf("%s %s %s: %s", i.Type, name, i.Change, i.Effect))
				}
				return strings.Join(all, "; ")
			}
			before, after := read(impactDocuments), read(strings.Replace(impactDocuments, c.old, c.new, 1))
			if got := say(before, after); got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
	if all := xds.Impact(read("kind: Group\nname: edge\nspec: {listeners: []}\n"), read(impactDocuments)); len(all) != 8 {
		t.Errorf("from nothing: %v", all)
	} else {
		for _, i := range all {
			if i.Effect != model.EffectNone {
				t.Errorf("what is added does %v", i)
			}
		}
	}
}
