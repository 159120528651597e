package telemetry

import (
	"context"
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
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
)

// listen takes failed requests, until the stream ends. Whose they are stands in its
// first message. One that counts for nobody is read and dropped: if it were ended, Envoy
// would open it anew for the next entry, with its whole node.
func (s *Server) listen(stream grpc.ServerStream) (err error) {
	c, _ := stream.Context().Value(callerKey{}).(caller)
	defer s.guard(c.node, &err)
	var log string
	for {
		var message raw
		switch err := stream.RecvMsg(&message); {
		case errors.Is(err, io.EOF):
			return stream.SendMsg(&raw{}) // an empty StreamAccessLogsResponse
		case err != nil:
			return err
		}
		id, err := whose(message)
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		if id != nil {
			c.node, c.Key, log = id.GetNode().GetId(), reportKey(id.GetNode()), id.GetLogName()
		}
		if log == "" {
			return status.Error(codes.InvalidArgument, "the first message has no identifier")
		}
		if code, _ := s.prove(c); code != http.StatusOK {
			continue // and its entries are not looked at
		}
		if err := s.entries(message, c.node, log == bootstrap.AttemptsLog); err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
	}
}

// The fields of StreamAccessLogsMessage; the entries are field 1 of both lists.
const (
	identifierField = 1
	httpField       = 2
	tcpField        = 3
)

// whose finds in a message whose it is; nil where it does not say it.
func whose(message []byte) (id *accesslogv3.StreamAccessLogsMessage_Identifier, err error) {
	err = each(message, identifierField, func(v []byte) error {
		id = &accesslogv3.StreamAccessLogsMessage_Identifier{}
		return proto.Unmarshal(v, id)
	})
	return id, err
}

// entries hands what a message tells to the fleet, as far as there is room.
func (s *Server) entries(message []byte, node string, attempt bool) error {
	return fields(message, func(num protowire.Number, v []byte, _ uint64) error {
		if num != httpField && num != tcpField {
			return nil
		}
		return each(v, 1, func(body []byte) error {
			if !s.room(node) {
				return nil
			}
			x, err := failed(body, num == tcpField, node, attempt)
			if err == nil {
				s.metrics.failures.Inc()
				s.cfg.Fleet.Failed(x)
			}
			return err
		})
	})
}

// slowed reads a body that does not end no faster than all of its kind may come.
func (s *Server) slowed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = slowBody{r.Body, r.Context(), s.logs}
		next.ServeHTTP(w, r)
	})
}

type slowBody struct {
	io.ReadCloser
	ctx  context.Context
	rate *rate.Limiter
}

// Read waits before it gives what it read.
func (b slowBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), b.rate.Burst())])
	if n > 0 {
		if wait := b.rate.WaitN(b.ctx, n); wait != nil {
			return 0, wait
		}
	}
	return n, err
}

// room tells whether one more failed request of a proxy is within the limits.
func (s *Server) room(node string) bool {
	switch {
	case !s.quotas.of(node).failures.Allow():
		s.metrics.drop(droppedProxy)
	case !s.failures.Allow():
		s.metrics.drop(droppedRate)
	default:
		return true
	}
	return false
}

// reportKey is what a node says in its metadata.
func reportKey(n *corev3.Node) string {
	return n.GetMetadata().GetFields()["wellspring"].GetStructValue().GetFields()[bootstrap.MetadataReportKey].GetStringValue()
}

// failed decodes an entry, of HTTP or of TCP.
func failed(body []byte, tcp bool, node string, attempt bool) (fleet.Failed, error) {
	if tcp {
		m := &dataaccesslogv3.TCPAccessLogEntry{}
		err := proto.Unmarshal(body, m)
		return common(m.CommonProperties, node, attempt), err
	}
	m := &dataaccesslogv3.HTTPAccessLogEntry{}
	if err := proto.Unmarshal(body, m); err != nil {
		return fleet.Failed{}, err
	}
	x := common(m.CommonProperties, node, attempt)
	x.Method, x.Host = m.GetRequest().GetRequestMethod().String(), short(m.GetRequest().GetAuthority())
	path, _, _ := strings.Cut(m.GetRequest().GetPath(), "?") // what stands after it may be a secret
	x.Path, x.Request = short(path), short(m.GetRequest().GetRequestId())
	x.Status = int(m.GetResponse().GetResponseCode().GetValue())
	if x.Detail == "" {
		x.Detail = short(m.GetResponse().GetResponseCodeDetails())
	}
	return x, nil
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
	if now := time.Now(); p.GetStartTime() == nil || x.Time.After(now) || now.Sub(x.Time) > oldest {
		x.Time = now // its clock is wrong
	}
	return x
}

// oldest is how long ago a request may have begun that failed now.
const oldest = time.Hour

// short bounds a text of a request.
func short(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "�")
}
