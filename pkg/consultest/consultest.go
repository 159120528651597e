// Package consultest starts real Consul agents for tests and the demo: servers with
// a data directory, so that a restart finds their state again, and clients.
package consultest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"

	"github.com/hashicorp/consul/api"

	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

// Config of an agent. The zero value besides Dir is one server that leads itself.
type Config struct {
	// Dir keeps configuration and data; it exists.
	Dir string
	// Token switches ACLs on, with deny as the default; it may do everything.
	Token string
	// Servers is how many servers elect a leader together. Default 1; above that
	// Start does not wait for a leader: see Ready.
	Servers int
	// Join are addresses of other agents: their Gossip.
	Join []string
	// Datacenter, where it is not Consul's default; such a server can be joined with
	// those of others.
	Datacenter string
	// JoinWAN are servers of other datacenters: their WAN.
	JoinWAN []string
	// Client makes an agent that is no server.
	Client bool
	// HTTPS is a port for the same API over TLS; 0 is none.
	HTTPS int
	// Extra is merged into the configuration.
	Extra map[string]any
}

// Consul is a running agent.
type Consul struct {
	*proc.Process
	// Address is IP:PORT of its HTTP API, Gossip that of its gossip, WAN that of its
	// gossip with other datacenters, RPC that by which servers know each other.
	Address, Gossip, WAN, RPC string
	// Client may do everything.
	Client *api.Client

	program, file string
	alone         bool
}

// Start runs an agent and returns once it has a leader, where it can have one by
// itself.
func Start(ctx context.Context, c Config) (*Consul, error) {
	program, err := proc.Find("CONSUL", "consul")
	if err != nil {
		return nil, err
	}
	ports, err := freeport.Get(5)
	if err != nil {
		return nil, err
	}
	a := &Consul{
		Address: "127.0.0.1:" + strconv.Itoa(ports[0]), Gossip: "127.0.0.1:" + strconv.Itoa(ports[2]), RPC: "127.0.0.1:" + strconv.Itoa(ports[1]),
		WAN:     "127.0.0.1:" + strconv.Itoa(ports[4]),
		program: program, file: filepath.Join(c.Dir, "consul.json"), alone: c.Servers <= 1 && !c.Client,
	}
	text, err := json.Marshal(c.agent(ports))
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(a.file, text, 0o600); err != nil {
		return nil, err
	}
	apiConfig := api.DefaultConfig()
	apiConfig.Address, apiConfig.Token = a.Address, c.Token
	if a.Client, err = api.NewClient(apiConfig); err != nil {
		return nil, err
	}
	return a, a.Restart(ctx)
}

// agent is Consul's own configuration.
func (c Config) agent(ports []int) map[string]any {
	https, wan := -1, -1
	if c.HTTPS > 0 {
		https = c.HTTPS
	}
	if c.Datacenter != "" {
		wan = ports[4]
	}
	out := map[string]any{
		"data_dir": filepath.Join(c.Dir, "data"), "node_name": "node" + strconv.Itoa(ports[0]),
		"bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "retry_join": c.Join, "retry_interval": "200ms",
		"ports": map[string]any{
			"http": ports[0], "server": ports[1], "serf_lan": ports[2], "grpc": ports[3],
			"dns": -1, "serf_wan": wan, "grpc_tls": -1, "https": https,
		},
		"performance":          map[string]any{"raft_multiplier": 1},
		"disable_update_check": true, "leave_on_terminate": false, "log_level": "WARN",
	}
	if !c.Client {
		out["server"], out["bootstrap_expect"] = true, max(1, c.Servers)
	}
	if c.Datacenter != "" {
		out["datacenter"], out["retry_join_wan"], out["retry_interval_wan"] = c.Datacenter, c.JoinWAN, "200ms"
	}
	if c.Token != "" {
		out["acl"] = map[string]any{
			"enabled": true, "default_policy": "deny", "down_policy": "extend-cache",
			"tokens": map[string]any{"initial_management": c.Token, "agent": c.Token},
		}
	}
	maps.Copy(out, c.Extra)
	return out
}

// Restart runs the agent again on the same data and ports, after Kill or Stop.
func (c *Consul) Restart(ctx context.Context) error {
	p, err := proc.Start(c.program, []string{"agent", "-config-file", c.file}, nil)
	if err != nil {
		return err
	}
	c.Process = p
	if c.alone {
		return c.Ready(ctx)
	}
	return p.Until(ctx, func(context.Context) error {
		_, err := c.Client.Agent().Self()
		return err
	})
}

// Ready waits until the agent knows a leader whose catalogue has a server in it.
func (c *Consul) Ready(ctx context.Context) error {
	return c.Until(ctx, func(ctx context.Context) error {
		entries, _, err := c.Client.Health().Service("consul", "", false, (&api.QueryOptions{}).WithContext(ctx))
		if err == nil && len(entries) == 0 {
			err = fmt.Errorf("no server is in the catalogue yet")
		}
		return err
	})
}
