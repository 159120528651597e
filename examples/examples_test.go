// Package examples holds the test that runs each example.
package examples

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

var port = regexp.MustCompile(`:(10[0-9]{3})\b`)

// TestRealExamples runs each example's one command, on ports that are free.
func TestRealExamples(t *testing.T) {
	scripts, err := filepath.Glob("*/run.sh")
	if err != nil || len(scripts) < 5 {
		t.Fatalf("found %v, %v", scripts, err)
	}
	for _, program := range []string{"envoy", "consul"} {
		_, err := proc.Find(strings.ToUpper(program), program)
		proc.Need(t, err)
	}
	for _, script := range scripts {
		t.Run(filepath.Dir(script), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "./"+script)
			cmd.Env = append(os.Environ(), "PORTS="+swaps(t, filepath.Dir(script)), "KEEP=")
			cmd.WaitDelay = 5 * time.Second
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// swaps gives every port of an example's files a free one.
func swaps(t *testing.T, dir string) string {
	t.Helper()
	var used []string
	files, _ := filepath.Glob(dir + "/*")
	for _, f := range append(files, "lib.sh") {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range port.FindAllStringSubmatch(string(text), -1) {
			used = append(used, m[1])
		}
	}
	slices.Sort(used)
	used = slices.Compact(used)
	free, err := freeport.Get(len(used))
	if err != nil {
		t.Fatal(err)
	}
	var pairs []string
	for i, p := range used {
		pairs = append(pairs, fmt.Sprintf("%s=%d", p, free[i]))
	}
	return strings.Join(pairs, " ")
}

// TestExamples holds each example's documents and README against each other.
func TestExamples(t *testing.T) {
	scripts, _ := filepath.Glob("*/run.sh")
	for _, script := range scripts {
		dir := filepath.Dir(script)
		t.Run(dir, func(t *testing.T) {
			var docs []*spec.Document
			files, _ := filepath.Glob(dir + "/*.yaml")
			for _, f := range files {
				text, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				d, faults := spec.Parse(f, text)
				if err := faults.Err(); err != nil {
					t.Error(err)
				}
				docs = append(docs, d...)
			}
			if dir != "canary" { // it declares its route twice, one after the other
				if _, _, faults := spec.New(1, docs); len(faults) > 0 {
					t.Error(faults)
				}
			}
			readme, err := os.ReadFile(dir + "/README.md")
			if err != nil {
				t.Fatal(err)
			}
			ran, err := os.ReadFile(script)
			if err != nil {
				t.Fatal(err)
			}
			_, steps, ok := strings.Cut(string(readme), "```sh\n")
			steps, _, _ = strings.Cut(steps, "```")
			if !ok || !strings.Contains(string(readme), "examples/"+script) {
				t.Fatal("the README has no steps, or does not name the command")
			}
			for _, step := range strings.Split(strings.TrimSpace(steps), "\n") {
				if !strings.Contains(string(ran), step) {
					t.Errorf("the README's step %q is not run by %s", step, script)
				}
			}
		})
	}
}
