package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that is wrapped
	"google.golang.org/grpc/mem"

	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// images are the encoded responses that the raw servers send: the full ones, and
// those of changes.
type images struct {
	clusters, assignments []byte
	moving                []*discoveryv3.Resource
	encode                func(delivery.Type, int, ...*discoveryv3.Resource) []byte
	nonce                 atomic.Int64
}

func newImages(c content, isSotW bool) *images {
	encode := delta
	if isSotW {
		encode = sotw
	}
	return &images{
		clusters: encode(delivery.Clusters, 1, c.clusters.Resources...), assignments: encode(delivery.Assignments, 2, c.assignments.Resources...),
		moving: c.moving(), encode: encode,
	}
}

func (m *images) change(marks ...int) []byte {
	var rs []*discoveryv3.Resource
	for _, i := range marks {
		rs = append(rs, marked(m.moving[i%len(m.moving)], i))
	}
	return m.encode(delivery.Assignments, int(m.nonce.Add(1))+2, rs...)
}

// image is what the first request for a type is answered with; nil for others.
func (m *images) image(request []byte, sent *[2]bool) []byte {
	switch {
	case !sent[0]:
		sent[0] = true
		return m.clusters
	case !sent[1] && bytes.Contains(request, []byte(delivery.Assignments)):
		sent[1] = true
		return m.assignments
	}
	return nil
}

// rawGRPC is gRPC's own server with one encoded response that all streams share:
// what any server on gRPC costs at least.
type rawGRPC struct {
	*images
	creds credentials.TransportCredentials
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	mu      sync.Mutex
	streams map[grpc.ServerStream]bool
}

func newRawGRPC(c content, isSotW bool, creds credentials.TransportCredentials) *rawGRPC {
	return &rawGRPC{images: newImages(c, isSotW), creds: creds, streams: map[grpc.ServerStream]bool{}}
}

func (r *rawGRPC) serve(l net.Listener) error {
	g := grpc.NewServer(grpc.Creds(r.creds), grpc.ForceServerCodecV2(rawCodec{encoding.GetCodecV2("proto")}), grpc.MaxRecvMsgSize(64<<20))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, r)
	return g.Serve(l)
}

func (r *rawGRPC) DeltaAggregatedResources(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return r.stream(s)
}

func (r *rawGRPC) StreamAggregatedResources(s discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return r.stream(s)
}

func (r *rawGRPC) stream(s grpc.ServerStream) error {
	var sent [2]bool
	var request raw
	r.mu.Lock()
	r.streams[s] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.streams, s)
	}()
	for {
		request.look = !sent[1]
		if err := s.RecvMsg(&request); err != nil {
			return nil
		}
		if b := r.image(request.bytes, &sent); b != nil {
			if err := s.SendMsg(mem.BufferSlice{mem.SliceBuffer(b)}); err != nil {
				return err
			}
		}
		request.bytes = nil
	}
}

func (r *rawGRPC) flip(i int) { r.flips([]int{i}) }

func (r *rawGRPC) flips(marks []int) {
	b := mem.BufferSlice{mem.SliceBuffer(r.change(marks...))}
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.streams {
		_ = s.SendMsg(b)
	}
}

// raw is a request that is looked at only until the stream has everything.
type raw struct {
	look  bool
	bytes []byte
}

type rawCodec struct{ encoding.CodecV2 }

func (c rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(mem.BufferSlice); ok {
		return b, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(*raw); ok {
		if r.look {
			r.bytes = data.Materialize()
		}
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// h2Raw writes the framed bytes to each connection and has no gRPC: what the
// operating system costs.
type h2Raw struct {
	*images
	mu    sync.Mutex
	conns map[net.Conn]bool
}

func newH2Raw(c content) *h2Raw {
	return &h2Raw{images: newImages(c, false), conns: map[net.Conn]bool{}}
}

func (h *h2Raw) serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() { _ = h.conn(c) }()
	}
}

// framed is a message in HTTP/2 frames.
func framed(message []byte) []byte {
	var out bytes.Buffer
	f := http2.NewFramer(&out, nil)
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	b = append(b, message...)
	for len(b) > 0 {
		n := min(len(b), 16<<10)
		_ = f.WriteData(1, false, b[:n]) // into memory
		b = b[n:]
	}
	return out.Bytes()
}

func (h *h2Raw) conn(c net.Conn) error {
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.conns, c)
		_ = c.Close()
	}()
	in := bufio.NewReaderSize(c, 4<<10)
	if _, err := io.ReadFull(in, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	var lock sync.Mutex // the pushes write too
	f := http2.NewFramer(c, in)
	f.SetReuseFrames()
	if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: bigWindow}); err != nil {
		return err
	}
	if err := f.WriteWindowUpdate(0, bigWindow); err != nil {
		return err
	}
	var sent [2]bool
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = f.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			var block bytes.Buffer
			e := hpack.NewEncoder(&block)
			_ = e.WriteField(hpack.HeaderField{Name: ":status", Value: "200"}) // into memory
			_ = e.WriteField(hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
			err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
			h.mu.Lock()
			h.conns[c] = true
			h.mu.Unlock()
		case *http2.DataFrame:
			if sent[1] {
				continue
			}
			if b := h.image(frame.Data(), &sent); b != nil {
				lock.Lock()
				_, err = c.Write(framed(b))
				lock.Unlock()
			}
		}
		if err != nil {
			return err
		}
	}
}

func (h *h2Raw) flip(i int) { h.flips([]int{i}) }

func (h *h2Raw) flips(marks []int) {
	b := framed(h.change(marks...))
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		_, _ = c.Write(b)
	}
}
