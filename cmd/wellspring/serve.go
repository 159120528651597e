package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/discovery/consul"
	"github.com/wellspring-xds/wellspring/discovery/local"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/certificate"
	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/envoyadmin"
	"github.com/wellspring-xds/wellspring/pkg/events"
	"github.com/wellspring-xds/wellspring/pkg/evidence"
	"github.com/wellspring-xds/wellspring/pkg/files"
	"github.com/wellspring-xds/wellspring/pkg/findings"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/freshness"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/hook"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/notify"
	"github.com/wellspring-xds/wellspring/pkg/outbound"
	"github.com/wellspring-xds/wellspring/pkg/probe"
	"github.com/wellspring-xds/wellspring/pkg/recorder"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/pkg/store"
	"github.com/wellspring-xds/wellspring/xds"
	"github.com/wellspring-xds/wellspring/xds/delivery"
	_ "github.com/wellspring-xds/wellspring/xds/extensions"
	"github.com/wellspring-xds/wellspring/xds/server"
	"github.com/wellspring-xds/wellspring/xds/telemetry"
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the control plane", Args: cobra.NoArgs,
		Long:    "Runs the control plane until it is interrupted. Its real addresses are written\nto DATA/addresses.json. Each key of the configuration file has a flag and a\nvariable WELLSPRING_…; flag > environment > file > default.",
		Example: "  wellspring serve\n  wellspring serve --data-dir /var/lib/wellspring --consul 127.0.0.1:8500\n  wellspring serve -c wellspring.yaml",
	}
	read := configFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := read()
		if err != nil {
			return err
		}
		return serve(cmd.Context(), c, cmd.ErrOrStderr())
	}
	return cmd
}

// serve wires the parts in the order in which data flows, and runs them until ctx
// ends or one fails.
func serve(ctx context.Context, c *config, logTo io.Writer) error {
	log, level := logger(c.Log, logTo)

	// 1. listeners first: a port that is taken is said before anything is opened
	xdsListener, err := listen("xds.listen", c.XDS.Listen)
	if err != nil {
		return err
	}
	defer xdsListener.Close() //nolint:errcheck // closed by its server before
	telemetryListener, err := listen("telemetry.listen", c.Telemetry.Listen)
	if err != nil {
		return err
	}
	defer telemetryListener.Close() //nolint:errcheck // closed by its server before
	adminListener, err := listen("admin.listen", c.Admin.Listen)
	if err != nil {
		return err
	}
	defer adminListener.Close() //nolint:errcheck // closed by its server before

	// 2. what operators declared
	st, err := store.Open(ctx, store.Config{
		Dir: c.DataDir, Logger: log, Verify: verifier(), History: store.History{Keep: int(c.History.Keep), MaxAge: c.History.MaxAge.D()},
	})
	if err != nil {
		return err
	}
	defer func() {
		if err := st.Close(); err != nil {
			log.Error("store not closed", "err", err)
		}
	}()

	log.Debug("store opened", "revision", st.State().Revision)
	happened := events.New(time.Now)
	recorded, err := recorder.Open(recorder.Config{
		Dir: filepath.Join(c.DataDir, "events"), Log: happened, MaxBytes: int64(c.Events.MaxMegabytes) << 20, MaxAge: c.Events.MaxAge.D(), Logger: log,
	})
	if err != nil {
		return err
	}

	// 3. who may come in
	certificates := certificate.New(certificate.Config{Dir: absolute(c.Secrets.Dir), Logger: log, Emit: happened.Emit})
	doors, err := newDoors(c, certificates, happened, log)
	if err != nil {
		return &exitError{exitData, err.Error()}
	}

	// 4. who exists
	canary := local.NewCanary()
	sources := map[string]discovery.Source{spec.SourceLocal: local.Source{Store: declared{st}, Canary: canary}}
	registries := map[string]discovery.Registry{spec.SourceLocal: canary}
	importers := map[string]discovery.Importer{}
	for _, s := range c.Sources {
		src, err := consul.New(consulSource(s, log))
		if err != nil {
			return &exitError{exitData, err.Error()}
		}
		sources[s.Name] = src
		if s.Import != string(consul.ImportNone) {
			importers[s.Name] = src
		}
		switch {
		case s.Canary != canaryOn:
		case s.Consul.Datacenter != "": // an agent registers in its own
			log.Info("no canary in a source that reads one datacenter by its configuration", "source", s.Name, "datacenter", s.Consul.Datacenter)
		default:
			registries[s.Name] = src
		}
	}
	if c.Freshness.Interval == 0 {
		clear(registries)
	}
	catalog := discovery.New(discovery.Config{Sources: sources, Importers: importers, Logger: log, Emit: happened.Emit})

	// 5. what is published, and how it is delivered
	engine := delivery.NewEngine()
	touched := health.NewTouched()
	publisher := xds.New(xds.Config{
		Store: declared{st}, Catalog: catalog, Engine: engine, Logger: log, Emit: happened.Emit, ReadyDeadline: c.XDS.ReadyDeadline.D(),
		Secrets: certificates, SecretsDir: absolute(c.Secrets.Dir), Touched: touched, Canaries: slices.Collect(maps.Keys(registries)),
	})
	seen := fleet.New(fleet.Config{Emit: happened.Emit, Known: func(name string) bool { _, ok := publisher.Spec().Upstream(name); return ok }})
	watch := health.NewWatch(health.WatchConfig{Source: publisher, Fleet: seen, Touched: touched, Emit: happened.Emit})
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics.MustRegister(certificates)
	streams := server.New(server.Config{
		Publisher: publisher, Engine: engine, Session: delivery.Config{WarmWait: c.XDS.WarmWait.D(), PushWait: c.XDS.PushWait.D()},
		SpecChanged: publisher.Changed, NeedCertificate: c.XDS.TLS.ClientCA != "", Logger: log, Emit: happened.Emit, MaxAge: c.XDS.MaxConnectionAge.D(), Roster: seen,
	})
	grpcServer := streams.GRPC(grpc.Creds(doors.xds))

	// 6. what proxies see
	reports := telemetry.New(telemetry.Config{Fleet: seen, NeedCertificate: c.Telemetry.TLS.ClientCA != "", Logger: log})
	telemetryServer := reports.HTTP()
	telemetryServer.TLSConfig = doors.telemetry
	telemetryServer.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug) // a handshake that fails is its client's to tell

	admins := envoyadmin.Policy{SocketDir: c.EnvoyAdmin.SocketDir, OwnPorts: []uint16{port(xdsListener), port(telemetryListener), port(adminListener)}}
	asker := telemetry.Asker{Fleet: seen, Client: admins.Client, Wanted: func(group string) model.Telemetry {
		if g, ok := publisher.Spec().Group(group); ok {
			return model.Telemetry(g.Telemetry)
		}
		return model.TelemetryOff
	}}

	fresh := freshness.New(freshness.Config{
		Registries: registries, Interval: c.Freshness.Interval.D(), ID: "wellspring-" + rand.Text(), Catalog: catalog, Publisher: publisher, Streams: streams,
		Emit: happened.Emit, Logger: log,
	})

	// 7. why requests fail
	gatherer := evidence.New(evidence.Config{
		Store: st, Catalog: catalog, Publisher: publisher, Health: watch, Fleet: streams, Seen: seen, Events: happened, Recorded: recorded,
		Admins: admins, Prober: prober(c.Probe, admins.OwnPorts), ClientTLS: publisher.ClientTLS, Unseen: fresh.Unseen,
	})
	calls := outbound.Policy{Loopback: c.Notify.Loopback, OwnPorts: admins.OwnPorts}
	var hooks *hook.Runner
	found := findings.New(findings.Config{
		Health: watch.Health, Certificates: certificates.List, Evidence: gatherer, Events: happened, Recorded: recorded, Stirred: seen.Stirred, Streams: streams.Streams,
		Upstreams: func(group string) []string { return publisher.Spec().Upstreams(group) }, Emit: happened.Emit, Begun: func(f findings.TimedFinding) { hooks.Begun(f) }, Logger: log,
	})
	hookCalls := outbound.Policy{Loopback: c.Notify.Loopback, OwnPorts: admins.OwnPorts, Timeout: longestHook(c.Hooks)}
	hooks = hook.New(hook.Config{Hooks: hooksOf(c.Hooks), Client: hookCalls.Client(), Open: found.IsOpen, Emit: happened.Emit, Logger: log})
	notifier := notify.New(notify.Config{
		Receivers: receivers(c.Notify), Health: watch.Health, Lost: func(name string) uint64 { return seen.All(name).Failed }, Causes: found.Causes, Client: calls.Client(), Logger: log,
		After: c.Notify.After.D(), Clear: c.Notify.Clear.D(),
	})

	// 8. what operators ask
	api := admin.Config{
		Store: st, Catalog: catalog, Publisher: publisher, Health: watch, Fleet: streams, Seen: seen, Events: happened, Recorded: recorded, Impact: xds.Impact,
		Validate: publisher.Validate, Certificates: certificates.List, Freshness: fresh.Status, Gate: doors.gate, AllowedHosts: c.Admin.AllowedHosts,
		Admins: admins, Evidence: gatherer, Findings: found.List,
		Metrics: promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}), Profiles: c.Admin.Pprof, Version: programVersion(), Logger: log, Level: level,
	}
	metrics.MustRegister(admin.NewMetrics(api), streams.Metrics(), reports.Metrics(), notifier.Metrics(), fresh, found)
	adminServer := admin.HTTPServer(admin.New(api))
	adminServer.TLSConfig = doors.admin
	adminServer.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug) // a handshake that fails is its client's to tell

	if err := writeAddresses(c.DataDir, xdsListener, telemetryListener, adminListener); err != nil {
		return err
	}
	log.Info("serving", "xds", addressOf(xdsListener), "telemetry", addressOf(telemetryListener), "admin", addressOf(adminListener), "data", c.DataDir, "revision", st.State().Revision)
	recording, stopRecording := context.WithCancel(context.WithoutCancel(ctx))
	var recorder errgroup.Group
	recorder.Go(func() error { return recorded.Run(recording) })
	defer func() { stopRecording(); _ = recorder.Wait() }() // last: how the others end is recorded too
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { collectLess(ctx); return nil })
	g.Go(func() error { return catalog.Run(ctx) })
	g.Go(func() error { return publisher.Run(ctx) })
	g.Go(func() error {
		return st.ExpireOverrides(ctx, func(o model.Override) {
			happened.Emit(model.Event{
				Kind: model.EventOverrideEnded, Subject: model.Subject{Kind: "Upstream", Name: o.Upstream}, Endpoint: o.Endpoint, From: string(o.Action), Reason: "its time is over", Actor: o.Actor,
			})
		})
	})
	g.Go(func() error {
		if err := grpcServer.Serve(xdsListener); !errors.Is(err, grpc.ErrServerStopped) { // it was interrupted before it began
			return err
		}
		return nil
	})
	g.Go(func() error { return seen.Run(ctx) })
	g.Go(func() error { return asker.Run(ctx) })
	g.Go(func() error { return watch.Run(ctx) })
	g.Go(func() error { return found.Run(ctx) })
	g.Go(func() error { return hooks.Run(ctx) })
	g.Go(func() error { return notifier.Run(ctx) })
	g.Go(func() error { return fresh.Run(ctx) })
	g.Go(func() error {
		return serveHTTP(telemetryServer, netutil.LimitListener(telemetryListener, maxReporting))
	})
	g.Go(func() error { return serveHTTP(adminServer, adminListener) })
	g.Go(func() error {
		return files.Watch(ctx, files.Config{Logger: log, Paths: doors.paths, Changed: doors.reload})
	})
	g.Go(func() error {
		<-ctx.Done()
		grpcServer.Stop()           // Envoys keep what they have and come back
		_ = telemetryServer.Close() // what is lost of a report is in the next one
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if adminServer.Shutdown(wait) != nil {
			return adminServer.Close()
		}
		return nil
	})
	err = g.Wait()
	log.Info("stopped")
	return err
}

// prober tries endpoints; nil where it is switched off.
func prober(c probeConfig, ownPorts []uint16) evidence.Prober {
	if !c.Enabled {
		return nil
	}
	guard := outbound.Policy{Loopback: c.Loopback, OwnPorts: ownPorts}
	return probe.Prober{Dial: guard.Dialer(probe.Deadline).DialContext}
}

func hooksOf(all []hookConfig) (out []hook.Hook) {
	for _, h := range all {
		x := hook.Hook{
			Name: h.Name, Critical: h.Severity == string(findings.Critical), Command: h.Command, URL: h.URL, TokenFile: h.TokenFile,
			Every: h.Every.D(), PerHour: int(h.PerHour), Timeout: h.Timeout.D(),
		}
		for _, code := range h.Codes {
			x.Codes = append(x.Codes, diagnose.Code(code))
		}
		out = append(out, x)
	}
	return out
}

// longestHook is the longest that a hook may take.
func longestHook(all []hookConfig) (d time.Duration) {
	for _, h := range all {
		d = max(d, h.Timeout.D())
	}
	return d
}

func receivers(c notifyConfig) (out []notify.Receiver) {
	for _, r := range c.Receivers {
		out = append(out, notify.Receiver{Name: r.Name, Form: notify.Form(r.Form), URL: r.URL, TokenFile: r.TokenFile})
	}
	return out
}

// serveHTTP serves until the server is closed.
func serveHTTP(s *http.Server, l net.Listener) error {
	serve := s.Serve
	if s.TLSConfig != nil {
		serve = func(l net.Listener) error { return s.ServeTLS(l, "", "") }
	}
	if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// maxReporting are the connections to the telemetry listener; a proxy has two or three.
const maxReporting = 50_000

// declared is the store as discovery and the publisher see it.
type declared struct{ *store.Store }

func (d declared) Spec() *spec.Spec { return d.State().Spec }

// addresses is the file that says where this server listens.
type addresses struct {
	XDS       string `json:"xds"`
	Telemetry string `json:"telemetry"`
	Admin     string `json:"admin"`
	PID       int    `json:"pid"`
}

func writeAddresses(dir string, xdsListener, telemetryListener, adminListener net.Listener) error {
	text, err := json.MarshalIndent(addresses{addressOf(xdsListener), addressOf(telemetryListener), addressOf(adminListener), os.Getpid()}, "", "  ")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "addresses.json")
	if err := os.WriteFile(file+".part", append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write addresses: %w", err)
	}
	return os.Rename(file+".part", file)
}

// logger returns the log and what sets its level while we run.
func logger(c logConfig, to io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := &slog.LevelVar{}
	_ = level.UnmarshalText([]byte(c.Level)) // checked with the configuration
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(to, options)), level
	}
	return slog.New(slog.NewTextHandler(to, options)), level
}

func consulSource(s sourceConfig, log *slog.Logger) consul.Config {
	c := s.Consul
	out := consul.Config{
		Name: s.Name, Address: c.Address, Token: c.Token, TokenFile: c.TokenFile, Datacenter: c.Datacenter, Namespace: c.Namespace, Partition: c.Partition,
		MaxConnections: int(c.MaxConnections), Import: consul.Import(s.Import), Logger: log,
		LocalityKeys: consul.LocalityKeys{Region: c.Locality.Region, Zone: c.Locality.Zone, SubZone: c.Locality.SubZone},
	}
	if t := c.TLS; t != nil {
		out.TLS = &consul.TLS{ServerName: t.ServerName, CAFile: t.CA, CertFile: t.Cert, KeyFile: t.Key, InsecureSkipVerify: t.InsecureSkipVerify}
	}
	return out
}

// version is set at build time.
var version = "dev"

func programVersion() admin.Version {
	v := admin.Version{Version: version, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	return v
}

// verifier checks a store's file in a process of its own.
func verifier() func(context.Context, string) error {
	self, err := os.Executable()
	if err != nil {
		return func(context.Context, string) error { return err }
	}
	return store.VerifyCommand(self, verifyName)
}

// verifyName is the hidden verb that checks a store in a process of its own.
const verifyName = "verify-store"

func verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use: verifyName + " FILE", Hidden: true, Args: cobra.ExactArgs(1), Short: "Check a store's file",
		Example: "  wellspring verify-store ./wellspring-data/wellspring.db",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := store.VerifyFile(args[0]); err != nil {
				return &exitError{exitFailed, err.Error()}
			}
			return nil
		},
	}
}
