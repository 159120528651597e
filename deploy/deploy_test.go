// Package deploy holds the tests of what Wellspring is run with.
package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/wellspring-xds/wellspring/pkg/admin/client"
	"github.com/wellspring-xds/wellspring/pkg/certtest"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

// program is bin/wellspring of this checkout.
func program(t *testing.T) string {
	t.Helper()
	p, err := filepath.Abs("../bin/wellspring")
	if err == nil {
		_, err = os.Stat(p)
	}
	proc.Need(t, err)
	return p
}

// TestRealUnit: systemd takes the unit, and judges that it can do little harm.
func TestRealUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	proc.Need(t, err)
	text, err := os.ReadFile("wellspring.service")
	if err != nil {
		t.Fatal(err)
	}
	const installed = "/usr/local/bin/wellspring"
	if !strings.Contains(string(text), "ExecStart="+installed+" ") {
		t.Fatal("the unit does not start " + installed)
	}
	unit := filepath.Join(t.TempDir(), "wellspring.service")
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(string(text), installed, program(t))), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"verify", "--man=no", unit},
		{"security", "--offline=true", "--threshold=15", unit}, // 1.5 of 10
	} {
		out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput()
		if err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}

// TestRealContainer builds the file system that the Containerfile describes, and runs
// its program in it, as its user and with the /proc and /dev that a runtime gives: what the
// image has is all that is needed. It takes root, and utilities of Linux.
func TestRealContainer(t *testing.T) {
	program(t)
	unshare, err := exec.LookPath("unshare")
	if err == nil && os.Geteuid() != 0 {
		err = errors.New("only root may change its root directory")
	}
	proc.Need(t, err)
	root := t.TempDir()
	var user string
	var entry []string
	text, err := os.ReadFile("Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "", "#", "EXPOSE":
		case "FROM":
			if rest != "scratch" {
				t.Errorf("built on %s", rest)
			}
		case "COPY":
			from, to, _ := strings.Cut(rest, " ")
			data, err := os.ReadFile(filepath.Join("..", from))
			if err == nil {
				err = os.WriteFile(filepath.Join(root, to), data, 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
		case "USER":
			if !regexp.MustCompile(`^[1-9][0-9]*:[1-9][0-9]*$`).MatchString(rest) {
				t.Fatalf("USER %s", rest)
			}
			user = rest
		case "VOLUME":
			if err := os.Mkdir(filepath.Join(root, rest), 0o700); err != nil {
				t.Fatal(err)
			}
		case "ENTRYPOINT":
			if err := json.Unmarshal([]byte(rest), &entry); err != nil {
				t.Fatal(err)
			}
		default:
			t.Errorf("an instruction that this test does not know: %s", line)
		}
	}
	if user == "" || len(entry) < 2 {
		t.Fatalf("user %q, entry point %v", user, entry)
	}
	for _, path := range []string{filepath.Dir(root), root} { // as a runtime would: anybody may pass
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// As a volume's owner is set (podman's :U).
	if out, err := exec.CommandContext(t.Context(), "chown", user, filepath.Join(root, "data")).CombinedOutput(); err != nil { //nolint:gosec // of our own file
		t.Fatalf("%v: %s", err, out)
	}
	for _, given := range []string{"proc", "dev"} {
		if err := os.Mkdir(filepath.Join(root, given), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{
		"--mount", "--propagation", "private", "--", "sh", "-c",
		`mount --bind /proc "$1/proc" && mount --bind /dev "$1/dev" && root=$1 user=$2 && shift 2 && exec chroot --userspec="$user" "$root" "$@"`, "sh", root, user,
	}, append(entry, "--telemetry-listen", "127.0.0.1:0", "--xds-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")...)
	cmd := exec.CommandContext(t.Context(), unshare, args...) //nolint:gosec // of our own file
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var at struct {
		Admin string `json:"admin"`
	}
	for start := time.Now(); at.Admin == ""; time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-ended:
			t.Fatalf("it ended: %v\n%s", err, said.String())
		default:
		}
		if text, err := os.ReadFile(filepath.Join(root, "data", "addresses.json")); err == nil {
			_ = json.Unmarshal(text, &at)
		}
		if time.Since(start) > 20*time.Second {
			t.Fatal("it never serves")
		}
	}
	for _, path := range []string{"/readyz", "/v1/health", "/v1/backup"} {
		resp, err := http.Get("http://" + at.Admin + path) //nolint:noctx // the process dies with the test
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		if _ = resp.Body.Close(); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s: %s", path, resp.Status, text)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, said.String())
	}
	var left []string
	entries, err := os.ReadDir(root)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if err != nil || !slices.Equal(left, []string{"data", "dev", "proc", "wellspring"}) {
		t.Errorf("%v lie in the container, %v", left, err)
	}
}

// queries are those of the dashboard, by the titles of what they stand in.
func queries(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Templating, Annotations struct {
			List []struct {
				Name, Query, Expr string
			}
		}
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
			GridPos struct{ X, Y, W, H int }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		for i, q := range p.Targets {
			out[fmt.Sprintf("%s %d", p.Title, i)] = q.Expr
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Errorf("%q lies over %q, or beyond the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	for _, v := range d.Templating.List {
		if metric, label, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(v.Query, "label_values("), ")"), ", "); ok {
			out[v.Name] = "count by (" + label + ") (" + metric + ")"
		}
	}
	for _, a := range d.Annotations.List {
		out[a.Name] = a.Expr
	}
	if len(out) < 15 {
		t.Fatalf("%d queries", len(out))
	}
	return out
}

// TestRealRules: promtool takes the alerts, runs their tests, and takes the queries of
// the dashboard.
func TestRealRules(t *testing.T) {
	promtool, err := proc.Find("PROMTOOL", "promtool")
	proc.Need(t, err)
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for _, expr := range queries(t) {
		expr = strings.NewReplacer("$__rate_interval", "1m", "$instance", "a", "$upstream", "catalog").Replace(expr)
		rules = append(rules, rule{"dashboard:" + strconv.Itoa(len(rules)), expr})
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	dashboard := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(dashboard, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml"},
		{"test", "rules", "alerts_test.yaml"},
		{"check", "rules", dashboard},
	} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	alerts, err := os.ReadFile("alerts.yaml")
	tests, terr := os.ReadFile("alerts_test.yaml")
	if err := errors.Join(err, terr); err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(string(alerts), -1) {
		fires := regexp.MustCompile(`alertname: ` + m[1] + `\n +exp_alerts:`)
		silent := regexp.MustCompile(`alertname: ` + m[1] + `\}`)
		if !fires.Match(tests) || !silent.Match(tests) && m[1] != "WellspringCertificateEnds" {
			t.Errorf("alerts_test.yaml does not show %s firing, or not silent", m[1])
		}
	}
}

// TestRealMetrics: every metric that alerts and dashboard name is on /metrics of a
// running server, with the labels by which they ask for it.
func TestRealMetrics(t *testing.T) {
	dir := t.TempDir()
	secrets := filepath.Join(dir, "secrets")
	if err := os.Mkdir(secrets, 0o700); err != nil {
		t.Fatal(err)
	}
	authority, err := certtest.New(secrets)
	if err == nil {
		_, _, err = authority.Issue("shop", time.Hour, "shop.example.com")
	}
	if err != nil {
		t.Fatal(err)
	}
	server, err := proc.Start(program(t), []string{"serve", "--data-dir", dir, "--telemetry-listen", "127.0.0.1:0", "--xds-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--freshness-interval", "5s"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop(5 * time.Second)
	var at struct{ Admin string }
	if err := server.Until(t.Context(), func(context.Context) error {
		text, err := os.ReadFile(filepath.Join(dir, "addresses.json"))
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &at)
	}); err != nil {
		t.Fatal(err)
	}
	api := client.New(client.Config{Server: at.Admin})
	if _, err := api.Apply(t.Context(), []byte(`
kind: Upstream
name: catalog
spec: {endpoints: [{address: "127.0.0.1:1"}]}
---
kind: Upstream
name: nobody
spec: {endpoints: []}
---
kind: Listener
name: edge
spec: {address: "127.0.0.1:2", tls: {certificates: [{cert: shop.pem, key: shop-key.pem}]}, tcp: {to: [{upstream: catalog}]}}
---
kind: Group
name: edge
spec: {listeners: [edge]}
`), client.How{}); err != nil {
		t.Fatal(err)
	}
	has := map[string]string{} // a metric, and its labels
	sample := regexp.MustCompile(`^(\w+)(?:\{(.*)\})? `)
	want := map[string]string{} // a query, and where it stands
	for title, expr := range queries(t) {
		want[expr] = title
	}
	alerts, err := os.ReadFile("alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(alerts, &rules); err != nil {
		t.Fatal(err)
	}
	for _, r := range rules.Groups[0].Rules {
		want[r.Expr] = r.Alert
	}
	metric := regexp.MustCompile(`\b(?:wellspring|process|go)_\w+`)
	label := regexp.MustCompile(`(\w+)=~?"`)
	by := regexp.MustCompile(`by \(([^)]*)\)`)
	if err := server.Until(t.Context(), func(ctx context.Context) error { // the upstream is published
		page, err := api.Text(ctx, "/metrics")
		if err != nil {
			return err
		}
		for line := range strings.Lines(page) {
			if m := sample.FindStringSubmatch(line); m != nil {
				has[m[1]] = m[2]
			}
		}
		for _, name := range []string{"wellspring_upstream_endpoints", "wellspring_certificate_unreadable", "wellspring_findings"} {
			if _, ok := has[name]; !ok {
				return errors.New(name + " is not there yet")
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	asked := 0
	for expr, where := range want {
		var labels string
		for _, name := range metric.FindAllString(expr, -1) {
			found, ok := has[name]
			if !ok {
				t.Errorf("%s: %s is not on /metrics", where, name)
			}
			labels += "," + found
			asked++
		}
		names := []string{}
		for _, m := range label.FindAllStringSubmatch(expr, -1) {
			names = append(names, m[1])
		}
		for _, m := range by.FindAllStringSubmatch(expr, -1) {
			names = append(names, strings.Split(m[1], ", ")...)
		}
		for _, name := range names {
			if name != "instance" && name != "job" && !strings.Contains(labels, ","+name+"=") { // Prometheus adds those two
				t.Errorf("%s: nothing in %q has the label %q", where, expr, name)
			}
		}
	}
	t.Logf("%d queries name metrics %d times", len(want), asked)
}
