package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
)

// docs/causes.md is the catalogue, with what `wellspring doctor` says of a real Envoy that
// had each of these faults.
func TestCausesPage(t *testing.T) {
	e, err := readEnvoy("../../pkg/diagnose/testdata/ward")
	if err != nil {
		t.Fatal(err)
	}
	r := diagnose.Of(e)
	var b strings.Builder
	b.WriteString("# Causes\n\n" +
		"What `wellspring doctor` finds, by the hop at which a request is lost. A code keeps its\n" +
		"meaning: it is not used again for another cause. A finding is *certain* where an Envoy\n" +
		"shows it as it is now, *likely* where it explains what is seen, *possible* where nothing\n" +
		"speaks against it; what was only counted since the Envoy began is possible at most,\n" +
		"unless nothing ever succeeded.\n\n" +
		"Each example is what was said of a real Envoy. `go test ./cmd/wellspring -run\n" +
		"TestCausesPage -update` writes this page.\n")
	for _, c := range diagnose.Causes() {
		fmt.Fprintf(&b, "\n## %s %s\n\n", c.Code, c.Title)
		fmt.Fprintf(&b, "Shown by: %s.\n", c.Proof)
		if c.Excluded != "" {
			fmt.Fprintf(&b, "Ruled out where: %s.\n", c.Excluded)
		}
		fmt.Fprintf(&b, "\n```\n%s```\n", example(t, r, c.Code))
	}
	golden := "../../docs/causes.md"
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(golden, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || string(want) != b.String() {
		t.Errorf("%s is another one (%v); look at it, and run with -update", golden, err)
	}
	for line := range strings.Lines(b.String()) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 90 && !strings.HasPrefix(line, "Shown by") && !strings.HasPrefix(line, "Ruled out") {
			t.Errorf("a line of %d characters: %s", n, line)
		}
	}
}

// example of a code: where it is the first finding, if there is such a one.
func example(t *testing.T, r diagnose.Report, code diagnose.Code) string {
	t.Helper()
	var b strings.Builder
	for _, f := range r.Own {
		if f.Code == code {
			showFindings(&b, []diagnose.Finding{f}, true)
			return b.String()
		}
	}
	for _, first := range []bool{true, false} {
		for _, a := range r.Upstreams {
			for i, f := range a.Findings {
				if f.Code == code && (i == 0 || !first) {
					fold(&b, "upstream ", a.Upstream+": "+a.State)
					showFindings(&b, []diagnose.Finding{f}, true)
					return b.String()
				}
			}
		}
	}
	t.Errorf("%s has no example", code)
	return ""
}
