package findings

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

var findingsDesc = prometheus.NewDesc("wellspring_findings", "Causes that are found now, by upstream (empty where it is of none), code and severity.", []string{"upstream", "code", "severity"}, nil)

// Describe implements prometheus.Collector.
func (w *Watch) Describe(to chan<- *prometheus.Desc) { to <- findingsDesc }

// Collect implements prometheus.Collector: one series for each cause of an upstream.
func (w *Watch) Collect(to chan<- prometheus.Metric) {
	count := map[[3]string]int{}
	for _, f := range w.List(false) {
		name := f.Subject.Name
		if f.Subject.Kind != string(spec.KindUpstream) {
			name = ""
		}
		count[[3]string{name, string(f.Code), string(f.Severity)}]++
	}
	for by, n := range count {
		to <- prometheus.MustNewConstMetric(findingsDesc, prometheus.GaugeValue, float64(n), by[:]...)
	}
}
