package translate

import (
	"fmt"
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// severalChecks is the first minor that takes more than one check in a cluster.
const severalChecks Band = 40

func healthChecks(name string, u *spec.Upstream, band Band) []*corev3.HealthCheck {
	checks := u.HealthChecks
	if band < severalChecks && len(checks) > 1 {
		checks = checks[:1]
	}
	out := make([]*corev3.HealthCheck, 0, len(checks))
	for i, h := range checks {
		c := healthCheck(name, u, h)
		if len(checks) > 1 {
			c.Name = fmt.Sprintf("%d", i) // Envoy tells several apart by name
		}
		out = append(out, c)
	}
	return out
}

func healthCheck(name string, u *spec.Upstream, h spec.HealthCheck) *corev3.HealthCheck {
	noTraffic := h.NoTrafficInterval
	if noTraffic == 0 {
		noTraffic = h.Interval // Envoy's default of 60s makes a new upstream's check blind
	}
	c := &corev3.HealthCheck{
		Interval:                     duration(h.Interval),
		Timeout:                      duration(h.Timeout),
		UnhealthyThreshold:           u32(h.UnhealthyThreshold),
		HealthyThreshold:             u32(h.HealthyThreshold),
		IntervalJitterPercent:        h.JitterPercent,
		IntervalJitter:               optional(h.Jitter),
		InitialJitter:                optional(h.InitialJitter),
		UnhealthyInterval:            optional(h.UnhealthyInterval),
		UnhealthyEdgeInterval:        optional(h.UnhealthyEdgeInterval),
		HealthyEdgeInterval:          optional(h.HealthyEdgeInterval),
		NoTrafficInterval:            duration(noTraffic),
		NoTrafficHealthyInterval:     optional(h.NoTrafficHealthy),
		ReuseConnection:              wrapperspb.Bool(h.ReuseConnection),
		AlwaysLogHealthCheckFailures: true,
	}
	switch {
	case h.HTTP != nil:
		c.HealthChecker = &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: httpCheck(name, u, h.HTTP)}
	case h.TCP != nil:
		c.HealthChecker = &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: tcpCheck(h.TCP)}
	case h.GRPC != nil:
		g := &corev3.HealthCheck_GrpcHealthCheck{ServiceName: h.GRPC.Service, Authority: h.GRPC.Authority, InitialMetadata: headers(h.GRPC.Metadata)}
		if g.Authority == "" {
			g.Authority = name
		}
		c.HealthChecker = &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: g}
	}
	return c
}

func httpCheck(name string, u *spec.Upstream, h *spec.HTTPCheck) *corev3.HealthCheck_HttpHealthCheck {
	c := &corev3.HealthCheck_HttpHealthCheck{
		Host:                h.Host,
		Path:                h.Path,
		Method:              corev3.RequestMethod(corev3.RequestMethod_value[h.Method]),
		RequestHeadersToAdd: headers(h.Headers),
		ExpectedStatuses:    statusRanges(h.Expected),
		RetriableStatuses:   statusRanges(h.Retriable),
	}
	if c.Host == "" {
		c.Host = name // Envoy would send the cluster's name anyway; it is said, since servers route by it
	}
	if u.SpeaksHTTP2() {
		c.CodecClientType = typev3.CodecClientType_HTTP2
	}
	return c
}

// statusRanges turns "200-299" into Envoy's half-open range.
func statusRanges(in []string) []*typev3.Int64Range {
	var out []*typev3.Int64Range
	for _, s := range in {
		if first, last, err := spec.StatusRange(s); err == nil {
			out = append(out, &typev3.Int64Range{Start: first, End: last + 1})
		}
	}
	return out
}

func tcpCheck(t *spec.TCPCheck) *corev3.HealthCheck_TcpHealthCheck {
	payload := func(s string) *corev3.HealthCheck_Payload {
		return &corev3.HealthCheck_Payload{Payload: &corev3.HealthCheck_Payload_Text{Text: s}}
	}
	c := &corev3.HealthCheck_TcpHealthCheck{}
	if t.Send != "" {
		c.Send = payload(t.Send)
	}
	for _, r := range t.Receive {
		c.Receive = append(c.Receive, payload(r))
	}
	return c
}

func headers(m map[string]string) []*corev3.HeaderValueOption {
	var out []*corev3.HeaderValueOption
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: k, Value: literal(m[k])},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD, KeepEmptyValue: m[k] == "",
		})
	}
	return out
}
