package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

func bootstrapCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "bootstrap --node-id ID --group GROUP", Short: "Print the file that an Envoy is started with", Args: cobra.NoArgs,
		Long: "Prints a bootstrap as YAML: who the proxy is, where its control plane is, and\nwhere its own admin listens. With --grpc it is JSON for a program that is an xDS\nclient itself.",
		Example: "  wellspring bootstrap --node-id edge-1 --group edge --envoy-version 1.40 \\\n    > edge-1.yaml\n  envoy -c edge-1.yaml\n" +
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
	r := &bootstrap.Telemetry{}
	f.StringSliceVar(&r.Addresses, "telemetry", nil, "addresses of the control plane that it reports to; default those of --xds, with port 18001")
	level := f.String("telemetry-level", string(model.TelemetryEndpoints), "the most that it can be asked to report: off, failures, upstreams, endpoints")
	f.DurationVar(&r.Interval, "telemetry-interval", 0, "time between reports; default 5s with --envoy-version 1.40, else 20s")
	f.StringVar(&r.Key, "report-key", "", "what its reports are known by, a secret; default a new one")
	f.StringVar(&c.Envoy, "envoy-version", "", "version that reads it; from 1.40 on reports are compressed and come each 5s, and no older one starts with that; default any from 1.37")
	f.StringVar(&c.Admin, "admin", "127.0.0.1:9901", "its own admin: loopback IP:PORT, or the path of a unix socket")
	f.DurationVar(&c.DrainTime, "drain-time", 600*time.Second, "what Envoy is started with as --drain-time-s")
	f.Int64Var(&c.MaxConnections, "max-connections", 50_000, "most connections from clients")
	f.Uint64Var(&c.MaxHeapBytes, "max-heap-bytes", 0, "heap at which requests are refused; 0 is no limit")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if c.NodeID == "" || c.Group == "" {
			return &exitError{exitUsage, "--node-id and --group are needed; see wellspring bootstrap --help"}
		}
		if *t != (bootstrap.TLS{}) {
			c.TLS = t
		}
		if *program {
			for _, flag := range []string{"admin", "drain-time", "max-connections", "max-heap-bytes", "xds-server-name", "xds-secrets-dir", "telemetry", "telemetry-level", "telemetry-interval", "report-key", "envoy-version", "output"} {
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
		if c.Telemetry, err = reporting(r, *level, c.XDS, cmd.ErrOrStderr()); err != nil {
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

// telemetryPort is where a control plane takes reports unless it is told otherwise.
const telemetryPort = "18001"

// reporting completes what a proxy reports; nil is nothing.
func reporting(r *bootstrap.Telemetry, level string, xds []string, warn io.Writer) (*bootstrap.Telemetry, error) {
	if r.Level = model.Telemetry(level); !slices.Contains(model.TelemetryLevels, r.Level) {
		return nil, &exitError{exitUsage, fmt.Sprintf("--telemetry-level %q is none of off, failures, upstreams, endpoints", level)}
	}
	if r.Level == model.TelemetryOff {
		return nil, nil
	}
	if len(r.Addresses) == 0 {
		for _, a := range xds {
			if host, _, err := net.SplitHostPort(a); err == nil && !strings.HasPrefix(a, "unix://") {
				r.Addresses = append(r.Addresses, net.JoinHostPort(host, telemetryPort))
			}
		}
	}
	if len(r.Addresses) == 0 {
		_, _ = fmt.Fprintln(warn, "it reports nothing: where to does not follow from a socket; say --telemetry, or --telemetry-level off")
		return nil, nil
	}
	if len(r.Addresses) > 1 {
		_, _ = fmt.Fprintf(warn, "it reports to each of %s in turn, and a server counts only what comes of proxies that are connected to it: with several, say the one of --telemetry that each proxy is to report to\n", strings.Join(r.Addresses, ", "))
	}
	if r.Key == "" {
		r.Key = rand.Text()
	}
	return r, nil
}
