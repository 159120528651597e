package bootstrap_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/certtest"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

// configs are bootstraps of every shape.
func configs(t *testing.T) map[string]bootstrap.Config {
	t.Helper()
	a, err := certtest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := a.Issue("edge", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	secrets := t.TempDir()
	files, err := bootstrap.Secrets(bootstrap.TLS{CA: a.CA(), Cert: cert, Key: key, SecretsDir: secrets})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(secrets, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return map[string]bootstrap.Config{
		"least":             {NodeID: "e", Group: "edge"},
		"everything":        {NodeID: "e", Group: "edge", Zone: "a", XDS: []string{"127.0.0.1:1", "127.0.0.1:2"}, Admin: "127.0.0.1:3", DrainTime: time.Minute, MaxConnections: 7, MaxHeapBytes: 1 << 30},
		"names and IPs":     {NodeID: "e", Group: "edge", XDS: []string{"localhost:1", "127.0.0.1:2", "[::1]:3"}},
		"admin on a socket": {NodeID: "e", Group: "edge", Admin: filepath.Join(t.TempDir(), "admin.sock")},
		"xDS on a socket":   {NodeID: "e", Group: "edge", XDS: []string{"unix:///run/wellspring/xds.sock"}},
		"TLS by an address": {NodeID: "e", Group: "edge", TLS: &bootstrap.TLS{CA: a.CA()}},
		"TLS, everything": {NodeID: "e", Group: "edge", XDS: []string{"localhost:1"}, TLS: &bootstrap.TLS{
			CA: a.CA(), Cert: cert, Key: key, ServerName: "control", SecretsDir: secrets,
		}},
		"TLS without secrets": {NodeID: "e", Group: "edge", TLS: &bootstrap.TLS{CA: a.CA(), Cert: cert, Key: key}},
		"telemetry":           {NodeID: "100%", Group: "edge", Telemetry: &bootstrap.Telemetry{Level: model.TelemetryEndpoints, Key: "k%3", Addresses: []string{"127.0.0.1:2", "unix:///run/w.sock"}}},
		"telemetry, TLS":      {NodeID: "e", Group: "edge", Telemetry: &bootstrap.Telemetry{Level: model.TelemetryFailures}, TLS: &bootstrap.TLS{CA: a.CA(), Cert: cert, Key: key}},
		"words of YAML 1.1":   {NodeID: "no", Group: "on", Zone: "n"},
	}
}

func TestNewRefuses(t *testing.T) {
	for words, c := range map[string]bootstrap.Config{
		"a node id and a group are needed":                                   {NodeID: "e"},
		`group "a b" is no name that a document can have`:                    {NodeID: "e", Group: "a b"},
		`control plane address "nowhere" is neither HOST:PORT nor`:           {NodeID: "e", Group: "g", XDS: []string{"nowhere"}},
		`control plane address "h:70000" is neither HOST:PORT nor`:           {NodeID: "e", Group: "g", XDS: []string{"h:70000"}},
		`control plane address ":1" is neither HOST:PORT nor`:                {NodeID: "e", Group: "g", XDS: []string{":1"}},
		`"unix://xds.sock" is not unix:// and an absolute path`:              {NodeID: "e", Group: "g", XDS: []string{"unix://xds.sock"}},
		`needs the authority that signs its certificate`:                     {NodeID: "e", Group: "g", TLS: &bootstrap.TLS{ServerName: "x"}},
		`a certificate and its key go together`:                              {NodeID: "e", Group: "g", TLS: &bootstrap.TLS{CA: "/ca", Key: "/k"}},
		`"ca.pem" is not an absolute path`:                                   {NodeID: "e", Group: "g", TLS: &bootstrap.TLS{CA: "ca.pem"}},
		`"unix:///x" has none`:                                               {NodeID: "e", Group: "g", XDS: []string{"unix:///x"}, TLS: &bootstrap.TLS{CA: "/ca"}},
		`admin address "admin.sock" is neither IP:PORT nor the absolute`:     {NodeID: "e", Group: "g", Admin: "admin.sock"},
		`admin address "0.0.0.0:9901" is not loopback`:                       {NodeID: "e", Group: "g", Admin: "0.0.0.0:9901"},
		`admin address "10.0.0.1:9901" is not loopback; Envoy's admin has n`: {NodeID: "e", Group: "g", Admin: "10.0.0.1:9901"},
	} {
		if _, err := bootstrap.New(c); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%+v: %v, want %q", c, err, words)
		}
	}
}

// The file beside the package is what the command prints for it.
func TestEdgeFile(t *testing.T) {
	b, err := bootstrap.New(bootstrap.Config{NodeID: "edge-1", Group: "edge", Telemetry: &bootstrap.Telemetry{Key: "of-this-example"}})
	if err != nil {
		t.Fatal(err)
	}
	want, err := bootstrap.YAML(b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("edge.yaml")
	if err != nil || string(got) != string(want)+"\n" {
		t.Errorf("edge.yaml is not what `make docs` writes (%v)", err)
	}
}

// Every supported Envoy takes every shape, and the file as it lies here.
func TestRealValidate(t *testing.T) {
	for _, version := range []string{"1.37", "1.38", "1.39", "1.40"} {
		program, err := envoytest.Find(version)
		proc.Need(t, err)
		files := map[string]string{"edge.yaml": "edge.yaml"}
		all := configs(t)
		for name, c := range all {
			if c.Telemetry != nil && c.Envoy == "" { // what nobody said a version for runs on each
				c.Envoy = version
				all[name+" of its version"] = c
			}
		}
		for name, c := range all {
			b, err := bootstrap.New(c)
			if err != nil {
				t.Fatal(err)
			}
			yaml, err := bootstrap.YAML(b)
			if err != nil {
				t.Fatal(err)
			}
			json, err := bootstrap.JSON(b)
			if err != nil {
				t.Fatal(err)
			}
			for ext, text := range map[string][]byte{".yaml": yaml, ".json": json} {
				file := filepath.Join(t.TempDir(), "bootstrap"+ext)
				if err := os.WriteFile(file, text, 0o600); err != nil {
					t.Fatal(err)
				}
				files[name+ext] = file
			}
		}
		for name, file := range files {
			t.Run(version+"/"+name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if out, err := exec.CommandContext(ctx, program, "--mode", "validate", "--log-level", "error", "-c", file).CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
	}
}
