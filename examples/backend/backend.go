// Package backend is a small server for examples, tests and the demo: HTTP/1 and
// HTTP/2 without TLS, gRPC health, and TCP, with faults that are switched while
// it runs.
//
// Its control is HTTP on the same port:
//
//	POST /_fault?health=503&status=500&delay=2s   set faults; empty clears one
//	GET  /_count                                  requests answered so far
//
// Everything else is answered with its name.
package backend

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Backend is one running server.
type Backend struct {
	// Name is what it answers with.
	Name string
	// Addr is IP:PORT.
	Addr string

	server *http.Server
	done   chan struct{}

	health atomic.Int64 // status of /healthz, 0 is 200
	status atomic.Int64 // status of everything else, 0 is 200
	delay  atomic.Int64 // nanoseconds before an answer
	count  atomic.Int64
	open   atomic.Int64
}

// Start serves on an address; port 0 chooses one.
func Start(name, addr string) (*Backend, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", name, err)
	}
	b := &Backend{Name: name, Addr: l.Addr().String(), done: make(chan struct{})}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	b.server = &http.Server{Handler: http.HandlerFunc(b.serve), Protocols: protocols, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		_ = b.server.Serve(l) // ends by Stop or Kill
		close(b.done)
	}()
	return b, nil
}

// Stop finishes running requests, then ends.
func (b *Backend) Stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = b.server.Shutdown(ctx)
	<-b.done
}

// Kill closes every connection at once, as a crash does.
func (b *Backend) Kill() {
	_ = b.server.Close()
	<-b.done
}

// SetHealth makes /healthz and the gRPC health service answer with a status; 0
// is healthy.
func (b *Backend) SetHealth(status int) { b.health.Store(int64(status)) }

// SetStatus makes requests be answered with a status; 0 is 200.
func (b *Backend) SetStatus(status int) { b.status.Store(int64(status)) }

// SetDelay makes requests wait.
func (b *Backend) SetDelay(d time.Duration) { b.delay.Store(int64(d)) }

// Count is the number of requests answered, checks apart.
func (b *Backend) Count() int64 { return b.count.Load() }

// Open is the number of requests that run now.
func (b *Backend) Open() int64 { return b.open.Load() }

func (b *Backend) serve(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/_fault":
		b.setFaults(w, r)
	case r.URL.Path == "/_count":
		_, _ = fmt.Fprintln(w, b.Count())
	case r.URL.Path == "/healthz":
		w.WriteHeader(or(b.health.Load(), http.StatusOK))
	case strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
		b.grpcHealth(w)
	default:
		b.open.Add(1)
		defer b.open.Add(-1)
		if d := time.Duration(b.delay.Load()); d > 0 {
			select {
			case <-time.After(d):
			case <-r.Context().Done():
			}
		}
		b.count.Add(1)
		w.Header().Set("X-Backend", b.Name)
		w.WriteHeader(or(b.status.Load(), http.StatusOK))
		_, _ = fmt.Fprintf(w, "%s %s %s\n", b.Name, r.Proto, r.URL.Path)
	}
}

func or(status int64, otherwise int) int {
	if status == 0 {
		return otherwise
	}
	return int(status)
}

// grpcHealth answers every unary gRPC call as grpc.health.v1.Health/Check would:
// a message with field 1 = 1 (SERVING) or 2 (NOT_SERVING).
func (b *Backend) grpcHealth(w http.ResponseWriter) {
	serving := byte(1)
	if b.health.Load() != 0 {
		serving = 2
	}
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	_, _ = w.Write([]byte{0, 0, 0, 0, 2, 8, serving})
	w.Header().Set("Grpc-Status", "0")
}

func (b *Backend) setFaults(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	for key, set := range map[string]func(int){"health": b.SetHealth, "status": b.SetStatus} {
		if !q.Has(key) {
			continue
		}
		n, err := strconv.Atoi(q.Get(key))
		if q.Get(key) == "" {
			n, err = 0, nil
		}
		if err != nil || n != 0 && (n < 200 || n > 599) {
			http.Error(w, fmt.Sprintf("%s=%s is not a status from 200 to 599", key, q.Get(key)), http.StatusBadRequest)
			return
		}
		set(n)
	}
	if q.Has("delay") {
		d, err := time.ParseDuration("0s" + q.Get("delay"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		b.SetDelay(d)
	}
}
