package telemetry

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dataaccesslogv3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metricsservicev1 "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	metricsv1 "go.opentelemetry.io/proto/otlp/metrics/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// members is a report: so many endpoints of an upstream.
func members(upstream string, n int64) []byte {
	body, err := proto.Marshal(&metricsservicev1.ExportMetricsServiceRequest{ResourceMetrics: []*metricsv1.ResourceMetrics{{ScopeMetrics: []*metricsv1.ScopeMetrics{{
		Metrics: []*metricsv1.Metric{{Name: "cluster.membership_total", Data: &metricsv1.Metric_Gauge{Gauge: &metricsv1.Gauge{DataPoints: []*metricsv1.NumberDataPoint{{
			Attributes: []*commonv1.KeyValue{text("envoy.cluster_name", upstream)}, Value: &metricsv1.NumberDataPoint_AsInt{AsInt: n},
		}}}}}},
	}}}}})
	if err != nil {
		panic(err)
	}
	return body
}

func text(key, value string) *commonv1.KeyValue {
	return &commonv1.KeyValue{Key: key, Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: value}}}
}

// world is a server that listens, and a fleet with the proxy e.
type world struct {
	*Server
	t       *testing.T
	address string
}

func newWorld(t *testing.T, cfg Config) *world {
	t.Helper()
	cfg.Fleet = fleet.New(fleet.Config{})
	cfg.Fleet.Joined(1, model.Proxy{ID: "e", ReportKey: "k"}, model.TelemetryEndpoints)
	w := &world{Server: New(cfg), t: t}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = l.Addr().String()
	h := w.HTTP()
	go h.Serve(l) //nolint:errcheck // until it is closed
	t.Cleanup(func() { _ = h.Close() })
	return w
}

// post sends a report and returns the answer.
func (w *world) post(node, key string, body []byte, header ...string) string {
	w.t.Helper()
	r, _ := http.NewRequestWithContext(w.t.Context(), http.MethodPost, "http://"+w.address+"/v1/metrics", bytes.NewReader(body))
	r.Header.Set(bootstrap.NodeHeader, bootstrap.Header.EncodeToString([]byte(node)))
	r.Header.Set(bootstrap.KeyHeader, bootstrap.Header.EncodeToString([]byte(key)))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	answer, _ := io.ReadAll(resp.Body)
	return strings.TrimSpace(fmt.Sprint(resp.StatusCode, " ", string(answer)))
}

func (w *world) seen() int {
	if v := w.cfg.Fleet.Views("u", false); len(v) > 0 {
		return v[0].Members
	}
	return 0
}

// dropped counts what met a limit.
func (w *world) dropped(limit string) int {
	return int(testutil.ToFloat64(w.metrics.dropped.WithLabelValues(limit)))
}

func zipped(body []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(body)
	_ = z.Close()
	return b.Bytes()
}

// What is answered to whom, and what is left of it: nothing but the node's own report
// is looked at, and nothing of one that is malformed.
func TestPost(t *testing.T) {
	w := newWorld(t, Config{MaxReport: 10_000})
	torn := members("u", 9)
	torn = torn[:len(torn)-2]
	for _, x := range []struct {
		what, node, key string
		body            []byte
		header          []string
		want            string
		seen            int
		limit           string
	}{
		{"nobody", "nobody", "k", members("u", 9), nil, "401 unverified, so that it proves nothing: no proxy of this node id", 0, droppedUnverified},
		{"no key", "e", "", members("u", 9), nil, "401 unverified, so that it proves nothing: it came without a report key", 0, droppedUnverified},
		{"another's node", "e", "l", members("u", 9), nil, "403 refused: its report key is not", 0, droppedRefused},
		{"no base64", "e", "k", members("u", 9), []string{bootstrap.NodeHeader, "%%"}, "401 unverified", 0, droppedUnverified},
		{"its own", "e", "k", members("u", 3), nil, "200", 3, ""},
		{"compressed", "e", "k", zipped(members("u", 4)), []string{"Content-Encoding", "gzip"}, "200", 4, ""},
		{"no gzip", "e", "k", members("u", 9), []string{"Content-Encoding", "gzip"}, "400 it is not gzip", 4, droppedMalformed},
		{"another encoding", "e", "k", members("u", 9), []string{"Content-Encoding", "br"}, `400 content-encoding "br" is not taken; send gzip or none`, 4, droppedMalformed},
		{"torn", "e", "k", torn, nil, "400 it is no OTLP export of metrics", 4, droppedMalformed},
	} {
		before := w.dropped(x.limit)
		w.quotas = quotas{} // of a proxy: TestLimits
		if got := w.post(x.node, x.key, x.body, x.header...); !strings.HasPrefix(got, x.want) {
			t.Errorf("%s: %s, want %s", x.what, got, x.want)
		}
		if w.seen() != x.seen {
			t.Errorf("%s: %d members are seen", x.what, w.seen())
		}
		if x.limit != "" && w.dropped(x.limit) != before+1 {
			t.Errorf("%s: not counted as %s", x.what, x.limit)
		}
	}
	if r := w.cfg.Fleet.RefusedReports(); len(r) != 1 || r[0].Node != "e" || r[0].Peer != "127.0.0.1" {
		t.Errorf("shown as refused: %+v", r)
	}
	if got := testutil.ToFloat64(w.metrics.reports); got != 2 {
		t.Errorf("%v reports", got)
	}
}

// What is too large, too often, or too much for all together, is dropped by the limit
// that it met; the next one is taken.
func TestLimits(t *testing.T) {
	large := members(strings.Repeat("u", 20_000), 1)
	w := newWorld(t, Config{MaxReport: 10_000, Rate: 25_000})
	for what, body := range map[string][]byte{"plain": large, "compressed": zipped(large)} {
		header := []string{}
		if what == "compressed" {
			header = []string{"Content-Encoding", "gzip"}
		}
		if got := w.post("e", "k", body, header...); got != "413 the report is larger than is taken" {
			t.Errorf("%s: %s", what, got)
		}
	}
	for range reportBurst - 2 {
		if got := w.post("e", "k", members("u", 1)); got != "200" {
			t.Error(got)
		}
	}
	if got := w.post("e", "k", members("u", 2)); got != "429 dropped for want of room (proxy)" || w.dropped(droppedProxy) != 1 {
		t.Error(got)
	}
	body := members(strings.Repeat("u", 9_000), 1)
	answers := map[string]int{}
	for range 6 {
		w.quotas = quotas{}
		answers[w.post("e", "k", body)]++
	}
	if answers["200"] < 2 || answers["200"] > 4 || answers["200"]+answers["429 dropped for want of room"]+answers["429 dropped for want of room (rate)"] != 6 || w.dropped(droppedRate) == 0 {
		t.Errorf("%v", answers)
	}
}

// A report whose turn does not come in time is dropped; the others go on.
func TestBusy(t *testing.T) {
	w := newWorld(t, Config{})
	for range cap(w.turns) {
		w.turns <- struct{}{}
	}
	if got := w.post("e", "k", members("u", 1)); got != "429 dropped for want of room" || w.dropped(droppedBusy) != 1 {
		t.Error(got)
	}
	<-w.turns
	if got := w.post("e", "k", members("u", 1)); got != "200" {
		t.Error(got)
	}
	for range cap(w.bodies) {
		w.bodies <- struct{}{}
	}
	if got := w.post("e", "k", members("u", 1)); got != "429 dropped for want of room (busy)" {
		t.Error(got)
	}
}

// Every path is closed to who comes without a certificate where one is needed, and
// what is not listed is closed to all.
func TestClosed(t *testing.T) {
	paths := []string{"/v1/metrics", exportMethod, accesslogv3.AccessLogService_StreamAccessLogs_FullMethodName}
	w := newWorld(t, Config{NeedCertificate: true})
	h := w.HTTP().Handler
	for _, path := range paths {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, path, nil))
		if rec.Code != http.StatusUnauthorized {
			t.Errorf("%s is open: %d", path, rec.Code)
		}
	}
	if w.dropped(droppedStranger) != len(paths) {
		t.Error("not counted")
	}
	h = newWorld(t, Config{}).HTTP().Handler
	for _, x := range []struct{ method, path string }{
		{"POST", "/"},
		{"POST", "/v1/traces"},
		{"GET", "/debug/pprof/"},
		{"POST", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"},
		{"POST", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"},
	} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(x.method, x.path, nil))
		if rec.Code != http.StatusNotFound {
			t.Errorf("%s %s: %d", x.method, x.path, rec.Code)
		}
	}
}

// A key that others can read proves nothing.
func TestPublicKey(t *testing.T) {
	w := newWorld(t, Config{})
	r := httptest.NewRequest(http.MethodPost, "/v1/metrics", bytes.NewReader(members("u", 1)))
	r.Header.Set(bootstrap.NodeHeader, bootstrap.Header.EncodeToString([]byte("e")))
	r.Header.Set(bootstrap.KeyHeader, bootstrap.Header.EncodeToString([]byte("k")))
	for address, want := range map[net.Addr]int{
		&net.TCPAddr{IP: net.IPv4(10, 0, 0, 9)}: 401, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}: 200, &net.UnixAddr{Name: "@", Net: "unix"}: 200,
	} {
		rec := httptest.NewRecorder()
		q := r.WithContext(context.WithValue(t.Context(), addressKey{}, address))
		q.Body = io.NopCloser(bytes.NewReader(members("u", 1)))
		w.HTTP().Handler.ServeHTTP(rec, q)
		if rec.Code != want {
			t.Errorf("from %v: %d %s", address, rec.Code, rec.Body)
		}
	}
}

func (w *world) dial() *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient(w.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// The same over gRPC.
func TestExport(t *testing.T) {
	w := newWorld(t, Config{})
	c := metricsservicev1.NewMetricsServiceClient(w.dial())
	export := func(node, key string, n int64) codes.Code {
		var m metricsservicev1.ExportMetricsServiceRequest
		if err := proto.Unmarshal(members("u", n), &m); err != nil {
			t.Fatal(err)
		}
		ctx := metadata.AppendToOutgoingContext(t.Context(), bootstrap.NodeHeader, bootstrap.Header.EncodeToString([]byte(node)), bootstrap.KeyHeader, bootstrap.Header.EncodeToString([]byte(key)))
		_, err := c.Export(ctx, &m)
		return status.Code(err)
	}
	if got := export("e", "k", 7); got != codes.OK || w.seen() != 7 {
		t.Errorf("%s, %d members", got, w.seen())
	}
	if got := export("e", "l", 8); got != codes.PermissionDenied || w.seen() != 7 {
		t.Errorf("%s, %d members", got, w.seen())
	}
	if got := export("nobody", "k", 8); got != codes.Unauthenticated {
		t.Error(got)
	}
	w.bytes.SetLimit(0)
	w.bytes.ReserveN(time.Now(), w.bytes.Burst())
	if got := export("e", "k", 8); got != codes.ResourceExhausted && got != codes.Unavailable || w.seen() != 7 {
		t.Errorf("%s, %d members", got, w.seen())
	}
}

// failure is an entry of the log of failed requests.
func failure(path string) *dataaccesslogv3.HTTPAccessLogEntry {
	return &dataaccesslogv3.HTTPAccessLogEntry{
		CommonProperties: &dataaccesslogv3.AccessLogCommon{
			StartTime: timestamppb.Now(), CustomTags: map[string]string{bootstrap.FailureFlag: "UH", bootstrap.FailureUpstream: "u", bootstrap.FailureRoute: "r[0]", bootstrap.FailureDetail: "no_healthy_upstream"},
		},
		Request: &dataaccesslogv3.HTTPRequestProperties{Path: path, Authority: strings.Repeat("h", 500)},
	}
}

func node(id, key string) *corev3.Node {
	m, _ := structpb.NewStruct(map[string]any{"wellspring": map[string]any{bootstrap.MetadataReportKey: key}})
	return &corev3.Node{Id: id, Metadata: m}
}

// Failed requests count for the node of the stream's first message, without their
// queries, and no longer than a sample may be; those of another's node are dropped,
// and the stream goes on.
func TestAccessLogs(t *testing.T) {
	w := newWorld(t, Config{})
	c := accesslogv3.NewAccessLogServiceClient(w.dial())
	told := func() (out []string) {
		_, told := w.cfg.Fleet.Failures("u")
		for _, r := range told {
			out = append(out, fmt.Sprintf("%d %t %s %s %s %s %d", r.Count, r.Attempt, r.Flag, r.Route, r.Detail, r.Samples[0].Path, len(r.Samples[0].Host)))
		}
		return out
	}
	send := func(id *accesslogv3.StreamAccessLogsMessage_Identifier, paths ...string) error {
		stream, err := c.StreamAccessLogs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i, path := range paths {
			m := &accesslogv3.StreamAccessLogsMessage{LogEntries: &accesslogv3.StreamAccessLogsMessage_HttpLogs{HttpLogs: &accesslogv3.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: []*dataaccesslogv3.HTTPAccessLogEntry{failure(path)}}}}
			if i == 0 {
				m.Identifier = id
			}
			if err := stream.Send(m); err != nil {
				break // CloseAndRecv says why
			}
		}
		_, err = stream.CloseAndRecv()
		return err
	}
	if err := send(&accesslogv3.StreamAccessLogsMessage_Identifier{Node: node("e", "l"), LogName: bootstrap.RequestsLog}, "/a", "/b"); err != nil || len(told()) != 0 || w.dropped(droppedRefused) != 2 {
		t.Errorf("another's node: %v %v", err, told())
	}
	if err := send(nil, "/a"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("no identifier: %v", err)
	}
	if err := send(&accesslogv3.StreamAccessLogsMessage_Identifier{Node: node("e", "k"), LogName: bootstrap.RequestsLog}, "/a?token=secret", "/b"); err != nil {
		t.Error(err)
	}
	if err := send(&accesslogv3.StreamAccessLogsMessage_Identifier{Node: node("e", "k"), LogName: bootstrap.AttemptsLog}, "/c"); err != nil {
		t.Error(err)
	}
	want := "2 false UH r[0] no_healthy_upstream /a 203; 1 true UH r[0] no_healthy_upstream /c 203"
	if got := strings.Join(told(), "; "); got != want {
		t.Errorf("told %s, want %s", got, want)
	}
	w.failures.SetBurst(0)
	if err := send(&accesslogv3.StreamAccessLogsMessage_Identifier{Node: node("e", "k"), LogName: bootstrap.RequestsLog}, "/d"); err != nil || w.dropped(droppedRate) != 1 {
		t.Errorf("%v, %d dropped", err, w.dropped(droppedRate))
	}
	w.failures.SetBurst(2 * failureBurst)
	for range failureBurst + 1 {
		w.room("noisy")
	}
	if w.dropped(droppedProxy) != 1 {
		t.Errorf("%d of a noisy proxy were dropped", w.dropped(droppedProxy))
	}
}

// What comes from nobody is not decoded, however much of it is one message: two bytes
// of an entry would be some hundred in memory.
func TestStrangersLogs(t *testing.T) {
	w := newWorld(t, Config{})
	conn := w.dial()
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, logsMethod, grpc.ForceCodecV2(codec{encoding.GetCodecV2("proto")}))
	if err != nil {
		t.Fatal(err)
	}
	first, err := proto.Marshal(&accesslogv3.StreamAccessLogsMessage{Identifier: &accesslogv3.StreamAccessLogsMessage_Identifier{Node: node("nobody", "k"), LogName: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	list := bytes.Repeat([]byte{0x0a, 0x00}, 200_000) // entries with nothing in them
	message := raw(slices.Concat(first, []byte{0x12}, binary.AppendUvarint(nil, uint64(len(list))), list))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		if err := stream.SendMsg(&message); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(stream.CloseSend(), stream.RecvMsg(&raw{})); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if grown := (after.TotalAlloc - before.TotalAlloc) >> 20; grown > 400 { // 4 million entries, decoded, take more than a thousand
		t.Errorf("%d MB were made of 8", grown)
	}
	if got := w.dropped(droppedUnverified); got != 20 {
		t.Errorf("%d messages were dropped", got)
	}
	oversized := raw(slices.Concat(first, make([]byte, maxLogs)))
	if stream, err = conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, logsMethod, grpc.ForceCodecV2(codec{encoding.GetCodecV2("proto")})); err == nil {
		_ = stream.SendMsg(&oversized)
		err = stream.RecvMsg(&raw{})
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("too large: %v", err)
	}
}

// Every limit has its series before it is met.
func TestMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	r.MustRegister(newWorld(t, Config{}).Metrics())
	n, err := testutil.GatherAndCount(r, "wellspring_telemetry_dropped_total", "wellspring_fleet_dropped_total")
	if err != nil || n != 14 {
		t.Errorf("%d series, %v", n, err)
	}
}

// Quotas of proxies that are quiet for long are forgotten.
func TestQuotas(t *testing.T) {
	var q quotas
	q.of("a")
	q.all["a"].last = time.Now().Add(-quotaKept - time.Second)
	q.swept = time.Now().Add(-quotaKept - time.Second)
	q.of("b")
	if len(q.all) != 1 {
		t.Errorf("%d are kept", len(q.all))
	}
}
