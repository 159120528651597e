package fleet_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// feed is a report of so many upstreams and endpoints, each with every metric.
type feed struct{ points []fleet.Point }

func newFeed(upstreams, endpoints int) *feed {
	f := &feed{points: []fleet.Point{{Metric: fleet.Uptime, Value: 3600}}}
	bounds := []float64{1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000}
	for m := range fleet.Uptime + 1 {
		for u := range upstreams {
			p := fleet.Point{Metric: m, Upstream: fmt.Appendf(nil, "upstream-%d", u), Value: 7}
			switch m {
			case fleet.EndpointHealthy, fleet.EndpointConnectFailed:
				for e := range endpoints {
					p.Endpoint = fmt.Appendf(nil, "10.%d.%d.%d:8080", u>>8, u&255, e)
					f.points = append(f.points, p)
				}
				continue
			case fleet.FailedRequests:
				p.Route, p.Flag = []byte("shop[0]"), []byte("UH")
			case fleet.Latency:
				p.Bounds, p.Buckets = bounds, make([]uint64, len(bounds)+1)
			case fleet.Uptime:
				continue
			}
			f.points = append(f.points, p)
		}
	}
	return f
}

func (f *feed) send(to *fleet.Fleet, node string) {
	r := to.Open(node, time.Hour)
	for _, p := range f.points {
		r.Add(p)
	}
	r.Close()
}

// grow moves every counter.
func (f *feed) grow() {
	for i := range f.points {
		if m := f.points[i].Metric; m >= fleet.Requests && m != fleet.EndpointHealthy {
			f.points[i].Value++
		}
		for j := range f.points[i].Buckets {
			f.points[i].Buckets[j]++
		}
	}
}

// 1,000 proxies × 200 upstreams × 5 endpoints: what they take, and how fast a report is
// taken up. Each counter moves in each report.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		before := live()
		to := fleet.New(fleet.Config{})
		f := newFeed(200, 5)
		for round := range 2 {
			for n := range 1000 {
				id := fmt.Sprintf("proxy-%d", n)
				if round == 0 {
					to.Joined(1, model.Proxy{ID: id, Group: "edge"}, model.TelemetryEndpoints)
				}
				f.send(to, id)
			}
			f.grow()
		}
		b.ReportMetric(float64(live()-before)/(1<<20), "MB")
		b.ReportMetric(float64(len(f.points)), "points/report")
		runtime.KeepAlive(to)
	}
}

func live() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkReport(b *testing.B) {
	to := fleet.New(fleet.Config{})
	to.Joined(1, model.Proxy{ID: "e", Group: "edge"}, model.TelemetryEndpoints)
	f := newFeed(200, 5)
	f.send(to, "e")
	b.ReportAllocs()
	start, n := time.Now(), 0
	for b.Loop() {
		f.grow()
		f.send(to, "e")
		n += len(f.points)
	}
	b.ReportMetric(float64(n)/time.Since(start).Seconds(), "points/s")
}
