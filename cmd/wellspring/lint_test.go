package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRealLint: a change is held against what runs before it is one: who a real Consul
// knows, and whether the new check passes at processes that answer now.
func TestRealLint(t *testing.T) {
	s := newStack(t, "1.40", nil)
	config := filepath.Join(t.TempDir(), "wellspring.yaml")
	if err := os.WriteFile(config, []byte("probe: {allowLoopback: true}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.control.Stop(5 * time.Second)
	s.control.args = append(s.control.args, "-c", config)
	s.control.start()
	for i := range s.backends[:2] {
		s.register(i)
	}
	s.answers(10*time.Second, "all is well", 200, "")
	lints := func(document string) (string, int) {
		file := filepath.Join(t.TempDir(), "x.yaml")
		if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
			t.Fatal(err)
		}
		return s.control.cli("lint", "-f", file, "--server", s.control.Admin)
	}
	const of = "kind: Upstream\nname: web\nspec: {service: {source: consul, name: %s}, healthChecks: [{http: {path: %s}, interval: 1s}]%s}\n"
	for _, x := range []struct {
		name, service, path, more string
		code                      int
		says                      string
	}{
		{"as it is", "web", "/healthz", "", 0, ""},
		{"another status", "web", "/healthz, expectedStatuses: ['204']", "", 79, "x.yaml:3:61: Upstream/web: spec.healthChecks[0]: it fails at 2 of 2 endpoints that are healthy now (127.0.0.1:"},
		{"nobody of that name, who is not watched", "wbe", "/healthz", "", 79, "spec.service: source consul knows nobody named wbe"},
		{"another source", "web, source: konsul", "/healthz", "", 65, ""},
		{"outlier detection of two", "web", "/healthz", ", outlierDetection: {}", 79, "with 2 endpoints one ejection is 50 % of them"},
		{"one tag", "web, tags: [v9]", "/healthz", "", 79, "source consul has 2 instances of web, and tags, metadata or address tag select none"},
	} {
		out, code := lints(fmt.Sprintf(of, x.service, x.path, x.more))
		if t.Log(x.name, code, out); code != x.code || !strings.Contains(out, x.says) || code == 79 && !strings.HasSuffix(out, "]\n") {
			t.Errorf("%s: exit %d: %s", x.name, code, out)
		}
	}
	if out, code := s.control.cli("lint"); code != 0 || out != "" {
		t.Errorf("what is in force: exit %d: %s", code, out)
	}
	s.deregister(0)
	s.deregister(1)
	within(t, 10*time.Second, "nobody is there", func() string {
		out, code := s.control.cli("lint")
		if code != 79 || !strings.Contains(out, "source consul knows nobody named web") || !strings.Contains(out, "[no-endpoints]") {
			return fmt.Sprintf("exit %d: %s", code, out)
		}
		return ""
	})
}
