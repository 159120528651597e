// Package freeport hands out TCP ports on loopback that stay free until they are
// used: for programs that must be told their port before they start.
//
// Ports come from 20000–29999, below the range from which the kernel picks ports
// for outgoing connections, and each is held by a lock file for as long as the
// process lives, so that test processes running side by side never meet.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

const first, count = 20000, 10000

var (
	mu   sync.Mutex
	held []*os.File // kept open: closing would give the lock back
)

// Get returns n different free ports.
func Get(n int) ([]int, error) {
	mu.Lock()
	defer mu.Unlock()
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("wellspring-ports-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var out []int
	for range 10 * count {
		if len(out) == n {
			return out, nil
		}
		port := first + rand.IntN(count)
		f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil || !free(port) {
			_ = f.Close()
			continue
		}
		held = append(held, f)
		out = append(out, port)
	}
	return nil, fmt.Errorf("no %d free ports between %d and %d", n, first, first+count-1)
}

// Addr returns "127.0.0.1:PORT" with a free port.
func Addr() (string, error) {
	p, err := Get(1)
	if err != nil {
		return "", err
	}
	return "127.0.0.1:" + strconv.Itoa(p[0]), nil
}

func free(port int) bool {
	l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
