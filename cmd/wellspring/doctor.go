package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/envoyadmin"
)

func doctorCommand(g *global) *cobra.Command {
	var address, upstream string
	var pause time.Duration
	cmd := &cobra.Command{
		Use: "doctor [FOLDER]", Short: "Say why requests fail, of any Envoy", Args: cobra.MaximumNArgs(1),
		Long: "Asks the admin of an Envoy, whoever configured it, or reads what was saved of\n" +
			"one, and says which of its upstreams fail requests, and why. It talks to no\nserver.\n\n" +
			"A folder holds what an Envoy's admin answers: clusters, stats and config_dump,\n" +
			"as text or JSON, with any ending; stats-later, asked again some seconds later,\n" +
			"tells what grows. config_dump may hold what is not for everybody: nothing of it\n" +
			"is sent anywhere.\n\nExit status: 0 nothing was found, 79 something was.",
		Example: "  wellspring doctor --envoy-admin 127.0.0.1:9901\n" +
			"  wellspring doctor --envoy-admin unix:///run/envoy.sock --upstream catalog\n" +
			"  for x in clusters stats config_dump\n  do curl -s 127.0.0.1:9901/$x > saved/$x; done\n" +
			"  wellspring doctor saved -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			var e diagnose.Envoy
			var err error
			switch {
			case len(args) == 1 && address == "":
				e, err = readEnvoy(args[0])
			case len(args) == 0 && address != "":
				e, err = askEnvoy(cmd.Context(), address, pause)
			default:
				return &exitError{exitUsage, "name a folder, or an Envoy with --envoy-admin"}
			}
			if err != nil {
				return err
			}
			r := diagnose.Of(e)
			if upstream != "" {
				if r, err = only(r, upstream); err != nil {
					return err
				}
			}
			if g.output == "table" || g.output == "wide" {
				err = showReport(cmd.OutOrStdout(), r, g.output == "wide")
			} else {
				var names []string
				for _, a := range r.Upstreams {
					if a.Found() {
						names = append(names, plain(a.Upstream))
					}
				}
				err = g.print(cmd.OutOrStdout(), r, nil, names)
			}
			if err == nil && r.Found() {
				return &exitError{code: exitFound}
			}
			return err
		},
	}
	cmd.Flags().StringVar(&address, "envoy-admin", "", "address of an Envoy's admin: HOST:PORT, http://… or unix:///path")
	cmd.Flags().StringVar(&upstream, "upstream", "", "look at one of its clusters only")
	cmd.Flags().DurationVar(&pause, "pause", 2*time.Second, "time between two looks at its counters, which tells what grows")
	return cmd
}

// readEnvoy reads a saved folder.
func readEnvoy(folder string) (e diagnose.Envoy, err error) {
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return e, &exitError{exitData, folder + " is no folder; save clusters, stats and config_dump of an Envoy's admin in one, and name that"}
	}
	if e.Dump, e.Before, err = envoyadmin.ReadDump(os.DirFS(folder)); err != nil {
		return e, &exitError{exitData, folder + ": " + err.Error()}
	}
	return e, nil
}

// askEnvoy asks an admin, and for its stats once more after a pause.
func askEnvoy(ctx context.Context, address string, pause time.Duration) (e diagnose.Envoy, err error) {
	c, err := envoyadmin.At(address)
	if err != nil {
		return e, &exitError{exitUsage, "--envoy-admin: " + err.Error()}
	}
	if pause > 0 {
		if e.Before, err = c.Stats(ctx); err == nil {
			select {
			case <-ctx.Done():
				return e, ctx.Err()
			case <-time.After(pause):
			}
		}
	}
	if err == nil {
		e.Dump, err = c.Dump(ctx)
	}
	if err != nil {
		return e, &exitError{exitUnreachable, err.Error() + "; see whether it runs, and where its admin listens"}
	}
	return e, nil
}

// only keeps one upstream.
func only(r diagnose.Report, name string) (diagnose.Report, error) {
	at := slices.IndexFunc(r.Upstreams, func(a diagnose.Answer) bool { return a.Upstream == name })
	if at < 0 && !slices.Contains(r.Fine, name) {
		all := slices.Clone(r.Fine)
		for _, a := range r.Upstreams {
			all = append(all, a.Upstream)
		}
		slices.Sort(all)
		some := all[:min(len(all), 10)]
		if len(all) > len(some) {
			some = append(slices.Clone(some), fmt.Sprintf("and %d more", len(all)-len(some)))
		}
		return r, &exitError{exitData, fmt.Sprintf("this Envoy has no cluster %q; it has %s", name, plain(strings.Join(some, ", ")))}
	}
	if at < 0 {
		r.Upstreams, r.Fine = nil, []string{name}
		return r, nil
	}
	r.Upstreams, r.Fine = r.Upstreams[at:at+1], nil
	return r, nil
}

// showReport prints one for people.
func showReport(w io.Writer, r diagnose.Report, wide bool) error {
	var b strings.Builder
	version := ""
	if r.Version != "" {
		version = " (" + r.Version + ")"
	}
	found := 0
	for _, a := range r.Upstreams {
		if a.Found() {
			found++
		}
	}
	fold(&b, "envoy ", fmt.Sprintf("%s%s: %d of %d upstreams have a finding", orDash(r.Envoy), version, found, len(r.Upstreams)+len(r.Fine)))
	showFindings(&b, r.Own, wide)
	for _, a := range r.Upstreams {
		if !a.Found() && !wide {
			continue
		}
		b.WriteString("\n")
		fold(&b, "upstream ", a.Upstream+": "+a.State)
		showFindings(&b, a.Findings, wide)
		if wide && len(a.RuledOut) > 0 {
			var all []string
			for _, x := range a.RuledOut {
				all = append(all, string(x.Code)+" "+x.By)
			}
			fold(&b, "  ruled out ", strings.Join(all, " · "))
		}
	}
	for _, x := range r.NotAsked {
		b.WriteString("\n")
		fold(&b, "not asked   ", x)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// showFindings prints the causes; of those that are only possible a line.
func showFindings(b *strings.Builder, all []diagnose.Finding, wide bool) {
	for _, f := range all {
		title := fmt.Sprintf("CAUSE %-3s %s", f.Code, f.Title)
		fmt.Fprintf(b, "%-*s %8s\n", width-9, title, f.Strength)
		if f.Code == diagnose.P1 && len(all) > 1 && !wide {
			fold(b, "  why panic did not save it  ", strings.Join(f.Evidence, "; "))
			continue
		}
		if f.Strength == diagnose.Possible && !wide {
			continue
		}
		fold(b, "  ", f.Says)
		for i, line := range f.Evidence {
			head := "            "
			if i == 0 {
				head = "  evidence  "
			}
			fold(b, head, line)
		}
		fold(b, "  do        ", f.Next)
	}
}

// broken breaks words that no line has room for.
func broken(text string, most int) string {
	var b strings.Builder
	n := 0
	for _, r := range text {
		if n++; r == ' ' {
			n = 0
		} else if n > most {
			b.WriteByte(' ')
			n = 1
		}
		b.WriteRune(r)
	}
	return b.String()
}

// fold prints a text after a head, in lines of width, each below the first.
func fold(b *strings.Builder, head, text string) {
	line := head
	empty := true
	for word := range strings.FieldsSeq(broken(plain(text), width-utf8.RuneCountInString(head))) {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			fmt.Fprintln(b, line)
			line, empty = strings.Repeat(" ", utf8.RuneCountInString(head)), true
		}
		if !empty {
			line += " "
		}
		line += word
		empty = false
	}
	fmt.Fprintln(b, line)
}
