package delivery

import (
	"slices"
	"strings"
	"testing"
)

// Whatever an Envoy says of a refusal: only what was refused is named, once, in
// order, and what it says is kept within bounds.
func FuzzGuilty(f *testing.F) {
	f.Add("Error adding/updating cluster(s) a: unknown lb, b: no", "a b c")
	f.Add("Error adding/updating listener(s) edge: duplicate address", "edge edge-2")
	f.Add(`Proto constraint validation failed (ClusterLoadAssignmentValidationError.Endpoints[0]): cluster_name: "a@1" name: "b"`, "a@1 b")
	f.Add("Only unique values for domains are permitted. Duplicate entry of domain x in route edge", "edge")
	f.Add("duplicate name x found", "x")
	f.Add("\xff\xfe", "\xff")
	f.Fuzz(func(t *testing.T, message, names string) {
		refused := map[string]*Resource{}
		for _, n := range strings.Fields(names) {
			refused[n] = resource(Clusters, n, "1")
		}
		guilty := Guilty(message, refused)
		for _, n := range guilty {
			if refused[n] == nil || !strings.Contains(message, n) {
				t.Errorf("%q is named by %q", n, message)
			}
		}
		if !slices.IsSorted(guilty) || len(slices.Compact(slices.Clone(guilty))) != len(guilty) {
			t.Errorf("%q", guilty)
		}
		if c := clip(message); len(c) > maxMessage+len("…") {
			t.Errorf("%d bytes are kept", len(c))
		}
	})
}
