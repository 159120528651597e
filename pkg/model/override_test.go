package model

import (
	"strings"
	"testing"
	"time"
)

// What an override does to a service: that endpoint and no other, with who and why
// and what the source says; a service that it is not about stays the very same.
func TestOverridden(t *testing.T) {
	s := &Service{Endpoints: []Endpoint{{ID: "a", Health: Healthy, Weight: 2}, {ID: "b", Health: Unhealthy, Reason: "disk full"}}}
	until := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	out := s.Overridden([]Override{{Endpoint: "a", Action: OverrideDrain, Reason: "new disk", Actor: "anna", Until: until}, {Endpoint: "b", Action: OverrideEnable, Reason: "false alarm", Actor: "bert"}, {Endpoint: "gone"}})
	if a := out.Endpoints[0]; a.Health != Draining || a.Weight != 2 || a.Reason != "drained by anna (new disk) until 2100-01-01T00:00:00Z; the source says healthy" {
		t.Errorf("a is %+v", a)
	}
	if b := out.Endpoints[1]; b.Health != Healthy || !strings.HasSuffix(b.Reason, "enabled by bert (false alarm); the source says unhealthy: disk full") {
		t.Errorf("b is %+v", b)
	}
	if s.Endpoints[0].Health != Healthy || s.Overridden([]Override{{Endpoint: "gone"}}) != s || (*Service)(nil).Overridden([]Override{{}}) != nil {
		t.Error("the service itself was changed")
	}
	for at, want := range map[time.Time]bool{until.Add(-1): false, until: true} {
		if (Override{Until: until}).Ended(at) != want {
			t.Errorf("ended at %s: %v", at, !want)
		}
	}
	if (Override{}).Ended(until) {
		t.Error("one without an end is over")
	}
}
