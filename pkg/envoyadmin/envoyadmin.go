// Package envoyadmin asks an Envoy's admin port what it holds: GET requests to
// /clusters, /stats and /config_dump, with a deadline and a limit on size. What was
// saved of them is read alike.
package envoyadmin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

const (
	deadline = 2 * time.Second
	patience = 30 * time.Second // of a person who asks one Envoy for all
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
		return newClient("unix", real, deadline), nil
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
	return newClient("tcp", addr, deadline), nil
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

// At returns a client for the admin at an address that a person names: HOST:PORT,
// http://HOST:PORT or unix:///path.
func At(address string) (*Client, error) {
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("%q is not unix:///path", address)
		}
		return newClient("unix", path, patience), nil
	}
	hostPort := strings.TrimSuffix(strings.TrimPrefix(address, "http://"), "/")
	if _, port, err := net.SplitHostPort(hostPort); err != nil || port == "" || strings.Contains(hostPort, "/") {
		return nil, fmt.Errorf("%q is neither HOST:PORT, http://HOST:PORT nor unix:///path", address)
	}
	return newClient("tcp", hostPort, patience), nil
}

// Client asks one Envoy.
type Client struct{ http *http.Client }

func newClient(network, address string, deadline time.Duration) *Client {
	return &Client{&http.Client{
		Timeout:       deadline,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}},
	}}
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
	clusters, err := ParseClusters(body)
	if err != nil {
		return nil, err
	}
	out := make(map[string][]Host, len(clusters))
	for name, cl := range clusters {
		out[name] = cl.Hosts
	}
	return out, nil
}

func (c *Client) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://envoy"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var of *url.Error
		if errors.As(err, &of) {
			err = of.Err // its URL is our own, and long
		}
		return nil, fmt.Errorf("ask Envoy's admin: GET %s: %w", strings.SplitN(path, "?", 2)[0], err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if len(body) > maxBody {
		err = fmt.Errorf("GET %s answers with more than %d bytes", path, maxBody)
	}
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("ask Envoy's admin: GET %s: %s", path, resp.Status)
	}
	return body, err
}
