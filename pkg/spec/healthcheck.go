package spec

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// HealthCheck is one active check; exactly one of http, tcp and grpc is written.
type HealthCheck struct {
	HTTP *HTTPCheck `json:"http,omitempty" doc:"An HTTP request whose status decides."`
	TCP  *TCPCheck  `json:"tcp,omitempty" doc:"A connection, and bytes to send and expect."`
	GRPC *GRPCCheck `json:"grpc,omitempty" doc:"grpc.health.v1.Health/Check."`

	Interval              Duration `json:"interval,omitempty" default:"5s" minimum:"1ms" doc:"Time between checks."`
	Timeout               Duration `json:"timeout,omitempty" default:"1s" minimum:"1ms" doc:"Longest wait for an answer."`
	UnhealthyThreshold    uint32   `json:"unhealthyThreshold,omitempty" default:"3" minimum:"1" doc:"Failures in a row that take an endpoint out. An unexpected HTTP status fails at once unless it is retriable."`
	HealthyThreshold      uint32   `json:"healthyThreshold,omitempty" default:"2" minimum:"1" doc:"Passes in a row that bring an endpoint back; a new one needs a single pass."`
	JitterPercent         uint32   `json:"jitterPercent,omitempty" default:"10" maximum:"100" doc:"Random share of the interval added to it, so that proxies do not check in step."`
	Jitter                Duration `json:"jitter,omitempty" doc:"Random time up to this added to every interval."`
	InitialJitter         Duration `json:"initialJitter,omitempty" doc:"Random time up to this before the first check."`
	UnhealthyInterval     Duration `json:"unhealthyInterval,omitempty" doc:"Interval while the endpoint is unhealthy. Default: interval."`
	UnhealthyEdgeInterval Duration `json:"unhealthyEdgeInterval,omitempty" doc:"Interval right after the first failure. Default: unhealthyInterval."`
	HealthyEdgeInterval   Duration `json:"healthyEdgeInterval,omitempty" doc:"Interval right after the first pass. Default: interval."`
	NoTrafficInterval     Duration `json:"noTrafficInterval,omitempty" doc:"Interval while the upstream never had traffic. Default: interval (Envoy's own would be 60s)."`
	NoTrafficHealthy      Duration `json:"noTrafficHealthyInterval,omitempty" doc:"As noTrafficInterval, for healthy endpoints. Default: noTrafficInterval."`
	ReuseConnection       bool     `json:"reuseConnection,omitempty" default:"true" doc:"Keep the connection between checks."`
	Port                  uint32   `json:"port,omitempty" maximum:"65535" doc:"Check this port in place of the endpoint's own; 0 is the endpoint's own."`
}

// HTTPCheck is a request and what is expected of it.
type HTTPCheck struct {
	Path      string            `json:"path" required:"true" doc:"Path and query of the request."`
	Host      string            `json:"host,omitempty" maxLength:"253" doc:"Host header. Default: the upstream's name."`
	Method    string            `json:"method,omitempty" default:"GET" enum:"GET,HEAD,POST,PUT,DELETE,OPTIONS,TRACE,PATCH" doc:"Request method."`
	Headers   map[string]string `json:"headers,omitempty" doc:"Headers added to the request."`
	Expected  []string          `json:"expectedStatuses,omitempty" doc:"Statuses that pass, each one status or a range: 200, 200-299. Default: 200."`
	Retriable []string          `json:"retriableStatuses,omitempty" doc:"Statuses that count towards unhealthyThreshold in place of failing at once."`
}

// TCPCheck is a connection and optional bytes, in hex.
type TCPCheck struct {
	Send    string   `json:"send,omitempty" doc:"Bytes to send, in hex. Default: connect only."`
	Receive []string `json:"receive,omitempty" doc:"Byte strings, in hex, that must come back in this order."`
}

// GRPCCheck asks the standard health service.
type GRPCCheck struct {
	Service   string            `json:"service,omitempty" doc:"Service name in the request. Default: the whole server."`
	Authority string            `json:"authority,omitempty" maxLength:"253" doc:"The :authority header. Default: the upstream's name."`
	Metadata  map[string]string `json:"metadata,omitempty" doc:"Metadata added to the request."`
}

func (h *HealthCheck) check(c *checker, path string) {
	n := 0
	for _, set := range []bool{h.HTTP != nil, h.TCP != nil, h.GRPC != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		c.faultf(path, "%d of http, tcp and grpc are written; write exactly one", n)
	}
	if h.HTTP != nil {
		h.HTTP.check(c, path+".http")
	}
	if h.TCP != nil {
		c.hex(path+".tcp.send", h.TCP.Send)
		for i, r := range h.TCP.Receive {
			if r == "" {
				c.faultf(index(path+".tcp.receive", i), "is empty; leave it out")
			}
			c.hex(index(path+".tcp.receive", i), r)
		}
	}
	if h.GRPC != nil {
		c.headerMap(path+".grpc.metadata", h.GRPC.Metadata)
		c.headerValue(path+".grpc.authority", h.GRPC.Authority)
	}
}

func (h *HTTPCheck) check(c *checker, path string) {
	if !strings.HasPrefix(h.Path, "/") {
		c.faultf(path+".path", "%q does not begin with /", h.Path)
	}
	c.headerValue(path+".path", h.Path)
	c.headerValue(path+".host", h.Host)
	c.headerMap(path+".headers", h.Headers)
	for i, s := range h.Expected {
		c.statuses(index(path+".expectedStatuses", i), s)
	}
	for i, s := range h.Retriable {
		c.statuses(index(path+".retriableStatuses", i), s)
	}
}

func (c *checker) statuses(field, s string) {
	if _, _, err := StatusRange(s); err != nil {
		c.faultf(field, "%v", err)
	}
}

// StatusRange reads "200" or "200-299" as the first and the last status.
func StatusRange(s string) (first, last int64, err error) {
	a, b, isRange := strings.Cut(s, "-")
	if !isRange {
		b = a
	}
	first, err1 := strconv.ParseInt(a, 10, 64)
	last, err2 := strconv.ParseInt(b, 10, 64)
	if err1 != nil || err2 != nil || first < 100 || last > 599 || first > last {
		return 0, 0, fmt.Errorf("%q is not a status or a range of them; write 200 or 200-299, from 100 to 599", s)
	}
	return first, last, nil
}

func (c *checker) hex(field, s string) {
	if _, err := hex.DecodeString(s); err != nil {
		c.faultf(field, "%q is not hex: %v", s, err)
	}
}
