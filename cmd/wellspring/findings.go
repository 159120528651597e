package main

import (
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/findings"
)

func findingsCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "findings [UPSTREAM]", Short: "Show what the server found by itself", Args: cobra.MaximumNArgs(1),
		Long: "The server runs the checks of `explain` by itself: whenever the state of an\n" +
			"upstream turns, each half a minute while something is wrong, and now and then\n" +
			"while nothing is. It keeps what it finds, with begin and end; events tell both.\n" +
			"Causes of failing requests are critical; warnings are what is no outage yet.\n\n" +
			"Exit status: 0 nothing critical goes on, 79 something does.",
		Example: "  wellspring findings\n  wellspring findings catalog --ended\n  wellspring findings --code H3 -o json\n  wellspring findings -o name",
	}
	code := cmd.Flags().String("code", "", "only those with a code, as docs/causes.md lists them")
	ended := cmd.Flags().Bool("ended", false, "also those that are over")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := url.Values{}
		for key, v := range map[string]string{"upstream": strings.Join(args, ""), "code": *code} {
			if v != "" {
				q.Set(key, v)
			}
		}
		if *ended {
			q.Set("ended", "true")
		}
		var all admin.Findings
		if err := g.client().Get(cmd.Context(), "/v1/findings", q, &all); err != nil {
			return err
		}
		var err error
		if g.output == "table" || g.output == "wide" {
			err = listFindings(cmd.OutOrStdout(), all.Items, g.output == "wide")
		} else {
			var names []string
			for _, f := range all.Items {
				names = append(names, fmt.Sprintf("%s/%s %s", f.Subject.Kind, f.Subject.Name, f.Code))
			}
			err = g.print(cmd.OutOrStdout(), all, nil, names)
		}
		if err == nil && slices.ContainsFunc(all.Items, func(f findings.TimedFinding) bool { return f.Open() && f.Severity == findings.Critical }) {
			return &exitError{code: exitFound}
		}
		return err
	}
	return cmd
}

// manyAlike findings of one cause are told in one line.
const manyAlike = 3

// causeOf is what findings have in common that are told in one line.
func causeOf(f findings.TimedFinding) string {
	return strings.Join([]string{string(f.Severity), string(f.Code), f.Subject.Kind}, " ")
}

// alikes are the places of those that are open, by their cause.
func alikes(all []findings.TimedFinding) map[string][]int {
	out := map[string][]int{}
	for i, f := range all {
		if f.Open() {
			out[causeOf(f)] = append(out[causeOf(f)], i)
		}
	}
	return out
}

// alike prints findings of one cause together.
func alike(b *strings.Builder, all []findings.TimedFinding, same []int) {
	first := all[same[0]]
	var names []string
	for _, i := range same[:min(len(same), manyAlike)] {
		names = append(names, all[i].Subject.Name)
	}
	fold(b, "", fmt.Sprintf("%-8s %-3s %d %ss: %s", strings.ToUpper(string(first.Severity)), first.Code, len(same), strings.ToLower(first.Subject.Kind), first.Title))
	fold(b, "  ", fmt.Sprintf("%s and %d more; the first since %s (%s); all with -o wide", strings.Join(names, ", "), len(same)-len(names), utc(first.Begun), elapsed(time.Since(first.Begun))))
}

// listFindings prints them for people: one or two lines each, all evidence where it is
// wide.
func listFindings(w io.Writer, all []findings.TimedFinding, wide bool) error {
	var b strings.Builder
	if len(all) == 0 {
		b.WriteString("nothing was found\n")
	}
	open := alikes(all)
	for i, f := range all {
		if same := open[causeOf(f)]; !wide && f.Open() && len(same) > manyAlike {
			if same[0] == i {
				alike(&b, all, same)
			}
			continue
		}
		when := fmt.Sprintf("since %s (%s)", utc(f.Begun), ago(f.Begun))
		if !f.Open() {
			when = fmt.Sprintf("%s to %s (%s)", utc(f.Begun), utc(f.Ended), elapsed(f.Ended.Sub(f.Begun)))
		}
		of := f.Subject.Name
		if f.Subject.Kind != "Upstream" {
			of = strings.ToLower(f.Subject.Kind) + " " + of
		}
		head := fmt.Sprintf("%-8s %-3s %s: %s", strings.ToUpper(string(f.Severity)), f.Code, of, f.Title)
		fold(&b, "", head)
		fold(&b, "  ", fmt.Sprintf("%s, %s; %s", f.Says, f.Strength, when))
		if !wide {
			continue
		}
		for _, line := range f.Evidence {
			fold(&b, "  evidence  ", line)
		}
		if f.Next != "" {
			fold(&b, "  do        ", f.Next)
		}
	}
	if len(all) > 0 && !wide {
		fold(&b, "", "evidence with -o wide; the whole answer: wellspring explain UPSTREAM")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
