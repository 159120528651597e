package main

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

func sourcesCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "sources", Short: "Show where services come from and whether that answers", Args: cobra.NoArgs,
		Long:    "FRESHNESS is how long a change takes from the source to the proxies, where the\nserver measures it (freshness.interval).\n\nExit status: 0 every source answers and what it says reaches the proxies, 79 one\ndoes not.",
		Example: "  wellspring sources",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out struct {
				Items []admin.Source `json:"items"`
			}
			if err := g.client().Get(cmd.Context(), "/v1/sources", nil, &out); err != nil {
				return err
			}
			t := &table{head: []string{"SOURCE", "DATACENTER", "STATE", "SINCE", "SERVICES", "UNKNOWN", "FRESHNESS", "ERROR"}}
			var names []string
			fine := true
			for _, s := range out.Items {
				fine = fine && s.IsFine()
				names = append(names, s.Name)
				t.add(s.Name, orDash(s.Datacenter), s.State, ago(s.Since), fmt.Sprint(s.Services), fmt.Sprint(s.Unknown), freshnessOf(s), orDash(cmp.Or(s.Error, whyStale(s))))
			}
			if err := g.print(cmd.OutOrStdout(), out, t, names); err != nil {
				return err
			}
			if !fine {
				return &exitError{exitFound, ""}
			}
			return nil
		},
	}
}

// freshnessOf is how long a change takes from the source to the proxies.
func freshnessOf(s admin.Source) string {
	if s.Freshness == nil {
		return "-"
	}
	took := s.Freshness.Acknowledged.Duration()
	if s.Freshness.Stale {
		return "stale " + took.Round(time.Second).String()
	}
	return took.Round(time.Millisecond).String()
}

func whyStale(s admin.Source) string {
	if s.Freshness == nil {
		return ""
	}
	return s.Freshness.Why
}

func proxiesCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "proxies", Short: "Show connected, refused and gone proxies", Args: cobra.NoArgs,
		Long:    "Shows who is connected, whose streams or reports were refused in the last ten\nminutes, and who went away in the last hour.\n\nExit status: 0 every proxy has all that it was sent, 79 one refused something\nor was refused.",
		Example: "  wellspring proxies\n  wellspring proxies -o wide",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out admin.Proxies
			if err := g.client().Get(cmd.Context(), "/v1/proxies", nil, &out); err != nil {
				return err
			}
			t := &table{head: []string{"PROXY", "GROUP", "VERSION", "CONNECTED", "STATE", "DETAIL"}}
			var names []string
			fine := len(out.Refused) == 0
			for _, p := range out.Items {
				state, detail := proxyState(p)
				fine = fine && state != "refused"
				names = append(names, p.ID)
				t.add(p.ID, p.Group, orDash(p.Version), ago(p.Connected), state, orDash(detail))
			}
			for _, r := range out.Refused {
				t.add(orDash(r.Proxy.ID), orDash(r.Proxy.Group), orDash(r.Proxy.Version), ago(r.Time)+" ago", "refused", r.Why)
			}
			for _, p := range out.Gone {
				t.add(p.ID, orDash(p.Group), orDash(p.Version), "-", "gone", "for "+ago(p.Gone))
			}
			for _, r := range out.RefusedReports {
				fine = false
				t.add(orDash(r.Node), "-", "-", ago(r.Last)+" ago", "refused", fmt.Sprintf("%d reports from %s: %s", r.Count, r.Peer, r.Why))
			}
			if len(t.rows) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "no proxy is connected; `wellspring bootstrap --help` says how to start one")
			}
			if err := g.print(cmd.OutOrStdout(), out, t, names); err != nil {
				return err
			}
			if !fine {
				return &exitError{exitFound, ""}
			}
			return nil
		},
	}
}

// proxyState sums a proxy's deliveries up.
func proxyState(p admin.ConnectedProxy) (state, detail string) {
	var parked, waiting, open []string
	for _, d := range p.Delivery {
		for _, x := range d.Parked {
			parked = append(parked, x.Name)
		}
		for _, x := range d.Waiting {
			waiting = append(waiting, fmt.Sprintf("%s (%s)", x.Name, x.Why))
		}
		if d.Open > 0 {
			open = append(open, fmt.Sprintf("%s for %s", d.Type, ago(d.OpenSince)))
		}
	}
	notes := []string{}
	if p.Duplicate {
		notes = append(notes, "another stream has this id, from "+p.Peer)
	}
	if !p.Supported {
		notes = append(notes, "its Envoy is older than the supported minors")
	}
	if !p.Unsent.IsZero() && time.Since(p.Unsent) > time.Second {
		notes = append(notes, "it has read nothing for "+ago(p.Unsent))
	}
	if r := p.Reports; r != nil {
		switch r.State {
		case fleet.ReportsNever:
			notes = append(notes, "no report ever came: can it reach the telemetry listener?")
		case fleet.ReportsSilent, fleet.ReportsAsked:
			if r.Last.IsZero() {
				notes = append(notes, "no report ever came; its admin is asked")
				break
			}
			notes = append(notes, "no report for "+ago(r.Last))
		case fleet.ReportsUnverified:
			notes = append(notes, "reports count for nobody: "+r.Why)
		}
	}
	switch {
	case len(parked) > 0:
		return "refused", strings.Join(append(notes, "it refused "+strings.Join(parked, ", ")+": wellspring xds "+p.ID), "; ")
	case len(waiting) > 0:
		return "waiting", strings.Join(append(notes, strings.Join(waiting, ", ")), "; ")
	case len(open) > 0:
		return "open", strings.Join(append(notes, "no answer yet: "+strings.Join(open, ", ")), "; ")
	}
	return "current", strings.Join(notes, "; ")
}

func xdsCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "xds PROXY", Short: "Show what a proxy was sent and holds", Args: cobra.ExactArgs(1),
		Long:    "Shows each resource with its version and document, and what the proxy refused in\nits own words. -o json has the resources as Envoy's JSON.",
		Example: "  wellspring xds edge-1\n  wellspring xds edge-1 -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			var h model.Holding
			if err := g.client().Get(cmd.Context(), "/v1/proxies/"+url.PathEscape(args[0])+"/xds", nil, &h); err != nil {
				return err
			}
			t := &table{head: []string{"TYPE", "NAME", "VERSION", "DOCUMENT"}}
			var names []string
			for _, r := range h.Resources {
				t.add(r.Type, r.Name, r.Version, orDash(r.Document))
				names = append(names, r.Type+"/"+r.Name)
			}
			if err := g.print(cmd.OutOrStdout(), h, t, names); err != nil {
				return err
			}
			found := false
			for _, d := range h.Delivery {
				for _, p := range d.Parked {
					found = true
					fmt.Fprintf(cmd.ErrOrStderr(), "refused %s %q (%s, version %s): %s\n", d.Type, p.Name, p.Document, p.Version, p.Message)
				}
				for _, x := range d.Waiting {
					fmt.Fprintf(cmd.ErrOrStderr(), "waiting %s %q for %s: %s\n", d.Type, x.Name, ago(x.Since), x.Why)
				}
			}
			if found {
				return &exitError{exitFound, ""}
			}
			return nil
		},
	}
}

func versionCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program", Args: cobra.NoArgs,
		Example: "  wellspring version -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := programVersion()
			t := &table{head: []string{"VERSION", "GO", "COMMIT"}}
			t.add(v.Version, v.Go, orDash(v.Commit))
			return g.print(cmd.OutOrStdout(), v, t, []string{v.Version})
		},
	}
}
