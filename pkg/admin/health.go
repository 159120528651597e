package admin

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/envoyadmin"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/freshness"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Overview is the whole at a glance.
type Overview struct {
	// State is the worst upstream's.
	State     health.State      `json:"state"`
	Revision  uint64            `json:"revision"`
	Upstreams []health.Upstream `json:"upstreams" doc:"worst first"`
	Sources   []Source          `json:"sources"`
	Proxies   ProxyCounts       `json:"proxies"`
	Problems  []model.Problem   `json:"problems"`
	// Certificates are those that end soon, ended, or cannot be read.
	Certificates []model.Certificate `json:"certificates"`
	// Reports is how proxies report what they see.
	Reports ReportCounts `json:"reports"`
	// Held are upstreams that are not served in their newest form.
	Held []HeldUpstream `json:"held"`
}

// Source is where services come from, and how fresh what the proxies have of it is.
type Source struct {
	discovery.SourceStatus
	// Freshness is by its canary; nil where it has none.
	Freshness *freshness.Status `json:"freshness,omitempty"`
}

// IsFine tells whether the source answers, and what it says reaches the proxies.
func (s Source) IsFine() bool { return s.IsFresh() && (s.Freshness == nil || !s.Freshness.Stale) }

// ProxyCounts of the fleet.
type ProxyCounts struct {
	Connected int `json:"connected"`
	// Current have acknowledged all that they were sent.
	Current int `json:"current"`
	Refused int `json:"refused" doc:"streams refused in the last ten minutes"`
	Parked  int `json:"parked" doc:"resources that proxies refused"`
}

// ReportCounts are the connected proxies by how they report.
type ReportCounts struct {
	Verified   int `json:"verified" doc:"report, and it counts"`
	Asked      int `json:"asked" doc:"do not report; their admins are asked from time to time"`
	Silent     int `json:"silent" doc:"reported, and do not any more"`
	Due        int `json:"due" doc:"connected just now"`
	Never      int `json:"never" doc:"should report, and never did"`
	Unverified int `json:"unverified" doc:"report without a credential of their own, which proves nothing"`
	Off        int `json:"off" doc:"are not asked to"`
	Refused    int `json:"refused" doc:"reports that were another node's, in the last ten minutes"`
	// NewBootstrap is how many report less than their group asks for.
	NewBootstrap int      `json:"newBootstrap" doc:"report less than their groups ask for; a new bootstrap carries more"`
	Some         []string `json:"some" doc:"the first of those that do not report as they should"`
}

// HeldUpstream is declared and not served in its newest form.
type HeldUpstream struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// UpstreamHealth is one upstream with every endpoint.
type UpstreamHealth struct {
	health.Upstream
	Problems  []model.Problem  `json:"problems"`
	Endpoints []EndpointHealth `json:"endpoints"`
	// Proxies are those that have the upstream and were asked for the reasons of what they
	// see (50 at most), and whether they answered.
	Proxies []AskedProxy `json:"proxies"`
	// Views are what proxies report.
	Views []fleet.View `json:"views"`
	// Matrix holds what the source says of each endpoint against what proxies say.
	Matrix []health.Row `json:"matrix"`
}

// EndpointHealth is one endpoint as its source and each asked proxy see it.
type EndpointHealth struct {
	model.Endpoint
	Proxies []AskedEndpoint `json:"proxies"`
}

// AskedEndpoint is what one proxy holds of an endpoint.
type AskedEndpoint struct {
	Proxy  string   `json:"proxy"`
	Usable bool     `json:"usable"`
	Flags  []string `json:"flags,omitempty"`
}

// AskedProxy says whether a proxy was asked.
type AskedProxy struct {
	Proxy string `json:"proxy"`
	Asked bool   `json:"asked"`
	// Why it was not asked, or did not answer.
	Why string `json:"why,omitempty"`
	// Extra are hosts that it holds and the source does not list.
	Extra []string `json:"extra,omitempty"`
}

type (
	overviewOut       struct{ Body Overview }
	upstreamHealthOut struct{ Body UpstreamHealth }
	certificatesOut   struct {
		Body struct {
			Items []model.Certificate `json:"items"`
		}
	}
	sourcesOut struct {
		Body struct {
			Items []Source `json:"items"`
		}
	}
)

func (s *server) health(api huma.API) {
	huma.Register(api, operation("health", http.MethodGet, "/v1/health", "The whole at a glance"), s.overview)
	huma.Register(api, operation("upstream-health", http.MethodGet, "/v1/upstreams/{name}/health", "Every endpoint of an upstream", 404), s.upstreamHealth)
	huma.Register(api, operation("list-certificates", http.MethodGet, "/v1/certificates", "Certificates in use, the one that ends first before the others"),
		func(context.Context, *struct{}) (*certificatesOut, error) {
			out := &certificatesOut{}
			out.Body.Items = append([]model.Certificate{}, s.Certificates()...)
			return out, nil
		})
	huma.Register(api, operation("list-sources", http.MethodGet, "/v1/sources", "Where services come from"),
		func(context.Context, *struct{}) (*sourcesOut, error) {
			out := &sourcesOut{}
			out.Body.Items = s.sources()
			return out, nil
		})
}

func (s *server) sources() []Source {
	out := []Source{}
	for _, x := range s.Catalog.Sources() {
		is := Source{SourceStatus: x}
		if x.Datacenter == "" && s.Freshness != nil {
			is.Freshness = s.Freshness(x.Name)
		}
		out = append(out, is)
	}
	return out
}

func (s *server) overview(ctx context.Context, _ *struct{}) (*overviewOut, error) {
	o := Overview{
		State: health.Healthy, Revision: s.Store.State().Spec.Revision, Upstreams: s.Health.Health(), Sources: s.sources(),
		Problems: s.Publisher.Problems(), Held: []HeldUpstream{}, Certificates: []model.Certificate{},
	}
	for _, c := range s.Certificates() {
		if c.State != model.CertificateValid || c.Why != "" {
			o.Certificates = append(o.Certificates, c)
		}
	}
	for _, u := range o.Upstreams {
		if u.State.Worse(o.State) {
			o.State = u.State
		}
	}
	slices.SortStableFunc(o.Upstreams, func(a, b health.Upstream) int {
		switch {
		case a.State.Worse(b.State):
			return -1
		case b.State.Worse(a.State):
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	for name, never := range s.Publisher.Held() {
		why := "its service has not answered yet; the form before it is served"
		if never {
			why = "its service has not answered yet; it is not served (503 NC)"
		}
		o.Held = append(o.Held, HeldUpstream{name, why})
	}
	slices.SortFunc(o.Held, func(a, b HeldUpstream) int { return strings.Compare(a.Name, b.Name) })
	for _, st := range s.Fleet.Streams(ctx) {
		o.Proxies.Connected++
		current := true
		for _, d := range st.Delivery {
			current = current && d.Open == 0 && len(d.Waiting) == 0 && len(d.Parked) == 0
			o.Proxies.Parked += len(d.Parked)
		}
		if current {
			o.Proxies.Current++
		}
	}
	o.Proxies.Refused = len(s.Fleet.Refused())
	o.Reports = s.reports()
	if o.Problems == nil {
		o.Problems = []model.Problem{}
	}
	if o.Upstreams == nil {
		o.Upstreams = []health.Upstream{}
	}
	return &overviewOut{o}, nil
}

func (s *server) upstreamHealth(ctx context.Context, in *nameIn) (*upstreamHealthOut, error) {
	sp := s.withImports()
	u, ok := sp.Upstream(in.Name)
	if !ok {
		return nil, failed(s.notFound(spec.Ref{Kind: spec.KindUpstream, Name: in.Name}))
	}
	out := UpstreamHealth{Problems: []model.Problem{}, Endpoints: []EndpointHealth{}, Proxies: []AskedProxy{}, Views: s.Seen.Views(in.Name, true)}
	entry := s.Catalog.Entry(u.Key(in.Name))
	eps, problems, _ := s.Publisher.Endpoints(in.Name)
	out.Problems = append(out.Problems, problems...)
	if entry.Service != nil {
		out.Problems = append(out.Problems, entry.Service.Problems...)
	}
	at := map[string]int{}
	for i, e := range eps {
		at[e.Address] = i
		out.Endpoints = append(out.Endpoints, EndpointHealth{Endpoint: e, Proxies: []AskedEndpoint{}})
	}
	if u.Hostnames() { // reports have addresses, and no names: only answers tell which is which
		for i := range out.Views {
			out.Views[i].Endpoints = nil
		}
	}
	for _, v := range s.askProxies(ctx, sp, in.Name) {
		view := AskedProxy{Proxy: v.proxy.ID, Asked: v.err == nil}
		if v.err != nil {
			view.Why = v.err.Error()
		}
		var found []fleet.EndpointView
		for _, h := range v.hosts {
			i, known := at[h.Address]
			if !known && u.Hostnames() { // it resolved a name, to one address or several
				i, known = at[h.Name]
			}
			if !known {
				view.Extra = append(view.Extra, h.Address)
				found = append(found, fleet.EndpointView{Address: h.Address, Healthy: h.Usable})
				continue
			}
			out.Endpoints[i].Proxies = append(out.Endpoints[i].Proxies, AskedEndpoint{Proxy: v.proxy.ID, Usable: h.Usable, Flags: h.Flags})
			found = append(found, fleet.EndpointView{Address: eps[i].Address, Healthy: h.Usable})
		}
		out.Proxies = append(out.Proxies, view)
		if v.err == nil {
			out.Views = told(out.Views, v.proxy, v.hosts, found)
		}
	}
	if h, ok := s.Health.HealthBy(in.Name, out.Views); ok {
		out.Upstream = h
	}
	out.Matrix = health.Matrix(u.Key(in.Name).Source, eps, out.Views, time.Now())
	return &upstreamHealthOut{out}, nil
}

// told adds what a proxy answered to what it reports: all, where it reports nothing;
// its endpoints, where it reports none.
func told(views []fleet.View, p model.Proxy, hosts []envoyadmin.Host, endpoints []fleet.EndpointView) []fleet.View {
	i := slices.IndexFunc(views, func(v fleet.View) bool { return v.Proxy == p.ID })
	switch {
	case i < 0:
		now := time.Now()
		v := fleet.View{Proxy: p.ID, Group: p.Group, Zone: p.Locality.Zone, At: now, Since: now, Members: len(hosts), Endpoints: endpoints}
		v.Healthy, v.Degraded, v.Excluded = envoyadmin.Count(hosts)
		return append(views, v)
	case len(views[i].Endpoints) == 0:
		views[i].Endpoints = endpoints
	}
	return views
}

// asked is one proxy's answer.
type asked struct {
	proxy model.Proxy
	hosts []envoyadmin.Host
	err   error
}

const (
	maxAsked     = 50 // proxies for one question
	askAtOnce    = 10
	askAltogther = 3 * time.Second
)

// askProxies asks the admins of the proxies that have an upstream, in parallel.
func (s *server) askProxies(ctx context.Context, sp *spec.Spec, upstream string) []asked {
	ctx, cancel := context.WithTimeout(ctx, askAltogther)
	defer cancel()
	var out []asked
	var who []model.Proxy
	for _, st := range s.Fleet.Streams(ctx) {
		if slices.Contains(sp.Upstreams(st.Group), upstream) && len(who) < maxAsked {
			who = append(who, st.Proxy)
		}
	}
	out = make([]asked, len(who))
	slots := make(chan struct{}, askAtOnce)
	var wg sync.WaitGroup
	for i, p := range who {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			out[i].proxy = p
			c, err := s.Admins.Client(p)
			if err != nil {
				out[i].err = err
				return
			}
			out[i].hosts, out[i].err = c.Clusters(ctx, upstream)
		})
	}
	wg.Wait()
	return out
}
