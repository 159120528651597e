package main_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metricsservicev1 "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	metricsv1 "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/xds/xdstest"
)

const (
	floodProxies   = 200
	floodUpstreams = 200
)

// TestRealFlood: 200 proxies report ten times as much as is taken. What is too much is
// dropped and counted; how fast endpoints reach the proxies, and are acknowledged,
// stays as it is. It prints the 99th percentile before, meanwhile and after.
func TestRealFlood(t *testing.T) {
	control := serve(t)
	var text, to strings.Builder
	for i := range floodUpstreams {
		fmt.Fprintf(&text, "kind: Upstream\nname: u-%d\nspec: {endpoints: [{address: '127.0.0.1:%d'}]}\n---\n", i, 1000+i)
		fmt.Fprintf(&to, "{upstream: u-%d}, ", i)
	}
	control.apply(text.String() + "kind: Route\nname: all\nspec: {hosts: ['*'], rules: [{to: [" + to.String() + "]}]}\n---\nkind: Listener\nname: edge\nspec: {address: '127.0.0.1:1', routes: [all]}\n---\nkind: Group\nname: edge\nspec: {listeners: [edge]}\n")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i := range floodProxies {
		conn, err := grpc.NewClient(control.XDS, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // a test's
		e := xdstest.New(xdstest.Config{ID: fmt.Sprintf("p-%d", i), Cluster: "edge", Metadata: map[string]any{bootstrap.MetadataTelemetry: "upstreams", bootstrap.MetadataReportKey: "k"}})
		wg.Go(func() { _ = e.Run(ctx, conn) })
	}
	within(t, 20*time.Second, "all proxies are current", func() string {
		var o admin.Overview
		if err := control.client().Get(t.Context(), "/v1/health", nil, &o); err != nil {
			t.Fatal(err)
		}
		if o.Proxies.Current != floodProxies {
			return fmt.Sprintf("%+v", o.Proxies)
		}
		return ""
	})
	phase := func(what string) time.Duration {
		before := control.acks()
		for n := range 50 {
			control.apply(fmt.Sprintf("kind: Upstream\nname: u-7\nspec: {endpoints: [{address: '127.0.0.1:1007', weight: %d}]}\n", 1+n%2+len(what)*2))
			time.Sleep(100 * time.Millisecond)
		}
		p99 := quantileOf(before, control.acks(), 0.99)
		t.Logf("push to acknowledgement, %s: p99 %s", what, p99.Round(100*time.Microsecond))
		return p99
	}
	quiet := phase("before")
	stop, report := make(chan struct{}), zippedReport(floodUpstreams)
	var sent, refused atomic.Int64
	var flood sync.WaitGroup
	for w := range 4 {
		flood.Go(func() {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
			defer client.CloseIdleConnections()
			pace := time.NewTicker(2 * time.Millisecond) // 4 × 500 a second: ten of each proxy
			defer pace.Stop()
			for n := w; ; n += 4 {
				select {
				case <-stop:
					return
				case <-pace.C:
				}
				code, err := postReport(t.Context(), client, control.Telemetry, fmt.Sprintf("p-%d", n%floodProxies), report)
				if err != nil {
					t.Error(err)
					return
				}
				if sent.Add(1); code == http.StatusTooManyRequests {
					refused.Add(1)
				}
			}
		})
	}
	time.Sleep(time.Second)
	flooded := phase("meanwhile")
	close(stop)
	flood.Wait()
	after := phase("after")
	// Nine of ten are dropped where the machine sends them as fast as it should; how fast
	// it is fails nothing.
	t.Logf("%d reports were sent (figure 10000), %d of them dropped", sent.Load(), refused.Load())
	if 10*refused.Load() < sent.Load() {
		t.Errorf("%d of %d reports were dropped: more was taken than may be", refused.Load(), sent.Load())
	}
	if noise := max(quiet, after, 5*time.Millisecond); flooded > 10*noise {
		t.Errorf("acknowledged within %s meanwhile, %s before and %s after", flooded, quiet, after)
	}
}

// acks is the histogram of acknowledgements of assignments: counts by upper bound in
// seconds.
func (c *controlPlane) acks() map[float64]float64 {
	c.t.Helper()
	text, err := c.client().Text(c.t.Context(), "/metrics")
	if err != nil {
		c.t.Fatal(err)
	}
	out := map[float64]float64{}
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, `wellspring_xds_ack_seconds_bucket{type="assignments",le="`)
		le, count, _ := strings.Cut(rest, `"} `)
		bound, err := strconv.ParseFloat(le, 64)
		n, err2 := strconv.ParseFloat(strings.TrimSpace(count), 64)
		if ok && err == nil && err2 == nil {
			out[bound] = n
		}
	}
	return out
}

// quantileOf what was counted between two looks.
func quantileOf(before, after map[float64]float64, q float64) time.Duration {
	bounds := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	all, from, below := after[30]-before[30], 0.0, 0.0
	for _, b := range bounds {
		n := after[b] - before[b]
		if n >= q*all && n > below {
			return time.Duration((from + (b-from)*(q*all-below)/(n-below)) * float64(time.Second))
		}
		from, below = b, n
	}
	return 30 * time.Second
}

func postReport(ctx context.Context, c *http.Client, to, node string, body []byte) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+to+"/v1/metrics", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Encoding", "gzip")
	r.Header.Set(bootstrap.NodeHeader, bootstrap.Header.EncodeToString([]byte(node)))
	r.Header.Set(bootstrap.KeyHeader, bootstrap.Header.EncodeToString([]byte("k")))
	resp, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Body.Close()
}

// zippedReport is one about upstreams, with 20 values of each.
func zippedReport(upstreams int) []byte {
	var all []*metricsv1.Metric
	for _, name := range []string{"membership_total", "membership_healthy", "membership_degraded", "membership_excluded", "warming_state", "upstream_rq_completed", "upstream_cx_total", "upstream_rq_timeout", "upstream_rq_retry", "upstream_rq_retry_overflow", "upstream_rq_pending_overflow", "upstream_cx_overflow", "upstream_cx_connect_fail", "upstream_cx_none_healthy", "lb_healthy_panic", "health_check.failure", "update_failure", "update_empty", "assignment_stale", "outlier_detection.ejections_overflow"} {
		var points []*metricsv1.NumberDataPoint
		for i := range upstreams {
			points = append(points, &metricsv1.NumberDataPoint{
				Attributes: []*commonv1.KeyValue{{Key: "envoy.cluster_name", Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: fmt.Sprintf("u-%d", i)}}}},
				Value:      &metricsv1.NumberDataPoint_AsInt{AsInt: 1}, TimeUnixNano: 1, StartTimeUnixNano: 1,
			})
		}
		all = append(all, &metricsv1.Metric{Name: "cluster." + name, Data: &metricsv1.Metric_Gauge{Gauge: &metricsv1.Gauge{DataPoints: points}}})
	}
	body, err := proto.Marshal(&metricsservicev1.ExportMetricsServiceRequest{ResourceMetrics: []*metricsv1.ResourceMetrics{{ScopeMetrics: []*metricsv1.ScopeMetrics{{Metrics: all}}}}})
	if err != nil {
		panic(err)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(body)
	_ = z.Close()
	return b.Bytes()
}
