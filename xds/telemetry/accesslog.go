package telemetry

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dataaccesslogv3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
)

// StreamAccessLogs takes failed requests. Whose they are stands in the first message
// of a stream. One that counts for nobody is read and dropped: if it were ended,
// Envoy would open it anew for the next entry, with its whole node.
func (s *Server) StreamAccessLogs(stream accesslogv3.AccessLogService_StreamAccessLogsServer) error {
	c, _ := stream.Context().Value(callerKey{}).(caller)
	var log string
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return stream.SendAndClose(&accesslogv3.StreamAccessLogsResponse{})
		case err != nil:
			return err
		}
		if id := m.Identifier; id != nil {
			c.node, c.Key = id.GetNode().GetId(), reportKey(id.Node)
			log = id.LogName
		}
		if log == "" {
			return status.Error(codes.InvalidArgument, "the first message has no identifier")
		}
		failed := entries(m, c.node, log == bootstrap.AttemptsLog)
		if code, _ := s.prove(c); code != http.StatusOK {
			continue
		}
		for _, x := range failed {
			s.failed(x)
		}
	}
}

// failed hands a failed request to the fleet, where it is within the limits.
func (s *Server) failed(x fleet.Failed) {
	switch {
	case !s.quotas.of(x.Proxy).failures.Allow():
		s.metrics.drop(droppedProxy)
	case !s.failures.Allow():
		s.metrics.drop(droppedRate)
	default:
		s.metrics.failures.Inc()
		s.cfg.Fleet.Failed(x)
	}
}

// reportKey is what a node says in its metadata.
func reportKey(n *corev3.Node) string {
	return n.GetMetadata().GetFields()["wellspring"].GetStructValue().GetFields()[bootstrap.MetadataReportKey].GetStringValue()
}

// entries reads a message, of HTTP or of TCP.
func entries(m *accesslogv3.StreamAccessLogsMessage, node string, attempt bool) (out []fleet.Failed) {
	for _, e := range m.GetHttpLogs().GetLogEntry() {
		x := common(e.CommonProperties, node, attempt)
		x.Method, x.Host = e.GetRequest().GetRequestMethod().String(), short(e.GetRequest().GetAuthority())
		path, _, _ := strings.Cut(e.GetRequest().GetPath(), "?") // what stands after it may be a secret
		x.Path, x.Request = short(path), short(e.GetRequest().GetRequestId())
		x.Status = int(e.GetResponse().GetResponseCode().GetValue())
		if x.Detail == "" {
			x.Detail = short(e.GetResponse().GetResponseCodeDetails())
		}
		out = append(out, x)
	}
	for _, e := range m.GetTcpLogs().GetLogEntry() {
		out = append(out, common(e.CommonProperties, node, attempt))
	}
	return out
}

func common(p *dataaccesslogv3.AccessLogCommon, node string, attempt bool) fleet.Failed {
	tags := p.GetCustomTags()
	x := fleet.Failed{
		Proxy: node, Attempt: attempt, Time: p.GetStartTime().AsTime(), Upstream: tags[bootstrap.FailureUpstream], Route: short(tags[bootstrap.FailureRoute]),
		Flag: short(tags[bootstrap.FailureFlag]), Detail: short(tags[bootstrap.FailureDetail]), Failure: short(p.GetUpstreamTransportFailureReason()),
		Attempts: int(p.GetUpstreamRequestAttemptCount()), Took: p.GetDuration().AsDuration(),
	}
	if x.Upstream == "" {
		x.Upstream = p.GetUpstreamCluster()
	}
	if a := p.GetUpstreamRemoteAddress().GetSocketAddress(); a != nil {
		x.Endpoint = net.JoinHostPort(a.Address, strconv.Itoa(int(a.GetPortValue())))
	}
	if p.GetStartTime() == nil {
		x.Time = time.Now()
	}
	return x
}

// short bounds a text of a request.
func short(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "�")
}
