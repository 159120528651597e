package admin

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Proxies is the fleet as the control plane knows it.
type Proxies struct {
	Items   []ConnectedProxy      `json:"items"`
	Total   int                   `json:"total"`
	Refused []model.RefusedStream `json:"refused" doc:"streams that were not served, in the last ten minutes"`
	// Gone are those that went away in the last hour.
	Gone []fleet.Member `json:"gone" doc:"those that went away in the last hour"`
	// RefusedReports were not the reporter's to send.
	RefusedReports []fleet.RefusedReport `json:"refusedReports" doc:"reports for a node that is not the reporter's, in the last ten minutes"`
}

// ConnectedProxy is one proxy: what it was sent, and how it reports.
type ConnectedProxy struct {
	model.Stream
	Reports *fleet.Reports `json:"reports,omitempty"`
}

type (
	proxiesOut struct{ Body Proxies }
	proxyIn    struct {
		ID string `path:"id"`
	}
	holdingOut struct{ Body model.Holding }
)

type (
	trendOut struct {
		Body struct {
			Minutes []fleet.Span `json:"minutes" doc:"the last hour; those without anything are left out"`
			Hours   []fleet.Span `json:"hours" doc:"the last two days"`
		}
	}
	failuresOut struct {
		Body struct {
			Counted []fleet.Failure `json:"counted" doc:"as the proxies count them: none is lost"`
			Told    []fleet.Reason  `json:"told" doc:"as they tell them one by one: with reasons, some are lost"`
		}
	}
)

func (s *server) proxies(ctx context.Context) Proxies {
	p := Proxies{Items: []ConnectedProxy{}, Refused: s.Fleet.Refused(), Gone: []fleet.Member{}, RefusedReports: s.Seen.RefusedReports()}
	reports := map[string]fleet.Reports{}
	for _, x := range s.Seen.Proxies() {
		reports[x.ID] = x.Reports
		if !x.Gone.IsZero() {
			p.Gone = append(p.Gone, x)
		}
	}
	for _, st := range s.Fleet.Streams(ctx) {
		item := ConnectedProxy{Stream: st}
		if r, ok := reports[st.ID]; ok {
			item.Reports = &r
		}
		p.Items = append(p.Items, item)
	}
	p.Total = len(p.Items)
	if p.Refused == nil {
		p.Refused = []model.RefusedStream{}
	}
	if p.RefusedReports == nil {
		p.RefusedReports = []fleet.RefusedReport{}
	}
	return p
}

func (r *ReportCounts) byState() map[string]*int {
	return map[string]*int{
		fleet.ReportsVerified: &r.Verified, fleet.ReportsAsked: &r.Asked, fleet.ReportsSilent: &r.Silent, fleet.ReportsNever: &r.Never, fleet.ReportsDue: &r.Due,
		fleet.ReportsUnverified: &r.Unverified, fleet.ReportsOff: &r.Off,
	}
}

// maxSome names that stand for more.
const maxSome = 5

// reports counts the connected proxies by how they report.
func (s *server) reports() ReportCounts {
	out := ReportCounts{Some: []string{}, Refused: len(s.Seen.RefusedReports())}
	sp := s.Publisher.Spec()
	for _, p := range s.Seen.Proxies() {
		if !p.Gone.IsZero() || strings.HasPrefix(p.Agent, "gRPC") { // gRPC's own clients tell nothing
			continue
		}
		if p.Reports.State == fleet.ReportsAsked && p.Reports.Gap != nil && p.Reports.Gap.To.IsZero() {
			p.Reports.State = fleet.ReportsSilent // what it sees is known, what it counts is not
		}
		odd := p.Reports.State == fleet.ReportsSilent || p.Reports.State == fleet.ReportsUnverified || p.Reports.State == fleet.ReportsNever
		*out.byState()[p.Reports.State]++
		if g, ok := sp.Group(p.Group); ok && !p.Telemetry.Includes(model.TelemetryOf(g.Telemetry)) {
			out.NewBootstrap++
			odd = true
		}
		if odd && len(out.Some) < maxSome {
			out.Some = append(out.Some, p.ID)
		}
	}
	return out
}

func (s *server) fleet(api huma.API) {
	huma.Register(api, operation("upstream-trend", http.MethodGet, "/v1/upstreams/{name}/trend", "Requests, failures and latency of an upstream over the last hour", 404),
		func(_ context.Context, in *nameIn) (*trendOut, error) {
			if _, ok := s.withImports().Upstream(in.Name); !ok {
				return nil, failed(s.notFound(spec.Ref{Kind: spec.KindUpstream, Name: in.Name}))
			}
			out := &trendOut{}
			out.Body.Minutes, out.Body.Hours = s.Seen.Trend(in.Name)
			return out, nil
		})
	huma.Register(api, operation("upstream-failures", http.MethodGet, "/v1/upstreams/{name}/failures", "Why requests to an upstream failed, as proxies tell it", 404),
		func(_ context.Context, in *nameIn) (*failuresOut, error) {
			if _, ok := s.withImports().Upstream(in.Name); !ok {
				return nil, failed(s.notFound(spec.Ref{Kind: spec.KindUpstream, Name: in.Name}))
			}
			return s.failures(in.Name), nil
		})
	huma.Register(api, operation("list-failures", http.MethodGet, "/v1/failures", "Why requests failed that led to no upstream (no route, no such cluster)"),
		func(context.Context, *struct{}) (*failuresOut, error) { return s.failures(""), nil })
	huma.Register(api, operation("list-proxies", http.MethodGet, "/v1/proxies", "Connected and refused proxies"),
		func(ctx context.Context, _ *struct{}) (*proxiesOut, error) {
			return &proxiesOut{s.proxies(ctx)}, nil
		})
	huma.Register(api, operation("proxy-xds", http.MethodGet, "/v1/proxies/{id}/xds", "What a proxy was sent and holds, as Envoy's JSON", 404),
		func(ctx context.Context, in *proxyIn) (*holdingOut, error) {
			h, err := s.Fleet.Holding(ctx, in.ID)
			if err != nil {
				return nil, failed(err)
			}
			if h.Resources == nil {
				h.Resources = []model.HeldResource{}
			}
			return &holdingOut{h}, nil
		})
}

func (s *server) failures(upstream string) *failuresOut {
	out := &failuresOut{}
	out.Body.Counted, out.Body.Told = s.Seen.Failures(upstream)
	return out
}
