package admin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/lint"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Evidence gathers what is known of an upstream.
type Evidence interface {
	// Ask gathers all that can be known, or what one proxy has of it.
	Ask(ctx context.Context, upstream, proxy string) (diagnose.Case, error)
	// Then gathers what is recorded of a time that is over, SpecAt is the Spec of then.
	Then(ctx context.Context, upstream string, at time.Time) (diagnose.Case, error)
	SpecAt(at time.Time) *spec.Spec
	lint.World
}

type (
	explainIn struct {
		Upstream string   `query:"upstream" doc:"name of an upstream; this, or host and path, or log"`
		Host     string   `query:"host" doc:"of a request, as a client sends it: the way that it takes is walked first"`
		Path     string   `query:"path" doc:"of that request"`
		Method   string   `query:"method" default:"GET"`
		Header   []string `query:"header,explode" doc:"NAME: VALUE of that request"`
		Log      string   `query:"log" maxLength:"65536" doc:"a line of an access log: ours, Envoy's default, Istio's, or JSON"`
		At       string   `query:"at" format:"date-time" doc:"at a time that is over, by what was recorded: nobody is asked"`
		Proxy    string   `query:"proxy" doc:"id of a proxy: only what it was sent, reports and answers"`
	}
	explainOut struct{ Body diagnose.Explanation }
)

func (s *server) explain(api huma.API) {
	huma.Register(api, operation("explain", http.MethodGet, "/v1/explain", "Why requests to an upstream fail, or soon will", 400, 404),
		func(ctx context.Context, in *explainIn) (*explainOut, error) {
			a, line, err := s.asking(in)
			if err != nil {
				return nil, err
			}
			e, err := s.answer(ctx, in, a, line)
			if err != nil {
				return nil, err
			}
			if line != nil {
				e.Road = append([]string{line.Says()}, e.Road...)
			}
			return &explainOut{e}, nil
		})
}

// asking is the request that is asked about, and the line of a log that it was read from.
// A log's cluster that is one of our upstreams is asked about by its name.
func (s *server) asking(in *explainIn) (a spec.Asking, l *diagnose.LogLine, err error) {
	if at := in.at(); !at.IsZero() {
		switch {
		case at.After(time.Now()):
			return a, nil, newError(http.StatusBadRequest, "at: "+in.At+" is still to come")
		case in.Proxy != "":
			return a, nil, newError(http.StatusBadRequest, "at and proxy: what one proxy saw is not recorded; ask without proxy")
		}
	}
	ways := 0
	for _, x := range []string{in.Upstream, in.Host + in.Path, in.Log} {
		if x != "" {
			ways++
		}
	}
	if ways != 1 {
		return a, nil, newError(http.StatusBadRequest, "name an upstream, or host and path of a request, or a line of a log; one of these")
	}
	if in.Log != "" {
		line, err := diagnose.ParseLogLine(in.Log)
		if err != nil {
			return a, nil, newError(http.StatusBadRequest, "log: "+err.Error())
		}
		if _, ok := s.withImports().Upstream(line.Cluster); ok {
			in.Upstream = line.Cluster
		}
		return line.Asking, &line, nil
	}
	a = spec.Asking{Method: in.Method, Host: in.Host, Path: in.Path, Headers: map[string]string{}}
	for _, h := range in.Header {
		name, value, ok := strings.Cut(h, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return a, nil, newError(http.StatusBadRequest, fmt.Sprintf("header %q is not NAME: VALUE", h))
		}
		a.Headers[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	return a, nil, nil
}

// answer explains an upstream, or the one of those on a request's way that does worst.
func (s *server) answer(ctx context.Context, in *explainIn, a spec.Asking, l *diagnose.LogLine) (diagnose.Explanation, error) {
	if in.Upstream != "" {
		return s.explained(ctx, in, in.Upstream)
	}
	sp := s.withImports()
	if at := in.at(); !at.IsZero() {
		sp = s.Evidence.SpecAt(at)
	}
	ways, err := s.ways(ctx, sp, in.Proxy, a, l)
	if err != nil {
		return diagnose.Explanation{}, err
	}
	worst, well := s.worstOf(ways)
	if worst == "" {
		if l != nil && len(l.Flags) > 0 && !slices.Contains(l.Flags, "NR") && !slices.Contains(l.Flags, "NoRouteFound") {
			return diagnose.Explanation{}, newError(http.StatusNotFound, l.Says()+"; its upstream is none of ours, and no route of ours leads its request anywhere: ask about an upstream by its name")
		}
		return diagnose.NoWay(ways, a, time.Now()), nil
	}
	e, err := s.explained(ctx, in, worst)
	if err != nil {
		return e, err
	}
	if in.at().IsZero() {
		e = e.Sibling(well)
	}
	for _, w := range ways {
		e.Road = append(e.Road, diagnose.Road(w))
	}
	return e, nil
}

// at is the time that is asked about; zero is now.
func (in *explainIn) at() time.Time {
	at, _ := time.Parse(time.RFC3339, in.At) // its form was checked
	return at
}

// explained says why requests to one upstream fail, or failed.
func (s *server) explained(ctx context.Context, in *explainIn, name string) (diagnose.Explanation, error) {
	var c diagnose.Case
	var err error
	if at := in.at(); !at.IsZero() {
		c, err = s.Evidence.Then(ctx, name, at)
	} else {
		if _, ok := s.withImports().Upstream(name); !ok {
			return diagnose.Explanation{}, failed(s.notFound(spec.Ref{Kind: spec.KindUpstream, Name: name}))
		}
		c, err = s.Evidence.Ask(ctx, name, in.Proxy)
	}
	if err != nil {
		return diagnose.Explanation{}, failed(err)
	}
	return diagnose.Explain(c), nil
}

// ways are where a request goes: at the listeners of one proxy or, where none is named, of
// all but those that lead to the application beside a proxy. A log's route goes before
// its host and path: it was matched by all of the request.
func (s *server) ways(ctx context.Context, sp *spec.Spec, proxy string, a spec.Asking, l *diagnose.LogLine) ([]spec.Way, error) {
	group := ""
	if proxy != "" {
		for _, st := range s.Fleet.Streams(ctx) {
			if st.ID == proxy {
				group = st.Group
			}
		}
		if group == "" {
			return nil, newError(http.StatusNotFound, fmt.Sprintf("no proxy %q is connected; wellspring proxies lists them", proxy))
		}
	}
	if l != nil {
		if ways := sp.WaysOf(group, l.Route); len(ways) > 0 {
			return ways, nil
		}
	}
	return sp.Ways(group, a), nil
}

// worstOf picks the upstream that does worst, among equals one whose requests fail, and says
// which others of its rule are well; "" where there is none.
func (s *server) worstOf(ways []spec.Way) (worst string, well []string) {
	var state health.State
	fails := false
	for _, w := range ways {
		var fine []string
		here := false
		for _, to := range w.To {
			if to.Weight == 0 {
				continue
			}
			h, _ := s.Health.HealthBy(to.Upstream, s.Seen.Views(to.Upstream, false))
			failing := h.Seen != nil && h.Seen.Failing()
			if worst == "" || h.State.Worse(state) || h.State == state && failing && !fails {
				worst, state, fails, here = to.Upstream, h.State, failing, true
			}
			if h.State == health.Healthy {
				fine = append(fine, to.Upstream)
			}
		}
		if here {
			well = slices.DeleteFunc(fine, func(name string) bool { return name == worst })
		}
	}
	return worst, well
}
