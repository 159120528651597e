package main_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/consultest"
	"github.com/wellspring-xds/wellspring/pkg/proc"
	"github.com/wellspring-xds/wellspring/xds/xdstest"
)

// TestRealManyServices: five thousand services of a real Consul, all imported. The
// figures of docs/operations.md come from here.
func TestRealManyServices(t *testing.T) {
	const services = 5000
	consul, err := consultest.Start(t.Context(), consultest.Config{Dir: t.TempDir(), Extra: map[string]any{"limits": map[string]any{"http_max_conns_per_client": 8000}}})
	proc.Need(t, err)
	t.Cleanup(func() { consul.Kill() })
	for from := 0; from < services; from += 50 {
		var ops api.TxnOps
		if from == 0 {
			ops = append(ops, &api.TxnOp{Node: &api.NodeTxnOp{Verb: api.NodeSet, Node: api.Node{Node: "many", Address: "127.0.0.1"}}})
		}
		for i := from; i < from+50; i++ {
			name := fmt.Sprintf("service-%04d", i)
			ops = append(ops, &api.TxnOp{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: "many", Service: api.AgentService{ID: name, Service: name, Address: "127.0.0.1", Port: 1 + i}}})
		}
		if ok, resp, _, err := consul.Client.Txn().Txn(ops, nil); err != nil || !ok {
			t.Fatalf("register: %v %+v", err, resp)
		}
	}
	config := filepath.Join(t.TempDir(), "wellspring.yaml")
	text := fmt.Sprintf("sources: [{name: consul, import: all, consul: {address: '%s', maxConnections: 7000}}]\n", consul.Address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	control := serve(t, "-c", config)
	control.apply("kind: Listener\nname: outbound\nspec: {address: '127.0.0.1:10000', autoRoutes: {domain: svc.local}, accessLog: {to: 'off'}}\n---\nkind: Group\nname: edge\nspec: {listeners: [outbound]}\n")
	within(t, time.Minute, "every service has answered", func() string {
		var out struct{ Items []discovery.SourceStatus }
		if err := control.client().Get(t.Context(), "/v1/sources", nil, &out); err != nil {
			return err.Error()
		}
		for _, s := range out.Items {
			if s.Name == "consul" && s.Services == services && s.Unknown == 0 && s.State == "fresh" {
				return ""
			}
		}
		time.Sleep(200 * time.Millisecond)
		return fmt.Sprintf("%+v", out.Items)
	})
	conn, err := grpc.NewClient(control.XDS, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(256<<20)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait(); _ = conn.Close() }()
	e := xdstest.New(xdstest.Config{ID: "edge-1", Cluster: "edge"})
	wg.Go(func() {
		for ctx.Err() == nil { // it is refused until the publisher has taken up every answer
			_ = e.Run(ctx, conn)
			time.Sleep(100 * time.Millisecond)
		}
	})
	within(t, time.Minute, "a proxy has everything", func() string {
		var p admin.Proxies
		if err := control.client().Get(t.Context(), "/v1/proxies", nil, &p); err != nil {
			return err.Error()
		}
		has := map[string]int{}
		for _, x := range p.Items {
			for _, d := range x.Delivery {
				has[d.Type] = d.Acked
			}
		}
		if has["clusters"] == services && has["assignments"] == services && has["routes"] == 1 {
			return ""
		}
		time.Sleep(200 * time.Millisecond)
		return fmt.Sprint(has)
	})
	t.Logf("in sync after %s (figure 1m)", time.Since(start).Round(time.Millisecond))

	time.Sleep(5 * time.Second)
	const span = 10 * time.Second
	before := cpu(t, control.Pid())
	time.Sleep(span)
	used := cpu(t, control.Pid()) - before
	t.Logf("idle: %.1f %% of a core (figure 5 %%), %d MB resident", 100*used.Seconds()/span.Seconds(), resident(t, control.Pid())>>20)
	if used > span/2 {
		t.Errorf("%s of %s used while nothing happens", used, span)
	}
}

// cpu is what a process has used so far.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// resident is the memory of a process in bytes.
func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, _ := strconv.Atoi(strings.Fields(string(text))[1])
	return pages * os.Getpagesize()
}
