// Package client calls the admin API. It is what the command line uses.
package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Config of a client.
type Config struct {
	// Server is HOST:PORT, http(s)://HOST:PORT or unix:///path. HOST:PORT is https
	// where CA or Cert is given.
	Server string
	// Token that is sent with every request; "" sends none. TokenFile is a file with
	// it, which goes before.
	Token, TokenFile string
	// CA is a file with the authorities of the server's certificate; "" is the
	// machine's.
	CA string
	// Cert and Key are files with the client's certificate; "" presents none.
	Cert, Key string
}

// Client calls one server.
type Client struct {
	server string
	base   string
	token  string
	http   *http.Client
	fault  error
}

// New returns a client. What is wrong with its configuration (a file that cannot be
// used, a token that would travel in the clear) is the error of every call.
func New(c Config) *Client {
	out, err := open(c)
	if err != nil {
		return &Client{fault: err}
	}
	return out
}

func open(c Config) (*Client, error) {
	if c.TokenFile != "" {
		text, err := os.ReadFile(c.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("--token-file: %w", err)
		}
		if c.Token = strings.TrimSpace(string(text)); !tokenForm.MatchString(c.Token) {
			return nil, fmt.Errorf("--token-file: %s does not hold a token and nothing else", c.TokenFile)
		}
	}
	if c.Token != "" && !tokenForm.MatchString(c.Token) {
		return nil, errors.New("WELLSPRING_TOKEN does not hold a token")
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
	out := &Client{server: c.Server, base: c.Server, token: c.Token, http: &http.Client{Transport: transport}}
	if path, ok := strings.CutPrefix(c.Server, "unix://"); ok {
		if c.CA != "" || c.Cert != "" || c.Key != "" {
			return nil, &AddressError{c.Server, errors.New("a socket is not encrypted; leave --ca, --cert and --key out")}
		}
		out.base = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
		return out, nil
	}
	if !strings.Contains(out.base, "://") {
		scheme := "http://"
		if c.CA != "" || c.Cert != "" {
			scheme = "https://"
		}
		out.base = scheme + out.base
	}
	out.base = strings.TrimRight(out.base, "/")
	u, err := url.Parse(out.base)
	if err != nil {
		return nil, &AddressError{c.Server, err}
	}
	if u.Scheme != "https" && c.Token != "" && !loopback(u.Hostname()) {
		return nil, &AddressError{c.Server, errors.New("a token would travel in the clear; write https://")}
	}
	if transport.TLSClientConfig, err = clientTLS(c); err != nil {
		return nil, err
	}
	return out, nil
}

// tokenForm is what a header may carry (RFC 6750, section 2.1).
var tokenForm = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func clientTLS(c Config) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		text, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, err
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s has no certificate in PEM form in it", c.CA)
		}
	}
	if c.Cert != "" || c.Key != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("--cert and --key: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// AddressError means that the server's address cannot be one.
type AddressError struct {
	Server string
	Err    error
}

func (e *AddressError) Error() string {
	return fmt.Sprintf("--server %s cannot be used: %v", e.Server, e.Err)
}

// Unwrap returns the cause.
func (e *AddressError) Unwrap() error { return e.Err }

// UnreachableError means that no server answered.
type UnreachableError struct {
	Server string
	Err    error
}

func (e *UnreachableError) Error() string {
	var untrusted *tls.CertificateVerificationError
	var name x509.HostnameError
	switch {
	case errors.As(e.Err, &name):
		return fmt.Sprintf("the server at %s is not trusted: %v; call it by a name that its certificate has", e.Server, name)
	case errors.As(e.Err, &untrusted):
		return fmt.Sprintf("the server at %s is not trusted: %v; name the authority of its certificate with --ca", e.Server, untrusted.Err)
	}
	return fmt.Sprintf("no server answers at %s: %v; start one with `wellspring serve`, or name it with --server", e.Server, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Call sends a request, with in as JSON where it is not nil, and reads a JSON answer
// into out (nil: it is dropped). An answer that is not 2xx is a *admin.Error.
func (c *Client) Call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	if in == nil {
		return c.call(ctx, method, path, query, nil, nil, out)
	}
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return c.call(ctx, method, path, query, body, http.Header{"Content-Type": {"application/json"}}, out)
}

func (c *Client) call(ctx context.Context, method, path string, query url.Values, body []byte, header http.Header, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	resp, err := c.send(ctx, method, path, query, body, header)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(resp.Body)
	if err == nil && out != nil {
		err = json.Unmarshal(text, out)
	}
	if err != nil {
		return fmt.Errorf("read the answer to %s %s: %w", method, path, err)
	}
	return nil
}

// send returns an answer that is 2xx, whose body its caller closes; every other one
// is an error.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, body []byte, header http.Header) (*http.Response, error) {
	if c.fault != nil {
		return nil, c.fault
	}
	u := c.base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, bytes.NewReader(body))
	if err != nil {
		return nil, &AddressError{c.server, err}
	}
	if header != nil {
		req.Header = header.Clone()
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, &UnreachableError{c.server, err}
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close() //nolint:errcheck // read only
		return nil, errorOf(resp)
	}
	return resp, nil
}

// most is how much of a refusal is read.
const most = 4 << 20

func errorOf(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, most))
	p := &admin.Error{}
	if json.Unmarshal(text, p) != nil || p.Detail == "" {
		return &admin.Error{Status: resp.StatusCode, Title: resp.Status, Detail: fmt.Sprintf("the server answered %s: %.200s", resp.Status, text)}
	}
	return p
}

// Get reads a path into out.
func (c *Client) Get(ctx context.Context, path string, query url.Values, out any) error {
	return c.Call(ctx, http.MethodGet, path, query, nil, out)
}

// Download writes what a path answers with, however long it takes, and returns the
// answer's header.
func (c *Client) Download(ctx context.Context, path string, to io.Writer) (http.Header, error) {
	resp, err := c.send(ctx, http.MethodGet, path, nil, nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	if _, err := io.Copy(to, resp.Body); err != nil {
		return nil, fmt.Errorf("read the answer to %s: %w", path, err)
	}
	return resp.Header, nil
}

// Text reads a path that answers in plain text.
func (c *Client) Text(ctx context.Context, path string) (string, error) {
	resp, err := c.send(ctx, http.MethodGet, path, nil, nil, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// How documents are applied. The zero value sets them.
type How struct {
	// Message for the history.
	Message string
	// DryRun only says what would change.
	DryRun bool
	// Prune is a label, KEY=VALUE: documents that carry it and are not sent are
	// deleted. "" deletes none.
	Prune string
}

// Apply sends documents.
func (c *Client) Apply(ctx context.Context, documents []byte, how How) (out admin.Outcome, err error) {
	q := url.Values{}
	for name, v := range map[string]string{"message": how.Message, "prune": how.Prune} {
		if v != "" {
			q.Set(name, v)
		}
	}
	if how.DryRun {
		q.Set("dryRun", "true")
	}
	header := http.Header{"Content-Type": {"application/yaml"}}
	return out, c.call(ctx, http.MethodPost, "/v1/apply", q, documents, header, &out)
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
