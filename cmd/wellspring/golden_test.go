package main_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/admin/client"
	"github.com/wellspring-xds/wellspring/pkg/certtest"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

var (
	listenAddress = regexp.MustCompile(`address: "(127\.0\.0\.1|0\.0\.0\.0|\[::\]):[0-9]+", routes|address: "127\.0\.0\.1:[0-9]+"\n  (routes|tcp)`)
	portOnly      = regexp.MustCompile(`:[0-9]+"`)
	elsewhere     = regexp.MustCompile(`\b10\.[0-9]+\.([0-9]+\.[0-9]+:)`)
)

// TestRealStories: every supported Envoy accepts what each story of translation
// becomes, refuses nothing, and answers a request.
func TestRealStories(t *testing.T) {
	files, err := filepath.Glob("../../xds/translate/testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, version := range []string{"1.37", "1.38", "1.39", "1.40"} {
		program, err := envoytest.Find(version)
		proc.Need(t, err)
		for _, file := range files {
			t.Run(version+"/"+strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
				ar, err := txtar.ParseFile(file)
				if err != nil {
					t.Fatal(err)
				}
				acceptStory(t, program, version, string(ar.Files[0].Data))
			})
		}
	}
}

// secretsOf is a folder with every file that documents name.
func secretsOf(t *testing.T, docs []*spec.Document) string {
	t.Helper()
	dir := t.TempDir()
	a, err := certtest.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range docs {
		for _, s := range d.Secrets() {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, s.Cert)), 0o700); err != nil {
				t.Fatal(err)
			}
			if s.Key == "" {
				text, err := os.ReadFile(a.CA())
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, s.Cert), text, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			} else if _, _, err := a.Issue(strings.TrimSuffix(s.Cert, ".pem"), time.Hour, "localhost"); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// proxyFile is a file of authorities that lies at the proxy.
func proxyFile(t *testing.T) string {
	t.Helper()
	a, err := certtest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a.CA()
}

func acceptStory(t *testing.T, program, version, text string) {
	t.Helper()
	addr := func() string {
		a, err := freeport.Addr()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	text = listenAddress.ReplaceAllStringFunc(text, func(m string) string {
		return strings.Replace(portOnly.ReplaceAllString(m, strings.TrimPrefix(addr(), "127.0.0.1")+`"`), "0.0.0.0", "127.0.0.1", 1)
	})
	text = strings.ReplaceAll(text, "/var/log/envoy/", t.TempDir()+"/")
	// A real Envoy connects and checks: everybody is on loopback.
	text = strings.ReplaceAll(elsewhere.ReplaceAllString(text, "127.1.$1"), "[2001:db8::7]", "[::1]")
	docs, faults := spec.Parse("story", []byte(text))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	// A listener and a group that reach everything.
	all := addr()
	var to, listeners []string
	for _, d := range docs {
		switch b := d.Body.(type) {
		case *spec.Upstream:
			if b.TLS != nil && b.TLS.CA.ProxyFile != "" {
				// It lies at the proxy, which is this machine.
				text = strings.ReplaceAll(text, b.TLS.CA.ProxyFile, proxyFile(t))
			}
			if b.Key(d.Name).Source == spec.SourceLocal && b.Protocol != "tcp" {
				to = append(to, "{upstream: "+d.Name+"}")
			}
		case *spec.Listener:
			if b.GRPC {
				continue
			}
			listeners = append(listeners, d.Name)
		}
	}
	text += fmt.Sprintf("---\nkind: Route\nname: zz-all\nspec: {hosts: ['*'], rules: [{to: [%s]}]}\n---\nkind: Listener\nname: zz-all\nspec: {address: '%s', routes: [zz-all], accessLog: {to: 'off'}}\n---\nkind: Group\nname: zz-all\nspec: {listeners: [%s], telemetry: endpoints}\n",
		strings.Join(to, ", "), all, strings.Join(append(listeners, "zz-all"), ", "))
	control := serve(t, "--secrets-dir", secretsOf(t, docs))
	control.apply(text)
	e, err := envoytest.Start(t.Context(), envoytest.Config{Program: program, Dir: t.TempDir(), Bootstrap: bootstrap.Config{
		NodeID: "e", Group: "zz-all", XDS: []string{control.XDS}, Telemetry: control.reports("e"), Envoy: version,
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	// Endpoints are nowhere: any answer of the proxy itself will do.
	if err := e.Until(ctx, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+all+"/", nil)
		if err != nil {
			return err
		}
		c := http.Client{Timeout: 5 * time.Second}
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}); err != nil {
		t.Fatal(err)
	}
	var proxies admin.Proxies
	if err := e.Until(ctx, func(ctx context.Context) error {
		proxies = admin.Proxies{} // what JSON leaves out must not stay from the answer before
		if err := client.New(client.Config{Server: control.Admin}).Get(ctx, "/v1/proxies", nil, &proxies); err != nil {
			return err
		}
		if len(proxies.Items) != 1 {
			return fmt.Errorf("%d proxies", len(proxies.Items))
		}
		for _, d := range proxies.Items[0].Delivery {
			if d.Open > 0 || len(d.Waiting) > 0 || d.Version != d.AckedVersion {
				return fmt.Errorf("%s is not acknowledged: %+v", d.Type, d)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if v := proxies.Items[0].Version; !strings.HasPrefix(v, version) {
		t.Errorf("this is Envoy %s", v)
	}
	for _, d := range proxies.Items[0].Delivery {
		for _, p := range d.Parked {
			t.Errorf("refused %s %s: %s", d.Type, p.Name, p.Message)
		}
	}
}
