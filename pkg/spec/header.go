package spec

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// header is what every document has; spec is decoded by kind.
type header struct {
	Kind   string            `json:"kind" required:"true" doc:"Listener, Route, Upstream, Service or Group."`
	Name   string            `json:"name" required:"true" doc:"RFC 1123 label, unique in its kind."`
	Labels map[string]string `json:"labels,omitempty" doc:"For selecting documents; nothing else reads them."`
	Ignore []string          `json:"ignore,omitempty" doc:"Codes of lint that are meant so here."`
}

func decodeDocument(file string, before int, n ast.Node, again bool) (*Document, Faults) {
	d := &decoder{file: file, before: before, doc: &Document{places: map[string]Place{}}}
	d.doc.places[""] = d.at(n)
	entries, ok := d.mapping(n, "", "a document: a mapping with kind, name and spec")
	if !ok {
		return nil, d.faults
	}
	// kind and name first, so that every other fault can say whose it is.
	var h header
	hv := reflect.ValueOf(&h).Elem()
	d.fields(only(entries, "kind", "name"), "", hv, nil)
	kind, known := ParseKind(h.Kind)
	if len(only(entries, "kind")) > 0 && (!known || string(kind) != h.Kind) {
		d.add("kind", fmt.Sprintf("%q is not a kind", h.Kind), kindNames())
		known = false
	}
	d.doc.Ref = Ref{Kind: Kind(h.Kind), Name: h.Name}
	if len(only(entries, "name")) > 0 && !d.told("name") {
		d.checkName(h.Name)
	}
	d.fields(except(entries, "kind", "name", "spec"), "", hv, []string{"kind", "name", "spec"})
	d.doc.Labels, d.doc.Ignore = h.Labels, h.Ignore
	d.checkIgnored(h.Ignore)
	if !known {
		return nil, d.faults
	}
	d.doc.Body = kind.newBody()
	body := reflect.ValueOf(d.doc.Body).Elem()
	spec := only(entries, "spec")
	if len(spec) == 0 {
		d.add("spec", "is missing", nil)
		return nil, d.faults
	}
	d.noteEntry(spec[0], "spec")
	for _, again := range spec[1:] {
		d.note(again.Key, "spec")
		d.add("spec", "is written twice", nil)
	}
	d.value(spec[0].Value, "spec", body)
	c := &checker{doc: d.doc}
	d.doc.Body.check(c)
	for _, f := range c.faults {
		if len(d.faults) >= maxFaults {
			break
		}
		if !d.told(f.Field) {
			d.faults = append(d.faults, f)
		}
	}
	if len(d.faults) > 0 {
		return nil, d.faults
	}
	written, err := canonical(plain(n))
	if err != nil {
		d.add("", err.Error(), nil)
		return nil, d.faults
	}
	// What is stored must be read again at the next start, or there is none.
	if !again {
		if stored, err := ParseStored(written); err != nil || !reflect.DeepEqual(stored.Body, d.doc.Body) {
			d.add("", "cannot be kept: read again from its stored form it is not the same", nil)
			return nil, d.faults
		}
	}
	d.doc.Written = written
	return d.doc, nil
}

func (d *decoder) checkName(name string) {
	switch {
	case !label.MatchString(name):
		d.add("name", fmt.Sprintf("%q is not a name: lower-case letters, digits and -, at most 63, no - at either end", name), nil)
	case strings.HasPrefix(name, ReservedPrefix):
		d.add("name", fmt.Sprintf("%q: names that begin with %s are the bootstrap's own", name, ReservedPrefix), nil)
	}
}

func kindNames() []string {
	names := make([]string, len(Kinds))
	for i, k := range Kinds {
		names[i] = string(k)
	}
	return names
}

// only and except pick entries by key.
func only(entries []*ast.MappingValueNode, keys ...string) (out []*ast.MappingValueNode) {
	for _, e := range entries {
		if slices.Contains(keys, keyOf(e)) {
			out = append(out, e)
		}
	}
	return out
}

func except(entries []*ast.MappingValueNode, keys ...string) (out []*ast.MappingValueNode) {
	for _, e := range entries {
		if !slices.Contains(keys, keyOf(e)) {
			out = append(out, e)
		}
	}
	return out
}

func keyOf(e *ast.MappingValueNode) string {
	if s, ok := e.Key.(*ast.StringNode); ok {
		return s.Value
	}
	return e.Key.String()
}
