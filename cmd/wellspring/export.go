package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

func exportCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "export", Short: "Print every document as it was written, for apply", Args: cobra.NoArgs,
		Long:    "Prints the declared documents as YAML, without defaults; `apply -f -` takes it.\nWhat sources import is not among them: nobody declared it.",
		Example: "  wellspring export > all.yaml\n  wellspring export -l owner=shop > shop.yaml\n  wellspring export | wellspring --server other:18002 apply -f -",
	}
	label := cmd.Flags().StringP("label", "l", "", "only documents with this label, KEY=VALUE")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		key, value, ok := strings.Cut(*label, "=")
		if *label != "" && (!ok || key == "" || value == "") {
			return &exitError{exitUsage, fmt.Sprintf("-l %s is not KEY=VALUE", *label)}
		}
		if g.output != "table" && g.output != "yaml" && g.output != "json" {
			return &exitError{exitUsage, fmt.Sprintf("-o %s: allowed are yaml and json", g.output)}
		}
		all := []any{}
		for _, kind := range spec.Kinds {
			items, err := listAll(cmd, g, kind)
			if err != nil {
				return err
			}
			for _, item := range items {
				if item.Declared && labelled(item.Document, key, value) {
					all = append(all, item.Document)
				}
			}
		}
		if g.output == "json" {
			return g.print(cmd.OutOrStdout(), all, nil, nil)
		}
		for i, d := range all {
			text, err := yaml.Marshal(d)
			if err != nil {
				return err
			}
			if i > 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "---")
			}
			fmt.Fprint(cmd.OutOrStdout(), string(text))
		}
		if len(all) == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), "no document is declared")
		}
		return nil
	}
	return cmd
}

// labelled tells whether a document carries a label; "" is any.
func labelled(document any, key, value string) bool {
	if key == "" {
		return true
	}
	d, _ := document.(map[string]any)
	labels, _ := d["labels"].(map[string]any)
	return labels[key] == value
}
