package server

import (
	"errors"
	"fmt"
	"sync"
	"unicode/utf8"
	"weak"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec for everything else
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// codec sends responses from the bytes that all streams share, and reads of a
// request what is needed: a proxy may say its whole node with each acknowledgement,
// and only the first is read. Other messages are gRPC's own codec's.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(mem.BufferSlice); ok {
		return b, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*message)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	whole := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer whole.Free()
	return m.read(whole.ReadOnlyData())
}

// message is a request as it is received. The stream sets delta, and first until a
// request was read.
type message struct {
	delta, first bool
	request      delivery.Request
	node         *model.Proxy // of the first request
	nodeID       string       // of any request that carries a node, where carries is set
	carries      bool
	text         string // a copy of the request, where it has names
}

// field is what a number means in the request of either form.
type field int

const (
	fieldNode field = iota + 1
	fieldType
	fieldSubscribe
	fieldUnsubscribe
	fieldInitial
	fieldNonce
	fieldError
	fieldNames
	fieldVersion
)

// The numbers of DeltaDiscoveryRequest and DiscoveryRequest
// (envoy/service/discovery/v3/discovery.proto).
var (
	deltaFields = []field{1: fieldNode, 2: fieldType, 3: fieldSubscribe, 4: fieldUnsubscribe, 5: fieldInitial, 6: fieldNonce, 7: fieldError}
	sotwFields  = []field{1: fieldVersion, 2: fieldNode, 3: fieldNames, 4: fieldType, 5: fieldNonce, 6: fieldError}
)

// read takes a request's bytes, of which it keeps nothing.
func (m *message) read(b []byte) error {
	m.request, m.node, m.nodeID, m.carries, m.text = delivery.Request{}, nil, "", false, ""
	fields := sotwFields
	if m.delta {
		fields = deltaFields
	}
	return each(b, func(number protowire.Number, value []byte, at int) error {
		if int(number) < len(fields) {
			return m.take(fields[number], value, b, at)
		}
		return nil
	})
}

// take reads a field; at is where its value begins in the whole.
func (m *message) take(f field, value, whole []byte, at int) (err error) {
	r := &m.request
	switch f {
	case fieldNode:
		return m.takeNode(value)
	case fieldType:
		r.Type, err = typeOf(value)
	case fieldSubscribe:
		err = m.addName(&r.Subscribe, value, whole, at)
	case fieldUnsubscribe:
		err = m.addName(&r.Unsubscribe, value, whole, at)
	case fieldNames:
		err = m.addName(&r.Names, value, whole, at)
	case fieldNonce:
		r.Nonce, err = text(value)
	case fieldVersion:
		r.Version, err = text(value)
	case fieldInitial:
		err = m.takeInitial(value)
	case fieldError:
		s := &statuspb.Status{}
		err = proto.Unmarshal(value, s)
		r.Refused = &s.Message
	}
	return err
}

// addName adds one of many names: they are parts of one copy of the request, and
// their list has room for all of them if they are about as long.
func (m *message) addName(to *[]string, value, whole []byte, at int) error {
	if !utf8.Valid(value) {
		return errText
	}
	if m.text == "" {
		m.text = string(whole)
	}
	if *to == nil {
		*to = make([]string, 0, min(maxNames, 1+(len(whole)-at-len(value))/(len(value)+2)))
	}
	*to = append(*to, m.text[at:at+len(value)])
	return nil
}

// takeNode reads the whole of the first node, and the id of those after it.
func (m *message) takeNode(value []byte) error {
	m.carries = true
	if !m.first {
		return each(value, func(number protowire.Number, value []byte, _ int) (err error) {
			if number == 1 {
				m.nodeID, err = text(value)
			}
			return err
		})
	}
	n := &corev3.Node{}
	if err := proto.Unmarshal(value, n); err != nil {
		return err
	}
	m.node, m.nodeID = proxyOf(n), n.Id
	return nil
}

// takeInitial reads an entry of initial_resource_versions.
func (m *message) takeInitial(value []byte) error {
	var parts [3]string
	err := each(value, func(number protowire.Number, value []byte, _ int) (err error) {
		if number == 1 || number == 2 {
			parts[number], err = text(value)
		}
		return err
	})
	if m.request.Initial == nil {
		m.request.Initial = map[string]string{}
	}
	m.request.Initial[parts[1]] = parts[2]
	return err
}

// each calls f with each field of a message that has bytes, and where they begin.
func each(b []byte, f func(number protowire.Number, value []byte, at int) error) error {
	for at := 0; at < len(b); {
		number, typ, n := protowire.ConsumeTag(b[at:])
		if n < 0 {
			return fmt.Errorf("read request: %w", protowire.ParseError(n))
		}
		at += n
		if n = protowire.ConsumeFieldValue(number, typ, b[at:]); n < 0 {
			return fmt.Errorf("read request: %w", protowire.ParseError(n))
		}
		if typ == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(b[at:])
			if err := f(number, value, at+n-len(value)); err != nil {
				return err
			}
		}
		at += n
	}
	return nil
}

var errText = errors.New("read request: a text is not valid UTF-8")

func text(b []byte) (string, error) {
	if !utf8.Valid(b) {
		return "", errText
	}
	return string(b), nil
}

// typeOf is a type URL; those that are served are not copied.
func typeOf(b []byte) (delivery.Type, error) {
	for _, t := range delivery.Types {
		if string(b) == string(t) {
			return t, nil
		}
	}
	s, err := text(b)
	return delivery.Type(s), err
}

// The fields of DeltaDiscoveryResponse and DiscoveryResponse besides the resources.
const (
	outVersion = 1
	outType    = 4
	outNonce   = 5
	outRemoved = 6
)

// encoded is a response on the wire: its nonce, and what all streams share that are
// sent the same.
func encoded(r delivery.Response, delta bool) mem.BufferSlice {
	if r.Shared == nil {
		return withNonce(r.Nonce, content(r, delta))
	}
	return withNonce(r.Nonce, r.Shared.Get(func() any { return &image{content: content(r, delta)} }).(*image).whole())
}

// withNonce is a response with its nonce, made at once.
func withNonce(nonce string, rest mem.BufferSlice) mem.BufferSlice {
	own := &struct {
		room  [24]byte
		part  mem.SliceBuffer
		parts [3]mem.Buffer
	}{}
	own.part = appendText(own.room[:0], outNonce, nonce)
	return append(append(own.parts[:0], &own.part), rest...)
}

func appendText(to []byte, number protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(to, number, protowire.BytesType), s)
}

// content is a response without its nonce: what is its own, and the bytes of the
// resources.
func content(r delivery.Response, delta bool) mem.BufferSlice {
	head := appendText(appendText(nil, outVersion, r.Version), outType, string(r.Type))
	for _, name := range r.Removed {
		head = appendText(head, outRemoved, name)
	}
	parts := make([]mem.SliceBuffer, 1+len(r.Resources))
	out := make(mem.BufferSlice, len(parts))
	parts[0] = head
	for i, x := range r.Resources {
		parts[i+1] = x.Field(delta)
	}
	for i := range parts {
		out[i] = &parts[i] // the value itself would be copied, each for itself
	}
	return out
}

// image is content in one piece: gRPC walks all pieces several times for each stream. It
// is kept for as long as streams come one after the other, and made again when others do.
type image struct {
	content mem.BufferSlice
	mu      sync.Mutex
	made    weak.Pointer[mem.SliceBuffer] // guarded by mu
}

func (i *image) whole() mem.BufferSlice {
	if len(i.content) <= few {
		return i.content
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	one := i.made.Value()
	if one == nil {
		b := mem.SliceBuffer(i.content.Materialize())
		one = &b
		i.made = weak.Make(one)
	}
	return mem.BufferSlice{one}
}

// few pieces are sent as they are.
const few = 16
