package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

func healthCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "health [UPSTREAM]", Short: "Show how upstreams do", Args: cobra.MaximumNArgs(1),
		Long:    "Shows every upstream, worst first, by what its source says and what proxies\nreport; or every endpoint of one.\n\nhidden: too few endpoints are healthy, and proxies send requests to the dead too\n(panic), so that some of them fail before anybody reads 503 UH.\n\nExit status: 0 all are healthy, 79 some are not; of --trend, 79 where a request\nfailed in the last hour.",
		Example: "  wellspring health\n  wellspring health --watch\n  wellspring health catalog\n  wellspring health catalog --matrix\n  wellspring health catalog --trend",
	}
	matrix := cmd.Flags().Bool("matrix", false, "of one upstream: each endpoint by its source and by the proxies, zone by zone")
	trend := cmd.Flags().Bool("trend", false, "of one upstream: requests, failures and latency of the last hour")
	watch := cmd.Flags().BoolP("watch", "w", false, "go on showing it until interrupted")
	every := cmd.Flags().Duration("interval", time.Second, "time between looks of --watch")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *every < 10*time.Millisecond {
			return &exitError{exitUsage, fmt.Sprintf("--interval %s: at least 10ms is taken", *every)}
		}
		show := func(ctx context.Context, w io.Writer) (bool, error) { return g.showHealth(ctx, w) }
		switch {
		case len(args) == 0 && (*matrix || *trend):
			return &exitError{exitUsage, "--matrix and --trend are of one upstream: wellspring health UPSTREAM --matrix"}
		case *matrix && *trend:
			return &exitError{exitUsage, "--matrix or --trend, not both"}
		case *trend:
			show = func(ctx context.Context, w io.Writer) (bool, error) { return g.showTrend(ctx, w, args[0]) }
		case len(args) == 1:
			show = func(ctx context.Context, w io.Writer) (bool, error) { return g.showUpstream(ctx, w, args[0], *matrix) }
		}
		for {
			var b strings.Builder
			fine, err := show(cmd.Context(), &b)
			if *watch && cmd.Context().Err() != nil {
				return nil
			}
			if err != nil && !*watch {
				return err
			}
			if err != nil {
				_, text := explain(err)
				b.WriteString(text + "\n")
			}
			paint(cmd.OutOrStdout(), b.String(), *watch)
			if !*watch {
				if !fine {
					return &exitError{exitFound, ""}
				}
				return nil
			}
			select {
			case <-cmd.Context().Done():
				return nil
			case <-time.After(*every):
			}
		}
	}
	return cmd
}

// paint writes a screen. A watch begins with the time; on a terminal it is drawn
// over the screen before it, and cut where the terminal ends.
func paint(w io.Writer, text string, watch bool) {
	lines := slices.Collect(strings.Lines(text))
	if !watch {
		for _, line := range lines {
			_, _ = fmt.Fprint(w, colour(w, line))
		}
		return
	}
	lines = slices.Insert(lines, 0, time.Now().Format("15:04:05")+"\n")
	const home, restOfLine, restOfScreen = "\x1b[H", "\x1b[K", "\x1b[J"
	rows, terminal := height(w)
	if !terminal {
		_, _ = io.WriteString(w, strings.Join(lines, ""))
		return
	}
	if more := len(lines) - rows + 2; more > 1 && rows > 2 {
		lines = append(lines[:rows-2], fmt.Sprintf("… %d more lines; make the window higher\n", more))
	}
	var b strings.Builder
	b.WriteString(home)
	for _, line := range lines {
		b.WriteString(colour(w, strings.TrimSuffix(line, "\n")) + restOfLine + "\r\n")
	}
	_, _ = io.WriteString(w, b.String()+restOfScreen)
}

// height is how many lines a terminal has.
func height(w io.Writer) (rows int, terminal bool) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	_, rows, err := term.GetSize(int(f.Fd()))
	return rows, err == nil
}

func (g *global) showHealth(ctx context.Context, w io.Writer) (fine bool, err error) {
	var o admin.Overview
	if err := g.client().Get(ctx, "/v1/health", nil, &o); err != nil {
		return false, err
	}
	t := &table{head: []string{"UPSTREAM", "STATE", "HEALTHY", "SINCE", "WHY"}}
	var names []string
	for _, u := range o.Upstreams {
		why := orDash(u.Why)
		if u.Stale != nil && u.Why != u.Stale.Why {
			why = fmt.Sprintf("%s (as of %s ago: %s)", why, ago(u.Stale.Since), u.Stale.Why)
		}
		t.add(u.Name, string(u.State), fmt.Sprintf("%d/%d", u.Counts.Healthy, u.Counts.Total), ago(u.Since), why)
		names = append(names, u.Name)
	}
	if err := g.print(w, o, t, names); err != nil {
		return false, err
	}
	if g.output == "table" || g.output == "wide" {
		g.showRest(w, o)
	}
	return o.State == health.Healthy && len(o.Certificates) == 0, nil
}

// showRest says what stands beside the upstreams: proxies, sources, problems.
func (g *global) showRest(w io.Writer, o admin.Overview) {
	say := func(format string, args ...any) {
		line := fmt.Sprintf(format, args...)
		if g.output != "wide" {
			line = cut(line)
		}
		_, _ = fmt.Fprintln(w, line)
	}
	if len(o.Upstreams) == 0 {
		say("no upstream is declared; declare one with `wellspring apply -f FILE`")
	}
	var ill []string
	for _, u := range o.Upstreams {
		if u.State != health.Healthy {
			ill = append(ill, u.Name)
		}
	}
	switch len(ill) {
	case 0:
	case 1:
		say("why: wellspring explain %s", ill[0])
	default:
		say("why: wellspring explain %s; or %s", ill[0], strings.Join(ill[1:], ", "))
	}
	say("")
	line := fmt.Sprintf("proxies: %d connected, %d current", o.Proxies.Connected, o.Proxies.Current)
	if o.Proxies.Refused > 0 || o.Proxies.Parked > 0 {
		line += fmt.Sprintf(", %d streams and %d resources refused: wellspring proxies", o.Proxies.Refused, o.Proxies.Parked)
	}
	say("%s", line)
	if line := reportsLine(o.Reports); line != "" {
		say("%s", line)
	}
	for _, s := range o.Sources {
		if !s.IsFresh() {
			say("source %s: %s for %s: %s", s.Name, s.State, ago(s.Since), orDash(s.Error))
		} else if !s.IsFine() {
			say("source %s: stale: %s", s.Name, s.Freshness.Why)
		}
	}
	for _, c := range o.Certificates {
		line := fmt.Sprintf("certificate %s (%s): %s", c.File, strings.Join(c.Users, ", "), c.State)
		switch c.State {
		case model.CertificateExpiring:
			line += fmt.Sprintf(", %s left", time.Until(c.NotAfter).Round(time.Second))
		case model.CertificateExpired:
			line += fmt.Sprintf(" since %s", ago(c.NotAfter))
		}
		if c.Why != "" {
			line += ": " + c.Why
		}
		say("%s", line)
	}
	for _, h := range o.Held {
		say("held: %s: %s", h.Name, h.Why)
	}
	for _, p := range o.Problems {
		say("problem: %s", p.String())
	}
}
