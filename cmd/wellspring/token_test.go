package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/wellspring-xds/wellspring/pkg/consultest"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

// TestRealToken: what an operator sees of a token that is wrong, hides, and is
// replaced in its file while the server runs.
func TestRealToken(t *testing.T) {
	_, err := proc.Find("CONSUL", "consul")
	proc.Need(t, err)
	const root = "11111111-2222-3333-4444-555555555555"
	consul, err := consultest.Start(t.Context(), consultest.Config{Dir: t.TempDir(), Token: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { consul.Kill() })
	if err := consul.Client.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "web", Address: "127.0.0.1", Port: 1}); err != nil {
		t.Fatal(err)
	}
	policy, _, err := consul.Client.ACL().PolicyCreate(&api.ACLPolicy{Name: "nodes", Rules: `node_prefix "" { policy = "read" }`}, nil)
	if err != nil {
		t.Fatal(err)
	}
	hides, _, err := consul.Client.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, config := filepath.Join(dir, "token"), filepath.Join(dir, "wellspring.yaml")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, "99999999-2222-3333-4444-555555555555\n")
	write(config, fmt.Sprintf("sources:\n- name: consul\n  consul: {address: %q, tokenFile: %q}\n", consul.Address, file))
	control := serve(t, "-c", config)
	control.apply("kind: Upstream\nname: web\nspec: {service: {source: consul}}\n")

	says := func(what string, code int, words string, args ...string) {
		t.Helper()
		within(t, 3*time.Second, what, func() string {
			out, got := control.cli(args...)
			if got == code && strings.Contains(out, words) {
				return ""
			}
			return fmt.Sprintf("exit %d\n%s", got, out)
		})
	}
	says("wrong token: the source says so", 79, "denied", "sources")
	says("wrong token: health says so", 79, "ACL not found", "health", "-o", "wide")
	write(file, hides.SecretID+"\n")
	says("a token that hides: health says what to give", 79, "give it service:read and node:read", "health", "-o", "wide")
	write(file, root+"\n")
	says("the right token", 0, "healthy", "health")
	says("the source answers", 0, "fresh", "sources")
}
