package spec

import (
	"net/netip"
	"time"
)

// Listener is where requests come in.
type Listener struct {
	Address           string       `json:"address,omitempty" doc:"IP and port that each proxy listens on: 0.0.0.0:8080. [::]:8080 takes IPv4 too. Needed, unless grpc."`
	Routes            []string     `json:"routes,omitempty" doc:"Names of Route documents. A host belongs to one of them. Exactly one of routes, autoRoutes and tcp."`
	TLS               *ListenerTLS `json:"tls,omitempty" doc:"Clients speak TLS. Certificates travel by SDS: a renewed one is used without touching the listener."`
	AutoRoutes        *AutoRoutes  `json:"autoRoutes,omitempty" doc:"A host for each upstream that is declared or imported, in place of routes."`
	TCP               *TCP         `json:"tcp,omitempty" doc:"Connections are passed on as they are, after TLS where that is written."`
	GRPC              bool         `json:"grpc,omitempty" doc:"The routes are for programs that are xDS clients themselves (gRPC's own): each host of them is a target, xds:///HOST. Without an address; no Envoy is sent it."`
	Inbound           bool         `json:"inbound,omitempty" doc:"Of a sidecar: it leads to the application beside the proxy, whose endpoints are on loopback. No autoRoutes lead to that upstream: its name must not be the service's. Envoy drains it apart (/drain_listeners?inboundonly), while the application still calls others."`
	HTTP2             HTTP2        `json:"http2,omitempty" doc:"HTTP/2 with clients."`
	AccessLog         AccessLog    `json:"accessLog,omitempty" doc:"One JSON line for each request, with response flags and details."`
	IdleTimeout       Duration     `json:"idleTimeout,omitempty" default:"1h" doc:"A client's connection without a request, or of tcp without a byte, is closed after this; 0s is never."`
	StreamIdleTimeout Duration     `json:"streamIdleTimeout,omitempty" default:"5m" doc:"A request without a byte either way ends after this; 0s is never. A rule's idleTimeout goes before it."`
	HeadersTimeout    Duration     `json:"requestHeadersTimeout,omitempty" default:"10s" doc:"Longest time to receive a request's headers; 0s is without limit."`
	MaxHeadersKB      uint32       `json:"maxRequestHeadersKB,omitempty" default:"60" minimum:"1" maximum:"8192" doc:"Most of a request's headers, in KiB."`
	BufferLimit       uint32       `json:"connectionBufferBytes,omitempty" default:"1048576" minimum:"1024" doc:"Bytes that may be buffered for each connection."`
	Envoy             Passthrough  `json:"envoy,omitempty" doc:"Part of Envoy's own Listener (envoy.config.listener.v3), merged last as a JSON Merge Patch."`
	EnvoyHTTP         Passthrough  `json:"envoyHTTP,omitempty" doc:"Part of Envoy's own HttpConnectionManager of a listener with routes, merged last as a JSON Merge Patch."`
	EnvoyRoutes       Passthrough  `json:"envoyRoutes,omitempty" doc:"Part of Envoy's own RouteConfiguration of a listener with routes, merged last as a JSON Merge Patch."`
	TrustedHops       uint32       `json:"trustedHops,omitempty" maximum:"16" doc:"Proxies in front whose x-forwarded-for is believed."`
}

// AutoRoutes give each upstream that does not speak tcp the host NAME.DOMAIN.
type AutoRoutes struct {
	Domain string `json:"domain" required:"true" maxLength:"180" doc:"What stands after an upstream's name: with svc.local the upstream web has the host web.svc.local."`
}

// TCP passes connections on.
type TCP struct {
	To              []Destination `json:"to" required:"true" doc:"The upstreams, with weights."`
	ConnectAttempts uint32        `json:"connectAttempts,omitempty" default:"2" minimum:"1" maximum:"10" doc:"Endpoints that are tried before the client's connection is closed."`
	HashSourceIP    bool          `json:"hashSourceIP,omitempty" doc:"The client's address is what ringHash and maglev upstreams hash."`
}

// HTTP2 are the options of one side. What is not written is Envoy's own default.
type HTTP2 struct {
	MaxStreams       uint32   `json:"maxConcurrentStreams,omitempty" maximum:"2147483647" doc:"Most streams of one connection. Default: Envoy's own."`
	StreamWindow     uint32   `json:"streamWindowBytes,omitempty" maximum:"2147483647" doc:"Bytes that may be on their way in one stream; at least 65535. Default: Envoy's own."`
	ConnectionWindow uint32   `json:"connectionWindowBytes,omitempty" maximum:"2147483647" doc:"Bytes that may be on their way in one connection; at least 65535. Default: Envoy's own."`
	PingInterval     Duration `json:"pingInterval,omitempty" doc:"A ping after so long; a connection that does not answer within 5s is closed. 0s sends none."`
}

// AccessLog says where the log goes.
type AccessLog struct {
	To string `json:"to,omitempty" default:"stdout" doc:"stdout, stderr, off, or the absolute path of a file on the proxy's machine."`
}

func (l *Listener) check(c *checker) {
	switch {
	case !l.GRPC && l.Address == "":
		c.faultf("spec.address", "is missing")
	case !l.GRPC:
		c.ipPort("spec.address", l.Address)
	default:
		l.checkGRPC(c)
	}
	c.oneWritten("spec.routes", false, "routes, autoRoutes and tcp", len(l.Routes) > 0, l.AutoRoutes != nil, l.TCP != nil)
	if l.Inbound && l.AutoRoutes != nil {
		c.faultf("spec.autoRoutes", "an inbound listener leads to the application beside the proxy, not to every upstream; write routes or tcp")
	}
	if l.AutoRoutes != nil && !dnsName.MatchString(l.AutoRoutes.Domain) {
		c.faultf("spec.autoRoutes.domain", "%q is not a domain; write svc.local", l.AutoRoutes.Domain)
	}
	if l.TCP != nil {
		if len(l.TCP.To) == 0 {
			c.faultf("spec.tcp.to", "is empty; name an upstream")
		}
		checkDestinations(c, "spec.tcp.to", l.TCP.To)
		for _, field := range []string{"http2", "streamIdleTimeout", "requestHeadersTimeout", "maxRequestHeadersKB", "trustedHops", "envoyHTTP", "envoyRoutes"} {
			if c.doc.written("spec." + field) {
				c.faultf("spec."+field, "means nothing for tcp, which has no requests; leave it out")
			}
		}
	}
	l.HTTP2.check(c, "spec.http2")
	seen := map[string]int{}
	for i, r := range l.Routes {
		if j, ok := seen[r]; ok {
			c.faultf(index("spec.routes", i), "%q stands at routes[%d] already", r, j)
		}
		seen[r] = i
	}
	if l.TLS != nil {
		l.TLS.check(c, "spec.tls")
	}
	switch to := l.AccessLog.To; {
	case to == "stdout", to == "stderr", to == "off":
	case len(to) > 0 && to[0] == '/':
		c.headerValue("spec.accessLog.to", to)
	default:
		c.faultf("spec.accessLog.to", "%q is not stdout, stderr, off or an absolute path", to)
	}
}

// checkGRPC refuses what only a proxy that listens can do.
func (l *Listener) checkGRPC(c *checker) {
	for _, field := range []string{"address", "tcp", "tls", "inbound", "http2", "accessLog", "idleTimeout", "streamIdleTimeout", "requestHeadersTimeout", "maxRequestHeadersKB", "connectionBufferBytes", "trustedHops", "envoy", "envoyHTTP", "envoyRoutes"} {
		if c.doc.written("spec." + field) {
			c.faultf("spec."+field, "means nothing for grpc: the client is the proxy, and nobody listens; leave it out")
		}
	}
}

func (h HTTP2) check(c *checker, path string) {
	for field, n := range map[string]uint32{"streamWindowBytes": h.StreamWindow, "connectionWindowBytes": h.ConnectionWindow} {
		if n != 0 && n < 65_535 {
			c.faultf(path+"."+field, "%d is below 65535, the least that HTTP/2 begins with", n)
		}
	}
	if h.PingInterval != 0 && h.PingInterval.D() < time.Second {
		c.faultf(path+".pingInterval", "%s is shorter than 1s; servers close connections that ping so often", h.PingInterval)
	}
}

// RoutesHTTP tells whether a listener has a route table.
func (l *Listener) RoutesHTTP() bool { return len(l.Routes) > 0 || l.AutoRoutes != nil }

// Destinations lists the upstreams that a listener itself leads to.
func (l *Listener) Destinations() []Destination {
	if l.TCP == nil {
		return nil
	}
	return l.TCP.To
}

// overlaps tells whether two listeners cannot be bound at once: the same port on
// the same address, or on an unspecified one.
func overlaps(a, b string) bool {
	x, err1 := netip.ParseAddrPort(a)
	y, err2 := netip.ParseAddrPort(b)
	if err1 != nil || err2 != nil || x.Port() != y.Port() {
		return false
	}
	// [::] takes IPv4 too.
	covers := func(a, b netip.Addr) bool { return a.IsUnspecified() && (a.Is6() || b.Is4()) }
	return x.Addr() == y.Addr() || covers(x.Addr(), y.Addr()) || covers(y.Addr(), x.Addr())
}
