package spec

import (
	"fmt"
	"reflect"

	"github.com/goccy/go-yaml/ast"
)

// Passthrough is a part of one of Envoy's own messages, as canonical JSON; "" is
// none. It is not understood here: whoever translates merges it last.
type Passthrough string

var passthroughType = reflect.TypeFor[Passthrough]()

// passthrough decodes a mapping as it stands.
func (d *decoder) passthrough(n ast.Node, path string, v reflect.Value) {
	if _, ok := d.mapping(n, path, "a mapping of Envoy's fields"); !ok {
		return
	}
	before := len(d.faults)
	d.plainOnly(n, path)
	if len(d.faults) > before {
		return
	}
	text, err := canonical(plain(n))
	if err != nil {
		d.add(path, err.Error(), nil)
		return
	}
	v.SetString(string(text))
}

// plainOnly refuses what is not JSON: anchors, aliases, tags, doubled keys, and
// numbers that are none.
func (d *decoder) plainOnly(n ast.Node, path string) {
	switch x := n.(type) {
	case *ast.MappingNode:
		seen := map[string]bool{}
		for _, e := range x.Values {
			at := join(path, keyOf(e))
			d.note(e.Key, at)
			if seen[keyOf(e)] {
				d.add(at, "is written twice", nil)
			}
			seen[keyOf(e)] = true
			d.plainOnly(e.Value, at)
		}
	case *ast.MappingValueNode:
		at := join(path, keyOf(x))
		d.note(x.Key, at)
		d.plainOnly(x.Value, at)
	case *ast.SequenceNode:
		for i, v := range x.Values {
			at := index(path, i)
			d.note(v, at)
			d.plainOnly(v, at)
		}
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.InfinityNode, *ast.NanNode:
		d.wrongType(n, path, "a plain value")
	case *ast.StringNode, *ast.LiteralNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
	default:
		d.add(path, fmt.Sprintf("%s is not taken here", n.Type()), nil)
	}
}
