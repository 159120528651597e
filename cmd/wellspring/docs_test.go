package main

import (
	"os"
	"strings"
	"testing"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// What `make docs` wrote is what the structs say today.
func TestDocsAreCurrent(t *testing.T) {
	felt, err := os.ReadFile("../../docs/felt.txt")
	if err != nil {
		t.Fatal(err)
	}
	var reference strings.Builder
	if err := writeReference(&reference, string(felt)); err != nil {
		t.Fatal(err)
	}
	schema, err := spec.Schema()
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"../../docs/reference.md": reference.String(), "../../docs/schema.json": string(schema)} {
		got, err := os.ReadFile(file)
		if err != nil || string(got) != want {
			t.Errorf("%s is not what `make docs` writes (%v)", file, err)
		}
	}
}
