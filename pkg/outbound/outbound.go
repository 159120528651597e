// Package outbound makes the connections to what others name: receivers of
// notifications, endpoints that are probed. It refuses, after a name was resolved, what
// such a name must not reach: link-local addresses (where clouds keep credentials), our
// own listeners, and loopback unless it is allowed; and it follows no redirect.
package outbound

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// Policy says what may be called.
type Policy struct {
	// Loopback lets addresses of this machine be called.
	Loopback bool
	// OwnPorts are our listeners', which are never called on this machine.
	OwnPorts []uint16
	// Timeout of a whole call; zero is 10s.
	Timeout time.Duration
}

// ErrRefused is of an address that must not be called.
var ErrRefused = errors.New("refused to call")

const defaultTimeout = 10 * time.Second

// Client returns a client that keeps to the policy.
func (p Policy) Client() *http.Client {
	timeout := p.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	dialer := p.Dialer(timeout)
	return &http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DialContext: dialer.DialContext, TLSHandshakeTimeout: timeout, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true},
	}
}

// Dialer returns a dialer that keeps to the policy.
func (p Policy) Dialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{Timeout: timeout, Control: func(_, address string, _ syscall.RawConn) error { return p.allows(address) }}
}

// allows tells whether an address that was resolved may be called.
func (p Policy) allows(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w %s: it is no IP:PORT", ErrRefused, address)
	}
	ip := ap.Addr()
	switch {
	case ip.IsLinkLocalUnicast(), ip.IsMulticast(), ip.IsUnspecified():
		return fmt.Errorf("%w %s: a link-local, multicast or unspecified address", ErrRefused, address)
	case ip.IsLoopback() && !p.Loopback:
		return fmt.Errorf("%w %s: an address of this machine, which the configuration does not allow (allowLoopback)", ErrRefused, address)
	case slices.Contains(p.OwnPorts, ap.Port()) && ofThisMachine(ip):
		return fmt.Errorf("%w %s: a listener of our own", ErrRefused, address)
	}
	return nil
}

// ofThisMachine tells whether an address is one of this machine's.
func ofThisMachine(ip netip.Addr) bool {
	if ip = ip.Unmap(); ip.IsLoopback() {
		return true
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return true // not known: rather not
	}
	return slices.ContainsFunc(all, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap() == ip
	})
}
