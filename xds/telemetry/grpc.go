package telemetry

import (
	"context"
	"errors"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

const exportMethod = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"

// metricsService is OTLP's, with requests that are left as they came.
var metricsService = grpc.ServiceDesc{
	ServiceName: "opentelemetry.proto.collector.metrics.v1.MetricsService", HandlerType: (*exporter)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Export", Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var body raw
		if err := decode(&body); err != nil {
			return nil, err
		}
		return &raw{}, srv.(exporter).export(ctx, body)
	}}},
}

const logsMethod = accesslogv3.AccessLogService_StreamAccessLogs_FullMethodName

// accessLogService is Envoy's, with messages that are left as they came.
var accessLogService = grpc.ServiceDesc{
	ServiceName: "envoy.service.accesslog.v3.AccessLogService", HandlerType: (*listener)(nil),
	Streams: []grpc.StreamDesc{{StreamName: "StreamAccessLogs", ClientStreams: true, Handler: func(srv any, stream grpc.ServerStream) error {
		return srv.(listener).listen(stream)
	}}},
}

type listener interface {
	listen(stream grpc.ServerStream) error
}

type exporter interface {
	export(ctx context.Context, body []byte) error
}

// export takes a report over gRPC.
func (s *Server) export(ctx context.Context, body []byte) error {
	c, _ := ctx.Value(callerKey{}).(caller)
	switch err := s.take(ctx, c.node, body, false); {
	case errors.Is(err, errNoRoom):
		return status.Error(codes.ResourceExhausted, err.Error())
	case err != nil:
		s.metrics.drop(droppedMalformed)
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return nil
}

// raw is a message that is not decoded.
type raw []byte

// codec is protobuf's, but for raw messages.
type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(*raw); ok {
		return mem.BufferSlice{mem.SliceBuffer(*r)}, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(*raw); ok {
		*r = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}
