package envoyadmin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Config is of /config_dump what a diagnosis reads. It is read field by field, and not as
// Envoy's messages: a dump holds extensions that only its own control plane knows.
type Config struct {
	Node struct {
		ID      string `json:"id"`
		Version struct {
			Number struct {
				Major int `json:"major_number"`
				Minor int `json:"minor_number"`
				Patch int `json:"patch"`
			} `json:"version"`
		} `json:"user_agent_build_version"`
	}
	// Clusters by name, those that serve before those that warm.
	Clusters map[string]*ClusterConfig
	Routes   []RouteTable
	// StrictSessions tells that a listener binds requests to one host, whatever the route.
	StrictSessions bool
	// Rejected is what this Envoy refused, and holds in an older form or not at all.
	Rejected []Rejected

	refused map[Rejected]bool // Rejected
}

// ClusterConfig is a cluster's definition.
type ClusterConfig struct {
	Name       string   `json:"name"`
	Type       string   `json:"type"` // STATIC where empty
	Connect    Duration `json:"connect_timeout"`
	Assignment struct {
		Service string `json:"service_name"`
	} `json:"eds_cluster_config"`
	// Lists are the hosts of a definition that lists them.
	Lists struct {
		Localities []struct {
			Locality struct {
				Zone string `json:"zone"`
			} `json:"locality"`
			Weight uint32            `json:"load_balancing_weight"`
			Hosts  []json.RawMessage `json:"lb_endpoints"`
		} `json:"endpoints"`
	} `json:"load_assignment"`
	LB     string `json:"lb_policy"`
	Custom struct {
		Name  string `json:"name"`
		Typed struct {
			Type     string          `json:"@type"`
			Clusters json.RawMessage `json:"clusters"` // of whatever form
		} `json:"typed_config"`
	} `json:"cluster_type"`
	Common struct {
		Panic *struct {
			Value float64 `json:"value"`
		} `json:"healthy_panic_threshold"`
		ZoneAware struct {
			FailOnPanic bool `json:"fail_traffic_on_panic"`
		} `json:"zone_aware_lb_config"`
		ByLocality *struct{} `json:"locality_weighted_lb_config"`
	} `json:"common_lb_config"`
	Checks  []CheckConfig `json:"health_checks"`
	Outlier *struct {
		MaxEjected *uint64 `json:"max_ejection_percent"`
	} `json:"outlier_detection"`
	Subset *struct {
		Fallback  string `json:"fallback_policy"`
		Selectors []struct {
			Keys []string `json:"keys"`
		} `json:"subset_selectors"`
	} `json:"lb_subset_config"`
	Socket  *socketConfig `json:"transport_socket"`
	Matches []struct {
		Socket *socketConfig `json:"transport_socket"`
	} `json:"transport_socket_matches"`

	// Warming tells that it is not served yet; an older form may be.
	Warming bool `json:"-"`
	// Serving tells that a form of it is served.
	Serving bool `json:"-"`
}

type socketConfig struct {
	Typed struct {
		Type string `json:"@type"`
	} `json:"typed_config"`
}

// CheckConfig is one active health check.
type CheckConfig struct {
	Timeout Duration `json:"timeout"`
	HTTP    *struct {
		Path string `json:"path"`
		Host string `json:"host"`
	} `json:"http_health_check"`
	TCP  *struct{} `json:"tcp_health_check"`
	GRPC *struct {
		Service string `json:"service_name"`
	} `json:"grpc_health_check"`
}

// TLS tells whether connections to its endpoints are encrypted.
func (c *ClusterConfig) TLS() bool {
	is := func(s *socketConfig) bool { return s != nil && strings.HasSuffix(s.Typed.Type, "UpstreamTlsContext") }
	for _, m := range c.Matches {
		if is(m.Socket) {
			return true
		}
	}
	return is(c.Socket)
}

// Members are the clusters of an aggregate or composite one, in their order.
func (c *ClusterConfig) Members() (names []string) {
	var all []json.RawMessage
	if !strings.HasSuffix(c.Custom.Typed.Type, ".aggregate.v3.ClusterConfig") && !strings.HasSuffix(c.Custom.Typed.Type, ".composite.v3.ClusterConfig") ||
		json.Unmarshal(c.Custom.Typed.Clusters, &all) != nil {
		return nil
	}
	for _, raw := range all {
		var name string
		var entry struct {
			Name string `json:"name"`
		}
		switch {
		case json.Unmarshal(raw, &name) == nil:
			names = append(names, name)
		case json.Unmarshal(raw, &entry) == nil:
			names = append(names, entry.Name)
		}
	}
	return names
}

// RouteTable is one table of routes.
type RouteTable struct {
	Name  string
	Hosts []VirtualHost
}

// VirtualHost is the routes of some hosts.
type VirtualHost struct {
	Name    string   `json:"name"`
	Domains []string `json:"domains"`
	Routes  []Route  `json:"routes"`
}

// Route is where some requests go.
type Route struct {
	sessions
	Name  string `json:"name"`
	Match struct {
		Prefix string `json:"prefix"`
		Path   string `json:"path"`
	} `json:"match"`
	To struct {
		Cluster  string `json:"cluster"`
		Weighted struct {
			Clusters []struct {
				Name   string `json:"name"`
				Weight uint32 `json:"weight"`
			} `json:"clusters"`
		} `json:"weighted_clusters"`
	} `json:"route"`
}

// sessions is the part of a route that overrides the filter of stateful sessions.
type sessions struct {
	Filters map[string]struct {
		Disabled bool `json:"disabled"`
		State    struct {
			Strict bool `json:"strict"`
		} `json:"stateful_session"`
	} `json:"typed_per_filter_config"`
}

// Strict tells whether a request is bound to one host, though that is not there any more.
func (s sessions) Strict() bool {
	for _, f := range s.Filters {
		if f.State.Strict && !f.Disabled {
			return true
		}
	}
	return false
}

// Clusters are those that a route names.
func (r Route) Clusters() (names []string) {
	if r.To.Cluster != "" {
		names = append(names, r.To.Cluster)
	}
	for _, c := range r.To.Weighted.Clusters {
		if c.Weight > 0 { // none is ever sent there
			names = append(names, c.Name)
		}
	}
	return names
}

// Rejected is one resource that was refused.
type Rejected struct {
	Kind   string // cluster, listener, route table
	Name   string
	Detail string
}

type errorState struct {
	Details string `json:"details"`
	Failed  *struct {
		Name string `json:"name"`
	} `json:"failed_configuration"`
}

type dumpedCluster struct {
	Cluster *ClusterConfig `json:"cluster"`
	Error   *errorState    `json:"error_state"`
}

type dumpedRoutes struct {
	Table struct {
		Name  string        `json:"name"`
		Hosts []VirtualHost `json:"virtual_hosts"`
	} `json:"route_config"`
	Error *errorState `json:"error_state"`
}

// ParseConfig reads /config_dump.
func ParseConfig(text []byte) (*Config, error) {
	var all struct {
		Configs []json.RawMessage `json:"configs"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("read /config_dump: %w", err)
	}
	if len(all.Configs) == 0 {
		return nil, fmt.Errorf("read /config_dump: it has no configs")
	}
	c := &Config{Clusters: map[string]*ClusterConfig{}, refused: map[Rejected]bool{}}
	for _, raw := range all.Configs {
		if err := c.add(raw); err != nil {
			return nil, fmt.Errorf("read /config_dump: %w", err)
		}
	}
	return c, nil
}

func (c *Config) add(raw json.RawMessage) error {
	var is struct {
		Type string `json:"@type"`
	}
	if err := json.Unmarshal(raw, &is); err != nil {
		return err
	}
	switch _, kind, _ := strings.Cut(is.Type, "envoy.admin.v3."); kind {
	case "BootstrapConfigDump":
		var in struct {
			Bootstrap struct {
				Node json.RawMessage `json:"node"`
			} `json:"bootstrap"`
		}
		if err := json.Unmarshal(raw, &in); err != nil || in.Bootstrap.Node == nil {
			return err
		}
		return json.Unmarshal(in.Bootstrap.Node, &c.Node)
	case "ClustersConfigDump":
		return c.addClusters(raw)
	case "RoutesConfigDump":
		return c.addRoutes(raw)
	case "ListenersConfigDump":
		return c.addListeners(raw)
	}
	return nil
}

func (c *Config) addClusters(raw json.RawMessage) error {
	var in struct {
		Static  []dumpedCluster `json:"static_clusters"`
		Active  []dumpedCluster `json:"dynamic_active_clusters"`
		Warming []dumpedCluster `json:"dynamic_warming_clusters"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return err
	}
	for _, x := range append(in.Static, in.Active...) {
		c.reject("cluster", x.Error, "")
		if x.Cluster != nil && x.Cluster.Name != "" {
			x.Cluster.Serving = true
			c.Clusters[x.Cluster.Name] = x.Cluster
		}
	}
	for _, x := range in.Warming {
		c.reject("cluster", x.Error, "")
		if x.Cluster == nil || x.Cluster.Name == "" {
			continue
		}
		if served := c.Clusters[x.Cluster.Name]; served != nil {
			served.Warming = true
			continue
		}
		x.Cluster.Warming = true
		c.Clusters[x.Cluster.Name] = x.Cluster
	}
	return nil
}

func (c *Config) addRoutes(raw json.RawMessage) error {
	var in struct {
		Static  []dumpedRoutes `json:"static_route_configs"`
		Dynamic []dumpedRoutes `json:"dynamic_route_configs"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return err
	}
	for _, x := range append(in.Static, in.Dynamic...) {
		c.reject("route table", x.Error, x.Table.Name)
		c.Routes = append(c.Routes, RouteTable{x.Table.Name, x.Table.Hosts})
	}
	return nil
}

func (c *Config) addListeners(raw json.RawMessage) error {
	var in struct {
		Dynamic []struct {
			Name  string      `json:"name"`
			Error *errorState `json:"error_state"`
		} `json:"dynamic_listeners"`
	}
	err := json.Unmarshal(raw, &in)
	if bytes.Contains(raw, []byte(sessionFilter)) { // few have it, and listeners are large
		var all any
		c.StrictSessions = json.Unmarshal(raw, &all) == nil && strictSession(all)
	}
	for _, x := range in.Dynamic {
		c.reject("listener", x.Error, x.Name)
	}
	return err
}

// sessionFilter is the end of that filter's type.
const sessionFilter = ".stateful_session.v3.StatefulSession"

// strictSession tells whether JSON has the filter of stateful sessions in it, and it is
// strict; what routes say of theirs has a type of its own.
func strictSession(v any) bool {
	switch x := v.(type) {
	case map[string]any:
		if t, _ := x["@type"].(string); strings.HasSuffix(t, sessionFilter) && x["strict"] == true {
			return true
		}
		for _, y := range x {
			if strictSession(y) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(x, strictSession)
	}
	return false
}

func (c *Config) reject(kind string, e *errorState, name string) {
	if e == nil {
		return
	}
	if name == "" && e.Failed != nil {
		name = e.Failed.Name
	}
	if r := (Rejected{kind, name, e.Details}); !c.refused[r] {
		c.refused[r] = true
		c.Rejected = append(c.Rejected, r)
	}
}
