package consul

import (
	"encoding/json"
	"net"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Whatever JSON a registry sends as entries: nothing panics, and what is reported
// keeps the promises of Present.
func FuzzEntries(f *testing.F) {
	f.Add([]byte(list("a", "b")))
	f.Add([]byte(`[{"Node":{"Node":"n1"},"Service":null},null,` + instance("a", "critical") + `]`))
	f.Add([]byte(`[{"Node":{"Node":"n1","Address":"10.0.0.9","Meta":{"zone":"z"}},"Service":{"ID":"a","Port":70000,"Weights":{"Passing":-1,"Warning":0},"TaggedAddresses":{"wan":{"Address":"x","Port":-1}}},"Checks":[null,{"CheckID":"_node_maintenance","Notes":"\u0000"}]}]`))
	f.Add([]byte(`[{}]`))
	src, err := New(Config{Name: "consul"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var entries []*api.ServiceEntry
		if json.Unmarshal(text, &entries) != nil {
			return
		}
		switch x := src.reportOf(key("web"), entries).(type) {
		case discovery.Present:
			seen := map[string]bool{}
			if !slices.IsSortedFunc(x.Endpoints, func(a, b model.Endpoint) int { return strings.Compare(a.ID, b.ID) }) {
				t.Error("not sorted")
			}
			for _, e := range x.Endpoints {
				if _, _, err := net.SplitHostPort(e.Address); err != nil || seen[e.ID] || e.Weight < 1 || len(e.Reason) > maxReason || !utf8.ValidString(e.Reason) {
					t.Errorf("%+v: %v", e, err)
				}
				seen[e.ID] = true
			}
			if len(x.Endpoints)+len(x.Problems) != len(entries) {
				t.Errorf("%d entries became %d endpoints and %d problems", len(entries), len(x.Endpoints), len(x.Problems))
			}
		case discovery.Absent:
			if len(entries) > 0 {
				t.Error("absent though there are entries")
			}
		case discovery.Failed:
			t.Errorf("it panicked: %v", x.Err)
		}
	})
}
