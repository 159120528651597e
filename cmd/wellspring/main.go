// Command wellspring is the control plane and its client.
//
// `wellspring serve` is the server; every other verb calls its admin API.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/admin/client"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Exit codes, as sysexits has them where it has one.
const (
	exitFailed      = 1  // could not do it
	exitUsage       = 64 // wrong usage
	exitData        = 65 // bad data
	exitUnreachable = 69 // no server
	exitFound       = 79 // ran, and found problems
)

// exitError carries a code; its text may be empty when all was said.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string) int {
	root := newRoot() //nolint:contextcheck // cobra hands ctx to each verb
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code, text := explain(err)
	if text != "" {
		fmt.Fprintln(os.Stderr, "wellspring: "+text)
	}
	return code
}

// explain turns an error into an exit code and words.
func explain(err error) (int, string) {
	var exit *exitError
	var problem *admin.Error
	var faults spec.Faults
	var unreachable *client.UnreachableError
	var address *client.AddressError
	switch {
	case errors.As(err, &exit):
		return exit.code, exit.text
	case errors.As(err, &address):
		return exitUsage, address.Error()
	case errors.As(err, &unreachable):
		return exitUnreachable, unreachable.Error()
	case errors.As(err, &faults):
		return exitData, err.Error()
	case errors.As(err, &problem):
		if problem.Status == 422 {
			return exitData, problem.Error()
		}
		return exitFailed, problem.Error()
	case strings.HasPrefix(err.Error(), "unknown "), strings.Contains(err.Error(), "arg(s)"), strings.HasPrefix(err.Error(), "invalid argument"),
		strings.HasPrefix(err.Error(), "flag needs"), strings.HasPrefix(err.Error(), "required flag"), strings.HasPrefix(err.Error(), "bad flag"):
		return exitUsage, err.Error() + "; see wellspring --help"
	}
	return exitFailed, err.Error()
}

// global is what every client verb takes.
type global struct {
	server    string
	output    string
	tokenFile string
	tls       struct{ ca, cert, key string }
	made      *client.Client
}

// tokenVariable holds a token: never a flag's value, which every user of the
// machine can read.
const tokenVariable = "WELLSPRING_TOKEN"

// client calls the server that the flags name.
func (g *global) client() *client.Client {
	if g.made == nil { // once: a file with a token may be a pipe
		g.made = g.newClient()
	}
	return g.made
}

func (g *global) newClient() *client.Client {
	return client.New(client.Config{Server: g.server, Token: os.Getenv(tokenVariable), TokenFile: g.tokenFile, CA: g.tls.ca, Cert: g.tls.cert, Key: g.tls.key})
}

func newRoot() *cobra.Command {
	g := &global{}
	root := &cobra.Command{
		Use:           "wellspring",
		Short:         "An Envoy control plane that knows why there is no healthy upstream",
		Long:          "Wellspring reads upstreams from Consul and from its own store, streams them to\nEnvoys over xDS, and says how they do.",
		Example:       "  wellspring serve --data-dir ./data\n  wellspring apply -f shop.yaml\n  wellspring health --watch",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := unheeded(cmd, g.output); err != nil {
			return err
		}
		if !slices.Contains([]string{"table", "wide", "json", "yaml", "name"}, g.output) {
			return &exitError{exitUsage, fmt.Sprintf("-o %s: allowed are table, wide, json, yaml and name", g.output)}
		}
		return nil
	}
	for _, f := range []struct {
		to                   *string
		name, variable, with string
		doc                  string
	}{
		{&g.server, "server", "WELLSPRING_SERVER", defaultAdminListen, "admin address of the server: HOST:PORT, https://… or unix:///path"},
		{&g.tokenFile, "token-file", "WELLSPRING_TOKEN_FILE", "", "file with the token to send; or the token itself in " + tokenVariable},
		{&g.tls.ca, "ca", "WELLSPRING_CA", "", "file with the authority of the server's certificate"},
		{&g.tls.cert, "cert", "WELLSPRING_CERT", "", "file with the certificate to present"},
		{&g.tls.key, "key", "WELLSPRING_KEY", "", "file with its key"},
	} {
		root.PersistentFlags().StringVar(f.to, f.name, cmp.Or(os.Getenv(f.variable), f.with), f.doc+" ("+f.variable+")")
	}
	root.PersistentFlags().StringVarP(&g.output, "output", "o", "table", "table, wide, json, yaml or name")
	root.AddCommand(
		serveCommand(), applyCommand(g), getCommand(g), deleteCommand(g), lintCommand(g), diffCommand(g), exportCommand(g),
		historyCommand(g), restoreCommand(g), healthCommand(g), explainCommand(g), findingsCommand(g), doctorCommand(g), sourcesCommand(g), proxiesCommand(g), xdsCommand(g),
		eventsCommand(g), bundleCommand(g), drainCommand(g), enableCommand(g), bootstrapCommand(g), configCommand(g), tokenCommand(), logCommand(g), backupCommand(g), loadCommand(), versionCommand(g), verifyCommand(), referenceCommand(),
	)
	root.SetUsageTemplate(strings.NewReplacer(
		".FlagUsages |", fmt.Sprintf(".FlagUsagesWrapped %d |", width),
		`Use "{{.CommandPath}} [command] --help" for more information about a command.`, "See {{.CommandPath}} COMMAND --help.",
	).Replace(root.UsageTemplate()))
	return root
}

// heedless verbs talk to no server; by what they print.
var heedless = map[string]prints{"serve": nothing, "completion": nothing, "bootstrap": data, "config": data, "token": nothing, "load": nothing, "doctor": everything}

// prints is which forms of -o a verb has.
type prints int

const (
	nothing prints = iota
	data           // YAML, and the same as JSON
	everything
)

// unheeded refuses a flag that every verb has and this one could only ignore.
func unheeded(cmd *cobra.Command, output string) error {
	top := cmd
	for top.HasParent() && top.Parent().HasParent() {
		top = top.Parent()
	}
	has, ok := heedless[top.Name()]
	if !ok {
		return nil
	}
	for _, flag := range []string{"server", "token-file", "ca", "cert", "key"} {
		if cmd.Flags().Changed(flag) {
			return &exitError{exitUsage, fmt.Sprintf("%s talks to no server: leave --%s out", top.Name(), flag)}
		}
	}
	if cmd.Flags().Changed("output") && has != everything && (has == nothing || output != "yaml" && output != "json") {
		allowed := "leave -o out"
		if has == data {
			allowed = "allowed are yaml and json"
		}
		return &exitError{exitUsage, fmt.Sprintf("-o %s: %s", output, allowed)}
	}
	return nil
}
