package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/findings"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Many findings of one cause take two lines, however many they are; others stand by
// themselves, and those that are over too.
func TestListFindings(t *testing.T) {
	f := func(kind, name string, code diagnose.Code, severity findings.Severity) findings.TimedFinding {
		cause, _ := diagnose.CauseOf(code)
		return findings.TimedFinding{
			Subject: model.Subject{Kind: kind, Name: name}, Severity: severity, Begun: time.Now().Add(-90 * time.Second),
			Finding: diagnose.Finding{Code: code, Title: cause.Title, Strength: diagnose.Certain, Says: "it is so", Evidence: []string{"a line"}, Next: "do this"},
		}
	}
	over := f("Upstream", "web", diagnose.A6, findings.Critical)
	over.Ended = time.Now().Add(-30 * time.Second)
	all := []findings.TimedFinding{over, f("Upstream", "web", diagnose.H3, findings.Critical), f("Certificate", "edge.pem", diagnose.W2, findings.Warning)}
	for i := range 1000 {
		all = append(all, f("Upstream", fmt.Sprintf("svc-%d", i), diagnose.W4, findings.Warning))
	}
	var b strings.Builder
	if err := listFindings(&b, all, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"CRITICAL A6 web: the last instance left\n", "(1m0s)\n", "CRITICAL H3 web: the health check cannot connect\n  it is so, certain; since ", "(1m30s)\n",
		"WARNING W2 certificate edge.pem: a certificate ends soon\n", "WARNING W4 1000 upstreams: what is served may be old\n  svc-0, svc-1, svc-2 and 997 more; the first since ",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if n := strings.Count(b.String(), "\n"); n > 12 || strings.Contains(b.String(), "a line") {
		t.Errorf("%d lines:\n%s", n, b.String())
	}
	b.Reset()
	if err := listFindings(&b, all[1:2], true); err != nil || !strings.Contains(b.String(), "  evidence  a line\n  do        do this\n") {
		t.Errorf("wide: %v\n%s", err, b.String())
	}
}
