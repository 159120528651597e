package xds_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/xds"
	"github.com/wellspring-xds/wellspring/xds/delivery"
)

var none model.Imports

// told is a catalog that knows what it was told.
type told struct {
	mu      sync.Mutex
	have    map[model.ServiceKey]*model.Service
	changed []model.ServiceKey
	signal  chan struct{}
}

func newTold() *told {
	return &told{have: map[model.ServiceKey]*model.Service{}, signal: make(chan struct{}, 1)}
}

func (c *told) Want([]model.ServiceKey)     {}
func (c *told) Imports() *model.Imports     { return &none }
func (c *told) Signal() <-chan struct{}     { return c.signal }
func (c *told) Changes() []model.ServiceKey { c.mu.Lock(); defer c.mu.Unlock(); return c.changed }
func (c *told) Entry(k model.ServiceKey) model.Known {
	c.mu.Lock()
	defer c.mu.Unlock()
	return model.Known{Service: c.have[k]}
}

func (c *told) tell(name string, addresses ...string) {
	k := model.ServiceKey{Source: "consul", Name: name}
	s := &model.Service{Key: k, Presence: model.Present}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, model.Endpoint{ID: a, Address: a, Health: model.Healthy, Weight: 1})
	}
	c.mu.Lock()
	c.have[k], c.changed = s, []model.ServiceKey{k}
	c.mu.Unlock()
	c.signal <- struct{}{}
}

// The endpoints of an upstream with hostnames are part of its cluster, which every
// change of the registry re-makes; an entry that nobody could resolve is left out
// and told; the upstream is not served before its service is known.
func TestHostnames(t *testing.T) {
	store := newStore(t, `
kind: Upstream
name: cloud
spec: {service: {source: consul, addresses: hostname}}
---
kind: Route
name: all
spec: {hosts: ["*"], rules: [{to: [{upstream: cloud}], rewrite: {hostOfEndpoint: true}}]}
---
kind: Listener
name: edge
spec: {address: "127.0.0.1:10000", routes: [all]}
---
kind: Group
name: edge
spec: {listeners: [edge]}
`)
	catalog, engine := newTold(), delivery.NewEngine()
	p := xds.New(xds.Config{Store: store, Catalog: catalog, Engine: engine})
	class := delivery.Class{Group: "edge", Band: 40}
	p.Join(class)
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(t.Context()) }()
	t.Cleanup(func() { <-done })
	cluster := func() string {
		tab := engine.Table(class)
		r := tab.Get(delivery.Clusters, "cloud")
		if r == nil {
			return "none"
		}
		c := &clusterv3.Cluster{}
		if err := r.Message().UnmarshalTo(c); err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, l := range c.GetLoadAssignment().GetEndpoints() {
			for _, e := range l.LbEndpoints {
				out = append(out, e.GetEndpoint().GetHostname()+"="+e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress())
			}
		}
		if r.Assignment != "" || len(slices.Collect(tab.All(delivery.Assignments))) > 0 {
			out = append(out, "and an assignment")
		}
		kind := c.GetType().String()
		if c.GetClusterType() != nil {
			kind = c.GetClusterType().Name
		}
		return kind + " " + strings.Join(out, " ")
	}
	until := func(want string) {
		t.Helper()
		for range 1000 {
			if cluster() == want {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Fatalf("%s, want %s", cluster(), want)
	}
	if tab := engine.Table(class); !tab.Unknown["cloud"] || cluster() != "none" {
		t.Errorf("served before it is known: %s", cluster())
	}
	catalog.tell("cloud", "api.example.com:443", "10.0.0.1:443", "not a name:443", "no-port")
	until("envoy.clusters.dns api.example.com=api.example.com =10.0.0.1")
	if ps := p.Problems(); len(ps) != 2 || !strings.Contains(ps[0].Message, "neither an IP nor a name") {
		t.Errorf("problems %v", ps)
	}
	catalog.tell("cloud", "other.example.com:443")
	until("envoy.clusters.dns other.example.com=other.example.com")
	if ps := p.Problems(); len(ps) != 0 {
		t.Errorf("problems %v", ps)
	}
	// without hostnames the same entry is a problem, and the assignment has nobody
	store.apply(t, "kind: Upstream\nname: cloud\nspec: {service: {source: consul}}\n---\nkind: Route\nname: all\nspec: {hosts: ['*'], rules: [{to: [{upstream: cloud}]}]}\n")
	until("EDS and an assignment")
}
