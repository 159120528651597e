package diagnose

import (
	"fmt"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// warningChecks are of what is no outage yet, and may become one.
var warningChecks = []caseCheck{{W1, nil, onEdge}, {W3, nil, nearlyFull}, {W4, nil, stale}}

// warnings runs their checks.
func (c *Case) warnings() []Finding {
	out := []Finding{}
	if c.Past {
		for _, f := range c.Recorded {
			if f.Code != "" && f.Code[0] == 'W' {
				out = append(out, f)
			}
		}
		return out
	}
	for _, x := range warningChecks {
		if claim, _ := x.run(c); claim != nil {
			out = append(out, claim.finding(x.code))
		}
	}
	return out
}

// onEdge is silent where it is an outage already, and where one endpoint is all that is
// declared: that is a choice, which lint names.
func onEdge(c *Case) (*claim, string) {
	h := c.Health
	if h.Spare > 0 || h.Counts.Total < 2 || c.fails() || h.State == health.Unknown {
		return nil, ""
	}
	healthy, of := h.Counts.Healthy, h.Counts.Total
	line := fmt.Sprintf("source %s: %d of %d endpoints healthy", c.source(), healthy, of)
	if s := h.Seen; s != nil && s.Reporting > 0 && s.Healthy < healthy {
		line = fmt.Sprintf("fleet: %d of %d endpoints usable at the proxy that sees fewest", s.Healthy, s.Members)
	}
	then := fmt.Sprintf("below %g %% of usable endpoints requests go to dead ones too (panic)", c.Spec.WhenUnavailable.Panic.Below)
	if c.Spec.WhenUnavailable.Panic.Then == "fail" || c.Spec.WhenUnavailable.Panic.Below == 0 {
		then = "panic is off: with the last one gone requests get 503 UH"
	}
	return &claim{Likely, "not one more endpoint may fail", []string{line, then}, "bring back those that are out, or add some: wellspring health " + c.Upstream}, ""
}

// nearly is the share of a limit from which on it is told.
const nearly = 0.8

func nearlyFull(c *Case) (*claim, string) {
	b := c.Spec.CircuitBreakers
	x := &claim{Likely, "", nil, "see why so many are open at once: slow answers, or limits that are too low (circuitBreakers)"}
	reach := Reach{Of: len(c.Views)}
	for _, v := range c.Views {
		for _, of := range []struct {
			n    int
			most uint32
			what string
		}{{v.Active, b.Requests, "requests run"}, {v.Pending, b.Pending, "requests wait for a connection"}} {
			if float64(of.n) < nearly*float64(of.most) {
				continue
			}
			if len(x.evidence) < mostLines {
				x.evidence = append(x.evidence, fmt.Sprintf("proxy %s: %d %s, %d may", v.Proxy, of.n, of.what, of.most))
			}
			reach.add(v.Proxy, v.Zone)
			break
		}
	}
	if reach.Count == 0 {
		return nil, ""
	}
	x.says = "a circuit breaker is nearly full in " + reach.String()
	return x, ""
}

// staleAfter is for how long a source may be silent before that is told.
const staleAfter = 30 * time.Second

func stale(c *Case) (*claim, string) {
	if c.unknown() || c.Known.Failure == nil || c.At.Sub(c.Known.FailingSince) < staleAfter {
		return nil, ""
	}
	return &claim{Likely, "nobody new comes in, and nobody goes: its source cannot be read", []string{c.failing(), c.lasts()}, "bring it back: wellspring sources"}, ""
}

// OfCertificate warns of one that ends soon, or has ended; nil where it lasts.
func OfCertificate(x model.Certificate, at time.Time) *Finding {
	c := &claim{strength: Likely, next: "replace the file by a newer one: it is read again by itself; wellspring health lists all"}
	switch x.State {
	case model.CertificateExpiring:
		c.says = fmt.Sprintf("%s ends in %s", x.File, days(x.NotAfter.Sub(at)))
	case model.CertificateExpired:
		c.says = fmt.Sprintf("%s ended %s ago", x.File, days(at.Sub(x.NotAfter)))
	default:
		return nil
	}
	c.evidence = []string{fmt.Sprintf("certificate %s: not after %s", x.File, x.NotAfter.UTC().Format(time.DateTime)), "used by " + list(x.Users)}
	f := c.finding(W2)
	return &f
}

// days is a span in days, or shorter where it is.
func days(d time.Duration) string {
	if d < 48*time.Hour {
		return span(d)
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
