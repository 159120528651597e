package xds_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wellspring-xds/wellspring/xds/delivery"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

// Whatever of upstreams changes, classes are served as if everything had been made
// anew; and where it is nothing but a cluster's own matter, nothing else is made.
func TestAmend(t *testing.T) {
	const n = 6
	forms := []struct {
		spec string
		own  bool // of the cluster alone, seen from the first form
	}{
		{"{service: {source: consul}}", true},
		{"{service: {source: consul}, connectTimeout: 1s}", true},
		{"{service: {source: consul}, connectTimeout: 2s, healthChecks: [{http: {path: /ready}}]}", true},
		{"{service: {source: consul}, loadBalancing: {policy: maglev}}", true},
		{"{service: {source: consul}, healthChecks: [{http: {path: /ready}, port: 9000}]}", false},
		{"{service: {source: consul}, protocol: http2}", false},
		{"{service: {source: consul}, protocol: grpc}", false},
		{"{service: {source: consul, tags: [v2]}}", false},
		{"{service: {source: consul, name: u0}}", false},
		{"{service: {source: consul, name: nobody}}", false},
		{"{endpoints: [{address: '10.9.0.1:80'}]}", false},
		{"{dns: {hosts: ['a.test:80']}}", false},
		{"{service: {source: consul, addresses: hostname}}", false},
		{"{service: {source: consul, addresses: hostname}, connectTimeout: 3s}", false},
		{"{service: {source: consul}, envoy: {lbSubsetConfig: {fallbackPolicy: NO_SUCH}}}", false},
	}
	store := newStore(t, fleet(n)+"---\nkind: Listener\nname: grpc\nspec: {grpc: true, autoRoutes: {domain: svc.test}}\n---\nkind: Group\nname: programs\nspec: {listeners: [grpc], match: {cluster: programs}}\n")
	for i := range n { // so that no service is asked for anew, and answers while it is compared
		store.apply(t, fmt.Sprintf("kind: Upstream\nname: keep%d\nspec: {service: {source: consul, name: u%d}}\n", i, i))
	}
	w := newWorld(t, store)
	for i := range n {
		w.registry.say(fmt.Sprintf("u%d", i), present(3))
	}
	waitReady(t, w, "edge")
	for _, c := range []delivery.Class{{Group: "edge", Band: int(translate.MaxBand)}, {Group: "edge", Band: int(translate.MaxBand) - 3}, {Group: "programs", Band: int(translate.GRPC)}} {
		w.publisher.Join(c)
	}
	now := [n]int{}
	rnd := rand.New(rand.NewPCG(1, 2))
	amended, whole := 0, 0
	for step := range 600 {
		i, to, text := rnd.IntN(n), rnd.IntN(len(forms)), ""
		add := func(i, to int) { text += fmt.Sprintf("---\nkind: Upstream\nname: u%d\nspec: %s\n", i, forms[to].spec) }
		add(i, to)
		own := forms[now[i]].own && forms[to].own && now[i] != to
		if other := (i + 1) % n; step%5 == 0 { // two at once
			toOther := rnd.IntN(len(forms))
			add(other, toOther)
			own = own && forms[now[other]].own && forms[toOther].own
			now[other] = toOther
		}
		now[i] = to
		before, changed := w.publisher.Whole(), w.publisher.Changed()
		store.change(t, text)
		<-changed
		is := w.publisher.Whole() == before
		if own && !is {
			t.Errorf("step %d: everything was made anew for\n%s", step, text)
		} else if is {
			amended++
		} else {
			whole++
		}
		other, problems, remade := w.publisher.Remade()
		if !is {
			continue // it was made as a whole just now
		}
		if len(other) > 0 {
			t.Errorf("step %d: classes %v are served otherwise once everything is made anew, after\n%s", step, other, text)
		}
		if diff := cmp.Diff(problems, remade); diff != "" {
			t.Errorf("step %d: problems are others once everything is made anew, after\n%s%s", step, text, diff)
		}
		if t.Failed() {
			break
		}
	}
	if amended < 20 || whole < 20 {
		t.Errorf("%d changes were amended, %d made anew: not both ways were gone", amended, whole)
	}
}

// What was amended again and again, while services change and classes come, is what a
// publisher serves that has just started.
func TestAmendedAsAnew(t *testing.T) {
	const n = 5
	forms := []string{
		"{service: {source: consul}}",
		"{service: {source: consul}, connectTimeout: %dms}",
		"{service: {source: consul}, connectTimeout: %dms, tls: {ca: {file: ca.pem}, sans: [a.test]}}",
		"{service: {source: consul}, connectTimeout: %dms, tls: {ca: {file: other.pem}, sans: [a.test]}}",
		"{service: {source: consul}, envoyEndpoints: {policy: {overprovisioningFactor: %d}}}",
		"{service: {source: consul}, healthChecks: [{tcp: {}}], connectTimeout: %dms}",
		"{service: {source: consul}, protocol: http2, connectTimeout: %dms}",
	}
	// a group that leads to two of them only, whose proxies may hold the others still
	store := newStore(t, fleet(n)+"---\nkind: Route\nname: few\nspec: {hosts: [few.test], rules: [{to: [{upstream: u0}]}, {match: {path: {prefix: /1}}, to: [{upstream: u1}]}]}\n"+
		"---\nkind: Listener\nname: few\nspec: {address: '127.0.0.1:10001', routes: [few]}\n---\nkind: Group\nname: few\nspec: {listeners: [few], match: {cluster: few}}\n")
	w := newWorld(t, store)
	for i := range n {
		w.registry.say(fmt.Sprintf("u%d", i), present(3))
	}
	waitReady(t, w, "edge")
	classes := []delivery.Class{{Group: "edge", Band: int(translate.MaxBand)}, {Group: "few", Band: int(translate.MaxBand)}, {Group: "edge", Band: int(translate.MaxBand) - 3}}
	w.publisher.Join(classes[0])
	edge, c := w.connect("edge-1", "edge"), w.connect("few-1", "few")
	edge.next()
	c.subscribe(delivery.Assignments, w.assignments()["u3"]) // of a cluster that it has from somewhere
	for _, c := range []*client{edge, c} {
		go func() {
			for range c.frames { // until the test ends
			}
		}()
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	amended := 0
	for step := range 300 {
		if step%60 == 0 {
			w.publisher.Join(classes[step/60%len(classes)])
		}
		name := fmt.Sprintf("u%d", rnd.IntN(n))
		if rnd.IntN(3) == 0 {
			w.registry.say(name, present(1+rnd.IntN(5)))
		}
		form := forms[rnd.IntN(len(forms))]
		if strings.Contains(form, "%d") {
			form = fmt.Sprintf(form, 100+step)
		}
		before, changed := w.publisher.Whole(), w.publisher.Changed()
		store.change(t, fmt.Sprintf("kind: Upstream\nname: %s\nspec: %s\n", name, form))
		<-changed
		if w.publisher.Whole() == before {
			amended++
		}
		diff := ""
		for range 200 { // services are taken up a moment later
			anew := w.publisher.Anew()
			if diff = cmp.Diff(anew.Served(), w.publisher.Served()) + cmp.Diff(anew.Problems(), w.publisher.Problems()); diff == "" {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if diff != "" {
			t.Fatalf("step %d: a publisher that starts now serves otherwise (-), after %s got %s\n%s", step, name, form, diff)
		}
	}
	if amended < 100 {
		t.Errorf("%d changes were amended", amended)
	}
}
