package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// listenAddress is where a listener of ours is bound.
type listenAddress struct {
	network, text string
	// local tells that only this machine reaches it.
	local bool
}

// address reads IP:PORT, [IP]:PORT, localhost:PORT and unix:///path.
func address(s string) (listenAddress, error) {
	if path, ok := strings.CutPrefix(s, "unix://"); ok {
		if !filepath.IsAbs(path) {
			return listenAddress{}, fmt.Errorf("%q is not unix:// and an absolute path", s)
		}
		return listenAddress{"unix", path, true}, nil
	}
	ap, err := netip.ParseAddrPort(strings.Replace(s, "localhost:", "127.0.0.1:", 1))
	if err != nil {
		return listenAddress{}, fmt.Errorf("%q is neither IP:PORT nor unix:///path", s)
	}
	network := "tcp" // [::] is every address of both families
	if ap.Addr().Is4() {
		network = "tcp4"
	}
	return listenAddress{network, ap.String(), ap.Addr().IsLoopback()}, nil
}

// listen binds the address of a key. A socket is for the server's user and group;
// one that nobody listens on any more is replaced.
func listen(key, at string) (net.Listener, error) {
	a, err := address(at)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	if a.network == "unix" {
		if conn, err := net.Dial("unix", a.text); err == nil {
			_ = conn.Close()
		} else if info, serr := os.Lstat(a.text); serr == nil && info.Mode()&os.ModeSocket != 0 && errors.Is(err, syscall.ECONNREFUSED) {
			_ = os.Remove(a.text) // a socket that a process left when it died
		}
	}
	l, err := net.Listen(a.network, a.text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; stop what listens there, or choose another address with --%s", key, err, kebab(key))
	}
	if a.network == "unix" {
		if err := os.Chmod(a.text, 0o660); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", key, err), l.Close())
		}
	}
	return l, nil
}

// addressOf is where a listener is bound, as a client is told it.
func addressOf(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return "unix://" + l.Addr().String()
	}
	return l.Addr().String()
}

// port of a listener; 0 for a socket.
func port(l net.Listener) uint16 {
	ap, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil {
		return 0
	}
	return ap.Port()
}
