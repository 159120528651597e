package main

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// fleet is many xDS clients that cost little: each is a connection with one stream,
// speaks HTTP/2 by its frames, and reads of a response its type, its nonce and the
// marks in it.
type fleet struct {
	address   string
	tls       *tls.Config
	sotw      bool
	fullNode  bool   // each acknowledgement carries the node, as Envoy's did before 1.38
	subscribe []byte // the names of all assignments, which each state-of-the-world request repeats
	want      int    // how many assignments there are
	moving    int    // services that have marks
	marks     *marks

	mu       sync.Mutex
	streams  []*stream
	synced   atomic.Int64
	bytes    atomic.Int64
	messages atomic.Int64
	failed   chan error
	wg       sync.WaitGroup
	ended    atomic.Bool
}

// marks are the changes of a cell: when each was made, and who has it.
type marks struct {
	made []atomic.Int64 // nanoseconds, by mark
	left []atomic.Int64 // streams that do not have it yet
	late histogram
	done chan int // marks that all have
}

func newMarks(n, streams int) *marks {
	m := &marks{made: make([]atomic.Int64, n+1), left: make([]atomic.Int64, n+1), done: make(chan int, n+1)}
	for i := range m.left {
		m.left[i].Store(int64(streams))
	}
	return m
}

func (m *marks) make(i int) { m.made[i].Store(time.Now().UnixNano()) }

// arrived notes the marks of a response, and those that they took the place of: a
// service has one mark, its newest. has is what the stream has of each service.
func (m *marks) arrived(message []byte, has []int) {
	now := time.Now().UnixNano()
	for {
		at := bytes.Index(message, markPrefix)
		if at < 0 || len(message) < at+len(markPrefix)+markDigits {
			return
		}
		message = message[at+len(markPrefix):]
		i, err := strconv.Atoi(string(message[:markDigits]))
		if err != nil || i == 0 || i >= len(m.made) {
			continue
		}
		service := i % len(has)
		for one := has[service] + len(has); one <= i; one += len(has) {
			if made := m.made[one].Load(); made != 0 {
				m.late.add(time.Duration(now - made))
				if m.left[one].Add(-1) == 0 {
					m.done <- one
				}
			}
		}
		has[service] = max(has[service], i)
	}
}

// stream is one client.
type stream struct {
	*fleet
	id     int
	conn   net.Conn
	framer *http2.Framer
	node   []byte

	out              []byte // messages that are to be written
	window, ofStream int    // what the server lets us write
	in               []byte
	unread           uint32 // bytes taken since the windows were opened last
	asked            bool
	got              int
	pause            chan struct{} // stops reading until it is closed
	paused           atomic.Bool
	has              []int // the newest mark of each service
}

const (
	deltaMethod = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	sotwMethod  = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
	bigWindow   = 1 << 30
)

// nodeOf is a node as an Envoy says it; full has the extensions that Envoy lists.
func nodeOf(id int, full bool) []byte {
	n := &corev3.Node{
		Id: fmt.Sprintf("edge-%06d", id), Cluster: "edge", UserAgentName: "envoy",
		UserAgentVersionType: &corev3.Node_UserAgentBuildVersion{UserAgentBuildVersion: &corev3.BuildVersion{Version: &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: 40}}},
	}
	if full { // about what Envoy 1.37 says
		for i := range 300 {
			n.Extensions = append(n.Extensions, &corev3.Extension{Name: fmt.Sprintf("envoy.extension.number.%d", i), Category: "envoy.filters.http", TypeUrls: []string{fmt.Sprintf("envoy.extensions.filters.http.number_%d.v3.Config", i)}})
		}
		n.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{"pod": structpb.NewStringValue("edge")}}
	}
	b, err := proto.Marshal(n)
	if err != nil {
		panic(err)
	}
	return b
}

// connect opens n streams of proxies that are numbered from a number on, and waits
// until each has everything.
func (f *fleet) connect(from, n int) error {
	f.failed, f.streams = make(chan error, 1), nil
	f.synced.Store(0)
	f.ended.Store(false)
	dial := make(chan int)
	var dialling sync.WaitGroup
	for range 8 {
		dialling.Go(func() {
			for id := range dial {
				if err := f.open(id); err != nil {
					f.fail(err)
				}
			}
		})
	}
	for id := range n {
		dial <- from + id
	}
	close(dial)
	dialling.Wait()
	return f.until("every stream has everything", func() bool { return f.synced.Load() >= int64(n) })
}

func (f *fleet) fail(err error) {
	if f.ended.Load() {
		return
	}
	select {
	case f.failed <- err:
	default:
	}
}

// until polls; what it waits for takes many milliseconds.
func (f *fleet) until(what string, ok func() bool) error {
	timeout := time.After(3 * time.Minute)
	for !ok() {
		select {
		case err := <-f.failed:
			return err
		case <-timeout:
			return fmt.Errorf("not within 3 minutes: %s (%d of %d streams have everything)", what, f.synced.Load(), len(f.streams))
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

func (f *fleet) open(id int) error {
	conn, err := net.Dial("tcp", f.address)
	if err != nil {
		return err
	}
	if f.tls != nil {
		conn = tls.Client(conn, f.tls)
	}
	s := &stream{fleet: f, id: id, conn: conn, framer: http2.NewFramer(conn, conn), window: 65535, ofStream: 65535, has: make([]int, f.moving)}
	for i := range s.has { // no change has its number, so that each is the first of its service
		s.has[i] = i - f.moving
	}
	s.framer.SetReuseFrames()
	s.framer.SetMaxReadFrameSize(1 << 20)
	s.node = nodeOf(id, f.fullNode)
	if err := s.begin(); err != nil {
		return err
	}
	f.mu.Lock()
	f.streams = append(f.streams, s)
	f.mu.Unlock()
	f.wg.Go(func() {
		if err := s.read(); err != nil {
			f.fail(fmt.Errorf("stream %d: %w", id, err))
		}
	})
	return nil
}

// begin writes what opens a connection and its stream, and the first request.
func (s *stream) begin() error {
	var head bytes.Buffer
	head.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&head, nil)
	method := deltaMethod
	if s.sotw {
		method = sotwMethod
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "bench"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		if err := enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			return err
		}
	}
	_ = framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: bigWindow}) // into memory
	_ = framer.WriteWindowUpdate(0, bigWindow-65535)
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	if _, err := s.conn.Write(head.Bytes()); err != nil {
		return err
	}
	s.send(request(s.sotw, delivery.Clusters, "", "", s.node, nil))
	return s.flush()
}

// request encodes a request of either form; rest is what follows its own fields.
func request(sotw bool, typ delivery.Type, nonce, version string, node, rest []byte) []byte {
	var b []byte
	add := func(number protowire.Number, value string) {
		if value != "" {
			b = protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), value)
		}
	}
	if sotw {
		add(1, version)
		add(2, string(node))
		add(4, string(typ))
		add(5, nonce)
	} else {
		add(1, string(node))
		add(2, string(typ))
		add(6, nonce)
	}
	return append(b, rest...)
}

// subscriptions encodes names as a request of either form has them.
func subscriptions(names []string) []byte {
	var b []byte
	for _, name := range names {
		b = protowire.AppendString(protowire.AppendTag(b, 3, protowire.BytesType), name) // 3 in both forms
	}
	return b
}

func (s *stream) send(message []byte) {
	s.out = append(s.out, 0)
	s.out = binary.BigEndian.AppendUint32(s.out, uint32(len(message)))
	s.out = append(s.out, message...)
}

// flush writes as much as the server lets us.
func (s *stream) flush() error {
	for len(s.out) > 0 {
		n := min(len(s.out), s.window, s.ofStream, 16<<10)
		if n <= 0 {
			return nil
		}
		if err := s.framer.WriteData(1, false, s.out[:n]); err != nil {
			return err
		}
		s.window, s.ofStream = s.window-n, s.ofStream-n
		s.out = s.out[n:]
	}
	s.out = s.out[:0]
	if cap(s.out) > 4<<10 {
		s.out = nil
	}
	return nil
}

// read takes frames until the connection ends.
func (s *stream) read() error {
	for {
		if s.paused.Load() {
			<-s.pause
		}
		f, err := s.framer.ReadFrame()
		if err != nil {
			if s.ended.Load() {
				return nil
			}
			return err
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			err = s.data(f)
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
					s.ofStream += int(v) - 65535
				}
				err = s.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = s.framer.WritePing(true, f.Data)
			}
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 {
				s.window += int(f.Increment)
			} else {
				s.ofStream += int(f.Increment)
			}
			err = s.flush()
		case *http2.RSTStreamFrame:
			err = fmt.Errorf("reset: %s", f.ErrCode)
		case *http2.GoAwayFrame:
			err = fmt.Errorf("go away: %s", f.ErrCode)
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				err = fmt.Errorf("the stream was ended: %s", trailers(f.HeaderBlockFragment()))
			}
		}
		if err != nil {
			return err
		}
	}
}

func trailers(block []byte) string {
	out := ""
	d := hpack.NewDecoder(4096, func(f hpack.HeaderField) { out += " " + f.Name + "=" + f.Value })
	_, _ = d.Write(block)
	return out
}

func (s *stream) data(f *http2.DataFrame) error {
	s.bytes.Add(int64(len(f.Data())))
	s.in = append(s.in, f.Data()...)
	if s.unread += f.Length; s.unread > bigWindow/2 {
		for _, id := range []uint32{0, 1} {
			if err := s.framer.WriteWindowUpdate(id, s.unread); err != nil {
				return err
			}
		}
		s.unread = 0
	}
	for len(s.in) >= 5 {
		n := 5 + int(binary.BigEndian.Uint32(s.in[1:]))
		if len(s.in) < n {
			return nil
		}
		if err := s.message(s.in[5:n]); err != nil {
			return err
		}
		s.in = s.in[n:]
	}
	if len(s.in) == 0 {
		s.in = s.in[:0]
		if cap(s.in) > 8<<10 {
			s.in = nil
		}
	}
	return nil
}

// message takes a response and acknowledges it.
func (s *stream) message(b []byte) error {
	var typ, nonce, version []byte
	resources := 0
	for rest := b; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 || kind != protowire.BytesType {
			return io.ErrUnexpectedEOF
		}
		value, m := protowire.ConsumeBytes(rest[n:])
		if m < 0 {
			return io.ErrUnexpectedEOF
		}
		rest = rest[n+m:]
		switch number {
		case 1:
			version = value
		case 2:
			resources++
		case 4:
			typ = value
		case 5:
			nonce = value
		}
	}
	clusters := string(typ) == string(delivery.Clusters)
	s.messages.Add(1)
	if !clusters && s.marks != nil && s.pause == nil {
		s.marks.arrived(b, s.has)
	}
	var node, names []byte
	if s.fullNode {
		node = s.node
	}
	if s.sotw && !clusters {
		names = s.subscribe
	}
	t := delivery.Assignments
	if clusters {
		t = delivery.Clusters
	}
	s.send(request(s.sotw, t, string(nonce), string(version), node, names))
	if clusters && !s.asked {
		s.asked = true
		s.send(request(s.sotw, delivery.Assignments, "", "", node, s.subscribe))
	}
	if err := s.flush(); err != nil {
		return err
	}
	if !clusters && s.got < s.want {
		if s.got += resources; s.got >= s.want {
			s.synced.Add(1)
		}
	}
	return nil
}

// stop makes the first n streams read nothing more.
func (f *fleet) stop(n int) {
	for _, s := range f.streams[:n] {
		s.pause = make(chan struct{})
		s.paused.Store(true)
	}
}

// close ends all streams.
func (f *fleet) close() {
	if f == nil {
		return
	}
	f.ended.Store(true)
	for _, s := range f.streams {
		if s.pause != nil {
			close(s.pause)
			s.paused.Store(false)
		}
		_ = s.conn.Close()
	}
	f.wg.Wait()
}

// histogram counts durations in steps of a fifth of a millisecond, up to a minute.
type histogram struct{ counts [300_000]atomic.Int64 }

const histogramStep = 200 * time.Microsecond

func (h *histogram) add(d time.Duration) {
	h.counts[max(0, min(int(d/histogramStep), len(h.counts)-1))].Add(1)
}

func (h *histogram) quantile(q float64) time.Duration {
	var all, sum int64
	for i := range h.counts {
		all += h.counts[i].Load()
	}
	for i := range h.counts {
		if sum += h.counts[i].Load(); float64(sum) >= q*float64(all) && all > 0 {
			return time.Duration(i+1) * histogramStep
		}
	}
	return 0
}
