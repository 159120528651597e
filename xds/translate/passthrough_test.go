package translate_test

import (
	"strings"
	"testing"

	"github.com/wellspring-xds/wellspring/pkg/spec"
	_ "github.com/wellspring-xds/wellspring/xds/extensions"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

// What is wrong with an `envoy:` is told by the field, with the path inside it.
func TestPassthroughFaults(t *testing.T) {
	upstream := func(envoy string) string {
		return "kind: Upstream\nname: web\nspec: {endpoints: [], envoy: " + envoy + "}\n"
	}
	endpoints := func(envoy string) string { return strings.Replace(upstream(envoy), "envoy:", "envoyEndpoints:", 1) }
	route := func(envoy string) string {
		return "kind: Route\nname: web\nspec: {hosts: [x], rules: [{to: [{upstream: up}], envoy: " + envoy + "}]}\n"
	}
	listener := func(field, envoy string) string {
		return "kind: Listener\nname: web\nspec: {address: '127.0.0.1:1', routes: [r], " + field + ": " + envoy + "}\n"
	}
	for text, want := range map[string]string{
		upstream("{name: x}"):                                  "spec.envoy.name: is made from the document's own fields",
		upstream("{edsClusterConfig: {}}"):                     "spec.envoy.eds_cluster_config: is made from",
		upstream("{type: STATIC}"):                             "spec.envoy.type: is made from",
		upstream("{clusterType: {}}"):                          "spec.envoy.cluster_type: is made from",
		upstream("{load_assignment: null}"):                    "spec.envoy.load_assignment: is made from",
		upstream("{conect_timeout: 1s}"):                       "spec.envoy.conect_timeout: envoy.config.cluster.v3.Cluster has no such field",
		upstream("{common_lb_config: {x: 1}}"):                 "spec.envoy.common_lb_config.x: envoy.config.cluster.v3.Cluster.CommonLbConfig has no such field",
		upstream("{connect_timeout: soon}"):                    `spec.envoy: is not taken by envoy.config.cluster.v3.Cluster: invalid google.protobuf.Duration value "soon"`,
		upstream("{connect_timeout: -1s}"):                     "spec.envoy: would be refused by Envoy: ",
		upstream("{health_checks: {}}"):                        "spec.envoy.health_checks: is a list",
		upstream("{transport_socket: {typed_config: {x: 1}}}"): "spec.envoy.transport_socket.typed_config: is a typed extension and needs @type",
		upstream("{transport_socket: {typed_config: {'@type': type.googleapis.com/no.Such}}}"): `spec.envoy.transport_socket.typed_config.@type: "type.googleapis.com/no.Such" is no type of Envoy's that is known here`,
		endpoints("{endpoints: []}"):                             "spec.envoyEndpoints.endpoints: is made from",
		endpoints("{policy: {overprovisioning_factor: 0}}"):      "spec.envoyEndpoints: would be refused by Envoy: ",
		endpoints("{policy: {dropOverloads: [{category: ''}]}}"): "spec.envoyEndpoints: would be refused by Envoy: ",
		endpoints("{policy: {weighted: true}}"):                  "spec.envoyEndpoints.policy.weighted: envoy.config.endpoint.v3.ClusterLoadAssignment.Policy has no such field",
		route("{name: x}"):                                       "spec.rules[0].envoy.name: is made from",
		route("{route: {cluster: other}}"):                       "spec.rules[0].envoy.route: leads to other clusters than the document",
		route("{route: {cluster_header: x-to}}"):                 "spec.rules[0].envoy.route: leads to other clusters",
		route("{redirect: {path_redirect: /x}}"):                 "spec.rules[0].envoy.route: leads to other clusters",
		listener("envoy", "{address: {}}"):                       "spec.envoy.address: is made from",
		listener("envoyHTTP", "{rds: {}}"):                       "spec.envoyHTTP.rds: is made from",
		listener("envoyHTTP", "{http_filters: [{name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, nope: 1}}]}"):         "spec.envoyHTTP.http_filters[0].typed_config.nope: envoy.extensions.filters.http.router.v3.Router has no such field",
		listener("envoyHTTP", "{http_filters: [{name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit}}]}"): "spec.envoyHTTP: would be refused by Envoy: invalid LocalRateLimit.StatPrefix",
		listener("envoyRoutes", "{virtual_hosts: []}"): "spec.envoyRoutes.virtual_hosts: is made from",
	} {
		d, s := oneOf(t, text)
		faults, _ := translate.Validate(d, s)
		if len(faults) != 1 || !strings.Contains(faults[0].String(), want) || faults[0].Line == 0 {
			t.Errorf("%s\ntold %v\nwant %s", text, faults, want)
		}
	}
}

// What an `envoy:` overrides is told, and only that.
func TestPassthroughOverrides(t *testing.T) {
	for text, want := range map[string]string{
		"kind: Upstream\nname: web\nspec: {endpoints: [], envoy: {connect_timeout: 3s, perConnectionBufferLimitBytes: 1}}\n":              "spec.envoy: overrides what the document's own fields say: connect_timeout",
		"kind: Upstream\nname: web\nspec: {endpoints: [], envoy: {connect_timeout: 1s}}\n":                                                "",
		"kind: Upstream\nname: web\nspec: {endpoints: [], envoy: {least_request_lb_config: null, lb_policy: RANDOM}}\n":                   "lb_policy, least_request_lb_config",
		"kind: Upstream\nname: web\nspec: {endpoints: [], envoy: {ring_hash_lb_config: {}}}\n":                                            "own fields say: least_request_lb_config",
		"kind: Route\nname: web\nspec: {hosts: [x], rules: [{to: [{upstream: up}], envoy: {route: {retry_policy: {num_retries: 5}}}}]}\n": "spec.rules[0].envoy: overrides what the document's own fields say: route.retry_policy.num_retries",
		"kind: Listener\nname: web\nspec: {address: '127.0.0.1:1', routes: [r], envoyHTTP: {stat_prefix: x}}\n":                           "spec.envoyHTTP: overrides what the document's own fields say: stat_prefix",
	} {
		d, s := oneOf(t, text)
		faults, warnings := translate.Validate(d, s)
		switch {
		case len(faults) > 0:
			t.Errorf("%s: %v", text, faults)
		case want == "" && len(warnings) > 0, want != "" && (len(warnings) != 1 || !strings.Contains(warnings[0].String(), want)):
			t.Errorf("%s\ntold %v\nwant %q", text, warnings, want)
		}
	}
}

// oneOf is the one document of a text, in a Spec that has what it refers to.
func oneOf(t *testing.T, text string) (*spec.Document, *spec.Spec) {
	t.Helper()
	docs, faults := spec.Parse("a.yaml", []byte(text))
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	more, faults := spec.Parse("b.yaml", []byte("kind: Upstream\nname: up\nspec: {endpoints: []}\n---\nkind: Route\nname: r\nspec: {hosts: [y], rules: [{to: [{upstream: up}]}]}\n"))
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	s, _, faults := spec.New(1, append(docs, more...))
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	return docs[0], s
}

// TLS or a protocol in an `envoy:` gives the assignment another name; the rest
// does not.
func TestPassthroughIdentity(t *testing.T) {
	name := func(fields string) string {
		d, _ := oneOf(t, "kind: Upstream\nname: web\nspec: {endpoints: []"+fields+"}\n")
		u, _ := d.Body.(*spec.Upstream)
		return translate.AssignmentName("web", u)
	}
	plain := name("")
	for fields, same := range map[string]bool{
		", envoy: {connect_timeout: 3s}":                         true,
		", envoy: {transport_socket: {name: x}}":                 false,
		", envoy: {typedExtensionProtocolOptions: {}}":           false,
		", tls: {insecureSkipVerify: true}":                      false,
		", tls: {ca: {file: a.pem}, sni: x}":                     false,
		", loadBalancing: {policy: random}, circuitBreakers: {}": true,
	} {
		if got := name(fields); (got == plain) != same {
			t.Errorf("%s: %s beside %s", fields, got, plain)
		}
	}
	if name(", tls: {ca: {file: a.pem}, sni: x}") != name(", tls: {ca: {file: b.pem}, sni: x}") {
		t.Error("another file of the same kind is another generation")
	}
}
