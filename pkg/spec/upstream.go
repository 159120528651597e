package spec

import (
	"net"
	"net/netip"
	"regexp"
	"strconv"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Upstream says which endpoints of a service to use and how to reach them. It
// becomes a cluster.
type Upstream struct {
	Service         ServiceRef        `json:"service,omitempty" doc:"The service whose endpoints are used. Default: the local service of the upstream's own name."`
	Endpoints       []Endpoint        `json:"endpoints,omitempty" doc:"Short for a Service document with the upstream's name. Not together with service."`
	DNS             *DNS              `json:"dns,omitempty" doc:"The endpoints are resolved by each proxy. With hosts it stands in place of service and endpoints; without, it is for a service with addresses: hostname."`
	Protocol        string            `json:"protocol,omitempty" default:"http1" enum:"http1,http2,grpc,tcp" doc:"What the endpoints speak. grpc is HTTP/2 without a route timeout; tcp is anything, and only listeners with tcp lead there."`
	TLS             *UpstreamTLS      `json:"tls,omitempty" doc:"TLS is spoken to the endpoints, by health checks too."`
	HTTP2           HTTP2             `json:"http2,omitempty" doc:"HTTP/2 with the endpoints, where the protocol is http2 or grpc."`
	LoadBalancing   LoadBalancing     `json:"loadBalancing,omitempty" doc:"How an endpoint is picked."`
	ConnectTimeout  Duration          `json:"connectTimeout,omitempty" default:"1s" minimum:"1ms" doc:"Longest wait for a TCP connection."`
	IdleTimeout     Duration          `json:"idleTimeout,omitempty" default:"1h" minimum:"1ms" doc:"An upstream connection without a request is closed after this long."`
	MaxRequests     uint32            `json:"maxRequestsPerConnection,omitempty" doc:"A connection is closed after this many requests; 0 is without limit."`
	Keepalive       Keepalive         `json:"tcpKeepalive,omitempty" doc:"TCP keepalive of connections to endpoints."`
	HealthChecks    []HealthCheck     `json:"healthChecks,omitempty" doc:"Active checks that every proxy runs by itself. An Envoy before 1.40 is sent only the first."`
	Outlier         *OutlierDetection `json:"outlierDetection,omitempty" doc:"Ejects endpoints by what real requests see. Off unless it is written."`
	CircuitBreakers CircuitBreakers   `json:"circuitBreakers,omitempty" doc:"Limits of each proxy towards this upstream; beyond them requests fail at once (flag UO)."`
	Envoy           Passthrough       `json:"envoy,omitempty" doc:"Part of Envoy's own Cluster (envoy.config.cluster.v3), merged last as a JSON Merge Patch."`
	EnvoyEndpoints  Passthrough       `json:"envoyEndpoints,omitempty" doc:"Part of Envoy's own ClusterLoadAssignment: its policy. Merged last as a JSON Merge Patch."`
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
	Addresses  string            `json:"addresses,omitempty" default:"ip" enum:"ip,hostname" doc:"hostname: endpoints may have names, which each proxy resolves; then every change of the registry re-makes the cluster, which closes its connections. ip: an endpoint with a name is a problem, and left out."`
	AddressTag string            `json:"addressTag,omitempty" maxLength:"128" doc:"Use this tagged address (Consul TaggedAddresses: lan, wan, …) in place of the service address."`
}

// DNS is how names are resolved.
type DNS struct {
	Hosts     []string `json:"hosts,omitempty" doc:"NAME:PORT of each, all of which are used."`
	Resolve   string   `json:"resolve,omitempty" default:"all" enum:"all,one" doc:"all: every address of an answer is an endpoint. one: the first address only, and connections outlive it; for large services behind one name."`
	Family    string   `json:"family,omitempty" default:"v4Preferred" enum:"v4Preferred,v4,v6,all" doc:"Which addresses are used; all: both families at once."`
	Refresh   Duration `json:"refresh,omitempty" default:"5s" minimum:"1s" doc:"Time between two resolutions."`
	FollowTTL bool     `json:"followTTL,omitempty" doc:"Resolve again when the answer's TTL is over, in place of refresh."`
}

// LoadBalancing is the policy and its knobs.
type LoadBalancing struct {
	Policy      string `json:"policy,omitempty" default:"leastRequest" enum:"leastRequest,roundRobin,random,ringHash,maglev" doc:"Envoy's load balancing policy."`
	Localities  string `json:"localities,omitempty" default:"any" enum:"any,loadAware" doc:"loadAware (Envoy 1.40): endpoints of the proxy's own locality first, others as far as those are busier, by the load that endpoints report (ORCA). Not with ringHash or maglev. any, and an Envoy before 1.40: localities do not matter."`
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
		if s.Addresses == "hostname" {
			c.faultf("spec.service.addresses", "a Service document has IP addresses; write dns.hosts")
		}
		if s.Name != "" && !label.MatchString(s.Name) {
			c.faultf("spec.service.name", "%q is not a name of a Service document", s.Name)
		}
	}
	lb := u.LoadBalancing
	if lb.MinRingSize > lb.MaxRingSize {
		c.faultf("spec.loadBalancing.minRingSize", "%d is more than maxRingSize %d", lb.MinRingSize, lb.MaxRingSize)
	}
	if lb.Localities == "loadAware" && (lb.Policy == "ringHash" || lb.Policy == "maglev") {
		c.faultf("spec.loadBalancing.localities", "a hash picks one endpoint of all; with %s localities cannot matter", lb.Policy)
	}
	if !isPrime(lb.TableSize) {
		c.faultf("spec.loadBalancing.tableSize", "%d is not a prime number; 65537 is", lb.TableSize)
	}
	for i := range u.HealthChecks {
		h, at := &u.HealthChecks[i], index("spec.healthChecks", i)
		h.check(c, at)
		if h.GRPC != nil && !u.SpeaksHTTP2() {
			c.faultf(at+".grpc", "a gRPC check needs protocol: grpc or http2")
		}
		if h.Port != u.HealthChecks[0].Port {
			c.faultf(at+".port", "%d is not the port %d of the first check; an endpoint has one check port", h.Port, u.HealthChecks[0].Port)
		}
	}
	u.checkDNS(c)
	u.HTTP2.check(c, "spec.http2")
	if !u.SpeaksHTTP2() && c.doc.written("spec.http2") {
		c.faultf("spec.http2", "means nothing for protocol: %s; write http2 or grpc, or leave it out", u.Protocol)
	}
	if u.Protocol == "tcp" {
		for _, field := range []string{"idleTimeout", "maxRequestsPerConnection"} {
			if c.doc.written("spec." + field) {
				c.faultf("spec."+field, "means nothing for protocol: tcp; a listener's idleTimeout closes idle connections")
			}
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

// Hostnames tells whether endpoints may have names, which each proxy resolves: the
// endpoints are then part of the cluster.
func (u *Upstream) Hostnames() bool { return u.DNS != nil || u.Service.Addresses == "hostname" }

// resolvableByGRPC tells whether gRPC's own clients can find the endpoints: they
// resolve one name by themselves, and no others.
func (u *Upstream) resolvableByGRPC() bool {
	return !u.Hostnames() || u.DNS != nil && len(u.DNS.Hosts) == 1
}

// SpeaksHTTP2 tells whether the endpoints do.
func (u *Upstream) SpeaksHTTP2() bool { return u.Protocol == "http2" || u.Protocol == "grpc" }

func (u *Upstream) checkDNS(c *checker) {
	if u.DNS == nil {
		return
	}
	switch {
	case len(u.DNS.Hosts) == 0 && u.Service.Addresses != "hostname":
		c.faultf("spec.dns.hosts", "is missing; name a host, or write service.addresses: hostname")
	case len(u.DNS.Hosts) > 0 && (u.Endpoints != nil || c.doc.written("spec.service")):
		c.faultf("spec.dns", "stands beside endpoints or service; keep one of them")
	case u.DNS.Resolve == "one" && len(u.DNS.Hosts) != 1:
		c.faultf("spec.dns.resolve", "one address is used of one host; write exactly one host")
	}
	seen := map[string]int{}
	for i, h := range u.DNS.Hosts {
		at := index("spec.dns.hosts", i)
		c.hostPort(at, h)
		if j, ok := seen[h]; ok {
			c.faultf(at, "%q stands at hosts[%d] already", h, j)
		}
		seen[h] = i
	}
}

// hostPort accepts a DNS name or an IP address with a port.
func (c *checker) hostPort(field, s string) {
	host, port, err := net.SplitHostPort(s)
	if err != nil || !ValidHost(host) {
		c.faultf(field, "%q is not NAME:PORT; write api.example.com:443", s)
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		c.faultf(field, "%q has no port from 1 to 65535", s)
	}
}

// ValidHost tells whether a text can be resolved: a DNS name, or an IP address.
func ValidHost(s string) bool {
	if ip, err := netip.ParseAddr(s); err == nil {
		return ip.Zone() == ""
	}
	return len(s) <= 253 && dnsName.MatchString(s)
}

// dnsName is RFC 1123's, with the underscores that registries use.
var dnsName = regexp.MustCompile(`^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?$`)

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
