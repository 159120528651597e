// Package probe tries from where the control plane runs what proxies try: the very
// health check of an upstream, and a connection to an endpoint, in the steps in which
// they can fail.
//
//	Target ─► connect ─► TLS ─► check (HTTP, gRPC, bytes) ─► Result: where it ended, and why
//
// Decisions:
//   - Only addresses that the caller takes from a catalog are dialled, over the dialer that
//     is given (pkg/outbound's): never a link-local address, never one of our own listeners, and
//     loopback where the configuration says so: an endpoint on 127.0.0.1 is another one
//     here than at a proxy.
//   - What is seen from here need not be what a proxy sees. A result is evidence, and by
//     itself no proof.
//   - One check, the first, is replayed: once, without its thresholds.
package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Outcome is where a probe ended.
type Outcome string

// The outcomes.
const (
	Passes      Outcome = "passes"      // the check passes, or the connection opens where there is no check
	Unexpected  Outcome = "unexpected"  // the answer is not what the check expects
	Refused     Outcome = "refused"     // nothing listens there
	TimedOut    Outcome = "timed out"   // no answer in time
	Unreachable Outcome = "unreachable" // no way leads there
	BadTLS      Outcome = "bad TLS"     // the handshake fails, or the certificate is not taken
	Closed      Outcome = "closed"      // the connection is taken, and closed without a word
	OtherWords  Outcome = "protocol"    // what answers speaks another protocol
	NotTried    Outcome = "not tried"   // it may not be dialled from here
)

// Result of one endpoint.
type Result struct {
	// Endpoint is its address, Target what was dialled, which a check's port changes.
	Endpoint string  `json:"endpoint"`
	Target   string  `json:"target"`
	Outcome  Outcome `json:"outcome" enum:"passes,unexpected,refused,timed out,unreachable,bad TLS,closed,protocol,not tried"`
	// Says is what came back, or the error.
	Says string        `json:"says"`
	Took time.Duration `json:"took" doc:"nanoseconds"`
	// OpenElsewhere tells, where the target did not answer on a port of the check's own,
	// that the endpoint's port takes connections.
	OpenElsewhere bool `json:"openElsewhere,omitempty"`
	// Checked tells that a health check was replayed, and not only a connection opened.
	Checked bool `json:"checked"`
}

// Prober tries endpoints. Its zero value dials nothing on loopback.
type Prober struct {
	// Dial opens connections; it is the guard of what may be reached.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Deadline of one endpoint; a check's timeout is kept where it is shorter. Default
	// Deadline.
	Deadline time.Duration
}

// Target is what is tried of an upstream.
type Target struct {
	// Name of the upstream, which a check sends as its host.
	Name string
	// Spec is its document.
	Spec *spec.Upstream
	// TLS is spoken where it is not nil.
	TLS *tls.Config
	// Addresses are host:port of its endpoints.
	Addresses []string
}

// Deadline of one endpoint, where nothing else is said.
const Deadline = 1500 * time.Millisecond

// atOnce are the endpoints that are tried.
const atOnce = 8

// Try tries the first few addresses at once; results are in their order.
func (p Prober) Try(ctx context.Context, t Target) []Result {
	addresses := t.Addresses[:min(len(t.Addresses), atOnce)]
	out := make([]Result, len(addresses))
	var wg sync.WaitGroup
	for i, a := range addresses {
		wg.Go(func() { out[i] = p.one(ctx, t, a) })
	}
	wg.Wait()
	return out
}

func (p Prober) one(ctx context.Context, t Target, address string) Result {
	limit := p.Deadline
	if limit == 0 {
		limit = Deadline
	}
	r := Result{Endpoint: address, Target: address}
	var check *spec.HealthCheck
	short := false // we wait for less long than the check
	if len(t.Spec.HealthChecks) > 0 {
		check = &t.Spec.HealthChecks[0]
		r.Checked = true
		short = limit < check.Timeout.D()
		limit = min(limit, check.Timeout.D())
		if check.Port != 0 {
			host, _, _ := net.SplitHostPort(address)
			r.Target = net.JoinHostPort(host, strconv.Itoa(int(check.Port)))
		}
	}
	inTime, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := time.Now()
	says, err := p.steps(inTime, t, check, r.Target)
	r.Took = time.Since(start)
	r.Outcome, r.Says = sort(says, err)
	if r.Outcome == TimedOut && short {
		r.Outcome, r.Says = NotTried, fmt.Sprintf("%s: no answer within %s; the check itself waits %s", r.Target, limit, check.Timeout)
	}
	if r.Target != address && (r.Outcome == Refused || r.Outcome == TimedOut) {
		r.OpenElsewhere = p.open(ctx, address, limit)
	}
	return r
}

// open tells whether an address takes a connection.
func (p Prober) open(ctx context.Context, address string, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := p.Dial(ctx, "tcp", address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// steps connects, shakes hands and checks.
func (p Prober) steps(ctx context.Context, t Target, check *spec.HealthCheck, target string) (says string, err error) {
	conn, err := p.Dial(ctx, "tcp", target)
	if err != nil {
		return "", &dialError{err}
	}
	defer conn.Close() //nolint:errcheck // what was read counts
	if d, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(d)
	}
	says = "connected"
	if t.TLS != nil {
		secure := tls.Client(conn, t.TLS)
		if err := secure.HandshakeContext(ctx); err != nil {
			return "", &handshakeError{err}
		}
		conn, says = secure, "TLS established"
	}
	switch {
	case check == nil:
		return says, nil
	case check.HTTP != nil:
		return get(ctx, conn, t, check.HTTP)
	case check.GRPC != nil:
		return ask(ctx, conn, t, check.GRPC)
	}
	return exchange(conn, check.TCP)
}
