package main_test

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/admin/client"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/xds/xdstest"
)

// TestRealBackup: a backup that is taken while documents are written is loaded
// elsewhere, and what is served from it has the versions that the first control plane
// has at that revision: a proxy that moves from one to the other is sent nothing.
func TestRealBackup(t *testing.T) {
	one := serve(t)
	documents := func(i int) string {
		return strings.ReplaceAll(`
kind: Upstream
name: catalog
spec: {endpoints: [{address: "127.0.0.1:{port}"}], connectTimeout: {n}ms}
---
kind: Route
name: shop
spec: {hosts: ["*"], rules: [{to: [{upstream: catalog}], timeout: {n}ms}]}
---
kind: Listener
name: edge
spec: {address: "127.0.0.1:10000", routes: [shop], connectionBufferBytes: {port}}
---
kind: Group
name: edge
spec: {listeners: [edge]}
`, "{n}", fmt.Sprint(100+i)) // each revision changes every resource
	}
	port := func(i int) string { return strings.ReplaceAll(documents(i), "{port}", fmt.Sprint(2000+i)) }
	one.apply(port(0))

	// 1. a backup while somebody writes
	writing, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer func() { stop(); wg.Wait() }()
	begun := make(chan struct{})
	wg.Go(func() {
		for i := 1; writing.Err() == nil; i++ {
			if _, err := one.client().Apply(writing, []byte(port(i)), client.How{}); err != nil && writing.Err() == nil {
				t.Errorf("apply %d: %v", i, err)
				return
			}
			if i == 5 {
				close(begun)
			}
		}
	})
	<-begun
	file := filepath.Join(t.TempDir(), "wellspring.db")
	if out, code := one.cli("backup", file); code != 0 {
		t.Fatalf("backup: exit %d\n%s", code, out)
	}
	time.Sleep(50 * time.Millisecond) // more is written
	stop()
	wg.Wait()

	// 2. another control plane, on a store made of it
	dir := filepath.Join(t.TempDir(), "data")
	if out, err := exec.CommandContext(t.Context(), binary(t), "load", file, "--data-dir", dir).CombinedOutput(); err != nil {
		t.Fatalf("load: %v\n%s", err, out)
	}
	two := serve(t, "--data-dir", dir)
	newest := func(c *controlPlane) (n uint64) {
		var all admin.Revisions
		if err := c.client().Get(t.Context(), "/v1/revisions", nil, &all); err != nil {
			t.Fatal(err)
		}
		return all.Items[0].Number
	}
	at := newest(two)
	if last := newest(one); at < 5 || last <= at {
		t.Fatalf("the backup is at revision %d, the store at %d: it was not taken under writes", at, last)
	}
	t.Logf("the backup is at revision %d of %d", at, newest(one))

	// 3. at another revision a proxy that moves over is sent the difference; at the same
	// one nothing
	if got := moved(t, one, two); got == 0 {
		t.Fatal("the newest revision serves what the backup does: nothing is shown")
	}
	if out, code := one.cli("restore", fmt.Sprint(at), "--services"); code != 0 {
		t.Fatalf("restore: exit %d\n%s", code, out)
	}
	if got := moved(t, one, two); got != 0 {
		t.Errorf("a proxy that moves over is sent %d resources again", got)
	}
	if a, b := held(t, one), held(t, two); !maps.Equal(a, b) || len(a) != 4 {
		t.Errorf("one serves %v\nthe other %v", a, b)
	}
}

// moved connects a proxy to one control plane and then to another, and returns how
// many resources that one sent or took away. Assignments do not count: each stream is
// sent those again.
func moved(t *testing.T, from, to *controlPlane) (n int) {
	t.Helper()
	e := xdstest.New(xdstest.Config{ID: "moves", Cluster: "edge"})
	stay(t, from, e)
	before := len(e.Frames())
	stay(t, to, e)
	answered := false
	for _, f := range e.Frames()[before:] {
		switch {
		case f.Sent:
		case f.Type == xdstest.Assignments:
			answered = true
		default:
			n += len(f.Names) + len(f.Removed)
		}
	}
	if !answered {
		t.Error("the second control plane never answered")
	}
	return n
}

// held are the versions of everything that a new proxy is sent.
func held(t *testing.T, c *controlPlane) map[string]string {
	t.Helper()
	e := xdstest.New(xdstest.Config{ID: "looks", Cluster: "edge"})
	out := map[string]string{}
	stay(t, c, e, func() {
		var h model.Holding
		if err := c.client().Get(t.Context(), "/v1/proxies/looks/xds", nil, &h); err != nil {
			t.Fatal(err)
		}
		for _, r := range h.Resources {
			out[r.Type+" "+r.Name] = r.Version
		}
	})
	return out
}

// stay connects a proxy until it is current, and does what is to be done then.
func stay(t *testing.T, c *controlPlane, e *xdstest.Envoy, then ...func()) {
	t.Helper()
	conn, err := grpc.NewClient(c.XDS, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a test's
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	before := len(e.Frames())
	wg.Go(func() {
		if err := e.Run(ctx, conn); err != nil {
			t.Errorf("the stream ended: %v", err)
		}
	})
	within(t, 5*time.Second, "current", func() string {
		answered := slices.ContainsFunc(e.Frames()[before:], func(f xdstest.Frame) bool { return !f.Sent && f.Type == xdstest.Assignments })
		out, _ := c.cli("health")
		if answered && strings.Contains(out, "1 connected, 1 current") {
			return ""
		}
		return out
	})
	for _, f := range then {
		f()
	}
}
