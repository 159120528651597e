// Package envoytest starts a real Envoy for tests and the demo.
package envoytest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

// Config of an Envoy.
type Config struct {
	// Program is the binary; empty finds it by ENVOY, .tools/bin or PATH.
	Program string
	// Bootstrap; an empty Admin is chosen.
	Bootstrap bootstrap.Config
	// Change alters the bootstrap that was built; nil leaves it as it is.
	Change func(*bootstrapv3.Bootstrap)
	// Within is a command that runs it, with its arguments: ip netns exec NAME.
	Within []string
	// Dir keeps the bootstrap file; it exists.
	Dir string
	// Log takes Envoy's output besides the tail that is kept; nil drops it.
	Log io.Writer
}

// Envoy is a running Envoy.
type Envoy struct {
	*proc.Process
	// Admin is IP:PORT of its admin, or the path of its socket.
	Admin string

	client *http.Client
}

// Find returns the Envoy binary of a minor version: "" for the newest, "1.37".
func Find(version string) (string, error) {
	if version == "" {
		return proc.Find("ENVOY", "envoy")
	}
	return proc.Find("ENVOY_"+version, "envoy-"+version)
}

// Start runs an Envoy and returns once its admin answers; it need not be ready.
func Start(ctx context.Context, c Config) (*Envoy, error) {
	program := c.Program
	if program == "" {
		var err error
		if program, err = Find(""); err != nil {
			return nil, err
		}
	}
	if c.Bootstrap.Admin == "" {
		addr, err := freeport.Addr()
		if err != nil {
			return nil, err
		}
		c.Bootstrap.Admin = addr
	}
	b, err := bootstrap.New(c.Bootstrap)
	if err != nil {
		return nil, err
	}
	if c.Change != nil {
		c.Change(b)
	}
	text, err := bootstrap.YAML(b)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(c.Dir, c.Bootstrap.NodeID+".yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	drain := cmp.Or(c.Bootstrap.DrainTime, 600*time.Second)
	var also []io.Writer
	if c.Log != nil {
		also = append(also, c.Log)
	}
	args := append(slices.Clone(c.Within), program,
		"-c", file, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning", "--file-flush-interval-msec", "200",
		"--drain-time-s", strconv.Itoa(int(max(1, drain.Seconds()))), "--drain-strategy", "immediate",
	)
	p, err := proc.Start(args[0], args[1:], nil, also...)
	if err != nil {
		return nil, err
	}
	e := &Envoy{Process: p, Admin: c.Bootstrap.Admin}
	e.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		network := "tcp"
		if strings.HasPrefix(e.Admin, "/") {
			network = "unix"
		}
		return (&net.Dialer{}).DialContext(ctx, network, e.Admin)
	}}}
	if err := p.Until(ctx, func(ctx context.Context) error {
		_, err := e.Get(ctx, "/server_info")
		return err
	}); err != nil {
		p.Kill()
		return nil, err
	}
	return e, nil
}

// Ready waits until Envoy serves.
func (e *Envoy) Ready(ctx context.Context) error {
	return e.Until(ctx, func(ctx context.Context) error {
		_, err := e.Get(ctx, "/ready")
		return err
	})
}

// Get asks the admin for a path and returns the body of a 200.
func (e *Envoy) Get(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://envoy"+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %.200s", path, resp.Status, body)
	}
	return string(body), err
}
