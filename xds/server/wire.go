package server

import (
	"fmt"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// wire is one of the two forms of the protocol on a stream.
type wire interface {
	receive() (message, error)
	send(delivery.Response) error
	delta() bool
	kind() string
}

// message is a request and, where it carried one, the node.
type message struct {
	request delivery.Request
	node    *model.Proxy
}

type deltaWire struct {
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
}

func (w deltaWire) delta() bool  { return true }
func (w deltaWire) kind() string { return "delta" }

func (w deltaWire) receive() (message, error) {
	r, err := w.stream.Recv()
	if err != nil {
		return message{}, err
	}
	m := message{request: delivery.Request{
		Type: delivery.Type(r.TypeUrl), Nonce: r.ResponseNonce,
		Subscribe: r.ResourceNamesSubscribe, Unsubscribe: r.ResourceNamesUnsubscribe, Initial: r.InitialResourceVersions,
	}, node: proxyOf(r.Node)}
	if r.ErrorDetail != nil {
		m.request.Refused = &r.ErrorDetail.Message
	}
	return m, nil
}

func (w deltaWire) send(r delivery.Response) error {
	out := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: string(r.Type), Nonce: r.Nonce, SystemVersionInfo: r.Version, RemovedResources: r.Removed}
	for _, x := range r.Resources {
		out.Resources = append(out.Resources, &discoveryv3.Resource{Name: x.Name, Version: x.Version, Resource: x.Body})
	}
	return w.stream.Send(out)
}

type sotwWire struct {
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer
}

func (w sotwWire) delta() bool  { return false }
func (w sotwWire) kind() string { return "sotw" }

func (w sotwWire) receive() (message, error) {
	r, err := w.stream.Recv()
	if err != nil {
		return message{}, err
	}
	m := message{request: delivery.Request{
		Type: delivery.Type(r.TypeUrl), Nonce: r.ResponseNonce, Names: r.ResourceNames, Version: r.VersionInfo,
	}, node: proxyOf(r.Node)}
	if r.ErrorDetail != nil {
		m.request.Refused = &r.ErrorDetail.Message
	}
	return m, nil
}

func (w sotwWire) send(r delivery.Response) error {
	out := &discoveryv3.DiscoveryResponse{TypeUrl: string(r.Type), Nonce: r.Nonce, VersionInfo: r.Version, Resources: make([]*anypb.Any, 0, len(r.Resources))}
	for _, x := range r.Resources {
		out.Resources = append(out.Resources, x.Body)
	}
	return w.stream.Send(out)
}

// proxyOf reads a node; nil for none.
func proxyOf(n *corev3.Node) *model.Proxy {
	if n == nil {
		return nil
	}
	p := &model.Proxy{
		ID: n.Id, Cluster: n.Cluster, Agent: n.UserAgentName,
		Locality: model.Locality{Region: n.GetLocality().GetRegion(), Zone: n.GetLocality().GetZone(), SubZone: n.GetLocality().GetSubZone()},
		Metadata: map[string]string{},
	}
	if v := n.GetUserAgentBuildVersion().GetVersion(); v != nil {
		p.Version = fmt.Sprintf("%d.%d.%d", v.MajorNumber, v.MinorNumber, v.Patch)
	}
	if v := n.GetUserAgentVersion(); v != "" {
		p.Version = v
	}
	flatten(p.Metadata, "", n.Metadata, 0)
	return p
}

const (
	maxMetadata      = 256 // values that are kept of a node
	maxMetadataDepth = 8
)

// flatten joins nested keys by dots and keeps scalars.
func flatten(into map[string]string, prefix string, s *structpb.Struct, depth int) {
	if depth > maxMetadataDepth {
		return
	}
	for k, v := range s.GetFields() {
		if len(into) >= maxMetadata {
			return
		}
		switch x := v.GetKind().(type) {
		case *structpb.Value_StringValue:
			into[prefix+k] = x.StringValue
		case *structpb.Value_NumberValue:
			into[prefix+k] = strconv.FormatFloat(x.NumberValue, 'g', -1, 64)
		case *structpb.Value_BoolValue:
			into[prefix+k] = strconv.FormatBool(x.BoolValue)
		case *structpb.Value_StructValue:
			flatten(into, prefix+k+".", x.StructValue, depth+1)
		}
	}
}
