package xds_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/xds/xdstest"
)

const machineUpstreams = 4

// step is one thing that happens to a control plane.
type step struct {
	what       string
	a, b, c, d int
}

func (s step) String() string { return fmt.Sprintf("%s(%d %d %d %d)", s.what, s.a, s.b, s.c, s.d) }

// steps draws what happens; wild adds refusals and services that nobody knows.
func steps(rt *rapid.T, wild bool) []step {
	kinds := []string{"endpoints", "endpoints", "timeout", "protocol", "service", "routes", "passed on", "away", "back", "wait", "restart of the registry"}
	if wild {
		kinds = append(kinds, "lost", "unknown service")
	}
	one := rapid.Custom(func(t *rapid.T) step {
		n := rapid.IntRange(0, 15)
		return step{rapid.SampledFrom(kinds).Draw(t, "what"), n.Draw(t, "a"), n.Draw(t, "b"), n.Draw(t, "c"), n.Draw(t, "d")}
	})
	return rapid.SliceOfN(one, 1, 25).Draw(rt, "steps")
}

// machine is a world with three Envoys, and what is true in it.
type machine struct {
	*world
	envoys []*envoy
	away   []bool
	wild   bool
	mu     sync.Mutex
	empty  int // assignments without endpoints, while every service has some

	timeout, protocol, service [machineUpstreams]int
	routed                     [machineUpstreams]bool
	passed                     int            // the upstream that a listener with tcp leads to; machineUpstreams is no listener
	truth                      map[string]int // endpoints by service, as last said
}

func (m *machine) documents() string {
	var b strings.Builder
	var rules []string
	for i := range machineUpstreams {
		fmt.Fprintf(&b, "kind: Upstream\nname: u%d\nspec: {service: {source: consul, name: s%d}, connectTimeout: %dms, protocol: %s}\n---\n",
			i, m.service[i], 100+m.timeout[i], []string{"http1", "http2"}[m.protocol[i]%2])
		if m.routed[i] {
			rules = append(rules, fmt.Sprintf("{match: {path: {prefix: /u%d}}, to: [{upstream: u%d}]}", i, i))
		}
	}
	if len(rules) == 0 {
		rules = append(rules, "{to: [{upstream: u0}]}")
	}
	fmt.Fprintf(&b, "kind: Route\nname: all\nspec: {hosts: ['*'], rules: [%s]}\n---\n", strings.Join(rules, ", "))
	b.WriteString("kind: Listener\nname: edge\nspec: {address: '127.0.0.1:10000', routes: [all]}\n---\n")
	if m.passed < machineUpstreams {
		fmt.Fprintf(&b, "kind: Listener\nname: db\nspec: {address: '127.0.0.1:10001', tcp: {to: [{upstream: u%d}]}}\n---\n", m.passed)
	}
	fmt.Fprintf(&b, "kind: Group\nname: edge\nspec: {listeners: [%s]}\n", strings.Join(m.listeners(), ", "))
	return b.String()
}

func (m *machine) listeners() []string {
	if m.passed < machineUpstreams {
		return []string{"db", "edge"}
	}
	return []string{"edge"}
}

func (m *machine) say(service string, n int) {
	m.truth[service] = n
	if n == 0 {
		m.registry.say(service, discovery.Absent{})
		return
	}
	m.registry.say(service, present(n))
}

func newMachine(t *testing.T, wild bool) *machine {
	m := &machine{truth: map[string]int{}, wild: wild, passed: machineUpstreams}
	for i := range machineUpstreams {
		m.service[i], m.routed[i] = i, i < 2
	}
	m.world = newWorld(t, newStore(t, m.documents()))
	for i := range machineUpstreams {
		m.say(fmt.Sprintf("s%d", i), 1)
	}
	waitReady(t, m.world, "edge")
	for i := range 3 {
		m.away = append(m.away, false)
		cfg := xdstest.Config{ID: fmt.Sprint("e", i), SotW: i == 2, Refuse: m.noEmpty}
		if wild {
			cfg.Refuse = refuses(i)
		}
		m.envoys = append(m.envoys, m.envoy(cfg))
	}
	return m
}

// noEmpty takes everything, and counts what leaves nobody.
func (m *machine) noEmpty(msg proto.Message) string {
	if a, ok := msg.(*endpointv3.ClusterLoadAssignment); ok && len(a.Endpoints) == 0 {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.empty++
	}
	return ""
}

// refuses is what one of the Envoys does not take: some connect timeouts of
// clusters, and one number of endpoints.
func refuses(envoy int) func(proto.Message) string {
	return func(m proto.Message) string {
		switch x := m.(type) {
		case *clusterv3.Cluster:
			if n := int(x.ConnectTimeout.AsDuration().Milliseconds()) - 100; n < 50 && envoy > 0 && n%4 == envoy {
				return "not today"
			}
		case *endpointv3.ClusterLoadAssignment:
			n := 0
			for _, l := range x.Endpoints {
				n += len(l.LbEndpoints)
			}
			if envoy > 0 && n == 4 {
				return "malformed IP address"
			}
		}
		return ""
	}
}

func (m *machine) do(s step) {
	u, e := s.a%machineUpstreams, s.a%len(m.envoys)
	switch s.what {
	case "endpoints":
		n := s.b % 5
		if !m.wild {
			n++ // somebody is always there
		}
		m.say(fmt.Sprintf("s%d", m.service[u]%machineUpstreams), n)
	case "restart of the registry":
		m.registry.say(fmt.Sprintf("s%d", u), discovery.Failed{Reason: discovery.NoLeader, Err: errors.New("no leader")})
	case "timeout":
		m.timeout[u] = 1 + s.b
		m.store.apply(m.t, m.documents())
	case "protocol":
		m.protocol[u] = s.b
		m.store.apply(m.t, m.documents())
	case "service":
		m.service[u] = s.b % machineUpstreams
		m.store.apply(m.t, m.documents())
	case "unknown service":
		m.service[u] = machineUpstreams + s.b%3
		m.store.apply(m.t, m.documents())
	case "routes":
		for i, x := range []int{s.a, s.b, s.c, s.d} {
			m.routed[i] = x%2 == 0
		}
		m.store.apply(m.t, m.documents())
	case "passed on":
		m.passed = s.b % (machineUpstreams + 1)
		m.store.apply(m.t, m.documents())
	case "away":
		if !m.away[e] {
			m.away[e] = true
			_ = m.envoys[e].stop()
		}
	case "back":
		m.back(e)
	case "lost": // a stream that breaks and is opened again at once
		_ = m.envoys[e].stop()
		m.away[e] = true
		m.back(e)
	case "wait":
		time.Sleep(time.Duration(s.b*s.b*s.b) * 10 * time.Millisecond) // up to 34 s
	}
	if s.d%2 == 0 {
		synctest.Wait()
	}
}

func (m *machine) back(e int) {
	if m.away[e] {
		m.away[e] = false
		m.envoys[e].connect()
	}
}

// end brings everybody back, says what nobody refuses, and waits.
func (m *machine) end() {
	for i := range m.envoys {
		m.back(i)
	}
	for i := range machineUpstreams + 3 {
		m.say(fmt.Sprintf("s%d", i), i+5)
	}
	for i := range machineUpstreams {
		m.timeout[i] += 50
	}
	m.store.apply(m.t, m.documents())
	time.Sleep(15 * time.Minute) // what connections drain from goes after ten
	synctest.Wait()
}

// wrong says what an Envoy holds that it should not, or lacks.
func (m *machine) wrong(e *envoy) string {
	v := e.View()
	var want []string
	for i := range machineUpstreams {
		if m.routed[i] {
			want = append(want, fmt.Sprintf("u%d", i))
		}
	}
	if want == nil {
		want = []string{"u0"}
	}
	clusters := slices.Clone(want)
	if name := fmt.Sprintf("u%d", m.passed); m.passed < machineUpstreams && !slices.Contains(want, name) {
		clusters = append(clusters, name)
	}
	switch {
	case len(v.Warming) > 0:
		return fmt.Sprintf("%v still warm", v.Warming)
	case !slices.Equal(v.Listeners, m.listeners()):
		return fmt.Sprintf("listeners %v", v.Listeners)
	case !slices.Equal(v.Routes["edge"], want):
		return fmt.Sprintf("routes to %v, want %v", v.Routes["edge"], want)
	case len(v.Endpoints) != len(clusters):
		return fmt.Sprintf("clusters %v, want %v", v.Endpoints, clusters)
	}
	for i := range machineUpstreams {
		name, service := fmt.Sprintf("u%d", i), fmt.Sprintf("s%d", m.service[i])
		if eps, ok := v.Endpoints[name]; ok && len(eps) != m.truth[service] {
			return fmt.Sprintf("%s has %d endpoints, %s has %d", name, len(eps), service, m.truth[service])
		}
	}
	for _, st := range m.server.Streams(m.t.Context()) {
		for _, d := range st.Delivery {
			if d.Open > 0 || d.Version != d.AckedVersion || len(d.Parked)+len(d.Waiting) > 0 {
				return fmt.Sprintf("%s: %s is not settled: %+v", st.ID, d.Type, d)
			}
		}
	}
	return ""
}

// play runs steps and returns what is wrong at the end.
func play(t *testing.T, all []step, wild bool) (wrong string) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, wild)
		for _, s := range all {
			m.do(s)
		}
		m.end()
		for i, e := range m.envoys {
			w := m.wrong(e)
			if m.empty > 0 && w == "" {
				w = fmt.Sprintf("%d assignments were empty", m.empty)
			}
			if v := e.Violations(); w == "" && len(v) > 0 && !wild {
				w = strings.Join(v, "\n")
			}
			if w != "" && wrong == "" {
				wrong = fmt.Sprintf("Envoy %d: %s\n%s", i, w, sayFrames(e.Frames()))
			}
		}
	})
	return wrong
}

// Whatever happens to registry, documents and streams, in whatever order: in the
// end every Envoy holds what is declared and who is there, and while nothing is
// refused nothing ever led to a cluster that was not there.
func TestMachine(t *testing.T) {
	for name, wild := range map[string]bool{"peaceful": false, "wild": true} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				all := steps(rt, wild)
				if wrong := play(t, all, wild); wrong != "" {
					rt.Fatalf("%v\n%s", all, wrong)
				}
			})
		})
	}
}
