package main_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/admin/client"
)

// TestRealAdminSocket: an Envoy whose admin is a unix socket is asked what it
// holds, where the socket lies in the folder that may be asked, and else is not.
func TestRealAdminSocket(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	s := newScene(t, false)
	s.control.Kill()
	s.control.args = append(s.control.args, "--envoy-admin-socket-dir", dir)
	s.control.start()
	s.envoy.Kill()
	for _, x := range []struct{ socket, says string }{
		{filepath.Join(dir, "admin.sock"), ""},
		{filepath.Join(elsewhere, "admin.sock"), "is not below envoyAdmin.socketDir"},
	} {
		s.config.Bootstrap.Admin = x.socket
		e := s.start(s.config)
		within(t, 5*time.Second, "health by a socket", func() string {
			var h admin.UpstreamHealth
			if err := client.New(client.Config{Server: s.control.Admin}).Get(t.Context(), "/v1/upstreams/web/health", nil, &h); err != nil {
				return err.Error()
			}
			if len(h.Proxies) != 1 || h.Proxies[0].Asked != (x.says == "") || !strings.Contains(h.Proxies[0].Why, x.says) {
				return fmt.Sprintf("proxies %+v", h.Proxies)
			}
			if x.says == "" && (len(h.Endpoints) != 1 || len(h.Endpoints[0].Proxies) != 1 || !h.Endpoints[0].Proxies[0].Usable) {
				return fmt.Sprintf("endpoints %+v", h.Endpoints)
			}
			return ""
		})
		e.Kill()
	}
}

// TestRealFailOver: an Envoy that knows two control planes goes to the other one
// when its own is killed, which finds that it has everything: versions are hashes
// of content, equal on both.
func TestRealFailOver(t *testing.T) {
	s := newScene(t, false)
	s.envoy.Kill()
	s.control.Kill() // it counts what it sends since its start
	s.control.start()
	second := serve(t)
	second.apply(fmt.Sprintf(sceneDocuments, s.a.Addr, s.edge))
	planes := []*controlPlane{s.control, second}
	s.config.Bootstrap.XDS = []string{s.control.XDS, second.XDS}
	s.envoy = s.start(s.config)
	connected := func(to *controlPlane) bool {
		s.control = to
		return s.stream("e") != nil
	}
	var at, other *controlPlane
	within(t, 5*time.Second, "connected to one", func() string {
		for i, p := range planes {
			if connected(p) {
				at, other = p, planes[1-i]
				return ""
			}
		}
		return "to none"
	})
	s.says("it serves", 200, "a ")
	s.unharmed("a control plane is killed, the other takes over", func() {
		at.Kill()
		within(t, 5*time.Second, "connected to the other", func() string {
			if connected(other) {
				return ""
			}
			return "not yet"
		})
		s.settled()
	})
	if got := strings.Join(sentTypes(t, other.Admin), ", "); got != "assignments 1" {
		t.Errorf("the other sent %q, want the one assignment", got)
	}
	s.control.apply(fmt.Sprintf("kind: Upstream\nname: web\nspec: {endpoints: [{address: %q}]}\n", s.b.Addr))
	s.says("it is served by the other", 200, "b ")
}
