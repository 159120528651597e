package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/pkg/store"
)

// Revisions is a page of history, newest first.
type Revisions struct {
	Items []store.Revision `json:"items"`
	Total int              `json:"total"`
	Next  uint64           `json:"next,omitempty" doc:"before= of the next page"`
}

// DocumentDiff is one document at two revisions; null where it does not exist.
type DocumentDiff struct {
	Kind spec.Kind `json:"kind"`
	Name string    `json:"name"`
	From any       `json:"from"`
	To   any       `json:"to"`
}

// Diff is what differs between two revisions.
type Diff struct {
	From    uint64         `json:"from"`
	To      uint64         `json:"to"`
	Changes []DocumentDiff `json:"changes"`
}

// Restored is the outcome of a restore.
type Restored struct {
	Outcome
	// Back are services that were gone and that the restored documents need.
	Back []spec.Ref `json:"back"`
}

type (
	revisionsIn struct {
		Before uint64 `query:"before" doc:"only revisions below this one"`
		Limit  int    `query:"limit" default:"50" minimum:"1" maximum:"1000"`
	}
	revisionsOut struct{ Body Revisions }
	revisionIn   struct {
		Number uint64 `path:"number"`
	}
	revisionOut struct{ Body store.Revision }
	diffIn      struct {
		Number  uint64 `path:"number"`
		Against string `query:"against" doc:"the revision to compare with; default the one before"`
	}
	diffOut   struct{ Body Diff }
	restoreIn struct {
		Number   uint64 `path:"number"`
		Services bool   `query:"services" doc:"bring services back too; otherwise today's stay"`
		DryRun   bool   `query:"dryRun"`
		Message  string `query:"message"`
	}
	restoreOut struct{ Body Restored }
)

func (s *server) history(api huma.API) {
	huma.Register(api, operation("list-revisions", http.MethodGet, "/v1/revisions", "History, newest first"), s.revisions)
	huma.Register(api, operation("get-revision", http.MethodGet, "/v1/revisions/{number}", "One revision", 404), s.revision)
	huma.Register(api, operation("diff-revision", http.MethodGet, "/v1/revisions/{number}/diff", "What a revision changed", 400, 404), s.diff)
	huma.Register(api, operation("restore-revision", http.MethodPost, "/v1/revisions/{number}/restore", "Bring a revision's documents back, as a new revision", 404, 422), s.restore)
}

func (s *server) revisions(_ context.Context, in *revisionsIn) (*revisionsOut, error) {
	items, total, err := s.Store.Revisions(in.Before, in.Limit)
	if err != nil {
		return nil, failed(err)
	}
	out := &revisionsOut{Revisions{Items: items, Total: total}}
	if out.Body.Items == nil {
		out.Body.Items = []store.Revision{}
	}
	if n := len(items); n == in.Limit && items[n-1].Number > 1 {
		out.Body.Next = items[n-1].Number
	}
	return out, nil
}

func (s *server) revision(_ context.Context, in *revisionIn) (*revisionOut, error) {
	r, err := s.Store.Revision(in.Number)
	if err != nil {
		return nil, failed(err)
	}
	return &revisionOut{r}, nil
}

func (s *server) diff(_ context.Context, in *diffIn) (*diffOut, error) {
	if _, err := s.Store.Revision(in.Number); err != nil {
		return nil, failed(err)
	}
	from, err := s.Store.Before(in.Number)
	if err != nil && in.Against == "" {
		return nil, failed(err)
	}
	if in.Against != "" {
		n, err := strconv.ParseUint(in.Against, 10, 64)
		if err != nil {
			return nil, newError(http.StatusBadRequest, fmt.Sprintf("against=%s is not a revision", in.Against))
		}
		from = n
	}
	b, err := s.Store.At(in.Number)
	if err != nil {
		return nil, failed(err)
	}
	a, err := s.Store.At(from)
	if err != nil {
		return nil, failed(err)
	}
	out := &diffOut{Diff{From: from, To: in.Number, Changes: []DocumentDiff{}}}
	refs := slices.Collect(maps.Keys(a))
	for ref := range b {
		if a[ref] == nil {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, spec.CompareRefs)
	for _, ref := range refs {
		if a[ref] != nil && b[ref] != nil && a[ref].Hash() == b[ref].Hash() {
			continue
		}
		out.Body.Changes = append(out.Body.Changes, DocumentDiff{Kind: ref.Kind, Name: ref.Name, From: written(a[ref]), To: written(b[ref])})
	}
	return out, nil
}

func written(d *spec.Document) any {
	if d == nil {
		return nil
	}
	return json.RawMessage(d.Written)
}

func (s *server) restore(ctx context.Context, in *restoreIn) (*restoreOut, error) {
	if in.Message == "" {
		in.Message = fmt.Sprintf("restore revision %d", in.Number)
	}
	var out Outcome
	var back []spec.Ref
	for try := 1; ; try++ {
		a, gone, err := s.Store.Restoring(in.Number, in.Services)
		if err != nil {
			return nil, failed(err)
		}
		a.Message, back = in.Message, gone
		if _, out, err = s.commit(ctx, a, in.DryRun); err == nil {
			break
		}
		if try == 3 || !errors.Is(err, model.ErrConflict) { // somebody else was writing
			return nil, failed(err)
		}
	}
	if back == nil {
		back = []spec.Ref{}
	}
	return &restoreOut{Restored{Outcome: out, Back: back}}, nil
}
