// Package telemetry takes what Envoys report: statistics by OTLP, over HTTP
// (compressed, Envoy 1.40) or gRPC, and the access logs of failed requests over
// gRPC. It decodes, holds each report against the stream of the node that it says it
// is of, and hands it to pkg/fleet.
//
// It has a listener of its own, and takes a part of the machine only, so that its
// load never delays xDS: as many reports are read at once as half of the cores, a
// proxy may report once a second, and all together Rate points a second. What is
// over a limit is dropped and counted by the limit; an Envoy does not send it again,
// and need not, since counters come as totals.
//
//	report ─► Credential ─► fleet.Prove ─► limits ─► export ─► fleet.Report
//	failed requests ─► limits ─► Credential ─► fleet.Prove ─► fleet.Failed
//
// Decisions:
//   - Who reports is said in a header, not in the body: a report that counts for
//     nobody is turned away before it is read.
//   - gRPC runs on net/http's server, beside OTLP over HTTP, on one port. It is
//     slower than gRPC's own, and reads ahead of its handler without a bound, so that
//     bodies are bounded, and those that do not end are read slowly. What is fast here
//     is what Envoy 1.40 uses.
//   - Of a message of access logs no more is decoded than whose it is, until that counts.
//   - A body is bounded compressed and uncompressed.
package telemetry

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/access"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
)

// Config of a server. Zero values are the defaults.
type Config struct {
	Fleet  *fleet.Fleet
	Logger *slog.Logger
	// NeedCertificate turns away who comes without a client certificate.
	NeedCertificate bool
	// MaxReport is the most bytes of a report, compressed and uncompressed. Default
	// 8 MiB.
	MaxReport int
	// Rate is the most bytes of reports a second, uncompressed, of all proxies. Default
	// 30 MB for each core that may be used: some 300,000 points, and a third of it.
	Rate int
	// Failures is the most failed requests a second that are looked at, of all
	// proxies. Default 2,000 for each core that may be used.
	Failures int
}

const (
	defaultMaxReport = 8 << 20
	defaultRate      = 30_000_000
	defaultFailures  = 2_000
	patience         = 250 * time.Millisecond // of a report, for its turn
	bodies           = 32                     // that are received at once
	maxHeader        = 16 << 10
	headerTimeout    = 10 * time.Second
	bodyTimeout      = 10 * time.Second
	idleTimeout      = 2 * time.Minute
	maxLogs          = 512 << 10 // bytes of one message of access logs; a node has 61 kB
	logsRate         = 8 << 20   // bytes a second, of all streams; an Envoy whose are not read drops and counts them
)

// Server takes reports.
type Server struct {
	cfg      Config
	metrics  *counts
	bodies   chan struct{} // that are received
	turns    chan struct{} // that are read
	bytes    *rate.Limiter
	failures *rate.Limiter
	logs     *rate.Limiter // in bytes, of all streams of access logs
	quotas   quotas
}

// New returns a server.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cores := max(1, runtime.GOMAXPROCS(0)/2)
	cfg.MaxReport = cmp.Or(cfg.MaxReport, defaultMaxReport)
	cfg.Rate = cmp.Or(cfg.Rate, defaultRate*cores)
	cfg.Failures = cmp.Or(cfg.Failures, defaultFailures*cores)
	return &Server{
		cfg: cfg, metrics: newCounts(cfg.Fleet), bodies: make(chan struct{}, bodies), turns: make(chan struct{}, cores),
		bytes:    rate.NewLimiter(rate.Limit(cfg.Rate), max(cfg.MaxReport, cfg.Rate/2)),
		failures: rate.NewLimiter(rate.Limit(cfg.Failures), cfg.Failures),
		logs:     rate.NewLimiter(logsRate, logsRate),
	}
}

// HTTP returns the server of a listener. HTTP/2 is spoken without TLS too, where a
// client begins with it.
func (s *Server) HTTP() *http.Server {
	passing := grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(proto.Name)})
	reports, logs := grpc.NewServer(grpc.MaxRecvMsgSize(s.cfg.MaxReport), passing), grpc.NewServer(grpc.MaxRecvMsgSize(maxLogs), passing)
	reports.RegisterService(&metricsService, s)
	logs.RegisterService(&accessLogService, s)
	mux := http.NewServeMux() // what is not listed here is closed
	mux.Handle("POST /v1/metrics", s.admitted(http.HandlerFunc(s.post)))
	mux.Handle("POST "+exportMethod, s.admitted(reports))
	mux.Handle("POST "+logsMethod, s.slowed(logs))
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: s.known(mux), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader, Protocols: protocols,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 16, MaxReceiveBufferPerConnection: 1 << 20, MaxReceiveBufferPerStream: 256 << 10},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, addressKey{}, c.RemoteAddr())
		},
	}
}

// caller is whose request it is, as its connection and its headers tell.
type caller struct {
	fleet.Credential
	node string
}

type (
	addressKey struct{}
	callerKey  struct{}
)

// known finds out who comes, and turns away who has no certificate where one is
// needed.
func (s *Server) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := caller{fleet.Credential{Key: plain(r.Header, bootstrap.KeyHeader)}, plain(r.Header, bootstrap.NodeHeader)}
		if r.TLS != nil {
			c.Names = access.Names(r.TLS)
		}
		c.Private = r.TLS != nil
		switch a := r.Context().Value(addressKey{}).(type) {
		case *net.UnixAddr:
			c.Private, c.Peer = true, "unix"
		case *net.TCPAddr:
			ip := a.AddrPort().Addr().Unmap()
			c.Private, c.Peer = c.Private || ip.IsLoopback(), ip.String()
		}
		if s.cfg.NeedCertificate && len(c.Names) == 0 {
			s.metrics.drop(droppedStranger)
			http.Error(w, "a client certificate with a name in it is needed", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// plain is the text of a header of ours; "" where it is none.
func plain(h http.Header, name string) string {
	text, err := bootstrap.Header.DecodeString(h.Get(name))
	if err != nil {
		return ""
	}
	return string(text)
}

// admitted lets in a report that counts for a node, and for which there is room.
func (s *Server) admitted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(callerKey{}).(caller)
		if status, why := s.prove(c); status != http.StatusOK {
			http.Error(w, why, status)
			return
		}
		q := s.quotas.of(c.node)
		if !q.reports.Allow() || !q.body.TryLock() { // one at a time
			s.tooMuch(w, droppedProxy)
			return
		}
		defer q.body.Unlock()
		r.Body = http.MaxBytesReader(w, r.Body, int64(s.cfg.MaxReport)+1<<10) // gRPC reads ahead
		if s.bytes.Tokens() <= 0 {
			s.tooMuch(w, droppedRate)
			return
		}
		done, ok := turn(r.Context(), s.bodies)
		if !ok {
			s.tooMuch(w, droppedBusy)
			return
		}
		defer done()
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // a reader without deadlines ends with its connection
		next.ServeHTTP(w, r)
	})
}

// prove says whether a caller's reports count, and why they do not.
func (s *Server) prove(c caller) (code int, why string) {
	switch proof, why := s.cfg.Fleet.Prove(c.node, c.Credential); proof {
	case fleet.Refused:
		s.metrics.drop(droppedRefused)
		s.cfg.Fleet.Refuse(c.node, c.Peer, why)
		return http.StatusForbidden, "refused: " + why
	case fleet.Unverified:
		s.metrics.drop(droppedUnverified)
		return http.StatusUnauthorized, "unverified, so that it proves nothing: " + why
	}
	return http.StatusOK, ""
}

func (s *Server) tooMuch(w http.ResponseWriter, limit string) {
	s.metrics.drop(limit)
	http.Error(w, "dropped for want of room ("+limit+")", http.StatusTooManyRequests)
}

// turn waits for a place, not for long.
func turn(ctx context.Context, places chan struct{}) (done func(), ok bool) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, true
	default:
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case places <- struct{}{}:
		return func() { <-places }, true
	case <-t.C:
	case <-ctx.Done():
	}
	return nil, false
}

// post takes a report over HTTP.
func (s *Server) post(w http.ResponseWriter, r *http.Request) {
	c, _ := r.Context().Value(callerKey{}).(caller)
	body, err := s.body(w, r)
	if err == nil {
		err = s.take(r.Context(), c.node, body, r.Header.Get("Content-Encoding") == "gzip")
	}
	var large *http.MaxBytesError
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/x-protobuf") // an empty ExportMetricsServiceResponse
	case errors.As(err, &large), errors.Is(err, errTooLarge):
		s.metrics.drop(droppedSize)
		http.Error(w, errTooLarge.Error(), http.StatusRequestEntityTooLarge)
	case errors.Is(err, errNoRoom):
		http.Error(w, err.Error(), http.StatusTooManyRequests)
	default:
		s.metrics.drop(droppedMalformed)
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

var (
	errTooLarge = errors.New("the report is larger than is taken")
	errNoRoom   = errors.New("dropped for want of room")
	errPanicked = errors.New("the control plane failed on this report; its log says how")
)

// body receives a body as it comes.
func (s *Server) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" && encoding != "gzip" {
		return nil, fmt.Errorf("content-encoding %q is not taken; send gzip or none", encoding)
	}
	return io.ReadAll(http.MaxBytesReader(w, r.Body, int64(s.cfg.MaxReport)))
}

// unzip undoes the compression of a body.
func (s *Server) unzip(body []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("it is not gzip: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(z, int64(s.cfg.MaxReport)+1))
	if err == nil && len(out) > s.cfg.MaxReport {
		err = errTooLarge
	}
	return out, err
}

// take reads a report into the fleet.
func (s *Server) take(ctx context.Context, node string, body []byte, zipped bool) (err error) {
	done, ok := turn(ctx, s.turns)
	if !ok {
		s.metrics.drop(droppedBusy)
		return errNoRoom
	}
	defer done()
	defer s.guard(node, &err)
	if s.bytes.Tokens() <= 0 { // nobody knows yet how large it is
		s.metrics.drop(droppedRate)
		return errNoRoom
	}
	if zipped {
		if body, err = s.unzip(body); err != nil {
			return err
		}
	}
	s.bytes.ReserveN(time.Now(), min(len(body), s.bytes.Burst())) // the next one waits for it
	var up time.Duration
	points := 0
	if err := export(body, func(p fleet.Point) { // what is half a report would take the other half away
		if points++; p.Metric == fleet.Uptime {
			up = time.Duration(min(p.Value, math.MaxUint32)) * time.Second
		}
	}); err != nil {
		return err
	}
	report := s.cfg.Fleet.Open(node, up)
	if report == nil {
		s.metrics.drop(droppedUnwanted)
		return nil
	}
	defer report.Close()
	s.metrics.report(points, len(body))
	return export(body, report.Add)
}

// guard makes of a panic the end of this report, or stream, and of nothing else.
func (s *Server) guard(node string, err *error) {
	if r := recover(); r != nil {
		s.cfg.Logger.Error("report panicked", "proxy", node, "err", r, "stack", string(debug.Stack()))
		*err = errPanicked
	}
}
