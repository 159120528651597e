package probe

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// once is a dialer that hands out one connection.
func once(conn net.Conn) func(context.Context, string, string) (net.Conn, error) {
	var taken atomic.Bool
	return func(context.Context, string, string) (net.Conn, error) {
		if taken.Swap(true) {
			return nil, io.EOF // the one there was is closed
		}
		return conn, nil
	}
}

// get replays a check by HTTP, in the version that the upstream speaks.
func get(ctx context.Context, conn net.Conn, t Target, c *spec.HTTPCheck) (string, error) {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!t.Spec.SpeaksHTTP2())
	protocols.SetUnencryptedHTTP2(t.Spec.SpeaksHTTP2())
	tr := &http.Transport{DialContext: once(conn), Protocols: protocols, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, c.Method, "http://endpoint"+c.Path, nil)
	if err != nil {
		return "", err
	}
	req.Host = t.Name
	if c.Host != "" {
		req.Host = c.Host
	}
	req.Header.Set("User-Agent", "Envoy/HC") // as Envoy says it
	for k, v := range c.Headers {
		if strings.EqualFold(k, "host") {
			req.Host = v
		}
		req.Header.Set(k, v)
	}
	resp, err := tr.RoundTrip(req) // no redirect is followed
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()                       //nolint:errcheck // read only
	_, _ = io.CopyN(io.Discard, resp.Body, 1<<20) // a check reads its answer
	says := fmt.Sprintf("%s %s: %d", c.Method, c.Path, resp.StatusCode)
	if after := resp.Header.Get("Retry-After"); after != "" {
		says += " with Retry-After"
	}
	if !expects(c.Expected, resp.StatusCode) {
		return "", &answerError{says + ", expected " + strings.Join(orOK(c.Expected), ", ")}
	}
	return says, nil
}

func orOK(expected []string) []string {
	if len(expected) == 0 {
		return []string{"200"}
	}
	return expected
}

// expects tells whether a status is one of those that pass.
func expects(statuses []string, got int) bool {
	for _, s := range orOK(statuses) {
		from, to, isRange := strings.Cut(s, "-")
		low, _ := strconv.Atoi(from)
		high := low
		if isRange {
			high, _ = strconv.Atoi(to)
		}
		if low <= got && got <= high {
			return true
		}
	}
	return false
}

// ask replays a check by gRPC.
func ask(ctx context.Context, conn net.Conn, t Target, c *spec.GRPCCheck) (string, error) {
	authority := t.Name
	if c.Authority != "" {
		authority = c.Authority
	}
	dial := once(conn)
	client, err := grpc.NewClient("passthrough:///endpoint",
		grpc.WithTransportCredentials(insecure.NewCredentials()), // TLS is spoken below
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, "tcp", "") }),
		grpc.WithAuthority(authority), grpc.WithDisableServiceConfig())
	if err != nil {
		return "", err
	}
	defer client.Close() //nolint:errcheck // what was read counts
	ctx = metadata.NewOutgoingContext(ctx, metadata.New(c.Metadata))
	var header, trailer metadata.MD // of a server that speaks gRPC, whatever it says
	answer, err := healthpb.NewHealthClient(client).Check(ctx, &healthpb.HealthCheckRequest{Service: c.Service}, grpc.Header(&header), grpc.Trailer(&trailer))
	switch code := status.Code(err); {
	case code == codes.DeadlineExceeded:
		return "", context.DeadlineExceeded
	case code == codes.Unavailable && len(header)+len(trailer) == 0:
		if text := status.Convert(err).Message(); strings.Contains(text, "EOF") || strings.Contains(text, "reset by peer") || strings.Contains(text, "broken pipe") {
			return "", io.EOF
		}
		return "", &protocolError{errors.New(status.Convert(err).Message())}
	case err != nil:
		return "", &answerError{"gRPC health check: " + code.String() + ": " + status.Convert(err).Message()}
	case answer.GetStatus() != healthpb.HealthCheckResponse_SERVING:
		return "", &answerError{"gRPC health check: " + answer.GetStatus().String() + ", expected SERVING"}
	}
	return "gRPC health check: SERVING", nil
}

// exchange replays a check by bytes: what comes back has the texts in their order.
func exchange(conn net.Conn, c *spec.TCPCheck) (string, error) {
	if c.Send != "" {
		text, err := hex.DecodeString(c.Send)
		if err != nil {
			return "", err
		}
		if _, err := conn.Write(text); err != nil {
			return "", err
		}
	}
	var got []byte
	buffer := make([]byte, 4<<10)
	for i, want := range c.Receive {
		text, err := hex.DecodeString(want)
		if err != nil {
			return "", err
		}
		for !bytes.Contains(got, text) {
			n, err := conn.Read(buffer)
			got = append(got, buffer[:n]...)
			switch {
			case n > 0 && len(got) <= 64<<10:
			case errors.Is(err, io.EOF) || err == nil:
				return "", &answerError{fmt.Sprintf("receive[%d] %s did not come back", i, want)}
			default:
				return "", err
			}
		}
		_, got, _ = bytes.Cut(got, text)
	}
	return "connected", nil
}
