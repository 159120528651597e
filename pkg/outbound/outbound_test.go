package outbound_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/wellspring-xds/wellspring/pkg/outbound"
)

// What must not be called is refused after its name was resolved; a redirect leads
// nowhere.
func TestPolicy(t *testing.T) {
	calls := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		if r.URL.Path == "/away" {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}
	}))
	defer s.Close()
	port := netip.MustParseAddrPort(s.Listener.Addr().String()).Port()
	call := func(p outbound.Policy, url string) (int, error) {
		c := p.Client()
		defer c.CloseIdleConnections()
		resp, err := c.Get(url)
		if err != nil {
			return 0, err
		}
		_ = resp.Body.Close()
		return resp.StatusCode, nil
	}
	byName := strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	for what, x := range map[string]struct {
		p   outbound.Policy
		url string
	}{
		"loopback":            {outbound.Policy{}, s.URL},
		"loopback by name":    {outbound.Policy{}, byName},
		"our own port":        {outbound.Policy{Loopback: true, OwnPorts: []uint16{port}}, s.URL},
		"where clouds keep":   {outbound.Policy{Loopback: true}, "http://169.254.169.254/latest"},
		"the same by IPv6":    {outbound.Policy{Loopback: true}, "http://[::ffff:169.254.169.254]/"},
		"unspecified":         {outbound.Policy{Loopback: true}, "http://0.0.0.0:" + s.URL[strings.LastIndex(s.URL, ":")+1:]},
		"multicast":           {outbound.Policy{Loopback: true}, "http://224.0.0.1/"},
		"link-local, by IPv6": {outbound.Policy{Loopback: true}, "http://[fe80::1]/"},
	} {
		if _, err := call(x.p, x.url); !errors.Is(err, outbound.ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if calls != 0 {
		t.Errorf("%d calls came", calls)
	}
	if code, err := call(outbound.Policy{Loopback: true, OwnPorts: []uint16{port + 1}}, byName); err != nil || code != 200 {
		t.Errorf("%d %v", code, err)
	}
	if code, err := call(outbound.Policy{Loopback: true}, s.URL+"/away"); err != nil || code != http.StatusFound || calls != 2 {
		t.Errorf("redirected: %d %v, %d calls", code, err, calls)
	}
}
