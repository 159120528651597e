package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wellspring-xds/wellspring/pkg/health"
)

// Metrics is what /v1/health says as numbers, computed when it is asked for: nine
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
	spareDesc     = describes("upstream_spare", "How many more endpoints may fail before a proxy panics or answers 503 UH.", "upstream")
	panicsDesc    = describes("upstream_panicking_proxies", "Proxies that send requests to whoever, healthy or not.", "upstream")
	unservedDesc  = describes("upstream_unserved_proxies", "Proxies that have no endpoint which they would use, and answer 503 UH.", "upstream")
	requestsDesc  = describes("upstream_requests_total", "Requests that proxies report; of TCP, connections.", "upstream")
	failedDesc    = describes("upstream_failed_requests_total", "Requests that ended with one of Envoy's failure flags.", "upstream")
	noneDesc      = describes("upstream_none_healthy_requests_total", "Requests that met no endpoint: 503 UH.", "upstream")
	reportsDesc   = describes("proxy_reports", "Connected proxies by how they report what they see.", "state")
	oldDesc       = describes("proxies_need_bootstrap", "Connected proxies that report less than their group asks for; a new bootstrap carries more.")
	refusedDesc   = describes("refused_streams", "Streams that were refused in the last ten minutes.")
	freshDesc     = describes("source_fresh", "1 while a source answers; else what it said last is used.", "source", "datacenter")
	servicesDesc  = describes("source_services", "Services of a source that are watched.", "source", "datacenter")
	unknownDesc   = describes("source_unknown_services", "Services of a source of which it never said who is there.", "source", "datacenter")
)

// Describe implements prometheus.Collector.
func (m Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{revisionDesc, statesDesc, heldDesc, problemsDesc, endpointsDesc, spareDesc, panicsDesc, unservedDesc, requestsDesc, failedDesc, noneDesc, reportsDesc, oldDesc, refusedDesc, freshDesc, servicesDesc, unknownDesc} {
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
		m.seen(to, u)
		if u.State == health.Unknown {
			continue // nobody knows: that is not nobody
		}
		gauge(endpointsDesc, u.Counts.Healthy, u.Name, "healthy")
		gauge(endpointsDesc, u.Counts.Unhealthy, u.Name, "unhealthy")
		gauge(endpointsDesc, u.Counts.Draining, u.Name, "draining")
	}
	reports := (&server{Config: m.cfg}).reports()
	for state, n := range reports.byState() {
		gauge(reportsDesc, *n, state)
	}
	gauge(oldDesc, reports.NewBootstrap)
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

// seen are the numbers of an upstream that proxies report.
func (m Metrics) seen(to chan<- prometheus.Metric, u health.Upstream) {
	all := m.cfg.Seen.All(u.Name)
	count := func(d *prometheus.Desc, n uint64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), u.Name)
	}
	count(requestsDesc, all.Requests)
	count(failedDesc, all.Failed)
	count(noneDesc, all.NoneHealthy)
	gauge := func(d *prometheus.Desc, n int) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), u.Name)
	}
	gauge(spareDesc, u.Spare)
	panicking, unserved := 0, 0
	if s := u.Seen; s != nil {
		panicking, unserved = s.Panicking.Proxies(), s.Dead.Proxies()+s.Nobody.Proxies()
	}
	gauge(panicsDesc, panicking)
	gauge(unservedDesc, unserved)
}
