package main_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	"github.com/hashicorp/consul/api"
	"golang.org/x/net/dns/dnsmessage"
	"google.golang.org/protobuf/types/known/anypb"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/consultest"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

// actionFeelings: what a rule does besides leading to an upstream, and what it
// changes on the way.
func actionFeelings() []feeling {
	rules := func(rules string) string {
		return "kind: Route\nname: web\nspec: {hosts: ['*'], rules: [" + rules + "]}\n"
	}
	leaves := func(names ...string) (out []string) {
		for _, n := range names {
			out = append(out, "Route spec.rules[]."+n)
		}
		return out
	}
	location := func(t *testing.T, f *felt, path string, status int, want string) {
		t.Helper()
		got, _, answer := f.get(path, "Host: shop.test:8080")
		if got != status || answer.Get("Location") != want {
			t.Errorf("%s: %d to %q, want %d to %q", path, got, answer.Get("Location"), status, want)
		}
	}
	return []feeling{
		{
			name:  "redirects",
			feels: leaves("redirect.scheme", "redirect.host", "redirect.port", "redirect.path", "redirect.prefix", "redirect.status", "redirect.stripQuery"),
			documents: rules("{match: {path: {exact: /old}}, redirect: {path: '/new?a=b', status: 308}}, " +
				"{match: {path: {prefix: /moved}}, redirect: {scheme: https, host: www.test, port: 8443, prefix: /here, stripQuery: true, status: 302}}, " +
				"{match: {path: {prefix: /up}}, redirect: {prefix: /}}, {match: {path: {prefix: /down/}}, redirect: {prefix: /deep}}, {redirect: {scheme: https, port: 443}}"),
			see: func(t *testing.T, f *felt) {
				location(t, f, "/old", 308, "http://shop.test:8080/new?a=b")
				location(t, f, "/moved/x?q=1", 302, "https://www.test:8443/here/x")
				location(t, f, "/up/x?q=1", 301, "http://shop.test:8080/x?q=1")
				location(t, f, "/up", 301, "http://shop.test:8080/")
				location(t, f, "/down/x", 301, "http://shop.test:8080/deep/x")
				location(t, f, "/other?q=1", 301, "https://shop.test:443/other?q=1")
			},
		},
		{
			name:      "answers of its own",
			feels:     leaves("respond.status", "respond.body"),
			documents: rules("{match: {path: {prefix: /fine}}, respond: {status: 200, body: 'fine'}, responseHeaders: {set: {content-type: text/x-fine}}}, {match: {path: {prefix: /long}}, respond: {status: 200, body: '" + strings.Repeat("x", 9000) + "'}}, {respond: {status: 410}}"),
			see: func(t *testing.T, f *felt) {
				_, body, answer := f.get("/fine")
				if body != "fine" || answer.Get("Content-Type") != "text/x-fine" {
					t.Errorf("%q as %q", body, answer.Get("Content-Type"))
				}
				f.wants(t, 410, "", "/gone")
				if _, body, _ := f.get("/long"); len(body) != 9000 {
					t.Errorf("%d bytes of 9000", len(body))
				}
				if n, _, _ := f.a.count(); n != 0 {
					t.Errorf("the upstream was asked %d times", n)
				}
			},
		},
		{
			name:  "rewrites",
			feels: leaves("rewrite.prefix", "rewrite.path", "rewrite.regex.pattern", "rewrite.regex.substitution", "rewrite.host", "rewrite.hostFromHeader"),
			documents: rules("{match: {path: {prefix: /catalog}}, to: [{upstream: web}], rewrite: {prefix: /, host: catalog.internal}}, " +
				"{match: {path: {prefix: /v1/}}, to: [{upstream: web}], rewrite: {prefix: /api, hostFromHeader: x-host}}, {match: {path: {prefix: /same}}, to: [{upstream: web}], rewrite: {prefix: /other}}, " +
				"{match: {path: {prefix: /one}}, to: [{upstream: web}], rewrite: {path: '/in\\1dex'}}, {match: {path: {regex: '/item/[0-9]+'}}, to: [{upstream: web}], rewrite: {regex: {pattern: '^/item/([0-9]+)$', substitution: '/\\1/item'}}}"),
			see: func(t *testing.T, f *felt) {
				f.a.handle(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprintf(w, "%s %s", r.Host, r.RequestURI) })
				for path, want := range map[string]string{
					"/catalog": "catalog.internal /", "/catalog/x?q=1": "catalog.internal /x?q=1", "/v1/x": "from.header /api/x", "/same/x": "shop.test /other/x", "/same": "shop.test /other",
					"/one/two?q=1": `shop.test /in\1dex?q=1`, "/item/42": "shop.test /42/item",
				} {
					f.wants(t, 200, want, path, "Host: shop.test", "X-Host: from.header")
				}
			},
		},
		{
			name:  "edits of headers",
			feels: leaves("requestHeaders.set", "requestHeaders.add", "requestHeaders.remove", "responseHeaders.set", "responseHeaders.add", "responseHeaders.remove"),
			documents: rules("{to: [{upstream: web}], requestHeaders: {set: {x-set: '100%', x-operator: '%REQ(COOKIE)%'}, add: {x-add: two}, remove: [cookie]}, " +
				"responseHeaders: {set: {x-set: ours}, add: {x-add: ours}, remove: [x-secret]}}"),
			see: func(t *testing.T, f *felt) {
				f.a.handle(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("X-Set", "theirs")
					w.Header().Set("X-Add", "theirs")
					w.Header().Set("X-Secret", "theirs")
					_, _ = fmt.Fprintf(w, "%v %v %v %v", r.Header["X-Set"], r.Header["X-Operator"], r.Header["X-Add"], r.Header["Cookie"])
				})
				_, body, answer := f.get("/", "X-Set: client", "X-Add: one", "Cookie: c=1")
				if body != "[100%] [%REQ(COOKIE)%] [one two] []" && body != "[100%] [%REQ(COOKIE)%] [one,two] []" {
					t.Errorf("the upstream saw %s", body)
				}
				if strings.Join(answer["X-Set"], " ") != "ours" || strings.Join(answer["X-Add"], " ") != "theirs ours" || answer["X-Secret"] != nil {
					t.Errorf("the client saw %v", answer)
				}
			},
		},
		{
			name: "upgrades", feels: leaves("upgrades"),
			documents: rules("{match: {path: {prefix: /chat}}, to: [{upstream: web}], upgrades: [websocket, echo/2]}, {to: [{upstream: web}]}"),
			see: func(t *testing.T, f *felt) {
				f.a.handle(upgrade)
				for _, protocol := range []string{"websocket", "echo/2"} {
					if got := converse(t, f.listen, "/chat", protocol); got != "101 hello again" {
						t.Errorf("%s: %s", protocol, got)
					}
				}
				if got := converse(t, f.listen, "/chat", "other"); got != "403" {
					t.Errorf("a protocol that is not listed: %s", got)
				}
				if got := converse(t, f.listen, "/plain", "websocket"); got != "403" {
					t.Errorf("a rule without upgrades: %s", got)
				}
			},
		},
	}
}

// upgrade takes any protocol and echoes lines.
func upgrade(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		w.WriteHeader(http.StatusUpgradeRequired)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close() //nolint:errcheck // an echo's
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
	_, _ = io.Copy(conn, rw)
}

// converse upgrades a connection, waits longer than a timeout of requests would
// be, and says what came back.
func converse(t *testing.T, addr, path, protocol string) string {
	t.Helper()
	c := dial(t, addr)
	defer c.Close() //nolint:errcheck // a test's
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: %s\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", path, protocol)
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return err.Error()
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		_ = resp.Body.Close()
		return fmt.Sprint(resp.StatusCode)
	}
	out := "101"
	for _, word := range []string{"hello", "again"} {
		_, _ = fmt.Fprintln(c, word)
		line, err := in.ReadString('\n')
		if err != nil {
			return err.Error()
		}
		out += " " + strings.TrimSpace(line)
	}
	return out
}

// connectionsFeelings: connections that are passed on, HTTP/2, names.
func connectionsFeelings() []feeling {
	tcp := func(upstreams, fields, more string) string {
		return upstreams + "---\nkind: Listener\nname: feel\nspec: {address: '{listen}', " + more + "accessLog: {to: 'off'}, tcp: {" + fields + "}}\n"
	}
	two := "kind: Upstream\nname: raw\nspec: {protocol: tcp, endpoints: [{address: '{a}'}]}\n---\nkind: Upstream\nname: raw-two\nspec: {protocol: tcp, endpoints: [{address: '{b}'}]}\n---\nkind: Upstream\nname: raw-off\nspec: {protocol: tcp, endpoints: [{address: '{c}'}]}\n"
	http2 := "http2: {maxConcurrentStreams: 2, streamWindowBytes: 65535, connectionWindowBytes: 65535, pingInterval: 1s}"
	return []feeling{
		{
			name:      "connections passed on",
			feels:     []string{"Listener spec.tcp.to[].upstream", "Listener spec.tcp.to[].weight", "Upstream spec.protocol"},
			documents: tcp(two, "to: [{upstream: raw, weight: 3}, {upstream: raw-two, weight: 1}, {upstream: raw-off, weight: 0}]", ""),
			see: func(t *testing.T, f *felt) {
				got := f.shares(80, "/", nil)
				if got["a"] < 40 || got["b"] < 5 || got["c"] > 0 || got["a"]+got["b"] != 80 {
					t.Errorf("3 : 1 : 0 became %v", got)
				}
			},
		},
		{
			name:      "attempts to connect",
			feels:     []string{"Listener spec.tcp.connectAttempts"},
			documents: tcp("kind: Upstream\nname: raw\nspec: {protocol: tcp, loadBalancing: {policy: roundRobin}, endpoints: [{address: '{a}'}, {address: '{d}'}]}\n", "to: [{upstream: raw}], connectAttempts: 5", ""),
			see: func(t *testing.T, f *felt) {
				if got := f.shares(20, "/", nil); got["a"] != 20 {
					t.Errorf("beside a dead endpoint: %v", got)
				}
			},
		},
		{
			name:      "the client decides where",
			feels:     []string{"Listener spec.tcp.hashSourceIP"},
			documents: tcp("kind: Upstream\nname: raw\nspec: {protocol: tcp, loadBalancing: {policy: maglev}, endpoints: [{address: '{a}'}, {address: '{b}'}, {address: '{c}'}]}\n", "to: [{upstream: raw}], hashSourceIP: true", ""),
			see: func(t *testing.T, f *felt) {
				if got := f.shares(20, "/", nil); len(got) != 1 {
					t.Errorf("one client was passed on to %v", got)
				}
			},
		},
		{
			name:      "idle connections passed on",
			documents: tcp(two, "to: [{upstream: raw}]", "idleTimeout: 300ms, "),
			see: func(t *testing.T, f *felt) {
				c := dial(t, f.listen)
				if took := untilClosed(c); took < 250*time.Millisecond || took > 3*time.Second {
					t.Errorf("closed after %s, want 300ms", took)
				}
			},
		},
		{
			name:      "streams with clients",
			feels:     []string{"Listener spec.http2.maxConcurrentStreams", "Listener spec.http2.streamWindowBytes", "Listener spec.http2.connectionWindowBytes", "Listener spec.http2.pingInterval"},
			documents: "kind: Listener\nname: feel\nspec: {address: '{listen}', routes: [web], " + http2 + "}\n",
			see: func(t *testing.T, f *felt) {
				settings, window, pings := frames(t, f.listen)
				// 4 = SETTINGS_INITIAL_WINDOW_SIZE, 3 = SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113, section 6.5.2)
				if settings[3] != 2 || settings[4] != 65535 {
					t.Errorf("settings %v", settings)
				}
				if window != 65535 {
					t.Errorf("the connection's window is %d", window)
				}
				if pings == 0 {
					t.Error("no ping within 2 s")
				}
			},
		},
		{
			name:      "streams with endpoints",
			feels:     []string{"Upstream spec.http2.maxConcurrentStreams", "Upstream spec.http2.pingInterval"},
			documents: "kind: Upstream\nname: web\nspec: {endpoints: [{address: '{a}'}], protocol: http2, " + http2 + "}\n",
			see: func(t *testing.T, f *felt) {
				f.a.handle(sleeps(300 * time.Millisecond))
				var wg sync.WaitGroup
				for range 6 {
					wg.Go(func() { f.wants(t, 200, "", "/") })
				}
				wg.Wait()
				if _, _, conns := f.a.count(); conns < 3 {
					t.Errorf("6 requests at once on %d connections, want 2 on each", conns)
				}
				within(t, 3*time.Second, "a ping is answered", func() string {
					if n := f.stat(t, "http2.keepalive_timeout"); n != "0" {
						return "keepalive_timeout " + n
					}
					return ""
				})
			},
		},
		{
			name:  "words of Envoy's own",
			feels: []string{"Upstream spec.envoy", "Listener spec.envoy", "Listener spec.envoyHTTP", "Listener spec.envoyRoutes", "Route spec.envoy", "Route spec.rules[].envoy"},
			documents: "kind: Upstream\nname: web\nspec: {endpoints: [{address: '{a}'}], envoy: {typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {explicit_http_config: {http2_protocol_options: {}}}}}}\n---\n" +
				"kind: Route\nname: web\nspec: {hosts: ['*'], rules: [{to: [{upstream: web}], envoy: {route: {prefixRewrite: /patched}}}], envoy: {response_headers_to_add: [{header: {key: x-host, value: patched}}]}}\n---\n" +
				"kind: Listener\nname: feel\nspec: {address: '{listen}', routes: [web], envoy: {additional_addresses: [{address: {socket_address: {address: '::1', port_value: {listen-port}}}}]}, envoyHTTP: {server_name: patched, server_header_transformation: OVERWRITE}, envoyRoutes: {response_headers_to_add: [{header: {key: x-table, value: '%PROTOCOL%'}}]}}\n",
			see: func(t *testing.T, f *felt) {
				f.a.handle(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprintf(w, "%s %s", r.Proto, r.URL.Path) })
				v4 := f.listen
				defer func() { f.listen = v4 }()
				for _, at := range []string{v4, net.JoinHostPort("::1", portOf(v4))} {
					f.listen = at
					_, body, answer := f.get("/")
					if body != "HTTP/2.0 /patched" || answer.Get("Server") != "patched" || answer.Get("X-Host") != "patched" || answer.Get("X-Table") != "HTTP/1.1" {
						t.Errorf("%s: %q, %v", at, body, answer)
					}
				}
			},
		},
		{
			name:      "requests dropped by an endpoint policy",
			feels:     []string{"Upstream spec.envoyEndpoints"},
			documents: "kind: Upstream\nname: web\nspec: {endpoints: [{address: '{a}'}], envoyEndpoints: {policy: {dropOverloads: [{category: shed, drop_percentage: {numerator: 100}}]}}}\n",
			see: func(t *testing.T, f *felt) {
				f.wants(t, 503, "", "/")
				if f.stat(t, "cluster.web.upstream_rq_drop_overload") == "0" {
					t.Error("it failed for another reason")
				}
			},
		},
		{
			name:      "the own locality first",
			feels:     []string{"Upstream spec.loadBalancing.localities"},
			documents: "kind: Upstream\nname: web\nspec: {loadBalancing: {policy: roundRobin, localities: loadAware}, endpoints: [{address: '{a}', zone: zone-1}, {address: '{b}', zone: zone-2}]}\n",
			see: func(t *testing.T, f *felt) {
				load := func(e *echo, share string) {
					e.handle(func(w http.ResponseWriter, _ *http.Request) {
						w.Header().Set("Endpoint-Load-Metrics", `JSON {"cpu_utilization": `+share+`, "rps_fractional": 10}`)
						_, _ = io.WriteString(w, e.name)
					})
				}
				load(f.a, "0.3")
				load(f.b, "0.3")
				within(t, 5*time.Second, "both report the same: the own locality", func() string {
					if got := f.shares(100, "/", nil); got["a"] < 85 {
						return fmt.Sprint(got)
					}
					return ""
				})
				load(f.a, "0.95")
				load(f.b, "0.05")
				within(t, 5*time.Second, "the own locality is busy: others help", func() string {
					if got := f.shares(100, "/", nil); got["b"] < 30 {
						return fmt.Sprint(got)
					}
					return ""
				})
			},
		},
		{
			name: "both families", documents: "kind: Listener\nname: feel\nspec: {address: '[::]:{listen-port}', routes: [web]}\n",
			see: func(t *testing.T, f *felt) {
				f.wants(t, 200, "a", "/")
				v4 := f.listen
				defer func() { f.listen = v4 }()
				_, port, _ := net.SplitHostPort(v4)
				f.listen = net.JoinHostPort("::1", port)
				f.wants(t, 200, "a", "/")
			},
		},
		{
			name:      "names of endpoints",
			feels:     []string{"Upstream spec.dns.hosts", "Upstream spec.dns.resolve", "Upstream spec.dns.family", "Upstream spec.dns.refresh", "Upstream spec.dns.followTTL", "Route spec.rules[].rewrite.hostOfEndpoint"},
			documents: names("all", "refresh: 1s") + "---\n" + strings.ReplaceAll(names("one", "followTTL: true, family: v4"), "name: web", "name: one") + namesRoute,
			see: func(t *testing.T, f *felt) {
				f.a.handle(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })
				for _, path := range []string{"/all", "/one"} {
					within(t, 5*time.Second, path+": the name is resolved", func() string {
						status, body, _ := f.get(path)
						if status == 200 && body == "web.wellspring.test" {
							return ""
						}
						return fmt.Sprint(status, body)
					})
				}
				f.names.set("web.wellspring.test.", [4]byte{127, 0, 0, 9}) // nobody is there
				for _, path := range []string{"/all", "/one"} {
					within(t, 5*time.Second, path+": the new address is used", func() string {
						if status, body, _ := f.get(path); status != 503 {
							return fmt.Sprint(status, body)
						}
						return ""
					})
				}
			},
		},
	}
}

func names(resolve, fields string) string {
	return "kind: Upstream\nname: web\nspec: {dns: {hosts: ['web.wellspring.test:{port-of-a}'], resolve: " + resolve + ", " + fields + "}}\n"
}

const namesRoute = "---\nkind: Route\nname: web\nspec: {hosts: ['*'], rules: [{match: {path: {prefix: /one}}, to: [{upstream: one}], rewrite: {hostOfEndpoint: true}}, {to: [{upstream: web}], rewrite: {hostOfEndpoint: true}}]}\n"

// nameServer answers for names under .wellspring.test with one IPv4 address and a
// TTL of a second, over UDP on loopback.
type nameServer struct {
	addr string

	mu   sync.Mutex
	have map[string][4]byte
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s := &nameServer{addr: conn.LocalAddr().String(), have: map[string][4]byte{}}
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer, err := s.answer(buf[:n]); err == nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
	return s
}

func (s *nameServer) set(name string, to [4]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have[name] = to
}

// resolve makes an Envoy ask this server for names.
func (s *nameServer) resolve(b *bootstrapv3.Bootstrap) {
	host, port, _ := net.SplitHostPort(s.addr)
	n, _ := strconv.ParseUint(port, 10, 16)
	a, err := anypb.New(&caresv3.CaresDnsResolverConfig{
		Resolvers: []*corev3.Address{{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Protocol: corev3.SocketAddress_UDP, Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(n)},
		}}}},
		DnsResolverOptions: &corev3.DnsResolverOptions{NoDefaultSearchDomain: true},
	})
	if err != nil {
		panic(err) // an address: cannot fail
	}
	b.TypedDnsResolverConfig = &corev3.TypedExtensionConfig{Name: "envoy.network.dns_resolver.cares", TypedConfig: a}
}

func (s *nameServer) answer(query []byte) ([]byte, error) {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	ip, known := s.have[q.Name.String()]
	s.mu.Unlock()
	h.Response, h.RecursionAvailable = true, true
	m := dnsmessage.Message{Header: h, Questions: []dnsmessage.Question{q}}
	switch {
	case strings.HasPrefix(q.Name.String(), "failing."):
		m.RCode = dnsmessage.RCodeServerFailure
	case !known:
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: ip},
		}}
	}
	return m.Pack()
}

// frames opens an HTTP/2 connection without TLS and reads what the server says
// first: its settings, its connection's window, and how often it pings in 2 s.
func frames(t *testing.T, addr string) (settings map[uint16]uint32, window uint32, pings int) {
	t.Helper()
	c := dial(t, addr)
	defer c.Close() //nolint:errcheck // a test's
	_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	_, _ = c.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // empty SETTINGS
	_ = c.SetReadDeadline(time.Now().Add(2500 * time.Millisecond))
	settings, window = map[uint16]uint32{}, 65_535
	head := make([]byte, 9)
	for {
		if _, err := io.ReadFull(c, head); err != nil {
			return settings, window, pings
		}
		body := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(c, body); err != nil {
			return settings, window, pings
		}
		switch ack := head[4]&1 == 1; head[3] {
		case 4: // SETTINGS
			for ; len(body) >= 6 && !ack; body = body[6:] {
				settings[uint16(body[0])<<8|uint16(body[1])] = uint32(body[2])<<24 | uint32(body[3])<<16 | uint32(body[4])<<8 | uint32(body[5])
			}
		case 6: // PING
			pings++
			_, _ = c.Write(append([]byte{0, 0, 8, 6, 1, 0, 0, 0, 0}, body...))
		case 8: // WINDOW_UPDATE
			window += uint32(body[0])<<24 | uint32(body[1])<<16 | uint32(body[2])<<8 | uint32(body[3])
		}
	}
}

// TestRealOverride: an operator takes one endpoint out and another one in, whatever
// the source says; requests under way finish, it survives a kill of the control
// plane, and ends by hand.
func TestRealOverride(t *testing.T) {
	program, err := envoytest.Find("")
	proc.Need(t, err)
	a, b, c := newEcho(t, "a"), newEcho(t, "b"), newEcho(t, "c")
	s := &scene{t: t, control: serve(t)}
	if s.edge, err = freeport.Addr(); err != nil {
		t.Fatal(err)
	}
	s.control.apply(fmt.Sprintf("kind: Upstream\nname: web\nspec: {loadBalancing: {policy: roundRobin}, endpoints: [{address: '%s', id: one}, {address: '%s', id: two}, {address: '%s', id: three, health: unhealthy}]}\n---\n"+
		"kind: Route\nname: all\nspec: {hosts: ['*'], rules: [{to: [{upstream: web}]}]}\n---\n"+
		"kind: Listener\nname: edge\nspec: {address: '%s', routes: [all], accessLog: {to: 'off'}}\n---\nkind: Group\nname: edge\nspec: {listeners: [edge]}\n", a.addr, b.addr, c.addr, s.edge))
	e, err := envoytest.Start(t.Context(), envoytest.Config{Program: program, Dir: t.TempDir(), Bootstrap: bootstrap.Config{NodeID: "edge-1", Group: "edge", XDS: []string{s.control.XDS}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Kill)
	f := &felt{listen: s.edge}
	shares := func(want string) {
		t.Helper()
		within(t, 2*time.Second, want, func() string {
			if got := fmt.Sprint(f.shares(20, "/", nil)); got != want {
				return got
			}
			return ""
		})
	}
	shares("map[a:10 b:10]")
	cli := func(code int, args ...string) {
		t.Helper()
		if out, got := s.control.cli(args...); got != code {
			t.Errorf("%v: exit %d\n%s", args, got, out)
		}
	}
	cli(64, "drain", "web", "one")
	cli(64, "drain", "web")
	cli(1, "drain", "web", "nobody", "--reason", "x")
	a.handle(sleeps(700 * time.Millisecond))
	under := make(chan int, 40)
	for range 40 {
		go func() { status, _, _ := f.get("/"); under <- status }()
	}
	time.Sleep(200 * time.Millisecond)
	cli(0, "drain", "web", a.addr, "--reason", "new disk", "--for", "1h")
	for range 40 {
		if status := <-under; status != http.StatusOK {
			t.Errorf("a request under way: %d", status)
		}
	}
	shares("map[b:20]")
	cli(0, "enable", "web", "three", "--reason", "its check is wrong")
	shares("map[b:10 c:10]")
	if out, code := s.control.cli("health", "web", "-o", "wide"); code != 0 && code != 79 || !strings.Contains(out, "drained by loopback (new disk)") || !strings.Contains(out, "the source says unhealthy") {
		t.Errorf("health: exit %d\n%s", code, out)
	}
	_ = s.control.Signal(syscall.SIGKILL)
	<-s.control.Done()
	s.control.start()
	within(t, 5*time.Second, "the proxy is back", func() string {
		out, _ := s.control.cli("proxies")
		if strings.Contains(out, "current") {
			return ""
		}
		return out
	})
	shares("map[b:10 c:10]")
	a.handle(nil)
	cli(0, "drain", "web", "one", "--end")
	cli(0, "enable", "web", c.addr, "--end")
	cli(1, "enable", "web", c.addr, "--end")
	shares("map[a:10 b:10]")
	cli(0, "drain", "web", "two", "--reason", "briefly", "--for", "1s")
	shares("map[a:20]")
	shares("map[a:10 b:10]")
}

// TestRealHostnames: an upstream whose instances stand in Consul by name is
// resolved by the proxy, follows the registry, and its health joins both.
func TestRealHostnames(t *testing.T) {
	program, err := envoytest.Find("")
	proc.Need(t, err)
	consul, err := consultest.Start(t.Context(), consultest.Config{Dir: t.TempDir()})
	proc.Need(t, err)
	t.Cleanup(func() { consul.Kill() })
	names, a, b := newNameServer(t), newEcho(t, "a"), newEcho(t, "b")
	names.set("a.wellspring.test.", [4]byte{127, 0, 0, 1})
	names.set("b.wellspring.test.", [4]byte{127, 0, 0, 1})
	register := func(id, host string, e *echo) {
		t.Helper()
		port, _ := strconv.Atoi(portOf(e.addr))
		if err := consul.Client.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: "cloud", Address: host, Port: port}); err != nil {
			t.Fatal(err)
		}
	}
	register("one", "a.wellspring.test", a)
	s := &scene{t: t, control: serve(t, "--consul", consul.Address)}
	if s.edge, err = freeport.Addr(); err != nil {
		t.Fatal(err)
	}
	s.control.apply(fmt.Sprintf("kind: Upstream\nname: cloud\nspec: {service: {source: consul, addresses: hostname}, dns: {refresh: 1s}}\n---\n"+
		"kind: Route\nname: all\nspec: {hosts: ['*'], rules: [{to: [{upstream: cloud}]}]}\n---\n"+
		"kind: Listener\nname: edge\nspec: {address: '%s', routes: [all], accessLog: {to: 'off'}}\n---\nkind: Group\nname: edge\nspec: {listeners: [edge]}\n", s.edge))
	e, err := envoytest.Start(t.Context(), envoytest.Config{Program: program, Dir: t.TempDir(), Change: names.resolve, Bootstrap: bootstrap.Config{NodeID: "edge-1", Group: "edge", XDS: []string{s.control.XDS}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Kill)
	s.says("by name", 200, "a")
	if out, code := s.control.cli("health", "cloud"); code != 0 || !strings.Contains(out, "a.wellspring.test") || !strings.Contains(out, "1/1") && !strings.Contains(out, "healthy") {
		t.Errorf("health: exit %d\n%s", code, out)
	}
	register("one", "b.wellspring.test", b)
	s.says("the registry says another name", 200, "b")
	register("one", "not a name", b)
	s.says("nobody could resolve it", 503, "no healthy upstream")
	if out, code := s.control.cli("health", "cloud"); code != 79 || !strings.Contains(out, "neither an IP nor") {
		t.Errorf("health: exit %d\n%s", code, out)
	}
}
