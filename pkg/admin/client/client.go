// Package client calls the admin API. It is what the command line uses.
package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Client calls one server.
type Client struct {
	base string
	http *http.Client
}

// New returns a client of the server at an address, HOST:PORT or http://….
func New(server string) *Client {
	if !strings.Contains(server, "://") {
		server = "http://" + server
	}
	return &Client{base: strings.TrimRight(server, "/"), http: &http.Client{}}
}

// AddressError means that the server's address cannot be one.
type AddressError struct {
	Server string
	Err    error
}

func (e *AddressError) Error() string {
	return fmt.Sprintf("--server %s is not HOST:PORT or a URL: %v", e.Server, e.Err)
}

// Unwrap returns the cause.
func (e *AddressError) Unwrap() error { return e.Err }

// UnreachableError means that no server answered.
type UnreachableError struct {
	Server string
	Err    error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no server answers at %s: %v; start one with `wellspring serve`, or name it with --server", e.Server, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Call sends a request and reads a JSON answer into out (nil: it is dropped). An
// answer that is not 2xx is a *admin.Error.
func (c *Client) Call(ctx context.Context, method, path string, query url.Values, body []byte, header http.Header, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	resp, err := c.send(ctx, method, path, query, body, header)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("read the answer to %s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return errorOf(resp, text)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("read the answer to %s %s: %w", method, path, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, query url.Values, body []byte, header http.Header) (*http.Response, error) {
	u := c.base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, bytes.NewReader(body))
	if err != nil {
		return nil, &AddressError{c.base, err}
	}
	if header != nil {
		req.Header = header.Clone()
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/yaml")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, &UnreachableError{c.base, err}
	}
	return resp, nil
}

func errorOf(resp *http.Response, text []byte) error {
	p := &admin.Error{}
	if json.Unmarshal(text, p) != nil || p.Detail == "" {
		return &admin.Error{Status: resp.StatusCode, Title: resp.Status, Detail: fmt.Sprintf("the server answered %s: %.200s", resp.Status, text)}
	}
	return p
}

// Get reads a path into out.
func (c *Client) Get(ctx context.Context, path string, query url.Values, out any) error {
	return c.Call(ctx, http.MethodGet, path, query, nil, nil, out)
}

// Apply sends documents; dry only says what would change.
func (c *Client) Apply(ctx context.Context, documents []byte, message string, dry bool) (out admin.Outcome, err error) {
	q := url.Values{}
	if message != "" {
		q.Set("message", message)
	}
	if dry {
		q.Set("dryRun", "true")
	}
	return out, c.Call(ctx, http.MethodPost, "/v1/apply", q, documents, nil, &out)
}

// Watch streams events after an id ("" is from now on) until ctx ends or the
// connection breaks; it then returns the last id, from which to go on.
func (c *Client) Watch(ctx context.Context, after string, each func(model.Event) error) (last string, err error) {
	h := http.Header{}
	if after != "" {
		h.Set("Last-Event-ID", after)
	}
	resp, err := c.send(ctx, http.MethodGet, "/v1/events", url.Values{"watch": {"true"}}, nil, h)
	if err != nil {
		return after, err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		return after, errorOf(resp, text)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var e model.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return after, fmt.Errorf("read event: %w", err)
		}
		after = e.ID
		if err := each(e); err != nil {
			return after, err
		}
	}
	return after, lines.Err()
}
