package translate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// defaultTimeout of a rule, retries included; none where an upstream speaks gRPC.
const defaultTimeout = spec.Duration(15e9)

// RouteTable is all routes of one listener, named like the listener; each Route
// document is a virtual host. The error is a PatchError, or names the Route that
// has one.
func RouteTable(listener string, l *spec.Listener, s *spec.Spec, band Band) (*routev3.RouteConfiguration, error) {
	if band == GRPC {
		return grpcRouteTable(listener, l, s), nil
	}
	t := &routev3.RouteConfiguration{Name: listener, IgnorePortInHostMatching: true}
	longest := 0
	for _, name := range l.Routes {
		if r, ok := s.Route(name); ok {
			vh, _, err := virtualHost(name, r, s)
			if err != nil {
				return nil, fmt.Errorf("virtual host %s: %w", name, err)
			}
			t.VirtualHosts = append(t.VirtualHosts, vh)
			for _, rt := range vh.Routes {
				body := rt.GetDirectResponse().GetBody()
				longest = max(longest, len(body.GetInlineString()), len(body.GetInlineBytes()))
			}
		}
	}
	if l.AutoRoutes != nil {
		for _, name := range s.AutoRouted(l) {
			t.VirtualHosts = append(t.VirtualHosts, autoHost(name, l.AutoRoutes.Domain, s))
		}
	}
	if longest > defaultBody {
		t.MaxDirectResponseBodySizeBytes = u32(uint32(longest))
	}
	_, err := patch(t, l.EnvoyRoutes, "spec.envoyRoutes", "name", "virtual_hosts", "vhds")
	return t, err
}

// Clusters lists the clusters that a route table names, sorted.
func Clusters(t *routev3.RouteConfiguration) []string {
	seen := map[string]bool{}
	for _, vh := range t.VirtualHosts {
		for _, r := range vh.Routes {
			a := r.GetRoute()
			if c := a.GetCluster(); c != "" {
				seen[c] = true
			}
			for _, w := range a.GetWeightedClusters().GetClusters() {
				seen[w.Name] = true
			}
		}
	}
	out := make([]string, 0, len(seen))
	for c := range seen {
		out = append(out, c)
	}
	slices.Sort(out)
	return out
}

// virtualHost tells besides what `envoy:` overrides, by the document's fields.
func virtualHost(name string, r *spec.Route, s *spec.Spec) (*routev3.VirtualHost, map[string][]string, error) {
	vh := &routev3.VirtualHost{Name: name, Domains: r.Hosts}
	over := map[string][]string{}
	for i, rule := range r.Rules {
		rt := route(rule, s)
		rt.Name = fmt.Sprintf("%s[%d]", name, i) // the access log says which rule it was
		field := fmt.Sprintf("spec.rules[%d].envoy", i)
		var err error
		if over[field], err = patchRoute(rt, rule.Envoy, field); err != nil {
			return nil, nil, err
		}
		vh.Routes = append(vh.Routes, rt)
	}
	var err error
	over["spec.envoy"], err = patch(vh, r.Envoy, "spec.envoy", "name", "domains", "routes", "matcher")
	return vh, over, err
}

// autoRule leads to one upstream, with every default.
func autoRule(upstream string) spec.Rule {
	rule := spec.Rule{To: []spec.Destination{{Upstream: upstream, Weight: 1}}}
	spec.SetDefaults(&rule)
	return rule
}

// autoHost is the host of one upstream, with every default of a rule.
func autoHost(upstream, domain string, s *spec.Spec) *routev3.VirtualHost {
	rt := route(autoRule(upstream), s)
	rt.Name = upstream + "[auto]"
	return &routev3.VirtualHost{Name: upstream, Domains: []string{upstream + "." + domain}, Routes: []*routev3.Route{rt}}
}

// leadingTo are the fields by which a route leads to clusters: which are sent, and
// when, follows from the document.
var leadingTo = []string{"cluster", "weighted_clusters", "cluster_header", "cluster_specifier_plugin", "inline_cluster_specifier_plugin"}

func patchRoute(r *routev3.Route, p spec.Passthrough, field string) ([]string, error) {
	leads := func() []string {
		return Clusters(&routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{{Routes: []*routev3.Route{r}}}})
	}
	before := leads()
	over, err := patch(r, p, field, "name")
	if err != nil {
		return nil, err
	}
	if p != "" && (!slices.Equal(before, leads()) || r.GetRoute().GetClusterHeader() != "" || r.GetRoute().GetClusterSpecifierPlugin() != "" || r.GetRoute().GetInlineClusterSpecifierPlugin() != nil) {
		return nil, &PatchError{field, "route", fmt.Errorf("leads to other clusters than the document; which are sent follows from `to`, so that %s cannot be set here", strings.Join(leadingTo, ", "))}
	}
	return over, nil
}

// defaultBody is the longest direct response that Envoy takes unasked.
const defaultBody = 4096

func route(rule spec.Rule, s *spec.Spec) *routev3.Route {
	r := &routev3.Route{Match: match(rule.Match)}
	r.RequestHeadersToAdd, r.RequestHeadersToRemove = edits(rule.Request)
	r.ResponseHeadersToAdd, r.ResponseHeadersToRemove = edits(rule.Response)
	switch {
	case rule.Redirect != nil:
		r.Action = &routev3.Route_Redirect{Redirect: redirect(rule)}
	case rule.Respond != nil:
		r.Action = &routev3.Route_DirectResponse{DirectResponse: directResponse(rule.Respond)}
	default:
		r.Action = &routev3.Route_Route{Route: forward(rule, s)}
	}
	return r
}

// forward leads to upstreams.
func forward(rule spec.Rule, s *spec.Spec) *routev3.RouteAction {
	a := &routev3.RouteAction{
		Timeout:     duration(timeout(rule, s)),
		RetryPolicy: retryPolicy(rule.Retry),
		HashPolicy:  hashPolicy(rule.HashOn),
	}
	if rule.IdleTimeout != nil {
		a.IdleTimeout = duration(*rule.IdleTimeout)
	}
	if len(rule.To) == 1 {
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: rule.To[0].Upstream}
	} else {
		w := &routev3.WeightedCluster{}
		for _, to := range rule.To {
			w.Clusters = append(w.Clusters, &routev3.WeightedCluster_ClusterWeight{Name: to.Upstream, Weight: u32(to.Weight)})
		}
		a.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: w}
	}
	for _, u := range rule.Upgrades {
		a.UpgradeConfigs = append(a.UpgradeConfigs, &routev3.RouteAction_UpgradeConfig{UpgradeType: u})
	}
	rewrite(a, rule)
	return a
}

func timeout(rule spec.Rule, s *spec.Spec) spec.Duration {
	if rule.Timeout != nil {
		return *rule.Timeout
	}
	if len(rule.Upgrades) > 0 {
		return 0 // an upgraded connection lasts as long as it is used
	}
	for _, to := range rule.To {
		if u, ok := s.Upstream(to.Upstream); ok && u.Protocol == "grpc" {
			return 0
		}
	}
	return defaultTimeout
}

func match(m spec.Match) *routev3.RouteMatch {
	out := &routev3.RouteMatch{}
	switch p := m.Path; {
	case p.Exact != "":
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: p.Exact}
	case p.Regex != "":
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: p.Regex}}
	case p.Prefix == "" || strings.HasSuffix(p.Prefix, "/"):
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: max(p.Prefix, "/")}
	default:
		out.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: p.Prefix}
	}
	for _, h := range m.Headers {
		out.Headers = append(out.Headers, headerMatch(h))
	}
	if len(m.Methods) > 0 {
		quoted := make([]string, len(m.Methods))
		for i, x := range m.Methods {
			quoted[i] = regexp.QuoteMeta(x)
		}
		out.Headers = append(out.Headers, &routev3.HeaderMatcher{Name: ":method", HeaderMatchSpecifier: stringMatch(
			&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: strings.Join(quoted, "|")}}})})
	}
	return out
}

func stringMatch(m *matcherv3.StringMatcher) *routev3.HeaderMatcher_StringMatch {
	return &routev3.HeaderMatcher_StringMatch{StringMatch: m}
}

func headerMatch(h spec.HeaderMatch) *routev3.HeaderMatcher {
	// A header that is not there differs from every value: turned around it matches.
	m := &routev3.HeaderMatcher{Name: h.Name, InvertMatch: h.Invert, TreatMissingHeaderAsEmpty: h.Invert && h.Present == nil}
	switch {
	case h.Exact != nil:
		m.HeaderMatchSpecifier = stringMatch(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: *h.Exact}})
	case h.Prefix != "":
		m.HeaderMatchSpecifier = stringMatch(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: h.Prefix}})
	case h.Suffix != "":
		m.HeaderMatchSpecifier = stringMatch(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: h.Suffix}})
	case h.Contains != "":
		m.HeaderMatchSpecifier = stringMatch(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Contains{Contains: h.Contains}})
	case h.Regex != "":
		m.HeaderMatchSpecifier = stringMatch(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: h.Regex}}})
	case h.Present != nil:
		m.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: *h.Present}
	}
	return m
}

// retryOn is Envoy's word for each of ours.
var retryOn = map[string]string{
	"connectFailure": "connect-failure", "refusedStream": "refused-stream", "reset": "reset",
	"resetBeforeRequest": "reset-before-request", "5xx": "5xx", "gatewayError": "gateway-error",
	"retriable4xx": "retriable-4xx", "retriableStatuses": "retriable-status-codes", "cancelled": "cancelled",
	"deadlineExceeded": "deadline-exceeded", "internal": "internal", "resourceExhausted": "resource-exhausted",
	"unavailable": "unavailable",
}

// retryPolicy tries another endpoint: the one that failed is avoided for up to
// three picks.
func retryPolicy(r spec.Retry) *routev3.RetryPolicy {
	if r.Attempts <= 1 {
		return nil
	}
	on := r.On
	if len(on) == 0 {
		on = spec.DefaultRetryOn
	}
	words := make([]string, len(on))
	for i, o := range on {
		words[i] = retryOn[o]
	}
	p := &routev3.RetryPolicy{
		RetryOn:              strings.Join(words, ","),
		NumRetries:           u32(r.Attempts - 1),
		RetriableStatusCodes: r.Statuses,
		RetryBackOff:         &routev3.RetryPolicy_RetryBackOff{BaseInterval: duration(r.Backoff.Base), MaxInterval: duration(r.Backoff.Max)},
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: packed(&previoushostsv3.PreviousHostsPredicate{})},
		}},
		HostSelectionRetryMaxAttempts: 3,
	}
	if r.PerTryTimeout != nil {
		p.PerTryTimeout = duration(*r.PerTryTimeout)
	}
	return p
}

func hashPolicy(in []spec.HashOn) []*routev3.RouteAction_HashPolicy {
	var out []*routev3.RouteAction_HashPolicy
	for _, h := range in {
		p := &routev3.RouteAction_HashPolicy{Terminal: true}
		switch {
		case h.Header != "":
			p.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: h.Header}}
		case h.Cookie != nil:
			c := &routev3.RouteAction_HashPolicy_Cookie{Name: h.Cookie.Name, Path: h.Cookie.Path}
			if h.Cookie.TTL != nil {
				c.Ttl = durationpb.New(h.Cookie.TTL.D())
			}
			p.PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{Cookie: c}
		default:
			p.PolicySpecifier = &routev3.RouteAction_HashPolicy_ConnectionProperties_{
				ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
			}
		}
		out = append(out, p)
	}
	return out
}
