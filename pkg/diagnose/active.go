package diagnose

import (
	"fmt"
	"strings"

	"github.com/wellspring-xds/wellspring/pkg/envoyadmin"
)

// activeChecks are of Envoy's own health checks. An answer that is not expected, a
// connection that fails and an answer that comes too late look different.
var activeChecks = []check{{H1, unexpected}, {H2, tooSlow}, {H5, checkTLS}, {H3, unreachable}, {H7, neverChecked}}

// failing are the hosts that fail their check other than by time.
func (c *cluster) failing() (out []envoyadmin.Host) {
	for _, h := range c.with("failed_active_health_check") {
		if !h.Has("active_hc_timeout") && !h.Has("excluded_via_immediate_hc_fail") {
			out = append(out, h)
		}
	}
	return out
}

// checked is how checks failed: all of them, and those by the network; of the time that
// one looked at where any did.
func (c *cluster) checked() (all, network count) {
	of := func(count func(string) count) (all, network count) {
		name := func(s string) string { return c.prefix() + "health_check." + s }
		all, network = count(name("failure")), count(name("network_failure"))
		all.n -= min(all.n, count(name("passive_failure")).n) // by the answer to a request
		return all, network
	}
	if all, network = of(c.envoy.growth); all.n > 0 {
		return all, network
	}
	return of(c.envoy.total)
}

// check says what is asked of the hosts.
func (c *cluster) check() string {
	for _, h := range c.config.Checks {
		switch {
		case h.HTTP != nil:
			return fmt.Sprintf("GET %s (host %s)", h.HTTP.Path, orName(h.HTTP.Host, c.name))
		case h.GRPC != nil:
			return fmt.Sprintf("gRPC health of %q", h.GRPC.Service)
		case h.TCP != nil:
			return "a TCP connection"
		}
	}
	return "its check"
}

func orName(host, name string) string {
	if host == "" {
		return name
	}
	return host
}

const noneFails = "no host fails its check"

func (c *cluster) out(hosts []envoyadmin.Host) string {
	return fmt.Sprintf("%d of %d hosts", len(hosts), len(c.hosts))
}

func unexpected(c *cluster) (*claim, string) {
	out := c.failing()
	if len(out) == 0 {
		return nil, noneFails
	}
	all, network := c.checked()
	if all.n <= network.n {
		return nil, "checks fail by the network alone"
	}
	s := Likely
	if c.stat("health_check.network_failure") == 0 {
		s = Certain
	}
	return &claim{
		s.unless(c.minor(out)), fmt.Sprintf("%s answer %s with something else than what is expected", c.out(out), c.check()),
		[]string{flagged("failed_active_health_check", out), all.String(), network.String()},
		"ask one as the check does: curl -si " + c.checkURL(out[0]),
	}, ""
}

// checkURL is where the check asks a host, quoted for a shell: a dump may be anybody's.
func (c *cluster) checkURL(h envoyadmin.Host) string {
	path := "/"
	for _, x := range c.config.Checks {
		if x.HTTP != nil {
			path = x.HTTP.Path
			break
		}
	}
	return quoted("http://" + h.Address + path)
}

// quoted is one word of a shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "%27") + "'" }

func tooSlow(c *cluster) (*claim, string) {
	out := c.with("active_hc_timeout")
	if len(out) == 0 {
		return nil, "no check ran out of time"
	}
	limit := ""
	if len(c.config.Checks) > 0 {
		limit = " within " + c.config.Checks[0].Timeout.String()
	}
	return &claim{
		Likely.unless(c.minor(out)), fmt.Sprintf("%s do not answer %s%s: slow, or not reachable", c.out(out), c.check(), limit),
		[]string{flagged("active_hc_timeout", out)},
		"measure it: curl -so /dev/null -w '%{time_connect} %{time_total}' " + c.checkURL(out[0]),
	}, ""
}

// tlsFailures are the handshakes and verifications that failed.
func (c *cluster) tlsFailures() (out []count) {
	for _, name := range []string{"ssl.fail_verify_san", "ssl.fail_verify_error", "ssl.fail_verify_cert_hash", "ssl.fail_verify_no_cert", "ssl.connection_error"} {
		if x := c.growth(name); x.n > 0 {
			out = append(out, x)
		}
	}
	return out
}

// noTLS tells that handshakes fail: they do so now or, where one looked once, none ever
// came about.
func (c *cluster) noTLS() bool {
	return c.config.TLS() && len(c.tlsFailures()) > 0 && (c.envoy.Before != nil || c.stat("ssl.handshake") == 0)
}

func checkTLS(c *cluster) (*claim, string) {
	out, failures := c.failing(), c.tlsFailures()
	if len(out) == 0 {
		return nil, noneFails
	}
	if !c.noTLS() {
		return nil, "no handshake fails"
	}
	all, network := c.checked()
	if network.n == 0 || all.n > network.n {
		return nil, ""
	}
	x := &claim{Likely, fmt.Sprintf("%s fail their check by TLS", c.out(out)), []string{flagged("failed_active_health_check", out)}, nextTLS(out[0])}
	for _, f := range failures {
		x.evidence = append(x.evidence, f.String())
		if f.now && strings.Contains(f.name, "fail_verify") {
			x.strength = Certain
		}
	}
	x.strength = x.strength.unless(c.minor(out))
	return x, ""
}

func nextTLS(h envoyadmin.Host) string {
	return fmt.Sprintf("see what it presents: openssl s_client -connect %s </dev/null | openssl x509 -noout -subject -ext subjectAltName -dates", quoted(h.Address))
}

func unreachable(c *cluster) (*claim, string) {
	out := c.failing()
	if len(out) == 0 {
		return nil, noneFails
	}
	all, network := c.checked()
	if network.n == 0 {
		return nil, "checks reach the hosts"
	}
	if c.noTLS() {
		return nil, ""
	}
	s := Likely
	if all.n > network.n {
		s = Possible
	}
	return &claim{
		s.unless(c.minor(out)), fmt.Sprintf("%s cannot be reached by %s: nothing listens there, or the port is another one", c.out(out), c.check()),
		[]string{flagged("failed_active_health_check", out), network.String()},
		"see what listens there: curl -si " + c.checkURL(out[0]),
	}, ""
}

func neverChecked(c *cluster) (*claim, string) {
	out := c.with("pending_active_hc")
	if len(out) == 0 {
		return nil, "every host was checked"
	}
	s := Certain
	if c.outcome == Serves {
		s = Possible // as it is meant
	}
	return &claim{
		s, fmt.Sprintf("%s were not checked yet", c.out(out)),
		[]string{flagged("pending_active_hc", out)},
		"wait for the first round of checks; lower initial_jitter and interval where that is long",
	}, ""
}
