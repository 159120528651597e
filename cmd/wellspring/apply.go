package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/admin/client"
	"github.com/wellspring-xds/wellspring/pkg/lint"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

// readFiles reads documents from files, folders (their *.yaml, *.yml and *.json)
// and "-", checks each by itself, and returns the text to send.
func readFiles(paths []string, stdin io.Reader) (text []byte, docs []*spec.Document, err error) {
	if len(paths) == 0 {
		return nil, nil, &exitError{exitUsage, "name files with -f, or - for standard input"}
	}
	var files []string
	for _, p := range paths {
		info, err := os.Stat(p)
		switch {
		case p == "-":
			files = append(files, p)
		case err != nil:
			return nil, nil, &exitError{exitData, err.Error()}
		case info.IsDir():
			entries, err := os.ReadDir(p)
			if err != nil {
				return nil, nil, &exitError{exitData, err.Error()}
			}
			for _, e := range entries {
				if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".yaml" || ext == ".yml" || ext == ".json") {
					files = append(files, filepath.Join(p, e.Name()))
				}
			}
		default:
			files = append(files, p)
		}
	}
	slices.Sort(files)
	var faults spec.Faults
	for _, f := range files {
		var content []byte
		var err error
		if f == "-" {
			content, err = io.ReadAll(io.LimitReader(stdin, spec.MaxText+1))
		} else {
			content, err = os.ReadFile(f)
		}
		if err != nil {
			return nil, nil, &exitError{exitData, err.Error()}
		}
		d, fs := spec.Parse(f, content)
		docs, faults = append(docs, d...), append(faults, fs...)
	}
	for _, d := range docs {
		text = append(append(text, d.Written...), "\n---\n"...)
	}
	if err := faults.Err(); err != nil {
		return nil, nil, err
	}
	if len(docs) == 0 {
		return nil, nil, &exitError{exitData, "no documents in " + strings.Join(paths, ", ")}
	}
	return text, docs, nil
}

// placed gives the server's faults the places of the files that were sent.
func placed(err error, docs []*spec.Document) error {
	p, ok := err.(*admin.Error) //nolint:errorlint // the client returns it unwrapped
	if !ok {
		return err
	}
	placeAll(p.Errors, docs)
	return p
}

// placeAll gives faults the places of the documents that were sent, and takes the
// server's own places away.
func placeAll(faults []spec.Fault, docs []*spec.Document) {
	for i, f := range faults {
		faults[i].File, faults[i].Line, faults[i].Column = "", 0, 0
		for _, d := range docs {
			if d.String() == f.Document {
				at := d.Fault(f.Field, f.Message)
				faults[i].File, faults[i].Line, faults[i].Column = at.File, at.Line, at.Column
			}
		}
	}
}

// send reads files and applies them, or says what that would change. Faults and
// warnings come back with the places of the files.
func (g *global) send(cmd *cobra.Command, files []string, how client.How) (admin.Outcome, []*spec.Document, error) {
	text, docs, err := readFiles(files, cmd.InOrStdin())
	if err != nil {
		return admin.Outcome{}, nil, err
	}
	out, err := g.client().Apply(cmd.Context(), text, how)
	if err != nil {
		return out, docs, placed(err, docs)
	}
	placeAll(out.Warnings, docs)
	return out, docs, nil
}

func applyCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "apply -f FILE…", Short: "Set documents, all in one revision", Args: cobra.NoArgs,
		Long:    "Sets the documents of files, folders or standard input in one transaction and\none revision: all of them, or none. With --prune, documents that carry the label\nand are not in the files are deleted in the same revision.",
		Example: "  wellspring apply -f shop.yaml\n  wellspring apply -f ./documents --message 'canary to 5 %'\n  wellspring apply -f shop.yaml --dry-run\n  wellspring apply -f ./shop --prune -l owner=shop",
	}
	files := cmd.Flags().StringSliceP("filename", "f", nil, "file, folder or -")
	message := cmd.Flags().StringP("message", "m", "", "why, for the history")
	dry := cmd.Flags().Bool("dry-run", false, "say what would change; change nothing")
	prune := pruneFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		label, err := prune()
		if err != nil {
			return err
		}
		out, _, err := g.send(cmd, *files, client.How{Message: *message, DryRun: *dry, Prune: label})
		if err != nil {
			return err
		}
		return g.printOutcome(cmd, out, *dry)
	}
	return cmd
}

// pruneFlags adds --prune -l KEY=VALUE, and returns what reads them: "" is without.
func pruneFlags(cmd *cobra.Command) func() (string, error) {
	prune := cmd.Flags().Bool("prune", false, "delete documents with the label -l that are not in the files")
	label := cmd.Flags().StringP("label", "l", "", "with --prune: KEY=VALUE")
	return func() (string, error) {
		if *prune != (*label != "") {
			return "", &exitError{exitUsage, "--prune and -l KEY=VALUE go together"}
		}
		return *label, nil
	}
}

// printOutcome says what an apply, delete or restore did.
func (g *global) printOutcome(cmd *cobra.Command, out admin.Outcome, dry bool) error {
	for _, w := range out.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+w.String())
	}
	t := &table{head: []string{"DOCUMENT", "CHANGE"}}
	var names []string
	for _, c := range out.Changes {
		word := "changed"
		if c.From == "" {
			word = "created"
		} else if c.To == "" {
			word = "deleted"
		}
		names = append(names, string(c.Kind)+"/"+c.Name)
		t.add(string(c.Kind)+"/"+c.Name, word)
	}
	if err := g.print(cmd.OutOrStdout(), out, t, names); err != nil {
		return err
	}
	switch w := cmd.ErrOrStderr(); {
	case len(out.Changes) == 0:
		fmt.Fprintln(w, "nothing changes")
	case dry:
		fmt.Fprintf(w, "nothing was changed (dry run); it would touch %s\n", touched(out))
	default:
		fmt.Fprintf(w, "revision %d; it touches %s\n", out.Revision, touched(out))
	}
	return nil
}

// touched sums the impact up: how much, then what it does to what runs.
func touched(out admin.Outcome) string {
	if len(out.Impact) == 0 {
		return "no proxy"
	}
	proxies := map[string]int{}
	for _, i := range out.Impact {
		proxies[i.Group] = i.Proxies
	}
	n := 0
	for _, p := range proxies {
		n += p
	}
	text := fmt.Sprintf("%d resources in %d groups, %d proxies connected", len(out.Impact), len(proxies), n)
	for _, e := range effects {
		names := map[string]bool{}
		for _, i := range out.Impact {
			if i.Effect == e.is {
				name, _, _ := strings.Cut(i.Name, "@")
				names[name] = true
			}
		}
		if len(names) > 0 {
			text += fmt.Sprintf("\n%s %s: %s", e.is, few(names, e.what), e.says)
		}
	}
	return text
}

// effects are what a change does, for who is about to make it.
var effects = []struct {
	is         model.Effect
	what, says string
}{
	{model.EffectEndpoints, "upstreams", "connections to those that stay go on"},
	{model.EffectRoutes, "listeners", "no connection is closed"},
	{model.EffectRewarms, "upstreams", "connections to its endpoints are opened anew"},
	{model.EffectDrains, "listeners", "clients' connections end within the drain time"},
	{model.EffectEmpties, "upstreams", "no endpoint is left, requests get 503"},
	{model.EffectCloses, "listeners", "new clients are turned away"},
}

// effectsHelp is the table for a verb's help.
func effectsHelp() string {
	text := fmt.Sprintf("  %-9s  nothing\n", model.EffectNone)
	for _, e := range effects {
		text += fmt.Sprintf("  %-9s  %s: %s\n", e.is, e.what, e.says)
	}
	return text
}

// few says names, or how many there are of what.
func few(names map[string]bool, what string) string {
	if all := slices.Sorted(maps.Keys(names)); len(all) <= 3 {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%d %s", len(names), what)
}

func diffCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "diff -f FILE…", Short: "Show what apply would change, in documents and in Envoy", Args: cobra.NoArgs,
		Long: "Shows each document's lines, the resources of Envoy that change in each group,\n" +
			"and what that does to what runs:\n\n" +
			effectsHelp() + "\n" +
			"What a proxy older than the newest Envoy is sent may differ. Proxies that match\n" +
			"another group afterwards are told as a warning.",
		Example: "  wellspring diff -f shop.yaml\n  wellspring diff -f ./shop --prune -l owner=shop",
	}
	files := cmd.Flags().StringSliceP("filename", "f", nil, "file, folder or -")
	prune := pruneFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		label, err := prune()
		if err != nil {
			return err
		}
		out, docs, err := g.send(cmd, *files, client.How{DryRun: true, Prune: label})
		if err != nil {
			return err
		}
		if g.output == "json" || g.output == "yaml" || g.output == "name" {
			return g.printOutcome(cmd, out, true)
		}
		for _, c := range out.Changes {
			i := slices.IndexFunc(docs, func(d *spec.Document) bool { return d.Kind == c.Kind && d.Name == c.Name })
			var before admin.Item
			if c.From != "" {
				if err := g.client().Get(cmd.Context(), documentPath(c.Kind, c.Name), nil, &before); err != nil {
					return err
				}
			}
			var after any // deleted
			if i >= 0 {
				after = jsonValue(docs[i].Written)
			}
			if err := printDiff(cmd.OutOrStdout(), string(c.Kind)+"/"+c.Name, before.Document, after); err != nil {
				return err
			}
		}
		t := &table{head: []string{"GROUP", "TYPE", "NAME", "CHANGE", "EFFECT", "PROXIES"}}
		for _, i := range out.Impact {
			t.add(i.Group, i.Type, i.Name, i.Change, string(i.Effect), fmt.Sprint(i.Proxies))
		}
		if err := t.write(cmd.OutOrStdout(), true); err != nil {
			return err
		}
		for _, w := range out.Warnings {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+w.String())
		}
		if len(out.Changes) == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), "nothing changes")
		} else {
			fmt.Fprintln(cmd.ErrOrStderr(), "it would touch "+touched(out))
		}
		return nil
	}
	return cmd
}

func documentPath(kind spec.Kind, name string) string {
	return "/v1/" + kind.Plural() + "/" + url.PathEscape(name)
}

func jsonValue(text []byte) any {
	var v any
	_ = yaml.Unmarshal(text, &v) // canonical JSON
	return v
}

// printDiff prints two forms of a document as YAML, line against line.
func printDiff(w io.Writer, name string, from, to any) error {
	text := func(v any) ([]byte, error) {
		if v == nil {
			return nil, nil
		}
		return yaml.Marshal(v)
	}
	a, err := text(from)
	if err != nil {
		return err
	}
	b, err := text(to)
	if err != nil {
		return err
	}
	out := diff.Diff(name+" before", a, name+" after", b)
	if i := bytes.IndexByte(out, '\n'); i >= 0 && bytes.HasPrefix(out, []byte("diff ")) {
		out = out[i+1:]
	}
	_, err = w.Write(out)
	return err
}

func deleteCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete KIND NAME", Short: "Delete a document", Args: cobra.ExactArgs(2),
		Example: "  wellspring delete route shop\n  wellspring delete upstream catalog --dry-run",
	}
	message := cmd.Flags().StringP("message", "m", "", "why, for the history")
	dry := cmd.Flags().Bool("dry-run", false, "say what would change; change nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		kind, err := kindArg(args[0])
		if err != nil {
			return err
		}
		q := url.Values{"message": {*message}}
		if *dry {
			q.Set("dryRun", "true")
		}
		var out admin.Outcome
		if err := g.client().Call(cmd.Context(), http.MethodDelete, documentPath(kind, args[1]), q, nil, &out); err != nil {
			return err
		}
		return g.printOutcome(cmd, out, *dry)
	}
	return cmd
}

func kindArg(s string) (spec.Kind, error) {
	k, ok := spec.ParseKind(s)
	if !ok {
		return "", &exitError{exitUsage, fmt.Sprintf("%q is not a kind; kinds are listener, route, upstream, service and group", s)}
	}
	return k, nil
}

func getCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "get KIND [NAME]", Short: "Show documents as they were written", Args: cobra.RangeArgs(1, 2),
		Example: "  wellspring get upstreams\n  wellspring get upstream catalog -o yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, err := kindArg(args[0])
			if err != nil {
				return err
			}
			var items []admin.Item
			if len(args) == 2 {
				var one admin.Item
				if err := g.client().Get(cmd.Context(), documentPath(kind, args[1]), nil, &one); err != nil {
					return err
				}
				if g.output == "json" || g.output == "yaml" {
					return g.print(cmd.OutOrStdout(), one.Document, nil, nil)
				}
				items = append(items, one)
			} else if items, err = listAll(cmd, g, kind); err != nil {
				return err
			}
			t := &table{head: []string{"NAME", "REVISION", "STATE", "WHY"}}
			var names []string
			for _, it := range items {
				name := fmt.Sprint(it.Document.(map[string]any)["name"])
				names = append(names, name)
				state, why := "-", "-"
				if it.Status != nil {
					state, why = string(it.Status.State), orDash(it.Status.Why)
				}
				t.add(name, fmt.Sprint(it.Revision), state, why)
			}
			if kind != spec.KindUpstream {
				t.head = t.head[:2]
				for i := range t.rows {
					t.rows[i] = t.rows[i][:2]
				}
			}
			if len(items) == 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "no %s is declared; declare one with `wellspring apply -f FILE`\n", kind)
			}
			return g.print(cmd.OutOrStdout(), items, t, names)
		},
	}
}

// listAll follows the pages of a list.
func listAll(cmd *cobra.Command, g *global, kind spec.Kind) ([]admin.Item, error) {
	all := []admin.Item{}
	for after := ""; ; {
		var page admin.List
		if err := g.client().Get(cmd.Context(), "/v1/"+kind.Plural(), url.Values{"after": {after}}, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if after = page.Next; after == "" {
			return all, nil
		}
	}
}

func lintCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "lint [-f FILE…]", Short: "Say what is wrong with documents, or not meant", Args: cobra.NoArgs,
		Long: "With -f it checks documents without a server, and takes them for the whole Spec:\n" +
			"a reference to what is not in them is a fault. With -f and an explicit --server\n" +
			"they are checked together with what the server has, and held against what runs:\n" +
			"who the registry knows, whether a new health check passes at endpoints that are\n" +
			"healthy now, how fast endpoints are replaced. Without -f the documents in force\n" +
			"are held against what runs.\n\n" +
			"Each warning ends with a code; `ignore: [CODE]` beside a document's name says\n" +
			"that it is meant so. Proposals stand on stderr, and count as fine.\n\n" +
			"Exit status: 0 fine, 65 a document is invalid, 79 warnings only.",
		Example: "  wellspring lint -f ./documents\n  wellspring lint -f shop.yaml --server 127.0.0.1:18002\n  wellspring lint",
	}
	files := cmd.Flags().StringSliceP("filename", "f", nil, "file, folder or -")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var docs []*spec.Document
		var warnings []spec.Fault
		switch {
		case len(*files) == 0:
			var all admin.Lint
			if err := g.client().Get(cmd.Context(), "/v1/lint", nil, &all); err != nil {
				return err
			}
			warnings = all.Items
		case cmd.Flags().Changed("server"):
			out, sent, err := g.send(cmd, *files, client.How{DryRun: true})
			if err != nil {
				return err
			}
			docs, warnings = sent, out.Warnings
		default:
			_, read, err := readFiles(*files, cmd.InOrStdin())
			if err != nil {
				return err
			}
			s, w, faults := spec.New(0, read)
			for _, d := range read {
				wrong, odd := translate.Validate(d, s)
				faults, w = append(faults, wrong...), append(w, s.Heeded(odd)...)
			}
			if err := faults.Err(); err != nil {
				return err
			}
			docs, warnings = read, append(w, lint.Documents(s, read)...)
			for _, p := range s.Proposals() {
				fmt.Fprintln(cmd.ErrOrStderr(), "proposal: "+plain(p.String()))
			}
		}
		if warnings == nil {
			warnings = []spec.Fault{}
		}
		if g.output == "table" || g.output == "wide" { // whole: the advice stands at the end
			for _, w := range warnings {
				fmt.Fprintln(cmd.OutOrStdout(), "warning: "+plain(w.String()))
			}
		} else if err := g.print(cmd.OutOrStdout(), warnings, nil, nil); err != nil {
			return err
		}
		if len(warnings) > 0 {
			return &exitError{exitFound, ""}
		}
		if len(*files) == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), "nothing to say of the documents in force")
			return nil
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%d documents are right\n", len(docs))
		return nil
	}
	return cmd
}
