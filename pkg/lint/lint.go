// Package lint says of documents that are taken what is probably not meant.
//
//	spec.Check: what one walk over the documents shows ──┐
//	Documents: what needs a closer look at one of them ──┼─► spec.Fault with a code and a fix
//	Living: what runs: registry, endpoints, proxies ─────┘   (spec.Advices lists them)
//
// A document that has a code in `ignore` is left alone by it. Living asks a registry about
// a service that nobody watches yet, and tries a new health check at the endpoints that
// are there: so that a revision that would be an outage is seen before it is one.
package lint

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Documents looks at some of a Spec's documents.
func Documents(s *spec.Spec, of []*spec.Document) []spec.Fault {
	var out []spec.Fault
	var chains *chains
	for _, d := range of {
		switch b := d.Body.(type) {
		case *spec.Route:
			out = append(out, shadowed(d, b)...)
			if chains == nil {
				chains = newChains(s)
			}
			out = append(out, chains.storms(d, b)...)
		case *spec.Upstream:
			if b.Endpoints != nil {
				out = append(out, few(d, b, len(b.Endpoints))...)
			}
		}
	}
	return s.Heeded(out)
}

// few are of an upstream with few endpoints.
func few(d *spec.Document, u *spec.Upstream, n int) (out []spec.Fault) {
	p := u.WhenUnavailable.Panic
	if n == 1 && (p.Below == 0 || p.Then == "fail") {
		out = append(out, d.Advise(spec.AdviceNoWayOut, "spec.whenUnavailable.panic", "panic is off, and there is one endpoint: when its check fails once too often every request gets 503 UH, though it may answer"))
	}
	if o := u.Outlier; o != nil && n > 0 && n < 3 && n*int(o.MaxEjectionPercent)/100 > 0 {
		out = append(out, d.Advise(spec.AdviceFewToEject, "spec.outlierDetection", "with %d endpoints one ejection is %d %% of them", n, 100/n))
	}
	return out
}

// place is where rules are looked for that may cover another one: by their path, of a
// prefix with a slash at its end, and by their first header.
type place struct {
	path   spec.PathMatch
	header string
}

// shadowed are the rules that no request reaches. Of those before each it looks only at
// those that may cover it: a document may have some ten thousand.
func shadowed(d *spec.Document, r *spec.Route) (out []spec.Fault) {
	before := map[place][]int{}
	for j := range r.Rules {
		m := &r.Rules[j].Match
		headers := []string{""}
		for _, h := range m.Headers {
			text, _ := json.Marshal(h) // texts and flags: it cannot fail
			headers = append(headers, string(text))
		}
		least := j
		look := func(path spec.PathMatch) {
			for _, h := range headers {
				rules := before[place{path, h}]
				if k := slices.IndexFunc(rules, func(i int) bool { return covers(&r.Rules[i].Match, m) }); k >= 0 {
					least = min(least, rules[k])
				}
			}
		}
		path, mine := m.Path.Prefix+m.Path.Exact, m.Path // one of both at most
		for i := range len(path) {
			if path[i] == '/' {
				look(spec.PathMatch{Prefix: path[:i+1]})
			}
		}
		look(spec.PathMatch{Prefix: path + "/"}) // of a regex, or of any path: "/"
		look(spec.PathMatch{})
		if mine.Prefix != "" {
			mine.Prefix = strings.TrimSuffix(mine.Prefix, "/") + "/"
		} else if mine != (spec.PathMatch{}) {
			look(mine)
		}
		if least < j {
			out = append(out, d.Advise(spec.AdviceShadowed, fmt.Sprintf("spec.rules[%d].match", j), "rules[%d] takes every request that this one would", least))
		}
		at := place{mine, headers[min(1, len(headers)-1)]}
		before[at] = append(before[at], j)
	}
	return out
}

// covers tells whether a takes every request that b does. What is not certain is no.
func covers(a, b *spec.Match) bool {
	if len(a.Methods) > 0 && (len(b.Methods) == 0 || slices.ContainsFunc(b.Methods, func(m string) bool { return !slices.Contains(a.Methods, m) })) {
		return false
	}
	for _, h := range a.Headers {
		if !slices.ContainsFunc(b.Headers, func(x spec.HeaderMatch) bool { return reflect.DeepEqual(h, x) }) {
			return false
		}
	}
	p, q := a.Path, b.Path
	switch {
	case p == q, p == spec.PathMatch{}, p.Prefix == "/":
		return true
	case p.Prefix == "":
		return false
	}
	under := func(path string) bool {
		return path == p.Prefix || strings.HasPrefix(path, strings.TrimSuffix(p.Prefix, "/")+"/")
	}
	return q.Prefix != "" && under(q.Prefix) || q.Exact != "" && under(q.Exact)
}

// manyTries of one request are a storm where what it asks for is down.
const manyTries = 8

// again are the conditions by which an answer of the next hop is tried again: by these
// tries of both multiply.
var again = []string{"5xx", "gatewayError", "retriableStatuses", "reset", "unavailable", "internal", "deadlineExceeded", "cancelled", "resourceExhausted"}

// chains are the roads on which an upstream's endpoints are listeners of proxies of ours.
type chains struct {
	spec    *spec.Spec
	at      map[netip.AddrPort]*hop // by address
	inbound map[uint16]*hop         // beside applications, on whichever machine, by port
}

// hop is a listener, and what one request may become behind it.
type hop struct {
	*spec.Listener
	known bool
	tries uint32
	road  []string
}

func newChains(s *spec.Spec) *chains {
	c := &chains{spec: s, at: map[netip.AddrPort]*hop{}, inbound: map[uint16]*hop{}}
	for _, d := range s.Documents(spec.KindListener) {
		l, ok := d.Body.(*spec.Listener)
		if !ok {
			continue
		}
		if at, err := netip.ParseAddrPort(l.Address); err == nil {
			h := &hop{Listener: l}
			if c.at[at] = h; l.Inbound && at.Addr().IsUnspecified() {
				c.inbound[at.Port()] = h
			}
		}
	}
	return c
}

// behind are the listeners that an upstream's endpoints are, each once.
func (c *chains) behind(name string) (out []*hop) {
	u, ok := c.spec.Upstream(name)
	if !ok {
		return nil
	}
	for _, e := range u.Endpoints {
		at, err := netip.ParseAddrPort(e.Address)
		if err != nil {
			continue
		}
		for _, h := range []*hop{c.at[at], c.inbound[at.Port()]} {
			if h != nil && !slices.Contains(out, h) {
				out = append(out, h)
			}
		}
	}
	return out
}

// storms are the rules by which one request may become many tries.
func (c *chains) storms(d *spec.Document, r *spec.Route) (out []spec.Fault) {
	for i := range r.Rules {
		n, road := c.tries(&r.Rules[i], fmt.Sprintf("%s rules[%d]", d, i))
		if n >= manyTries && len(road) > 0 {
			out = append(out, d.Advise(spec.AdviceRetryStorm, fmt.Sprintf("spec.rules[%d].retry", i), "one request may become %d tries (%s), as far as retry budgets let them", n, strings.Join(road, " × ")))
		}
	}
	return out
}

// mostTries is where counting ends.
const mostTries = 1_000_000

// tries is what one request of a rule may become at the end of the road, and the hops that
// multiply it.
func (c *chains) tries(r *spec.Rule, at string) (n uint32, road []string) {
	if len(r.To) == 0 {
		return 1, nil
	}
	most, rest := uint32(1), []string(nil)
	for _, to := range r.To {
		for _, h := range c.behind(to.Upstream) {
			if m, road := c.of(h); m > most {
				most, rest = m, road
			}
		}
	}
	mine := max(1, r.Retry.Attempts)
	if most > 1 && !slices.ContainsFunc(r.Retry.On, func(on string) bool { return slices.Contains(again, on) }) {
		mine = 1 // the next hop answers: that is not tried again here
	}
	if mine > 1 {
		rest = append([]string{fmt.Sprintf("%d by %s", mine, at)}, rest...)
	}
	return min(mostTries, mine*most), rest
}

// of is what a request may become behind a listener: reckoned once. A road that comes back
// to where it began ends there.
func (c *chains) of(h *hop) (uint32, []string) {
	if h.known {
		return max(1, h.tries), h.road
	}
	h.known = true
	for _, name := range h.Routes {
		route, ok := c.spec.Route(name)
		if !ok {
			continue
		}
		for i := range route.Rules {
			if n, road := c.tries(&route.Rules[i], fmt.Sprintf("Route/%s rules[%d]", name, i)); n > h.tries {
				h.tries, h.road = n, road
			}
		}
	}
	return max(1, h.tries), h.road
}
