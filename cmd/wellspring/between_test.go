package main_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// between is a way to a Consul that can be told to do worse.
type between struct {
	*httptest.Server

	mu     sync.Mutex
	holds  func(*http.Request) bool // whose answers are held back; nil is none
	away   bool
	turned chan struct{} // closed when that changes
}

func newBetween(t *testing.T, consul string) *between {
	t.Helper()
	b := &between{turned: make(chan struct{})}
	to := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: consul})
	to.ModifyResponse = func(r *http.Response) error { return b.hold(r.Request) }
	to.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b.isAway() {
			panic(http.ErrAbortHandler)
		}
		to.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		b.turn(false, nil)
		b.CloseClientConnections()
		b.Close()
	})
	return b
}

// turn says whether it is away, and whose answers it holds back; those of before go on.
func (b *between) turn(away bool, holds func(*http.Request) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away, b.holds = away, holds
	close(b.turned)
	b.turned = make(chan struct{})
}

func (b *between) isAway() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.away
}

// hold returns when an answer may go.
func (b *between) hold(r *http.Request) error {
	b.mu.Lock()
	holds, turned := b.holds, b.turned
	b.mu.Unlock()
	if holds == nil || !holds(r) {
		return nil
	}
	select {
	case <-turned:
		return nil
	case <-r.Context().Done():
		return r.Context().Err()
	}
}

// reads are those of who is in a service, Consul itself apart; waits those of them that
// wait for a change.
func reads(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, "/v1/health/service/") && !strings.HasSuffix(r.URL.Path, "/consul")
}

func waits(r *http.Request) bool { return reads(r) && r.URL.Query().Has("index") }

// way leads to an address. While it is locked nothing passes, and nobody is told.
type way struct {
	address string // a socket, unix:// and its path, or IP:PORT
	sync.RWMutex
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
	p.way.RLock()
	defer p.way.RUnlock()
	return p.Conn.Write(b)
}
