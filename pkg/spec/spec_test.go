package spec_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

var update = flag.Bool("update", false, "rewrite the wanted parts of testdata")

// TestFaults runs each story of testdata/faults: a text of documents, and every
// fault and warning that an operator is told about it.
func TestFaults(t *testing.T) {
	files, err := filepath.Glob("testdata/faults/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := verdict(ar)
			if *update {
				ar.Files = append(ar.Files[:len(ar.Files)-1:len(ar.Files)-1], txtar.File{Name: "told", Data: []byte(got)})
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			last := ar.Files[len(ar.Files)-1]
			if last.Name != "told" {
				t.Fatal("the last part is not \"told\"")
			}
			if diff := cmp.Diff(string(last.Data), got); diff != "" {
				t.Errorf("told differently (-want +got):\n%s", diff)
			}
		})
	}
}

func verdict(ar *txtar.Archive) string {
	var docs []*spec.Document
	var faults spec.Faults
	for _, f := range ar.Files {
		if f.Name == "told" {
			continue
		}
		d, fs := spec.Parse(f.Name, f.Data)
		docs, faults = append(docs, d...), append(faults, fs...)
	}
	_, warnings, linked := spec.New(1, docs)
	var b strings.Builder
	for _, f := range append(faults, linked...) {
		b.WriteString("fault   " + f.String() + "\n")
	}
	for _, w := range warnings {
		b.WriteString("warning " + w.String() + "\n")
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}
