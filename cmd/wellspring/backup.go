package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/wellspring-xds/wellspring/pkg/store"
)

func backupCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "Copy a running server's store to a file", Args: cobra.ExactArgs(1),
		Long:    "Copies the whole store, history included, while the server runs: as it is at\none moment. The server verifies the copy before it sends it, and the file is\nverified again here before it gets its name. See wellspring load.",
		Example: "  wellspring backup wellspring-$(date +%F).db\n  wellspring load wellspring-2026-11-22.db --data-dir ./elsewhere",
		RunE: func(cmd *cobra.Command, args []string) error {
			path := args[0]
			if _, err := os.Stat(path); err == nil {
				return &exitError{exitFailed, path + " exists already; choose another name"}
			}
			part := path + ".part"
			out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
			if err != nil {
				return err
			}
			defer os.Remove(part) //nolint:errcheck // it has its name by then, or is not wanted
			header, err := g.client().Download(cmd.Context(), "/v1/backup", out)
			if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
				return err
			}
			if err := verifier()(cmd.Context(), part); err != nil {
				return fmt.Errorf("what came is not a whole store: %w", err)
			}
			if err := os.Rename(part, path); err != nil {
				return err
			}
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: revision %s, %d bytes, verified\n", filepath.Base(path), header.Get("Wellspring-Revision"), info.Size())
			return nil
		},
	}
}

func loadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "load FILE --data-dir DIR", Short: "Put a backup into a data directory without a store", Args: cobra.ExactArgs(1),
		Long:    "Verifies a backup and puts it into a data directory that has no store, for a\nserver to be started on. The file itself stays as it is.",
		Example: "  wellspring load wellspring-2026-11-22.db --data-dir ./wellspring-data\n  wellspring serve --data-dir ./wellspring-data",
	}
	dir := cmd.Flags().String("data-dir", "", "the data directory (required)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *dir == "" {
			return &exitError{exitUsage, "--data-dir is needed; see wellspring load --help"}
		}
		if err := store.Load(cmd.Context(), store.Config{Dir: *dir, Verify: verifier()}, args[0]); err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "loaded; start with `wellspring serve --data-dir %s`\n", *dir)
		return nil
	}
	return cmd
}
