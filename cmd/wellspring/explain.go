package main

import (
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
)

func explainCommand(g *global) *cobra.Command {
	var q struct {
		host, path, method, proxy, log, at string
		headers                            []string
	}
	cmd := &cobra.Command{
		Use: "explain [UPSTREAM]", Short: "Say why requests fail", Args: cobra.MaximumNArgs(1),
		Long: "Names the cause with a code (docs/causes.md), the evidence and where it was\n" +
			"read, what it is not, what came shortly before, and what to do. It takes\n" +
			"together what the registry says, what proxies were sent, what they report, what\n" +
			"the admins of some of them answer, and what happens when their health check is\n" +
			"tried from the server. What could not be asked is said.\n\n" +
			"Asked about a request (--host, --path, --header) it walks listeners and routes\n" +
			"as Envoy does, and explains the upstream that the request goes to. --log takes\n" +
			"a line of an access log: Wellspring's, Envoy's default, Istio's, or JSON; - is\n" +
			"stdin.\n\n" +
			"--at looks back: at the documents, the registry and the events of then, and at\n" +
			"what the server had found by itself. Nobody is asked.\n\n" +
			"A finding is certain where a proxy shows it, likely where it explains what is\nseen, possible where nothing speaks against it.\n\n" +
			"Exit status: 0 nothing was found, 79 something was.",
		Example: "  wellspring explain catalog\n  wellspring explain catalog --proxy edge-1\n" +
			"  wellspring explain catalog --at 14:10\n" +
			"  wellspring explain --host shop.example --path /cart -H 'x-user: anna'\n" +
			"  grep ' 503 ' access.log | tail -1 | wellspring explain --log -\n" +
			"  wellspring explain catalog -o json | jq -r '.findings[0].code'",
		RunE: func(cmd *cobra.Command, args []string) error {
			if q.log == "-" {
				text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 1<<20))
				if err != nil {
					return err
				}
				lines := strings.Split(strings.TrimSpace(string(text)), "\n")
				q.log = lines[len(lines)-1]
			}
			ask := url.Values{}
			for key, v := range map[string]string{"host": q.host, "path": q.path, "method": q.method, "proxy": q.proxy, "log": q.log, "upstream": strings.Join(args, "")} {
				if v != "" {
					ask.Set(key, v)
				}
			}
			if q.at != "" {
				at, err := moment(q.at, time.Now())
				if err != nil {
					return &exitError{exitUsage, "--at: " + err.Error()}
				}
				ask.Set("at", at.Format(time.RFC3339Nano))
			}
			if !ask.Has("upstream") && !ask.Has("host") && !ask.Has("log") {
				return &exitError{exitUsage, "name an upstream, or a request with --host and --path, or --log LINE; see wellspring explain --help"}
			}
			for _, h := range q.headers {
				ask.Add("header", h)
			}
			var e diagnose.Explanation
			if err := g.client().Get(cmd.Context(), "/v1/explain", ask, &e); err != nil {
				return err
			}
			var err error
			if g.output == "table" || g.output == "wide" {
				err = showExplanation(cmd.OutOrStdout(), e, g.output == "wide")
			} else {
				var codes []string
				for _, f := range e.Findings {
					if f.Strength >= diagnose.Likely {
						codes = append(codes, string(f.Code))
					}
				}
				err = g.print(cmd.OutOrStdout(), e, nil, codes)
			}
			if err == nil && e.Found() {
				return &exitError{code: exitFound}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.host, "host", "", "host of a request, as a client sends it")
	f.StringVar(&q.path, "path", "", "its path (default /)")
	f.StringVar(&q.method, "method", "", "its method (default GET)")
	f.StringArrayVarP(&q.headers, "header", "H", nil, "one of its headers, NAME: VALUE; may be repeated")
	f.StringVar(&q.proxy, "proxy", "", "only what this proxy was sent, reports and answers")
	f.StringVar(&q.at, "at", "", "at a time that is over: 2h (ago), 14:00, or RFC 3339")
	f.StringVar(&q.log, "log", "", "a line of an access log, or - to read it from stdin")
	return cmd
}

// showExplanation prints one for people, on one screen.
func showExplanation(w io.Writer, e diagnose.Explanation, wide bool) error {
	var b strings.Builder
	says := e.Says
	if !e.Since.IsZero() {
		says += fmt.Sprintf(", since %s (%s)", utc(e.Since), elapsed(e.At.Sub(e.Since)))
	}
	if e.Lost > 0 {
		says += fmt.Sprintf(", %d requests lost", e.Lost)
	}
	if e.Upstream == "" {
		fold(&b, "", says)
	} else {
		fold(&b, "upstream ", e.Upstream+": "+says)
	}
	for _, r := range e.Road {
		fold(&b, "  ", r)
	}
	showFindings(&b, e.Findings, wide)
	if len(e.Findings) == 0 {
		b.WriteString("nothing was found that speaks against it\n")
	}
	showWarnings(&b, e.Warnings, wide)
	showRuledOut(&b, e.RuledOut, wide)
	showBefore(&b, e)
	for i, x := range e.NotAsked {
		if i == 3 && !wide {
			fold(&b, "not asked   ", fmt.Sprintf("%d more with -o wide", len(e.NotAsked)-i))
			break
		}
		fold(&b, "not asked   ", x)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// showWarnings prints what is no outage yet.
func showWarnings(b *strings.Builder, all []diagnose.Finding, wide bool) {
	for _, f := range all {
		fold(b, "warning     ", fmt.Sprintf("%s %s: %s", f.Code, f.Title, f.Says))
		if wide {
			for _, line := range f.Evidence {
				fold(b, "  evidence  ", line)
			}
			fold(b, "  do        ", f.Next)
		}
	}
}

// showRuledOut prints what it is not: one cause of each letter, or all.
func showRuledOut(b *strings.Builder, ruled []diagnose.Ruled, wide bool) {
	var all []string
	seen := map[diagnose.Code]bool{}
	for _, x := range ruled {
		if letter := x.Code[:1]; wide || !seen[letter] {
			seen[letter] = true
			all = append(all, string(x.Code)+" "+x.By)
		}
	}
	if len(all) > 0 {
		fold(b, "ruled out   ", strings.Join(all, " · "))
	}
}

// showBefore prints what came shortly before; a revision that is a finding stands there.
func showBefore(b *strings.Builder, e diagnose.Explanation) {
	head := "before      "
	line := func(text string) {
		fold(b, head, text)
		head = strings.Repeat(" ", len(head))
	}
	for _, c := range e.Changes {
		if slices.ContainsFunc(e.Findings, func(f diagnose.Finding) bool {
			return f.Code == diagnose.K1 && strings.HasPrefix(f.Says, fmt.Sprintf("revision %d ", c.Revision))
		}) {
			continue
		}
		line(cut(fmt.Sprintf("%s revision %d by %s: %s", utc(c.Time), c.Revision, orDash(c.Author), strings.Join(c.Fields, ", "))))
	}
	for _, x := range e.Events {
		text := fmt.Sprintf("%s %s %s", utc(x.Time), x.Kind, orDash(x.Endpoint))
		if x.To != "" {
			text += " " + x.To
		}
		if x.Reason != "" {
			text += ": " + x.Reason
		}
		line(cut(text))
	}
}

// utc is a time as events and logs have it.
func utc(t time.Time) string { return t.UTC().Format("15:04:05") }
