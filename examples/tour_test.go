package examples

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

// TestRealTour runs README's five minutes: its documents, its commands, and what
// it says that they print.
func TestRealTour(t *testing.T) {
	envoy, err := proc.Find("ENVOY", "envoy")
	binary, _ := filepath.Abs("../bin/wellspring")
	if err == nil {
		_, err = os.Stat(binary)
	}
	proc.Need(t, err)
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	ports, err := freeport.Get(7)
	if err != nil {
		t.Fatal(err)
	}
	addr := func(i int) string { return "127.0.0.1:" + strconv.Itoa(ports[i]) }
	text := strings.NewReplacer("127.0.0.1:10000", addr(0), "127.0.0.1:10001", addr(1), "127.0.0.1:10002", addr(2)).Replace(string(readme))
	dir := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("shop.yaml", between(t, text, "```yaml\n", "```"))
	step := func(command string) string {
		t.Helper()
		if !strings.Contains(text, command) {
			t.Fatalf("README does not have the step %q", command)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", "-c", command)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "WELLSPRING_SERVER="+addr(4), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
		out, _ := cmd.CombinedOutput() // exit 79 says that something is wrong
		return string(out)
	}
	control, err := proc.Start(binary, []string{"serve", "--data-dir", filepath.Join(dir, "data"), "--telemetry-listen", addr(6), "--xds-listen", addr(3), "--admin-listen", addr(4)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Stop(5 * time.Second)
	waitFor(t, func() bool { return strings.Contains(step("wellspring health"), "no upstream is declared") })
	if got, want := step(`wellspring apply -f shop.yaml -m "first documents"`), between(t, text, "DOCUMENT          CHANGE", "```"); !strings.Contains(got, want) {
		t.Errorf("apply prints\n%swanted\n%s", got, want)
	}
	for i, port := range []int{ports[1], ports[2]} {
		args := fmt.Sprintf("-m http.server %d --bind 127.0.0.1", port)
		if said := fmt.Sprintf("python3 -m http.server %d --bind 127.0.0.1 &", 10001+i); !strings.Contains(string(readme), said) {
			t.Fatalf("README does not have %q", said)
		}
		b, err := proc.Start("python3", strings.Fields(args), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Kill()
	}
	boot := step("wellspring bootstrap --node-id edge-1 --group edge --envoy-version 1.40 > edge-1.yaml")
	config, err := os.ReadFile(filepath.Join(dir, "edge-1.yaml"))
	if err != nil {
		t.Fatal(boot, err)
	}
	write("edge-1.yaml", strings.NewReplacer("port_value: 18000", "port_value: "+strconv.Itoa(ports[3]), "port_value: 18001", "port_value: "+strconv.Itoa(ports[6]), "port_value: 9901", "port_value: "+strconv.Itoa(ports[5])).Replace(string(config)))
	e, err := proc.Start(envoy, []string{"-c", filepath.Join(dir, "edge-1.yaml"), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Kill()
	waitFor(t, func() bool {
		got := step("wellspring health")
		return strings.Contains(got, "catalog   healthy  2/2") && strings.Contains(got, "proxies: 1 connected, 1 current")
	})
	waitFor(t, func() bool { return strings.Contains(step("curl http://"+addr(0)+"/"), "Directory listing") })
	write("shop.yaml", strings.Replace(between(t, text, "```yaml\n", "```"), "endpoints:\n  - {address: \""+addr(1)+"\", id: blue}\n  - {address: \""+addr(2)+"\", id: green}", "endpoints: []", 1))
	step(`wellspring apply -f shop.yaml -m "first documents"`)
	waitFor(t, func() bool {
		return strings.Contains(step("wellspring health"), "the service has no endpoints") && strings.Contains(text, "the service has no endpoints")
	})
	step("wellspring restore 1 --services")
	waitFor(t, func() bool { return strings.Contains(step("wellspring health"), "catalog   healthy  2/2") })
	if got := step("wellspring history"); !strings.Contains(got, "restore revision 1") {
		t.Errorf("history prints\n%s", got)
	}
}

func between(t *testing.T, text, from, to string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, from)
	inside, _, ok2 := strings.Cut(rest, to)
	if !ok || !ok2 {
		t.Fatalf("README has no part from %q to %q", from, to)
	}
	return inside
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			t.Fatal("it never came to be")
		}
	}
}
