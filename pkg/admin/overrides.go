package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Overriding is an override as it is asked for.
type Overriding struct {
	_        struct{}             `additionalProperties:"false"`
	Upstream string               `json:"upstream"`
	Endpoint string               `json:"endpoint" doc:"its id, or its address"`
	Action   model.OverrideAction `json:"action" enum:"drain,enable" doc:"drain: no new requests. enable: used whatever the source says of its health"`
	Reason   string               `json:"reason" minLength:"1" maxLength:"256"`
	Until    time.Time            `json:"until,omitzero" required:"false" doc:"when it ends by itself; absent is never"`
}

type (
	overridesOut struct {
		Body struct {
			Items []model.Override `json:"items"`
		}
	}
	overridingIn  struct{ Body Overriding }
	overrideOut   struct{ Body model.Override }
	overrideEndIn struct {
		Upstream string `query:"upstream" required:"true"`
		Endpoint string `query:"endpoint" required:"true" doc:"its id, or its address"`
	}
)

func (s *server) overrides(api huma.API) {
	huma.Register(api, operation("list-overrides", http.MethodGet, "/v1/overrides", "What operators say of single endpoints"),
		func(context.Context, *struct{}) (*overridesOut, error) {
			out := &overridesOut{}
			out.Body.Items = append([]model.Override{}, s.Store.Overrides()...)
			return out, nil
		})
	huma.Register(api, operation("set-override", http.MethodPost, "/v1/overrides", "Drain or enable an endpoint, whatever its source says", 404, 422), s.setOverride)
	huma.Register(api, operation("end-override", http.MethodDelete, "/v1/overrides", "Go by the source again", 404), s.endOverride)
}

func (s *server) setOverride(ctx context.Context, in *overridingIn) (*overrideOut, error) {
	now := time.Now().UTC()
	o := model.Override{Upstream: in.Body.Upstream, Action: in.Body.Action, Reason: in.Body.Reason, Actor: actor(ctx), Since: now}
	if !in.Body.Until.IsZero() {
		o.Until = in.Body.Until.UTC()
	}
	switch {
	case o.Ended(now):
		return nil, newError(http.StatusUnprocessableEntity, fmt.Sprintf("until %s is over already", o.Until.Format(time.RFC3339)))
	case strings.ContainsFunc(o.Reason, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return nil, newError(http.StatusUnprocessableEntity, "the reason has a control character in it")
	}
	eps, _, ok := s.Publisher.Endpoints(o.Upstream)
	if !ok {
		return nil, newError(http.StatusNotFound, fmt.Sprintf("there is no upstream %q", o.Upstream))
	}
	i := slices.IndexFunc(eps, func(e model.Endpoint) bool { return e.ID == in.Body.Endpoint || e.Address == in.Body.Endpoint })
	if i < 0 {
		return nil, newError(http.StatusNotFound, fmt.Sprintf("upstream %q has no endpoint %q; `wellspring health %s` lists them", o.Upstream, in.Body.Endpoint, o.Upstream))
	}
	o.Endpoint = eps[i].ID
	if err := s.Store.SetOverride(o); err != nil {
		return nil, failed(err)
	}
	s.Logger.Info("override set", "upstream", o.Upstream, "endpoint", o.Endpoint, "action", string(o.Action), "actor", o.Actor)
	s.Events.Emit(model.Event{
		Kind: model.EventOverrideSet, Subject: model.Subject{Kind: "Upstream", Name: o.Upstream}, Endpoint: o.Endpoint, To: string(o.Action), Reason: o.Reason, Actor: o.Actor,
	})
	return &overrideOut{o}, nil
}

func (s *server) endOverride(ctx context.Context, in *overrideEndIn) (*overrideOut, error) {
	o, err := s.Store.EndOverride(in.Upstream, in.Endpoint)
	if errors.Is(err, model.ErrNotFound) { // it may be an address
		eps, _, _ := s.Publisher.Endpoints(in.Upstream)
		if i := slices.IndexFunc(eps, func(e model.Endpoint) bool { return e.Address == in.Endpoint }); i >= 0 {
			o, err = s.Store.EndOverride(in.Upstream, eps[i].ID)
		}
	}
	if err != nil {
		return nil, failed(err)
	}
	s.Logger.Info("override ended", "upstream", o.Upstream, "endpoint", o.Endpoint, "actor", actor(ctx))
	s.Events.Emit(model.Event{
		Kind: model.EventOverrideEnded, Subject: model.Subject{Kind: "Upstream", Name: o.Upstream}, Endpoint: o.Endpoint, From: string(o.Action), Reason: "ended by hand", Actor: actor(ctx),
	})
	return &overrideOut{o}, nil
}
