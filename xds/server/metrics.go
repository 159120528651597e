package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// metrics are what a server counts.
type metrics struct {
	streams   prometheus.Gauge
	waiting   prometheus.Gauge
	admitted  prometheus.Counter
	stalled   prometheus.Counter
	coalesced prometheus.Counter
	types     map[delivery.Type]*typeMetrics
	all       []prometheus.Collector
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
	m := &metrics{types: map[delivery.Type]*typeMetrics{}}
	keep := func(c prometheus.Collector) { m.all = append(m.all, c) }
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		keep(g)
		return g
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		keep(c)
		return c
	}
	counter := func(name, help string) prometheus.Counter { return counters(name, help).WithLabelValues() }

	m.streams = gauge("wellspring_xds_streams", "Streams that are open.")
	m.waiting = gauge("wellspring_xds_streams_waiting", "Streams that wait to be admitted.")
	m.admitted = counter("wellspring_xds_admitted_total", "Streams that were admitted.")
	m.stalled = counter("wellspring_xds_stalled_total", "Streams that were cut off since nothing was read.")
	m.coalesced = counter("wellspring_xds_coalesced_total", "Changes that a stream was spared since a newer one took their place.")
	keep(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "wellspring_xds_changes_total", Help: "Changes of what a class of proxies is served."},
		func() float64 { return float64(e.Changes()) }))
	keep(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "wellspring_xds_parked", Help: "Resources that connected proxies refused, each proxy counted."},
		func() float64 { return float64(e.Parked()) }))

	responses := counters("wellspring_xds_responses_total", "Responses sent, by type.", "type")
	bytes := counters("wellspring_xds_response_bytes_total", "Bytes of the responses sent, by type.", "type")
	large := counters("wellspring_xds_large_responses_total", "Responses of more than 4 MiB, by type.", "type")
	resources := counters("wellspring_xds_resources_total", "Resources sent or told as removed, by type.", "type", "change")
	refusals := counters("wellspring_xds_refusals_total", "Responses that a proxy refused, by type.", "type")
	acks := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "wellspring_xds_ack_seconds", Help: "From a response to its answer, by type.", Buckets: ackBuckets}, []string{"type"})
	keep(acks)
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

// Describe and Collect are the server's metrics.
func (s *Server) Describe(to chan<- *prometheus.Desc) {
	for _, c := range s.metrics.all {
		c.Describe(to)
	}
}

// Collect is prometheus.Collector's.
func (s *Server) Collect(to chan<- prometheus.Metric) {
	for _, c := range s.metrics.all {
		c.Collect(to)
	}
}

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
