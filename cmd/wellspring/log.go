package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/wellspring-xds/wellspring/pkg/admin"
)

func logCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "log [LEVEL]", Short: "Show or set how much a running server logs", Args: cobra.MaximumNArgs(1),
		Long:    "Without LEVEL the level is shown; with debug, info, warn or error it is set,\nuntil the server starts again.",
		Example: "  wellspring log\n  wellspring log debug",
		RunE: func(cmd *cobra.Command, args []string) error {
			var out admin.Log
			method, in := http.MethodGet, any(nil)
			if len(args) == 1 {
				method, in = http.MethodPut, admin.Log{Level: args[0]}
			}
			if err := g.client().Call(cmd.Context(), method, "/v1/log", nil, in, &out); err != nil {
				return err
			}
			t := &table{head: []string{"LEVEL"}}
			t.add(out.Level)
			return g.print(cmd.OutOrStdout(), out, t, []string{out.Level})
		},
	}
}
