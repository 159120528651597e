package store

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// One of 10,000 upstreams behind one listener is applied: what is validated and kept
// with it. `make bench-go` has the file in memory, so that no disk is waited for.
func BenchmarkApplyOneOf10000(b *testing.B) {
	const n = 10_000
	s, err := Open(b.Context(), Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // the benchmark is over
	apply := func(text string) {
		docs, faults := spec.Parse("bench", []byte(text))
		if err := faults.Err(); err != nil {
			b.Fatal(err)
		}
		var edits []Edit
		for _, d := range docs {
			edits = append(edits, Edit{Ref: d.Ref, Document: d})
		}
		if _, err := s.Apply(b.Context(), Apply{Edits: edits, Author: "bench"}); err != nil {
			b.Fatal(err)
		}
	}
	var text strings.Builder
	var routes []string
	for i := range n {
		fmt.Fprintf(&text, "kind: Upstream\nname: u%05d\nspec: {service: {source: consul}}\n---\n", i)
	}
	for from := 0; from < n; from += 500 {
		routes = append(routes, fmt.Sprintf("part-%02d", from/500))
		fmt.Fprintf(&text, "kind: Route\nname: part-%02d\nspec:\n  hosts: [part-%02d.bench]\n  rules:\n", from/500, from/500)
		for i := from; i < from+500; i++ {
			fmt.Fprintf(&text, "  - {match: {path: {prefix: /u%05d}}, to: [{upstream: u%05d}]}\n", i, i)
		}
		text.WriteString("---\n")
	}
	fmt.Fprintf(&text, "kind: Listener\nname: edge\nspec: {address: '127.0.0.1:10000', routes: [%s]}\n---\nkind: Group\nname: edge\nspec: {listeners: [edge]}\n", strings.Join(routes, ", "))
	apply(text.String())
	b.ResetTimer()
	for i := range b.N {
		apply(fmt.Sprintf("kind: Upstream\nname: u%05d\nspec: {service: {source: consul}, connectTimeout: %dms}\n", i*7919%n, i%1000+1))
	}
}
