// Package consultest starts a real Consul for tests and the demo: one server
// with a data directory, so that a restart finds its state again.
package consultest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/hashicorp/consul/api"

	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

// Consul is a running server.
type Consul struct {
	*proc.Process
	// Address is IP:PORT of its HTTP API.
	Address string
	Client  *api.Client

	program, file string
}

// Start runs a server with its data below dir and returns once it has a leader.
// extra is merged into its configuration.
func Start(ctx context.Context, dir string, extra map[string]any) (*Consul, error) {
	program, err := proc.Find("CONSUL", "consul")
	if err != nil {
		return nil, err
	}
	ports, err := freeport.Get(5)
	if err != nil {
		return nil, err
	}
	config := map[string]any{
		"server": true, "bootstrap_expect": 1, "data_dir": filepath.Join(dir, "data"),
		"bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "node_name": "node1",
		"ports": map[string]any{
			"http": ports[0], "server": ports[1], "serf_lan": ports[2], "grpc": ports[3],
			"dns": -1, "serf_wan": -1, "grpc_tls": -1, "https": -1,
		},
		"performance":          map[string]any{"raft_multiplier": 1},
		"disable_update_check": true, "leave_on_terminate": false, "log_level": "WARN",
	}
	for k, v := range extra {
		config[k] = v
	}
	text, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	c := &Consul{Address: "127.0.0.1:" + strconv.Itoa(ports[0]), program: program, file: filepath.Join(dir, "consul.json")}
	if err := os.WriteFile(c.file, text, 0o600); err != nil {
		return nil, err
	}
	apiConfig := api.DefaultConfig()
	apiConfig.Address = c.Address
	if c.Client, err = api.NewClient(apiConfig); err != nil {
		return nil, err
	}
	return c, c.Restart(ctx)
}

// Restart runs the server again on the same data and ports, after Kill or Stop.
func (c *Consul) Restart(ctx context.Context) error {
	p, err := proc.Start(c.program, []string{"agent", "-config-file", c.file}, nil)
	if err != nil {
		return err
	}
	c.Process = p
	return p.Until(ctx, func(ctx context.Context) error {
		entries, _, err := c.Client.Health().Service("consul", "", false, (&api.QueryOptions{}).WithContext(ctx))
		if err == nil && len(entries) == 0 {
			err = fmt.Errorf("the server is not in its own catalogue yet")
		}
		return err
	})
}
