package spec

import (
	"fmt"
	"slices"
	"strings"
)

// checker collects the faults of one document.
type checker struct {
	doc    *Document
	faults Faults
}

func (c *checker) faultf(field, format string, args ...any) {
	if len(c.faults) >= maxFaults {
		return
	}
	c.faults = append(c.faults, c.doc.fault(field, fmt.Sprintf(format, args...)))
}

// fault makes a fault at the place of a field.
func (d *Document) fault(field, message string) Fault {
	p := d.place(field)
	name := string(d.Kind)
	switch {
	case label.MatchString(d.Name):
		name = d.String()
	case d.Name != "":
		name = fmt.Sprintf("%s/%q", d.Kind, clip(d.Name))
	}
	return Fault{Document: name, File: p.File, Line: p.Line, Column: p.Column, Field: field, Message: message}
}

// written tells whether a field stands in the text.
func (d *Document) written(field string) bool {
	_, ok := d.places[field]
	return ok
}

func (c *checker) oneOf(field, v string, allowed []string) {
	if !slices.Contains(allowed, v) {
		c.faultf(field, "%q is not known", v)
		c.faults[len(c.faults)-1].Allowed = allowed
	}
}

// host accepts an exact DNS name or IP, "*.name" and "*".
func (c *checker) host(field, h string) {
	rest := h
	if h == "*" {
		return
	}
	rest = strings.TrimPrefix(rest, "*.")
	switch {
	case strings.Contains(rest, "*"):
		c.faultf(field, "%q has a * inside; write an exact host, *.example.com, or *", h)
	case rest == "" || len(rest) > 253:
		c.faultf(field, "%q is not a host", h)
	case strings.Contains(rest, ":") && !strings.HasPrefix(rest, "["):
		c.faultf(field, "%q has a port; ports are ignored when hosts are compared, leave it out", h)
	case strings.ContainsFunc(rest, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && !strings.ContainsRune("-._[]:", r)
	}):
		c.faultf(field, "%q has a character that no host has", h)
	}
}

// headerName accepts an RFC 9110 token that is not a pseudo header.
func (c *checker) headerName(field, s string) {
	ok := s != ""
	for _, r := range s {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	}
	if !ok || len(s) > 256 {
		c.faultf(field, "%q is not a header name", s)
	}
}

// headerValue refuses what would break out of a header or a log line.
func (c *checker) headerValue(field, s string) {
	for _, r := range s {
		if r < 0x20 && r != '\t' || r == 0x7f || r == '\uFFFD' {
			c.faultf(field, "%q has a control character (%U) in it", s, r)
			return
		}
	}
	if len(s) > 16<<10 {
		c.faultf(field, "is %d bytes long; at most 16384 are taken", len(s))
	}
}

func (c *checker) headerMap(field string, m map[string]string) {
	seen := map[string]string{}
	for _, k := range sortedKeys(m) {
		c.headerName(field+"."+k, k)
		c.headerValue(field+"."+k, m[k])
		l := strings.ToLower(k)
		if other, ok := seen[l]; ok {
			c.faultf(field+"."+k, "is %q again; header names have no case", other)
		}
		seen[l] = k
		if l == "host" || l == "content-length" || l == "transfer-encoding" || l == "connection" || l == "upgrade" || l == "te" {
			c.faultf(field+"."+k, "is set by Envoy itself; leave it out")
		}
	}
}

func (c *checker) wholeSeconds(field string, d Duration) {
	if d.D().Nanoseconds()%1e9 != 0 {
		c.faultf(field, "%s is not in whole seconds", d)
	}
}

func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// nearest returns the candidate closest to s when it is close enough to be what
// was meant, and "" otherwise.
func nearest(s string, candidates []string) string {
	best, bestDist := "", 3
	for _, c := range candidates {
		if d := distance(strings.ToLower(s), strings.ToLower(c)); d < bestDist && d < len(c) {
			best, bestDist = c, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			next := row[j+1]
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(row[j+1]+1, row[j]+1, prev+cost)
			prev = next
		}
	}
	return row[len(b)]
}
