package spec

import "github.com/wellspring-xds/wellspring/pkg/model"

// Upstream says which endpoints of a service to use and how to reach them. It
// becomes a cluster.
type Upstream struct {
	Service         ServiceRef        `json:"service,omitempty" doc:"The service whose endpoints are used. Default: the local service of the upstream's own name."`
	Endpoints       []Endpoint        `json:"endpoints,omitempty" doc:"Short for a Service document with the upstream's name. Not together with service."`
	Protocol        string            `json:"protocol,omitempty" default:"http1" enum:"http1,http2,grpc" doc:"What the endpoints speak. grpc is HTTP/2 without a route timeout."`
	TLS             *UpstreamTLS      `json:"tls,omitempty" doc:"TLS is spoken to the endpoints, by health checks too."`
	LoadBalancing   LoadBalancing     `json:"loadBalancing,omitempty" doc:"How an endpoint is picked."`
	ConnectTimeout  Duration          `json:"connectTimeout,omitempty" default:"1s" minimum:"1ms" doc:"Longest wait for a TCP connection."`
	IdleTimeout     Duration          `json:"idleTimeout,omitempty" default:"1h" minimum:"1ms" doc:"An upstream connection without a request is closed after this long."`
	MaxRequests     uint32            `json:"maxRequestsPerConnection,omitempty" doc:"A connection is closed after this many requests; 0 is without limit."`
	Keepalive       Keepalive         `json:"tcpKeepalive,omitempty" doc:"TCP keepalive of connections to endpoints."`
	HealthChecks    []HealthCheck     `json:"healthChecks,omitempty" doc:"Active checks that every proxy runs by itself. An Envoy before 1.40 is sent only the first."`
	Outlier         *OutlierDetection `json:"outlierDetection,omitempty" doc:"Ejects endpoints by what real requests see. Off unless it is written."`
	CircuitBreakers CircuitBreakers   `json:"circuitBreakers,omitempty" doc:"Limits of each proxy towards this upstream; beyond them requests fail at once (flag UO)."`
	WhenUnavailable WhenUnavailable   `json:"whenUnavailable,omitempty" doc:"What happens when too few endpoints are usable."`
}

// ServiceRef names a service and narrows its endpoints.
type ServiceRef struct {
	Source     string            `json:"source,omitempty" default:"local" doc:"Name of the source: local, or one from the server's configuration (consul)."`
	Name       string            `json:"name,omitempty" maxLength:"253" doc:"Name in the source. Default: the upstream's name."`
	Datacenter string            `json:"datacenter,omitempty" maxLength:"128" doc:"Consul datacenter. Default: the agent's own."`
	Namespace  string            `json:"namespace,omitempty" maxLength:"128" doc:"Consul Enterprise namespace."`
	Partition  string            `json:"partition,omitempty" maxLength:"128" doc:"Consul Enterprise partition."`
	Tags       []string          `json:"tags,omitempty" doc:"Only instances that carry all of these tags."`
	Metadata   map[string]string `json:"metadata,omitempty" doc:"Only instances whose metadata has all of these values."`
	AddressTag string            `json:"addressTag,omitempty" maxLength:"128" doc:"Use this tagged address (Consul TaggedAddresses: lan, wan, …) in place of the service address."`
}

// LoadBalancing is the policy and its knobs.
type LoadBalancing struct {
	Policy      string `json:"policy,omitempty" default:"leastRequest" enum:"leastRequest,roundRobin,random,ringHash,maglev" doc:"Envoy's load balancing policy."`
	ChoiceCount uint32 `json:"choiceCount,omitempty" default:"2" minimum:"2" maximum:"64" doc:"leastRequest: endpoints compared for each pick."`
	MinRingSize uint64 `json:"minRingSize,omitempty" default:"1024" minimum:"1" maximum:"8388608" doc:"ringHash: least entries in the ring."`
	MaxRingSize uint64 `json:"maxRingSize,omitempty" default:"8388608" minimum:"1" maximum:"8388608" doc:"ringHash: most entries in the ring."`
	TableSize   uint64 `json:"tableSize,omitempty" default:"65537" minimum:"3" maximum:"5000011" doc:"maglev: entries in the table; a prime number."`
}

// Keepalive is TCP's.
type Keepalive struct {
	Time     Duration `json:"time,omitempty" default:"60s" minimum:"1s" doc:"Idle time before the first probe; whole seconds."`
	Interval Duration `json:"interval,omitempty" default:"10s" minimum:"1s" doc:"Time between probes; whole seconds."`
	Probes   uint32   `json:"probes,omitempty" default:"3" minimum:"1" maximum:"127" doc:"Unanswered probes before the connection is dead."`
}

// CircuitBreakers are the limits of one proxy towards one upstream.
type CircuitBreakers struct {
	Connections uint32      `json:"connections,omitempty" default:"1024" minimum:"1" doc:"Most open connections."`
	Pending     uint32      `json:"pendingRequests,omitempty" default:"1024" minimum:"1" doc:"Most requests that wait for a connection."`
	Requests    uint32      `json:"requests,omitempty" default:"1024" minimum:"1" doc:"Most parallel requests."`
	RetryBudget RetryBudget `json:"retryBudget,omitempty" doc:"How many retries may run, as a share of the requests that run."`
}

// RetryBudget bounds retry storms.
type RetryBudget struct {
	Percent        float64 `json:"percent,omitempty" default:"20" minimum:"0" maximum:"100" doc:"Share of active and pending requests that may be retries."`
	MinConcurrency uint32  `json:"minConcurrency,omitempty" default:"3" doc:"Retries that may always run."`
}

// WhenUnavailable is the way out when endpoints are missing.
type WhenUnavailable struct {
	Panic Panic `json:"panic,omitempty" doc:"Envoy's panic mode, always written out."`
}

// Panic says below which healthy share the health of endpoints is ignored.
type Panic struct {
	Below float64 `json:"below,omitempty" default:"50" minimum:"0" maximum:"100" doc:"Percent of usable endpoints below which panic begins."`
	Then  string  `json:"then,omitempty" default:"tryAll" enum:"tryAll,fail" doc:"tryAll: every endpoint is tried, healthy or not. fail: only healthy ones are used, 503 UH when there are none."`
}

// Key is the service that the upstream selects from.
func (u *Upstream) Key(name string) model.ServiceKey {
	s := u.Service
	if s.Source == "" {
		s.Source = SourceLocal
	}
	if s.Name == "" {
		s.Name = name
	}
	return model.ServiceKey{Source: s.Source, Datacenter: s.Datacenter, Namespace: s.Namespace, Partition: s.Partition, Name: s.Name}
}

func (u *Upstream) check(c *checker) {
	if u.Endpoints != nil {
		if c.doc.written("spec.service") {
			c.faultf("spec.endpoints", "both endpoints and service are written; keep endpoints, or move them to a Service document")
		}
		checkEndpoints(c, "spec.endpoints", u.Endpoints)
	}
	if s := u.Service; s.Source == SourceLocal {
		for field, v := range map[string]string{"datacenter": s.Datacenter, "namespace": s.Namespace, "partition": s.Partition, "addressTag": s.AddressTag} {
			if v != "" {
				c.faultf("spec.service."+field, "the local source has none; name another source or leave it out")
			}
		}
		if s.Name != "" && !label.MatchString(s.Name) {
			c.faultf("spec.service.name", "%q is not a name of a Service document", s.Name)
		}
	}
	lb := u.LoadBalancing
	if lb.MinRingSize > lb.MaxRingSize {
		c.faultf("spec.loadBalancing.minRingSize", "%d is more than maxRingSize %d", lb.MinRingSize, lb.MaxRingSize)
	}
	if !isPrime(lb.TableSize) {
		c.faultf("spec.loadBalancing.tableSize", "%d is not a prime number; 65537 is", lb.TableSize)
	}
	for i := range u.HealthChecks {
		h, at := &u.HealthChecks[i], index("spec.healthChecks", i)
		h.check(c, at)
		if h.GRPC != nil && u.Protocol == "http1" {
			c.faultf(at+".grpc", "a gRPC check needs protocol: grpc or http2")
		}
		if h.Port != u.HealthChecks[0].Port {
			c.faultf(at+".port", "%d is not the port %d of the first check; an endpoint has one check port", h.Port, u.HealthChecks[0].Port)
		}
	}
	if u.TLS != nil {
		u.TLS.check(c, "spec.tls")
	}
	if u.Outlier != nil {
		u.Outlier.check(c, "spec.outlierDetection")
	}
	c.wholeSeconds("spec.tcpKeepalive.time", u.Keepalive.Time)
	c.wholeSeconds("spec.tcpKeepalive.interval", u.Keepalive.Interval)
}

func isPrime(n uint64) bool {
	if n < 2 {
		return false
	}
	for d := uint64(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}
