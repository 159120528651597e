package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wellspring-xds/wellspring/pkg/health"
)

// Metrics is what /v1/health says as numbers, computed when it is asked for: three
// series for each upstream, a few for each source and state.
type Metrics struct{ cfg Config }

var _ prometheus.Collector = Metrics{}

// NewMetrics returns the metrics of an API's health, to be registered.
func NewMetrics(cfg Config) Metrics { return Metrics{cfg} }

func describes(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("wellspring_"+name, help, labels, nil)
}

var (
	revisionDesc  = describes("revision", "The revision of the documents in force.")
	statesDesc    = describes("upstreams", "Upstreams by state.", "state")
	heldDesc      = describes("upstreams_held", "Upstreams that are not served in their newest form, because their service has not answered yet.")
	problemsDesc  = describes("problems", "Records and names that cannot be used.")
	endpointsDesc = describes("upstream_endpoints", "Endpoints of an upstream by the health that their source reports; none where it never said.", "upstream", "health")
	refusedDesc   = describes("refused_streams", "Streams that were refused in the last ten minutes.")
	freshDesc     = describes("source_fresh", "1 while a source answers; else what it said last is used.", "source", "datacenter")
	servicesDesc  = describes("source_services", "Services of a source that are watched.", "source", "datacenter")
	unknownDesc   = describes("source_unknown_services", "Services of a source of which it never said who is there.", "source", "datacenter")
)

// Describe implements prometheus.Collector.
func (m Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{revisionDesc, statesDesc, heldDesc, problemsDesc, endpointsDesc, refusedDesc, freshDesc, servicesDesc, unknownDesc} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m Metrics) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value int, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	states := map[health.State]int{}
	for _, u := range m.cfg.Health.Health() {
		states[u.State]++
		if u.State == health.Unknown {
			continue // nobody knows: that is not nobody
		}
		gauge(endpointsDesc, u.Counts.Healthy, u.Name, "healthy")
		gauge(endpointsDesc, u.Counts.Unhealthy, u.Name, "unhealthy")
		gauge(endpointsDesc, u.Counts.Draining, u.Name, "draining")
	}
	for _, s := range health.States {
		gauge(statesDesc, states[s], string(s))
	}
	gauge(revisionDesc, int(m.cfg.Store.State().Spec.Revision)) //nolint:gosec // far from the end
	gauge(heldDesc, len(m.cfg.Publisher.Held()))
	gauge(problemsDesc, len(m.cfg.Publisher.Problems()))
	gauge(refusedDesc, len(m.cfg.Fleet.Refused()))
	for _, s := range m.cfg.Catalog.Sources() {
		fresh := 0
		if s.IsFresh() {
			fresh = 1
		}
		gauge(freshDesc, fresh, s.Name, s.Datacenter)
		gauge(servicesDesc, s.Services, s.Name, s.Datacenter)
		gauge(unknownDesc, s.Unknown, s.Name, s.Datacenter)
	}
}
