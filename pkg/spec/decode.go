package spec

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// decoder walks a syntax tree into a struct and keeps every fault and the place
// of every field.
type decoder struct {
	file   string
	before int // lines of the text before this document
	doc    *Document
	faults Faults
}

// told tells whether a field, one inside it or one around it is faulty already:
// what a check then says of it would be an echo.
func (d *decoder) told(field string) bool {
	inside := func(a, b string) bool {
		return strings.HasPrefix(a, b) && (len(a) == len(b) || a[len(b)] == '.' || a[len(b)] == '[')
	}
	return slices.ContainsFunc(d.faults, func(f Fault) bool { return inside(f.Field, field) || inside(field, f.Field) })
}

// DecodeStrict reads a text of YAML or JSON that is not a document into a struct
// with the same tags and the same strictness: the server's configuration. An
// empty text leaves the defaults.
func DecodeStrict(file string, text []byte, into any) Faults {
	v := reflect.ValueOf(into).Elem()
	setDefaults(v)
	root, faults := parseTree(file, text)
	if root == nil {
		return faults
	}
	d := &decoder{file: file, doc: &Document{places: map[string]Place{}}}
	d.doc.places[""] = d.at(root)
	d.value(root, "", v)
	return d.faults
}

func (d *decoder) at(n ast.Node) Place {
	p := Place{File: d.file, Line: d.before + 1, Column: 1}
	if t := n.GetToken(); t != nil && t.Position != nil {
		p.Line, p.Column = d.before+t.Position.Line, t.Position.Column
	}
	// A mapping's own token is the colon of its first entry.
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		return d.at(m.Values[0].Key)
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		return d.at(m.Key)
	}
	return p
}

func (d *decoder) note(n ast.Node, path string) { d.doc.places[path] = d.at(n) }

// noteEntry places a field at its value when that is a scalar, at its key
// otherwise.
func (d *decoder) noteEntry(e *ast.MappingValueNode, path string) {
	if _, scalar := e.Value.(ast.ScalarNode); scalar {
		d.note(e.Value, path)
		return
	}
	d.note(e.Key, path)
}

// maxFaults of one document are told; who wrote more corrects these first.
const maxFaults = 100

func (d *decoder) add(field, message string, allowed []string) {
	if len(d.faults) >= maxFaults {
		return
	}
	f := d.doc.fault(field, message)
	f.Allowed = allowed
	d.faults = append(d.faults, f)
}

// mapping returns the entries of a mapping node.
func (d *decoder) mapping(n ast.Node, path, want string) ([]*ast.MappingValueNode, bool) {
	switch m := n.(type) {
	case *ast.MappingNode:
		return m.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{m}, true
	}
	d.wrongType(n, path, want)
	return nil, false
}

func (d *decoder) wrongType(n ast.Node, path, want string) {
	got := ""
	switch x := n.(type) {
	case *ast.AnchorNode, *ast.AliasNode:
		d.add(path, "anchors and aliases (& and *) are not taken; write the value out", nil)
		return
	case *ast.TagNode:
		d.add(path, "tags (!) are not taken", nil)
		return
	case *ast.NullNode:
		got = "nothing"
	case *ast.StringNode:
		got = fmt.Sprintf("the text %q", clip(x.Value))
	case *ast.LiteralNode:
		got = "a block of text"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		got = "the number " + clip(n.GetToken().Value)
	case *ast.BoolNode:
		got = "the boolean " + x.GetToken().Value
	case *ast.SequenceNode:
		got = "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		got = "a mapping"
	default:
		got = "something else"
	}
	d.add(path, fmt.Sprintf("wants %s, found %s", want, got), nil)
}

func clip(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "…"
	}
	return s
}

var durationType = reflect.TypeFor[Duration]()

// value decodes one node into v.
func (d *decoder) value(n ast.Node, path string, v reflect.Value) {
	if v.Type() == durationType {
		d.duration(n, path, v)
		return
	}
	if v.Type() == passthroughType {
		d.passthrough(n, path, v)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		d.value(n, path, p.Elem())
		v.Set(p)
	case reflect.Struct:
		setDefaults(v)
		if entries, ok := d.mapping(n, path, "a mapping"); ok {
			d.fields(entries, path, v, nil)
		}
	case reflect.Slice:
		d.list(n, path, v)
	case reflect.Map:
		d.stringMap(n, path, v)
	case reflect.String:
		s, ok := text(n)
		if !ok {
			want := "text"
			if _, num := n.(*ast.IntegerNode); num {
				want = "text (put it in quotes)"
			}
			d.wrongType(n, path, want)
			return
		}
		v.SetString(s)
	case reflect.Bool:
		b, ok := n.(*ast.BoolNode)
		if !ok {
			d.wrongType(n, path, "true or false")
			return
		}
		v.SetBool(b.Value)
	default:
		d.number(n, path, v)
	}
}

func text(n ast.Node) (string, bool) {
	switch s := n.(type) {
	case *ast.StringNode:
		return s.Value, true
	case *ast.LiteralNode:
		return s.Value.Value, true
	}
	return "", false
}

func (d *decoder) duration(n ast.Node, path string, v reflect.Value) {
	s, ok := text(n)
	if !ok {
		d.wrongType(n, path, "a duration such as 250ms, 2s or 1m30s")
		return
	}
	x, err := time.ParseDuration(s)
	switch {
	case err != nil:
		d.add(path, fmt.Sprintf("%q is not a duration; write 250ms, 2s or 1m30s", clip(s)), nil)
	case x < 0:
		d.add(path, fmt.Sprintf("%s is negative", s), nil)
	case Duration(x) > MaxDuration:
		d.add(path, fmt.Sprintf("%s is longer than a year", s), nil)
	default:
		v.SetInt(int64(x))
	}
}

func (d *decoder) number(n ast.Node, path string, v reflect.Value) {
	if v.Kind() == reflect.Float64 {
		f, err := strconv.ParseFloat(n.GetToken().Value, 64)
		switch n.(type) {
		case *ast.IntegerNode, *ast.FloatNode:
			if err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
				v.SetFloat(f)
				return
			}
		}
		d.wrongType(n, path, "a number")
		return
	}
	i, ok := n.(*ast.IntegerNode)
	if !ok {
		d.wrongType(n, path, "a whole number")
		return
	}
	u, err := strconv.ParseUint(fmt.Sprint(i.Value), 10, v.Type().Bits())
	if err != nil {
		d.add(path, fmt.Sprintf("%s is out of range; 0 to %d are taken", clip(i.GetToken().Value), uint64(math.MaxUint64)>>(64-v.Type().Bits())), nil)
		return
	}
	v.SetUint(u)
}

func (d *decoder) list(n ast.Node, path string, v reflect.Value) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		d.wrongType(n, path, "a list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(list.Values), len(list.Values)))
	for i, item := range list.Values {
		at := index(path, i)
		d.note(item, at)
		d.value(item, at, v.Index(i))
	}
}

func (d *decoder) stringMap(n ast.Node, path string, v reflect.Value) {
	entries, ok := d.mapping(n, path, "a mapping of text to text")
	if !ok {
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, e := range entries {
		at := path + "." + keyOf(e)
		d.noteEntry(e, at)
		k := reflect.ValueOf(keyOf(e))
		if v.MapIndex(k).IsValid() {
			d.add(at, "is written twice", nil)
			continue
		}
		s, ok := text(e.Value)
		if !ok {
			d.wrongType(e.Value, at, "text (put it in quotes)")
			continue
		}
		v.SetMapIndex(k, reflect.ValueOf(s))
	}
}

// fields decodes the entries of a mapping into the fields of a struct. others
// are keys that are decoded elsewhere.
func (d *decoder) fields(entries []*ast.MappingValueNode, path string, v reflect.Value, others []string) {
	seen := map[string]bool{}
	t := v.Type()
	for _, e := range entries {
		key := keyOf(e)
		at := join(path, key)
		if seen[key] {
			d.note(e.Key, at)
			d.add(at, "is written twice", nil)
			continue
		}
		seen[key] = true
		f, ok := fieldByName(t, key)
		if !ok {
			d.note(e.Key, at)
			d.unknown(at, key, t, others)
			continue
		}
		d.noteEntry(e, at)
		before := len(d.faults)
		d.value(e.Value, at, v.FieldByIndex(f.Index))
		if len(d.faults) == before {
			d.bounds(at, f, v.FieldByIndex(f.Index))
		}
	}
	if others != nil { // the header: kind and name were decoded before
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("required") != "true" {
			continue
		}
		at := join(path, nameOf(f))
		switch v := v.Field(i); {
		case !seen[nameOf(f)]:
			d.add(at, "is missing", nil)
		case v.Kind() == reflect.String && v.Len() == 0 && !d.told(at):
			d.add(at, "is empty", nil)
		}
	}
}

func (d *decoder) unknown(at, key string, t reflect.Type, others []string) {
	allowed := slices.Clone(others)
	for i := range t.NumField() {
		if n := nameOf(t.Field(i)); !slices.Contains(allowed, n) {
			allowed = append(allowed, n)
		}
	}
	msg := "is not a field here"
	if key == "<<" {
		msg = "merge keys are not taken; write the values out"
	} else if near := nearest(key, allowed); near != "" {
		msg += fmt.Sprintf("; did you mean %s?", near)
	}
	d.add(at, msg, allowed)
}

// bounds holds a value against the enum, minimum, maximum and maxLength tags.
func (d *decoder) bounds(at string, f reflect.StructField, v reflect.Value) {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if enum := f.Tag.Get("enum"); enum != "" {
		if allowed := strings.Split(enum, ","); !slices.Contains(allowed, v.String()) {
			d.add(at, fmt.Sprintf("%q is not known", clip(v.String())), allowed)
		}
	}
	if m := f.Tag.Get("maxLength"); m != "" {
		if n, _ := strconv.Atoi(m); v.Len() > n {
			d.add(at, fmt.Sprintf("is %d characters long; at most %d are taken", v.Len(), n), nil)
		}
	}
	low, high := f.Tag.Get("minimum"), f.Tag.Get("maximum")
	if low == "" && high == "" {
		return
	}
	outside := false
	if v.Type() == durationType {
		m, _ := time.ParseDuration(low)
		outside = low != "" && v.Int() < int64(m)
	} else {
		x := toFloat(v)
		lo, _ := strconv.ParseFloat(low, 64)
		hi, _ := strconv.ParseFloat(high, 64)
		outside = low != "" && x < lo || high != "" && x > hi
	}
	if outside {
		d.add(at, fmt.Sprintf("%v is out of range; %s", v.Interface(), rangeText(low, high)), nil)
	}
}

func rangeText(low, high string) string {
	switch {
	case high == "":
		return "at least " + low + " is taken"
	case low == "":
		return "at most " + high + " is taken"
	}
	return low + " to " + high + " are taken"
}

func toFloat(v reflect.Value) float64 {
	if v.Kind() == reflect.Float64 {
		return v.Float()
	}
	return float64(v.Uint())
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func nameOf(f reflect.StructField) string {
	n, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return n
}

func fieldByName(t reflect.Type, name string) (reflect.StructField, bool) {
	for i := range t.NumField() {
		if nameOf(t.Field(i)) == name {
			return t.Field(i), true
		}
	}
	return reflect.StructField{}, false
}

// plain turns a syntax tree without faults into maps, slices and scalars.
func plain(n ast.Node) any {
	switch x := n.(type) {
	case *ast.MappingNode:
		m := make(map[string]any, len(x.Values))
		for _, e := range x.Values {
			m[keyOf(e)] = plain(e.Value)
		}
		return m
	case *ast.MappingValueNode:
		return map[string]any{keyOf(x): plain(x.Value)}
	case *ast.SequenceNode:
		out := make([]any, len(x.Values))
		for i, v := range x.Values {
			out[i] = plain(v)
		}
		return out
	case *ast.LiteralNode:
		return x.Value.Value
	case *ast.FloatNode:
		if f, ok := x.GetValue().(float64); ok { // never with an exponent, which YAML reads as text
			return json.RawMessage(strconv.FormatFloat(f, 'f', -1, 64))
		}
		return x.GetValue()
	case ast.ScalarNode:
		return x.GetValue()
	}
	return nil
}
