package main_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/admin/client"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
)

// TestRealNoSecretInOutputs: tokens and private keys are in use, and stand in
// nothing that the server or its command line says: answers, dumps, events,
// metrics, errors and the log.
func TestRealNoSecretInOutputs(t *testing.T) {
	v := newVault(t, "")
	const consulToken = "canary-0000-consul-token"
	config := filepath.Join(t.TempDir(), "wellspring.yaml")
	v.keys.write(config, "log: {level: debug}\nsources: [{name: consul, consul: {address: '127.0.0.1:1', token: "+consulToken+"}}]\n")
	_ = v.control.Signal(os.Interrupt)
	<-v.control.Done()
	before := v.control.Output()
	v.control.args = append(v.control.args, "-c", config)
	v.control.start()
	v.control.apply("kind: Upstream\nname: far\nspec: {service: {source: consul}}\n")
	within(t, 10*time.Second, "the proxy is back", func() string {
		var p admin.Proxies
		if err := v.control.client().Get(t.Context(), "/v1/proxies", nil, &p); err != nil || p.Total != 1 || len(p.Items[0].Delivery) < 5 {
			return "not yet"
		}
		if r := p.Items[0].Reports; r == nil || r.State != fleet.ReportsVerified {
			return "no reports yet"
		}
		return ""
	})

	// what must not be seen: each secret's text, and of keys every line
	canaries := map[string]string{"the Consul token": consulToken, "the report key": canaryKey}
	token, err := os.ReadFile(v.keys.token)
	if err != nil {
		t.Fatal(err)
	}
	canaries["the operator's token"] = strings.TrimSpace(string(token))
	for _, name := range []string{"us", "shop", "api", "control", "edge-1"} {
		text, err := os.ReadFile(v.keys.authority.File(name + "-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Fields(string(text)) {
			if len(line) > 30 {
				canaries["the key of "+name+" "+line[:4]] = line
			}
		}
	}
	if len(canaries) < 12 {
		t.Fatalf("%d canaries", len(canaries))
	}
	said := 0
	search := func(where, text string) {
		t.Helper()
		said += len(text)
		for what, canary := range canaries {
			// protojson says bytes in base64 of the text
			if strings.Contains(text, canary) {
				t.Errorf("%s stands in %s", what, where)
			}
		}
		if strings.Contains(text, "PRIVATE KEY---") || strings.Contains(text, "UFJJVkFURSBLRVkt") || strings.Contains(text, "BSSVZBVEUgS0VZ") || strings.Contains(text, "QUklWQVRFIEtFWS") {
			t.Errorf("a private key stands in %s", where)
		}
	}

	// 1. every answer of the API
	text, err := v.control.client().Text(t.Context(), "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var api struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(text), &api); err != nil {
		t.Fatal(err)
	}
	for path, item := range api.Paths {
		if item["get"] == nil {
			continue
		}
		for _, name := range []string{"bank", "edge", "shop"} {
			at := strings.NewReplacer("{name}", name, "{id}", "edge-1", "{number}", "1").Replace(path)
			text, err := v.control.client().Text(t.Context(), at)
			if err != nil {
				text = err.Error()
			}
			search("GET "+at, text)
			if path == "/v1/proxies/{id}/xds" && !strings.Contains(text, "[redacted]") {
				t.Errorf("the dump has no secret in it: %s", text)
			}
		}
	}

	// 2. faults: a key where a certificate belongs, a wrong token, a torn document
	for _, document := range []string{
		"kind: Upstream\nname: torn\nspec: {endpoints: [], tls: {ca: {file: us-key.pem}, sni: x}}\n",
		"kind: Upstream\nname: torn\nspec: {endpoints: [], tls: {ca: {file: ca.pem}, sni: x, certificate: {cert: us-key.pem, key: us.pem}}}\n",
	} {
		_, err := v.control.client().Apply(t.Context(), []byte(document), client.How{})
		if err == nil {
			t.Errorf("taken: %s", document)
		} else {
			search("a refusal", err.Error())
		}
	}
	wrong := v.keys.client(v.control.Admin)
	wrong.TokenFile, wrong.Token = "", canaries["the operator's token"]+"x"
	if err := client.New(wrong).Get(t.Context(), "/v1/health", nil, nil); err == nil {
		t.Error("a wrong token is taken")
	} else {
		search("a refusal of a token", err.Error())
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+v.control.Admin+"/v1/health", nil)
	req.Header.Set("Authorization", "Bearer "+canaries["the operator's token"])
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_ = resp.Body.Close()
	}
	v.keys.write(v.keys.tokens, canaries["the operator's token"]+":read\n") // a token where a line belongs
	within(t, 10*time.Second, "the faulty file is told", func() string {
		if strings.Contains(v.control.Output(), "tokens not read again") {
			return ""
		}
		return "not told"
	})

	// 3. the command line
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary(t), "config", "print", "--effective", "-c", config).CombinedOutput()
	if err != nil {
		t.Error(err)
	}
	search("config print", string(out))
	for _, args := range [][]string{{"health"}, {"proxies", "-o", "json"}, {"xds", "edge-1", "-o", "yaml"}, {"events", "-o", "wide"}, {"events", "--since", "1h", "-o", "json"}, {"health", "bank"}, {"health", "bank", "--trend"}, {"history", "-o", "json"}} {
		out, _ := v.control.cli(args...)
		search(strings.Join(args, " "), out)
	}

	outage := filepath.Join(t.TempDir(), "outage.tar.gz")
	v.control.cli("bundle", "--file", outage)
	out, err = exec.CommandContext(ctx, "tar", "-xzOf", outage).CombinedOutput()
	if err != nil || len(out) < 10_000 {
		t.Errorf("a bundle of %d bytes: %v", len(out), err)
	}
	search("a bundle", string(out))

	// 4. the log, which says everything
	search("the log", before+v.control.Output())
	if said < 50_000 {
		t.Errorf("only %d bytes were searched", said)
	}
}
