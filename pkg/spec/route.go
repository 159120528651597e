package spec

import (
	"regexp/syntax"
	"strings"
)

// Route says which requests for a set of hosts go to which upstreams.
type Route struct {
	Hosts []string    `json:"hosts" required:"true" doc:"Hosts: exact, *.example.com, or * for any other. Ports in a request's host are ignored."`
	Rules []Rule      `json:"rules" required:"true" doc:"Tried as written; the first match decides."`
	Envoy Passthrough `json:"envoy,omitempty" doc:"Part of Envoy's own VirtualHost (envoy.config.route.v3), merged last as a JSON Merge Patch."`
}

// Rule is one match and what becomes of it: exactly one of to, redirect and respond.
type Rule struct {
	Match       Match         `json:"match,omitempty" doc:"Which requests. Default: all."`
	To          []Destination `json:"to,omitempty" doc:"The upstreams, with weights."`
	Redirect    *Redirect     `json:"redirect,omitempty" doc:"The client is sent elsewhere."`
	Respond     *Respond      `json:"respond,omitempty" doc:"The proxy answers by itself."`
	Rewrite     *Rewrite      `json:"rewrite,omitempty" doc:"What the upstream sees in place of the path and the host."`
	Request     HeaderEdits   `json:"requestHeaders,omitempty" doc:"Edits of the request's headers on the way to the upstream."`
	Response    HeaderEdits   `json:"responseHeaders,omitempty" doc:"Edits of the response's headers on the way to the client."`
	Upgrades    []string      `json:"upgrades,omitempty" doc:"Protocols to which a request may upgrade its connection: websocket, or another value of the Upgrade header; not CONNECT."`
	Timeout     *Duration     `json:"timeout,omitempty" doc:"Whole request, retries included; 0s is none. Default: 15s, none where an upstream speaks grpc or the rule has upgrades."`
	IdleTimeout *Duration     `json:"idleTimeout,omitempty" doc:"A request without a byte either way ends after this; 0s is never. Default: the listener's streamIdleTimeout."`
	Retry       Retry         `json:"retry,omitempty" doc:"What is tried again. attempts: 1 turns it off."`
	Envoy       Passthrough   `json:"envoy,omitempty" doc:"Part of Envoy's own Route (envoy.config.route.v3), merged last as a JSON Merge Patch."`
	HashOn      []HashOn      `json:"hashOn,omitempty" doc:"What ringHash and maglev upstreams hash; the first that is there decides."`
}

// Match is a conjunction.
type Match struct {
	Path    PathMatch     `json:"path,omitempty" doc:"The path, without the query. Default: prefix /."`
	Headers []HeaderMatch `json:"headers,omitempty" doc:"All must hold."`
	Methods []string      `json:"methods,omitempty" doc:"Any of these request methods."`
}

// PathMatch has at most one field.
type PathMatch struct {
	Prefix string `json:"prefix,omitempty" doc:"Whole segments: /catalog matches /catalog and /catalog/x, not /catalogue."`
	Exact  string `json:"exact,omitempty" doc:"The whole path."`
	Regex  string `json:"regex,omitempty" doc:"RE2, the whole path; at most 256 characters."`
}

// HeaderMatch has a name and exactly one of the others.
type HeaderMatch struct {
	Name     string  `json:"name" required:"true" doc:"Header name, any case."`
	Exact    *string `json:"exact,omitempty" doc:"The whole value."`
	Prefix   string  `json:"prefix,omitempty" doc:"Beginning of the value."`
	Suffix   string  `json:"suffix,omitempty" doc:"End of the value."`
	Contains string  `json:"contains,omitempty" doc:"Part of the value."`
	Regex    string  `json:"regex,omitempty" doc:"RE2, the whole value; at most 256 characters."`
	Present  *bool   `json:"present,omitempty" doc:"true: the header is there; false: it is not."`
	Invert   bool    `json:"invert,omitempty" doc:"Turn the match around."`
}

// Destination is one upstream and its share.
type Destination struct {
	Upstream string `json:"upstream" required:"true" doc:"Name of an Upstream document."`
	Weight   uint32 `json:"weight,omitempty" default:"1" maximum:"1000000" doc:"Share relative to the other destinations; 0 takes nothing."`
}

// leadsTo lists the upstreams of every rule, as often as they are named.
func (r *Route) leadsTo() []string {
	out := make([]string, 0, len(r.Rules))
	for i := range r.Rules {
		for _, to := range r.Rules[i].To {
			out = append(out, to.Upstream)
		}
	}
	return out
}

// Retry says what is tried again, on another endpoint. Defaults lose no request
// and repeat none that may have been processed.
type Retry struct {
	On            []string  `json:"on,omitempty" doc:"Any of connectFailure, refusedStream, reset, resetBeforeRequest, 5xx, gatewayError, retriable4xx, retriableStatuses, cancelled, deadlineExceeded, internal, resourceExhausted, unavailable. Default: connectFailure, refusedStream, resetBeforeRequest."`
	Attempts      uint32    `json:"attempts,omitempty" default:"2" minimum:"1" maximum:"10" doc:"All tries, the first included."`
	PerTryTimeout *Duration `json:"perTryTimeout,omitempty" doc:"Longest single try. Default: the rule's timeout."`
	Backoff       Backoff   `json:"backoff,omitempty" doc:"Pause between tries, random up to a bound that doubles."`
	Statuses      []uint32  `json:"statuses,omitempty" doc:"For retriableStatuses."`
}

// Backoff is the pause between tries.
type Backoff struct {
	Base Duration `json:"base,omitempty" default:"25ms" minimum:"1ms" doc:"Bound of the first pause."`
	Max  Duration `json:"max,omitempty" default:"250ms" minimum:"1ms" doc:"Bound of the longest pause."`
}

// HashOn has exactly one field.
type HashOn struct {
	Header   string      `json:"header,omitempty" doc:"Value of this request header."`
	Cookie   *HashCookie `json:"cookie,omitempty" doc:"Value of this cookie; it is set where it is missing and a ttl is written."`
	SourceIP bool        `json:"sourceIP,omitempty" doc:"Address of the client."`
}

// HashCookie is a cookie to hash.
type HashCookie struct {
	Name string    `json:"name" required:"true" doc:"Name of the cookie."`
	Path string    `json:"path,omitempty" doc:"Path of a cookie that Envoy sets."`
	TTL  *Duration `json:"ttl,omitempty" doc:"Life of a cookie that Envoy sets; 0s is the session's. Default: it sets none."`
}

// DefaultRetryOn is what is tried again where nothing else is written: the
// request reached nobody.
var DefaultRetryOn = []string{"connectFailure", "refusedStream", "resetBeforeRequest"}

// retryConditions are the words of Retry.On.
var retryConditions = []string{
	"connectFailure", "refusedStream", "reset", "resetBeforeRequest", "5xx", "gatewayError", "retriable4xx",
	"retriableStatuses", "cancelled", "deadlineExceeded", "internal", "resourceExhausted", "unavailable",
}

var methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT"}

func (r *Route) check(c *checker) {
	seen := map[string]int{}
	for i, h := range r.Hosts {
		at := index("spec.hosts", i)
		c.host(at, h)
		if j, ok := seen[strings.ToLower(h)]; ok {
			c.faultf(at, "%q stands at hosts[%d] already", h, j)
		}
		seen[strings.ToLower(h)] = i
	}
	if len(r.Hosts) == 0 {
		c.faultf("spec.hosts", "is empty; name a host, or * for any")
	}
	if len(r.Rules) == 0 {
		c.faultf("spec.rules", "is empty; such a route answers 404 to everything")
	}
	for i := range r.Rules {
		r.Rules[i].check(c, index("spec.rules", i))
	}
}

func (r *Rule) check(c *checker, path string) {
	r.Match.check(c, path+".match")
	c.oneWritten(path, false, "to, redirect and respond", len(r.To) > 0, r.Redirect != nil, r.Respond != nil)
	if len(r.To) == 0 {
		for _, field := range []string{"rewrite", "requestHeaders", "upgrades", "timeout", "idleTimeout", "retry", "hashOn"} {
			if c.doc.written(path + "." + field) {
				c.faultf(path+"."+field, "means nothing without to: no upstream sees the request; leave it out")
			}
		}
	}
	if r.Redirect != nil {
		r.Redirect.check(c, path+".redirect", r.Match.Path)
	}
	if r.Respond != nil {
		r.Respond.check(c, path+".respond")
	}
	if r.Rewrite != nil {
		r.Rewrite.check(c, path+".rewrite", r.Match.Path)
	}
	r.Request.check(c, path+".requestHeaders")
	r.Response.check(c, path+".responseHeaders")
	checkUpgrades(c, path+".upgrades", r.Upgrades)
	checkDestinations(c, path+".to", r.To)
	for _, d := range []struct {
		field string
		v     *Duration
	}{{".timeout", r.Timeout}, {".retry.perTryTimeout", r.Retry.PerTryTimeout}} {
		if d.v != nil && *d.v < 0 {
			c.faultf(path+d.field, "%s is negative", *d.v)
		}
	}
	r.Retry.check(c, path+".retry")
	for i := range r.HashOn {
		r.HashOn[i].check(c, index(path+".hashOn", i))
	}
}

// checkDestinations holds a list of upstreams with weights against what Envoy takes.
func checkDestinations(c *checker, path string, to []Destination) {
	var sum uint64
	seen := make(map[string]int, len(to))
	for i, d := range to {
		sum += uint64(d.Weight)
		if j, ok := seen[d.Upstream]; ok {
			c.faultf(index(path, i)+".upstream", "%q stands at to[%d] already", d.Upstream, j)
			continue
		}
		seen[d.Upstream] = i
	}
	if len(to) > 0 && sum == 0 {
		c.faultf(path, "the weights sum to 0; give one of them a share")
	} else if sum > 1<<32-1 {
		c.faultf(path, "the weights sum to %d; Envoy takes at most %d", sum, uint32(1<<32-1))
	}
}

func (m *Match) check(c *checker, path string) {
	p := m.Path
	for field, v := range map[string]string{"prefix": p.Prefix, "exact": p.Exact} {
		if v == "" {
			continue
		}
		if !strings.HasPrefix(v, "/") {
			c.faultf(path+".path."+field, "%q does not begin with /", v)
		}
		if strings.ContainsAny(v, "?#") {
			c.faultf(path+".path."+field, "%q has a query or fragment; only the path is matched", v)
		}
		c.headerValue(path+".path."+field, v)
	}
	if p.Regex != "" {
		c.regex(path+".path.regex", p.Regex)
	}
	c.oneWritten(path+".path", true, "prefix, exact and regex", p.Prefix != "", p.Exact != "", p.Regex != "")
	for i := range m.Headers {
		m.Headers[i].check(c, index(path+".headers", i))
	}
	for i, v := range m.Methods {
		c.oneOf(index(path+".methods", i), v, methods)
	}
}

func (h *HeaderMatch) check(c *checker, path string) {
	c.headerName(path+".name", h.Name)
	c.oneWritten(path, false, "exact, prefix, suffix, contains, regex and present",
		h.Exact != nil, h.Prefix != "", h.Suffix != "", h.Contains != "", h.Regex != "", h.Present != nil)
	if h.Exact != nil {
		c.headerValue(path+".exact", *h.Exact)
	}
	c.headerValue(path+".prefix", h.Prefix)
	c.headerValue(path+".suffix", h.Suffix)
	c.headerValue(path+".contains", h.Contains)
	if h.Regex != "" {
		c.regex(path+".regex", h.Regex)
	}
}

func (r *Retry) check(c *checker, path string) {
	statuses := false
	for i, o := range r.On {
		c.oneOf(index(path+".on", i), o, retryConditions)
		statuses = statuses || o == "retriableStatuses"
	}
	if statuses != (len(r.Statuses) > 0) {
		c.faultf(path+".statuses", "statuses and the condition retriableStatuses go together")
	}
	for i, s := range r.Statuses {
		if s < 100 || s > 599 {
			c.faultf(index(path+".statuses", i), "%d is not an HTTP status", s)
		}
	}
	if r.Backoff.Base > r.Backoff.Max {
		c.faultf(path+".backoff.base", "%s is longer than max %s", r.Backoff.Base, r.Backoff.Max)
	}
}

func (h *HashOn) check(c *checker, path string) {
	c.oneWritten(path, false, "header, cookie and sourceIP", h.Header != "", h.Cookie != nil, h.SourceIP)
	if h.Header != "" {
		c.headerName(path+".header", h.Header)
	}
	if h.Cookie != nil {
		c.headerName(path+".cookie.name", h.Cookie.Name)
		c.headerValue(path+".cookie.path", h.Cookie.Path)
		if h.Cookie.TTL != nil && *h.Cookie.TTL < 0 {
			c.faultf(path+".cookie.ttl", "%s is negative", *h.Cookie.TTL)
		}
	}
}

// maxRegex bounds a pattern's text and maxRegexProgram its compiled size; Envoy
// warns about RE2 programs above 100 and refuses them in some places.
const (
	maxRegex        = 256
	maxRegexProgram = 1000
	// plainRegexProgram is what an Envoy takes that was not started with our
	// bootstrap, with room for what RE2 counts otherwise than Go.
	plainRegexProgram = 40
)

// bigRegex tells whether only an Envoy with our bootstrap takes a pattern.
func bigRegex(s string) bool {
	re, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return false
	}
	prog, err := syntax.Compile(re.Simplify())
	return err == nil && len(prog.Inst) > plainRegexProgram
}

func (c *checker) regex(field, s string) {
	if len(s) > maxRegex {
		c.faultf(field, "is %d characters long; at most %d are taken", len(s), maxRegex)
		return
	}
	re, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		c.faultf(field, "%v", err)
		return
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		c.faultf(field, "%v", err)
		return
	}
	if len(prog.Inst) > maxRegexProgram {
		c.faultf(field, "compiles to %d instructions; at most %d are taken: repeat less", len(prog.Inst), maxRegexProgram)
	}
	if strings.ContainsAny(s, "\r\n\x00") {
		c.faultf(field, "has a line break or NUL in it")
	}
}
