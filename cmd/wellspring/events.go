package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

func eventsCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "events", Short: "Show what happened", Args: cobra.NoArgs,
		Long:    "Shows the last things that happened; with --since or --until as they are on\ndisk, from before a restart too. `events add` tells of something from outside.",
		Example: "  wellspring events --limit 50\n  wellspring events --watch\n  wellspring events --since 2h\n  wellspring events --since 14:00 --until 14:30\n  wellspring events add deploy \"catalog v1.2.3\" --upstream catalog",
	}
	since := cmd.Flags().String("since", "", "from a time on: 2h (ago), 14:00, or RFC 3339")
	until := cmd.Flags().String("until", "", "up to a time, written alike")
	watch := cmd.Flags().BoolP("watch", "w", false, "go on showing events until interrupted")
	limit := cmd.Flags().Int("limit", 20, "most past events that are shown")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *limit < 1 || *limit > 10_000 {
			return &exitError{exitUsage, fmt.Sprintf("--limit %d: 1 to 10000 are taken", *limit)}
		}
		q := url.Values{"limit": {fmt.Sprint(*limit)}}
		for name, text := range map[string]string{"since": *since, "until": *until} {
			if text == "" {
				continue
			}
			t, err := moment(text, time.Now())
			if err != nil {
				return &exitError{exitUsage, fmt.Sprintf("--%s: %s", name, err)}
			}
			q.Set(name, t.Format(time.RFC3339))
			if !cmd.Flags().Changed("limit") {
				q.Set("limit", "10000")
			}
		}
		if *watch && len(q) > 1 {
			return &exitError{exitUsage, "--watch is from now on: leave --since and --until out"}
		}
		var page admin.Events
		if err := g.client().Get(cmd.Context(), "/v1/events", q, &page); err != nil {
			return err
		}
		if len(page.Items) == 0 && (*since != "" || *until != "") {
			_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "nothing was recorded in that time")
		}
		last := ""
		show := func(e model.Event) error {
			last = e.ID
			t := &table{}
			t.add(eventLine(e))
			if g.output == "table" || g.output == "wide" {
				line := t.rows[0][0]
				if g.output == "table" {
					line = cut(line)
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), line)
				return err
			}
			return g.print(cmd.OutOrStdout(), e, t, []string{e.ID})
		}
		if !*watch && (g.output == "json" || g.output == "yaml") {
			return g.print(cmd.OutOrStdout(), page, nil, nil)
		}
		for _, e := range page.Items {
			if err := show(e); err != nil {
				return err
			}
		}
		for *watch {
			var err error
			last, err = g.client().Watch(cmd.Context(), last, show)
			if cmd.Context().Err() != nil {
				return nil
			}
			if err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "the stream broke and is opened again: "+err.Error())
			}
			select {
			case <-cmd.Context().Done():
				return nil
			case <-time.After(time.Second):
			}
		}
		return nil
	}
	cmd.AddCommand(addEventCommand(g))
	return cmd
}

func addEventCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "add KIND MESSAGE", Short: "Tell of something from outside", Args: cobra.ExactArgs(2),
		Long:    "Keeps an event beside those of the control plane, with who told it: what changed\nbefore an outage is looked for among them.",
		Example: "  wellspring events add deploy \"catalog v1.2.3\" --upstream catalog\n  wellspring events add scale \"3 to 10 instances\" --upstream catalog",
	}
	upstream := cmd.Flags().String("upstream", "", "the upstream that it is about")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var e model.Event
		in := admin.PostedEvent{Kind: args[0], Message: args[1], Upstream: *upstream}
		if err := g.client().Call(cmd.Context(), http.MethodPost, "/v1/events", nil, in, &e); err != nil {
			return err
		}
		t := &table{}
		t.add(eventLine(e))
		if g.output == "table" || g.output == "wide" {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), cut(t.rows[0][0]))
			return err
		}
		return g.print(cmd.OutOrStdout(), e, t, []string{e.ID})
	}
	return cmd
}

// moment reads a time: how long ago, a time of today, or RFC 3339.
func moment(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago.Abs()), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"15:04", time.TimeOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			y, m, d := now.Date()
			at := time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, now.Location())
			if at.After(now) { // it was yesterday
				at = at.AddDate(0, 0, -1)
			}
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time; write 2h, 14:00 or 2026-11-23T14:00:00Z", text)
}

func eventLine(e model.Event) string {
	at := "15:04:05.000"
	if time.Since(e.Time) > 20*time.Hour { // of another day
		at = "2006-01-02 15:04:05"
	}
	parts := []string{e.Time.Local().Format(at), e.Kind, e.Subject.Name}
	if e.Endpoint != "" {
		parts = append(parts, e.Endpoint)
	}
	if e.Proxy != "" && e.Proxy != e.Subject.Name {
		parts = append(parts, "proxy "+e.Proxy)
	}
	switch {
	case e.From != "" && e.To != "":
		parts = append(parts, e.From+" → "+e.To)
	case e.To != "":
		parts = append(parts, "→ "+e.To)
	case e.From != "":
		parts = append(parts, e.From+" →")
	}
	if e.Actor != "" {
		parts = append(parts, "by "+e.Actor)
	}
	if e.Reason != "" {
		parts = append(parts, "("+strings.ReplaceAll(e.Reason, "\n", " ")+")")
	}
	return strings.Join(parts, "  ")
}
