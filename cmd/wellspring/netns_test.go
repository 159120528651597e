package main_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
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

// otherHosts is a command that runs another one on a machine that knows one name more. The
// error is of a machine on which that cannot be done.
func otherHosts(t *testing.T, line string) ([]string, error) {
	t.Helper()
	file := t.TempDir() + "/hosts"
	text, err := os.ReadFile("/etc/hosts")
	if err == nil {
		err = os.WriteFile(file, append(text, "\n"+line+"\n"...), 0o600)
	}
	if err != nil {
		return nil, err
	}
	within := []string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, file}
	if out, err := exec.Command(within[0], append(within[1:], "true")...).CombinedOutput(); err != nil { //nolint:gosec // ours
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(within, " "), err, strings.TrimSpace(string(out)))
	}
	return within, nil
}
