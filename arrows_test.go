// Package wellspring holds the test that keeps the arrows between packages.
package wellspring

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/wellspring-xds/wellspring/"

// arrows lists, for each package, which of ours it may import. Data flows one
// way; a new arrow is a line that somebody reviews here.
var arrows = map[string][]string{
	"pkg/model":            {},
	"pkg/spec":             {"pkg/model"},
	"pkg/store":            {"pkg/model", "pkg/spec"},
	"pkg/health":           {"pkg/fleet", "pkg/model", "pkg/spec"},
	"pkg/events":           {"pkg/model"},
	"pkg/fleet":            {"pkg/model"},
	"pkg/recorder":         {"pkg/model"},
	"pkg/outbound":         {},
	"pkg/notify":           {"pkg/health"},
	"pkg/freshness":        {"discovery", "pkg/model"},
	"pkg/freeport":         {},
	"pkg/proc":             {},
	"pkg/envoyadmin":       {"pkg/model"},
	"pkg/probe":            {"pkg/spec"},
	"pkg/diagnose":         {"discovery", "pkg/envoyadmin", "pkg/fleet", "pkg/health", "pkg/model", "pkg/probe", "pkg/spec"},
	"pkg/evidence":         {"discovery", "pkg/diagnose", "pkg/envoyadmin", "pkg/events", "pkg/fleet", "pkg/health", "pkg/lint", "pkg/model", "pkg/probe", "pkg/spec", "pkg/store"},
	"pkg/findings":         {"pkg/diagnose", "pkg/health", "pkg/model", "pkg/spec"},
	"pkg/lint":             {"pkg/model", "pkg/probe", "pkg/spec"},
	"pkg/hook":             {"pkg/diagnose", "pkg/findings", "pkg/model"},
	"pkg/envoytest":        {"envoy-bootstrap", "pkg/freeport", "pkg/proc"},
	"pkg/consultest":       {"pkg/freeport", "pkg/proc"},
	"pkg/files":            {},
	"pkg/certtest":         {},
	"pkg/certificate":      {"pkg/model"},
	"pkg/access":           {"pkg/certificate", "pkg/model"},
	"pkg/admin":            {"discovery", "pkg/access", "pkg/diagnose", "pkg/envoyadmin", "pkg/events", "pkg/findings", "pkg/fleet", "pkg/freshness", "pkg/health", "pkg/lint", "pkg/model", "pkg/spec", "pkg/store"},
	"pkg/admin/client":     {"pkg/admin", "pkg/model"},
	"discovery":            {"pkg/model"},
	"discovery/local":      {"discovery", "pkg/model", "pkg/spec"},
	"discovery/consul":     {"discovery", "pkg/model"},
	"xds":                  {"pkg/certificate", "pkg/health", "pkg/model", "pkg/spec", "xds/delivery", "xds/translate"},
	"xds/translate":        {"envoy-bootstrap", "pkg/model", "pkg/spec"},
	"xds/extensions":       {},
	"xds/delivery":         {"pkg/model"},
	"xds/server":           {"envoy-bootstrap", "pkg/access", "pkg/model", "xds/delivery", "xds/translate"},
	"xds/telemetry":        {"envoy-bootstrap", "pkg/access", "pkg/envoyadmin", "pkg/fleet", "pkg/model"},
	"xds/xdstest":          {},
	"xds/deliverybench":    {"pkg/certtest", "pkg/consultest", "xds/delivery"},
	"envoy-bootstrap":      {"pkg/model"},
	"examples/backend":     {},
	"examples/backend/run": {"examples/backend"},
	"examples/traffic":     {},
	"examples":             {},
	"examples/demo":        {"*"},
	"cmd/wellspring":       {"*"},
}

// homes lists the only packages that may import what is not ours.
var homes = map[string][]string{
	"github.com/hashicorp/consul/api":              {"discovery/consul", "pkg/consultest", "examples/demo", "xds/deliverybench"},
	"go.etcd.io/bbolt":                             {"pkg/store"},
	"github.com/envoyproxy/go-control-plane":       {"xds", "xds/extensions", "xds/translate", "xds/delivery", "xds/server", "xds/telemetry", "xds/xdstest", "xds/deliverybench", "envoy-bootstrap", "pkg/envoytest"},
	"github.com/goccy/go-yaml":                     {"pkg/spec", "cmd/wellspring"},
	"github.com/danielgtaylor/huma/v2":             {"pkg/admin", "pkg/spec"},
	"github.com/prometheus/client_golang":          {"pkg/admin", "pkg/certificate", "pkg/findings", "pkg/freshness", "pkg/notify", "xds/server", "xds/telemetry", "cmd/wellspring"},
	"google.golang.org/protobuf/types/known/anypb": {"xds", "xds/translate", "xds/delivery", "xds/server", "xds/xdstest", "xds/deliverybench", "envoy-bootstrap"},
}

func TestArrows(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != "." || d.Name() == "tools" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		allowed, listed := arrows[pkg]
		if !listed && !seen[pkg] {
			t.Errorf("%s is not in the list of arrows", pkg)
		}
		seen[pkg] = true
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if ours, ok := strings.CutPrefix(to, module); ok && !slices.Contains(allowed, ours) && !slices.Contains(allowed, "*") {
				t.Errorf("%s: a new arrow from %s to %s", path, pkg, ours)
			}
			for foreign, where := range homes {
				if (to == foreign || strings.HasPrefix(to, foreign+"/")) && !slices.Contains(where, pkg) {
					t.Errorf("%s: %s belongs in %v only", path, foreign, where)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range arrows {
		if !seen[pkg] && pkg != "examples" {
			t.Errorf("%s is in the list of arrows and not in the tree", pkg)
		}
	}
}
