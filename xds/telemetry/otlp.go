package telemetry

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
)

// metrics are ours by Envoy's names, from which the cluster's was taken out.
var metrics = map[string]fleet.Metric{
	"cluster.membership_total": fleet.Members, "cluster.membership_healthy": fleet.Healthy, "cluster.membership_degraded": fleet.Degraded,
	"cluster.membership_excluded": fleet.Excluded, "cluster.outlier_detection.ejections_active": fleet.Ejected, "cluster.warming_state": fleet.Warming,
	"cluster.upstream_rq_active": fleet.Active, "cluster.upstream_rq_pending_active": fleet.Pending,

	"cluster.upstream_rq_completed": fleet.Requests, "cluster.upstream_cx_total": fleet.Connections, "cluster.upstream_rq_xx": fleet.Errors,
	"cluster.upstream_rq_timeout": fleet.Timeouts, "cluster.upstream_rq_retry": fleet.Retries, "cluster.upstream_rq_retry_overflow": fleet.RetryOverflow,
	"cluster.upstream_rq_pending_overflow": fleet.PendingOverflow, "cluster.upstream_rq_active_overflow": fleet.ActiveOverflow, "cluster.upstream_cx_overflow": fleet.ConnOverflow,
	"cluster.upstream_cx_connect_fail": fleet.ConnectFailed, "cluster.upstream_cx_none_healthy": fleet.NoneHealthy,
	"cluster.lb_healthy_panic": fleet.Panicked, "cluster.outlier_detection.ejections_overflow": fleet.EjectOverflow,
	"cluster.health_check.failure": fleet.CheckFailed, "cluster.health_check.network_failure": fleet.CheckUnreachable,
	"cluster.update_failure": fleet.ResolveFailed, "cluster.update_empty": fleet.ResolveEmpty, "cluster.assignment_stale": fleet.LeaseRanOut,

	"cluster.upstream_rq_time": fleet.Latency, "cluster.endpoint.healthy": fleet.EndpointHealthy,
	"cluster.endpoint.cx_connect_fail": fleet.EndpointConnectFailed,

	bootstrap.FailureScope + "." + bootstrap.FailureCounter: fleet.FailedRequests, "server.uptime": fleet.Uptime,
}

// errMalformed is of a body that is no export of OTLP.
var errMalformed = errors.New("it is no OTLP export of metrics")

// ours are the clusters of our own that a bootstrap has.
var ours = []byte(bootstrap.Reserved)

// export walks the points of an ExportMetricsServiceRequest that matter here. It
// reads the wire form itself: the generated messages make eight objects of each
// point, and there are hundreds of thousands a second (BenchmarkExport has both).
// The rules are those of OTLP's metrics.proto; a field that is not known is skipped.
func export(body []byte, add func(fleet.Point)) error {
	w := walker{add: add}
	return each(body, 1, func(resource []byte) error { // resource_metrics
		return each(resource, 2, func(scope []byte) error { // scope_metrics
			return each(scope, 2, w.metric) // metrics
		})
	})
}

// walker keeps what points are read into.
type walker struct {
	add     func(fleet.Point)
	buckets []uint64
	bounds  []float64
}

// The fields of Metric, and of the data in it that is looked at.
const (
	metricName = 1
	gaugeData  = 5
	sumData    = 7
	histogram  = 9
)

func (w *walker) metric(m []byte) error {
	var name []byte
	if err := each(m, metricName, func(v []byte) error { name = v; return nil }); err != nil {
		return err
	}
	of, ok := metrics[string(name)]
	if !ok {
		return nil
	}
	return fields(m, func(num protowire.Number, v []byte, _ uint64) error {
		switch num {
		case gaugeData, sumData:
			return each(v, 1, func(point []byte) error { return w.number(of, point) })
		case histogram:
			return each(v, 1, func(point []byte) error { return w.histogram(of, point) })
		}
		return nil
	})
}

// number reads a NumberDataPoint.
func (w *walker) number(of fleet.Metric, point []byte) error {
	p := fleet.Point{Metric: of}
	class := byte('5')
	err := fields(point, func(num protowire.Number, v []byte, n uint64) error {
		switch num {
		case 4: // as_double
			if f := math.Float64frombits(n); f > 0 && f < 1<<63 {
				p.Value = uint64(f)
			}
		case 6: // as_int
			p.Value = uint64(max(0, int64(n)))
		case 7:
			return attribute(v, &p, &class)
		}
		return nil
	})
	if err == nil && class == '5' && !bytes.HasPrefix(p.Upstream, ours) {
		w.add(p)
	}
	return err
}

// histogram reads a HistogramDataPoint.
func (w *walker) histogram(of fleet.Metric, point []byte) error {
	p := fleet.Point{Metric: of}
	w.buckets, w.bounds = w.buckets[:0], w.bounds[:0]
	var class byte
	err := fields(point, func(num protowire.Number, v []byte, n uint64) error {
		switch num {
		case 6: // bucket_counts, packed or one by one
			w.buckets = append(w.buckets, eights(v, n)...)
		case 7: // explicit_bounds
			for _, bits := range eights(v, n) {
				w.bounds = append(w.bounds, math.Float64frombits(bits))
			}
		case 9:
			return attribute(v, &p, &class)
		}
		return nil
	})
	if p.Buckets, p.Bounds = w.buckets, w.bounds; err == nil && !bytes.HasPrefix(p.Upstream, ours) {
		w.add(p)
	}
	return err
}

// eights are numbers of eight bytes: those of a packed field, or the one of another.
func eights(packed []byte, one uint64) []uint64 {
	if packed == nil {
		return []uint64{one}
	}
	out := make([]uint64, 0, len(packed)/8)
	for ; len(packed) >= 8; packed = packed[8:] {
		out = append(out, binary.LittleEndian.Uint64(packed))
	}
	return out
}

// attribute reads a KeyValue whose value is a text.
func attribute(kv []byte, p *fleet.Point, class *byte) error {
	var key, value []byte
	err := fields(kv, func(num protowire.Number, v []byte, _ uint64) error {
		switch num {
		case 1:
			key = v
		case 2:
			return each(v, 1, func(text []byte) error { value = text; return nil }) // AnyValue.string_value
		}
		return nil
	})
	switch string(key) {
	case "envoy.cluster_name", bootstrap.FailureUpstream:
		p.Upstream = value
	case "envoy.endpoint_address":
		p.Endpoint = value
	case "envoy.response_code_class":
		if *class = 0; len(value) == 1 {
			*class = value[0]
		}
	case bootstrap.FailureRoute:
		p.Route = value
	case bootstrap.FailureFlag:
		p.Flag = value
	}
	return err
}

// each calls f with every field of a number that has a length.
func each(message []byte, number protowire.Number, f func([]byte) error) error {
	return fields(message, func(num protowire.Number, v []byte, _ uint64) error {
		if num != number || v == nil {
			return nil
		}
		return f(v)
	})
}

// fields calls f with every field of a message: with its bytes where it has a
// length, else with its value.
func fields(message []byte, f func(num protowire.Number, v []byte, n uint64) error) error {
	for len(message) > 0 {
		num, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return fmt.Errorf("%w: %w", errMalformed, protowire.ParseError(n))
		}
		message = message[n:]
		var v []byte
		var value uint64
		switch typ {
		case protowire.BytesType:
			if v, n = protowire.ConsumeBytes(message); v == nil && n >= 0 {
				v = []byte{}
			}
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(message)
		case protowire.Fixed64Type:
			value, n = protowire.ConsumeFixed64(message)
		default:
			n = protowire.ConsumeFieldValue(num, typ, message)
		}
		if n < 0 {
			return fmt.Errorf("%w: %w", errMalformed, protowire.ParseError(n))
		}
		message = message[n:]
		if err := f(num, v, value); err != nil {
			return err
		}
	}
	return nil
}
