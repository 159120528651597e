package consul

import (
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/wellspring-xds/wellspring/pkg/consultest"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// one answers every request alike, and keeps the last.
type one struct {
	reply reply
	last  *http.Request
}

func (o *one) RoundTrip(r *http.Request) (*http.Response, error) {
	o.last = r
	return respond(r, o.reply), nil
}

func say(keys []model.ServiceKey) string {
	var out []string
	for _, k := range keys {
		out = append(out, k.String())
	}
	return strings.Join(out, " ")
}

// What a list says, and what it cannot say: then nothing is known, and nothing is
// taken away.
func TestNames(t *testing.T) {
	header := func(pairs ...string) map[string]string { return map[string]string{pairs[0]: pairs[1]} }
	for what, c := range map[string]struct {
		reply reply
		cfg   Config
		want  string
	}{
		"services":                     {reply: good("15", `{"consul": [], "web": ["a"], "api": [], "web-sidecar-proxy": [], "wellspring-canary": ["wellspring"], "": []}`), want: "c/api c/web"},
		"nobody but Consul":            {reply: good("15", `{"consul": []}`), want: ""},
		"no leader is known":           {reply: reply{status: 200, body: `{}`, index: "15"}, want: "no leader"},
		"no leader answers":            {reply: reply{status: 500, body: "No cluster leader"}, want: "no leader"},
		"the token hides some":         {reply: reply{status: 200, body: `{"web": []}`, index: "15", leader: true, header: header("X-Consul-Results-Filtered-By-Acls", "true")}, want: "filtered"},
		"anonymous under default deny": {reply: reply{status: 200, body: `{}`, index: "15", leader: true, header: header("X-Consul-Default-Acl-Policy", "deny")}, want: "denied"},
		"the token is not known":       {reply: reply{status: 403, body: "ACL not found"}, want: "denied"},
		"no state is loaded":           {reply: good("1", `{}`), want: "bad answer"},
		"null":                         {reply: good("15", `null`), want: ""},
		"not JSON":                     {reply: good("15", `<html>`), want: "bad answer"},
	} {
		o := &one{reply: c.reply}
		c.cfg.Name, c.cfg.Transport = "c", o
		s, err := New(c.cfg)
		if err != nil {
			t.Fatal(err)
		}
		keys, failed := s.names(t.Context())
		got := say(keys)
		if failed.Err != nil {
			got = string(failed.Reason)
		}
		if got != c.want {
			t.Errorf("%s: %q (%v), want %q", what, got, failed.Err, c.want)
		}
	}
}

// A real Consul lists the services themselves, without gateways, proxies or Consul,
// and only the tagged where that is asked for.
func TestRealNames(t *testing.T) {
	t.Parallel()
	a := agent(t, consultest.Config{})
	for _, r := range []*api.AgentServiceRegistration{
		{Name: "web", ID: "w1"},
		{Name: "web", ID: "w2", Tags: []string{"v2"}},
		{Name: "tagged", ID: "t", Tags: []string{"x", ImportTag}},
		{Name: "Web_API.v1", ID: "u", Tags: []string{ImportTag + "-not"}},
		{Name: "gateway", ID: "g", Kind: api.ServiceKindMeshGateway},
		{Name: "own-name", ID: "p", Kind: api.ServiceKindConnectProxy, Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: "web"}},
		{Name: "web-sidecar-proxy", ID: "s"},
	} {
		r.Address, r.Port = "127.0.0.1", 1000
		if err := a.Client.Agent().ServiceRegister(r); err != nil {
			t.Fatal(err)
		}
	}
	for choice, want := range map[Import]string{ImportAll: "c/Web_API.v1 c/tagged c/web", ImportTagged: "c/tagged"} {
		s, err := New(Config{Name: "c", Address: a.Address, Import: choice})
		if err != nil {
			t.Fatal(err)
		}
		if keys, failed := s.names(t.Context()); failed.Err != nil || say(keys) != want {
			t.Errorf("%s: %q (%v), want %q", choice, say(keys), failed.Err, want)
		}
	}
}
