// Package proc runs the real programs that tests and demos need, and ends them.
package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Find returns the program that an environment variable names, else the one that
// `make tools` linked below .tools/bin of this checkout, else the one on PATH.
func Find(env, name string) (string, error) {
	if p := os.Getenv(env); p != "" {
		if _, err := os.Stat(p); err != nil {
			return "", fmt.Errorf("%s=%s: %w", env, p, err)
		}
		return p, nil
	}
	for dir, _ := os.Getwd(); dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		p := filepath.Join(dir, ".tools", "bin", name)
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	p, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is not here: run `make tools`, or set %s to its path", name, env)
	}
	return p, nil
}

// Need skips a test whose program is missing, or fails it under REQUIRE_REAL=1,
// where a skipped test would be taken for a passed one.
func Need(t interface {
	Helper()
	Fatal(...any)
	Skip(...any)
}, err error,
) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("REQUIRE_REAL") == "1":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}

// Process is a running program. Its methods may be called from any goroutine.
type Process struct {
	cmd    *exec.Cmd
	output *Tail
	done   chan struct{}
	err    error // set before done is closed
}

// Start runs a program in its own process group; it dies with this process. Its
// output is kept, the last 64 KiB of it, and copied to each of also.
func Start(program string, args, env []string, also ...io.Writer) (*Process, error) {
	p := &Process{cmd: exec.Command(program, args...), output: &Tail{}, done: make(chan struct{})}
	out := io.MultiWriter(append([]io.Writer{p.output}, also...)...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Pid is the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Output is the last of what the process printed.
func (p *Process) Output() string { return p.output.String() }

// ExitCode waits for the end and returns the status, -1 after a signal.
func (p *Process) ExitCode() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends a signal to the process.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Stop asks the process to end, kills it after grace, and waits.
func (p *Process) Stop(grace time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return
	case <-time.After(grace):
	}
	p.Kill()
}

// Kill ends the process at once and waits.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Until polls ok until it returns nil, the process ends, or ctx does.
func (p *Process) Until(ctx context.Context, ok func(context.Context) error) error {
	var last error
	for {
		if last = ok(ctx); last == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %w\n%s", p.cmd.Path, errors.Join(p.err, last), p.Output())
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w\n%s", p.cmd.Path, ctx.Err(), last, p.Output())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Tail keeps the last 64 KiB that were written to it.
type Tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const tailSize = 64 << 10

func (t *Tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(b)
	if n := t.buf.Len(); n > 2*tailSize {
		t.buf.Next(n - tailSize)
	}
	return len(b), nil
}

func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
