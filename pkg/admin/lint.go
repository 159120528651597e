package admin

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wellspring-xds/wellspring/pkg/lint"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Lint is what is probably not meant in the documents in force.
type Lint struct {
	Items []spec.Fault `json:"items"`
}

type lintOut struct{ Body Lint }

// lint registers the list. A change is looked at by a dry run of it.
func (s *server) lint(api huma.API) {
	huma.Register(api, operation("lint", http.MethodGet, "/v1/lint", "What is probably not meant in the documents in force, held against what runs"),
		func(ctx context.Context, _ *struct{}) (*lintOut, error) {
			sp := s.Store.State().Spec
			nobody, _, _ := spec.New(0, nil)
			all, _ := sp.Check()
			_, odd := s.Validate(nobody, sp)
			streams, docs := s.Fleet.Streams(ctx), sp.Documents("")
			all = append(all, sp.Heeded(odd)...)
			all = append(all, lint.Documents(sp, docs)...)
			all = append(all, lint.Living(ctx, sp, docs, s.Evidence, func(*spec.Document, *spec.Upstream) bool { return false })...)
			all = append(lint.Settled(sp, all, streams), lint.NoProxies(sp, streams)...)
			return &lintOut{Lint{append([]spec.Fault{}, all...)}}, nil
		})
}
