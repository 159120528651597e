package telemetry

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	metricsservicev1 "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	metricsv1 "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// generated reads an export by the generated messages: what export must give.
func generated(body []byte, add func(fleet.Point)) error {
	var m metricsservicev1.ExportMetricsServiceRequest
	if err := proto.Unmarshal(body, &m); err != nil {
		return err
	}
	for _, r := range m.ResourceMetrics {
		for _, s := range r.ScopeMetrics {
			for _, x := range s.Metrics {
				of, ok := metrics[x.Name]
				if !ok {
					continue
				}
				for _, p := range slices.Concat(x.GetGauge().GetDataPoints(), x.GetSum().GetDataPoints()) {
					out := fleet.Point{Metric: of}
					if v, ok := p.Value.(*metricsv1.NumberDataPoint_AsInt); ok {
						out.Value = uint64(max(0, v.AsInt))
					} else if f := p.GetAsDouble(); f > 0 && f < 1<<63 {
						out.Value = uint64(f)
					}
					emit(add, out, p.Attributes, true)
				}
				for _, p := range x.GetHistogram().GetDataPoints() {
					emit(add, fleet.Point{Metric: of, Buckets: p.BucketCounts, Bounds: p.ExplicitBounds}, p.Attributes, false)
				}
			}
		}
	}
	return nil
}

func emit(add func(fleet.Point), p fleet.Point, attributes []*commonv1.KeyValue, classes bool) {
	for _, a := range attributes {
		v := []byte(a.GetValue().GetStringValue())
		switch a.Key {
		case "envoy.cluster_name", bootstrap.FailureUpstream:
			p.Upstream = v
		case "envoy.endpoint_address":
			p.Endpoint = v
		case "envoy.response_code_class":
			if classes && string(v) != "5" {
				return
			}
		case bootstrap.FailureRoute:
			p.Route = v
		case bootstrap.FailureFlag:
			p.Flag = v
		}
	}
	if !strings.HasPrefix(string(p.Upstream), bootstrap.Reserved) {
		add(p)
	}
}

func said(p fleet.Point) string {
	return fmt.Sprintf("%d %q %q %q %q %d %d %v", p.Metric, p.Upstream, p.Endpoint, p.Route, p.Flag, p.Value, p.Buckets, p.Bounds)
}

func read(t interface{ Fatal(...any) }, how func([]byte, func(fleet.Point)) error, body []byte) (out []string) {
	if err := how(body, func(p fleet.Point) { out = append(out, said(p)) }); err != nil {
		t.Fatal(err)
	}
	return out
}

// Whatever OTLP's own messages give, the walk over the bytes gives.
func TestExportProperty(t *testing.T) {
	names := []string{"other", ""}
	for name := range metrics {
		names = append(names, name)
	}
	slices.Sort(names)
	keys := []string{"envoy.cluster_name", "envoy.endpoint_address", "envoy.response_code_class", "upstream", "route", "flag", "other"}
	rapid.Check(t, func(t *rapid.T) {
		attributes := rapid.Map(rapid.MapOf(rapid.SampledFrom(keys), rapid.SampledFrom([]string{"", "5", "4", "catalog", "wellspring-xds", "127.0.0.1:1"})), func(m map[string]string) (out []*commonv1.KeyValue) {
			for k, v := range m {
				out = append(out, text(k, v))
			}
			slices.SortFunc(out, func(a, b *commonv1.KeyValue) int { return cmp.Compare(a.Key, b.Key) })
			return append(out, &commonv1.KeyValue{Key: "n", Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_IntValue{IntValue: 7}}})
		})
		number := rapid.Custom(func(t *rapid.T) *metricsv1.NumberDataPoint {
			p := &metricsv1.NumberDataPoint{Attributes: attributes.Draw(t, "attributes"), TimeUnixNano: rapid.Uint64().Draw(t, "time")}
			if rapid.Bool().Draw(t, "int") {
				p.Value = &metricsv1.NumberDataPoint_AsInt{AsInt: rapid.Int64().Draw(t, "value")}
			} else {
				p.Value = &metricsv1.NumberDataPoint_AsDouble{AsDouble: rapid.OneOf(rapid.Float64(), rapid.Just(math.NaN()), rapid.Just(math.Inf(1))).Draw(t, "value")}
			}
			return p
		})
		buckets := rapid.Custom(func(t *rapid.T) *metricsv1.HistogramDataPoint {
			return &metricsv1.HistogramDataPoint{
				Attributes: attributes.Draw(t, "attributes"), Count: 3, BucketCounts: rapid.SliceOfN(rapid.Uint64(), 0, 4).Draw(t, "counts"),
				ExplicitBounds: rapid.SliceOfN(rapid.Float64Range(0, 10), 0, 3).Draw(t, "bounds"),
			}
		})
		metric := rapid.Custom(func(t *rapid.T) *metricsv1.Metric {
			m := &metricsv1.Metric{Name: rapid.SampledFrom(names).Draw(t, "name"), Description: "d"}
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				m.Data = &metricsv1.Metric_Gauge{Gauge: &metricsv1.Gauge{DataPoints: rapid.SliceOfN(number, 0, 3).Draw(t, "points")}}
			case 1:
				m.Data = &metricsv1.Metric_Sum{Sum: &metricsv1.Sum{DataPoints: rapid.SliceOfN(number, 0, 3).Draw(t, "points"), IsMonotonic: true}}
			case 2:
				m.Data = &metricsv1.Metric_Histogram{Histogram: &metricsv1.Histogram{DataPoints: rapid.SliceOfN(buckets, 0, 3).Draw(t, "points")}}
			}
			return m
		})
		body, err := proto.Marshal(&metricsservicev1.ExportMetricsServiceRequest{ResourceMetrics: []*metricsv1.ResourceMetrics{
			{ScopeMetrics: []*metricsv1.ScopeMetrics{{Metrics: rapid.SliceOfN(metric, 0, 4).Draw(t, "metrics")}}, SchemaUrl: "x"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		want, got := read(t, generated, body), read(t, export, body)
		if !slices.Equal(got, want) {
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// Whatever comes, nothing panics, and what has points is not read as nothing.
func FuzzExport(f *testing.F) {
	f.Add(members("u", 3))
	f.Add(large(2, 1))
	f.Add([]byte{0x0a, 0x03, 0x12, 0x01})
	f.Fuzz(func(t *testing.T, body []byte) {
		fl := fleet.New(fleet.Config{})
		fl.Joined(1, model.Proxy{ID: "e"}, model.TelemetryEndpoints)
		for range 2 { // what is new of totals shows in the second
			if r := fl.Open("e", time.Second); r != nil {
				_ = export(body, r.Add)
				r.Close()
			}
		}
		var got, want []string
		err := export(body, func(p fleet.Point) { got = append(got, said(p)) })
		if generated(body, func(p fleet.Point) { want = append(want, said(p)) }) != nil {
			return
		}
		if len(want) > 0 && err == nil && len(got) == 0 {
			t.Errorf("read nothing, want %v", want)
		}
	})
}

// large is a report of so many upstreams and endpoints, as Envoy writes it.
func large(upstreams, endpoints int) []byte {
	var all []*metricsv1.Metric
	names := make([]string, 0, len(metrics))
	for name := range metrics {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		m := &metricsv1.Metric{Name: name}
		var points []*metricsv1.NumberDataPoint
		var buckets []*metricsv1.HistogramDataPoint
		for u := range upstreams {
			attributes := []*commonv1.KeyValue{text("envoy.cluster_name", fmt.Sprintf("upstream-%d", u))}
			switch metrics[name] {
			case fleet.Latency:
				buckets = append(buckets, &metricsv1.HistogramDataPoint{Attributes: attributes, BucketCounts: make([]uint64, 15), ExplicitBounds: make([]float64, 14), TimeUnixNano: 1})
			case fleet.EndpointHealthy, fleet.EndpointConnectFailed:
				for e := range endpoints {
					points = append(points, &metricsv1.NumberDataPoint{
						Attributes: append(slices.Clone(attributes), text("envoy.endpoint_address", fmt.Sprintf("10.0.%d.%d:8080", u, e))), TimeUnixNano: 1, StartTimeUnixNano: 1,
						Value: &metricsv1.NumberDataPoint_AsInt{AsInt: 1},
					})
				}
			default:
				points = append(points, &metricsv1.NumberDataPoint{Attributes: attributes, TimeUnixNano: 1, StartTimeUnixNano: 1, Value: &metricsv1.NumberDataPoint_AsInt{AsInt: 1}})
			}
		}
		if m.Data = (&metricsv1.Metric_Gauge{Gauge: &metricsv1.Gauge{DataPoints: points}}); buckets != nil {
			m.Data = &metricsv1.Metric_Histogram{Histogram: &metricsv1.Histogram{DataPoints: buckets}}
		}
		all = append(all, m)
	}
	body, err := proto.Marshal(&metricsservicev1.ExportMetricsServiceRequest{ResourceMetrics: []*metricsv1.ResourceMetrics{{ScopeMetrics: []*metricsv1.ScopeMetrics{{Metrics: all}}}}})
	if err != nil {
		panic(err)
	}
	return body
}

// Reading a report of 200 upstreams with 5 endpoints: by a walk over its bytes, and by
// the generated messages.
func BenchmarkExport(b *testing.B) {
	body := large(200, 5)
	for name, how := range map[string]func([]byte, func(fleet.Point)) error{"walk": export, "generated": generated} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			n, start := 0, time.Now()
			for b.Loop() {
				if err := how(body, func(fleet.Point) { n++ }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)/time.Since(start).Seconds(), "points/s")
		})
	}
}
