package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/pkg/store"
)

// Revisions that are looked at: how long before and after something began, and how many.
const (
	touchedBefore   = 5 * time.Minute
	touchedAfter    = 30 * time.Second
	maxTouching     = 100
	revisionsAtOnce = 50
)

// touching are the revisions that touch an upstream's road, from a while before something
// began until shortly after, oldest first; and what of history could not be looked at.
func (g *Gatherer) touching(name string, u *spec.Upstream, since time.Time) (out []diagnose.Edit, notAsked []string) {
	if since.IsZero() {
		return nil, nil
	}
	said := func(why string) []string { return []string{"revisions before it began: " + why} }
	for before, n := uint64(0), 0; ; {
		page, _, err := g.Store.Revisions(before, revisionsAtOnce)
		switch {
		case err != nil:
			return out, said(err.Error())
		case len(page) == 0:
			return out, nil
		}
		for _, r := range page {
			if r.Time.Before(since.Add(-touchedBefore)) {
				return out, nil
			}
			if r.Time.After(since.Add(touchedAfter)) {
				continue
			}
			if n++; n > maxTouching {
				return out, said(fmt.Sprintf("only the %d newest of them", n-1))
			}
			fields, err := g.fieldsOf(r, name, u)
			if err != nil {
				return out, said(err.Error())
			}
			if len(fields) > 0 {
				newest := g.Store.State().Revision == r.Number
				out = slices.Insert(out, 0, diagnose.Edit{Revision: r.Number, Time: r.Time, Author: r.Author, Message: r.Message, Fields: fields, Newest: newest})
			}
		}
		before = page[len(page)-1].Number
	}
}

// fieldsOf lists what a revision changed on the road to an upstream, as paths.
func (g *Gatherer) fieldsOf(r store.Revision, name string, u *spec.Upstream) (fields []string, err error) {
	key := u.Key(name)
	quoted := []byte(`"` + name + `"`)
	edits, err := g.Store.Differences(r, func(ref spec.Ref) bool {
		switch ref.Kind {
		case spec.KindUpstream:
			return ref.Name == name
		case spec.KindService:
			return key.Source == spec.SourceLocal && ref.Name == key.Name
		}
		return true // a route, listener or group: whether it names the upstream is seen below
	})
	for _, e := range edits {
		a, b := writtenText(e.Before), writtenText(e.After)
		if e.Ref.Kind != spec.KindUpstream && e.Ref.Kind != spec.KindService && !bytes.Contains(a, quoted) && !bytes.Contains(b, quoted) {
			continue
		}
		for _, path := range differ(a, b) {
			fields = append(fields, string(e.Ref.Kind)+"/"+e.Ref.Name+": "+path)
		}
	}
	return fields, err
}

func writtenText(d *spec.Document) []byte {
	if d == nil {
		return nil
	}
	return d.Written
}

// differ lists the paths of a document at which two texts of it differ, with what stood
// and stands there where that is short.
func differ(a, b []byte) []string {
	switch {
	case a == nil:
		return []string{"added"}
	case b == nil:
		return []string{"removed"}
	}
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return []string{"changed"}
	}
	return differs("", x, y)
}

func differs(path string, x, y any) (out []string) {
	if reflect.DeepEqual(x, y) {
		return nil
	}
	mx, xs := x.(map[string]any)
	my, ys := y.(map[string]any)
	lx, xl := x.([]any)
	ly, yl := y.([]any)
	switch {
	case xs && ys:
		keys := map[string]bool{}
		for k := range mx {
			keys[k] = true
		}
		for k := range my {
			keys[k] = true
		}
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			at := k
			if path != "" {
				at = path + "." + k
			}
			out = append(out, differs(at, mx[k], my[k])...)
		}
	case xl && yl && len(lx) == len(ly):
		for i := range lx {
			out = append(out, differs(fmt.Sprintf("%s[%d]", path, i), lx[i], ly[i])...)
		}
	default:
		out = append(out, fmt.Sprintf("%s: %s -> %s", path, short(x), short(y)))
	}
	return out
}

// short is a value of a document in a few characters.
func short(v any) string {
	if v == nil {
		return "none"
	}
	text, err := json.Marshal(v)
	if err != nil || len(text) > 40 {
		return "…"
	}
	return string(text)
}
