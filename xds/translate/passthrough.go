package translate

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// A document's `envoy:` is merged last, as a JSON Merge Patch (RFC 7396) over the
// JSON of what the typed fields gave: objects are merged, everything else takes the
// place of what was there, null takes it away. Fields may be named as in Envoy's
// documentation (snake_case) or as in its JSON (camelCase). A typed extension is
// merged where it is of the same type, and takes the other's place where it is not.

// PatchError is what is wrong with an `envoy:`.
type PatchError struct {
	// Field of the document, as spec.envoy.
	Field string
	// Path inside it, in Envoy's names; "" is the whole.
	Path string
	Err  error
}

func (e *PatchError) Error() string {
	at := e.Field
	if e.Path != "" {
		at += "." + e.Path
	}
	return at + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *PatchError) Unwrap() error { return e.Err }

// patch merges an `envoy:` into a message. refused are fields of it that identify
// the resource or are tied to others. over lists, in Envoy's names, what the typed
// fields had set otherwise.
func patch(m proto.Message, p spec.Passthrough, field string, refused ...string) (over []string, err error) {
	if p == "" {
		return nil, nil
	}
	fail := func(path string, err error) ([]string, error) { return nil, &PatchError{field, path, err} }
	var want map[string]any
	if err := json.Unmarshal([]byte(p), &want); err != nil {
		return fail("", err)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return fail("", err)
	}
	var has map[string]any
	if err := json.Unmarshal(text, &has); err != nil {
		return fail("", err)
	}
	d := m.ProtoReflect().Descriptor()
	for key := range want {
		if fd := fieldOf(d, key); fd != nil && slices.Contains(refused, fd.TextName()) {
			return fail(fd.TextName(), errors.New("is made from the document's own fields and cannot be set here"))
		}
	}
	g := &merge{}
	g.message(d, has, want, "")
	if g.err != nil {
		return fail(g.at, g.err)
	}
	if text, err = json.Marshal(has); err != nil {
		return fail("", err)
	}
	out := m.ProtoReflect().New().Interface()
	if err := protojson.Unmarshal(text, out); err != nil {
		return fail("", fmt.Errorf("is not taken by %s: %s", d.FullName(), cause(err)))
	}
	if err := checkDeep(out); err != nil {
		return fail("", fmt.Errorf("would be refused by Envoy: %w", err))
	}
	proto.Reset(m)
	proto.Merge(m, out)
	slices.Sort(g.over)
	return g.over, nil
}

// checkDeep checks a message and every typed extension in it, which the generated
// rules do not look into.
func checkDeep(m proto.Message) error {
	if err := Check(m); err != nil {
		return err
	}
	return protorange.Range(m.ProtoReflect(), func(p protopath.Values) error {
		a, ok := p.Index(-1).Value.Interface().(protoreflect.Message)
		if !ok || a.Descriptor().FullName() != "google.protobuf.Any" {
			return nil
		}
		packed, ok := a.Interface().(*anypb.Any)
		if !ok || packed.TypeUrl == "" {
			return nil
		}
		inner, err := packed.UnmarshalNew()
		if err != nil {
			return fmt.Errorf("%s: %w", packed.TypeUrl, err)
		}
		if _, has := inner.(interface{ ValidateAll() error }); !has {
			return nil
		}
		if err := checkDeep(inner); err != nil {
			return err
		}
		return protorange.Break // its content was looked at
	})
}

// cause is protojson's word without its prefix, which is random on purpose.
func cause(err error) string {
	_, text, ok := strings.Cut(strings.ReplaceAll(err.Error(), "\u00a0", " "), "): ")
	if !ok {
		return err.Error()
	}
	return text
}

// merge is one walk along a message's description.
type merge struct {
	over []string
	at   string // of the first error
	err  error
}

func (g *merge) fail(at, format string, args ...any) {
	if g.err == nil {
		g.at, g.err = at, fmt.Errorf(format, args...)
	}
}

// fieldOf finds a field by either of its names.
func fieldOf(d protoreflect.MessageDescriptor, key string) protoreflect.FieldDescriptor {
	if fd := d.Fields().ByTextName(key); fd != nil {
		return fd
	}
	return d.Fields().ByJSONName(key)
}

// message merges want into has, which is a message's JSON by its field names.
func (g *merge) message(d protoreflect.MessageDescriptor, has, want map[string]any, path string) {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		fd := fieldOf(d, key)
		if fd == nil {
			g.fail(below(path, key), "%s has no such field", d.FullName())
			return
		}
		name := fd.TextName()
		at := below(path, name)
		if one := fd.ContainingOneof(); one != nil && want[key] != nil {
			for i := range one.Fields().Len() { // one of them at most is there
				if other := one.Fields().Get(i).TextName(); other != name && has[other] != nil {
					g.over = append(g.over, below(path, other))
					delete(has, other)
				}
			}
		}
		g.field(fd, has, want[key], at)
	}
}

func (g *merge) field(fd protoreflect.FieldDescriptor, has map[string]any, want any, at string) {
	name := fd.TextName()
	before, was := has[name]
	switch object, isObject := want.(map[string]any); {
	case want == nil:
		if was {
			g.over = append(g.over, at)
		}
		delete(has, name)
	case fd.IsMap() && isObject:
		into, ok := before.(map[string]any)
		if !ok {
			into = map[string]any{}
		}
		for _, k := range slices.Sorted(maps.Keys(object)) {
			g.entry(fd.MapValue(), into, k, object[k], below(at, k))
		}
		has[name] = into
	case fd.IsList():
		list, ok := want.([]any)
		if !ok {
			g.fail(at, "is a list")
			return
		}
		out := make([]any, len(list))
		for i, x := range list {
			out[i] = g.whole(fd, x, fmt.Sprintf("%s[%d]", at, i))
		}
		if was && !reflect.DeepEqual(before, any(out)) {
			g.over = append(g.over, at)
		}
		has[name] = out
	case isObject && fd.Message() != nil:
		into, ok := before.(map[string]any)
		if !ok {
			into = map[string]any{}
		}
		has[name] = g.object(fd.Message(), into, object, at)
	default:
		if was && !reflect.DeepEqual(before, want) {
			g.over = append(g.over, at)
		}
		has[name] = want
	}
}

// entry merges one value of a map.
func (g *merge) entry(fd protoreflect.FieldDescriptor, into map[string]any, key string, want any, at string) {
	object, ok := want.(map[string]any)
	switch before, was := into[key].(map[string]any); {
	case want == nil:
		delete(into, key)
	case ok && fd.Message() != nil:
		if !was {
			before = map[string]any{}
		}
		into[key] = g.object(fd.Message(), before, object, at)
	default:
		into[key] = want
	}
}

// whole is a value that takes the place of what was there, by its field names.
func (g *merge) whole(fd protoreflect.FieldDescriptor, x any, at string) any {
	object, ok := x.(map[string]any)
	if !ok || fd.Message() == nil {
		return x
	}
	return g.object(fd.Message(), map[string]any{}, object, at)
}

// object merges an object of a message's field.
func (g *merge) object(d protoreflect.MessageDescriptor, has, want map[string]any, at string) map[string]any {
	switch {
	case d.FullName() == "google.protobuf.Any":
		return g.any(has, want, at)
	case strings.HasPrefix(string(d.FullName()), "google.protobuf."):
		return want // JSON of its own: a Struct, a Value
	}
	g.message(d, has, want, at)
	return has
}

// any merges a typed extension into one of the same type.
func (g *merge) any(has, want map[string]any, at string) map[string]any {
	url, _ := want["@type"].(string)
	if url == "" {
		url, _ = has["@type"].(string)
	}
	if url == "" {
		g.fail(at, "is a typed extension and needs @type")
		return want
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByURL(url)
	if err != nil {
		g.fail(below(at, "@type"), "%q is no type of Envoy's that is known here", url)
		return want
	}
	if has["@type"] != url {
		if has["@type"] != nil {
			g.over = append(g.over, at)
		}
		has = map[string]any{}
	}
	rest := maps.Clone(want)
	delete(rest, "@type")
	g.message(kind.Descriptor(), has, rest, at)
	has["@type"] = url
	return has
}

func below(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// inseparable are the fields of a Cluster by which endpoints that are meant for
// another definition would be reached wrongly.
var inseparable = []string{"transport_socket", "transport_socket_matches", "typed_extension_protocol_options", "health_checks", "upstream_config"}

// patchIdentity is what an `envoy:` says of them; nil is nothing.
func patchIdentity(u *spec.Upstream) any {
	var want map[string]any
	if u.Envoy == "" || json.Unmarshal([]byte(u.Envoy), &want) != nil {
		return nil
	}
	out := map[string]any{}
	d := (&clusterv3.Cluster{}).ProtoReflect().Descriptor()
	for key, value := range want {
		if fd := fieldOf(d, key); fd != nil && slices.Contains(inseparable, fd.TextName()) {
			out[fd.TextName()] = value
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
