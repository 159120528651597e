package consul

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/consultest"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

const root = "11111111-2222-3333-4444-555555555555"

// agent starts a real Consul.
func agent(t *testing.T, c consultest.Config) *consultest.Consul {
	t.Helper()
	_, err := proc.Find("CONSUL", "consul")
	proc.Need(t, err)
	c.Dir = t.TempDir()
	a, err := consultest.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Kill() })
	return a
}

func register(t *testing.T, a *consultest.Consul, service string, ids ...string) {
	t.Helper()
	for i, id := range ids {
		if err := a.Client.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: service, Address: "127.0.0.1", Port: 1000 + i}); err != nil {
			t.Fatal(err)
		}
	}
}

// reader is a source that runs against a real Consul and keeps what was reported,
// a line for each change.
type reader struct {
	t    *testing.T
	mu   sync.Mutex
	said map[string][]string // by service; "" is the source
}

func read(t *testing.T, cfg Config, keys ...model.ServiceKey) *reader {
	t.Helper()
	cfg.Name = "consul"
	src, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{t: t, said: map[string][]string{}}
	want := make(chan []model.ServiceKey, 1)
	want <- keys
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = src.Run(ctx, want, r.report)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return r
}

func (r *reader) report(k model.ServiceKey, rep discovery.Report) {
	line := sayReport(rep)
	if p, ok := rep.(discovery.Present); ok { // the node's name is the agent's choice
		var ids []string
		for _, e := range p.Endpoints {
			ids = append(ids, e.ID[strings.LastIndexByte(e.ID, '/')+1:])
		}
		line = strings.Join(ids, " ")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if all := r.said[k.Name]; len(all) == 0 || all[len(all)-1] != line {
		r.said[k.Name] = append(all, line)
	}
}

func (r *reader) all(service string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.said[service])
}

// until waits until the newest report of a service is one of some lines.
func (r *reader) until(service string, lines ...string) {
	r.t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if all := r.all(service); len(all) > 0 && slices.Contains(lines, all[len(all)-1]) {
			return
		}
	}
	r.t.Fatalf("service %q never became %q; it was reported as %q, the source as %q", service, lines, r.all(service), r.all(""))
}

// only wants exactly these reports of a service, in this order.
func (r *reader) only(service string, lines ...string) {
	r.t.Helper()
	r.until(service, lines[len(lines)-1])
	if got := r.all(service); !slices.Equal(got, lines) {
		r.t.Errorf("service %q was reported as %q, want %q", service, got, lines)
	}
}

func key(name string) model.ServiceKey { return model.ServiceKey{Source: "consul", Name: name} }

// What a healthy server says of who is there, who left, and who never was; a
// datacenter that it does not know.
func TestRealServer(t *testing.T) {
	t.Parallel()
	a := agent(t, consultest.Config{})
	register(t, a, "web", "a", "b", "c")
	elsewhere := key("far")
	elsewhere.Datacenter = "dc9"
	r := read(t, Config{Address: a.Address}, key("web"), key("nobody"), elsewhere)
	r.until("web", "a b c")
	r.until("nobody", "absent")
	r.until("far", "failed: no datacenter")
	for _, id := range []string{"a", "b", "c"} {
		if err := a.Client.Agent().ServiceDeregister(id); err != nil {
			t.Fatal(err)
		}
	}
	r.until("web", "absent")
	r.only("nobody", "absent")
	r.only("far", "failed: no datacenter")
}

// What nobody watches can be read once.
func TestRealRead(t *testing.T) {
	t.Parallel()
	a := agent(t, consultest.Config{})
	register(t, a, "web", "a", "b")
	src, err := New(Config{Name: "consul", Address: a.Address})
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := src.Read(t.Context(), key("web")).(discovery.Present); !ok || len(p.Endpoints) != 2 {
		t.Errorf("web: %+v", p)
	}
	if r, ok := src.Read(t.Context(), key("nobody")).(discovery.Absent); !ok {
		t.Errorf("nobody: %+v", r)
	}
	a.Kill()
	if f, ok := src.Read(t.Context(), key("web")).(discovery.Failed); !ok || f.Reason != discovery.Unreachable {
		t.Errorf("a dead one: %+v", f)
	}
}

// A restored snapshot turns the index back. What it brings back is read again,
// and nobody is lost on the way.
func TestRealIndexBackwards(t *testing.T) {
	t.Parallel()
	a := agent(t, consultest.Config{})
	register(t, a, "web", "a", "b")
	snapshot, _, err := a.Client.Snapshot().Save(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Close() //nolint:errcheck // read only
	for i := range 30 {
		register(t, a, fmt.Sprintf("other-%d", i), fmt.Sprintf("other-%d", i))
	}
	register(t, a, "web", "c")
	r := read(t, Config{Address: a.Address}, key("web"))
	r.until("web", "a b c")
	if err := a.Client.Snapshot().Restore(nil, snapshot); err != nil {
		t.Fatal(err)
	}
	register(t, a, "web", "d")
	r.until("web", "a b d", "a b c d") // the agent brings c back, sooner or later
	for _, line := range r.all("web") {
		if !strings.Contains(line, "a b") {
			t.Errorf("reported %q on the way", line)
		}
	}
}

// Every form of a token that does not do: nothing is ever taken for empty.
func TestRealTokens(t *testing.T) {
	t.Parallel()
	a := agent(t, consultest.Config{Token: root})
	register(t, a, "web", "a", "b")
	acl := a.Client.ACL()
	token := func(name, rules string) *api.ACLToken {
		t.Helper()
		p, _, err := acl.PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil)
		if err != nil {
			t.Fatal(err)
		}
		tok, _, err := acl.TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: p.ID}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	reader := func(tok string) *reader {
		return read(t, Config{Address: a.Address, Token: tok}, key("web"), key("nobody"))
	}

	good := token("good", `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`)
	r := reader(good.SecretID)
	r.until("web", "a b")
	r.until("nobody", "absent")

	readOnly, err := New(Config{Name: "consul", Address: a.Address, Token: good.SecretID})
	if err != nil {
		t.Fatal(err)
	}
	if err := readOnly.Flip(t.Context(), model.Canary{ID: "one", Value: 1, Lasts: time.Minute}); err == nil || !strings.Contains(err.Error(), "give the token service:write on wellspring-canary") {
		t.Errorf("a canary with a token that may only read: %v", err)
	}
	writes, err := New(Config{Name: "consul", Address: a.Address, Token: token("writes", `service "wellspring-canary" { policy = "write" }`).SecretID})
	if err != nil {
		t.Fatal(err)
	}
	for _, do := range []func() error{
		func() error { return writes.Flip(t.Context(), model.Canary{ID: "one", Value: 1, Lasts: time.Minute}) },
		func() error { return writes.Retire(t.Context(), "one") },
	} {
		if err := do(); err != nil {
			t.Errorf("a canary with a token for it: %v", err)
		}
	}

	unknown := reader("99999999-2222-3333-4444-555555555555")
	unknown.until("web", "failed: denied")
	unknown.until("", "failed: denied")
	unknown.only("nobody", "failed: denied")

	noService := reader(token("no-service", `node_prefix "" { policy = "read" }`).SecretID)
	noService.until("web", "failed: filtered")
	noNode := reader(token("no-node", `service_prefix "" { policy = "read" }`).SecretID)
	noNode.until("web", "failed: filtered")

	anonymous := reader("")
	anonymous.until("web", "failed: denied")
	anonymous.only("nobody", "failed: denied")

	// deleted while a query waits: what was read stays, and the failure is told
	if _, err := acl.TokenDelete(good.AccessorID, nil); err != nil {
		t.Fatal(err)
	}
	r.until("web", "failed: denied")
	r.only("web", "a b", "failed: denied")
	r.only("nobody", "absent", "failed: denied")
}

// A server that never had a leader answers streaming queries with 200 and an empty
// list; that is never taken for an answer.
func TestRealNeverLed(t *testing.T) {
	t.Parallel()
	a := agent(t, consultest.Config{Servers: 3})
	r := read(t, Config{Address: a.Address}, key("web"))
	r.until("web", "failed: no leader")
	r.until("", "failed: no leader")
	for _, line := range r.all("web") {
		if !strings.HasPrefix(line, "failed: ") { // a slow machine gives up before Consul does
			t.Errorf("web was reported as %q", line)
		}
	}
}

// Every server is killed under a living agent: a query that waits goes on with the
// old instances, without an outward sign; the probe tells, and a service that was
// not read before stays unknown.
func TestRealServersKilled(t *testing.T) {
	t.Parallel()
	server := agent(t, consultest.Config{})
	client := agent(t, consultest.Config{Client: true, Join: []string{server.Gossip}})
	if err := client.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	register(t, client, "web", "a", "b")
	r := read(t, Config{Address: client.Address}, key("web"))
	r.until("web", "a b")
	r.until("", "discovery.Fresh")
	server.Kill()
	r.until("", "failed: no leader")
	late := read(t, Config{Address: client.Address}, key("web"), key("nobody"))
	late.until("web", "failed: no leader")
	late.only("nobody", "failed: no leader")
	for _, line := range r.all("web") {
		if line != "a b" && !strings.HasPrefix(line, "failed: ") { // as the server dies, the connection may be what breaks
			t.Errorf("web was reported as %q", line)
		}
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := client.Client.Agent().Join(server.Gossip, false); err != nil { // it would find it by itself within half a minute
		t.Fatal(err)
	}
	r.until("", "discovery.Fresh")
	late.until("web", "a b")
	late.until("nobody", "absent")
}

// The leader of three is killed: for some seconds there is no leader, nobody is
// lost, and afterwards changes are seen again.
func TestRealLeaderKilled(t *testing.T) {
	t.Parallel()
	first := agent(t, consultest.Config{Servers: 3})
	servers := []*consultest.Consul{first}
	for range 2 {
		servers = append(servers, agent(t, consultest.Config{Servers: 3, Join: []string{first.Gossip}}))
	}
	client := agent(t, consultest.Config{Client: true, Join: []string{first.Gossip}})
	if err := client.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	register(t, client, "web", "a", "b", "c")
	r := read(t, Config{Address: client.Address}, key("web"))
	r.until("web", "a b c")
	leader, err := client.Client.Status().Leader()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range servers {
		if s.RPC == leader {
			s.Kill()
		}
	}
	register(t, client, "web", "a", "b", "c") // says nothing new; waits for the new leader
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if now, err := client.Client.Status().Leader(); err == nil && now != "" && now != leader {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no new leader")
		}
	}
	register(t, client, "web", "a", "b", "c", "d")
	r.until("web", "a b c d")
	for _, line := range r.all("web") {
		if !strings.HasPrefix(line, "a b c") && !strings.HasPrefix(line, "failed: ") {
			t.Errorf("web was reported as %q", line)
		}
	}
}

// Consul's limit of connections is below what is watched: that is said, and every
// service is read all the same.
func TestRealConnectionLimit(t *testing.T) {
	t.Parallel()
	a := agent(t, consultest.Config{Extra: map[string]any{"limits": map[string]any{"http_max_conns_per_client": 50}}})
	var keys []model.ServiceKey
	for i := range 60 {
		register(t, a, fmt.Sprintf("s%d", i), fmt.Sprintf("s%d", i))
		keys = append(keys, key(fmt.Sprintf("s%d", i)))
	}
	told := read(t, Config{Address: a.Address, MaxConnections: 50}, keys...)
	for i := range 60 {
		told.until(fmt.Sprintf("s%d", i), fmt.Sprintf("s%d", i))
	}
}
