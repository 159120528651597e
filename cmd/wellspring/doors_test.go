package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/certtest"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
	"github.com/wellspring-xds/wellspring/xds/xdstest"
)

// TestRealAnonymous: whoever brings no credential to a server that can be reached
// from elsewhere gets nothing but /livez and /readyz.
func TestRealAnonymous(t *testing.T) {
	k := newKeys(t)
	c := serveWith(t, k)
	text, err := c.client().Text(t.Context(), "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var api struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(text), &api); err != nil || len(api.Paths) < 20 {
		t.Fatalf("%d paths: %v", len(api.Paths), err)
	}
	trusts, err := k.authority.ClientTLS("")
	if err != nil {
		t.Fatal(err)
	}
	anonymous := &http.Client{Transport: &http.Transport{TLSClientConfig: trusts.Clone()}, Timeout: 5 * time.Second}
	defer anonymous.CloseIdleConnections()
	asked, open := 0, []string{}
	for path, item := range api.Paths {
		for method := range item {
			req, err := http.NewRequestWithContext(t.Context(), strings.ToUpper(method), "https://"+c.Admin+strings.NewReplacer("{", "", "}", "").Replace(path), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := anonymous.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if asked++; resp.StatusCode != http.StatusUnauthorized {
				open = append(open, path)
				if resp.StatusCode != http.StatusOK || path != "/livez" && path != "/readyz" {
					t.Errorf("%s %s: %s", method, path, resp.Status)
				}
			}
		}
	}
	if t.Logf("%d operations asked, open: %v", asked, open); len(open) != 2 {
		t.Errorf("open: %v", open)
	}

	conn, err := grpc.NewClient(c.XDS, grpc.WithTransportCredentials(credentials.NewTLS(trusts)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a test's
	for _, s := range []grpc.ServiceDesc{discoveryv3.AggregatedDiscoveryService_ServiceDesc, healthpb.Health_ServiceDesc} {
		var names []string
		for _, m := range s.Methods {
			names = append(names, m.MethodName)
		}
		for _, m := range s.Streams {
			names = append(names, m.StreamName)
		}
		for _, m := range names {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			err := conn.Invoke(ctx, "/"+s.ServiceName+"/"+m, &emptypb.Empty{}, &emptypb.Empty{})
			cancel()
			if code := status.Code(err); code != codes.Unavailable && code != codes.Unauthenticated {
				t.Errorf("%s/%s: %v", s.ServiceName, m, err)
			}
		}
	}
}

// TestRealIdentity: a group takes the proxies whose certificate it names. What a
// proxy says of itself does not help, and an open stream ends when its name is
// taken out.
func TestRealIdentity(t *testing.T) {
	k := newKeys(t)
	k.issue("web-1", "spiffe://test/web/1")
	c := serveWith(t, k)
	group := "kind: Group\nname: edge\nspec: {listeners: [], identities: [%s]}\n"
	c.apply(strings.Replace(group, "%s", `"spiffe://test/edge/*"`, 1))
	run := func(certificate string) error {
		trusts, err := k.authority.ClientTLS(certificate)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := grpc.NewClient(c.XDS, grpc.WithTransportCredentials(credentials.NewTLS(trusts)))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // a test's
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return xdstest.New(xdstest.Config{ID: certificate, Cluster: "edge"}).Run(ctx, conn)
	}
	if err := run("web-1"); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "spiffe://test/web/1") {
		t.Errorf("another's certificate: %v", err)
	}
	ended := make(chan error)
	go func() { ended <- run("edge-1") }()
	proxies := func() (p admin.Proxies) {
		if err := c.client().Get(t.Context(), "/v1/proxies", nil, &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	within(t, time.Second, "the right one is in", func() string {
		if p := proxies(); p.Total == 1 && strings.Join(p.Items[0].Identity, " ") == "spiffe://test/edge/edge-1" {
			return ""
		}
		return "not yet"
	})
	if p := proxies(); len(p.Refused) != 1 || p.Refused[0].Code != "PermissionDenied" || p.Refused[0].Proxy.Identity[0] != "spiffe://test/web/1" {
		t.Errorf("refused: %+v", p.Refused)
	}
	out := c.apply(strings.Replace(group, "%s", `"spiffe://test/web/*"`, 1))
	if len(out.Warnings) != 1 || !strings.Contains(out.Warnings[0].Message, "1 connected proxies have no certificate that their group takes") {
		t.Errorf("warnings: %v", out.Warnings)
	}
	if err := <-ended; status.Code(err) != codes.PermissionDenied {
		t.Errorf("the open stream: %v", err)
	}
}

// TestRealRenewedProxy: a proxy whose certificate, and whose authority, were replaced
// while it was connected comes back with the new ones, without a restart.
func TestRealRenewedProxy(t *testing.T) {
	k := newKeys(t)
	s := &scene{t: t, control: serveWith(t, k)}
	s.runWith(bootstrap.Config{XDS: []string{s.control.XDS}, TLS: k.bootstrap("edge-1")})
	next, err := certtest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	read := func(file string) string {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	replaced := func(file, text string) { // at once, as whoever renews does
		t.Helper()
		k.write(k.authority.File("."+file), text)
		if err := os.Rename(k.authority.File("."+file), k.authority.File(file)); err != nil {
			t.Fatal(err)
		}
	}
	replaced("ca.pem", read(k.authority.CA())+read(next.CA()))
	for name, sans := range map[string][]string{"edge-1": {"spiffe://test/edge/edge-1"}, "control": {"127.0.0.1", "localhost"}} {
		if _, _, err := next.Issue(name, time.Hour, sans...); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{name + "-key.pem", name + ".pem"} {
			replaced(file, read(next.File(file)))
		}
	}
	replaced("ca.pem", read(next.CA()))
	time.Sleep(2 * time.Second) // Envoy watches its files, and says nothing
	s.control.Stop(5 * time.Second)
	s.control.start() // it trusts the new authority alone
	within(t, 10*time.Second, "the proxy is back", func() string { return s.connected(1) })
}

// TestRealSocket: a real Envoy speaks to its control plane through a unix socket, and
// comes back to it.
func TestRealSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "xds.sock")
	s := &scene{t: t, control: serve(t, "--telemetry-listen", "127.0.0.1:0", "--xds-listen", "unix://"+path)}
	s.runWith(bootstrap.Config{XDS: []string{"unix://" + path}})
	s.control.Stop(5 * time.Second)
	s.control.start()
	within(t, 10*time.Second, "the proxy is back", func() string { return s.connected(1) })
}

// runWith starts backend a and an Envoy of group edge, waits until it forwards, and
// returns the backend.
func (s *scene) runWith(c bootstrap.Config) *echo {
	s.t.Helper()
	program, err := envoytest.Find("")
	proc.Need(s.t, err)
	a := newEcho(s.t, "a")
	if s.edge, err = freeport.Addr(); err != nil {
		s.t.Fatal(err)
	}
	s.control.apply(fmt.Sprintf(sceneDocuments, a.addr, s.edge))
	c.NodeID, c.Group = "edge-1", "edge"
	e, err := envoytest.Start(s.t.Context(), envoytest.Config{Program: program, Dir: s.t.TempDir(), Bootstrap: c})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(e.Kill)
	within(s.t, 5*time.Second, "the first answer", func() string {
		status, body, _ := ask(s.t.Context(), "", "http://"+s.edge+"/")
		if status == http.StatusOK && body == "a" {
			return ""
		}
		return fmt.Sprint(status, body)
	})
	return a
}

// connected is "" where so many proxies are.
func (s *scene) connected(n int) string {
	out, _ := s.control.cli("health")
	if strings.Contains(out, fmt.Sprintf("%d connected, %d current", n, n)) {
		return ""
	}
	return out
}
