package main

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

func drainCommand(g *global) *cobra.Command {
	return overrideCommand(g, model.OverrideDrain, "Take no new requests to an endpoint, whatever its source says",
		"Sends the endpoint as draining: requests under way finish, no new ones come. It\nholds until its time is over or it is ended, through restarts, and goes before\nwhat the registry says. Without arguments the overrides in force are listed.")
}

func enableCommand(g *global) *cobra.Command {
	return overrideCommand(g, model.OverrideEnable, "Use an endpoint, whatever its source says of its health",
		"Sends the endpoint as healthy though its registry says otherwise; a proxy's own\ncheck still counts. It holds until its time is over or it is ended. Without\narguments the overrides in force are listed.")
}

func overrideCommand(g *global, action model.OverrideAction, short, long string) *cobra.Command {
	verb := string(action)
	cmd := &cobra.Command{
		Use: verb + " [UPSTREAM ENDPOINT]", Short: short, Long: long,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return &exitError{exitUsage, fmt.Sprintf("name an upstream and an endpoint (its id or address), or neither; see wellspring %s --help", verb)}
			}
			return nil
		},
		Example: fmt.Sprintf("  wellspring %[1]s catalog 10.2.0.7:8080 --reason 'new disk' --for 2h\n  wellspring %[1]s catalog node1/catalog-2 --end\n  wellspring %[1]s", verb),
	}
	reason := cmd.Flags().String("reason", "", "why, for whoever sees it (required)")
	how := cmd.Flags().Duration("for", time.Hour, "how long; 0s is until it is ended")
	end := cmd.Flags().Bool("end", false, "end the endpoint's override, drain or enable: go by the source again")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0 && (*end || cmd.Flags().Changed("reason") || cmd.Flags().Changed("for")):
			return &exitError{exitUsage, "name an upstream and an endpoint; without them the overrides are listed"}
		case len(args) == 0:
			return g.listOverrides(cmd)
		case *end && (cmd.Flags().Changed("reason") || cmd.Flags().Changed("for")):
			return &exitError{exitUsage, "--end takes neither --reason nor --for"}
		case *end:
			q := url.Values{"upstream": {args[0]}, "endpoint": {args[1]}}
			var o model.Override
			if err := g.client().Call(cmd.Context(), http.MethodDelete, "/v1/overrides", q, nil, &o); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s of %s: ended\n", o.Upstream, o.Endpoint)
			return nil
		case *reason == "":
			return &exitError{exitUsage, "--reason is needed: who finds the endpoint so will ask"}
		case *how < 0:
			return &exitError{exitUsage, fmt.Sprintf("--for %s is negative", *how)}
		}
		in := admin.Overriding{Upstream: args[0], Endpoint: args[1], Action: action, Reason: *reason}
		if *how > 0 {
			in.Until = time.Now().Add(*how).UTC()
		}
		var o model.Override
		if err := g.client().Call(cmd.Context(), http.MethodPost, "/v1/overrides", nil, in, &o); err != nil {
			return err
		}
		return g.printOverrides(cmd, []model.Override{o})
	}
	return cmd
}

func (g *global) listOverrides(cmd *cobra.Command) error {
	var out struct {
		Items []model.Override `json:"items"`
	}
	if err := g.client().Get(cmd.Context(), "/v1/overrides", nil, &out); err != nil {
		return err
	}
	if err := g.printOverrides(cmd, out.Items); err != nil {
		return err
	}
	if len(out.Items) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "no override is in force")
	}
	return nil
}

func (g *global) printOverrides(cmd *cobra.Command, all []model.Override) error {
	t := &table{head: []string{"UPSTREAM", "ENDPOINT", "ACTION", "UNTIL", "BY", "REASON"}}
	var names []string
	for _, o := range all {
		until := "ended"
		if !o.Until.IsZero() {
			until = o.Until.Local().Format("15:04:05 Jan 2")
		}
		t.add(o.Upstream, o.Endpoint, string(o.Action), until, o.Actor, o.Reason)
		names = append(names, o.Upstream+"/"+o.Endpoint)
	}
	return g.print(cmd.OutOrStdout(), all, t, names)
}
