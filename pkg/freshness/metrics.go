package freshness

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var _ prometheus.Collector = (*Watch)(nil)

var (
	freshnessDesc = prometheus.NewDesc("wellspring_freshness_seconds", "How long the newest change of a source's canary took from the write to a stage, or how old the oldest is that is on its way there.", []string{"source", "stage"}, nil)
	behindDesc    = prometheus.NewDesc("wellspring_freshness_behind_proxies", "Proxies that have not acknowledged the newest change of a source's canary that is published.", []string{"source"}, nil)
)

// Describe implements prometheus.Collector.
func (w *Watch) Describe(to chan<- *prometheus.Desc) {
	to <- freshnessDesc
	to <- behindDesc
}

// Collect implements prometheus.Collector.
func (w *Watch) Collect(to chan<- prometheus.Metric) {
	now := time.Now()
	for name, s := range w.sources {
		is := s.status(now)
		if is == nil {
			continue
		}
		for at, seconds := range [stages]Seconds{is.Written, is.Seen, is.Published, is.Acknowledged} {
			to <- prometheus.MustNewConstMetric(freshnessDesc, prometheus.GaugeValue, float64(seconds), name, stage(at).String())
		}
		to <- prometheus.MustNewConstMetric(behindDesc, prometheus.GaugeValue, float64(is.Behind), name)
	}
}
