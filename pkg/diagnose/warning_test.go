package diagnose

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// What is no outage yet is a warning, and never a finding.
func TestWarnings(t *testing.T) {
	limits := func(c *Case) {
		c.Spec.CircuitBreakers = spec.CircuitBreakers{Connections: 10, Pending: 10, Requests: 100}
	}
	for _, x := range []struct {
		name, want, evidence string
		change               func(c *Case)
	}{
		{"all is well", "", "", func(c *Case) { c.Health.Spare = 1 }},
		{"none is to spare", "W1", "source consul: 2 of 2 endpoints healthy", func(*Case) {}},
		{"none is to spare at a proxy", "W1", "fleet: 1 of 2 endpoints usable", func(c *Case) { c.Health.Seen.Healthy = 1 }},
		{"none is to spare, and panic is off", "W1", "requests get 503 UH", func(c *Case) { c.Spec.WhenUnavailable.Panic.Then = "fail" }},
		{"one is all that is declared", "", "", func(c *Case) { c.Health.Counts.Total = 1 }},
		{"it is an outage already", "", "", func(c *Case) { c.out(0, 1) }},
		{"requests run up to the limit", "W3", "proxy edge-0: 80 requests run, 100 may", func(c *Case) { c.Health.Spare = 1; limits(c); c.Views[0].Active = 80 }},
		{"fewer do", "", "", func(c *Case) { c.Health.Spare = 1; limits(c); c.Views[0].Active, c.Views[1].Pending = 79, 7 }},
		{"requests wait", "W3", "proxy edge-1: 9 requests wait for a connection, 10 may", func(c *Case) { c.Health.Spare = 1; limits(c); c.Views[1].Pending = 9 }},
		{"its source is away", "W4", "what was read last is served: 2 endpoints", func(c *Case) {
			c.Health.Spare = 1
			c.Known.Failure, c.Known.Reason, c.Known.FailingSince = errors.New("gone"), string(discovery.Unreachable), now.Add(-time.Minute)
		}},
		{"it is away for a moment", "", "", func(c *Case) {
			c.Health.Spare = 1
			c.Known.Failure, c.Known.Reason, c.Known.FailingSince = errors.New("gone"), string(discovery.Unreachable), now.Add(-29*time.Second)
		}},
		{"it was never read", "", "", func(c *Case) { c.unknownFor(discovery.Unreachable); c.Health.State = health.Unknown }},
	} {
		c := well()
		limits(c)
		x.change(c)
		e := Explain(*c)
		var got, lines []string
		for _, f := range e.Warnings {
			got = append(got, string(f.Code))
			lines = append(lines, f.Evidence...)
			if f.Says == "" || f.Next == "" || f.Title == "" || f.Strength != Likely {
				t.Errorf("%s: says too little: %+v", x.name, f)
			}
		}
		if strings.Join(got, " ") != x.want || !strings.Contains(strings.Join(lines, "\n"), x.evidence) {
			t.Errorf("%s: warns of %v by %q, want %s by %q", x.name, got, lines, x.want, x.evidence)
		}
		if x.want != "" && (e.Found() || e.Fails) {
			t.Errorf("%s: is an outage: %+v", x.name, e.Findings)
		}
	}
}

func TestOfCertificate(t *testing.T) {
	x := model.Certificate{File: "edge.pem", Users: []string{"Listener/edge"}, State: model.CertificateExpiring, NotAfter: now.Add(5*24*time.Hour + time.Minute)}
	f := OfCertificate(x, now)
	if f == nil || f.Code != W2 || f.Says != "edge.pem ends in 5 days" || !strings.Contains(strings.Join(f.Evidence, ";"), "Listener/edge") {
		t.Errorf("%+v", f)
	}
	x.State, x.NotAfter = model.CertificateExpired, now.Add(-90*time.Minute)
	if f = OfCertificate(x, now); f == nil || f.Says != "edge.pem ended 1h30m ago" {
		t.Errorf("%+v", f)
	}
	for _, state := range []model.CertificateState{model.CertificateValid, model.CertificateMissing} {
		if x.State = state; OfCertificate(x, now) != nil {
			t.Errorf("%s: warns", state)
		}
	}
}
