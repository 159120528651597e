package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
)

func bootstrapCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "bootstrap --node-id ID --group GROUP", Short: "Print the file that an Envoy is started with", Args: cobra.NoArgs,
		Long: "Prints a bootstrap as YAML: who the proxy is, where its control plane is, and\nwhere its own admin listens. With --grpc it is JSON for a program that is an xDS\nclient itself.",
		Example: "  wellspring bootstrap --node-id edge-1 --group edge > edge-1.yaml\n  envoy -c edge-1.yaml\n" +
			"  wellspring bootstrap --node-id edge-1 --group edge --zone a \\\n    --xds 10.0.0.1:18000,10.0.0.2:18000 --admin /run/envoy/admin.sock\n" +
			"  wellspring bootstrap --node-id catalog-1 --group catalog --drain-time 20s \\\n    > catalog-1.yaml\n" +
			"  envoy -c catalog-1.yaml --drain-time-s 20 --drain-strategy immediate\n" +
			"  wellspring bootstrap --node-id edge-1 --group edge --xds xds.internal:18000 \\\n    --xds-ca /etc/envoy/ca.pem --xds-cert /etc/envoy/edge-1.pem \\\n" +
			"    --xds-key /etc/envoy/edge-1-key.pem --xds-secrets-dir /etc/envoy",
	}
	var c bootstrap.Config
	f := cmd.Flags()
	f.StringVar(&c.NodeID, "node-id", "", "id of the proxy, unique in the fleet (required)")
	f.StringVar(&c.Group, "group", "", "name of its Group document (required)")
	f.StringVar(&c.Zone, "zone", "", "zone that it runs in")
	f.StringSliceVar(&c.XDS, "xds", []string{"127.0.0.1:18000"}, "addresses of the control plane")
	program := f.Bool("grpc", false, "for a program that is an xDS client itself (gRPC's own): JSON for GRPC_XDS_BOOTSTRAP")
	t := &bootstrap.TLS{}
	f.StringVar(&t.CA, "xds-ca", "", "TLS: file with the authority of the control plane's certificate")
	f.StringVar(&t.Cert, "xds-cert", "", "TLS: file with the proxy's own certificate")
	f.StringVar(&t.Key, "xds-key", "", "TLS: file with its key")
	f.StringVar(&t.ServerName, "xds-server-name", "", "TLS: name in the control plane's certificate; default the first address")
	f.StringVar(&t.SecretsDir, "xds-secrets-dir", "", "TLS: write files into this folder too, by which Envoy reads the others again when they are replaced")
	f.StringVar(&c.Admin, "admin", "127.0.0.1:9901", "its own admin: loopback IP:PORT, or the path of a unix socket")
	f.DurationVar(&c.DrainTime, "drain-time", 600*time.Second, "what Envoy is started with as --drain-time-s")
	f.Int64Var(&c.MaxConnections, "max-connections", 50_000, "most connections from clients")
	f.Uint64Var(&c.MaxHeapBytes, "max-heap-bytes", 0, "heap at which requests are refused; 0 is no limit")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if c.NodeID == "" || c.Group == "" {
			return &exitError{exitUsage, "--node-id and --group are needed; see wellspring bootstrap --help"}
		}
		if *t != (bootstrap.TLS{}) {
			c.TLS = t
		}
		if *program {
			for _, flag := range []string{"admin", "drain-time", "max-connections", "max-heap-bytes", "xds-server-name", "xds-secrets-dir", "output"} {
				if cmd.Flags().Changed(flag) {
					return &exitError{exitUsage, fmt.Sprintf("--%s means nothing with --grpc: leave it out", flag)}
				}
			}
			text, err := bootstrap.GRPC(c)
			if err != nil {
				return &exitError{exitUsage, err.Error()}
			}
			_, err = cmd.OutOrStdout().Write(append(text, '\n'))
			return err
		}
		b, err := bootstrap.New(c)
		if err != nil {
			return &exitError{exitUsage, err.Error()}
		}
		if t.SecretsDir != "" {
			files, err := bootstrap.Secrets(*t)
			if err != nil {
				return err
			}
			for name, text := range files { // paths, not secrets: whoever Envoy runs as reads them
				if err := os.WriteFile(filepath.Join(t.SecretsDir, name), text, 0o644); err != nil {
					return err
				}
			}
		}
		say := bootstrap.YAML
		if g.output == "json" {
			say = bootstrap.JSON
		}
		text, err := say(b)
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(append(text, '\n'))
		return err
	}
	return cmd
}
