package spec

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
)

// Schema is the JSON Schema (2020-12) of one document of any kind, made from the
// structs that are parsed. It says what editors need: names, types, defaults,
// enumerations and bounds. What only a server can know (references, hosts) it does
// not say.
func Schema() ([]byte, error) {
	defs, kinds := map[string]any{}, []any{}
	for _, k := range Kinds {
		defs[string(k)] = object(k.Type())
		kinds = append(kinds, map[string]any{
			"type": "object", "additionalProperties": false, "required": []string{"kind", "name", "spec"},
			"properties": map[string]any{
				"kind":   map[string]any{"const": string(k)},
				"name":   map[string]any{"type": "string", "pattern": label.String(), "not": map[string]any{"pattern": "^" + ReservedPrefix}},
				"labels": map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string"}},
				"ignore": map[string]any{"type": "array", "items": map[string]any{"enum": adviceCodes()}, "description": "Codes of lint that are meant so here."},
				"spec":   map[string]any{"$ref": "#/$defs/" + string(k)},
			},
		})
	}
	out, err := json.MarshalIndent(map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Wellspring document", "oneOf": kinds, "$defs": defs,
	}, "", "  ")
	return append(out, '\n'), err
}

func object(t reflect.Type) map[string]any {
	props := map[string]any{}
	var required []string
	for i := range t.NumField() {
		f := t.Field(i)
		props[nameOf(f)] = property(f)
		if f.Tag.Get("required") == "true" {
			required = append(required, nameOf(f))
		}
	}
	out := map[string]any{"type": "object", "additionalProperties": false, "properties": props}
	if required != nil {
		out["required"] = required
	}
	return out
}

func property(f reflect.StructField) map[string]any {
	p := schemaOf(f.Type)
	p["description"] = f.Tag.Get("doc")
	if enum := f.Tag.Get("enum"); enum != "" {
		p["enum"] = strings.Split(enum, ",")
	}
	if n, err := strconv.Atoi(f.Tag.Get("maxLength")); err == nil {
		p["maxLength"] = n
	}
	if p["type"] == "integer" || p["type"] == "number" {
		for _, bound := range []string{"minimum", "maximum"} {
			if x, err := strconv.ParseFloat(f.Tag.Get(bound), 64); err == nil {
				p[bound] = x
			}
		}
	}
	if def, ok := f.Tag.Lookup("default"); ok {
		p["default"] = def
		if p["type"] != "string" {
			p["default"] = json.RawMessage(def)
		}
	}
	return p
}

func schemaOf(t reflect.Type) map[string]any {
	switch {
	case t == durationType:
		return map[string]any{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$`}
	case t == passthroughType:
		return map[string]any{"type": "object"}
	case t.Kind() == reflect.Pointer:
		return schemaOf(t.Elem())
	case t.Kind() == reflect.Struct:
		return object(t)
	case t.Kind() == reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem())}
	case t.Kind() == reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string"}}
	case t.Kind() == reflect.Bool:
		return map[string]any{"type": "boolean"}
	case t.Kind() == reflect.Float64:
		return map[string]any{"type": "number"}
	case t.Kind() == reflect.String:
		return map[string]any{"type": "string"}
	}
	return map[string]any{"type": "integer", "minimum": 0}
}
