package main_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// netns is a network namespace with one way to this one. What is here has addresses there
// by which it can be reached, each with a route of its own.
type netns struct {
	t     *testing.T
	name  string
	here  string   // our end of the way
	there string   // its end
	names []string // addresses of ours, as they are reached from there
}

// newNetns makes one with so many addresses, and takes it away with the test. The error is
// of a machine on which that cannot be done.
func newNetns(t *testing.T, addresses int) (*netns, error) {
	t.Helper()
	id := rand.IntN(1 << 16)
	net := fmt.Sprintf("10.%d.%d", 192+id>>8&63, id&255)
	n := &netns{t: t, name: fmt.Sprintf("ws-%04x", id), here: net + ".1", there: net + ".2"}
	way := fmt.Sprintf("ws%04x", id)
	steps := [][]string{
		{"netns", "add", n.name},
		{"link", "add", way + "a", "type", "veth", "peer", "name", way + "b", "netns", n.name},
		{"addr", "add", n.here + "/30", "dev", way + "a"},
		{"link", "set", way + "a", "up"},
		{"-n", n.name, "addr", "add", n.there + "/30", "dev", way + "b"},
		{"-n", n.name, "link", "set", way + "b", "up"},
		{"-n", n.name, "link", "set", "lo", "up"},
	}
	for i := range addresses {
		address := fmt.Sprintf("%s.%d", net, 100+i)
		n.names = append(n.names, address)
		steps = append(steps, []string{"addr", "add", address + "/32", "dev", way + "a"}, []string{"-n", n.name, "route", "add", address + "/32", "via", n.here})
	}
	for i, step := range steps {
		if err := ip(step...); err != nil {
			return nil, err
		}
		if i == 0 {
			t.Cleanup(func() { _ = ip("netns", "del", n.name) })
		}
	}
	return n, nil
}

func (n *netns) first() string  { return n.names[0] }
func (n *netns) second() string { return n.names[1] }

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// cut leaves no way from there to an address of ours; join gives it back.
func (n *netns) cut(address string)  { n.route("unreachable", address+"/32") }
func (n *netns) join(address string) { n.route(address+"/32", "via", n.here) }

func (n *netns) route(to ...string) {
	if err := ip(append([]string{"-n", n.name, "route", "replace"}, to...)...); err != nil {
		n.t.Error(err)
	}
}

// relay is a socket that leads to an address of this namespace: a socket is reached from
// every one.
func relay(t *testing.T, to string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
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
			mu.Lock()
			open[a], open[b] = true, true
			mu.Unlock()
			for _, x := range [][2]net.Conn{{a, b}, {b, a}} {
				all.Go(func() {
					_, _ = io.Copy(x[0], x[1])
					_, _ = x[0].Close(), x[1].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return "unix://" + path
}
