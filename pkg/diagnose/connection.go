package diagnose

import (
	"fmt"
	"strings"

	"github.com/wellspring-xds/wellspring/pkg/envoyadmin"
)

// connectionChecks are of connections to hosts that are in use.
var connectionChecks = []check{{E4, tls}, {E2, connectTimeout}, {E1, refused}, {E5, protocol}}

// strengthOf a failure: certain while it grows; where one looked once, likely if no host
// was ever reached.
func (c *cluster) strengthOf(x count) Strength {
	switch {
	case x.now:
		return c.unlessNoise(x)
	case c.neverReached():
		return Likely
	}
	return Possible
}

// noise is the share of requests, one in so many, below which failures are no outage.
const noise = 100

// unlessNoise is certain where a failure grows, but for one in a hundred requests (or
// connections, which alone are counted of TCP), and but for one or two, unless those are
// half of all.
func (c *cluster) unlessNoise(x count) Strength {
	all := max(c.growth("upstream_rq_total").n, c.growth("upstream_cx_total").n)
	if !x.now || x.n*noise < all || x.n < leastFailed && 2*x.n < all {
		return Possible
	}
	return Certain
}

// neverReached tells that every connection failed that was ever tried, or every request.
func (c *cluster) neverReached() bool {
	tried, reached := false, false
	for _, h := range c.hosts {
		tried = tried || h.Connections > 0
		reached = reached || h.Requests > h.Errors && h.Connections > h.ConnectFailed
	}
	return tried && !reached
}

// failedHosts are those to which connections failed.
func (c *cluster) failedHosts() (out []envoyadmin.Host) {
	for _, h := range c.hosts {
		if h.ConnectFailed > 0 {
			out = append(out, h)
		}
	}
	return out
}

func tls(c *cluster) (*claim, string) {
	if !c.config.TLS() {
		return nil, ""
	}
	if n := c.growth("client_ssl_socket_factory.upstream_context_secrets_not_ready"); n.n > 0 {
		return &claim{c.strengthOf(n), "a certificate or an authority was not brought to this Envoy", []string{n.String()}, "see which secret is missing: /config_dump, dynamic_warming_secrets"}, ""
	}
	fail := c.growth("upstream_cx_connect_fail")
	failures := c.tlsFailures()
	if fail.n == 0 || !c.noTLS() {
		return nil, "no handshake fails"
	}
	hosts := c.failedHosts()
	x := &claim{min(Likely, c.strengthOf(fail)), "TLS handshakes with the hosts fail", []string{flagged("cx_connect_fail", hosts)}, "see what the hosts present, and what is asked of them: /config_dump, transport_socket"}
	if len(hosts) > 0 {
		x.next = nextTLS(hosts[0])
	}
	for _, f := range failures {
		x.evidence = append(x.evidence, f.String())
		if strings.Contains(f.name, "fail_verify") {
			x.strength = max(x.strength, c.strengthOf(f))
		}
	}
	return x, ""
}

func connectTimeout(c *cluster) (*claim, string) {
	n := c.growth("upstream_cx_connect_timeout")
	if n.n == 0 {
		return nil, "no connection runs out of time"
	}
	return &claim{
		c.strengthOf(n), "connections are not answered in time",
		[]string{n.String(), fmt.Sprintf("/config_dump: connect_timeout %s", c.config.Connect)},
		"look at what is between: firewalls, routes, a host that is gone; nc -vz HOST PORT",
	}, ""
}

func refused(c *cluster) (*claim, string) {
	fail, slow := c.growth("upstream_cx_connect_fail"), c.growth("upstream_cx_connect_timeout")
	if fail.n == 0 {
		return nil, "no connection fails"
	}
	if fail.n <= slow.n || c.noTLS() {
		return nil, ""
	}
	hosts := c.failedHosts()
	return &claim{
		min(Likely, c.strengthOf(fail)), fmt.Sprintf("connections to %s fail at once: nothing listens there, or no way leads there", c.out(hosts)),
		[]string{fail.String(), flagged("cx_connect_fail", hosts)},
		"see whether the process runs, and on which port: ss -ltn",
	}, ""
}

func protocol(c *cluster) (*claim, string) {
	n := c.growth("upstream_cx_protocol_error")
	if n.n == 0 {
		return nil, "no protocol error"
	}
	return &claim{
		c.strengthOf(n), "the hosts speak another protocol than the cluster",
		[]string{n.String()},
		"compare http2_protocol_options (or typed_extension_protocol_options) with what the service speaks",
	}, ""
}
