package bootstrap

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// GRPC builds the bootstrap of a program that is an xDS client itself (gRPC's own,
// gRFC A27), as JSON: what GRPC_XDS_BOOTSTRAP names. Of the configuration it uses
// the node's id, group and zone, the addresses and the TLS files; a program has no
// admin.
func GRPC(c Config) ([]byte, error) {
	if c.NodeID == "" || c.Group == "" {
		return nil, errors.New("a node id and a group are needed")
	}
	if len(c.XDS) == 0 {
		c.XDS = []string{defaultXDS}
	}
	type creds struct {
		Type   string         `json:"type"`
		Config map[string]any `json:"config,omitempty"`
	}
	type server struct {
		URI      string   `json:"server_uri"`
		Creds    []creds  `json:"channel_creds"`
		Features []string `json:"server_features"`
	}
	channel := creds{Type: "insecure"}
	if t := c.TLS; t != nil {
		if t.CA == "" || (t.Cert == "") != (t.Key == "") {
			return nil, errors.New("TLS to the control plane needs the authority that signs its certificate, and a certificate together with its key")
		}
		channel = creds{"tls", map[string]any{"ca_certificate_file": t.CA}}
		if t.Cert != "" {
			channel.Config["certificate_file"], channel.Config["private_key_file"] = t.Cert, t.Key
		}
	}
	var servers []server
	for _, address := range c.XDS {
		if !strings.Contains(address, ":") {
			return nil, fmt.Errorf("control plane address %q is neither HOST:PORT nor unix:///path", address)
		}
		servers = append(servers, server{address, []creds{channel}, []string{"xds_v3"}})
	}
	node := map[string]any{"id": c.NodeID, "cluster": c.Group}
	if c.Zone != "" {
		node["locality"] = map[string]any{"zone": c.Zone}
	}
	return json.MarshalIndent(map[string]any{"xds_servers": servers, "node": node}, "", "  ")
}
