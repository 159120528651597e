package spec

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Asking is a request as a client sends it.
type Asking struct {
	Method string // "" is GET
	Host   string // with or without a port, which is ignored
	Path   string // with or without a query, which is ignored
	// Headers by name, in lower case.
	Headers map[string]string
}

// Way is where a listener sends a request, as Envoy would: the virtual host by the most
// exact host, then the first rule that matches.
type Way struct {
	Group, Listener string
	// Route is the document whose host matches, "" where none does; Rule is the index of
	// the rule that matches, -1 where none does.
	Route string
	Rule  int
	// To are the upstreams; none where the proxy answers by itself, which Answer says.
	To     []Destination
	Answer string
	// Tried says of each host and rule, in their order, why it does not match.
	Tried []string
}

// Found tells whether a rule matches.
func (w Way) Found() bool { return w.Rule >= 0 }

// Ways walks the HTTP listeners of a group or, where none is named, of every group, but
// for those that lead to the application beside a proxy: they take what was sent to that
// one proxy. What `envoy:` changes of routes is not walked.
func (s *Spec) Ways(group string, a Asking) (out []Way) {
	s.listeners(group, func(group, name string, l *Listener) {
		w := s.way(l, a)
		w.Group, w.Listener = group, name
		out = append(out, w)
	})
	return out
}

// WaysOf are those of a rule, as a log names its route: ROUTE[RULE].
func (s *Spec) WaysOf(group, route string) (out []Way) {
	name, rest, ok := strings.Cut(route, "[")
	i, err := strconv.Atoi(strings.TrimSuffix(rest, "]"))
	r, known := s.Route(name)
	if !ok || err != nil || !known || i < 0 || i >= len(r.Rules) {
		return nil
	}
	s.listeners(group, func(group, listener string, l *Listener) {
		if slices.Contains(l.Routes, name) {
			out = append(out, Way{Group: group, Listener: listener, Route: name, Rule: i, To: r.Rules[i].To, Answer: r.Rules[i].answers()})
		}
	})
	return out
}

// listeners calls f with the HTTP listeners of a group, or of all for "".
func (s *Spec) listeners(group string, f func(group, name string, l *Listener)) {
	for _, d := range s.Documents(KindGroup) {
		g, ok := d.Body.(*Group)
		if !ok || group != "" && group != d.Name {
			continue
		}
		for _, name := range g.Listeners {
			if l, ok := s.Listener(name); ok && l.TCP == nil && !l.GRPC && (group != "" || !l.Inbound) {
				f(d.Name, name, l)
			}
		}
	}
}

// answers says what a proxy answers by itself, "" where the rule leads to upstreams.
func (r *Rule) answers() string {
	switch {
	case r.Redirect != nil:
		return "it is redirected"
	case r.Respond != nil:
		return fmt.Sprintf("the proxy answers %d by itself", r.Respond.Status)
	}
	return ""
}

func (s *Spec) way(l *Listener, a Asking) Way {
	w := Way{Rule: -1}
	host := hostOf(a.Host)
	if l.AutoRoutes != nil {
		name, ok := strings.CutSuffix(host, "."+strings.ToLower(l.AutoRoutes.Domain))
		if !ok || !slices.Contains(s.AutoRouted(l), name) {
			w.Tried = append(w.Tried, fmt.Sprintf("host %s is none of UPSTREAM.%s", host, l.AutoRoutes.Domain))
			return w
		}
		w.Route, w.Rule, w.To = name, 0, []Destination{{Upstream: name, Weight: 1}}
		return w
	}
	best, of := -1, ""
	for _, name := range l.Routes {
		r, ok := s.Route(name)
		if !ok {
			continue
		}
		for _, h := range r.Hosts {
			if rank := hostRank(strings.ToLower(h), host); rank > best {
				best, of = rank, name
			}
		}
		if of != name {
			w.Tried = append(w.Tried, fmt.Sprintf("Route/%s: host %s is none of %s", name, host, strings.Join(r.Hosts, ", ")))
		}
	}
	if of == "" {
		return w
	}
	w.Route, w.Tried = of, nil
	r, _ := s.Route(of)
	for i, rule := range r.Rules {
		if why := rule.Match.misses(a); why != "" {
			w.Tried = append(w.Tried, fmt.Sprintf("Route/%s: rules[%d]: %s", of, i, why))
			continue
		}
		w.Rule, w.To, w.Answer = i, rule.To, rule.answers()
		return w
	}
	return w
}

// hostOf is a request's host as routes match it: in lower case, without a port.
func hostOf(s string) string {
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
		if strings.Contains(host, ":") {
			s = "[" + host + "]"
		}
	}
	return strings.ToLower(s)
}

// hostRank says how well a pattern matches a host: exact before the longest that begins
// with *, before *; -1 is not at all.
func hostRank(pattern, host string) int {
	const exact = 1 << 10 // longer than a host
	rest, begins := strings.CutPrefix(pattern, "*")
	switch {
	case pattern == host:
		return exact
	case pattern == "*":
		return 0
	case begins && strings.HasSuffix(host, rest) && len(host) > len(rest):
		return len(rest)
	}
	return -1
}

// misses says why a request does not match, "" where it does.
func (m *Match) misses(a Asking) string {
	path, _, _ := strings.Cut(a.Path, "?")
	if path == "" {
		path = "/"
	}
	switch p := m.Path; {
	case p.Exact != "" && path != p.Exact:
		return fmt.Sprintf("path %s is not %s", path, p.Exact)
	case p.Regex != "" && !whole(p.Regex, path):
		return fmt.Sprintf("path %s does not match %s", path, p.Regex)
	case p.Prefix != "" && !below(p.Prefix, path):
		return fmt.Sprintf("path %s is not below %s", path, p.Prefix)
	}
	method := a.Method
	if method == "" {
		method = "GET"
	}
	if len(m.Methods) > 0 && !slices.Contains(m.Methods, method) {
		return fmt.Sprintf("method %s is none of %s", method, strings.Join(m.Methods, ", "))
	}
	for i := range m.Headers {
		if why := m.Headers[i].misses(a.Headers); why != "" {
			return why
		}
	}
	return ""
}

// below tells whether a path has a prefix of whole segments.
func below(prefix, path string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (strings.HasSuffix(prefix, "/") || rest == "" || rest[0] == '/')
}

func whole(pattern, s string) bool {
	re, err := regexp.Compile(`^(?:` + pattern + `)$`)
	return err == nil && re.MatchString(s)
}

func (h *HeaderMatch) misses(headers map[string]string) string {
	v, there := headers[strings.ToLower(h.Name)]
	holds, want := false, ""
	switch {
	case h.Exact != nil:
		holds, want = v == *h.Exact, *h.Exact
	case h.Prefix != "":
		holds, want = strings.HasPrefix(v, h.Prefix), h.Prefix+"…"
	case h.Suffix != "":
		holds, want = strings.HasSuffix(v, h.Suffix), "…"+h.Suffix
	case h.Contains != "":
		holds, want = strings.Contains(v, h.Contains), "…"+h.Contains+"…"
	case h.Regex != "":
		holds, want = whole(h.Regex, v), h.Regex
	case h.Present != nil:
		if there == *h.Present != h.Invert {
			return ""
		}
		return fmt.Sprintf("header %s is there: %t", h.Name, there)
	}
	if !there && !h.Invert {
		holds = false
	}
	if holds != h.Invert {
		return ""
	}
	if h.Invert {
		return fmt.Sprintf("header %s is %s", h.Name, want)
	}
	return fmt.Sprintf("header %s is %q, not %s", h.Name, v, want)
}
