package certificate

import "github.com/prometheus/client_golang/prometheus"

var (
	notAfter = prometheus.NewDesc("wellspring_certificate_not_after_seconds", "When a certificate in use ends, as Unix time.", []string{"file"}, nil)
	unread   = prometheus.NewDesc("wellspring_certificate_unreadable", "1 while the files of a certificate in use cannot be read; the last good form is in use.", []string{"file"}, nil)
)

var _ prometheus.Collector = (*Store)(nil)

// Describe implements prometheus.Collector.
func (s *Store) Describe(to chan<- *prometheus.Desc) {
	to <- notAfter
	to <- unread
}

// Collect implements prometheus.Collector.
func (s *Store) Collect(to chan<- prometheus.Metric) {
	seen := map[string]bool{}
	for _, c := range s.List() { // one certificate may be used with two keys while they are replaced
		if seen[c.File] {
			continue
		}
		seen[c.File] = true
		bad := 0.0
		if c.Why != "" {
			bad = 1
		}
		to <- prometheus.MustNewConstMetric(unread, prometheus.GaugeValue, bad, c.File)
		if !c.NotAfter.IsZero() {
			to <- prometheus.MustNewConstMetric(notAfter, prometheus.GaugeValue, float64(c.NotAfter.Unix()), c.File)
		}
	}
}
