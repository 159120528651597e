// Command demo runs a control plane, a real Envoy, three backends and steady
// traffic, and takes them through an outage and back, in about a minute.
//
//	go run ./examples/demo            services declared in the embedded store
//	go run ./examples/demo --consul   services registered in a real Consul
//
// KEEP=1 leaves everything running at the end. What it says is taken from the
// client's ledger of requests, Envoy's access log and the admin API; when one of
// them does not show what an act is about, the demo fails. SABOTAGE=N leaves out
// what act N does, which must make it fail.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/examples/backend"
	"github.com/wellspring-xds/wellspring/examples/traffic"
	"github.com/wellspring-xds/wellspring/pkg/admin/client"
	"github.com/wellspring-xds/wellspring/pkg/consultest"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

func main() {
	consul := flag.Bool("consul", false, "register the services in a real Consul")
	pace := flag.Duration("pace", 4*time.Second, "time to read between the acts")
	program := flag.String("wellspring", "bin/wellspring", "the binary, as `make build` leaves it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *program, *consul, *pace); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo: "+err.Error())
		os.Exit(1)
	}
}

// stage is everything that runs.
type stage struct {
	ctx      context.Context //nolint:containedctx // the demo's one context, from main to its end
	dir      string
	program  string
	admin    string
	edge     string
	log      string // Envoy's access log
	backends map[string]*backend.Backend
	addrs    map[string]string
	registry registry
	load     *traffic.Load
	began    time.Time
	first    uint64 // revision of the first documents
	died     time.Time
	back     time.Time // when every backend was seen again
	pace     time.Duration
}

// run sets the stage, plays the acts and sums up.
func run(ctx context.Context, program string, withConsul bool, pace time.Duration) error {
	s := &stage{ctx: ctx, program: program, backends: map[string]*backend.Backend{}, addrs: map[string]string{}, began: time.Now(), pace: pace}
	var ends []func()
	defer func() {
		for i := len(ends) - 1; i >= 0; i-- {
			ends[i]()
		}
	}()
	if err := s.set(withConsul, &ends); err != nil {
		return err
	}
	failed := s.play()
	ledger := s.load.Stop()
	sum := traffic.Sum(ledger)
	fmt.Printf("\n== Summary after %d s\n", int(time.Since(s.began).Seconds()))
	stray := 0
	for _, r := range ledger {
		if !r.OK() && (s.died.IsZero() || r.Sent.Add(r.Took).Before(s.died) || r.Sent.After(s.back)) {
			stray++
			fmt.Printf("   lost while a backend was alive: request %d: %d %s %v\n", r.Number, r.Status, r.Body, r.Err)
		}
	}
	fmt.Printf("   %d requests: %d answered with 200, %d lost while every backend was dead or gone, %d at other times\n", sum.Total, sum.OK, sum.Failed()-stray, stray)
	if stray > 0 {
		failed = append(failed, fmt.Errorf("%d requests were lost while a backend was alive", stray))
	}
	for what, n := range sum.Failures {
		fmt.Printf("   %5d × %.60s\n", n, what)
	}
	if os.Getenv("KEEP") == "1" && ctx.Err() == nil {
		fmt.Printf("\nKEEP=1: listener http://%s, admin http://%s, data %s; Ctrl-C ends it.\n   %s --server %s health --watch\n", s.edge, s.admin, s.dir, program, s.admin)
		<-ctx.Done()
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d acts did not show what they are about: %w", len(failed), errors.Join(failed...))
	}
	fmt.Println("   every act showed what it is about")
	return nil
}

// set starts the control plane, Envoy, backends and traffic.
func (s *stage) set(withConsul bool, ends *[]func()) (err error) {
	end := func(f func()) { *ends = append(*ends, f) }
	if s.dir, err = os.MkdirTemp("", "wellspring-demo-"); err != nil {
		return err
	}
	end(func() { _ = os.RemoveAll(s.dir) })
	s.log = filepath.Join(s.dir, "access.log")
	ports, err := freeport.Get(3)
	if err != nil {
		return err
	}
	xds, reports := fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[2])
	s.admin = fmt.Sprintf("127.0.0.1:%d", ports[1])
	if s.edge, err = freeport.Addr(); err != nil {
		return err
	}
	fmt.Println("== Setting the stage")
	for _, name := range []string{"blue", "green", "canary"} {
		b, err := backend.Start(name, "127.0.0.1:0")
		if err != nil {
			return err
		}
		s.backends[name], s.addrs[name] = b, b.Addr
		end(func() { s.backends[name].Kill() })
		fmt.Printf("   backend %-7s %s\n", name, b.Addr)
	}
	args := []string{"serve", "--data-dir", filepath.Join(s.dir, "data"), "--telemetry-listen", reports, "--xds-listen", xds, "--admin-listen", s.admin, "--log-level", "warn", "--probe-allow-loopback"}
	s.registry = &declared{s}
	if withConsul {
		c, err := consultest.Start(s.ctx, consultest.Config{Dir: s.dir})
		if err != nil {
			return err
		}
		end(c.Kill)
		fmt.Printf("   Consul          http://%s\n", c.Address)
		args = append(args, "--consul", c.Address)
		s.registry = &registered{s, c.Client}
	}
	control, err := proc.Start(s.program, args, nil)
	if err != nil {
		return fmt.Errorf("%w; run `make build` first", err)
	}
	end(func() { control.Stop(5 * time.Second) })
	if err := control.Until(s.ctx, func(ctx context.Context) error {
		return client.New(client.Config{Server: s.admin}).Get(ctx, "/version", nil, nil)
	}); err != nil {
		return err
	}
	fmt.Printf("   wellspring      xds %s, admin http://%s\n", xds, s.admin)
	envoy, err := envoytest.Start(s.ctx, envoytest.Config{Dir: s.dir, Bootstrap: bootstrap.Config{
		NodeID: "edge-1", Group: "edge", XDS: []string{xds}, Telemetry: &bootstrap.Telemetry{Addresses: []string{reports}, Key: "demo", Interval: time.Second},
	}})
	if err != nil {
		return err
	}
	end(func() { envoy.Stop(5 * time.Second) })
	fmt.Printf("   Envoy           listener http://%s, admin http://%s\n", s.edge, envoy.Admin)
	if err := s.registry.set("catalog", "blue", "green"); err != nil {
		return err
	}
	if err := s.registry.set("catalog-next", "canary"); err != nil {
		return err
	}
	out, err := s.apply("everything to blue and green", s.documents(100, 0))
	if err != nil {
		return err
	}
	s.first = out
	if err := envoy.Until(s.ctx, func(context.Context) error {
		resp, err := http.Get("http://" + s.edge + "/") //nolint:noctx // loopback, and Until ends with ctx
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	}); err != nil {
		return err
	}
	s.load = traffic.Start(s.ctx, traffic.Config{URL: "http://" + s.edge + "/", PerSecond: 50})
	return nil
}

// documents are the demo's, with shares for the two upstreams.
func (s *stage) documents(stable, canary int) string {
	check := "healthChecks: [{http: {path: /healthz}, interval: 500ms, timeout: 250ms, unhealthyThreshold: 2, healthyThreshold: 1}]"
	return fmt.Sprintf(`
kind: Upstream
name: catalog
spec:
  service: {%s, name: catalog}
  %s
---
kind: Upstream
name: catalog-next
spec:
  service: {%s, name: catalog-next}
  %s
---
kind: Route
name: shop
spec:
  hosts: ["*"]
  rules: [{to: [{upstream: catalog, weight: %d}, {upstream: catalog-next, weight: %d}], timeout: 2s}]
---
kind: Listener
name: edge
spec: {address: "%s", routes: [shop], accessLog: {to: %s}}
---
kind: Group
name: edge
spec: {listeners: [edge]}
`, s.registry.source(), check, s.registry.source(), check, stable, canary, s.edge, s.log)
}

func (s *stage) apply(message, documents string) (uint64, error) {
	out, err := client.New(client.Config{Server: s.admin}).Apply(s.ctx, []byte(documents), client.How{Message: message})
	return out.Revision, err
}

// show runs a verb of the command line and prints what an operator sees.
func (s *stage) show(args ...string) {
	cmd := exec.CommandContext(s.ctx, s.program, append([]string{"--server", s.admin}, args...)...)
	out, _ := cmd.CombinedOutput() // exit status 79 says that something is wrong, which is the point
	fmt.Printf("\n   $ wellspring %s\n", strings.Join(args, " "))
	for line := range strings.Lines(string(out)) {
		fmt.Print("   " + line)
	}
}
