package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
)

// docs/causes.md is the catalogue, with what `wellspring doctor` says of a real Envoy that
// had each of these faults, or `wellspring explain` of a real stack (KEEP_LAB of
// TestRealFaultlab, TestRealExplain and TestRealGRPCClient).
func TestCausesPage(t *testing.T) {
	e, err := readEnvoy("../../pkg/diagnose/testdata/ward")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../pkg/diagnose/testdata/answers/*.json")
	if err != nil {
		t.Fatal(err)
	}
	answers := map[diagnose.Code]diagnose.Explanation{}
	for _, file := range files {
		text, err := os.ReadFile(file) //nolint:gosec // ours
		var x diagnose.Explanation
		if err == nil {
			err = json.Unmarshal(text, &x)
		}
		if err != nil {
			t.Fatal(file, err)
		}
		answers[diagnose.Code(strings.TrimSuffix(filepath.Base(file), ".json"))] = x
	}
	r := diagnose.Of(e)
	var b strings.Builder
	b.WriteString("# Causes\n\n" +
		"What `wellspring explain` and `wellspring doctor` find. A code keeps its meaning: it is\n" +
		"not used again for another cause. A finding is *certain* where an Envoy shows it as it\n" +
		"is now, *likely* where it explains what is seen, *possible* where nothing speaks against\n" +
		"it; what was only counted since an Envoy began is possible at most, unless nothing ever\n" +
		"succeeded.\n\n" +
		"| letter | where the request is lost |\n|---|---|\n" +
		"| A | the registry says that nobody is there |\n| B | the registry cannot be seen |\n| C | Envoy did not get its configuration, or refused it |\n" +
		"| D | names are not resolved |\n| E | the connection fails |\n| F | capacity |\n| G | routing |\n| H | Envoy's health check says no |\n" +
		"| K | it began with a change |\n| O | outlier detection |\n| P | the balancer refuses, or hides |\n| W | nothing is lost yet: a warning |\n\n" +
		"Each example is what was said of real programs. `go test ./cmd/wellspring -run\n" +
		"TestCausesPage -update` writes this page.\n")
	byCode := func(a, b diagnose.Cause) int {
		return cmp.Or(cmp.Compare(a.Code[:1], b.Code[:1]), cmp.Compare(len(a.Code), len(b.Code)), cmp.Compare(a.Code, b.Code))
	}
	for _, c := range slices.SortedFunc(slices.Values(diagnose.Causes()), byCode) {
		fmt.Fprintf(&b, "\n## %s %s\n\n", c.Code, c.Title)
		fmt.Fprintf(&b, "Shown by: %s.\n", c.Proof)
		if c.Excluded != "" {
			fmt.Fprintf(&b, "Ruled out where: %s.\n", c.Excluded)
		}
		text := example(r, c.Code)
		if x, ok := answers[c.Code]; ok {
			text = told(x, c.Code)
		} else if text == "" {
			for _, code := range slices.Sorted(maps.Keys(answers)) {
				if text = told(answers[code], c.Code); text != "" {
					break
				}
			}
		}
		if text == "" {
			t.Errorf("%s: no answer that has it is recorded", c.Code)
		}
		fmt.Fprintf(&b, "\n```\n%s```\n", text)
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

// told is what explain says of a code, "" where it does not find it.
func told(e diagnose.Explanation, code diagnose.Code) string {
	var b strings.Builder
	is := func(f diagnose.Finding) bool { return f.Code == code }
	found, warned := slices.IndexFunc(e.Findings, is), slices.IndexFunc(e.Warnings, is)
	if (found >= 0 || warned >= 0) && e.Upstream != "" {
		fold(&b, "upstream ", e.Upstream+": "+e.Says)
	}
	if found >= 0 {
		showFindings(&b, e.Findings[found:found+1], true)
	}
	if warned >= 0 {
		showWarnings(&b, e.Warnings[warned:warned+1], true)
	}
	return b.String()
}

// example of a code that doctor says: where it is the first finding, if there is such a
// one.
func example(r diagnose.Report, code diagnose.Code) string {
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
	return ""
}
