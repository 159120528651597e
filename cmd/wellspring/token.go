package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/wellspring-xds/wellspring/pkg/access"
)

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "token NAME", Short: "Make a token for the admin API", Args: cobra.ExactArgs(1),
		Long: "Prints a new token, once, on stdout, and on stderr the line that belongs into\nthe server's admin.tokensFile: it holds the token's hash, not the token. NAME\nis the author of what is changed with it. The server reads the file again when\nit changes; to revoke a token, take its line out.",
		Example: "  wellspring token alice --role write > alice.token 2>> tokens\n" +
			"  wellspring serve --admin-tokens-file tokens\n  wellspring --token-file alice.token health",
	}
	role := cmd.Flags().String("role", string(access.Read), "read, or write, which includes it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *role != string(access.Read) && *role != string(access.Write) {
			return &exitError{exitUsage, fmt.Sprintf("--role %s: allowed are read and write", *role)}
		}
		token, line, err := access.NewToken(args[0], access.Role(*role))
		if err != nil {
			return &exitError{exitUsage, err.Error()}
		}
		fmt.Fprintln(cmd.OutOrStdout(), token)
		fmt.Fprintln(cmd.ErrOrStderr(), line)
		return nil
	}
	return cmd
}
