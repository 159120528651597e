package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"reflect"
	"regexp"
	"strings"
)

// Kind is the type of a document.
type Kind string

// The kinds, in the order in which a request meets them.
const (
	KindListener Kind = "Listener"
	KindRoute    Kind = "Route"
	KindUpstream Kind = "Upstream"
	KindService  Kind = "Service"
	KindGroup    Kind = "Group"
)

// Kinds lists every kind, sorted as they are printed.
var Kinds = []Kind{KindListener, KindRoute, KindUpstream, KindService, KindGroup}

// ParseKind reads a kind as people type it: any case, singular or plural.
func ParseKind(s string) (Kind, bool) {
	s = strings.ToLower(s)
	for _, k := range Kinds {
		if l := strings.ToLower(string(k)); s == l || s == l+"s" {
			return k, true
		}
	}
	return "", false
}

// Plural is the noun in the API's paths: "upstreams".
func (k Kind) Plural() string { return strings.ToLower(string(k)) + "s" }

// newBody returns an empty spec of the kind, nil for an unknown kind.
func (k Kind) newBody() Body {
	switch k {
	case KindListener:
		return &Listener{}
	case KindRoute:
		return &Route{}
	case KindUpstream:
		return &Upstream{}
	case KindService:
		return &Service{}
	case KindGroup:
		return &Group{}
	}
	return nil
}

// Type returns the struct that the kind's spec is parsed into.
func (k Kind) Type() reflect.Type { return reflect.TypeOf(k.newBody()).Elem() }

// Body is what stands under `spec:` in a document.
type Body interface {
	// check reports what is wrong with the document by itself.
	check(c *checker)
}

// Ref names a document.
type Ref struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
}

func (r Ref) String() string { return string(r.Kind) + "/" + r.Name }

// Place is a position in a text. Line and Column count from 1; 0 is unknown.
type Place struct {
	File   string
	Line   int
	Column int
}

// Document is one declared thing. It is immutable once parsed.
type Document struct {
	Ref
	Labels map[string]string
	// Ignore are the codes of lint that leave it alone.
	Ignore []string
	Body   Body
	// Written is canonical JSON of what the operator wrote: sorted keys, no
	// defaults, short forms kept.
	Written []byte
	// Revision is the store's revision that last changed the document, 0 when it
	// was never stored.
	Revision uint64
	// Imported tells that nobody declared it: a source says that it is there.
	Imported bool

	places map[string]Place // nil once it is stored: nobody has the text any more
}

// Stored returns the document as a store keeps it: with its revision, and without
// the places of a text that is gone.
func (d *Document) Stored(revision uint64) *Document {
	out := *d
	out.Revision, out.places = revision, nil
	return &out
}

// Hash is the SHA-256 of Written, in hex: the identity of the content.
func (d *Document) Hash() string {
	sum := sha256.Sum256(d.Written)
	return hex.EncodeToString(sum[:])
}

// place finds the position of a field, or of the nearest parent that was
// written.
func (d *Document) place(field string) Place {
	for {
		if p, ok := d.places[field]; ok {
			return p
		}
		i := strings.LastIndexAny(field, ".[")
		if i < 0 {
			return d.places[""]
		}
		field = field[:i]
	}
}

// label is RFC 1123's: what names of documents look like.
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ReservedPrefix starts the names of the clusters that a bootstrap brings; no
// document may use it.
const ReservedPrefix = "wellspring-"

// Doubled is the fault of a document that stands twice in one text.
func (d *Document) Doubled() Fault { return d.fault("name", d.String()+" stands twice in one text") }

// Fault makes a fault at the place of one of the document's fields.
func (d *Document) Fault(field, message string) Fault { return d.fault(field, message) }
