package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/certificate"
	"github.com/wellspring-xds/wellspring/pkg/findings"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/freshness"
	"github.com/wellspring-xds/wellspring/pkg/notify"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds/delivery"
	"github.com/wellspring-xds/wellspring/xds/server"
	"github.com/wellspring-xds/wellspring/xds/telemetry"
)

// What `make docs` wrote is what the structs say today.
func TestDocsAreCurrent(t *testing.T) {
	felt, err := os.ReadFile("../../docs/felt.txt")
	if err != nil {
		t.Fatal(err)
	}
	var reference strings.Builder
	if err := writeReference(&reference, string(felt)); err != nil {
		t.Fatal(err)
	}
	schema, err := spec.Schema()
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"../../docs/reference.md": reference.String(), "../../docs/schema.json": string(schema)} {
		got, err := os.ReadFile(file)
		if err != nil || string(got) != want {
			t.Errorf("%s is not what `make docs` writes (%v)", file, err)
		}
	}
}

// What is advised is a command that there is.
func TestAdviceNamesCommands(t *testing.T) {
	verbs := map[string]bool{}
	for _, c := range newRoot().Commands() {
		verbs[c.Name()] = true
	}
	named := 0
	for _, pkg := range []string{"diagnose", "evidence", "health", "lint", "spec", "admin", "findings"} {
		files, err := filepath.Glob("../../pkg/" + pkg + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatal(pkg, err)
		}
		for _, file := range files {
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				for _, m := range regexp.MustCompile(`\bwellspring ([a-z]+)`).FindAllStringSubmatch(lit.Value, -1) {
					if named++; !verbs[m[1]] {
						t.Errorf("%s advises wellspring %s: %s", file, m[1], lit.Value)
					}
				}
				return true
			})
		}
	}
	page, err := os.ReadFile("../../docs/causes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`\bwellspring\s+([a-z]+)`).FindAllStringSubmatch(string(page), -1) {
		if named++; !verbs[m[1]] {
			t.Errorf("docs/causes.md advises wellspring %s", m[1])
		}
	}
	if named < 40 {
		t.Errorf("%d commands are advised", named)
	}
}

// The configuration that README shows is one, and the metrics and keys that
// docs/operations.md names exist.
func TestDocsNameWhatThereIs(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(readme), "```yaml\nxds:")
	text, _, closed := strings.Cut(text, "```")
	if !ok || !closed {
		t.Fatal("README shows no configuration")
	}
	c := &config{}
	if err := spec.DecodeStrict("README.md", []byte("xds:"+text), c).Err(); err != nil {
		t.Error(err)
	}
	if err := c.check(); err != nil {
		t.Error(err)
	}
	operations, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	descriptions := make(chan *prometheus.Desc, 100)
	certificate.New(certificate.Config{}).Describe(descriptions)
	server.New(server.Config{Engine: delivery.NewEngine()}).Metrics().Describe(descriptions)
	admin.NewMetrics(admin.Config{}).Describe(descriptions)
	notify.New(notify.Config{}).Metrics().Describe(descriptions)
	freshness.New(freshness.Config{}).Describe(descriptions)
	findings.New(findings.Config{}).Describe(descriptions)
	telemetry.New(telemetry.Config{Fleet: fleet.New(fleet.Config{})}).Metrics().Describe(descriptions)
	close(descriptions)
	for d := range descriptions {
		_, name, _ := strings.Cut(d.String(), `fqName: "`)
		name, _, _ = strings.Cut(name, `"`)
		names[name] = true
	}
	for _, name := range regexp.MustCompile("wellspring_[a-z_]+").FindAllString(string(operations), -1) {
		if !names[name] {
			t.Errorf("docs/operations.md names the metric %s, which there is not", name)
		}
	}
	for _, start := range []string{"notify:", "hooks:"} {
		_, text, ok := strings.Cut(string(operations), "```yaml\n"+start)
		text, _, closed := strings.Cut(text, "```")
		if !ok || !closed {
			t.Fatalf("docs/operations.md shows no %s", start)
		}
		shown := &config{}
		if err := spec.DecodeStrict("operations.md", []byte(start+text), shown).Err(); err != nil {
			t.Error(err)
		} else if err := shown.check(); err != nil {
			t.Error(err)
		}
	}
	for _, a := range spec.Advices() {
		line := "| `" + a.Code + "` | " + a.Says
		if a.Living {
			line += "; asked of a server"
		}
		if !strings.Contains(string(operations), line+" |\n") {
			t.Errorf("docs/operations.md does not have the rule of lint %q", line)
		}
	}
	keys := map[string]bool{"admin.writers": true}
	for _, l := range leaves(c) {
		keys[l.path] = true
	}
	for _, key := range regexp.MustCompile("`((?:xds|telemetry|admin|secrets|history|events|notify|freshness)\\.[a-zA-Z.]+)`").FindAllStringSubmatch(string(operations), -1) {
		if !keys[key[1]] {
			t.Errorf("docs/operations.md names the key %s, which there is not", key[1])
		}
	}
}
