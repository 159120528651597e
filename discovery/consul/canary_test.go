package consul

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/consultest"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// canaries reads what a source says of the canaries: ID, address and weight.
func canaries(t *testing.T, cfg Config) (says func() string) {
	t.Helper()
	cfg.Name = "consul"
	src, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	want := make(chan []model.ServiceKey, 1)
	want <- []model.ServiceKey{model.CanaryKey("consul")}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = src.Run(ctx, want, func(k model.ServiceKey, rep discovery.Report) {
			if k.Name == "" {
				return
			}
			line := sayReport(rep)
			if p, ok := rep.(discovery.Present); ok {
				line = ""
				for _, e := range p.Endpoints {
					line += fmt.Sprintf("%s %s %d %s;", e.ID[strings.LastIndexByte(e.ID, '/')+1:], e.Address, e.Weight, e.Health)
				}
			}
			lines <- line
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return func() string {
		select {
		case l := <-lines:
			return l
		case <-time.After(30 * time.Second):
			return "nothing"
		}
	}
}

// A real Consul takes each flip, and what it says of it is read back: one instance whose
// weight changes, of each server one. One that is taken out is gone.
func TestRealCanary(t *testing.T) {
	t.Parallel()
	a := agent(t, consultest.Config{})
	says := canaries(t, Config{Address: a.Address})
	s, err := New(Config{Name: "consul", Address: a.Address})
	if err != nil {
		t.Fatal(err)
	}
	fine := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	is := func(want string) {
		t.Helper()
		if got := says(); got != want {
			t.Fatalf("read back %q, want %q", got, want)
		}
	}
	at := func(id string, value uint32) string {
		return fmt.Sprintf("%s %s:9 %d healthy;", id, canaryAddress(model.Canary{ID: id, Value: value}), value)
	}
	is("absent")
	fine(s.Flip(t.Context(), model.Canary{ID: "one", Value: 1, Lasts: time.Minute}))
	is(at("one", 1))
	fine(s.Flip(t.Context(), model.Canary{ID: "one", Value: model.MaxCanary, Lasts: time.Minute}))
	is(at("one", 65535))
	fine(s.Flip(t.Context(), model.Canary{ID: "two", Value: 5, Lasts: time.Minute}))
	is(at("one", 65535) + at("two", 5))

	checks, err := a.Client.Agent().Checks()
	fine(err)
	if c := checks["service:one"]; c == nil || c.Type != "ttl" || len(checks) != 2 {
		t.Errorf("checks %v, want a ttl for each", checks)
	}

	fine(s.Retire(t.Context(), "one"))
	is(at("two", 5))
	fine(s.Retire(t.Context(), "two"))
	is("absent")
}

// A canary whose server died is given up by Consul itself: it has a TTL, and goes with
// it.
func TestRealCanaryOfTheDead(t *testing.T) {
	t.Parallel()
	a := agent(t, consultest.Config{})
	s, err := New(Config{Name: "consul", Address: a.Address})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Flip(t.Context(), model.Canary{ID: "one", Value: 1, Lasts: time.Second}); err != nil {
		t.Fatal(err)
	}
	gone := func() bool {
		services, err := a.Client.Agent().Services()
		return err == nil && services["one"] == nil
	}
	for end := time.Now().Add(3 * time.Minute); !gone(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is registered for ever")
		}
	}
}

// What is asked of Consul: the token and where, and what it may do with the canary of a
// server that died.
func TestCanary(t *testing.T) {
	o := &one{reply: reply{status: 200}}
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("before")
	s, err := New(Config{Name: "c", Transport: o, TokenFile: file, Namespace: "ns", Partition: "part"})
	if err != nil {
		t.Fatal(err)
	}
	write("t-0") // as it is rotated
	if err := s.Flip(t.Context(), model.Canary{ID: "one", Value: 9, Lasts: 7 * time.Second}); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(o.last.Body)
	if err != nil {
		t.Fatal(err)
	}
	var r api.AgentServiceRegistration
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if r.Name != "wellspring-canary" || r.Weights.Passing != 9 || r.Weights.Warning != 9 || r.Namespace != "ns" || r.Partition != "part" ||
		r.Check.TTL != "7s" || r.Check.DeregisterCriticalServiceAfter != "1m0s" || o.last.Header.Get("X-Consul-Token") != "t-0" {
		t.Errorf("registered %s with %v", text, o.last.Header)
	}
	if err := s.Retire(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if q := o.last.URL.Query(); !strings.HasSuffix(o.last.URL.Path, "/deregister/one") || q.Get("ns") != "ns" || q.Get("partition") != "part" || o.last.Header.Get("X-Consul-Token") != "t-0" {
		t.Errorf("deregistered by %s", o.last.URL)
	}

	o.reply = reply{status: http.StatusForbidden, body: "Permission denied: token lacks permission 'service:write'"}
	for _, err := range []error{s.Flip(t.Context(), model.Canary{ID: "one", Value: 9}), s.Retire(t.Context(), "one")} {
		if err == nil || !strings.Contains(err.Error(), "Permission denied") || !strings.Contains(err.Error(), "give the token service:write on wellspring-canary, or set canary: off for this source") {
			t.Errorf("denied: %v", err)
		}
	}
	o.reply = reply{status: http.StatusInternalServerError, body: "No cluster leader"}
	if err := s.Flip(t.Context(), model.Canary{ID: "one", Value: 9}); err == nil || strings.Contains(err.Error(), "service:write") {
		t.Errorf("no leader: %v", err)
	}
}

// Two canaries, and two values of one that came to two agents, have two addresses: a
// proxy is sent both.
func TestCanaryAddress(t *testing.T) {
	seen := map[string]model.Canary{}
	for _, c := range []model.Canary{{ID: "one", Value: 1}, {ID: "one", Value: 2}, {ID: "two", Value: 1}, {ID: "two", Value: 2}} {
		a := canaryAddress(c)
		if other, ok := seen[a]; ok || !strings.HasPrefix(a, "127.") {
			t.Errorf("%+v is at %s, as is %+v", c, a, other)
		}
		seen[a] = c
	}
}

// The canary has a watch though there are more services than connections.
func TestCanaryIsWatched(t *testing.T) {
	s, err := New(Config{Name: "c", Transport: &fake{}, MaxConnections: reservedConnections + 1}) // it answers nothing
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &runner{Source: s, report: func(model.ServiceKey, discovery.Report) {}, watches: map[model.ServiceKey]context.CancelFunc{}, probes: map[string]context.CancelFunc{}, polled: newRound()}
	r.want(ctx, []model.ServiceKey{{Source: "c", Name: "a"}, {Source: "c", Name: "b"}, model.CanaryKey("c")})
	cancel()
	r.wg.Wait()
	if len(r.watches) != 1 || r.watches[model.CanaryKey("c")] == nil {
		t.Errorf("watched: %v", r.watches)
	}
}
