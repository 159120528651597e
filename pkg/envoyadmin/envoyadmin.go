// Package envoyadmin asks an Envoy's admin port what it holds: GET requests to
// /clusters, with a deadline and a limit on size.
package envoyadmin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

const (
	deadline = 2 * time.Second
	maxBody  = 64 << 20
)

// MetadataKey is where a bootstrap writes its admin's address in the node.
const MetadataKey = "wellspring.admin"

// Policy says which admins may be asked. A node's word is only a hint: it must
// not make the control plane connect to anything that is not that proxy.
type Policy struct {
	// SocketDir is the only folder whose unix sockets are asked; "" is none.
	SocketDir string
	// OwnPorts are the control plane's, which are never asked.
	OwnPorts []uint16
}

// Client returns a client for a proxy's admin, or why it may not be asked.
func (p Policy) Client(x model.Proxy) (*Client, error) {
	addr := x.Metadata[MetadataKey]
	switch {
	case addr == "":
		return nil, fmt.Errorf("its node metadata has no %s; start it with a bootstrap of `wellspring bootstrap`", MetadataKey)
	case strings.HasPrefix(addr, "/"):
		real, err := filepath.EvalSymlinks(addr)
		if p.SocketDir == "" || err != nil || !below(p.SocketDir, real) {
			return nil, fmt.Errorf("its admin socket %s is not below envoyAdmin.socketDir", addr)
		}
		return newClient("unix", real), nil
	}
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("its admin address %q is not IP:PORT", addr)
	}
	peer, err := netip.ParseAddrPort(x.Peer)
	switch {
	case err != nil || peer.Addr().Unmap() != ap.Addr().Unmap():
		return nil, fmt.Errorf("its admin address %s is not the address that it connects from (%s)", addr, x.Peer)
	case slices.Contains(p.OwnPorts, ap.Port()):
		return nil, fmt.Errorf("its admin address %s is a port of the control plane", addr)
	}
	return newClient("tcp", addr), nil
}

// below tells whether a path, free of links, lies below a folder.
func below(dir, path string) bool {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return false
	}
	return strings.HasPrefix(path, dir+string(filepath.Separator))
}

// Client asks one Envoy.
type Client struct{ http *http.Client }

func newClient(network, address string) *Client {
	return &Client{&http.Client{
		Timeout:       deadline,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}},
	}}
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
}

// Clusters returns the hosts of one cluster, by address; none where the Envoy
// does not have it.
func (c *Client) Clusters(ctx context.Context, name string) ([]Host, error) {
	all, err := c.AllClusters(ctx)
	return all[name], err
}

// AllClusters returns the hosts of every cluster, by address.
func (c *Client) AllClusters(ctx context.Context) (map[string][]Host, error) {
	body, err := c.get(ctx, "/clusters?format=json")
	if err != nil {
		return nil, err
	}
	var all struct {
		Clusters []struct {
			Name  string       `json:"name"`
			Hosts []hostStatus `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, fmt.Errorf("read /clusters: %w", err)
	}
	out := make(map[string][]Host, len(all.Clusters))
	for _, cl := range all.Clusters {
		hosts := make([]Host, 0, len(cl.Hosts))
		for _, h := range cl.Hosts {
			hosts = append(hosts, h.host())
		}
		slices.SortFunc(hosts, func(a, b Host) int { return strings.Compare(a.Address, b.Address) })
		out[cl.Name] = hosts
	}
	return out, nil
}

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

type hostStatus struct {
	Address struct {
		Socket struct {
			Address string `json:"address"`
			Port    int    `json:"port_value"`
		} `json:"socket_address"`
	} `json:"address"`
	Hostname string         `json:"hostname"`
	Health   map[string]any `json:"health_status"`
}

func (h hostStatus) host() Host {
	out := Host{Address: net.JoinHostPort(h.Address.Socket.Address, fmt.Sprint(h.Address.Socket.Port)), Usable: true}
	if h.Hostname != "" {
		out.Name = net.JoinHostPort(h.Hostname, fmt.Sprint(h.Address.Socket.Port))
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
	slices.Sort(out.Flags)
	for _, f := range out.Flags {
		switch f {
		case "pending_dynamic_removal":
		case "eds_degraded", "failed_active_degraded_check", "failed_degraded_outlier_detection":
			out.Degraded = true
		case "eds_draining", "excluded_via_immediate_hc_fail", "pending_active_hc":
			out.Usable, out.Excluded = false, true
		default:
			out.Usable = false
		}
	}
	out.Degraded = out.Degraded && out.Usable
	return out
}

func (c *Client) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://envoy"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask Envoy's admin: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("ask Envoy's admin: GET %s: %s", path, resp.Status)
	}
	return body, err
}
