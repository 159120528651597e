package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/lint"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/pkg/store"
)

// Item is one document as it is stored.
type Item struct {
	Document any    `json:"document" doc:"as it was written: no defaults filled in"`
	Revision uint64 `json:"revision" doc:"the revision that last changed it; its ETag"`
	Declared bool   `json:"declared" doc:"false for an upstream that a source imports"`
	// Status is the health of an upstream.
	Status *health.Upstream `json:"status,omitempty"`
}

// List is a page of documents.
type List struct {
	Items []Item `json:"items"`
	Total int    `json:"total"`
	Next  string `json:"next,omitempty" doc:"cursor of the next page"`
}

// Outcome of an apply or a dry run.
type Outcome struct {
	Revision uint64         `json:"revision" doc:"0 where nothing changed, and in a dry run"`
	Changes  []store.Change `json:"changes"`
	Warnings []spec.Fault   `json:"warnings"`
	Impact   []model.Impact `json:"impact"`
}

type (
	nameIn struct {
		Name string `path:"name"`
	}
	itemOut struct {
		ETag string `header:"ETag"`
		Body Item
	}
	writeIn struct {
		Name        string `path:"name"`
		IfMatch     string `header:"If-Match" doc:"the ETag that is overwritten"`
		IfNoneMatch string `header:"If-None-Match" doc:"* to create"`
		Message     string `query:"message"`
		RawBody     []byte `contentType:"application/yaml"`
	}
	writeOut struct {
		Status int
		ETag   string `header:"ETag"`
		Body   Outcome
	}
	outcomeOut struct{ Body Outcome }
)

func (s *server) documents(api huma.API) {
	for _, kind := range spec.Kinds {
		one, all := strings.ToLower(string(kind)), kind.Plural()
		huma.Register(api, operation("list-"+all, http.MethodGet, "/v1/"+all, "Every "+one), s.list(kind))
		huma.Register(api, operation("get-"+one, http.MethodGet, "/v1/"+all+"/{name}", "One "+one, 404), s.get(kind))
		put := operation("put-"+one, http.MethodPut, "/v1/"+all+"/{name}", "Create or overwrite one "+one, 412, 422, 428)
		put.MaxBodyBytes = maxBody
		huma.Register(api, put, s.put(kind))
		del := operation("delete-"+one, http.MethodDelete, "/v1/"+all+"/{name}", "Delete one "+one, 404, 412)
		if kind != spec.KindGroup { // nothing refers to a group
			del.Errors = append(del.Errors, 409)
		}
		huma.Register(api, del, s.del(kind))
	}
	apply := operation("apply", http.MethodPost, "/v1/apply", "Set many documents in one revision", 400, 412, 422)
	apply.MaxBodyBytes = maxBody
	huma.Register(api, apply, s.apply)
}

type listIn struct {
	After string `query:"after" doc:"cursor: the next of the page before"`
	Limit int    `query:"limit" default:"500" minimum:"1" maximum:"5000"`
}

type listOut struct{ Body List }

func (s *server) list(kind spec.Kind) func(context.Context, *listIn) (*listOut, error) {
	return func(_ context.Context, in *listIn) (*listOut, error) {
		docs := s.present(kind).Documents(kind)
		healths := s.healths(kind)
		out := &listOut{Body: List{Items: []Item{}, Total: len(docs)}}
		from, _ := slices.BinarySearchFunc(docs, in.After, func(d *spec.Document, after string) int {
			if d.Name <= after {
				return -1
			}
			return 1
		})
		for i, d := range docs[from:] {
			if i == in.Limit {
				out.Body.Next = docs[from+i-1].Name
				break
			}
			out.Body.Items = append(out.Body.Items, item(d, healths[d.Name]))
		}
		return out, nil
	}
}

func (s *server) healths(kind spec.Kind) map[string]*health.Upstream {
	if kind != spec.KindUpstream {
		return nil
	}
	out := map[string]*health.Upstream{}
	for _, h := range s.Health.Health() {
		out[h.Name] = &h
	}
	return out
}

// present is where documents of a kind are read: upstreams may be imported.
func (s *server) present(kind spec.Kind) *spec.Spec {
	if kind == spec.KindUpstream {
		return s.withImports()
	}
	return s.Store.State().Spec
}

// withImports is the newest Spec, with what is imported.
func (s *server) withImports() *spec.Spec { return s.importedInto(s.Store.State().Spec) }

// importedInto is a Spec with what is imported now.
func (s *server) importedInto(documents *spec.Spec) *spec.Spec {
	return documents.WithImportsOf(s.Publisher.Spec())
}

func item(d *spec.Document, h *health.Upstream) Item {
	return Item{Document: json.RawMessage(d.Written), Revision: d.Revision, Declared: !d.Imported, Status: h}
}

func etag(revision uint64) string { return strconv.Quote(strconv.FormatUint(revision, 10)) }

func (s *server) get(kind spec.Kind) func(context.Context, *nameIn) (*itemOut, error) {
	return func(_ context.Context, in *nameIn) (*itemOut, error) {
		d := s.present(kind).Document(kind, in.Name)
		if d == nil {
			return nil, failed(s.notFound(spec.Ref{Kind: kind, Name: in.Name}))
		}
		return &itemOut{ETag: etag(d.Revision), Body: item(d, s.healths(kind)[in.Name])}, nil
	}
}

func (s *server) notFound(ref spec.Ref) error {
	var names []string
	for _, d := range s.present(ref.Kind).Documents(ref.Kind) {
		names = append(names, d.Name)
	}
	if len(names) == 0 {
		return fmt.Errorf("%s: %w; no %s is declared", ref, model.ErrNotFound, ref.Kind)
	}
	if len(names) > 10 {
		names = append(names[:10], "…")
	}
	return fmt.Errorf("%s: %w; there are: %s", ref, model.ErrNotFound, strings.Join(names, ", "))
}

// match reads the conditional headers: the revision that must be there, nil for
// any.
func match(ifMatch, ifNoneMatch string) (*uint64, error) {
	switch {
	case ifNoneMatch == "*":
		return new(uint64), nil
	case ifNoneMatch != "":
		return nil, newError(http.StatusBadRequest, fmt.Sprintf("If-None-Match %s: only * is taken, to create", ifNoneMatch))
	case ifMatch == "" || ifMatch == "*":
		return nil, nil //nolint:nilnil // nil is "any"
	}
	n, err := strconv.ParseUint(strings.Trim(ifMatch, `"`), 10, 64)
	if err != nil || n == 0 {
		return nil, newError(http.StatusPreconditionFailed, fmt.Sprintf("If-Match %s is not an ETag of this server", ifMatch))
	}
	return &n, nil
}

func (s *server) put(kind spec.Kind) func(context.Context, *writeIn) (*writeOut, error) {
	return func(ctx context.Context, in *writeIn) (*writeOut, error) {
		docs, faults := spec.Parse("body", in.RawBody)
		if err := faults.Err(); err != nil {
			return nil, failed(err)
		}
		ref := spec.Ref{Kind: kind, Name: in.Name}
		if len(docs) != 1 || docs[0].Ref != ref {
			return nil, failed(spec.Faults{{File: "body", Message: fmt.Sprintf("the body must be the one document %s", ref)}})
		}
		m, err := match(in.IfMatch, in.IfNoneMatch)
		if err != nil {
			return nil, err
		}
		required := newError(http.StatusPreconditionRequired, fmt.Sprintf("%s exists; send If-Match with the ETag that you read, so that nobody's change is lost", ref))
		bare := in.IfMatch == "" && in.IfNoneMatch == ""
		if bare {
			m = new(uint64) // without a word it may only create
		}
		r, out, err := s.commit(ctx, store.Apply{Edits: []store.Edit{{Ref: ref, Document: docs[0], Match: m, Exists: in.IfMatch == "*"}}, Message: in.Message}, false)
		var mismatch *store.MismatchError
		switch {
		case bare && errors.As(err, &mismatch):
			return nil, required
		case err != nil:
			return nil, failed(err)
		}
		status := http.StatusOK
		if r.Before.Document(kind, in.Name) == nil {
			status = http.StatusCreated
		}
		return &writeOut{Status: status, ETag: etag(r.After.Document(kind, in.Name).Revision), Body: out}, nil
	}
}

type deleteIn struct {
	Name    string `path:"name"`
	IfMatch string `header:"If-Match"`
	Message string `query:"message"`
	DryRun  bool   `query:"dryRun"`
}

func (s *server) del(kind spec.Kind) func(context.Context, *deleteIn) (*outcomeOut, error) {
	return func(ctx context.Context, in *deleteIn) (*outcomeOut, error) {
		ref := spec.Ref{Kind: kind, Name: in.Name}
		if s.Store.State().Spec.Document(kind, in.Name) == nil {
			return nil, failed(s.notFound(ref))
		}
		m, err := match(in.IfMatch, "")
		if err != nil {
			return nil, err
		}
		_, out, err := s.commit(ctx, store.Apply{Edits: []store.Edit{{Ref: ref, Match: m}}, Message: in.Message}, in.DryRun)
		if p, ok := failed(err).(*Error); ok && p.Status == http.StatusUnprocessableEntity { //nolint:errorlint // failed returns it unwrapped
			p.Status, p.Title = http.StatusConflict, http.StatusText(http.StatusConflict)
			p.Detail = fmt.Sprintf("%s is referred to; delete or change these first", ref)
			return nil, p
		}
		if err != nil {
			return nil, failed(err)
		}
		return &outcomeOut{out}, nil
	}
}

type applyIn struct {
	DryRun  bool   `query:"dryRun" doc:"validate and say what would change; change nothing"`
	Expect  string `query:"expect" doc:"the Spec revision that the documents were made against; endpoints do not move it: write those with PUT and If-Match"`
	Message string `query:"message"`
	Prune   string `query:"prune" doc:"a label, KEY=VALUE: documents that carry it and are not in the body are deleted"`
	RawBody []byte `contentType:"application/yaml"`
}

func (s *server) apply(ctx context.Context, in *applyIn) (*outcomeOut, error) {
	docs, faults := spec.Parse("body", in.RawBody)
	a := store.Apply{Message: in.Message}
	seen := map[spec.Ref]bool{}
	for _, d := range docs {
		if seen[d.Ref] {
			faults = append(faults, d.Doubled())
			continue
		}
		seen[d.Ref] = true
		a.Edits = append(a.Edits, store.Edit{Ref: d.Ref, Document: d})
	}
	if err := faults.Err(); err != nil {
		return nil, failed(err)
	}
	if len(docs) == 0 {
		return nil, failed(spec.Faults{{File: "body", Message: "has no documents in it"}})
	}
	pruned, err := s.prune(in.Prune, seen)
	if err != nil {
		return nil, err
	}
	a.Edits = append(a.Edits, pruned...)
	if in.Expect != "" {
		n, err := strconv.ParseUint(in.Expect, 10, 64)
		if err != nil {
			return nil, newError(http.StatusBadRequest, fmt.Sprintf("expect=%s is not a revision", in.Expect))
		}
		a.Expect = &n
	}
	_, out, err := s.commit(ctx, a, in.DryRun)
	if err != nil {
		return nil, failed(err)
	}
	return &outcomeOut{out}, nil
}

// prune deletes the documents that carry a label and are not sent.
func (s *server) prune(label string, sent map[spec.Ref]bool) ([]store.Edit, error) {
	if label == "" {
		return nil, nil
	}
	key, value, ok := strings.Cut(label, "=")
	if !ok || key == "" || value == "" {
		return nil, newError(http.StatusBadRequest, fmt.Sprintf("prune=%s is not a label: write KEY=VALUE, as owner=shop", label))
	}
	var out []store.Edit
	for _, d := range s.Store.State().Spec.Documents("") {
		if d.Labels[key] == value && !sent[d.Ref] {
			revision := d.Revision
			out = append(out, store.Edit{Ref: d.Ref, Match: &revision}) // who changes it meanwhile keeps it
		}
	}
	return out, nil
}

// commit applies or plans, and says what it means for the fleet.
func (s *server) commit(ctx context.Context, a store.Apply, dry bool) (store.Result, Outcome, error) {
	if !dry && !mayWrite(ctx) {
		return store.Result{}, Outcome{}, newError(http.StatusForbidden, actor(ctx)+" may only read")
	}
	streams := s.Fleet.Streams(ctx)
	a.Author = actor(ctx)
	var odd spec.Faults
	a.Check = func(before, after *spec.Spec) error {
		var faults spec.Faults
		faults, odd = s.Validate(before, after)
		return append(twoGroups(after, streams), faults...).Err()
	}
	do := func() (store.Result, error) { return s.Store.Apply(ctx, a) }
	if dry {
		do = func() (store.Result, error) { return s.Store.Plan(a) }
	}
	r, err := do()
	if err != nil {
		return r, Outcome{}, err
	}
	out := Outcome{Revision: r.Revision, Changes: r.Changes, Warnings: r.Warnings, Impact: s.Impact(s.importedInto(r.Before), s.importedInto(r.After))}
	out.Warnings = append(out.Warnings, r.After.Heeded(odd)...)
	out.Warnings = append(out.Warnings, lostProxies(r.Before, r.After, streams)...)
	docs := edited(r.After, a.Edits)
	out.Warnings = append(out.Warnings, lint.Documents(r.After, docs)...)
	if dry {
		out.Warnings = append(out.Warnings, lint.Living(ctx, r.After, docs, s.Evidence, s.mayTry(ctx, r.Before))...)
	}
	out.Warnings = lint.Settled(r.After, out.Warnings, streams)
	count := map[string]int{}
	for _, st := range streams {
		count[st.Group]++
	}
	for i := range out.Impact {
		out.Impact[i].Proxies = count[out.Impact[i].Group]
	}
	if r.Revision > 0 {
		s.Logger.Info("revision applied", "revision", r.Revision, "changes", len(r.Changes), "actor", a.Author)
		s.Events.Emit(model.Event{
			Kind: model.EventRevisionApplied, Subject: model.Subject{Kind: "Spec", Name: strconv.FormatUint(r.Revision, 10)},
			Revision: r.Revision, Actor: a.Author, Reason: summary(a.Message, r.Changes),
		})
	}
	if out.Warnings == nil {
		out.Warnings = []spec.Fault{}
	}
	if out.Changes == nil {
		out.Changes = []store.Change{}
	}
	if out.Impact == nil {
		out.Impact = []model.Impact{}
	}
	return r, out, nil
}

// mayTry tells which health checks a dry run tries: new ones, of somebody who may have the
// proxies send them; and only those that change nothing where they are sent.
func (s *server) mayTry(ctx context.Context, before *spec.Spec) func(d *spec.Document, u *spec.Upstream) bool {
	return func(d *spec.Document, u *spec.Upstream) bool {
		if !mayWrite(ctx) || len(u.HealthChecks) == 0 {
			return false
		}
		if was, ok := before.Upstream(d.Name); ok && reflect.DeepEqual(was.HealthChecks, u.HealthChecks) {
			return false
		}
		switch h := u.HealthChecks[0]; {
		case h.HTTP != nil && h.HTTP.Method != http.MethodGet && h.HTTP.Method != http.MethodHead, h.TCP != nil && h.TCP.Send != "":
			return false
		}
		return true
	}
}

// edited are the documents of some edits, as they are after them.
func edited(after *spec.Spec, edits []store.Edit) (out []*spec.Document) {
	for _, e := range edits {
		if d := after.Document(e.Ref.Kind, e.Ref.Name); d != nil && e.Document != nil {
			if d.Hash() == e.Document.Hash() {
				d = e.Document // it knows its lines
			}
			out = append(out, d)
		}
	}
	return out
}

func summary(message string, changes []store.Change) string {
	if message != "" {
		return message
	}
	names := make([]string, 0, 4)
	for i, c := range changes {
		if i == 3 {
			names = append(names, fmt.Sprintf("and %d more", len(changes)-3))
			break
		}
		names = append(names, string(c.Kind)+"/"+c.Name)
	}
	return strings.Join(names, ", ")
}

// twoGroups refuses a change by which a connected proxy would match two groups:
// it would be cut off.
func twoGroups(after *spec.Spec, streams []model.Stream) (faults spec.Faults) {
	for _, st := range streams {
		if groups := after.GroupsOf(st.Proxy); len(groups) > 1 {
			d := after.Document(spec.KindGroup, groups[0])
			faults = append(faults, d.Fault("spec.match", fmt.Sprintf("the connected proxy %q would match %s; make their match keys exclude each other", st.ID, strings.Join(groups, " and "))))
		}
	}
	return faults
}

// lostProxies warns of connected proxies that would be in no group or another, or
// not be let into theirs.
func lostProxies(before, after *spec.Spec, streams []model.Stream) []spec.Fault {
	var none, other, denied int
	for _, st := range streams {
		was, is := before.GroupsOf(st.Proxy), after.GroupsOf(st.Proxy)
		switch {
		case len(was) == 1 && len(is) == 0:
			none++
		case len(was) == 1 && len(is) == 1 && was[0] != is[0]:
			other++
		}
		if len(is) == 1 {
			if g, ok := after.Group(is[0]); ok && !g.Allows(st.Identity) {
				denied++
			}
		}
	}
	var out []spec.Fault
	for _, x := range []struct {
		n    int
		says string
	}{
		{none, "match no group any more; their streams end and they keep what they have"},
		{denied, "have no certificate that their group takes; their streams end and they keep what they have"},
		{other, "move to another group"},
	} {
		if x.n > 0 {
			out = append(out, spec.Fault{Document: "Group", Code: spec.AdviceLosesProxies, Message: fmt.Sprintf("%d connected proxies %s", x.n, x.says)})
		}
	}
	return out
}
