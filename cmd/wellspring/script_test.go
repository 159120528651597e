package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/wellspring-xds/wellspring/pkg/certtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"wellspring": main})
}

// TestScripts runs the stories of testdata/script: commands as a person types
// them, what they print and how they exit.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("NO_COLOR", "1")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serving":  serving,
			"exits":    exits,
			"narrow":   narrow,
			"taken":    taken,
			"watching": watching,
			"until":    until,
			"certs":    certs,
			"soon":     soon,
		},
	})
}

// serving DIR waits for a server with that data directory and sets
// WELLSPRING_SERVER.
func serving(ts *testscript.TestScript, _ bool, args []string) {
	for range 500 {
		text, err := os.ReadFile(ts.MkAbs(filepath.Join(args[0], "addresses.json")))
		var a addresses
		if err == nil && json.Unmarshal(text, &a) == nil {
			network, at := "tcp", a.Admin
			if path, ok := strings.CutPrefix(a.Admin, "unix://"); ok {
				network, at = "unix", path
			}
			if c, err := net.Dial(network, at); err == nil {
				_ = c.Close()
				ts.Setenv("WELLSPRING_SERVER", strings.NewReplacer("0.0.0.0:", "127.0.0.1:", "[::]:", "127.0.0.1:").Replace(a.Admin))
				ts.Setenv("XDS", a.XDS)
				return
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	ts.Fatalf("no server with %s", args[0])
}

// certs DIR NAME[=SAN]… makes an authority whose files lie in the folder, and issues
// certificates.
func certs(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	a, err := certtest.New(dir)
	ts.Check(err)
	for _, arg := range args[1:] {
		name, san, _ := strings.Cut(arg, "=")
		var sans []string
		if san != "" {
			sans = []string{san}
		}
		_, _, err := a.Issue(name, time.Hour, sans...)
		ts.Check(err)
	}
}

// exits CODE COMMAND… wants an exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	if err != nil {
		var exit interface{ ExitCode() int }
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = strconv.Itoa(exit.ExitCode())
	}
	if code != args[0] {
		ts.Fatalf("exit %s, want %s", code, args[0])
	}
}

// narrow FILE wants lines of at most 80 characters.
func narrow(ts *testscript.TestScript, _ bool, args []string) {
	n := 0
	for _, r := range ts.ReadFile(args[0]) {
		if n++; r == '\n' {
			n = 0
		}
		if n > width {
			ts.Fatalf("%s has a line of more than %d characters:\n%s", args[0], width, ts.ReadFile(args[0]))
		}
	}
}

// taken NAME listens on a loopback port for the rest of the script.
func taken(ts *testscript.TestScript, _ bool, args []string) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		ts.Fatalf("%v", err)
	}
	ts.Defer(func() { _ = l.Close() })
	ts.Setenv(args[0], l.Addr().String())
}

// watching FILE COMMAND… runs a command until the script ends; what it prints
// goes to the file.
func watching(ts *testscript.TestScript, _ bool, args []string) {
	out, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	program := args[1]
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if p := filepath.Join(dir, program); program == args[1] {
			if _, err := os.Stat(p); err == nil {
				program = p
			}
		}
	}
	cmd := exec.Command(program, args[2:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = []string{"NO_COLOR=1", "HOME=" + ts.Getenv("HOME"), "WELLSPRING_SERVER=" + ts.Getenv("WELLSPRING_SERVER")}
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			ts.Logf("%v: %v", args, err)
		}
		_ = out.Close()
	})
}

// soon COMMAND… runs a command until it succeeds.
func soon(ts *testscript.TestScript, _ bool, args []string) {
	var err error
	for range 100 {
		if err = ts.Exec(args[0], args[1:]...); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	ts.Fatalf("%v: %v", args, err)
}

// until FILE PATTERN waits until a file has a match.
func until(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile(args[1])
	var text string
	for range 500 {
		if text = ts.ReadFile(args[0]); want.MatchString(text) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	ts.Fatalf("%s never had %q:\n%s", args[0], args[1], text)
}
