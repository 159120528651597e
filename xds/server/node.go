package server

import (
	"fmt"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

// What a bootstrap of ours says in the node's metadata.
const (
	telemetryKey = translate.Namespace + "." + bootstrap.MetadataTelemetry
	reportEvery  = translate.Namespace + "." + bootstrap.MetadataInterval
	reportKey    = translate.Namespace + "." + bootstrap.MetadataReportKey
)

// proxyOf reads a node.
func proxyOf(n *corev3.Node) *model.Proxy {
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
	p.Telemetry, p.ReportKey = model.TelemetryOf(p.Metadata[telemetryKey]), p.Metadata[reportKey]
	p.ReportEvery, _ = time.ParseDuration(p.Metadata[reportEvery])
	delete(p.Metadata, reportKey) // a secret: metadata is shown
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
