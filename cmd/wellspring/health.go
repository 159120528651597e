package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
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
		Long:    "Shows every upstream, worst first, or every endpoint of one: what its source\nsays of it, and what each reachable proxy holds.\n\nExit status: 0 all are healthy, 79 some are not.",
		Example: "  wellspring health\n  wellspring health --watch\n  wellspring health catalog",
	}
	watch := cmd.Flags().BoolP("watch", "w", false, "go on showing it until interrupted")
	every := cmd.Flags().Duration("interval", time.Second, "time between looks of --watch")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *every < 10*time.Millisecond {
			return &exitError{exitUsage, fmt.Sprintf("--interval %s: at least 10ms is taken", *every)}
		}
		show := func(ctx context.Context, w io.Writer) (bool, error) { return g.showHealth(ctx, w) }
		if len(args) == 1 {
			show = func(ctx context.Context, w io.Writer) (bool, error) { return g.showUpstream(ctx, w, args[0]) }
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
	say("")
	line := fmt.Sprintf("proxies: %d connected, %d current", o.Proxies.Connected, o.Proxies.Current)
	if o.Proxies.Refused > 0 || o.Proxies.Parked > 0 {
		line += fmt.Sprintf(", %d streams and %d resources refused: wellspring proxies", o.Proxies.Refused, o.Proxies.Parked)
	}
	say("%s", line)
	for _, s := range o.Sources {
		if !s.IsFresh() {
			say("source %s: %s for %s: %s", s.Name, s.State, ago(s.Since), orDash(s.Error))
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

func (g *global) showUpstream(ctx context.Context, w io.Writer, name string) (fine bool, err error) {
	var u admin.UpstreamHealth
	if err := g.client().Get(ctx, "/v1/upstreams/"+url.PathEscape(name)+"/health", nil, &u); err != nil {
		return false, err
	}
	t := &table{head: []string{"ENDPOINT", "SOURCE", "PROXIES", "REASON"}}
	var names []string
	asked := 0
	for _, p := range u.Proxies {
		if p.Asked {
			asked++
		}
	}
	for _, e := range u.Endpoints {
		usable, why := 0, e.Reason
		for _, v := range e.Proxies {
			if v.Usable {
				usable++
			} else if len(v.Flags) > 0 {
				why = strings.TrimPrefix(why+"; ", "; ") + v.Proxy + ": " + strings.Join(v.Flags, " ")
			}
		}
		proxies := "-"
		if asked > 0 {
			proxies = fmt.Sprintf("%d/%d", usable, asked)
		}
		t.add(e.Address, string(e.Health), proxies, orDash(why))
		names = append(names, e.Address)
	}
	if g.output == "table" || g.output == "wide" {
		head := fmt.Sprintf("upstream %s: %s (for %s)", u.Name, u.State, ago(u.Since))
		if u.Why != "" {
			head += ": " + u.Why
		}
		_, _ = fmt.Fprintln(w, cut(head))
		if u.Seen != "" {
			_, _ = fmt.Fprintln(w, cut(u.Seen))
		}
	}
	if err := g.print(w, u, t, names); err != nil {
		return false, err
	}
	if g.output == "table" || g.output == "wide" {
		for _, p := range u.Proxies {
			if !p.Asked {
				_, _ = fmt.Fprintln(w, cut(fmt.Sprintf("proxy %s was not asked: %s", p.Proxy, p.Why)))
			}
			if len(p.Extra) > 0 {
				_, _ = fmt.Fprintln(w, cut(fmt.Sprintf("proxy %s holds besides: %s", p.Proxy, strings.Join(p.Extra, " "))))
			}
		}
		for _, p := range u.Problems {
			_, _ = fmt.Fprintln(w, cut("problem: "+p.String()))
		}
	}
	return u.State == health.Healthy && u.Seen == "", nil
}
