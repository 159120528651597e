package main_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// feelings are the cases of TestRealFeel.
func feelings() []feeling {
	return slices.Concat(listenerFeelings(), routeFeelings(), endpointFeelings(), balancingFeelings(), connectionFeelings(), checkFeelings(), outlierFeelings(), actionFeelings(), connectionsFeelings())
}

func listenerFeelings() []feeling {
	listener := func(fields string) string {
		return "kind: Listener\nname: feel\nspec: {address: '{listen}', routes: [web], " + fields + "}\n"
	}
	return []feeling{
		{
			name:  "who is in the group",
			feels: []string{"Group spec.match.cluster", "Group spec.match.id", "Group spec.match.zone", "Group spec.match.metadata", "Group spec.listeners", "Listener spec.address", "Listener spec.routes", "Route spec.hosts", "Route spec.rules[].to[].upstream"},
			// Each of the others differs in one key: were that ignored, the proxy would
			// match two groups and be refused.
			documents: "kind: Group\nname: feel\nspec: {match: {cluster: feel, id: e, zone: zone-1, metadata: {wellspring.drainTime: 1s}}, listeners: [feel]}\n---\n" +
				"kind: Group\nname: x1\nspec: {match: {cluster: other, id: e, zone: zone-1, metadata: {wellspring.drainTime: 1s}}, listeners: []}\n---\n" +
				"kind: Group\nname: x2\nspec: {match: {cluster: feel, id: other, zone: zone-1, metadata: {wellspring.drainTime: 1s}}, listeners: []}\n---\n" +
				"kind: Group\nname: x3\nspec: {match: {cluster: feel, id: e, zone: other, metadata: {wellspring.drainTime: 1s}}, listeners: []}\n---\n" +
				"kind: Group\nname: x4\nspec: {match: {cluster: feel, id: e, zone: zone-1, metadata: {wellspring.drainTime: 2s}}, listeners: []}\n---\n" +
				"kind: Route\nname: web\nspec: {hosts: [shop.example.com, '*.other.example.com'], rules: [{to: [{upstream: web}]}]}\n",
			see: func(t *testing.T, f *felt) {
				f.wants(t, 200, "a", "/", "Host: shop.example.com")
				f.wants(t, 200, "a", "/", "Host: x.other.example.com:8080")
				f.wants(t, 404, "", "/", "Host: example.com")
			},
		},
		{
			name:  "access log",
			feels: []string{"Listener spec.accessLog.to"}, documents: listener("accessLog: {to: '{file}'}"),
			see: func(t *testing.T, f *felt) {
				f.wants(t, 200, "a", "/logged")
				within(t, 3*time.Second, "a line is written", func() string {
					text, err := os.ReadFile(f.file)
					if err == nil && strings.Contains(string(text), `"/logged"`) && strings.HasPrefix(string(text), "{") {
						return ""
					}
					return fmt.Sprint(err, string(text))
				})
			},
		},
		{
			name:  "idle connections of clients",
			feels: []string{"Listener spec.idleTimeout"}, documents: listener("idleTimeout: 300ms"),
			see: func(t *testing.T, f *felt) {
				c := dial(t, f.listen)
				fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				if took := untilClosed(c); took < 250*time.Millisecond || took > 7500*time.Millisecond {
					t.Errorf("closed after %s, want 300ms and the 6 s in which Envoy drains and closes", took)
				}
			},
		},
		{
			name:  "headers that do not come",
			feels: []string{"Listener spec.requestHeadersTimeout"}, documents: listener("requestHeadersTimeout: 300ms"),
			see: func(t *testing.T, f *felt) {
				c := dial(t, f.listen)
				fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost:")
				if took := untilClosed(c); took < 250*time.Millisecond || took > 3*time.Second {
					t.Errorf("closed after %s, want 300ms", took)
				}
			},
		},
		{
			name:  "streams that stand still",
			feels: []string{"Listener spec.streamIdleTimeout"}, documents: listener("streamIdleTimeout: 300ms"),
			see: func(t *testing.T, f *felt) {
				standsStill(t, f, 300*time.Millisecond)
			},
		},
		{
			name:  "headers that are too large",
			feels: []string{"Listener spec.maxRequestHeadersKB"}, documents: listener("maxRequestHeadersKB: 2"),
			see: func(t *testing.T, f *felt) {
				f.wants(t, 200, "a", "/", "X-Fill: "+strings.Repeat("x", 1000))
				f.wants(t, 431, "", "/", "X-Fill: "+strings.Repeat("x", 4000))
			},
		},
		{
			name:  "the client behind a proxy",
			feels: []string{"Listener spec.trustedHops", "Route spec.rules[].hashOn[].sourceIP"},
			documents: listener("trustedHops: 1") + "---\nkind: Upstream\nname: web\nspec: {endpoints: [{address: '{a}'}, {address: '{b}'}, {address: '{c}'}], loadBalancing: {policy: ringHash}}\n---\n" +
				"kind: Route\nname: web\nspec: {hosts: ['*'], rules: [{to: [{upstream: web}], hashOn: [{sourceIP: true}]}]}\n",
			see: func(t *testing.T, f *felt) {
				if got := f.shares(20, "/", func(int) []string { return []string{"X-Forwarded-For: 192.0.2.7"} }); len(got) != 1 {
					t.Errorf("one client was answered by %v", got)
				}
				if got := f.shares(60, "/", func(i int) []string { return []string{fmt.Sprintf("X-Forwarded-For: 192.0.2.%d", i)} }); len(got) != 3 {
					t.Errorf("60 clients were answered by %v", got)
				}
			},
		},
	}
}

func routeFeelings() []feeling {
	three := "kind: Upstream\nname: web\nspec: {endpoints: [{address: '{a}'}]}\n---\nkind: Upstream\nname: two\nspec: {endpoints: [{address: '{b}'}]}\n---\nkind: Upstream\nname: three\nspec: {endpoints: [{address: '{c}'}]}\n---\n"
	rules := func(rules string) string {
		return three + "kind: Route\nname: web\nspec: {hosts: ['*'], rules: [" + rules + "]}\n"
	}
	return []feeling{
		{
			name:  "paths and methods",
			feels: []string{"Route spec.rules[].match.path.prefix", "Route spec.rules[].match.path.exact", "Route spec.rules[].match.path.regex", "Route spec.rules[].match.methods"},
			documents: rules("{match: {path: {exact: /one}, methods: [POST]}, to: [{upstream: three}]}, {match: {path: {exact: /one}}, to: [{upstream: web}]}, " +
				"{match: {path: {prefix: /two}}, to: [{upstream: two}]}, {match: {path: {regex: '/n[0-9]+'}}, to: [{upstream: three}]}"),
			see: func(t *testing.T, f *felt) {
				f.wants(t, 200, "a", "/one?q=1")
				f.wants(t, 404, "", "/one/more")
				f.wants(t, 200, "b", "/two/more")
				f.wants(t, 404, "", "/twofold")
				f.wants(t, 200, "c", "/n42")
				f.wants(t, 404, "", "/n42x")
				if _, body, _ := f.send(http.MethodPost, "/one", nil); body != "c" {
					t.Errorf("POST /one was answered by %q", body)
				}
			},
		},
		{
			name: "headers",
			feels: []string{
				"Route spec.rules[].match.headers[].name", "Route spec.rules[].match.headers[].exact", "Route spec.rules[].match.headers[].prefix", "Route spec.rules[].match.headers[].suffix",
				"Route spec.rules[].match.headers[].contains", "Route spec.rules[].match.headers[].regex", "Route spec.rules[].match.headers[].present", "Route spec.rules[].match.headers[].invert",
			},
			documents: rules("{match: {path: {prefix: /}, headers: [{name: x-exact, exact: 'yes'}]}, to: [{upstream: two}]}, " +
				"{match: {path: {prefix: /}, headers: [{name: x-ends, prefix: ab}, {name: x-ends, suffix: yz}]}, to: [{upstream: two}]}, " +
				"{match: {path: {prefix: /}, headers: [{name: x-middle, contains: mid}]}, to: [{upstream: two}]}, " +
				"{match: {path: {prefix: /}, headers: [{name: x-regex, regex: '[0-9]+'}]}, to: [{upstream: two}]}, " +
				"{match: {path: {prefix: /}, headers: [{name: x-here, present: true}]}, to: [{upstream: two}]}, " +
				"{match: {path: {prefix: /inverted}, headers: [{name: x-not, exact: a, invert: true}]}, to: [{upstream: three}]}, {to: [{upstream: web}]}"),
			see: func(t *testing.T, f *felt) {
				for header, want := range map[string]string{
					"X-Exact: yes": "b", "X-Exact: yess": "a", "X-Ends: ab-yz": "b", "X-Ends: ab-y": "a", "X-Ends: ab-z": "a", "X-Ends: b-yz": "a", "X-Middle: a-mid-z": "b", "X-Middle: a": "a",
					"X-Regex: 42": "b", "X-Regex: 42x": "a", "X-Here: anything": "b",
				} {
					f.wants(t, 200, want, "/", header)
				}
				f.wants(t, 200, "c", "/inverted", "X-Not: b")
				f.wants(t, 200, "c", "/inverted")
				f.wants(t, 200, "a", "/inverted", "X-Not: a")
			},
		},
		{
			name: "weights", feels: []string{"Route spec.rules[].to[].weight"},
			documents: rules("{to: [{upstream: web, weight: 90}, {upstream: two, weight: 10}, {upstream: three, weight: 0}]}"),
			see: func(t *testing.T, f *felt) {
				got := f.shares(300, "/", nil)
				if got["a"] < 225 || got["b"] < 5 || got["c"] > 0 {
					t.Errorf("90 : 10 : 0 became %v", got)
				}
			},
		},
		{
			name: "timeout", feels: []string{"Route spec.rules[].timeout"}, documents: rules("{to: [{upstream: web}], timeout: 200ms}"),
			see: func(t *testing.T, f *felt) {
				f.a.handle(sleeps(2 * time.Second))
				start := time.Now()
				f.wants(t, 504, "upstream request timeout", "/")
				if took := time.Since(start); took > 1500*time.Millisecond {
					t.Errorf("after %s, want 200ms", took)
				}
			},
		},
		{
			name: "idle timeout of a rule", feels: []string{"Route spec.rules[].idleTimeout"}, documents: rules("{to: [{upstream: web}], idleTimeout: 200ms}"),
			see: func(t *testing.T, f *felt) {
				standsStill(t, f, 200*time.Millisecond)
			},
		},
		{
			name:      "retries",
			feels:     []string{"Route spec.rules[].retry.on", "Route spec.rules[].retry.attempts", "Route spec.rules[].retry.statuses"},
			documents: rules("{match: {path: {prefix: /three}}, to: [{upstream: web}], retry: {on: [retriableStatuses], statuses: [418], attempts: 4}}, {to: [{upstream: web}], retry: {on: [connectFailure], attempts: 4}}"),
			see: func(t *testing.T, f *felt) {
				f.a.answers(418)
				f.wants(t, 418, "", "/three")
				if n, _, _ := f.a.count(); n != 4 {
					t.Errorf("%d attempts, want the first and 3 retries", n)
				}
				f.wants(t, 418, "", "/other")
				if n, _, _ := f.a.count(); n != 5 {
					t.Errorf("%d attempts, want one more", n)
				}
			},
		},
		{
			name: "timeout of an attempt", feels: []string{"Route spec.rules[].retry.perTryTimeout"},
			documents: rules("{to: [{upstream: web}], timeout: 5s, retry: {on: [5xx], attempts: 2, perTryTimeout: 200ms}}"),
			see: func(t *testing.T, f *felt) {
				var once sync.Once
				f.a.handle(func(w http.ResponseWriter, r *http.Request) {
					once.Do(func() { sleeps(3*time.Second)(w, r) })
					_, _ = io.WriteString(w, "late a")
				})
				start := time.Now()
				f.wants(t, 200, "late a", "/")
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("answered after %s: the first attempt was waited for", took)
				}
			},
		},
	}
}

func endpointFeelings() []feeling {
	leaves := func(kind string, names ...string) (out []string) {
		for _, n := range names {
			out = append(out, kind+" spec.endpoints[]."+n)
		}
		return out
	}
	endpoints := "[{address: '{a}', id: one, weight: 9, region: r, zone: z, subzone: s, metadata: {track: blue}}, {address: '{b}', region: r, zone: z, subzone: s, metadata: {track: blue}}, {address: '{c}', health: unhealthy, region: r, zone: z, subzone: s, metadata: {track: blue}}]"
	see := func(t *testing.T, f *felt) {
		got := f.shares(100, "/", nil)
		if got["a"] < 75 || got["b"] < 3 || got["c"] > 0 {
			t.Errorf("weights 9 and 1, and one that is unhealthy, became %v", got)
		}
		out, err := f.envoy.Get(t.Context(), "/clusters")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{f.a.addr + "::region::r", f.a.addr + "::zone::z", f.a.addr + "::sub_zone::s", f.c.addr + "::health_flags::/failed_eds_health"} {
			if !strings.Contains(out, want) {
				t.Errorf("Envoy does not say %q", want)
			}
		}
	}
	return []feeling{
		{
			name:      "endpoints of an upstream",
			feels:     leaves("Upstream", "address", "weight", "region", "zone", "subzone", "health"),
			documents: "kind: Upstream\nname: web\nspec: {loadBalancing: {policy: roundRobin}, endpoints: " + endpoints + "}\n",
			see:       see,
		},
		{
			name:  "endpoints of a service",
			feels: append(leaves("Service", "address", "weight", "region", "zone", "subzone", "health", "metadata"), "Upstream spec.service.metadata"),
			documents: "kind: Service\nname: people\nspec: {endpoints: " + strings.Replace(endpoints, "]", ", {address: '{d}', metadata: {track: green}}]", 1) + "}\n---\n" +
				"kind: Upstream\nname: web\nspec: {loadBalancing: {policy: roundRobin}, service: {source: local, name: people, metadata: {track: blue}}}\n",
			see: see,
		},
	}
}

func balancingFeelings() []feeling {
	upstream := func(balancing, hash string) string {
		return "kind: Upstream\nname: web\nspec: {endpoints: [{address: '{a}'}, {address: '{b}'}, {address: '{c}'}], loadBalancing: {" + balancing + "}}\n---\n" +
			"kind: Route\nname: web\nspec: {hosts: ['*'], rules: [{to: [{upstream: web}], hashOn: [" + hash + "]}]}\n"
	}
	key := func(i int) []string { return []string{fmt.Sprintf("X-Key: %d", i)} }
	sticky := func(t *testing.T, f *felt) {
		t.Helper()
		if got := f.shares(20, "/", func(int) []string { return key(7) }); len(got) != 1 {
			t.Errorf("one key was answered by %v", got)
		}
		if got := f.shares(60, "/", key); len(got) != 3 {
			t.Errorf("60 keys were answered by %v", got)
		}
	}
	return []feeling{
		{
			name:      "ring hash",
			feels:     []string{"Upstream spec.loadBalancing.policy", "Upstream spec.loadBalancing.minRingSize", "Upstream spec.loadBalancing.maxRingSize", "Route spec.rules[].hashOn[].header"},
			documents: upstream("policy: ringHash, minRingSize: 96, maxRingSize: 96", "{header: x-key}"),
			see: func(t *testing.T, f *felt) {
				sticky(t, f)
				if got := f.stat(t, "ring_hash_lb.size"); got != "96" {
					t.Errorf("the ring has %q entries, want 96", got)
				}
			},
		},
		{
			name: "maglev", feels: []string{"Upstream spec.loadBalancing.tableSize"}, documents: upstream("policy: maglev, tableSize: 307", "{header: x-key}"),
			see: func(t *testing.T, f *felt) {
				sticky(t, f)
				if got := f.stat(t, "maglev_lb.max_entries_per_host"); got != "103" { // 307 over three hosts
					t.Errorf("a host has at most %q entries, want 103", got)
				}
			},
		},
		{
			name:      "a cookie",
			feels:     []string{"Route spec.rules[].hashOn[].cookie.name", "Route spec.rules[].hashOn[].cookie.path", "Route spec.rules[].hashOn[].cookie.ttl"},
			documents: upstream("policy: ringHash", "{cookie: {name: stick, path: /shop, ttl: 90s}}"),
			see: func(t *testing.T, f *felt) {
				_, first, answer := f.get("/")
				set := answer.Get("Set-Cookie")
				if !strings.HasPrefix(set, "stick=") || !strings.Contains(set, "Path=/shop") || !strings.Contains(set, "Max-Age=90") {
					t.Fatalf("Set-Cookie: %q", set)
				}
				cookie, _, _ := strings.Cut(set, ";")
				if got := f.shares(20, "/", func(int) []string { return []string{"Cookie: " + cookie} }); got[first] != 20 {
					t.Errorf("%s gave the cookie, and %v answered it", first, got)
				}
			},
		},
	}
}

func connectionFeelings() []feeling {
	upstream := func(fields string) string {
		return "kind: Upstream\nname: web\nspec: {endpoints: [{address: '{a}'}], " + fields + "}\n"
	}
	// parallel sends requests at once and counts the statuses.
	parallel := func(f *felt, n int) map[int]int {
		var mu sync.Mutex
		var wg sync.WaitGroup
		out := map[int]int{}
		for range n {
			wg.Go(func() {
				status, _, _ := f.get("/")
				mu.Lock()
				defer mu.Unlock()
				out[status]++
			})
		}
		wg.Wait()
		return out
	}
	two := func(t *testing.T, f *felt) {
		f.a.handle(sleeps(time.Second))
		if got := parallel(f, 6); got[200] < 1 || got[200] > 2 || got[503] != 6-got[200] {
			t.Errorf("six at once, where one or two may be, became %v", got)
		}
	}
	return []feeling{
		{
			name: "HTTP/2", feels: []string{"Upstream spec.protocol"}, documents: upstream("protocol: http2"),
			see: func(t *testing.T, f *felt) {
				f.a.handle(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
				f.wants(t, 200, "HTTP/2.0", "/")
			},
		},
		{
			name: "one request a connection", feels: []string{"Upstream spec.maxRequestsPerConnection"}, documents: upstream("maxRequestsPerConnection: 1"),
			see: func(t *testing.T, f *felt) {
				f.shares(5, "/", nil)
				if _, _, conns := f.a.count(); conns != 5 {
					t.Errorf("five requests came over %d connections", conns)
				}
			},
		},
		{
			name: "idle connections to endpoints", feels: []string{"Upstream spec.idleTimeout"}, documents: upstream("idleTimeout: 200ms"),
			see: func(t *testing.T, f *felt) {
				f.shares(3, "/", nil)
				time.Sleep(800 * time.Millisecond)
				f.shares(1, "/", nil)
				if _, _, conns := f.a.count(); conns != 2 {
					t.Errorf("three requests and one after a pause came over %d connections, want 2", conns)
				}
			},
		},
		{
			name: "connections that are not accepted", feels: []string{"Upstream spec.connectTimeout"},
			documents: "kind: Upstream\nname: web\nspec: {endpoints: [{address: '{a}'}], connectTimeout: 150ms}\n---\nkind: Upstream\nname: deaf\nspec: {endpoints: [{address: '{d}'}], connectTimeout: 80ms}\n---\n" +
				"kind: Route\nname: web\nspec: {hosts: ['*'], rules: [{match: {path: {prefix: /deaf}}, to: [{upstream: deaf}], timeout: 6s}, {to: [{upstream: web}]}]}\n",
			see: func(t *testing.T, f *felt) {
				fill := deaf(t, f.dead)
				defer fill()
				start := time.Now()
				f.wants(t, 503, "upstream connect error", "/deaf")
				if took := time.Since(start); took < 70*time.Millisecond || took > 1600*time.Millisecond {
					t.Errorf("after %s, want 80ms for each of two attempts", took)
				}
			},
		},
		{
			name: "breaker of requests", feels: []string{"Upstream spec.circuitBreakers.requests"},
			documents: upstream("protocol: http2, circuitBreakers: {requests: 2}"), see: two,
		},
		{
			name: "breaker of connections", feels: []string{"Upstream spec.circuitBreakers.connections", "Upstream spec.circuitBreakers.pendingRequests"},
			documents: upstream("circuitBreakers: {connections: 1, pendingRequests: 1}"), see: two,
		},
		{
			name: "panic", feels: []string{"Upstream spec.whenUnavailable.panic.below", "Upstream spec.whenUnavailable.panic.then"},
			documents: "kind: Upstream\nname: web\nspec: {endpoints: [{address: '{a}', health: unhealthy}, {address: '{b}', health: unhealthy}, {address: '{c}'}], loadBalancing: {policy: roundRobin}, whenUnavailable: {panic: {below: 40, then: tryAll}}}\n---\n" +
				"kind: Upstream\nname: careful\nspec: {endpoints: [{address: '{a}', health: unhealthy}], whenUnavailable: {panic: {then: fail}}}\n---\n" +
				"kind: Upstream\nname: brave\nspec: {endpoints: [{address: '{a}', health: unhealthy}, {address: '{b}', health: unhealthy}, {address: '{c}'}], whenUnavailable: {panic: {below: 20}}}\n---\n" +
				"kind: Route\nname: web\nspec: {hosts: ['*'], rules: [{match: {path: {prefix: /careful}}, to: [{upstream: careful}]}, {match: {path: {prefix: /brave}}, to: [{upstream: brave}]}, {to: [{upstream: web}]}]}\n",
			see: func(t *testing.T, f *felt) {
				if got := f.shares(30, "/", nil); len(got) != 3 {
					t.Errorf("a third is healthy, below 40: %v, want all tried", got)
				}
				if got := f.shares(10, "/brave", nil); got["c"] != 10 {
					t.Errorf("a third is healthy, not below 20: %v, want c alone", got)
				}
				f.wants(t, 503, "no healthy upstream", "/careful")
			},
		},
	}
}

func checkFeelings() []feeling {
	upstream := func(check, more string) string {
		return "kind: Upstream\nname: web\nspec: {endpoints: [{address: '{a}'}], whenUnavailable: {panic: {then: fail}}, healthChecks: [{" + check + "}]" + more + "}\n"
	}
	const quick = "interval: 100ms, timeout: 100ms, unhealthyThreshold: 1, healthyThreshold: 1, jitterPercent: 0"
	checks := func(names ...string) (out []string) {
		for _, n := range names {
			out = append(out, "Upstream spec.healthChecks[]."+n)
		}
		return out
	}
	// becomes waits until requests are answered with a status.
	becomes := func(t *testing.T, f *felt, status int) time.Duration {
		t.Helper()
		start := time.Now()
		within(t, 2*time.Second, fmt.Sprintf("requests become %d", status), func() string {
			got, body, _ := f.get("/")
			if got == status {
				return ""
			}
			return fmt.Sprint(got, body)
		})
		return time.Since(start)
	}
	counts := func(f *felt, d time.Duration) int {
		_, before, _ := f.a.count()
		time.Sleep(d)
		_, after, _ := f.a.count()
		return after - before
	}
	return []feeling{
		{
			name: "what a check asks", feels: checks("http.path", "http.host", "http.method", "http.headers"),
			documents: upstream("http: {path: '/alive?x=1', host: check.example.com, method: HEAD, headers: {x-check: 'one two'}}, "+quick, ""),
			see: func(t *testing.T, f *felt) {
				within(t, time.Second, "a check comes", func() string {
					if r := f.a.lastCheck(); r == nil || r.URL.String() != "/alive?x=1" || r.Host != "check.example.com" || r.Method != http.MethodHead || r.Header.Get("X-Check") != "one two" {
						return fmt.Sprintf("%+v", r)
					}
					return ""
				})
			},
		},
		{
			name: "what a check expects", feels: checks("http.expectedStatuses", "http.retriableStatuses", "unhealthyThreshold", "healthyThreshold", "interval"),
			documents: upstream("http: {path: /, expectedStatuses: ['204', '300-302'], retriableStatuses: ['503']}, interval: 100ms, timeout: 100ms, unhealthyThreshold: 9, healthyThreshold: 8, jitterPercent: 0", ""),
			see: func(t *testing.T, f *felt) {
				status := func(n int) http.HandlerFunc {
					return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(n) }
				}
				f.a.check(status(301))
				becomes(t, f, 200)
				if n := counts(f, 2*time.Second); n < 4 || n > 23 {
					t.Errorf("%d checks in 2 s at an interval of 100ms", n)
				}
				f.a.check(status(503)) // retriable: nine in a row
				if took := becomes(t, f, 503); took < 700*time.Millisecond {
					t.Errorf("nine retriable failures took %s", took)
				}
				f.a.check(status(204)) // eight in a row
				if took := becomes(t, f, 200); took < 600*time.Millisecond {
					t.Errorf("eight passes took %s", took)
				}
				f.a.check(status(200)) // not expected: at once
				if took := becomes(t, f, 503); took > 1500*time.Millisecond {
					t.Errorf("a status that is not expected took %s", took)
				}
			},
		},
		{
			name: "a check that hangs", feels: checks("timeout"), documents: upstream("http: {path: /}, interval: 100ms, timeout: 200ms, unhealthyThreshold: 1, healthyThreshold: 1", ""),
			see: func(t *testing.T, f *felt) {
				becomes(t, f, 200)
				f.a.check(sleeps(5 * time.Second))
				if took := becomes(t, f, 503); took > 3*time.Second {
					t.Errorf("after %s", took)
				}
			},
		},
		{
			name: "a port of its own", feels: checks("port"), documents: strings.ReplaceAll(upstream("http: {path: /}, port: 1, "+quick, ""), "port: 1", "port: {port-of-b}"),
			see: func(t *testing.T, f *felt) {
				within(t, time.Second, "b is asked for a, and a no more", func() string {
					_, before, _ := f.a.count() // checks of the case before end when this one is warm
					time.Sleep(300 * time.Millisecond)
					_, a, _ := f.a.count()
					if _, b, _ := f.b.count(); b == 0 || a > before {
						return fmt.Sprintf("b was checked %d times, a %d more", b, a-before)
					}
					return ""
				})
				f.b.check(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
				becomes(t, f, 503)
			},
		},
		{
			name: "connections of checks", feels: checks("reuseConnection"), documents: upstream("http: {path: /}, reuseConnection: false, "+quick, ""),
			see: func(t *testing.T, f *felt) {
				n := counts(f, time.Second)
				if _, _, conns := f.a.count(); conns < n || n < 2 {
					t.Errorf("%d checks over %d connections", n, conns)
				}
			},
		},
		{
			name: "checks of the unhealthy", feels: checks("unhealthyInterval"), documents: upstream("http: {path: /}, interval: 100ms, unhealthyInterval: 700ms, timeout: 100ms, unhealthyThreshold: 1, jitterPercent: 0", ""),
			see: func(t *testing.T, f *felt) {
				becomes(t, f, 200)
				if n := counts(f, time.Second); n < 3 {
					t.Errorf("%d checks a second while healthy, want about 10", n)
				}
				f.a.check(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
				becomes(t, f, 503)
				if n := counts(f, 2*time.Second); n > 8 {
					t.Errorf("%d checks in 2 s while unhealthy, want about 3", n)
				}
			},
		},
		{
			name: "checks without traffic", feels: checks("noTrafficInterval"),
			documents: strings.ReplaceAll(upstream("http: {path: /}, interval: 20s, noTrafficInterval: 100ms, timeout: 100ms, jitterPercent: 0", ""), "name: web", "name: untouched") +
				"---\nkind: Route\nname: web\nspec: {hosts: ['*'], rules: [{to: [{upstream: untouched}]}]}\n",
			see: func(t *testing.T, f *felt) {
				if n := counts(f, time.Second); n < 2 {
					t.Errorf("%d checks a second without traffic, want about 10", n)
				}
			},
		},
		{
			name: "a conversation over TCP", feels: checks("tcp.send", "tcp.receive"),
			documents: "kind: Upstream\nname: web\nspec: {endpoints: [{address: '{d}'}], whenUnavailable: {panic: {then: fail}}, healthChecks: [{tcp: {send: '50494e47', receive: ['504f4e47', '4f4b']}, " + quick + "}]}\n",
			see: func(t *testing.T, f *felt) {
				talk := &talker{answer: "PONG, all is OK"}
				stop := talk.listen(t, f.dead)
				defer stop()
				within(t, 2*time.Second, "it passes", func() string {
					if _, body, _ := f.get("/"); strings.HasPrefix(body, "no healthy") {
						return body
					}
					return ""
				})
				if got := talk.heard(); !strings.Contains(got, "PING") {
					t.Errorf("the check said %q", got)
				}
				talk.say("PONG only")
				within(t, 2*time.Second, "it fails", func() string {
					if _, body, _ := f.get("/"); !strings.HasPrefix(body, "no healthy") {
						return body
					}
					return ""
				})
			},
		},
		{
			name: "gRPC health", feels: checks("grpc.service", "grpc.authority", "grpc.metadata"),
			documents: upstream("grpc: {service: shop.Cart, authority: cart.example.com, metadata: {x-check: grpc}}, "+quick, ", protocol: grpc"),
			see: func(t *testing.T, f *felt) {
				var mu sync.Mutex
				body, serving := "", byte(1)
				f.a.check(func(w http.ResponseWriter, r *http.Request) {
					text, _ := io.ReadAll(r.Body)
					mu.Lock()
					defer mu.Unlock()
					body = string(text)
					w.Header().Set("Content-Type", "application/grpc")
					w.Header().Set("Trailer", "Grpc-Status")
					_, _ = w.Write([]byte{0, 0, 0, 0, 2, 8, serving})
					w.Header().Set("Grpc-Status", "0")
				})
				within(t, 2*time.Second, "it is asked", func() string {
					mu.Lock()
					defer mu.Unlock()
					if r := f.a.lastCheck(); r == nil || r.Host != "cart.example.com" || r.Header.Get("X-Check") != "grpc" || !strings.Contains(body, "shop.Cart") {
						return fmt.Sprintf("%+v %q", r, body)
					}
					return ""
				})
				becomes(t, f, 200)
				mu.Lock()
				serving = 2
				mu.Unlock()
				becomes(t, f, 503)
			},
		},
	}
}

func outlierFeelings() []feeling {
	outlier := func(fields, more string) string {
		return "kind: Upstream\nname: web\nspec: {endpoints: [{address: '{a}'}, {address: '{b}'}, {address: '{c}'}], loadBalancing: {policy: roundRobin}, outlierDetection: {" + fields + "}" + more + "}\n---\n" +
			"kind: Route\nname: web\nspec: {hosts: ['*'], rules: [{to: [{upstream: web}], timeout: 5s}]}\n"
	}
	leaves := func(names ...string) (out []string) {
		for _, n := range names {
			out = append(out, "Upstream spec.outlierDetection."+n)
		}
		return out
	}
	ejected := func(t *testing.T, f *felt, n string) {
		t.Helper()
		within(t, 3*time.Second, n+" ejected", func() string {
			f.shares(6, "/", nil)
			if got := f.stat(t, "outlier_detection.ejections_active"); got != n {
				return got + " are"
			}
			return ""
		})
	}
	return []feeling{
		{
			name: "consecutive failures", feels: leaves("consecutive5xx", "baseEjection", "interval", "maxEjectionPercent"),
			documents: outlier("consecutive5xx: 3, baseEjection: 500ms, maxEjection: 600ms, interval: 200ms, maxEjectionPercent: 40", ""),
			see: func(t *testing.T, f *felt) {
				f.a.answers(500)
				f.b.answers(500)
				ejected(t, f, "1") // 40 % of three is one
				f.a.reset()
				f.b.reset()
				within(t, 700*time.Millisecond, "everybody is back", func() string {
					if got := f.stat(t, "outlier_detection.ejections_active"); got != "0" {
						return got + " are ejected"
					}
					return ""
				})
				if got := f.shares(9, "/", nil); got["a"] == 0 || got["b"] == 0 {
					t.Errorf("afterwards %v", got)
				}
			},
		},
		{
			name: "gateway failures", feels: leaves("consecutiveGatewayFailures"), documents: outlier("consecutive5xx: 1000, consecutiveGatewayFailures: 2, interval: 200ms", ""),
			see: func(t *testing.T, f *felt) {
				f.a.answers(502)
				ejected(t, f, "1")
				if got := f.stat(t, "outlier_detection.ejections_enforced_consecutive_gateway_failure"); got != "1" {
					t.Errorf("%s for gateway failures", got)
				}
			},
		},
		{
			name: "failures of our own", feels: leaves("consecutiveLocalOriginFailures", "splitLocalOrigin"),
			documents: strings.Replace(outlier("splitLocalOrigin: true, consecutiveLocalOriginFailures: 2, interval: 200ms", ""), "{a}", "{d}", 1),
			see: func(t *testing.T, f *felt) {
				ejected(t, f, "1")
				if got := f.stat(t, "outlier_detection.ejections_enforced_consecutive_local_origin_failure"); got != "1" {
					t.Errorf("%s for failures of local origin", got)
				}
			},
		},
		{
			name: "share of failures", feels: leaves("failurePercentage.threshold", "failurePercentage.minHosts", "failurePercentage.requestVolume"),
			documents: outlier("consecutive5xx: 1000, interval: 300ms, failurePercentage: {threshold: 40, minHosts: 3, requestVolume: 5}", ""),
			see: func(t *testing.T, f *felt) {
				var n int
				var mu sync.Mutex
				f.a.handle(func(w http.ResponseWriter, _ *http.Request) {
					mu.Lock()
					defer mu.Unlock()
					if n++; n%2 == 0 {
						w.WriteHeader(500)
					}
				})
				within(t, 3*time.Second, "ejected for its share", func() string {
					f.shares(40, "/", nil)
					if got := f.stat(t, "outlier_detection.ejections_enforced_failure_percentage"); got == "0" {
						return "not yet"
					}
					return ""
				})
			},
		},
	}
}

// standsStill wants an answer that stalls to be cut off after a while.
func standsStill(t *testing.T, f *felt, want time.Duration) {
	t.Helper()
	f.a.handle(stalls)
	start := time.Now()
	status, body, _ := f.get("/")
	if took := time.Since(start); status != http.StatusOK || body == "" || took < want-50*time.Millisecond || took > 10*want {
		t.Errorf("%d %q after %s, want a cut answer after %s", status, body, took, want)
	}
	if n, _, _ := f.a.count(); n != 1 {
		t.Errorf("%d requests came", n)
	}
}

// stalls sends a part of an answer and then nothing for a while.
func stalls(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", "100")
	_, _ = io.WriteString(w, "begin")
	_ = http.NewResponseController(w).Flush()
	sleeps(6*time.Second)(nil, r)
}

// sleeps waits, or until the client goes.
func sleeps(d time.Duration) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
		}
	}
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// untilClosed reads until the other side closes and says how long that took.
func untilClosed(c net.Conn) time.Duration {
	start := time.Now()
	_ = c.SetReadDeadline(start.Add(8 * time.Second))
	_, _ = io.Copy(io.Discard, bufio.NewReader(c))
	return time.Since(start)
}

// talker answers whoever connects with a text, and keeps what it heard.
type talker struct {
	mu          sync.Mutex
	answer, all string
}

func (k *talker) say(s string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answer = s
}

func (k *talker) heard() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.all
}

func (k *talker) listen(t *testing.T, addr string) (stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close() //nolint:errcheck // the conversation is over
				buf := make([]byte, 256)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					k.mu.Lock()
					k.all += string(buf[:n])
					answer := k.answer
					k.mu.Unlock()
					_, _ = io.WriteString(c, answer)
				}
			}()
		}
	}()
	return func() { _ = l.Close() }
}

// portOf is the port of an address.
func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	if _, err := strconv.Atoi(port); err != nil {
		return "0"
	}
	return port
}
