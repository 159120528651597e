package spec

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
)

// Leaf is one field that a document can set: a scalar, a list or mapping of
// scalars.
type Leaf struct {
	// Path from the document's root: spec.healthChecks[].http.path.
	Path     string
	Type     string
	Default  string
	Required bool
	Enum     string
	Minimum  string
	Maximum  string
	Doc      string
}

// Leaves lists the fields of a kind in the order of their structs. The schema,
// the reference page and the test that every field is translated read it.
func Leaves(kind Kind) []Leaf {
	var out []Leaf
	walkLeaves("spec", kind.Type(), &out)
	return out
}

func walkLeaves(prefix string, t reflect.Type, out *[]Leaf) {
	for i := range t.NumField() {
		f := t.Field(i)
		path, ft := prefix+"."+nameOf(f), f.Type
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		if ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct {
			walkLeaves(path+"[]", ft.Elem(), out)
			continue
		}
		if ft.Kind() == reflect.Struct {
			walkLeaves(path, ft, out)
			continue
		}
		*out = append(*out, Leaf{
			Path: path, Type: typeName(ft), Default: f.Tag.Get("default"), Required: f.Tag.Get("required") == "true",
			Enum: f.Tag.Get("enum"), Minimum: f.Tag.Get("minimum"), Maximum: f.Tag.Get("maximum"), Doc: f.Tag.Get("doc"),
		})
	}
}

func typeName(t reflect.Type) string {
	switch {
	case t == durationType:
		return "duration"
	case t == passthroughType:
		return "mapping"
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() == reflect.Float64:
		return "number"
	case t.Kind() == reflect.Slice:
		return "list of " + typeName(t.Elem())
	case t.Kind() == reflect.Map:
		return "mapping of text"
	case t.Kind() == reflect.String:
		return "text"
	}
	return "whole number"
}

var inList = regexp.MustCompile(`\[\d+\]`)

// Fields lists the fields that stand in the document's text, with [] for any
// place in a list, sorted.
func (d *Document) Fields() []string {
	seen := map[string]bool{}
	for p := range d.places {
		seen[inList.ReplaceAllString(p, "[]")] = true
	}
	return slices.Sorted(maps.Keys(seen))
}
