package spec_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Endpoints are proposed to be reported where proxies judge them by themselves, and
// they are few and known.
func TestProposals(t *testing.T) {
	for what, x := range map[string]struct {
		upstream, group string
		want            bool
	}{
		"checked":               {"{endpoints: [%s], healthChecks: [{tcp: {}}]}", "", true},
		"ejected":               {"{endpoints: [%s], outlierDetection: {}}", "", true},
		"not judged":            {"{endpoints: [%s]}", "", false},
		"said already":          {"{endpoints: [%s], healthChecks: [{tcp: {}}]}", ", telemetry: upstreams", false},
		"elsewhere":             {"{service: {source: consul}, healthChecks: [{tcp: {}}]} # %s", "", false},
		"nobody":                {"{endpoints: [], healthChecks: [{tcp: {}}]} # %s", "", false},
		"too many, by one more": {"{endpoints: [%s, {address: '127.0.0.2:1'}], healthChecks: [{tcp: {}}]}", "", false},
	} {
		var endpoints []string
		for i := range 500 {
			endpoints = append(endpoints, fmt.Sprintf("{address: '127.0.0.1:%d'}", 1000+i))
		}
		text := "kind: Upstream\nname: u\nspec: " + fmt.Sprintf(x.upstream, strings.Join(endpoints, ", ")) +
			"\n---\nkind: Route\nname: r\nspec: {hosts: ['*'], rules: [{to: [{upstream: u}]}]}\n---\nkind: Listener\nname: l\nspec: {address: '127.0.0.1:1', routes: [r]}\n---\nkind: Group\nname: g\nspec: {listeners: [l]" + x.group + "}\n"
		docs, faults := spec.Parse("test", []byte(text))
		s, _, linked := spec.New(1, docs)
		if faults = append(faults, linked...); len(faults) > 0 {
			t.Fatal(what, faults)
		}
		if got := s.Proposals(); (len(got) == 1) != x.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}
