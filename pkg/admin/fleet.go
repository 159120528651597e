package admin

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Proxies is the fleet as the control plane knows it.
type Proxies struct {
	Items   []model.Stream        `json:"items"`
	Total   int                   `json:"total"`
	Refused []model.RefusedStream `json:"refused" doc:"streams that were not served, in the last ten minutes"`
}

type (
	proxiesOut struct{ Body Proxies }
	proxyIn    struct {
		ID string `path:"id"`
	}
	holdingOut struct{ Body model.Holding }
)

func (s *server) fleet(api huma.API) {
	huma.Register(api, operation("list-proxies", http.MethodGet, "/v1/proxies", "Connected and refused proxies"),
		func(ctx context.Context, _ *struct{}) (*proxiesOut, error) {
			p := Proxies{Items: s.Fleet.Streams(ctx), Refused: s.Fleet.Refused()}
			p.Total = len(p.Items)
			if p.Refused == nil {
				p.Refused = []model.RefusedStream{}
			}
			return &proxiesOut{p}, nil
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
