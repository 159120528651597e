package spec

import "net/netip"

// Listener is where requests come in.
type Listener struct {
	Address           string       `json:"address" required:"true" doc:"IP and port that each proxy listens on: 0.0.0.0:8080."`
	Routes            []string     `json:"routes" required:"true" doc:"Names of Route documents. A host belongs to one of them."`
	TLS               *ListenerTLS `json:"tls,omitempty" doc:"Clients speak TLS. Certificates travel by SDS: a renewed one is used without touching the listener."`
	AccessLog         AccessLog    `json:"accessLog,omitempty" doc:"One JSON line for each request, with response flags and details."`
	IdleTimeout       Duration     `json:"idleTimeout,omitempty" default:"1h" doc:"A client's connection without a request is closed after this; 0s is never."`
	StreamIdleTimeout Duration     `json:"streamIdleTimeout,omitempty" default:"5m" doc:"A request without a byte either way ends after this; 0s is never. A rule's idleTimeout goes before it."`
	HeadersTimeout    Duration     `json:"requestHeadersTimeout,omitempty" default:"10s" doc:"Longest time to receive a request's headers; 0s is without limit."`
	MaxHeadersKB      uint32       `json:"maxRequestHeadersKB,omitempty" default:"60" minimum:"1" maximum:"8192" doc:"Most of a request's headers, in KiB."`
	BufferLimit       uint32       `json:"connectionBufferBytes,omitempty" default:"1048576" minimum:"1024" doc:"Bytes that may be buffered for each connection."`
	TrustedHops       uint32       `json:"trustedHops,omitempty" maximum:"16" doc:"Proxies in front whose x-forwarded-for is believed."`
}

// AccessLog says where the log goes.
type AccessLog struct {
	To string `json:"to,omitempty" default:"stdout" doc:"stdout, stderr, off, or the absolute path of a file on the proxy's machine."`
}

func (l *Listener) check(c *checker) {
	c.ipPort("spec.address", l.Address)
	if len(l.Routes) == 0 {
		c.faultf("spec.routes", "is empty; name a Route document")
	}
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

// overlaps tells whether two listeners cannot be bound at once: the same port on
// the same address, or on an unspecified one.
func overlaps(a, b string) bool {
	x, err1 := netip.ParseAddrPort(a)
	y, err2 := netip.ParseAddrPort(b)
	if err1 != nil || err2 != nil || x.Port() != y.Port() {
		return false
	}
	return x.Addr() == y.Addr() || x.Addr().IsUnspecified() && x.Addr().Is4() == y.Addr().Is4() ||
		y.Addr().IsUnspecified() && x.Addr().Is4() == y.Addr().Is4()
}
