package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// WithImports returns the Spec with an upstream for each service that a source
// imports: named like the service, escaped, with every default. A declared
// upstream of that name wins. Where two services would have one name, both are told,
// and the one that was imported before stays: a registration elsewhere neither takes
// an upstream away nor puts another service under its name. Where none was, none is.
//
// stays tells whether a service had its name before this process. nil is nobody.
func (s *Spec) WithImports(keys []model.ServiceKey, before *Spec, stays func(model.ServiceKey) bool) (*Spec, []model.Problem) {
	if len(keys) == 0 {
		return s, nil
	}
	out := &Spec{Revision: s.Revision, docs: maps.Clone(s.docs)}
	by := map[string][]model.ServiceKey{}
	var problems []model.Problem
	problem := func(k model.ServiceKey, format string, args ...any) {
		problems = append(problems, model.Problem{Document: k.String(), Message: "cannot be imported: " + fmt.Sprintf(format, args...)})
	}
	add := func(name string, k model.ServiceKey) {
		d := imported(name, k)
		if before.imports(name, k) { // the very same: who made something of it need not again
			d = before.docs[d.Ref]
		}
		out.docs[d.Ref] = d
	}
	for _, k := range keys {
		name, err := Escape(k.Name)
		if err != nil {
			problem(k, "%v", err)
			continue
		}
		by[name] = append(by[name], k)
	}
	for name, k := range s.HiddenServices(keys) {
		problem(k, "Upstream/%s is the application beside its proxies, which no autoRoutes lead to; give that another name, as %s-app", name, name)
	}
	for name, same := range by {
		switch {
		case s.docs[Ref{KindUpstream, name}] != nil:
		case strings.HasPrefix(name, ReservedPrefix):
			problem(same[0], "names that begin with %s are the bootstrap's", ReservedPrefix)
		case len(same) > 1:
			if k, ok := first(same, func(k model.ServiceKey) bool { return before.imports(name, k) }, stays); ok {
				add(name, k)
			}
			for i, k := range same {
				problem(k, "%s would be Upstream/%s too; declare one of them", same[(i+1)%len(same)], name)
			}
		default:
			add(name, same[0])
		}
	}
	slices.SortFunc(problems, func(a, b model.Problem) int { return strings.Compare(a.Document, b.Document) })
	return out, problems
}

// first finds the one service for which a test holds; the tests are asked in turn.
func first(keys []model.ServiceKey, tests ...func(model.ServiceKey) bool) (model.ServiceKey, bool) {
	for _, holds := range tests {
		if holds == nil {
			continue
		}
		var found []model.ServiceKey
		for _, k := range keys {
			if holds(k) {
				found = append(found, k)
			}
		}
		if len(found) == 1 {
			return found[0], true
		}
	}
	return model.ServiceKey{}, false
}

// imports tells whether a service is imported under a name.
func (s *Spec) imports(name string, k model.ServiceKey) bool {
	if s == nil {
		return false
	}
	d := s.docs[Ref{KindUpstream, name}]
	if d == nil || !d.Imported {
		return false
	}
	u, ok := d.Body.(*Upstream)
	return ok && u.Key(name) == k
}

// imported is the document that an operator would write for a service.
func imported(name string, k model.ServiceKey) *Document {
	u := &Upstream{}
	SetDefaults(u)
	u.Service.Source, u.Service.Name, u.Service.Datacenter, u.Service.Namespace, u.Service.Partition = k.Source, k.Name, k.Datacenter, k.Namespace, k.Partition
	service := map[string]any{"source": k.Source}
	for field, v := range map[string]string{"datacenter": k.Datacenter, "namespace": k.Namespace, "partition": k.Partition} {
		if v != "" {
			service[field] = v
		}
	}
	if k.Name != name {
		service["name"] = k.Name
	}
	written, _ := canonical(map[string]any{"kind": KindUpstream, "name": name, "spec": map[string]any{"service": service}}) // of texts: cannot fail
	return &Document{Ref: Ref{KindUpstream, name}, Body: u, Written: written, Imported: true}
}

// Escape makes a document's name (RFC 1123) of any name, reversibly: each byte
// outside a-z, 0-9 and -, a - at either end, and each - before x and two hex digits
// become -xHH; a result that would begin with - has an x in front, and a leading x
// before an escape is itself escaped. The error says why there is none.
func Escape(name string) (string, error) {
	if name == "" {
		return "", fmt.Errorf("it has no name")
	}
	escaped := func(i int) bool {
		b := name[i]
		switch {
		case b >= 'a' && b <= 'z', b >= '0' && b <= '9':
			return false
		case b != '-':
			return true
		}
		return i == 0 || i == len(name)-1 || isEscape(name[i:])
	}
	var out strings.Builder
	for i := range len(name) {
		if escaped(i) || i == 0 && name[0] == 'x' && len(name) > 1 && escaped(1) {
			fmt.Fprintf(&out, "-x%02x", name[i])
			continue
		}
		out.WriteByte(name[i])
	}
	s := out.String()
	if s[0] == '-' {
		s = "x" + s
	}
	if len(s) > 63 {
		return "", fmt.Errorf("its name is %d characters long as a document's, %s; at most 63 are taken", len(s), clip(s))
	}
	return s, nil
}

// Unescape is the name that Escape made a document's name of.
func Unescape(s string) string {
	if len(s) > 1 && s[0] == 'x' && isEscape(s[1:]) {
		s = s[1:]
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if isEscape(s[i:]) {
			out.WriteByte(unhex(s[i+2])<<4 | unhex(s[i+3]))
			i += 3
			continue
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// isEscape tells whether a text begins with -x and two hex digits.
func isEscape(s string) bool {
	return len(s) >= 4 && s[0] == '-' && s[1] == 'x' && isHex(s[2]) && isHex(s[3])
}

func isHex(b byte) bool { return b >= '0' && b <= '9' || b >= 'a' && b <= 'f' }

func unhex(b byte) byte {
	if b <= '9' {
		return b - '0'
	}
	return b - 'a' + 10
}

// WithImportsOf is a Spec with what another one imports.
func (s *Spec) WithImportsOf(published *Spec) *Spec {
	var keys []model.ServiceKey
	for _, d := range published.Documents(KindUpstream) {
		if u, ok := d.Body.(*Upstream); ok && d.Imported {
			keys = append(keys, u.Key(d.Name))
		}
	}
	out, _ := s.WithImports(keys, published, nil)
	return out
}
