package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/store"
)

func historyCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "history [REVISION]", Short: "List revisions, or show what one changed", Args: cobra.MaximumNArgs(1),
		Example: "  wellspring history\n  wellspring history 41\n  wellspring history 41 --against 38",
	}
	limit := cmd.Flags().Int("limit", 20, "most revisions that are listed")
	against := cmd.Flags().Uint64("against", 0, "compare with this revision; default the one before")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *limit < 1 || *limit > 1000 {
			return &exitError{exitUsage, fmt.Sprintf("--limit %d: 1 to 1000 are taken", *limit)}
		}
		if len(args) == 0 {
			return g.listRevisions(cmd, *limit)
		}
		n, err := revisionArg(args[0])
		if err != nil {
			return err
		}
		q := url.Values{}
		if cmd.Flags().Changed("against") {
			q.Set("against", strconv.FormatUint(*against, 10))
		}
		var d admin.Diff
		if err := g.client().Get(cmd.Context(), fmt.Sprintf("/v1/revisions/%d/diff", n), q, &d); err != nil {
			return err
		}
		if g.output != "table" && g.output != "wide" {
			var names []string
			for _, c := range d.Changes {
				names = append(names, string(c.Kind)+"/"+c.Name)
			}
			return g.print(cmd.OutOrStdout(), d, nil, names)
		}
		for _, c := range d.Changes {
			if err := printDiff(cmd.OutOrStdout(), string(c.Kind)+"/"+c.Name, c.From, c.To); err != nil {
				return err
			}
		}
		if d.From == 0 { // before it there was nothing
			return nil
		}
		var r store.Revision
		if err := g.client().Get(cmd.Context(), "/v1/revisions/"+args[0], nil, &r); err != nil {
			return err
		}
		services := ""
		if !r.Spec {
			services = " --services" // it changed nothing else
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "to go back to revision %d: wellspring restore %d%s\n", d.From, d.From, services)
		return nil
	}
	return cmd
}

func (g *global) listRevisions(cmd *cobra.Command, limit int) error {
	var page admin.Revisions
	if err := g.client().Get(cmd.Context(), "/v1/revisions", url.Values{"limit": {strconv.Itoa(limit)}}, &page); err != nil {
		return err
	}
	t := &table{head: []string{"REVISION", "WHEN", "AUTHOR", "CHANGES", "MESSAGE"}}
	var names []string
	for _, r := range page.Items {
		what := strconv.Itoa(len(r.Changes)) + " documents"
		if len(r.Changes) == 1 {
			what = string(r.Changes[0].Kind) + "/" + r.Changes[0].Name
		}
		names = append(names, strconv.FormatUint(r.Number, 10))
		t.add(strconv.FormatUint(r.Number, 10), ago(r.Time)+" ago", r.Author, what, orDash(r.Message))
	}
	if len(page.Items) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "no revision yet; make one with `wellspring apply -f FILE`")
	}
	return g.print(cmd.OutOrStdout(), page, t, names)
}

func revisionArg(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, &exitError{exitUsage, fmt.Sprintf("%q is not a revision; `wellspring history` lists them", s)}
	}
	return n, nil
}

func restoreCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "restore REVISION", Short: "Bring a revision's documents back, as a new revision", Args: cobra.ExactArgs(1),
		Long:    "Brings the documents of a revision back. Today's services and endpoints stay\nunless --services is given; a service that is gone and that the documents need\ncomes back and is named.",
		Example: "  wellspring restore 40 --dry-run\n  wellspring restore 40 -m 'canary misbehaved'",
	}
	services := cmd.Flags().Bool("services", false, "bring services back too")
	dry := cmd.Flags().Bool("dry-run", false, "say what would change; change nothing")
	message := cmd.Flags().StringP("message", "m", "", "why, for the history")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := revisionArg(args[0])
		if err != nil {
			return err
		}
		q := url.Values{"message": {*message}, "services": {strconv.FormatBool(*services)}, "dryRun": {strconv.FormatBool(*dry)}}
		var out admin.Restored
		if err := g.client().Call(cmd.Context(), http.MethodPost, fmt.Sprintf("/v1/revisions/%d/restore", n), q, nil, &out); err != nil {
			return err
		}
		for _, ref := range out.Back {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s was gone and comes back with its endpoints\n", ref)
		}
		return g.printOutcome(cmd, out.Outcome, *dry)
	}
	return cmd
}
