package main_test

import (
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"
)

// fault is one thing that is made to fail.
type fault struct {
	name string // what is done
	// codes must be found, one of them first; also are true besides.
	codes, also string
	spec, rule  string                // the document while all is well; {1} {2} are its backends
	more        string                // documents besides
	warns       string                // a warning that must be told
	hosts       int                   // backends; default 2
	parallel    int                   // requests at once through each edge
	edge        string                // a zone of its own that leads to it; "" are a and b
	registered  bool                  // its backends are in Consul
	apart       func(n *netns) string // where its backends are, as a network of its own reaches them
	moved       bool                  // the server's machine knows another address of moved.example
	brief       bool                  // it lasts for seconds: it is asked about first, and the server need not keep it
	long        bool                  // it takes a quarter of an hour: with -lab.long only
	places0     func(b *bed) []string
	breaks      func(b *bed)
	mends       func(b *bed)
}

const (
	local    = `{endpoints: [{address: "{1}"}, {address: "{2}"}]}`
	checked  = `{endpoints: [{address: "{1}"}, {address: "{2}"}], healthChecks: [{checks}]}`
	inConsul = `{service: {source: consul}}`

	upstreamInConsul = "kind: Upstream\nname: {name}"
)

// revised is a fault that a revision makes, and another one mends.
func revised(name, codes, also, before, after string) fault {
	return fault{name: name, codes: codes, also: also + " K1", spec: before, breaks: func(b *bed) { b.apply(after) }, mends: func(b *bed) { b.apply(b.spec) }}
}

// with is a document that has more, in the place of its last brace.
func with(spec, more string) string { return strings.TrimSuffix(spec, "}") + ", " + more + "}" }

func inRegistry(f fault) fault {
	f.registered = true
	if f.spec == "" {
		f.spec = inConsul
	}
	return f
}

// faults are the causes that one machine can make happen.
var faults = []fault{
	inRegistry(revised("the document names another service", "A1", "", inConsul, `{service: {source: consul, name: "{name}-v2"}}`)),
	inRegistry(fault{name: "checks turn critical", codes: "A2", also: "P1 P2", breaks: func(b *bed) { b.ttl(api.HealthCritical) }, mends: func(b *bed) { b.ttl(api.HealthPassing) }}),
	{name: "their node is lost", codes: "A3", also: "P1 P2", spec: inConsul, places0: (*bed).onFarNode, breaks: func(b *bed) { b.lab.far.Kill() }, mends: func(b *bed) {
		if err := b.lab.far.Restart(b.lab.t.Context()); err != nil {
			b.lab.t.Error(err)
		}
	}},
	inRegistry(fault{name: "maintenance of all", codes: "A4", also: "H8 P1 P2", breaks: func(b *bed) {
		b.eachInstance(func(id string) error { return b.agent().EnableServiceMaintenance(id, "new disks") })
	}, mends: func(b *bed) {
		b.eachInstance(b.agent().DisableServiceMaintenance)
	}}),
	inRegistry(revised("a tag that nobody has", "A5", "", inConsul, `{service: {source: consul, tags: [blue]}}`)),
	inRegistry(fault{name: "scaled to zero", codes: "A6", breaks: func(b *bed) { b.eachInstance(b.agent().ServiceDeregister); b.crash() }, mends: func(b *bed) { b.revive(0, 1); b.each(func(i int) { b.register(i, nil) }) }}),
	inRegistry(fault{name: "the registry forgets them", codes: "B5", breaks: func(b *bed) { b.eachInstance(b.agent().ServiceDeregister) }, mends: func(b *bed) { b.each(func(i int) { b.register(i, nil) }) }}),
	{name: "a deploy is told, and they crash", codes: "H3 K2", also: "E1 P1 P2", spec: checked, breaks: func(b *bed) {
		if out, code := b.lab.control.cli("events", "add", "deploy", "v2", "--upstream", b.upstream); code != 0 {
			b.lab.t.Errorf("events add: exit %d: %s", code, out)
		}
		b.crash()
	}, mends: func(b *bed) { b.revive(0, 1) }},
	inRegistry(fault{name: "checks flap", codes: "A8", also: "A2 P1 P2", breaks: func(b *bed) {
		b.goesOn(700*time.Millisecond, func(i int) { b.ttl([]string{api.HealthCritical, api.HealthPassing}[i%2]) })
	}, mends: func(b *bed) { b.doing(); b.ttl(api.HealthPassing) }}),
	revised("the document names a registry that is down", "B1", "", local, `{service: {source: away}}`),
	revised("the token is not taken", "B2", "", local, `{service: {source: stranger}}`),
	inRegistry(fault{name: "registered by names", codes: "B4", breaks: func(b *bed) {
		b.each(func(i int) { b.register(i, func(r *api.AgentServiceRegistration) { r.Address = "shop.example" }) })
	}, mends: func(b *bed) { b.each(func(i int) { b.register(i, nil) }) }}),
	revised("an authority that lies nowhere", "C2", "", local, with(local, "tls: {ca: {proxyFile: /nowhere/ca.pem}, sans: [x]}")),
	revised("a lease that nobody renews", "C10", "", local, with(local, "envoyEndpoints: {policy: {endpoint_stale_after: 2s}}")),
	{name: "the check's path is gone", codes: "H1", also: "P1 P2", spec: checked, breaks: func(b *bed) { b.health(404) }, mends: func(b *bed) { b.health(0) }},
	revised("a check of another path", "H1", "P1 P2 H9", checked, strings.Replace(checked, "{checks}", strings.Replace(labCheck, "/healthz", "/_fault?status=x", 1), 1)),
	{name: "the check is slow", codes: "H2", also: "P1 P2", spec: strings.Replace(checked, "{checks}", strings.Replace(labCheck, "/healthz", "/deep", 1), 1), breaks: func(b *bed) { b.each(func(i int) { b.backends[i].SetDelay(time.Second) }) }, mends: func(b *bed) { b.each(func(i int) { b.backends[i].SetDelay(0) }) }},
	{name: "the processes crash", codes: "H3 P2", also: "E1", spec: checked, breaks: (*bed).crash, mends: func(b *bed) { b.revive(0, 1) }},
	{name: "they crash, and panic is off", codes: "H3 P1", also: "E1", spec: with(checked, "whenUnavailable: {panic: {then: fail}}"), breaks: (*bed).crash, mends: func(b *bed) { b.revive(0, 1) }},
	revised("the check's port is wrong", "H3", "P1 P2", `{endpoints: [{address: "{1}"}], healthChecks: [{checks}]}`, `{endpoints: [{address: "{1}"}], healthChecks: [{port: {closed-port}, http: {path: /healthz}, interval: 500ms, timeout: 400ms}]}`),
	{name: "certificates of another name", codes: "H5", also: "E4 P1 P2 K1", spec: `{endpoints: [{address: "{tls}"}], tls: {ca: {file: ca.pem}, sans: [x]}, healthChecks: [{checks}]}`, places0: (*bed).secure, breaks: func(b *bed) {
		b.apply(strings.Replace(b.spec, "sans: [x]", "sans: [other.example]", 1))
	}, mends: func(b *bed) { b.apply(b.spec) }},
	{name: "the check speaks HTTP/2 to HTTP/1", codes: "H6", also: "E5 P1 P2 H1 H3 K1", spec: `{endpoints: [{address: "{plain}"}], healthChecks: [{checks}]}`, places0: (*bed).plain, breaks: func(b *bed) {
		b.apply(with(b.spec, "protocol: http2"))
	}, mends: func(b *bed) { b.apply(b.spec) }},
	{name: "an operator drains all", codes: "H8", also: "P1 P2", spec: checked, breaks: func(b *bed) { b.drain("drain", "--reason", "new disks") }, mends: func(b *bed) { b.drain("drain", "--end") }},
	{name: "too much to do", codes: "H9", also: "H1 P1 P2", spec: checked, breaks: func(b *bed) { b.health(429) }, mends: func(b *bed) { b.health(0) }},
	{name: "answers of 500", codes: "O1", also: "O2 P1 P2", spec: with(local, "outlierDetection: {consecutive5xx: 3, interval: 500ms, maxEjectionPercent: 100, baseEjection: 3s}"), breaks: func(b *bed) { b.status(500) }, mends: func(b *bed) { b.status(0) }},
	{name: "a subset that nobody is in", codes: "P4", also: "K1", spec: local, rule: `, envoy: {route: {metadata_match: {filter_metadata: {envoy.lb: {v: "2"}}}}}`, breaks: func(b *bed) {
		b.apply(with(local, "envoy: {lb_policy: ROUND_ROBIN, least_request_lb_config: null, lb_subset_config: {fallback_policy: NO_FALLBACK, subset_selectors: [{keys: [v]}]}}"))
	}, mends: func(b *bed) { b.apply(b.spec) }},
	{name: "the processes crash, unchecked", codes: "E1", spec: local, breaks: (*bed).crash, mends: func(b *bed) { b.revive(0, 1) }},
	{name: "nobody answers the connection", codes: "E2", also: "K1", spec: local, places0: (*bed).deafness, breaks: func(b *bed) { b.apply(`{endpoints: [{address: "{deaf}"}], connectTimeout: 500ms}`) }, mends: func(b *bed) { b.apply(b.spec) }},
	{name: "certificates of another name, unchecked", codes: "E4", also: "K1", spec: `{endpoints: [{address: "{tls}"}], tls: {ca: {file: ca.pem}, sans: [x]}}`, places0: (*bed).secure, breaks: func(b *bed) {
		b.apply(strings.Replace(b.spec, "sans: [x]", "sans: [other.example]", 1))
	}, mends: func(b *bed) { b.apply(b.spec) }},
	{name: "HTTP/2 to HTTP/1, unchecked", codes: "E5", also: "K1", spec: `{endpoints: [{address: "{plain}"}]}`, places0: (*bed).plain, breaks: func(b *bed) { b.apply(with(b.spec, "protocol: http2")) }, mends: func(b *bed) { b.apply(b.spec) }},
	{name: "more at once than the limits", codes: "F1", also: "F2", spec: with(local, "circuitBreakers: {connections: 6, pendingRequests: 6, requests: 6}"), rule: ", timeout: 3s", breaks: func(b *bed) {
		b.each(func(i int) { b.backends[i].SetDelay(time.Second) })
	}, mends: func(b *bed) { b.each(func(i int) { b.backends[i].SetDelay(0) }) }, parallel: 16},
	{name: "more at once than requests may", codes: "F1", also: "F2", spec: with(local, "circuitBreakers: {requests: 6}"), rule: ", timeout: 3s", breaks: func(b *bed) {
		b.each(func(i int) { b.backends[i].SetDelay(time.Second) })
	}, mends: func(b *bed) { b.each(func(i int) { b.backends[i].SetDelay(0) }) }, parallel: 14},
	{name: "answers of 500, tried again", codes: "F3", spec: local, rule: ", retry: {on: [5xx], attempts: 6, backoff: {base: 1ms, max: 2ms}}", parallel: 10, breaks: func(b *bed) { b.status(500) }, mends: func(b *bed) { b.status(0) }},
	{name: "more to eject than may be", codes: "O3", also: "O1", spec: with(local, "outlierDetection: {consecutive5xx: 3, interval: 500ms, maxEjectionPercent: 10, baseEjection: 3s}"), breaks: func(b *bed) { b.status(500) }, mends: func(b *bed) { b.status(0) }},
	{name: "their only proxy is gone", codes: "C1", edge: "lone", spec: local, breaks: func(b *bed) { b.through()[0].envoy.Kill() }, mends: func(b *bed) { b.through()[0].start(b.lab.t) }},
	{name: "their only proxy hangs", codes: "C6", also: "K1", edge: "stuck", spec: local, breaks: func(b *bed) {
		b.signal(syscall.SIGSTOP)
		b.apply(`{endpoints: [{address: "{1}"}]}`)
	}, mends: func(b *bed) { b.signal(syscall.SIGCONT) }},
	{name: "slow answers", codes: "F2", spec: local, rule: ", timeout: 300ms", breaks: func(b *bed) {
		b.each(func(i int) { b.backends[i].SetDelay(time.Second) })
	}, mends: func(b *bed) { b.each(func(i int) { b.backends[i].SetDelay(0) }) }},
	{name: "a zone that is cut off", codes: "H4 E3", also: "P1 P2 H3 K1", edge: "far", apart: (*netns).first, spec: checked, breaks: func(b *bed) { b.lab.apart.cut(b.lab.apart.first()) }, mends: func(b *bed) { b.lab.apart.join(b.lab.apart.first()) }},
	{name: "no way leads there, unchecked", codes: "E3", also: "F2 K1", edge: "far", apart: (*netns).second, spec: local, rule: ", timeout: 1s", breaks: func(b *bed) { b.lab.apart.cut(b.lab.apart.second()) }, mends: func(b *bed) { b.lab.apart.join(b.lab.apart.second()) }},
	revised("all is dropped", "G3", "", local, with(`{endpoints: [{address: "{1}"}]}`, "envoyEndpoints: {policy: {drop_overloads: [{category: all, drop_percentage: {numerator: 100}}]}}")),
	revised("the name server fails", "D1", "", `{dns: {hosts: ["shop.example:{port1}"], refresh: 1s}}`, `{dns: {hosts: ["failing.example:{port1}"], refresh: 1s}}`),
	inRegistry(fault{name: "registered under two names, and gone", codes: "H3 A7", also: "E1 P1 P2", spec: with(inConsul, "healthChecks: [{checks}]"), more: upstreamInConsul + "-old\nspec: " + inConsul, places0: func(b *bed) []string { b.sibling("old", 0, 1); return nil }, breaks: (*bed).crash, mends: func(b *bed) { b.revive(0, 1) }}),
	inRegistry(fault{name: "what three services need fails", codes: "A2 H10", also: "P1 P2", more: upstreamInConsul + "-b\nspec: " + inConsul + "\n---\n" + upstreamInConsul + "-c\nspec: " + inConsul, places0: func(b *bed) []string { b.sibling("b", 0); b.sibling("c", 1); return nil }, breaks: func(b *bed) { b.shared(api.HealthCritical) }, mends: func(b *bed) { b.shared(api.HealthPassing) }}),
	{name: "checks that fail for a moment", codes: "H11", also: "H1 P1 P2", spec: checked, breaks: func(b *bed) { b.goesOn(4*time.Second, func(i int) { b.health([]int{404, 0}[i%2]) }) }, mends: func(b *bed) { b.doing(); b.health(0) }},
	{name: "a registry that does not answer yet", codes: "B6", also: "K1", brief: true, spec: local, breaks: func(b *bed) { b.lab.slow.turn(isMute); b.apply(`{service: {source: slow}}`) }, mends: func(b *bed) { b.apply(b.spec); b.lab.slow.turn(passesOn) }},
	inRegistry(fault{name: "they move, and the registry does not tell", codes: "E1 B3", also: "A7", spec: `{service: {source: stuck}}`, breaks: func(b *bed) { b.lab.stuck.turn(isStuck); b.move() }, mends: func(b *bed) { b.lab.stuck.turn(passesOn) }}),
	{name: "their proxy asks for another name", codes: "C5", also: "A1 C3 C4 C6 K4", edge: "own", spec: local, breaks: func(b *bed) { b.ownCluster("of-somebody-else") }, mends: func(b *bed) { b.ownCluster("") }},
	{name: "one of two proxies is not told", codes: "E1 C7", also: "C6 K1", brief: true, edge: "split", hosts: 3, spec: `{endpoints: [{address: "{1}"}]}`, breaks: func(b *bed) {
		b.lab.way.shut()
		b.apply(`{endpoints: [{address: "{2}"}, {address: "{3}"}]}`)
		b.backends[0].Kill()
	}, mends: func(b *bed) { b.lab.way.open(); b.revive(0); b.apply(b.spec) }},
	{name: "they move, and a name is asked for once an hour", codes: "E1 D3", moved: true, spec: `{dns: {hosts: ["moved.example:{port1}"], refresh: 1h}}`, breaks: (*bed).crash, mends: func(b *bed) { b.revive(0, 1) }},
	{name: "another authority in the same file", codes: "E4 K3", spec: `{endpoints: [{address: "{tls}"}], tls: {ca: {file: "{name}.pem"}, sans: [x]}}`, places0: (*bed).ownAuthority, breaks: func(b *bed) { b.trust(b.lab.stranger) }, mends: func(b *bed) { b.trust(b.lab.authority) }},
	inRegistry(fault{name: "one of two is critical", codes: "A2", warns: "W1", breaks: func(b *bed) { _ = b.agent().UpdateTTL(b.id(0), "it starts", api.HealthCritical) }, mends: func(b *bed) { b.ttl(api.HealthPassing) }}),
	{name: "ten times the requests", codes: "F1 F4", also: "F2", long: true, spec: with(local, "circuitBreakers: {requests: 4}"), breaks: func(b *bed) {
		b.each(func(i int) { b.backends[i].SetDelay(100 * time.Millisecond) })
		b.goesOn(20*time.Millisecond, func(int) { b.burst(20) })
	}, mends: func(b *bed) { b.doing(); b.each(func(i int) { b.backends[i].SetDelay(0) }) }},
	revised("a name that is not there", "D2", "", `{dns: {hosts: ["shop.example:{port1}"], refresh: 1s}}`, `{dns: {hosts: ["shpo.example:{port1}"], refresh: 1s}}`),
}

// pairs are two faults at once.
var pairs = []fault{
	{name: "one crashes, the other's check fails", codes: "H3 H1", also: "E1 P1 P2", spec: checked, breaks: func(b *bed) { b.backends[0].Kill(); b.backends[1].SetHealth(404) }, mends: func(b *bed) { b.backends[1].SetHealth(0); b.revive(0) }},
	{name: "two statuses of the check", codes: "H1 H9", also: "P1 P2", spec: checked, breaks: func(b *bed) { b.backends[0].SetHealth(404); b.backends[1].SetHealth(429) }, mends: func(b *bed) { b.health(0) }},
	inRegistry(fault{name: "one critical, one in maintenance", codes: "A2 A4", also: "H8 P1 P2", breaks: func(b *bed) {
		_ = b.agent().UpdateTTL(b.id(0), "disk full", api.HealthCritical)
		_ = b.agent().EnableServiceMaintenance(b.id(1), "new disks")
	}, mends: func(b *bed) { _ = b.agent().DisableServiceMaintenance(b.id(1)); b.ttl(api.HealthPassing) }}),
	inRegistry(fault{name: "one critical, the other crashes", codes: "A2 E1", also: "P1 P2", breaks: func(b *bed) {
		_ = b.agent().UpdateTTL(b.id(0), "disk full", api.HealthCritical)
		b.crash()
	}, mends: func(b *bed) { b.revive(0, 1); b.ttl(api.HealthPassing) }}),
	{name: "one crashes, the other is slow", codes: "F2 E1", spec: local, rule: ", timeout: 300ms", breaks: func(b *bed) { b.backends[0].Kill(); b.backends[1].SetDelay(time.Second) }, mends: func(b *bed) { b.backends[1].SetDelay(0); b.revive(0) }},
	{name: "one is ejected, the other's check fails", codes: "O1 H1", also: "O2 P1 P2", spec: with(checked, "outlierDetection: {consecutive5xx: 3, interval: 500ms, maxEjectionPercent: 100, baseEjection: 3s}"), breaks: func(b *bed) { b.backends[0].SetStatus(500); b.backends[1].SetHealth(404) }, mends: func(b *bed) { b.status(0); b.health(0) }},
	{name: "one check is slow, the other refused", codes: "H2 H3", also: "E1 P1 P2", spec: strings.Replace(checked, "{checks}", strings.Replace(labCheck, "/healthz", "/deep", 1), 1), breaks: func(b *bed) { b.backends[0].SetDelay(time.Second); b.backends[1].Kill() }, mends: func(b *bed) { b.backends[0].SetDelay(0); b.revive(1) }},
	inRegistry(fault{name: "one critical, the other's check fails", codes: "A2 H1", also: "P1 P2", spec: with(inConsul, "healthChecks: [{checks}]"), breaks: func(b *bed) {
		_ = b.agent().UpdateTTL(b.id(0), "disk full", api.HealthCritical)
		b.backends[1].SetHealth(404)
	}, mends: func(b *bed) { b.health(0); b.ttl(api.HealthPassing) }}),
	{name: "a revision refused, and a crash", codes: "C2 E1", also: "K1", spec: local, breaks: func(b *bed) { b.crash(); b.apply(with(local, "tls: {ca: {proxyFile: /nowhere/ca.pem}, sans: [x]}")) }, mends: func(b *bed) { b.apply(b.spec); b.revive(0, 1) }},
	{name: "one drained, the other crashes", codes: "H8 H3", also: "E1 P1 P2", spec: checked, breaks: func(b *bed) { b.drain("drain", "--reason", "new disks"); b.backends[1].Kill() }, mends: func(b *bed) { b.drain("drain", "--end"); b.revive(1) }},
}

// controls are noise: nothing that anybody must look at.
var controls = []fault{
	{name: "nothing at all", spec: checked},
	{name: "one of four drains", spec: `{endpoints: [{address: "{1}"}, {address: "{2}"}, {address: "{3}"}, {address: "{4}", health: draining}], healthChecks: [{checks}]}`, hosts: 4},
	{name: "a revision that harms nobody", spec: checked, breaks: func(b *bed) { b.apply(with(checked, "connectTimeout: 2s")) }, mends: func(b *bed) { b.apply(b.spec) }},
	{name: "an answer of 500 now and then", spec: local, breaks: func(b *bed) {
		b.goesOn(3*time.Second, func(int) { b.status(500); time.Sleep(5 * time.Millisecond); b.status(0) })
	}, mends: func(b *bed) { b.doing() }},
	inRegistry(fault{name: "one check turns twice", hosts: 3, breaks: func(b *bed) {
		_ = b.agent().UpdateTTL(b.id(0), "late", api.HealthCritical)
		time.Sleep(300 * time.Millisecond)
		_ = b.agent().UpdateTTL(b.id(0), "fine", api.HealthPassing)
	}}),
	inRegistry(fault{name: "instances are replaced one by one", hosts: 3, breaks: func(b *bed) {
		b.goesOn(2*time.Second, func(i int) {
			_ = b.agent().ServiceDeregister(b.id(i % 3))
			time.Sleep(500 * time.Millisecond)
			b.register(i%3, nil)
		})
	}, mends: func(b *bed) { b.doing() }}),
	{name: "the check is slow once", spec: strings.Replace(checked, "{checks}", strings.Replace(labCheck, "/healthz", "/deep", 1), 1), breaks: func(b *bed) {
		b.goesOn(4*time.Second, func(int) {
			b.backends[0].SetDelay(600 * time.Millisecond)
			time.Sleep(100 * time.Millisecond)
			b.backends[0].SetDelay(0)
		})
	}, mends: func(b *bed) { b.doing() }},
	inRegistry(fault{name: "one of five is critical", hosts: 5, breaks: func(b *bed) { _ = b.agent().UpdateTTL(b.id(0), "it starts", api.HealthCritical) }, mends: func(b *bed) { b.ttl(api.HealthPassing) }}),
	inRegistry(fault{name: "one of three in maintenance", hosts: 3, breaks: func(b *bed) { _ = b.agent().EnableServiceMaintenance(b.id(0), "new disks") }, mends: func(b *bed) { _ = b.agent().DisableServiceMaintenance(b.id(0)) }}),
	{name: "an operator drains one of three", hosts: 3, spec: `{endpoints: [{address: "{1}"}, {address: "{2}"}, {address: "{3}"}], healthChecks: [{checks}]}`, breaks: func(b *bed) {
		b.backends = b.backends[:1]
		b.drain("drain", "--reason", "new disk")
	}, mends: func(b *bed) { b.drain("drain", "--end") }},
	inRegistry(fault{name: "their registry is away", warns: "W4", spec: `{service: {source: third}}`, breaks: func(b *bed) { b.lab.third.turn(isAway); b.lab.third.CloseClientConnections() }, mends: func(b *bed) { b.lab.third.turn(passesOn) }}),
	{name: "a certificate of fifteen minutes", warns: "W2", spec: `{endpoints: [{address: "{tls}"}], tls: {ca: {file: ca.pem}, certificate: {cert: "{cert}", key: "{key}"}, sans: [x]}}`, places0: (*bed).endsSoon, breaks: func(b *bed) { b.issueSoon() }},
	{name: "answers that take long, and in time", spec: local, rule: ", timeout: 2s", breaks: func(b *bed) { b.each(func(i int) { b.backends[i].SetDelay(300 * time.Millisecond) }) }, mends: func(b *bed) { b.each(func(i int) { b.backends[i].SetDelay(0) }) }},
}
