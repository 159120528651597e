package spec

import (
	"bytes"
	"encoding/json"
	"slices"
)

// OnlyServices tells whether the difference between two forms of a document
// (nil: it does not exist) touches nothing but services: a Service document, or
// the endpoints of an Upstream's short form.
func OnlyServices(a, b *Document) bool {
	if a == nil || b == nil {
		return (a == nil || a.Kind == KindService) && (b == nil || b.Kind == KindService)
	}
	return a.Kind == KindService || bytes.Equal(withoutEndpoints(a), withoutEndpoints(b))
}

// withoutEndpoints is Written with the short form's endpoints emptied.
func withoutEndpoints(d *Document) []byte {
	u, ok := d.Body.(*Upstream)
	if !ok || u.Endpoints == nil {
		return d.Written
	}
	return rewriteEndpoints(d.Written, []any{})
}

func rewriteEndpoints(written []byte, endpoints any) []byte {
	var doc map[string]any
	dec := json.NewDecoder(bytes.NewReader(written))
	dec.UseNumber()
	if err := dec.Decode(&doc); err != nil {
		return written
	}
	if s, ok := doc["spec"].(map[string]any); ok {
		s["endpoints"] = endpoints
	}
	out, err := canonical(doc)
	if err != nil {
		return written
	}
	return out
}

// WithServicesOf returns d with the endpoints of now, where both declare some: a
// Service, or an Upstream in the short form.
func WithServicesOf(d, now *Document) *Document {
	if !d.DeclaresService() || !now.DeclaresService() {
		return d
	}
	var doc struct {
		Spec struct {
			Endpoints json.RawMessage `json:"endpoints"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(now.Written, &doc); err != nil {
		return d
	}
	docs, faults := Parse("restore", rewriteEndpoints(d.Written, doc.Spec.Endpoints))
	if len(faults) > 0 || len(docs) != 1 {
		return d
	}
	return docs[0]
}

// DeclaresService tells whether a document has endpoints of its own; that of nil has
// none.
func (d *Document) DeclaresService() bool {
	if d == nil {
		return false
	}
	switch b := d.Body.(type) {
	case *Service:
		return true
	case *Upstream:
		return b.Endpoints != nil
	}
	return false
}

// LocalServiceRefs lists the Service documents that upstreams refer to, sorted.
func LocalServiceRefs(docs []*Document) []Ref {
	var out []Ref
	for _, d := range docs {
		if u, ok := d.Body.(*Upstream); ok && !u.declaresEndpoints() {
			if k := u.Key(d.Name); k.Source == SourceLocal {
				out = append(out, Ref{KindService, k.Name})
			}
		}
	}
	slices.SortFunc(out, CompareRefs)
	return slices.Compact(out)
}
