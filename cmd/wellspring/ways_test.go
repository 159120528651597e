package main_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// waysDocuments has a rule for each kind of match; each answers with its own name.
const waysDocuments = `kind: Route
name: exact
spec:
  hosts: [shop.example, "*.shop.example"]
  rules:
  - {match: {path: {exact: /cart}, methods: [POST, PUT]}, respond: {status: 200, body: "exact[0]"}}
  - {match: {path: {exact: /cart}}, respond: {status: 200, body: "exact[1]"}}
  - {match: {path: {prefix: /cart}, headers: [{name: x-user, exact: anna}]}, respond: {status: 200, body: "exact[2]"}}
  - {match: {path: {prefix: /cart}, headers: [{name: X-User, prefix: an}, {name: x-beta, present: true}]}, respond: {status: 200, body: "exact[3]"}}
  - {match: {path: {prefix: /cart/}, headers: [{name: x-user, suffix: b, invert: true}, {name: x-beta, present: false}]}, respond: {status: 200, body: "exact[4]"}}
  - {match: {path: {regex: "/c[a-z]+/[0-9]{1,3}"}}, respond: {status: 200, body: "exact[5]"}}
  - {match: {headers: [{name: x-user, contains: nn}]}, respond: {status: 200, body: "exact[6]"}}
  - {match: {headers: [{name: x-user, regex: "b|bert"}]}, respond: {status: 200, body: "exact[7]"}}
  - {match: {path: {prefix: /z}, headers: [{name: x-beta, present: true, invert: true}]}, respond: {status: 200, body: "exact[8]"}}
---
kind: Route
name: deeper
spec: {hosts: ["*.eu.shop.example", api.example], rules: [{match: {path: {prefix: /}}, respond: {status: 200, body: "deeper[0]"}}]}
---
kind: Route
name: any
spec: {hosts: ["*"], rules: [{match: {path: {prefix: /cart}}, respond: {status: 200, body: "any[0]"}}]}
---
kind: Listener
name: web
spec: {address: "LISTEN", routes: [any, exact, deeper], accessLog: {to: 'off'}}
---
kind: Group
name: edge
spec: {listeners: [web]}
`

// TestRealWays holds where we say that a request goes against where a real Envoy sends it.
func TestRealWays(t *testing.T) {
	control := serve(t)
	listen, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(waysDocuments, "LISTEN", listen, 1)
	control.apply(text)
	docs, faults := spec.Parse("ways", []byte(text))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	s, _, faults := spec.New(1, docs)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	e, err := envoytest.Start(t.Context(), envoytest.Config{Dir: t.TempDir(), Bootstrap: bootstrap.Config{NodeID: "e", Group: "edge", XDS: []string{control.XDS}}})
	proc.Need(t, err)
	defer e.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := e.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	rules := map[string]int{}
	for range 4000 {
		a := spec.Asking{
			Method: pick("GET", "POST", "PUT"), Headers: map[string]string{},
			Host: pick("shop.example", "SHOP.example:8080", "a.shop.example", "x.eu.shop.example", "eu.shop.example", ".shop.example", "api.shop.example", "api.example", "api.", "other", "[::1]:80", "127.0.0.1"),
			Path: pick("/", "/cart", "/cart/", "/cart/7", "/cart/7x", "/carts", "/cart?x=1", "/coats/12", "/coats/1234", "/z", "/zz", "/Cart", "/cart%2F7"),
		}
		if v := pick("", "anna", "an", "ann", "b", "bert", "bertha"); v != "" {
			a.Headers["x-user"] = v
		}
		if v := pick("", "", "1"); v != "" {
			a.Headers["x-beta"] = v
		}
		ways := s.Ways("edge", a)
		if len(ways) != 1 {
			t.Fatalf("%+v", ways)
		}
		want := "404"
		if w := ways[0]; w.Found() {
			want = fmt.Sprintf("200 %s[%d]", w.Route, w.Rule)
		} else if len(w.Tried) == 0 {
			t.Errorf("%+v: nothing is said of why", a)
		}
		rules[want]++
		if got := sent(t, listen, a); got != want {
			t.Fatalf("%+v: Envoy answers %q, we say %q: %v", a, got, want, ways[0].Tried)
		}
	}
	t.Logf("by rule: %v", rules)
	if len(rules) != 12 {
		t.Errorf("%d of 12 ways were taken: %v", len(rules), rules)
	}
}

// sent is the answer to a request: its status, and the body of those with 200.
func sent(t *testing.T, listen string, a spec.Asking) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), a.Method, "http://"+listen+a.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = a.Host
	for k, v := range a.Headers {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Sprint(resp.StatusCode)
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, body)
}
