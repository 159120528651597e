package spec

import (
	"slices"
	"strings"
)

// Redirect sends the client elsewhere. What is not written stays as it was asked
// for.
type Redirect struct {
	Scheme     string `json:"scheme,omitempty" enum:"http,https" doc:"http or https."`
	Host       string `json:"host,omitempty" doc:"Host, without a port."`
	Port       uint32 `json:"port,omitempty" maximum:"65535" doc:"Port. Default: the one asked for; where scheme is written and it was the old scheme's own, the new scheme's."`
	Path       string `json:"path,omitempty" doc:"Whole path; with a ? also the query. Not together with prefix."`
	Prefix     string `json:"prefix,omitempty" doc:"In place of the match's prefix."`
	Status     uint32 `json:"status,omitempty" default:"301" doc:"301, 302, 303, 307 or 308."`
	StripQuery bool   `json:"stripQuery,omitempty" doc:"Without the query."`
}

// Respond is an answer that no upstream is asked for.
type Respond struct {
	Status uint32 `json:"status" required:"true" minimum:"200" maximum:"599" doc:"HTTP status."`
	Body   string `json:"body,omitempty" maxLength:"65536" doc:"Body, as text/plain unless responseHeaders sets another content-type."`
}

// Rewrite says what the upstream sees. At most one of prefix, path and regex, and
// one of host, hostFromHeader and hostOfEndpoint.
type Rewrite struct {
	Prefix         string        `json:"prefix,omitempty" doc:"In place of the match's prefix: /catalog to / makes /x of /catalog/x."`
	Path           string        `json:"path,omitempty" doc:"In place of the whole path; the query stays."`
	Regex          *RegexRewrite `json:"regex,omitempty" doc:"In place of every part of the path that a pattern matches."`
	Host           string        `json:"host,omitempty" doc:"In place of the request's host."`
	HostFromHeader string        `json:"hostFromHeader,omitempty" doc:"The value of this request header in place of the host."`
	HostOfEndpoint bool          `json:"hostOfEndpoint,omitempty" doc:"The name of the endpoint in place of the host; for upstreams that are resolved by DNS."`
}

// RegexRewrite is a pattern and what stands in its place.
type RegexRewrite struct {
	Pattern      string `json:"pattern" required:"true" doc:"RE2; at most 256 characters."`
	Substitution string `json:"substitution" doc:"What stands in its place; \\\\1 is the first group."`
}

// HeaderEdits of one message. Values are taken as they stand: a % is a %, not one of
// Envoy's operators.
type HeaderEdits struct {
	Set    map[string]string `json:"set,omitempty" doc:"Headers with their values, in place of any that are there."`
	Add    map[string]string `json:"add,omitempty" doc:"Headers with their values, beside any that are there."`
	Remove []string          `json:"remove,omitempty" doc:"Headers that are taken out."`
}

var redirectStatuses = []uint32{301, 302, 303, 307, 308}

func (r *Redirect) check(c *checker, path string, match PathMatch) {
	if *r == (Redirect{Status: r.Status, StripQuery: r.StripQuery}) && !r.StripQuery {
		c.faultf(path, "leads to where the request came from; write a scheme, host, port, path or prefix")
	}
	if r.Path != "" && r.Prefix != "" {
		c.faultf(path, "both path and prefix are written; write one")
	}
	if r.Host != "" {
		c.host(path+".host", r.Host)
		if strings.Contains(r.Host, "*") {
			c.faultf(path+".host", "%q is not one host", r.Host)
		}
	}
	c.newPath(path+".path", r.Path)
	c.newPrefix(path+".prefix", r.Prefix, match)
	if !slices.Contains(redirectStatuses, r.Status) {
		c.faultf(path+".status", "%d is not a redirect; write 301, 302, 303, 307 or 308", r.Status)
	}
	if r.StripQuery && strings.Contains(r.Path, "?") {
		c.faultf(path+".stripQuery", "the path brings a query of its own; leave one of them out")
	}
}

func (r *Respond) check(c *checker, path string) {
	if r.Body != "" && (r.Status == 204 || r.Status == 304) {
		c.faultf(path+".body", "an answer with status %d has none", r.Status)
	}
}

func (r *Rewrite) check(c *checker, path string, match PathMatch) {
	c.oneWritten(path, true, "prefix, path and regex", r.Prefix != "", r.Path != "", r.Regex != nil)
	c.oneWritten(path, true, "host, hostFromHeader and hostOfEndpoint", r.Host != "", r.HostFromHeader != "", r.HostOfEndpoint)
	if *r == (Rewrite{}) {
		c.faultf(path, "is empty; say what is rewritten")
	}
	c.newPrefix(path+".prefix", r.Prefix, match)
	c.newPath(path+".path", r.Path)
	if strings.ContainsAny(r.Path, "?#") {
		c.faultf(path+".path", "%q has a query or fragment; only the path is rewritten", r.Path)
	}
	if r.Regex != nil {
		c.regex(path+".regex.pattern", r.Regex.Pattern)
		c.headerValue(path+".regex.substitution", r.Regex.Substitution)
	}
	if r.Host != "" {
		c.headerValue(path+".host", r.Host)
	}
	if r.HostFromHeader != "" {
		c.headerName(path+".hostFromHeader", r.HostFromHeader)
	}
}

func (c *checker) newPath(field, s string) {
	if s != "" && !strings.HasPrefix(s, "/") {
		c.faultf(field, "%q does not begin with /", s)
	}
	c.headerValue(field, s)
}

// newPrefix accepts what may stand in place of a prefix that was matched.
func (c *checker) newPrefix(field, s string, match PathMatch) {
	c.newPath(field, s)
	if strings.ContainsAny(s, "?#") {
		c.faultf(field, "%q has a query or fragment", s)
	}
	if s != "" && (match.Exact != "" || match.Regex != "") {
		c.faultf(field, "the match has no prefix that it could replace; write path")
	}
}

func (h *HeaderEdits) check(c *checker, path string) {
	c.headerMap(path+".set", h.Set)
	c.headerMap(path+".add", h.Add)
	for i, name := range h.Remove {
		for _, m := range []map[string]string{h.Set, h.Add} {
			for other := range m {
				if strings.EqualFold(name, other) {
					c.faultf(index(path+".remove", i), "%q is set or added too; keep one of them", name)
				}
			}
		}
		c.headerName(index(path+".remove", i), name)
		if strings.EqualFold(name, "host") {
			c.faultf(index(path+".remove", i), "a request has a host; use rewrite.host")
		}
	}
}

func checkUpgrades(c *checker, path string, upgrades []string) {
	seen := map[string]bool{}
	for i, u := range upgrades {
		at, word := index(path, i), strings.ToLower(u)
		for _, part := range strings.Split(u, "/") { // protocol-name ["/" protocol-version], RFC 9110
			c.headerName(at, part)
		}
		switch {
		case word == "connect":
			c.faultf(at, "CONNECT is a method, and not proxied")
		case word == "h2c":
			c.faultf(at, "h2c would carry requests past this route; it is not taken")
		case seen[word]:
			c.faultf(at, "%q is written twice", u)
		}
		seen[word] = true
	}
}

// oneWritten wants exactly one field of several, or with optional at most one.
func (c *checker) oneWritten(field string, optional bool, names string, set ...bool) {
	n := 0
	for _, on := range set {
		if on {
			n++
		}
	}
	switch {
	case optional && n > 1:
		c.faultf(field, "%d of %s are written; write one", n, names)
	case !optional && n != 1:
		c.faultf(field, "%d of %s are written; write exactly one", n, names)
	}
}
