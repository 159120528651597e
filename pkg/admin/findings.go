package admin

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/findings"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Findings is what the standing watch found.
type Findings struct {
	Items []findings.TimedFinding `json:"items" doc:"what is over first, oldest first; then what goes on, critical first"`
}

type (
	findingsIn struct {
		Upstream string `query:"upstream" doc:"only those of this upstream"`
		Code     string `query:"code" doc:"only those with this code"`
		Ended    bool   `query:"ended" doc:"also those that are over: the last thousand"`
	}
	findingsOut struct{ Body Findings }
)

// findings registers the list.
func (s *server) findings(api huma.API) {
	huma.Register(api, operation("list-findings", http.MethodGet, "/v1/findings", "What the server found by itself: causes of outages, and warnings, with begin and end", 400, 404),
		func(_ context.Context, in *findingsIn) (*findingsOut, error) {
			if _, known := diagnose.CauseOf(diagnose.Code(in.Code)); in.Code != "" && !known {
				return nil, newError(http.StatusBadRequest, "code: there is none of the name "+in.Code+"; docs/causes.md lists them")
			}
			if _, there := s.withImports().Upstream(in.Upstream); in.Upstream != "" && !there && !in.Ended {
				return nil, failed(s.notFound(spec.Ref{Kind: spec.KindUpstream, Name: in.Upstream}))
			}
			out := &findingsOut{Findings{Items: []findings.TimedFinding{}}}
			for _, f := range s.Findings(in.Ended) {
				if (in.Code == "" || string(f.Code) == in.Code) && (in.Upstream == "" || f.Subject.Kind == string(spec.KindUpstream) && f.Subject.Name == in.Upstream) {
					out.Body.Items = append(out.Body.Items, f)
				}
			}
			return out, nil
		})
}
