package envoyadmin

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func proxy(admin, peer string) model.Proxy {
	p := model.Proxy{ID: "e", Peer: peer}
	if admin != "" {
		p.Metadata = map[string]string{MetadataKey: admin}
	}
	return p
}

// A node's word about its admin is a hint: nothing is asked but the proxy itself.
func TestPolicy(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	for _, path := range []string{filepath.Join(dir, "a.sock"), filepath.Join(elsewhere, "b.sock")} {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // nothing is lost
	}
	if err := os.Symlink(filepath.Join(elsewhere, "b.sock"), filepath.Join(dir, "link.sock")); err != nil {
		t.Fatal(err)
	}
	policy := Policy{SocketDir: dir, OwnPorts: []uint16{18000, 18002}}
	for what, c := range map[string]struct {
		proxy model.Proxy
		says  string
	}{
		"its own address":            {proxy("127.0.0.1:9901", "127.0.0.1:4242"), ""},
		"its own address, mapped":    {proxy("127.0.0.1:9901", "[::ffff:127.0.0.1]:4242"), ""},
		"a socket in the folder":     {proxy(filepath.Join(dir, "a.sock"), "127.0.0.1:1"), ""},
		"nothing said":               {proxy("", "127.0.0.1:1"), "has no wellspring.admin"},
		"another machine":            {proxy("10.0.0.9:9901", "10.0.0.1:1"), "is not the address that it connects from"},
		"the metadata service":       {proxy("169.254.169.254:80", "10.0.0.1:1"), "is not the address that it connects from"},
		"loopback from afar":         {proxy("127.0.0.1:9901", "10.0.0.1:1"), "is not the address that it connects from"},
		"our own port":               {proxy("127.0.0.1:18002", "127.0.0.1:1"), "is a port of the control plane"},
		"a name":                     {proxy("localhost:9901", "127.0.0.1:1"), "is not IP:PORT"},
		"a socket elsewhere":         {proxy(filepath.Join(elsewhere, "b.sock"), "127.0.0.1:1"), "is not below envoyAdmin.socketDir"},
		"a link out of the folder":   {proxy(filepath.Join(dir, "link.sock"), "127.0.0.1:1"), "is not below envoyAdmin.socketDir"},
		"a path that climbs":         {proxy(dir+"/../"+filepath.Base(elsewhere)+"/b.sock", "127.0.0.1:1"), "is not below envoyAdmin.socketDir"},
		"a socket that is not there": {proxy(filepath.Join(dir, "none"), "127.0.0.1:1"), "is not below envoyAdmin.socketDir"},
	} {
		_, err := policy.Client(c.proxy)
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", what, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v, want %q", what, err, c.says)
		}
	}
	if _, err := (Policy{}).Client(proxy(filepath.Join(dir, "a.sock"), "127.0.0.1:1")); err == nil {
		t.Error("a socket is asked though no folder may be")
	}
}

// What an admin may answer, and what is made of it.
func TestClusters(t *testing.T) {
	host := func(address string, port int, health string) string {
		return fmt.Sprintf(`{"address":{"socket_address":{"address":%q,"port_value":%d}},"health_status":{%s}}`, address, port, health)
	}
	for what, c := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"hosts": {
			200, `{"cluster_statuses":[{"name":"other","host_statuses":[` + host("10.0.0.9", 9, "") + `]},{"name":"web","host_statuses":[` +
				host("10.0.0.2", 80, `"eds_health_status":"UNHEALTHY"`) + "," + host("10.0.0.1", 80, `"eds_health_status":"HEALTHY"`) + "," +
				host("10.0.0.3", 80, `"eds_health_status":"HEALTHY","failed_active_health_check":true,"pending_active_hc":false`) + "," +
				host("10.0.0.4", 80, `"eds_health_status":"HEALTHY","pending_dynamic_removal":true`) + `]}]}`,
			"10.0.0.1:80 10.0.0.2:80!eds_unhealthy 10.0.0.3:80!failed_active_health_check 10.0.0.4:80+pending_dynamic_removal",
		},
		"no such cluster": {200, `{}`, ""},
		"not JSON":        {200, `<html>`, "error: read /clusters"},
		"an error":        {503, `no`, "error: ask Envoy's admin: GET /clusters?format=json: 503"},
		"a redirect":      {302, ``, "error: ask Envoy's admin: GET /clusters?format=json: 302"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(c.status)
			_, _ = fmt.Fprint(w, c.body)
		}))
		client, err := (Policy{}).Client(proxy(strings.TrimPrefix(s.URL, "http://"), "127.0.0.1:1"))
		if err != nil {
			t.Fatal(err)
		}
		hosts, err := client.Clusters(t.Context(), "web")
		if got := say(hosts, err); got != c.want && (err == nil || !strings.HasPrefix(got, c.want)) {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
		s.Close()
	}
}

// An admin that does not answer is given up after its deadline.
func TestDeadline(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nothing is lost
	client, err := (Policy{}).Client(proxy(l.Addr().String(), "127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := client.Clusters(t.Context(), "web"); err == nil || time.Since(start) > 10*deadline {
		t.Errorf("%v after %s", err, time.Since(start))
	}
}

func say(hosts []Host, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	var out []string
	for _, h := range hosts {
		mark := "+"
		if !h.Usable {
			mark = "!"
		}
		s := h.Address
		if len(h.Flags) > 0 {
			s += mark + strings.Join(h.Flags, ",")
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

// Whatever JSON an admin answers for one host: it is read without a panic, and a
// host without a flag is usable.
func FuzzHost(f *testing.F) {
	f.Add(`{"address":{"socket_address":{"address":"10.0.0.1","port_value":80}},"health_status":{"eds_health_status":"HEALTHY","failed_outlier_check":true}}`)
	f.Add(`{"health_status":{"a":1,"b":[],"c":"DEGRADED","d":null}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var h hostStatus
		if json.Unmarshal([]byte(text), &h) != nil {
			return
		}
		if x := h.host(); len(x.Flags) == 0 && !x.Usable {
			t.Errorf("%+v", x)
		}
	})
}
