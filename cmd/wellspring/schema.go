package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// referenceCommand prints docs/reference.md and docs/schema.json; hidden, since
// only the build calls it.
func referenceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "reference", Hidden: true, Args: cobra.NoArgs, Short: "Print the reference of the documents, or their JSON Schema",
		Example: "  wellspring reference > docs/reference.md\n  wellspring reference --schema > docs/schema.json",
	}
	schema := cmd.Flags().Bool("schema", false, "print the JSON Schema")
	felt := cmd.Flags().String("felt", "docs/felt.txt", "file that says which test feels which field")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *schema {
			text, err := spec.Schema()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		}
		text, err := os.ReadFile(*felt)
		if err != nil {
			return err
		}
		return writeReference(cmd.OutOrStdout(), string(text))
	}
	return cmd
}

// writeReference prints the reference. felt has a line "KIND PATH TEST" for each
// field that a real Envoy is seen to follow.
func writeReference(w io.Writer, felt string) error {
	tests := map[string]string{}
	for line := range strings.Lines(felt) {
		if i := strings.LastIndexByte(line, ' '); i > 0 {
			tests[line[:i]] = strings.TrimSpace(line[i+1:])
		}
	}
	var b strings.Builder
	b.WriteString("# Reference of the documents\n\n" +
		"Generated from the structs that the documents are parsed into: `make docs`.\n\n" +
		"A document has `kind`, `name` (an RFC 1123 label), optional `labels` and `ignore` (codes\n" +
		"of lint that are meant so), and `spec`.\n" +
		"Names that begin with `" + spec.ReservedPrefix + "` are refused. Durations are Go's: `250ms`, `2s`, `1m30s`.\n" +
		"An unknown or doubled key, a wrong type and a dangling reference are errors.\n\n" +
		"A field named `envoy…` is part of one of Envoy's own messages: fields named as in\n" +
		"Envoy's documentation, merged last, checked when it is applied. A Service and a\n" +
		"Group become no message of Envoy's own, and have none.\n\n" +
		"*Felt by* names the test in which a real Envoy is seen to do what the field says;\n" +
		"a field that is *golden only* has its translation compared, and accepted by every\n" +
		"supported Envoy.\n")
	for _, kind := range spec.Kinds {
		fmt.Fprintf(&b, "\n## %s\n\n| field | type | default | meaning | felt by |\n|---|---|---|---|---|\n", kind)
		for _, l := range spec.Leaves(kind) {
			def := l.Default
			if l.Required {
				def = "required"
			}
			meaning := l.Doc
			if l.Enum != "" {
				meaning += " One of `" + strings.ReplaceAll(l.Enum, ",", "`, `") + "`."
			}
			switch {
			case l.Minimum != "" && l.Maximum != "":
				meaning += fmt.Sprintf(" %s to %s.", l.Minimum, l.Maximum)
			case l.Minimum != "":
				meaning += fmt.Sprintf(" At least %s.", l.Minimum)
			case l.Maximum != "":
				meaning += fmt.Sprintf(" At most %s.", l.Maximum)
			}
			test := tests[string(kind)+" "+l.Path]
			if test == "" {
				test = "golden only"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", l.Path, l.Type, def, strings.ReplaceAll(meaning, "|", "\\|"), test)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
