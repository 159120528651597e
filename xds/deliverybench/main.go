// Deliverybench measures what it costs to tell a fleet of Envoys of a change, beside
// what it costs at least and what go-control-plane's caches cost. README.md says how
// to read it.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "deliverybench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 3 && args[0] == "serve" {
		return servePeer(args[1], args[2])
	}
	flags := flag.NewFlagSet("deliverybench", flag.ContinueOnError)
	binary := flags.String("wellspring", "bin/wellspring", "the program that is measured")
	only := flags.String("only", "", "only cells beside one whose line contains this, or Consul")
	quick := flags.Bool("quick", false, "only what the targets need, in four minutes")
	out := flags.String("out", "", "file for the results as JSON")
	profile := flags.String("profile", "", "file for a CPU profile of wellspring serve in the main cell")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if runtime.NumCPU() < 2 && os.Getenv(pinnedAlready) == "" {
		return errors.New("two cores are needed: one for the server, one for the clients")
	}
	if err := pinned(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "deliverybench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path, err := filepath.Abs(*binary)
	if err != nil {
		return err
	}
	b := &bench{binary: path, dir: dir}
	if b.keys, err = newKeys(dir); err != nil {
		return err
	}
	plan := quickPlan
	if !*quick {
		plan = append(plan, morePlan...)
	}
	for _, cells := range plan {
		if !strings.Contains(cells[0].String(), *only) {
			continue
		}
		if cells[0].Server == "wellspring" && cells[0].is(mainCell) {
			cells[0].Profiled = *profile
		}
		if err := b.together(cells...); err != nil {
			return err
		}
	}
	for endpoints, every := range map[int]time.Duration{10: 250 * time.Millisecond, 500: 100 * time.Millisecond} {
		if *quick || !strings.Contains("Consul", *only) {
			break
		}
		one, err := b.consul(endpoints, every)
		if err != nil {
			return err
		}
		b.churns = append(b.churns, one)
	}
	if b.setter, err = setter(10_000, 1000); err != nil {
		return err
	}
	b.table(os.Stdout)
	if *out != "" {
		text, err := json.MarshalIndent(b.report(), "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(*out, append(text, '\n'), 0o644); err != nil { //nolint:gosec // results are for everybody
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(b.summary())
}

const pinnedAlready = "DELIVERYBENCH_PINNED"

// pinned runs this program again on the clients' core, so that every thread of it is.
func pinned() error {
	if os.Getenv(pinnedAlready) != "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	var core unix.CPUSet
	core.Set(clientCore)
	if err := unix.SchedSetaffinity(0, &core); err != nil {
		return err
	}
	return unix.Exec(self, os.Args, append(os.Environ(), pinnedAlready+"=1"))
}
