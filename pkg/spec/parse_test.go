package spec_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// What is too large, too deep or hostile is refused with a word, and soon.
func TestLimits(t *testing.T) {
	big := "kind: Service\nname: s\nspec: {endpoints: []}\n#" + strings.Repeat("x", spec.MaxDocument)
	for what, x := range map[string]struct{ text, words string }{
		"a document of 10 MB":   {"kind: Service\nname: s\n" + strings.Repeat("# comment\n", 1<<20), "at most 1048576 are taken"},
		"just over 1 MiB":       {big, "at most 1048576 are taken"},
		"a request of 17 MB":    {strings.Repeat("---\n", 17<<20/4), "at most 16777216 are taken"},
		"deep flow":             {strings.Repeat("[", 100_000), "deeper than 64 levels"},
		"deep blocks":           {deepBlocks(200), "deeper than 64 levels"},
		"an alias bomb":         {"kind: Service\nname: s\nspec:\n  a: &a [x, x]\n  b: &b [*a, *a]\n  endpoints: [*b, *b]\n", "anchors and aliases"},
		"not UTF-8":             {"kind: \xff", "not UTF-8"},
		"no kind":               {`{"kind": "", "name": "x", "spec": {}}`, `"" is not a kind`},
		"no name":               {`{"kind": "Group", "name": "", "spec": {"listeners": []}}`, "name"},
		"a number as a name":    {"kind: Group\nname: 7\nspec: {listeners: []}", "put it in quotes"},
		"two documents in JSON": {`[{"kind":"Group","name":"a","spec":{"listeners":[]}},{"kind":"Group","name":"B","spec":{"listeners":[]}}]`, `"B" is not a name`},
	} {
		t.Run(what, func(t *testing.T) {
			start := time.Now()
			_, faults := spec.Parse("f", []byte(x.text))
			if len(faults) == 0 || !strings.Contains(faults.Error(), x.words) {
				t.Errorf("told %.300v, want %q", faults, x.words)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

func deepBlocks(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

// Thousands of faults in one document are told up to a limit, and soon.
func TestManyFaults(t *testing.T) {
	text := "kind: Route\nname: r\nspec: {hosts: ['*'], rules: [{to: [" + strings.Repeat("{upstream: a}, ", 20_000) + "]}]}"
	start := time.Now()
	_, faults := spec.Parse("f", []byte(text))
	if len(faults) == 0 || len(faults) > 200 {
		t.Errorf("%d faults", len(faults))
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}

// A document reads the same from its stored form, however wide it is.
func TestStored(t *testing.T) {
	var eps []string
	for i := range 300 {
		eps = append(eps, fmt.Sprintf(`{address: "10.0.%d.%d:80", metadata: {k: "\u2028 \t x"}}`, i/200, i%200+1))
	}
	texts := []string{
		"kind: Service\nname: s\nspec: {endpoints: [" + strings.Join(eps, ", ") + "]}",
		"kind: Upstream\nname: u\nspec: {endpoints: [], whenUnavailable: {panic: {below: 0.0000001}}}",
	}
	files, _ := filepath.Glob("../../xds/translate/testdata/*.txtar")
	for _, f := range files {
		ar, err := txtar.ParseFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(ar.Files[0].Data))
	}
	for _, text := range texts {
		docs, faults := spec.Parse("f", []byte(text))
		if len(faults) > 0 {
			t.Error(faults)
		}
		for _, d := range docs {
			again, err := spec.ParseStored(d.Written)
			if err != nil {
				t.Errorf("%s: %v\n%.200s", d.Ref, err, d.Written)
				continue
			}
			if diff := cmp.Diff(d.Body, again.Body); diff != "" || again.Hash() != d.Hash() {
				t.Errorf("%s: %s", d.Ref, diff)
			}
		}
	}
}

// FuzzParse: no text panics, and what is accepted is accepted again from its
// stored form.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/faults/*.txtar")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range txtar.Parse(text).Files {
			f.Add(part.Data)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		docs, faults := spec.Parse("f", text)
		for _, fault := range faults {
			_ = fault.String()
		}
		for _, d := range docs {
			if _, err := spec.ParseStored(d.Written); err != nil {
				t.Errorf("%s: %v", d.Written, err)
			}
		}
		_, _, _ = spec.New(1, docs)
	})
}
