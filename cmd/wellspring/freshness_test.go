package main_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/consultest"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/freshness"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/proc"
	"github.com/wellspring-xds/wellspring/xds/xdstest"
)

// freshnessOf reads how fresh a source is.
func (c *controlPlane) freshnessOf(source string) freshness.Status {
	c.t.Helper()
	var out struct{ Items []admin.Source }
	if err := c.client().Get(c.t.Context(), "/v1/sources", nil, &out); err != nil {
		c.t.Fatal(err)
	}
	for _, s := range out.Items {
		if s.Name == source && s.Freshness != nil {
			return *s.Freshness
		}
	}
	return freshness.Status{}
}

// TestRealFreshness: a change in a real Consul is acknowledged by real Envoys, old and
// new, and how long that takes is told. A proxy that is stopped shows, one that takes
// nothing any more is named, and so is a Consul that takes no change: in the list, in
// events, in health, in metrics and by exit status. All is fresh again when they are.
func TestRealFreshness(t *testing.T) {
	consul, err := consultest.Start(t.Context(), consultest.Config{Dir: t.TempDir()})
	proc.Need(t, err)
	t.Cleanup(func() { consul.Kill() })
	config := filepath.Join(t.TempDir(), "wellspring.yaml")
	text := fmt.Sprintf("freshness: {interval: 5s}\nsources:\n- {name: consul, import: all, consul: {address: '%s'}}\n- {name: quiet, canary: 'off', consul: {address: '%[1]s'}}\n- {name: far, consul: {address: '%[1]s', datacenter: dc1}}\n", consul.Address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := serve(t, "-c", config)
	old, err := envoytest.Find("1.37")
	proc.Need(t, err)
	stopped, _ := reporting(t, c, envoytest.Config{Bootstrap: bootstrap.Config{NodeID: "new", Zone: "a"}})
	reporting(t, c, envoytest.Config{Program: old, Bootstrap: bootstrap.Config{NodeID: "old", Zone: "a"}})
	fresh := func(source string, proxies int) func() string {
		return func() string {
			s := c.freshnessOf(source)
			if s.Proxies != proxies || s.Behind != 0 || s.Stale || s.Acknowledged <= 0 || s.Acknowledged > 5 ||
				s.Written > s.Seen || s.Seen > s.Published || s.Published > s.Acknowledged {
				return fmt.Sprintf("%+v", s)
			}
			return ""
		}
	}
	within(t, 10*time.Second, "fresh in Consul", fresh("consul", 2))
	within(t, 10*time.Second, "fresh in the store", fresh("local", 2))
	t.Logf("consul: %+v; local: %+v", c.freshnessOf("consul"), c.freshnessOf("local"))
	for _, source := range []string{"quiet", "far"} {
		if s := c.freshnessOf(source); !s.Flipped.IsZero() {
			t.Errorf("%s has a canary: %+v", source, s)
		}
	}
	out, code := c.cli("sources")
	if code != 0 || !regexp.MustCompile(`(?m)^consul .* \d+ms +-$`).MatchString(out) || !regexp.MustCompile(`(?m)^quiet .* - +-$`).MatchString(out) {
		t.Errorf("sources: exit %d\n%s", code, out)
	}
	if out, _ := c.cli("upstreams"); strings.Contains(out, "canary") {
		t.Errorf("the canary is listed as an upstream:\n%s", out)
	}

	_ = stopped.Signal(syscall.SIGSTOP)
	within(t, 10*time.Second, "a stopped Envoy is behind", func() string {
		if s := c.freshnessOf("local"); s.Behind == 0 || s.Acknowledged < 1 {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	_ = stopped.Signal(syscall.SIGCONT)
	within(t, 10*time.Second, "it goes on", fresh("local", 2))

	// a proxy that takes the first canary of the store and no other, and a Consul that stops
	var first uint32
	deaf := xdstest.New(xdstest.Config{ID: "deaf", Cluster: "edge", Refuse: func(m proto.Message) string {
		la, ok := m.(*endpointv3.ClusterLoadAssignment)
		if !ok || !strings.HasPrefix(la.ClusterName, model.CanaryUpstream("local")) {
			return ""
		}
		value := la.Endpoints[0].LbEndpoints[0].LoadBalancingWeight.GetValue()
		if first == 0 {
			first = value
		}
		if value != first {
			return "not today"
		}
		return ""
	}})
	conn, err := grpc.NewClient(c.XDS, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a test's
	ctx, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer func() { leave(); wg.Wait() }()
	wg.Go(func() { _ = deaf.Run(ctx, conn) })
	_ = consul.Signal(syscall.SIGSTOP)
	events := func() string {
		out, _ := c.cli("events", "--limit", "200")
		return out
	}
	said := func(source, words string) func() string {
		return func() string {
			if s := c.freshnessOf(source); !s.Stale || !strings.Contains(s.Why, words) {
				return fmt.Sprintf("%+v", s)
			}
			return ""
		}
	}
	within(t, 40*time.Second, "one that takes nothing is named", said("local", "1 of 3 proxies have not acknowledged a change written "))
	within(t, 40*time.Second, "a Consul that takes nothing is named", said("consul", "no change could be written: "))
	within(t, 5*time.Second, "both are told", func() string { // in the second after it is so
		out := events()
		for _, source := range []string{"consul", "local"} {
			if !regexp.MustCompile(model.EventSourceFreshness + ` +` + source + ` .*fresh → stale`).MatchString(out) {
				return out
			}
		}
		return ""
	})
	if why := c.freshnessOf("local").Why; !strings.HasSuffix(why, " ago: deaf") {
		t.Errorf("why: %s", why)
	}
	_ = consul.Signal(syscall.SIGCONT)
	within(t, 20*time.Second, "fresh in Consul again", fresh("consul", 3))
	out, code = c.cli("sources")
	if code != 79 || strings.Contains(out, "unreachable") || !regexp.MustCompile(`(?m)^local .* stale \d+s +1 of 3 `).MatchString(out) {
		t.Errorf("sources: exit %d\n%s", code, out)
	}
	if out, _ := c.cli("health"); !strings.Contains(out, "source local: stale: 1 of 3 proxies") {
		t.Errorf("health:\n%s", out)
	}
	if age := c.metric("wellspring_freshness_seconds", `source="local",stage="acknowledged"`); age < 30 {
		t.Errorf("the metric says %v seconds", age)
	}
	if n := c.metric("wellspring_freshness_behind_proxies", `source="local"`); n != 1 {
		t.Errorf("the metric says that %v proxies are behind", n)
	}

	leave()
	within(t, 10*time.Second, "fresh in the store again", fresh("local", 2))
	out = events()
	for _, source := range []string{"consul", "local"} {
		for _, change := range []string{"fresh → stale", "stale → fresh"} {
			if want := regexp.MustCompile(model.EventSourceFreshness + ` +` + source + ` .*` + change); !want.MatchString(out) {
				t.Errorf("no event is like %s:\n%s", want, out)
			}
		}
	}

	c.Stop(10 * time.Second)
	services, err := consul.Client.Agent().Services()
	if err != nil {
		t.Fatal(err)
	}
	for id := range services {
		t.Errorf("%s is registered still", id)
	}
}
