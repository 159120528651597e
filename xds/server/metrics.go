package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// Metrics of the server. A nil *Metrics counts nothing.
type Metrics struct {
	open      prometheus.Gauge
	pushes    *prometheus.CounterVec
	resources *prometheus.CounterVec
	refusals  *prometheus.CounterVec
}

// NewMetrics registers the server's metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		open:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "wellspring_xds_streams", Help: "Streams that are open."}),
		pushes:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "wellspring_xds_responses_total", Help: "Responses sent, by type."}, []string{"type"}),
		resources: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "wellspring_xds_resources_total", Help: "Resources sent or told as removed, by type."}, []string{"type", "change"}),
		refusals:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "wellspring_xds_refusals_total", Help: "Responses that a proxy refused, by type."}, []string{"type"}),
	}
	for _, t := range delivery.Types { // so that the first one is a rise
		m.pushes.WithLabelValues(t.Short())
		m.refusals.WithLabelValues(t.Short())
		m.resources.WithLabelValues(t.Short(), "sent")
		m.resources.WithLabelValues(t.Short(), "removed")
	}
	reg.MustRegister(m.open, m.pushes, m.resources, m.refusals)
	return m
}

// Describe says which metrics there are.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	m.open.Describe(to)
	m.pushes.Describe(to)
	m.resources.Describe(to)
	m.refusals.Describe(to)
}

func (m *Metrics) streams(n int) {
	if m != nil {
		m.open.Set(float64(n))
	}
}

func (m *Metrics) push(t delivery.Type, sent, removed int) {
	if m == nil {
		return
	}
	m.pushes.WithLabelValues(t.Short()).Inc()
	m.resources.WithLabelValues(t.Short(), "sent").Add(float64(sent))
	m.resources.WithLabelValues(t.Short(), "removed").Add(float64(removed))
}

func (m *Metrics) refusal(t delivery.Type) {
	if m != nil {
		m.refusals.WithLabelValues(t.Short()).Inc()
	}
}
