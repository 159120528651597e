package main_test

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// between is a way to a Consul that can be told to do worse.
type between struct {
	*httptest.Server

	mu     sync.Mutex
	does   conduct
	turned chan struct{}       // closed when that changes
	last   map[string]lastSaid // by path
}

// conduct is what it does.
type conduct int

const (
	passesOn conduct = iota
	isAway           // it cuts connections
	isMute           // who is in a service is not answered
	isStuck          // who waits for a change hears that there is none
)

// lastSaid is an answer.
type lastSaid struct {
	header http.Header
	body   []byte
}

func newBetween(t *testing.T, consul string) *between {
	t.Helper()
	b := &between{turned: make(chan struct{}), last: map[string]lastSaid{}}
	to := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: consul})
	to.ModifyResponse = b.answers
	to.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		does, turned, last := b.now(r)
		switch {
		case does == isAway:
			panic(http.ErrAbortHandler)
		case does == isStuck && waits(r) && last.body != nil:
			wait, _ := time.ParseDuration(r.URL.Query().Get("wait"))
			select {
			case <-turned:
			case <-r.Context().Done():
				return
			case <-time.After(wait):
				maps.Copy(w.Header(), last.header)
				_, _ = w.Write(last.body)
				return
			}
		}
		to.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		b.turn(passesOn)
		b.CloseClientConnections()
		b.Close()
	})
	return b
}

// turn says what it does from now on.
func (b *between) turn(does conduct) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.does = does
	close(b.turned)
	b.turned = make(chan struct{})
}

func (b *between) now(r *http.Request) (conduct, <-chan struct{}, lastSaid) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.does, b.turned, b.last[r.URL.Path]
}

// answers passes on what Consul says, or what it said before.
func (b *between) answers(r *http.Response) error {
	if !reads(r.Request) {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	does, turned, last := b.now(r.Request)
	switch {
	case does == isMute:
		select {
		case <-turned:
		case <-r.Request.Context().Done():
			return r.Request.Context().Err()
		}
	case does == isStuck && waits(r.Request) && last.body != nil: // it was asked before
		r.Header, body = last.header.Clone(), last.body
	case r.StatusCode == http.StatusOK:
		b.mu.Lock()
		b.last[r.Request.URL.Path] = lastSaid{r.Header.Clone(), body}
		b.mu.Unlock()
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return nil
}

// reads are those of who is in a service, Consul itself apart; waits those of them that
// wait for a change.
func reads(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, "/v1/health/service/") && !strings.HasSuffix(r.URL.Path, "/consul")
}

func waits(r *http.Request) bool { return reads(r) && r.URL.Query().Has("index") }

// way leads to an address. While it is shut nothing passes, and nobody is told.
type way struct {
	address string // a socket, unix:// and its path, or IP:PORT
	ended   context.Context

	mu   sync.Mutex
	gate chan struct{} // closed while it is open
}

// shut holds back what is on its way.
func (w *way) shut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gate = make(chan struct{})
}

// open lets it pass.
func (w *way) open() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.gate)
}

func (w *way) passes() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gate
}

// relay is a way from a socket: that is reached from every network namespace.
func relay(t *testing.T, to string) string {
	t.Helper()
	return newWay(t, "unix", t.TempDir()+"/s", to).address
}

func newWay(t *testing.T, network, from, to string) *way {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), network, from)
	if err != nil {
		t.Fatal(err)
	}
	w := &way{address: l.Addr().String()}
	if network == "unix" {
		w.address = "unix://" + from
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.ended, w.gate = ctx, make(chan struct{})
	w.open()
	var all sync.WaitGroup
	all.Go(func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				_ = a.Close()
				continue
			}
			context.AfterFunc(ctx, func() { _, _ = a.Close(), b.Close() })
			for _, x := range [][2]net.Conn{{a, b}, {b, a}} {
				all.Go(func() {
					_, _ = io.Copy(passing{x[0], w}, x[1])
					_, _ = x[0].Close(), x[1].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		cancel()
		all.Wait()
	})
	return w
}

// passing writes when its way is open.
type passing struct {
	net.Conn
	way *way
}

func (p passing) Write(b []byte) (int, error) {
	select {
	case <-p.way.passes():
		return p.Conn.Write(b)
	case <-p.way.ended.Done():
		return 0, net.ErrClosed
	}
}
