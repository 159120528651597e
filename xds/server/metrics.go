package server

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// metrics are what a server counts, and the registry that they are in.
type metrics struct {
	*prometheus.Registry
	streams   prometheus.Gauge
	waiting   prometheus.Gauge
	admitted  prometheus.Counter
	stalled   prometheus.Counter
	coalesced prometheus.Counter
	types     map[delivery.Type]*typeMetrics
}

// typeMetrics are those of a type, found once.
type typeMetrics struct {
	responses, bytes, large prometheus.Counter
	sent, removed           prometheus.Counter
	refused                 prometheus.Counter
	answered                prometheus.Observer
}

// ackBuckets are seconds from a response to its answer.
var ackBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

func newMetrics(e *delivery.Engine) *metrics {
	registry := prometheus.NewRegistry()
	in := promauto.With(registry)
	m := &metrics{
		Registry:  registry,
		streams:   in.NewGauge(prometheus.GaugeOpts{Name: "wellspring_xds_streams", Help: "Streams that are open."}),
		waiting:   in.NewGauge(prometheus.GaugeOpts{Name: "wellspring_xds_streams_waiting", Help: "Streams that wait to be admitted."}),
		admitted:  in.NewCounter(prometheus.CounterOpts{Name: "wellspring_xds_admitted_total", Help: "Streams that were admitted."}),
		stalled:   in.NewCounter(prometheus.CounterOpts{Name: "wellspring_xds_stalled_total", Help: "Streams that were cut off since nothing was read."}),
		coalesced: in.NewCounter(prometheus.CounterOpts{Name: "wellspring_xds_coalesced_total", Help: "Changes that a stream was spared since a newer one took their place."}),
		types:     map[delivery.Type]*typeMetrics{},
	}
	in.NewCounterFunc(prometheus.CounterOpts{Name: "wellspring_xds_changes_total", Help: "Changes of what a class of proxies is served."},
		func() float64 { return float64(e.Changes()) })
	in.NewGaugeFunc(prometheus.GaugeOpts{Name: "wellspring_xds_parked", Help: "Resources that connected proxies refused, each proxy counted."},
		func() float64 { return float64(e.Parked()) })

	byType := []string{"type"}
	responses := in.NewCounterVec(prometheus.CounterOpts{Name: "wellspring_xds_responses_total", Help: "Responses sent, by type."}, byType)
	bytes := in.NewCounterVec(prometheus.CounterOpts{Name: "wellspring_xds_response_bytes_total", Help: "Bytes of the responses sent, by type."}, byType)
	large := in.NewCounterVec(prometheus.CounterOpts{Name: "wellspring_xds_large_responses_total", Help: "Responses of more than 4 MiB, by type."}, byType)
	resources := in.NewCounterVec(prometheus.CounterOpts{Name: "wellspring_xds_resources_total", Help: "Resources sent or told as removed, by type."}, []string{"type", "change"})
	refusals := in.NewCounterVec(prometheus.CounterOpts{Name: "wellspring_xds_refusals_total", Help: "Responses that a proxy refused, by type."}, byType)
	acks := in.NewHistogramVec(prometheus.HistogramOpts{Name: "wellspring_xds_ack_seconds", Help: "From a response to its answer, by type.", Buckets: ackBuckets}, byType)
	for _, t := range delivery.Types { // so that the first one is a rise
		short := t.Short()
		m.types[t] = &typeMetrics{
			responses: responses.WithLabelValues(short), bytes: bytes.WithLabelValues(short), large: large.WithLabelValues(short),
			sent: resources.WithLabelValues(short, "sent"), removed: resources.WithLabelValues(short, "removed"),
			refused: refusals.WithLabelValues(short), answered: acks.WithLabelValues(short),
		}
	}
	return m
}

// Metrics are what the server counts, to be registered.
func (s *Server) Metrics() prometheus.Collector { return s.metrics }

// push counts a response.
func (m *metrics) push(r delivery.Response, bytes int) {
	t := m.types[r.Type]
	t.responses.Inc()
	t.bytes.Add(float64(bytes))
	t.sent.Add(float64(len(r.Resources)))
	t.removed.Add(float64(len(r.Removed)))
	if bytes > largeResponse {
		t.large.Inc()
	}
}
