package lint

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/probe"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// parsed are documents, and the Spec that they are.
func parsed(t *testing.T, text string) (*spec.Spec, []*spec.Document) {
	t.Helper()
	docs, faults := spec.Parse("x.yaml", []byte(text))
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	s, _, faults := spec.New(1, docs)
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	return s, docs
}

// told are warnings as "CODE DOCUMENT FIELD".
func told(all []spec.Fault) string {
	var out []string
	for _, f := range all {
		out = append(out, f.Code+" "+f.Document+" "+f.Field)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

const route = "kind: Upstream\nname: a\nspec: {endpoints: [{address: '10.0.0.1:80'}, {address: '10.0.0.2:80'}]}\n---\nkind: Route\nname: r\nspec:\n  hosts: ['*']\n  rules:\n"

func TestShadowed(t *testing.T) {
	for _, x := range []struct {
		first, second string
		want          bool
	}{
		{"{}", "{path: {exact: /a}}", true},
		{"{path: {prefix: /}}", "{path: {regex: /a.*}}", true},
		{"{path: {prefix: /a}}", "{path: {prefix: /a}}", true},
		{"{path: {prefix: /a}}", "{path: {prefix: /a/b}}", true},
		{"{path: {prefix: /a/}}", "{path: {exact: /a/b}}", true},
		{"{path: {prefix: /a}}", "{path: {exact: /a}}", true},
		{"{path: {prefix: /a}}", "{path: {prefix: /ab}}", false},
		{"{path: {prefix: /a}}", "{path: {regex: /a/b}}", false}, // it could be, and is not certain
		{"{path: {prefix: /a/b}}", "{path: {prefix: /a}}", false},
		{"{path: {exact: /a}}", "{path: {exact: /a}}", true},
		{"{path: {exact: /a}}", "{path: {prefix: /a}}", false},
		{"{path: {regex: /a}}", "{path: {regex: /a}}", true},
		{"{methods: [GET]}", "{methods: [GET]}", true},
		{"{methods: [GET, POST]}", "{methods: [POST], path: {exact: /a}}", true},
		{"{methods: [GET]}", "{methods: [GET, POST]}", false},
		{"{methods: [GET]}", "{path: {exact: /a}}", false},
		{"{headers: [{name: x, exact: '1'}]}", "{headers: [{name: x, exact: '1'}, {name: y, prefix: a}]}", true},
		{"{headers: [{name: x, exact: '1'}]}", "{headers: [{name: x, exact: '2'}]}", false},
		{"{headers: [{name: x, exact: '1'}]}", "{path: {exact: /a}}", false},
	} {
		s, docs := parsed(t, route+fmt.Sprintf("  - {match: %s, to: [{upstream: a}]}\n  - {match: %s, to: [{upstream: a}]}\n", x.first, x.second))
		want := ""
		if x.want {
			want = "shadowed-rule Route/r spec.rules[1].match"
		}
		if got := told(Documents(s, docs)); got != want {
			t.Errorf("%s before %s: %q", x.first, x.second, got)
		}
	}
}

// Of many rules the same is found as by holding each against each.
func TestShadowedAmongMany(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	found := 0
	for range 300 {
		var text strings.Builder
		for range 12 {
			path := pick("prefix: ", "prefix: ", "exact: ", "regex: ") + pick("/", "/a", "/a/", "/a/b", "/a/b/", "/ab", "/a/b/c", "/b")
			fmt.Fprintf(&text, "  - {match: {path: {%s}%s}, to: [{upstream: a}]}\n", path, pick("", "", ", methods: [GET]", ", headers: [{name: x, present: true}]", ", headers: [{name: y, exact: a}, {name: x, present: true}]", ", headers: [{name: y, exact: b}]"))
		}
		text.WriteString(pick("", "  - {to: [{upstream: a}]}\n"))
		s, docs := parsed(t, route+text.String())
		var want []string
		rules := docs[slices.IndexFunc(docs, func(d *spec.Document) bool { return d.Kind == spec.KindRoute })].Body.(*spec.Route).Rules
		for j := range rules {
			if i := slices.IndexFunc(rules[:j], func(x spec.Rule) bool { return covers(&x.Match, &rules[j].Match) }); i >= 0 {
				want = append(want, fmt.Sprintf("rules[%d].match: rules[%d]", j, i))
			}
		}
		var got []string
		for _, f := range Documents(s, docs) {
			_, at, _ := strings.Cut(f.Field, "spec.")
			by, _, _ := strings.Cut(f.Message, " ")
			got = append(got, at+": "+by)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%s\nfound %q, want %q", text.String(), got, want)
		}
		found += len(got)
	}
	t.Logf("%d shadowed rules", found)
}

// hops is an edge before sidecars: the edge's upstream is where their inbound listener is,
// which leads to the application.
func hops(edge, sidecar string) string {
	return fmt.Sprintf(`
kind: Upstream
name: shop
spec: {endpoints: [{address: '10.0.0.1:9000'}, {address: '10.0.0.2:9000'}, {address: '10.0.0.3:9000'}]}
---
kind: Route
name: edge
spec: {hosts: ['*'], rules: [{to: [{upstream: shop}], retry: %s}]}
---
kind: Listener
name: edge
spec: {address: '10.0.0.9:80', routes: [edge]}
---
kind: Upstream
name: shop-app
spec: {endpoints: [{address: '127.0.0.1:8080'}]}
---
kind: Route
name: inbound
spec: {hosts: ['*'], rules: [{to: [{upstream: shop-app}], retry: %s}]}
---
kind: Listener
name: inbound
spec: {address: '0.0.0.0:9000', inbound: true, routes: [inbound]}
`, edge, sidecar)
}

// Tries multiply from hop to hop where the one before tries answers again.
func TestRetryStorm(t *testing.T) {
	for _, x := range []struct{ name, edge, sidecar, want, says string }{
		{"defaults", "{}", "{}", "", ""},
		{"both try again", "{on: [5xx], attempts: 3}", "{on: [5xx], attempts: 3}", "retry-storm Route/edge spec.rules[0].retry", "may become 9 tries (3 by Route/edge rules[0] × 3 by Route/inbound rules[0])"},
		{"few", "{on: [5xx], attempts: 3}", "{on: [5xx], attempts: 2}", "", ""},
		{"the edge tries connections alone", "{attempts: 10}", "{on: [5xx], attempts: 5}", "", ""},
		{"one hop alone", "{on: [gatewayError], attempts: 10}", "{attempts: 1}", "retry-storm Route/edge spec.rules[0].retry", "may become 10 tries (10 by Route/edge rules[0])"},
	} {
		s, docs := parsed(t, hops(x.edge, x.sidecar))
		all := Documents(s, docs)
		if got := told(all); got != x.want || x.want != "" && !strings.Contains(all[0].Message, x.says) {
			t.Errorf("%s: %q: %v", x.name, got, all)
		}
	}
	// roads that meet again and again are walked once
	var many strings.Builder
	for i := range 60 {
		fmt.Fprintf(&many, "kind: Listener\nname: l%[1]d\nspec: {address: '10.1.0.%[1]d:80', routes: [all]}\n---\n", i)
	}
	many.WriteString("kind: Route\nname: all\nspec: {hosts: ['*'], rules: [{to: [{upstream: all}], retry: {on: [5xx], attempts: 2}}]}\n---\nkind: Upstream\nname: all\nspec: {endpoints: [")
	for i := range 60 {
		fmt.Fprintf(&many, "{address: '10.1.0.%d:80'}, ", i)
	}
	s, docs := parsed(t, strings.TrimSuffix(many.String(), ", ")+"]}\n")
	start := time.Now()
	if Documents(s, docs); time.Since(start) > 10*time.Second {
		t.Errorf("took %s", time.Since(start))
	}
	// a listener that leads to itself ends
	s, docs = parsed(t, strings.ReplaceAll(hops("{on: [5xx], attempts: 3}", "{}"), "10.0.0.1:9000", "10.0.0.9:80"))
	if got := told(Documents(s, docs)); got != "retry-storm Route/edge spec.rules[0].retry" {
		t.Errorf("a circle: %q", got)
	}
}

// A document that ignores a rule is left alone by it, and by no other.
func TestFewAndIgnored(t *testing.T) {
	const document = "kind: Upstream\nname: a\n%sspec: {endpoints: [%s], outlierDetection: {maxEjectionPercent: 100}, whenUnavailable: {panic: %s}}\n"
	const one, two, three = "{address: '10.0.0.1:80'}", "{address: '10.0.0.1:80'}, {address: '10.0.0.2:80'}", "{address: '10.0.0.1:80'}, {address: '10.0.0.2:80'}, {address: '10.0.0.3:80'}"
	const fewer, noWay = "few-to-eject Upstream/a spec.outlierDetection", "no-way-out Upstream/a spec.whenUnavailable.panic"
	for _, x := range []struct{ ignore, endpoints, panic, want string }{
		{"", three, "{below: 0}", ""},
		{"", two, "{below: 0}", fewer},
		{"", one, "{}", fewer},
		{"", one, "{below: 0}", fewer + ", " + noWay},
		{"", one, "{then: fail}", fewer + ", " + noWay},
		{"ignore: [few-to-eject]\n", one, "{below: 0}", noWay},
		{"ignore: [few-to-eject, no-way-out]\n", one, "{below: 0}", ""},
		{"ignore: [unused]\n", one, "{}", fewer},
	} {
		s, docs := parsed(t, fmt.Sprintf(document, x.ignore, x.endpoints, x.panic))
		if got := told(Documents(s, docs)); got != x.want {
			t.Errorf("%+v: %q", x, got)
		}
	}
	if _, faults := spec.Parse("x.yaml", []byte("kind: Upstream\nname: a\nignore: [unsued]\nspec: {endpoints: []}\n")); len(faults) != 1 || !strings.Contains(faults.Error(), `ignore[0]: "unsued" is no rule of lint (allowed: unused, `) {
		t.Errorf("a code that there is not: %v", faults)
	}
}

// world is what the test says that runs.
type world struct {
	known   map[string]model.Known
	events  []model.Event
	results map[string]probe.Result
	asked   []string
}

func (w *world) Known(_ context.Context, key model.ServiceKey) model.Known { return w.known[key.Name] }
func (w *world) Happened() []model.Event                                   { return w.events }
func (w *world) Streams(context.Context) []model.Stream                    { return nil }

func (w *world) Replay(_ context.Context, name string, _ *spec.Upstream, endpoints []model.Endpoint) (out []probe.Result) {
	w.asked = append(w.asked, name)
	for _, e := range endpoints {
		r := w.results[e.Address]
		r.Endpoint, r.Target = e.Address, e.Address
		out = append(out, r)
	}
	return out
}

func every(*spec.Document, *spec.Upstream) bool { return true }
func none(*spec.Document, *spec.Upstream) bool  { return false }

func present(health ...model.Health) model.Known {
	svc := &model.Service{Presence: model.Present}
	for i, h := range health {
		svc.Endpoints = append(svc.Endpoints, model.Endpoint{ID: fmt.Sprint(i), Address: fmt.Sprintf("10.0.0.%d:80", i+1), Health: h, Weight: 1, Tags: []string{"v1"}})
	}
	return model.Known{Service: svc}
}

// What runs tells what documents do not.
func TestLiving(t *testing.T) {
	const of = "kind: Upstream\nname: web\nignore: [%s]\nspec: {service: {source: consul%s}%s}\n"
	check := ", healthChecks: [{http: {path: /healthz}}]"
	passes, fails := probe.Result{Checked: true, Outcome: probe.Passes}, probe.Result{Checked: true, Outcome: probe.Unexpected, Says: "404"}
	healthy3 := present(model.Healthy, model.Healthy, model.Healthy)
	for _, x := range []struct {
		name, service, more string
		known               model.Known
		results             map[string]probe.Result
		want, says          string
	}{
		{"all is well", "", check, healthy3, map[string]probe.Result{"10.0.0.1:80": passes, "10.0.0.2:80": passes, "10.0.0.3:80": passes}, "", ""},
		{"nobody of the name", "", "", model.Known{Service: &model.Service{Presence: model.Absent}}, nil, "no-endpoints Upstream/web spec.service", "source consul knows nobody named web"},
		{"none has the tag", ", tags: [v2]", "", healthy3, nil, "no-endpoints Upstream/web spec.service", "3 instances of web, and tags, metadata or address tag select none"},
		{"it cannot be read", "", "", model.Known{Failure: errors.New("no leader")}, nil, "not-readable Upstream/web spec.service", "source consul: no leader"},
		{"nothing is known", "", "", model.Known{}, nil, "", ""},
		{"it fails at all", "", check, healthy3, map[string]probe.Result{"10.0.0.1:80": fails, "10.0.0.2:80": fails, "10.0.0.3:80": fails}, "check-fails Upstream/web spec.healthChecks[0]", "it fails at 3 of 3 endpoints that are healthy now (10.0.0.1:80: 404)"},
		{"it fails at one that is out", "", check, present(model.Healthy, model.Healthy, model.Unhealthy), map[string]probe.Result{"10.0.0.1:80": passes, "10.0.0.2:80": passes, "10.0.0.3:80": fails}, "", ""},
		{"it was not tried", "", check, healthy3, map[string]probe.Result{"10.0.0.1:80": {Outcome: probe.NotTried}}, "", ""},
		{"two, and outlier detection", "", ", outlierDetection: {}", present(model.Healthy, model.Healthy), nil, "few-to-eject Upstream/web spec.outlierDetection", "with 2 endpoints one ejection is 50 %"},
		{"meant so", "", ", outlierDetection: {}", present(model.Healthy, model.Healthy), nil, "", ""},
	} {
		ignore := ""
		if x.name == "meant so" {
			ignore = spec.AdviceFewToEject
		}
		s, docs := parsed(t, fmt.Sprintf(of, ignore, x.service, x.more))
		w := &world{known: map[string]model.Known{"web": x.known}, results: x.results}
		all := Living(t.Context(), s, docs, w, every)
		if got := told(all); got != x.want || x.want != "" && !strings.Contains(all[0].Message, x.says) {
			t.Errorf("%s: %q: %v", x.name, got, all)
		}
		if Living(t.Context(), s, docs, w, none); len(w.asked) > 1 {
			t.Errorf("%s: tried though it should not be", x.name)
		}
	}
	// a check of endpoints that are declared, maybe only now
	s, docs := parsed(t, "kind: Upstream\nname: web\nspec: {endpoints: [{address: '10.0.0.1:80'}]"+check+"}\n")
	if got := told(Living(t.Context(), s, docs, &world{results: map[string]probe.Result{"10.0.0.1:80": fails}}, every)); got != "check-fails Upstream/web spec.healthChecks[0]" {
		t.Errorf("declared: %q", got)
	}
}

// Endpoints that are replaced faster than a check notices are too many in between.
func TestSlowCheck(t *testing.T) {
	start := time.Date(2026, 7, 1, 14, 0, 0, 0, time.UTC)
	key := model.ServiceKey{Source: "consul", Name: "web"}
	happened := func(kind string, seconds ...int) (out []model.Event) {
		for _, s := range seconds {
			out = append(out, model.Event{Kind: kind, Time: start.Add(time.Duration(s) * time.Second), Subject: model.Subject{Kind: "Service", Name: key.String()}})
		}
		return out
	}
	came := func(s ...int) []model.Event { return happened(model.EventEndpointAdded, s...) }
	left := func(s ...int) []model.Event { return happened(model.EventEndpointRemoved, s...) }
	s, docs := parsed(t, "kind: Upstream\nname: web\nspec: {service: {source: consul}, healthChecks: [{http: {path: /h}, interval: 5s, timeout: 1s, unhealthyThreshold: 3}]}\n")
	for _, x := range []struct {
		name   string
		events []model.Event
		says   string
	}{
		{"nothing happened", nil, ""},
		{"one each 4 s", append(came(-900, 0, 4, 8, 12), left(2, 6, 10, 14)...), "after 16s (interval × unhealthyThreshold + timeout), and the fastest rollout replaced one each 4s: 4 of 4"},
		{"one each minute", append(came(-900, 0, 60, 120, 180), left(30, 90, 150, 210)...), ""},
		{"one each 9 s: two of four", append(came(-900, 0, 9, 18, 27), left(1, 10, 19, 28)...), "each 9s: 2 of 4"},
		{"a registry that forgot for a moment", append(came(-900, 2, 2, 2, 2), left(1, 1, 1, 1)...), ""},
		{"this process begins, and two leave", append(came(0, 0, 0, 0), left(2, 6)...), ""},
		{"they only left", left(2, 6, 10, 14), ""},
		{"one was replaced", append(came(0), left(1)...), ""},
		{"twice one, an hour apart", append(came(0, 3600), left(1, 3601)...), ""},
	} {
		w := &world{known: map[string]model.Known{"web": present(model.Healthy, model.Healthy, model.Healthy, model.Healthy)}, events: x.events}
		all := Living(t.Context(), s, docs, w, none)
		switch {
		case x.says == "" && len(all) > 0:
			t.Errorf("%s: %v", x.name, all)
		case x.says != "" && (told(all) != "slow-check Upstream/web spec.healthChecks[0].interval" || !strings.Contains(all[0].Message, x.says)):
			t.Errorf("%s: %v", x.name, all)
		}
	}
}

// What is of Envoys before 1.40 is said where there may be one.
func TestSettled(t *testing.T) {
	s, _ := parsed(t, `
kind: Upstream
name: web
spec: {endpoints: [{address: '10.0.0.1:80'}], healthChecks: [{http: {path: /a}}, {http: {path: /b}}]}
---
kind: Route
name: r
spec: {hosts: ['*'], rules: [{to: [{upstream: web}]}]}
---
kind: Listener
name: l
spec: {address: '10.0.0.1:1', routes: [r]}
---
kind: Group
name: edge
spec: {listeners: [l]}
`)
	all, _ := s.Check()
	if told(all) != "first-check-only Upstream/web spec.healthChecks" {
		t.Fatalf("%v", all)
	}
	proxy := func(group, version string) model.Stream {
		return model.Stream{Proxy: model.Proxy{Group: group, Version: version}}
	}
	for _, x := range []struct {
		name    string
		streams []model.Stream
		told    int
		lacks   string
	}{
		{"nobody is connected", nil, 1, "no-proxies Group/edge name"},
		{"another group's are", []model.Stream{proxy("other", "1.40.0")}, 1, "no-proxies Group/edge name"},
		{"all are new", []model.Stream{proxy("edge", "1.40.0"), proxy("edge", "1.41.1")}, 0, ""},
		{"one is old", []model.Stream{proxy("edge", "1.40.0"), proxy("edge", "1.39.3")}, 1, ""},
		{"one does not say", []model.Stream{proxy("edge", "")}, 1, ""},
	} {
		if got := Settled(s, slices.Clone(all), x.streams); len(got) != x.told {
			t.Errorf("%s: %v", x.name, got)
		}
		if got := told(NoProxies(s, x.streams)); got != x.lacks {
			t.Errorf("%s: %q", x.name, got)
		}
	}
}

// slowWorld answers after a while, or when nobody waits any more.
type slowWorld struct{ world }

func (w *slowWorld) Known(ctx context.Context, _ model.ServiceKey) model.Known {
	select {
	case <-ctx.Done():
		return model.Known{Failure: ctx.Err()}
	case <-time.After(time.Second):
		return model.Known{Service: &model.Service{Presence: model.Absent}}
	}
}

// What there is no time for is said, and is no finding.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		for i := range 100 {
			fmt.Fprintf(&text, "kind: Upstream\nname: u%d\nspec: {service: {source: consul}}\n---\n", i)
		}
		s, docs := parsed(t, strings.TrimSuffix(text.String(), "---\n"))
		all := Living(t.Context(), s, docs, &slowWorld{}, every)
		count := map[string]int{}
		for _, f := range all {
			count[f.Code]++
		}
		last := all[len(all)-1]
		if count[spec.AdviceNotReadable] > 0 || count[spec.AdviceNoEndpoints] < 30 || !strings.Contains(last.Message, "upstreams were not held against what runs") {
			t.Errorf("%v, at last %q", count, last.Message)
		}
	})
}
