package envoyadmin

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Cluster is one cluster as an Envoy runs it.
type Cluster struct {
	Name string
	// StatName is the name of its stats, which may be another one.
	StatName string
	ByAPI    bool   // brought by a control plane
	Service  string // name of its assignment, "" is its own
	Limits   Limits // of the default priority
	Hosts    []Host // by address
}

// Limits are circuit breakers; Envoy's own are 1024, 1024, 1024 and 3.
type Limits struct {
	Connections uint64 `json:"max_connections"`
	Pending     uint64 `json:"max_pending_requests"`
	Requests    uint64 `json:"max_requests"`
	Retries     uint64 `json:"max_retries"`
}

// Host is one endpoint as an Envoy holds it.
type Host struct {
	Address string `json:"address"`
	// Name is NAME:PORT of a host that this proxy resolved, "" of others.
	Name string `json:"name,omitempty"`
	// Usable is what the balancer goes by: no flag says otherwise.
	Usable bool `json:"usable"`
	// Degraded is usable where the healthy do not suffice; Excluded does not count for
	// panic: it drains, or was never checked.
	Degraded bool `json:"degraded,omitempty"`
	Excluded bool `json:"excluded,omitempty"`
	// Flags say why a host is out: failed_active_health_check, failed_outlier_check,
	// pending_active_hc and so on, and the assignment's own status.
	Flags []string `json:"flags,omitempty"`

	Priority int    `json:"-"`
	Zone     string `json:"-"`
	// Counts since it was added: requests, answers of 500 and above and failures,
	// connections, and those that could not be opened.
	Requests, Errors, Connections, ConnectFailed uint64 `json:"-"`
}

// Has tells whether a flag is set.
func (h Host) Has(flag string) bool { return slices.Contains(h.Flags, flag) }

// Count counts hosts as Envoy's gauges do.
func Count(hosts []Host) (healthy, degraded, excluded int) {
	for _, h := range hosts {
		switch {
		case h.Excluded:
			excluded++
		case h.Degraded:
			degraded++
		case h.Usable:
			healthy++
		}
	}
	return healthy, degraded, excluded
}

// judge derives from the flags what the balancer does with the host.
func (h *Host) judge() {
	h.Usable = true
	slices.Sort(h.Flags)
	for _, f := range h.Flags {
		switch f {
		case "pending_dynamic_removal":
		case "eds_degraded", "failed_active_degraded_check", "failed_degraded_outlier_detection":
			h.Degraded = true
		case "eds_draining", "excluded_via_immediate_hc_fail", "pending_active_hc":
			h.Usable, h.Excluded = false, true
		default:
			h.Usable = false
		}
	}
	h.Degraded = h.Degraded && h.Usable
}

// ParseClusters reads /clusters as text or JSON, by name.
func ParseClusters(text []byte) (map[string]*Cluster, error) {
	out := map[string]*Cluster{}
	var err error
	if isJSON(text) {
		err = parseClustersJSON(text, out)
	} else {
		err = parseClustersText(string(text), out)
	}
	for _, c := range out {
		for i := range c.Hosts {
			c.Hosts[i].judge()
		}
		slices.SortFunc(c.Hosts, func(a, b Host) int { return strings.Compare(a.Address, b.Address) })
	}
	return out, err
}

func parseClustersJSON(text []byte, out map[string]*Cluster) error {
	var all struct {
		Clusters []struct {
			Name     string       `json:"name"`
			StatName string       `json:"observability_name"`
			ByAPI    bool         `json:"added_via_api"`
			Service  string       `json:"eds_service_name"`
			Hosts    []hostStatus `json:"host_statuses"`
			Breakers struct {
				Thresholds []struct {
					Priority string `json:"priority"`
					Limits
				} `json:"thresholds"`
			} `json:"circuit_breakers"`
		} `json:"cluster_statuses"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("read /clusters: %w", err)
	}
	for _, x := range all.Clusters {
		c := &Cluster{Name: x.Name, StatName: x.StatName, ByAPI: x.ByAPI, Service: x.Service}
		if c.StatName == "" {
			c.StatName = c.Name
		}
		for _, t := range x.Breakers.Thresholds {
			if t.Priority == "" || t.Priority == "DEFAULT" {
				c.Limits = t.Limits
			}
		}
		for _, h := range x.Hosts {
			c.Hosts = append(c.Hosts, h.host())
		}
		out[c.Name] = c
	}
	return nil
}

type hostStatus struct {
	Address struct {
		Socket *struct {
			Address string `json:"address"`
			Port    int    `json:"port_value"`
		} `json:"socket_address"`
		Pipe struct {
			Path string `json:"path"`
		} `json:"pipe"`
		Internal struct {
			Listener string `json:"server_listener_name"`
			ID       string `json:"endpoint_id"`
		} `json:"envoy_internal_address"`
	} `json:"address"`
	Hostname string         `json:"hostname"`
	Health   map[string]any `json:"health_status"`
	Priority int            `json:"priority"`
	Locality struct {
		Zone string `json:"zone"`
	} `json:"locality"`
	Stats []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"stats"`
}

func (h hostStatus) host() Host {
	out := Host{Priority: h.Priority, Zone: h.Locality.Zone}
	switch {
	case h.Address.Socket != nil:
		port := strconv.Itoa(h.Address.Socket.Port)
		out.Address = net.JoinHostPort(h.Address.Socket.Address, port)
		if h.Hostname != "" {
			out.Name = net.JoinHostPort(h.Hostname, port)
		}
	case h.Address.Pipe.Path != "":
		out.Address = h.Address.Pipe.Path
	default:
		out.Address = "envoy://" + h.Address.Internal.Listener + "/" + h.Address.Internal.ID
	}
	for k, v := range h.Health {
		switch x := v.(type) {
		case bool:
			if x {
				out.Flags = append(out.Flags, k)
			}
		case string: // eds_health_status
			if x != "HEALTHY" {
				out.Flags = append(out.Flags, "eds_"+strings.ToLower(x))
			}
		}
	}
	for _, s := range h.Stats {
		n, _ := strconv.ParseUint(s.Value, 10, 64)
		out.count(s.Name, n)
	}
	return out
}

func (h *Host) count(name string, n uint64) {
	switch name {
	case "rq_total":
		h.Requests = n
	case "rq_error":
		h.Errors = n
	case "cx_total":
		h.Connections = n
	case "cx_connect_fail":
		h.ConnectFailed = n
	}
}

// textFlags are the flags that /clusters writes otherwise without format=json.
var textFlags = map[string]string{
	"failed_active_hc":           "failed_active_health_check",
	"failed_eds_health":          "eds_unhealthy",
	"degraded_active_hc":         "failed_active_degraded_check",
	"degraded_eds_health":        "eds_degraded",
	"degraded_outlier_detection": "failed_degraded_outlier_detection",
	"eds_status_draining":        "eds_draining",
}

// parseClustersText reads lines of CLUSTER::KEY::VALUE, CLUSTER::PRIORITY::LIMIT::VALUE and
// CLUSTER::ADDRESS::KEY::VALUE. An IPv6 address has colons of its own, and so may a
// cluster: the first line of each is the one that says its observability_name.
func parseClustersText(text string, out map[string]*Cluster) error {
	hosts := map[string]map[string]*Host{}
	current := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if name, _, begins := strings.Cut(line, "::observability_name::"); begins {
			current = name
		}
		name, rest, ok := strings.Cut(line, "::")
		if of, its := strings.CutPrefix(line, current+"::"); its && current != "" {
			name, rest = current, of
		}
		if !ok || name == "" {
			continue
		}
		c := out[name]
		if c == nil {
			c = &Cluster{Name: name, StatName: name}
			out[name], hosts[name] = c, map[string]*Host{}
		}
		i := strings.LastIndex(rest, "::")
		if i < 0 {
			continue
		}
		key, value := rest[:i], rest[i+2:]
		j := strings.LastIndex(key, "::")
		if j < 0 {
			c.set(key, value)
			continue
		}
		subject, key := key[:j], key[j+2:]
		n, _ := strconv.ParseUint(value, 10, 64)
		switch subject {
		case "default_priority":
			c.Limits.set(key, n)
		case "high_priority", "outlier":
		default:
			h := hosts[name][subject]
			if h == nil {
				h = &Host{Address: subject}
				hosts[name][subject] = h
			}
			h.set(key, value, n)
		}
	}
	if len(out) == 0 {
		return fmt.Errorf("read /clusters: there is no line CLUSTER::KEY::VALUE")
	}
	for name, c := range out {
		for _, h := range hosts[name] {
			c.Hosts = append(c.Hosts, *h)
		}
	}
	return nil
}

func (c *Cluster) set(key, value string) {
	switch key {
	case "observability_name":
		c.StatName = value
	case "added_via_api":
		c.ByAPI = value == "true"
	case "eds_service_name":
		c.Service = value
	}
}

func (l *Limits) set(key string, n uint64) {
	switch key {
	case "max_connections":
		l.Connections = n
	case "max_pending_requests":
		l.Pending = n
	case "max_requests":
		l.Requests = n
	case "max_retries":
		l.Retries = n
	}
}

func (h *Host) set(key, value string, n uint64) {
	switch key {
	case "hostname":
		if _, port, err := net.SplitHostPort(h.Address); err == nil && value != "" {
			h.Name = net.JoinHostPort(value, port)
		}
	case "health_flags":
		for f := range strings.SplitSeq(value, "/") {
			if f == "" || f == "healthy" {
				continue
			}
			if known := textFlags[f]; known != "" {
				f = known
			}
			h.Flags = append(h.Flags, f)
		}
	case "priority":
		h.Priority = int(n) //nolint:gosec // below 128
	case "zone":
		h.Zone = value
	default:
		h.count(key, n)
	}
}
