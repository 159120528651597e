package fleet

import "github.com/wellspring-xds/wellspring/pkg/model"

// Metric is what a point of a report is about.
type Metric uint8

// What a proxy says of an upstream as it is: Envoy's gauges of a cluster.
const (
	Members  Metric = iota // endpoints that it has
	Healthy                // that its balancer would use
	Degraded               // that it would use where the healthy do not suffice
	Excluded               // that do not count: draining, not yet checked
	Ejected                // by outlier detection
	Warming                // 1 while the cluster is not served yet
	Active                 // requests that run
	Pending                // requests that wait for a connection
	gauges
)

// What a proxy counts of an upstream, since its start.
const (
	Requests         = gauges + iota // answered, by an endpoint or, where none did, by the proxy
	Connections                      // opened
	Errors                           // answers of 500 and above
	Timeouts                         // attempts without an answer in time
	Retries                          // attempts after the first
	RetryOverflow                    // retries not made: over the budget
	PendingOverflow                  // requests refused: over the limit of waiting ones
	ActiveOverflow                   // requests refused: over the limit of those at once; Envoy 1.38 and later, before it the one above
	ConnOverflow                     // over the limit of connections
	ConnectFailed                    // connections that could not be opened
	NoneHealthy                      // requests for which there was no endpoint: 503 UH
	Panicked                         // requests for which healthy or not did not count
	EjectOverflow                    // ejections not made: too many already
	CheckFailed                      // health checks that failed
	CheckUnreachable                 // that could not reach the endpoint
	ResolveFailed                    // names that could not be resolved
	ResolveEmpty                     // names without an address
	LeaseRanOut                      // endpoints dropped since nobody renewed them
	endOfCounters
)

const counters = endOfCounters - gauges

// The others.
const (
	Latency               = endOfCounters + iota // of requests: Buckets, since the start
	EndpointHealthy                              // 1 where the balancer would use it
	EndpointConnectFailed                        // connections that could not be opened, since the start
	FailedRequests                               // by Route and Flag, since the start
	Uptime                                       // of the proxy, in seconds
)

// level is the first that has a metric.
func (m Metric) level() model.Telemetry {
	switch m {
	case FailedRequests, Uptime:
		return model.TelemetryFailures
	case EndpointHealthy, EndpointConnectFailed:
		return model.TelemetryEndpoints
	}
	return model.TelemetryUpstreams
}

// Point is one value of a report. The texts are the caller's again after Add.
type Point struct {
	Metric   Metric
	Upstream []byte
	Endpoint []byte // IP:PORT
	Route    []byte
	Flag     []byte // as Envoy writes it: UH, "URX,UF"
	Value    uint64
	// Buckets of Latency are counts up to the bounds in Bounds, and above.
	Buckets []uint64
	Bounds  []float64 // milliseconds
}
