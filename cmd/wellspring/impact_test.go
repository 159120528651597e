package main_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"testing"
	"time"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/admin/client"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// TestRealImpact: what a dry run says that a change does is what a client and an
// endpoint then see of their connections.
func TestRealImpact(t *testing.T) {
	const drain = time.Second
	scene, b := &scene{t: t, control: serve(t)}, newEcho(t, "b")
	control := scene.control
	a := scene.runWith(bootstrap.Config{XDS: []string{control.XDS}, DrainTime: drain})
	edge := scene.edge
	documents := fmt.Sprintf(sceneDocuments, a.addr, edge)
	current := func() string {
		out, _ := control.cli("health")
		if strings.Contains(out, "1 connected, 1 current") {
			return ""
		}
		return out
	}
	for _, c := range []struct {
		name, old, new string
		want           model.Effect
	}{
		{"a label", "name: web\nspec: {e", "name: web\nlabels: {owner: shop}\nspec: {e", ""},
		{"an endpoint", `"}]}`, `"}, {address: "` + b.addr + `"}]}`, model.EffectEndpoints},
		{"a route", "upstream: web}]", "upstream: web}], timeout: 7s", model.EffectRoutes},
		{"an option of the upstream", "spec: {endpoints", "spec: {connectTimeout: 2s, endpoints", model.EffectRewarms},
		{"an option of the listener", `accessLog`, "idleTimeout: 5m, accessLog", model.EffectDrains},
		{"a buffer of the listener", `accessLog`, "connectionBufferBytes: 65536, accessLog", model.EffectDrains},
	} {
		t.Run(c.name, func(t *testing.T) {
			control.apply(documents)
			within(t, 5*time.Second, "as before", current)
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			// once sends a request, and returns by which connection of the client it
			// went; a's side of it is kept by a.
			once := func() (through string) {
				req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
					GotConn: func(i httptrace.GotConnInfo) { through = i.Conn.LocalAddr().String() },
				}), http.MethodGet, "http://"+edge+"/", nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != 200 {
					t.Fatalf("status %d", resp.StatusCode)
				}
				return through
			}
			time.Sleep(drain + time.Second) // what came before has drained
			a.reset()
			before := once()

			changed := strings.Replace(documents, c.old, c.new, 1)
			if changed == documents {
				t.Fatalf("%q does not stand in the documents", c.old)
			}
			said, err := control.client().Apply(t.Context(), []byte(changed), client.How{DryRun: true})
			if err != nil {
				t.Fatal(err)
			}
			if got := worst(said); got != c.want {
				t.Errorf("said to be %q, want %q: %+v", got, c.want, said.Impact)
			}
			control.apply(changed)
			within(t, 5*time.Second, "acknowledged", current)
			ended := false
			for start := time.Now(); time.Since(start) < drain+500*time.Millisecond; time.Sleep(50 * time.Millisecond) {
				ended = ended || once() != before
			}
			_, _, conns := a.count()
			if got, want := []bool{ended, conns > 1}, []bool{c.want == model.EffectDrains, c.want == model.EffectRewarms}; !slices.Equal(got, want) {
				t.Errorf("the client's connection ended: %t, want %t; the endpoint saw %d connections, want more than one: %t", got[0], want[0], conns, want[1])
			}
		})
	}
	for _, c := range []struct {
		name, old, new string
		want           model.Effect
		see            string // by a new client
	}{
		{"no endpoint", `[{address: "` + a.addr + `"}]`, "[]", model.EffectEmpties, "503 no healthy upstream"},
		{"no listener", "listeners: [edge]", "listeners: []", model.EffectCloses, "refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			control.apply(documents)
			sees := func(want string) {
				t.Helper()
				within(t, 5*time.Second, want, func() string {
					status, body, _ := ask(t.Context(), "", "http://"+edge+"/")
					if got := fmt.Sprint(status, " ", body); !strings.Contains(got, want) {
						return got
					}
					return ""
				})
			}
			sees("200 a")
			changed := strings.Replace(documents, c.old, c.new, 1)
			said, err := control.client().Apply(t.Context(), []byte(changed), client.How{})
			if err != nil {
				t.Fatal(err)
			}
			if got := worst(said); got != c.want {
				t.Errorf("said to be %q, want %q: %+v", got, c.want, said.Impact)
			}
			sees(c.see)
		})
	}
}

// worst is the worst effect of a change, "" for none.
func worst(out admin.Outcome) (w model.Effect) {
	order := []model.Effect{"", model.EffectNone, model.EffectEndpoints, model.EffectRoutes, model.EffectRewarms, model.EffectDrains, model.EffectEmpties, model.EffectCloses}
	for _, i := range out.Impact {
		if slices.Index(order, i.Effect) > slices.Index(order, w) {
			w = i.Effect
		}
	}
	return w
}
