// Package traffic sends numbered requests at a constant rate and keeps a ledger
// of what became of each: the judge of the demo and of the tests with real
// programs.
package traffic

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Request is one line of the ledger.
type Request struct {
	Number  int
	Sent    time.Time
	Took    time.Duration
	Status  int    // 0: no answer
	Backend string // X-Backend of the answer
	Body    string // of an answer that is not 200, cut
	Err     error
}

// OK tells whether the client got what it wanted.
func (r Request) OK() bool { return r.Err == nil && r.Status == http.StatusOK }

// Load is running traffic.
type Load struct {
	client *http.Client
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	ledger []Request
}

// Config of a load.
type Config struct {
	URL string
	// Host that is asked for; "" is the URL's.
	Host string
	// PerSecond is the rate.
	PerSecond int
	// TLS for https; nil trusts what the machine trusts.
	TLS *tls.Config
	// Fresh opens a connection for every request.
	Fresh bool
}

// Start sends requests until Stop, each with its own deadline of 10 s. Requests do
// not wait for each other.
func Start(ctx context.Context, c Config) *Load {
	ctx, cancel := context.WithCancel(ctx)
	l := &Load{cancel: cancel, client: &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, MaxConnsPerHost: 256, TLSClientConfig: c.TLS, DisableKeepAlives: c.Fresh},
	}}
	l.wg.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(c.PerSecond))
		defer tick.Stop()
		for n := 1; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				l.wg.Go(func() { l.record(l.send(n, c.URL, c.Host)) })
			}
		}
	})
	return l
}

func (l *Load) send(n int, url, host string) (r Request) {
	r = Request{Number: n, Sent: time.Now()}
	defer func() { r.Took = time.Since(r.Sent) }()
	req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("%s?n=%d", url, n), nil) //nolint:noctx // the client has a deadline, and a request under way is finished by Stop
	if err != nil {
		r.Err = err
		return r
	}
	if host != "" {
		req.Host = host
	}
	resp, err := l.client.Do(req)
	if err != nil {
		r.Err = err
		return r
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	r.Status, r.Backend, r.Err = resp.StatusCode, resp.Header.Get("X-Backend"), err
	if r.Status != http.StatusOK {
		r.Body = strings.TrimSpace(string(body[:min(200, len(body))]))
	}
	return r
}

func (l *Load) record(r Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ledger = append(l.ledger, r)
}

// Stop sends no more, waits for what runs, and returns the ledger in the order
// of sending.
func (l *Load) Stop() []Request {
	l.cancel()
	l.wg.Wait()
	l.client.CloseIdleConnections()
	return l.Since(time.Time{})
}

// Since returns the finished requests that were sent at or after a moment, in
// the order of sending.
func (l *Load) Since(t time.Time) []Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Request
	for _, r := range l.ledger {
		if !r.Sent.Before(t) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b Request) int { return a.Number - b.Number })
	return out
}

// Summary counts a ledger.
type Summary struct {
	Total, OK int
	Backends  map[string]int
	Failures  map[string]int // by "503 no healthy upstream" or error
}

// Sum counts requests.
func Sum(requests []Request) Summary {
	s := Summary{Total: len(requests), Backends: map[string]int{}, Failures: map[string]int{}}
	for _, r := range requests {
		switch {
		case r.OK():
			s.OK++
			s.Backends[r.Backend]++
		case r.Err != nil:
			s.Failures[r.Err.Error()]++
		default:
			s.Failures[strings.TrimSpace(fmt.Sprintf("%d %s", r.Status, r.Body))]++
		}
	}
	return s
}

// Failed counts the requests that were not answered with 200.
func (s Summary) Failed() int { return s.Total - s.OK }
