package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// target is a server process of a cell, on a core of its own.
type target struct {
	cmd      *exec.Cmd
	address  string
	in       io.WriteCloser // of a peer
	out      *bufio.Reader
	admin    string // of the real server
	registry *registry
	moving   int
}

// serverCore and clientCore are where the two processes run.
const (
	serverCore = 0
	clientCore = 1
)

// start begins a process on the server's core.
func start(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var was, core unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		return err
	}
	core.Set(serverCore)
	if err := unix.SchedSetaffinity(0, &core); err != nil {
		return err
	}
	err := cmd.Start()
	return errors.Join(err, unix.SchedSetaffinity(0, &was))
}

// startPeer starts one of the servers to compare with.
func startPeer(dir string, c cell) (*target, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	form, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	t := &target{cmd: exec.Command(self, "serve", dir, string(form))} //nolint:gosec // itself
	t.cmd.Stderr = os.Stderr
	if t.in, err = t.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := t.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := start(t.cmd); err != nil {
		return nil, err
	}
	t.out = bufio.NewReader(out)
	line, err := t.out.ReadString('\n')
	t.address = strings.TrimSpace(line)
	return t, err
}

// startReal starts wellspring serve with the documents of a cell, and a registry of ours.
func startReal(binary, dir string, c cell, k *keys) (*target, error) {
	r, err := newRegistry(c.Endpoints)
	if err != nil {
		return nil, err
	}
	t, err := startWellspring(binary, dir, c, k, r.address)
	if t != nil {
		t.registry = r
	}
	return t, err
}

// startWellspring starts wellspring serve with the documents of a cell, and a registry at
// an address.
func startWellspring(binary, dir string, c cell, k *keys, consul string) (*target, error) {
	data := filepath.Join(dir, "data")
	config := filepath.Join(dir, "wellspring.yaml")
	xds := "listen: '127.0.0.1:0'"
	if c.TLS {
		xds += fmt.Sprintf(", tls: {cert: '%s', key: '%s'}", k.cert(), k.key())
	}
	text := fmt.Sprintf("dataDir: %s\nxds: {%s}\ntelemetry: {listen: '127.0.0.1:0'}\nadmin: {listen: '127.0.0.1:0', pprof: true}\nlog: {level: warn}\nsources: [{name: consul, consul: {address: '%s', maxConnections: 2000}}]\n", data, xds, consul)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	t := &target{cmd: exec.Command(binary, "serve", "-c", config), moving: c.moving()}
	t.cmd.Stderr = os.Stderr
	if err := start(t.cmd); err != nil {
		return nil, err
	}
	for range 200 {
		time.Sleep(50 * time.Millisecond) // nothing else tells that the file is there
		b, err := os.ReadFile(filepath.Join(data, "addresses.json"))
		if err != nil {
			continue
		}
		var at struct{ XDS, Admin string }
		if err := json.Unmarshal(b, &at); err != nil {
			return t, err
		}
		t.address, t.admin = at.XDS, at.Admin
		return t, t.apply(documents(c.Clusters, c.moving(), c.Endpoints))
	}
	return t, errors.New("wellspring serve did not write its addresses")
}

func (t *target) apply(text string) error {
	resp, err := http.Post("http://"+t.admin+"/v1/apply", "application/yaml", strings.NewReader(text))
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("apply: %s %.300s %w", resp.Status, b, err)
	}
	return nil
}

// flip changes one endpoint of the next service and has it pushed; window gathers
// changes, for peers that do not by themselves.
func (t *target) flip(i int, window time.Duration) error {
	switch {
	case t.registry != nil:
		t.registry.change(upstream(i%t.moving, t.moving), i)
		return nil
	case window > 0:
		_, err := fmt.Fprintf(t.in, "flip %d %s\n", i, window)
		return err
	}
	_, err := fmt.Fprintf(t.in, "flip %d\n", i)
	return err
}

// profile takes a profile of the real server while it is loaded.
func (t *target) profile(file string) error {
	if t.admin == "" {
		return nil
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	return get("http://"+t.admin+"/debug/pprof/profile?seconds=2", out)
}

// stats asks the server after a collection of its garbage.
func (t *target) stats() (s stats, err error) {
	if t.admin == "" {
		if _, err := fmt.Fprintln(t.in, "stats"); err != nil {
			return s, err
		}
		line, err := t.out.ReadBytes('\n')
		if err != nil {
			return s, err
		}
		return s, json.Unmarshal(line, &s)
	}
	before, err := t.metrics()
	if err != nil {
		return s, err
	}
	for range collections {
		if err := get("http://"+t.admin+"/debug/pprof/heap?gc=1", io.Discard); err != nil {
			return s, err
		}
	}
	after, err := t.metrics()
	return stats{
		Mallocs: uint64(before["go_memstats_mallocs_total"]), AllocBytes: uint64(before["go_memstats_alloc_bytes_total"]),
		Live: uint64(after["go_memstats_heap_alloc_bytes"] + after["go_memstats_stack_inuse_bytes"]), Goroutines: int(after["go_goroutines"]),
	}, err
}

func (t *target) metrics() (map[string]float64, error) {
	var b strings.Builder
	if err := get("http://"+t.admin+"/metrics", &b); err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for line := range strings.Lines(b.String()) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			out[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	return out, nil
}

func get(url string, to io.Writer) error {
	resp, err := http.Get(url) //nolint:gosec // the server that was started here
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	_, err = io.Copy(to, resp.Body)
	return err
}

// cpu is how long the server's threads have run.
func (t *target) cpu() time.Duration {
	var sum time.Duration
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", t.cmd.Process.Pid))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that ended
		}
		ns, _ := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
		sum += time.Duration(ns)
	}
	return sum
}

// machine is how long the machine's cores were busy, and for how much of that
// another machine had them (proc(5), /proc/stat).
func machine() (busy, stolen float64) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, word := range strings.Fields(line)[1:] {
		n, _ := strconv.ParseFloat(word, 64)
		if i != 3 && i != 4 { // idle, and waiting for disks
			busy += n
		}
		if i == 7 {
			stolen = n
		}
	}
	return busy, stolen
}

func (t *target) stop() {
	if t.in != nil {
		_ = t.in.Close()
	} else {
		_ = t.cmd.Process.Signal(syscall.SIGTERM)
	}
	done := make(chan struct{})
	go func() { _ = t.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = t.cmd.Process.Kill()
		<-done
	}
	if t.registry != nil {
		t.registry.close()
	}
}
