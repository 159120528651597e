package xdstest

import (
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// wire is one of the two forms of the protocol.
type wire interface {
	send(r request, first bool) error
	receive() (response, error)
}

// request is a request in either form.
type request struct {
	typ                    string
	subscribe, unsubscribe []string          // delta
	initial                map[string]string // delta, first of its type
	names                  []string          // state of the world: all of them
	version                string            // state of the world
	nonce, refused         string
}

func (r request) frame() Frame {
	return Frame{Sent: true, Type: r.typ, Names: append(slices.Clone(r.subscribe), r.names...), Removed: r.unsubscribe, Nonce: r.nonce, Refused: r.refused}
}

// response is a response in either form.
type response struct {
	typ, nonce, version string
	resources           []resource
	removed             []string
}

func (r response) frame() Frame {
	f := Frame{Type: r.typ, Removed: r.removed, Nonce: r.nonce}
	for _, x := range r.resources {
		f.Names = append(f.Names, x.name)
	}
	return f
}

// resource is one resource as far as an Envoy that forwards nothing cares.
type resource struct {
	name, version string // version is the server's, delta only
	content       string
	body          proto.Message
	refers        []string // cluster: its assignment; listener: its route table
	leads         []string // routes, and a listener that passes connections on: clusters
	endpoints     []string // assignment: addresses
}

func (r request) detail() *statuspb.Status {
	if r.refused == "" {
		return nil
	}
	return &statuspb.Status{Code: 13, Message: r.refused}
}

type delta struct {
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	node   *corev3.Node
}

func (w delta) send(r request, first bool) error {
	out := &discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: r.typ, ResourceNamesSubscribe: r.subscribe, ResourceNamesUnsubscribe: r.unsubscribe,
		InitialResourceVersions: r.initial, ResponseNonce: r.nonce, ErrorDetail: r.detail(),
	}
	if first {
		out.Node = w.node
	}
	return w.stream.Send(out)
}

func (w delta) receive() (response, error) {
	m, err := w.stream.Recv()
	if err != nil {
		return response{}, err
	}
	r := response{typ: m.TypeUrl, nonce: m.Nonce, removed: m.RemovedResources}
	for _, x := range m.Resources {
		res, err := read(x.Resource)
		if err != nil {
			return r, err
		}
		res.name, res.version = x.Name, x.Version
		r.resources = append(r.resources, res)
	}
	return r, nil
}

type sotw struct {
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	node   *corev3.Node
}

func (w sotw) send(r request, first bool) error {
	out := &discoveryv3.DiscoveryRequest{TypeUrl: r.typ, ResourceNames: r.names, VersionInfo: r.version, ResponseNonce: r.nonce, ErrorDetail: r.detail()}
	if first {
		out.Node = w.node
	}
	return w.stream.Send(out)
}

func (w sotw) receive() (response, error) {
	m, err := w.stream.Recv()
	if err != nil {
		return response{}, err
	}
	r := response{typ: m.TypeUrl, nonce: m.Nonce, version: m.VersionInfo}
	for _, x := range m.Resources {
		res, err := read(x)
		if err != nil {
			return r, err
		}
		r.resources = append(r.resources, res)
	}
	return r, nil
}

// read takes from a resource what it refers to.
func read(a *anypb.Any) (resource, error) {
	r := resource{content: string(a.GetValue())}
	m, err := a.UnmarshalNew()
	if err != nil {
		return r, err
	}
	r.body = m
	switch x := m.(type) {
	case *clusterv3.Cluster:
		r.name = x.Name
		service := x.GetEdsClusterConfig().GetServiceName()
		if service == "" {
			service = x.Name
		}
		r.refers = []string{service}
	case *endpointv3.ClusterLoadAssignment:
		r.name = x.ClusterName
		for _, l := range x.Endpoints {
			for _, ep := range l.LbEndpoints {
				a := ep.GetEndpoint().GetAddress().GetSocketAddress()
				r.endpoints = append(r.endpoints, address(a)+mark(ep.HealthStatus))
			}
		}
	case *listenerv3.Listener:
		r.name = x.Name
		for _, chain := range x.FilterChains {
			for _, f := range chain.Filters {
				hcm := &hcmv3.HttpConnectionManager{}
				if f.GetTypedConfig().MessageIs(hcm) {
					if err := proto.Unmarshal(f.GetTypedConfig().GetValue(), hcm); err != nil {
						return r, err
					}
					r.refers = append(r.refers, hcm.GetRds().GetRouteConfigName())
				}
				tcp := &tcpv3.TcpProxy{}
				if f.GetTypedConfig().MessageIs(tcp) {
					if err := proto.Unmarshal(f.GetTypedConfig().GetValue(), tcp); err != nil {
						return r, err
					}
					r.leads = append(r.leads, tcp.GetCluster())
					for _, c := range tcp.GetWeightedClusters().GetClusters() {
						r.leads = append(r.leads, c.Name)
					}
				}
			}
		}
	case *routev3.RouteConfiguration:
		r.name = x.Name
		for _, v := range x.VirtualHosts {
			for _, route := range v.Routes {
				r.leads = append(r.leads, route.GetRoute().GetCluster())
				for _, c := range route.GetRoute().GetWeightedClusters().GetClusters() {
					r.leads = append(r.leads, c.Name)
				}
			}
		}
	}
	slices.Sort(r.leads)
	r.leads = slices.DeleteFunc(slices.Compact(r.leads), func(name string) bool { return name == "" })
	return r, nil
}
