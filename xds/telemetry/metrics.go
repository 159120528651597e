package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/wellspring-xds/wellspring/pkg/fleet"
)

// Why a report, or a failed request, was dropped.
const (
	droppedStranger   = "certificate" // it came without one
	droppedRefused    = "refused"     // it was another node's
	droppedUnverified = "unverified"
	droppedProxy      = "proxy" // its proxy sends too much
	droppedRate       = "rate"  // all together send too much
	droppedBusy       = "busy"  // no turn came in time
	droppedSize       = "size"
	droppedMalformed  = "malformed"
	droppedUnwanted   = "unwanted" // its group asks for nothing, or another process of the name reports
)

// counts are what a server counts, and the registry that they are in.
type counts struct {
	*prometheus.Registry
	reports, points, bytes, failures prometheus.Counter
	dropped                          *prometheus.CounterVec
}

func newCounts(f *fleet.Fleet) *counts {
	registry := prometheus.NewRegistry()
	in := promauto.With(registry)
	c := &counts{
		Registry: registry,
		reports:  in.NewCounter(prometheus.CounterOpts{Name: "wellspring_telemetry_reports_total", Help: "Reports of proxies that were read."}),
		points:   in.NewCounter(prometheus.CounterOpts{Name: "wellspring_telemetry_points_total", Help: "Points in them that were looked at."}),
		bytes:    in.NewCounter(prometheus.CounterOpts{Name: "wellspring_telemetry_bytes_total", Help: "Their bytes, uncompressed."}),
		failures: in.NewCounter(prometheus.CounterOpts{Name: "wellspring_telemetry_failures_total", Help: "Failed requests that proxies told one by one."}),
		dropped:  in.NewCounterVec(prometheus.CounterOpts{Name: "wellspring_telemetry_dropped_total", Help: "Reports and failed requests that were dropped, by the limit that they met."}, []string{"limit"}),
	}
	for _, limit := range []string{
		droppedStranger, droppedRefused, droppedUnverified, droppedProxy, droppedRate, droppedBusy, droppedSize, droppedMalformed, droppedUnwanted,
	} {
		c.dropped.WithLabelValues(limit) // so that the first one is a rise
	}
	for _, limit := range []string{fleet.DroppedProxies, fleet.DroppedUpstreams, fleet.DroppedEndpoints, fleet.DroppedCauses, fleet.DroppedTexts} {
		in.NewCounterFunc(prometheus.CounterOpts{
			Name: "wellspring_fleet_dropped_total", Help: "What was not kept of reports, by the limit that it met.", ConstLabels: prometheus.Labels{"limit": limit},
		}, func() float64 { return float64(f.Dropped(limit)) })
	}
	return c
}

// Metrics are what the server counts, to be registered.
func (s *Server) Metrics() prometheus.Collector { return s.metrics }

func (c *counts) drop(limit string) { c.dropped.WithLabelValues(limit).Inc() }

func (c *counts) report(points, bytes int) {
	c.reports.Inc()
	c.points.Add(float64(points))
	c.bytes.Add(float64(bytes))
}
