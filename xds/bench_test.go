package xds_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds"
	"github.com/wellspring-xds/wellspring/xds/delivery"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

// Everything of 1,000 upstreams with 10 endpoints each, from documents and services
// to checked bytes. The limit to compare with is encoding the finished messages.
func BenchmarkTranslate1000(b *testing.B) {
	store := newStore(b, fleet(1000))
	sp := store.Spec()
	services := map[string]*model.Service{}
	for i := range 1000 {
		name := fmt.Sprintf("u%d", i)
		services[name] = &model.Service{Key: model.ServiceKey{Source: "consul", Name: name}, Presence: model.Present, Endpoints: present(10).Endpoints}
	}
	l, _ := sp.Listener("edge")
	all := func() (out []proto.Message) {
		for _, name := range sp.Upstreams("edge") {
			u, _ := sp.Upstream(name)
			m, _ := translate.Assignment(name, u, services[name])
			c, err := translate.Cluster(name, u, nil, translate.Form{Band: translate.MaxBand})
			if err != nil {
				b.Fatal(err)
			}
			out = append(out, c, m)
		}
		lm, err := translate.Listener("edge", l, translate.Form{Band: translate.MaxBand})
		if err != nil {
			b.Fatal(err)
		}
		routes, err := translate.RouteTable("edge", l, sp, translate.MaxBand)
		if err != nil {
			b.Fatal(err)
		}
		return append(out, lm, routes)
	}
	encode := func(ms []proto.Message, check bool) {
		for _, m := range ms {
			if check {
				if err := translate.Check(m); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := (proto.MarshalOptions{Deterministic: true}).Marshal(m); err != nil {
				b.Fatal(err)
			}
		}
	}
	finished := all()
	start := time.Now()
	const rounds = 5
	for range rounds {
		encode(finished, false)
	}
	limit := time.Since(start) / rounds
	for b.Loop() {
		encode(all(), true)
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(limit), "x-encoding")
}

// An apply that touches one of many upstreams: translate, publish, and nothing
// else changes its version.
func BenchmarkApplyOneOf1000(b *testing.B) {
	store := newStore(b, fleet(1000))
	w := newWorld(b, store)
	for i := range 1000 {
		w.registry.say(fmt.Sprintf("u%d", i), present(10))
	}
	waitReady(b, w, "edge")
	w.connect("edge-1", "edge").next()
	b.ResetTimer()
	for i := range b.N {
		changed := w.publisher.Changed()
		store.apply(b, fmt.Sprintf("kind: Upstream\nname: u1\nspec: {service: {source: consul}, connectTimeout: %dms}\n", i%1000+1))
		<-changed
	}
}

// One of 10,000 upstreams changes: it is read, checked with all others, translated and
// in the table of its class. What is left out is writing it down
// (pkg/store's BenchmarkApplyOneOf10000).
func BenchmarkChangeOneOf10000(b *testing.B) {
	const n = 10_000
	store := newStore(b, wideFleet(n))
	w := newWorld(b, store)
	for i := range n {
		w.registry.say(fmt.Sprintf("u%d", i), present(10))
	}
	waitReady(b, w, "edge")
	class := delivery.Class{Group: "edge", Band: int(translate.MaxBand)}
	w.publisher.Join(class)
	b.ResetTimer()
	for i := range b.N {
		before, changed := store.Spec(), w.publisher.Changed()
		store.change(b, fmt.Sprintf("kind: Upstream\nname: u%d\nspec: {service: {source: consul}, connectTimeout: %dms}\n", i*7919%n, i%1000+1))
		if faults, _ := w.publisher.Validate(before, store.Spec()); len(faults) > 0 {
			b.Fatal(faults)
		}
		<-changed
	}
}

// What it takes to hold 10,000 upstreams with 10 endpoints each, for one class and for 20
// that are served the same: documents, services and tables.
func BenchmarkMemoryOf10000(b *testing.B) {
	const n = 10_000
	live := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / 1e6
	}
	for b.Loop() {
		empty := live()
		groups := ""
		for i := range 4 {
			groups += fmt.Sprintf("---\nkind: Group\nname: edge-%d\nspec: {listeners: [edge], match: {cluster: edge-%d}}\n", i, i)
		}
		store := newStore(b, wideFleet(n)+groups)
		w := newWorld(b, store)
		for i := range n {
			w.registry.say(fmt.Sprintf("u%d", i), present(10))
		}
		waitReady(b, w, "edge")
		before := live()
		w.publisher.Join(delivery.Class{Group: "edge", Band: int(translate.MaxBand)})
		one := live()
		for band := range 4 {
			for _, group := range []string{"edge", "edge-0", "edge-1", "edge-2", "edge-3"} {
				w.publisher.Join(delivery.Class{Group: group, Band: int(translate.MaxBand) - band})
			}
		}
		b.ReportMetric(before-empty, "MB-without")
		b.ReportMetric(one-empty, "MB-1-class")
		b.ReportMetric(live()-empty, "MB-20-classes")
		runtime.KeepAlive(w)
	}
}

// wideFleet is a fleet of many upstreams behind routes of 500 rules.
func wideFleet(n int) string {
	var b strings.Builder
	var routes []string
	for from := 0; from < n; from += 500 {
		name := fmt.Sprintf("part-%02d", from/500)
		routes = append(routes, name)
		rules := ""
		for i := from; i < from+500; i++ {
			fmt.Fprintf(&b, "kind: Upstream\nname: u%d\nspec: {service: {source: consul}}\n---\n", i)
			rules += fmt.Sprintf("  - {match: {path: {prefix: /u%d}}, to: [{upstream: u%d}]}\n", i, i)
		}
		fmt.Fprintf(&b, "kind: Route\nname: %s\nspec:\n  hosts: [%s.test]\n  rules:\n%s---\n", name, name, rules)
	}
	fmt.Fprintf(&b, "kind: Listener\nname: edge\nspec: {address: '127.0.0.1:10000', routes: [%s]}\n---\nkind: Group\nname: edge\nspec: {listeners: [edge]}\n", strings.Join(routes, ", "))
	return b.String()
}

// One service of 1,000 changes, until its table is published.
func BenchmarkPublishOneOf1000(b *testing.B) {
	store := newStore(b, fleet(1000))
	w := newWorld(b, store)
	for i := range 1000 {
		w.registry.say(fmt.Sprintf("u%d", i), present(10))
	}
	waitReady(b, w, "edge")
	c := w.connect("edge-1", "edge")
	c.next()
	c.subscribe(delivery.Assignments, w.assignments()["u1"])
	c.next()
	b.ResetTimer()
	for i := range b.N {
		w.registry.say("u1", present(10, i%10))
		c.next()
	}
}

// What a document costs where 5,000 services are imported into a group: which of
// Envoy's resources it touches.
func BenchmarkImpact(b *testing.B) {
	docs, faults := spec.Parse("bench", []byte("kind: Listener\nname: out\nspec: {address: '127.0.0.1:1', autoRoutes: {domain: svc.local}}\n---\nkind: Group\nname: edge\nspec: {listeners: [out]}\n"))
	if err := faults.Err(); err != nil {
		b.Fatal(err)
	}
	declared, _, _ := spec.New(1, docs)
	var keys []model.ServiceKey
	for i := range 5000 {
		keys = append(keys, model.ServiceKey{Source: "consul", Name: fmt.Sprint("web-", i)})
	}
	published, _ := declared.WithImports(keys, nil, nil)
	before, _ := declared.WithImports(keys, published, nil)
	after, _ := declared.WithImports(keys, published, nil)
	for b.Loop() {
		if n := len(xds.Impact(before, after)); n != 0 {
			b.Fatalf("%d resources differ", n)
		}
	}
}
