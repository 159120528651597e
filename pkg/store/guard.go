package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// backupsKept is how many verified copies lie in DIR/backups.
const backupsKept = 3

func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create data directory: %w; choose another with --data-dir", err)
	}
	probe, err := os.CreateTemp(dir, ".write-*")
	if err != nil {
		return fmt.Errorf("data directory %s cannot be written: %w; correct its owner or choose another with --data-dir", dir, err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// lockDir takes the data directory for this process. The kernel releases the
// lock however the process ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		who, _ := io.ReadAll(io.LimitReader(f, 32))
		return nil, errors.Join(fmt.Errorf("data directory %s is in use by another wellspring (process %s); stop that one or choose another with --data-dir",
			dir, strings.TrimSpace(string(who))), f.Close())
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := fmt.Fprintf(f, "%d\n", os.Getpid()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// damaged words the refusal to open.
func damaged(dir, path string, cause error) error {
	newest := "there is no backup yet; restore the file from your own"
	if b := backups(dir); len(b) > 0 {
		last := b[len(b)-1]
		newest = fmt.Sprintf("the newest verified backup is %s; to go on from it: mv %s %s.damaged && cp %s %s", last, path, path, last, path)
	}
	return fmt.Errorf("the store %s cannot be used: %w; nothing was changed. %s", path, cause, newest)
}

func backups(dir string) []string {
	names, _ := filepath.Glob(filepath.Join(dir, "backups", "wellspring-*.db"))
	slices.Sort(names)
	return names
}

// backup copies a verified file aside and drops the oldest copies. One that the newest
// copy has already is not copied again: a program that is refused and started over and
// over would push out what its operator needs.
func backup(dir, path string, now time.Time) error {
	if all := backups(dir); len(all) > 0 {
		if same, err := sameContent(path, all[len(all)-1]); err != nil || same {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "backups"), 0o700); err != nil {
		return err
	}
	to := filepath.Join(dir, "backups", "wellspring-"+now.UTC().Format("20060102T150405.000")+".db")
	leftovers, _ := filepath.Glob(filepath.Join(dir, "backups", "*.part"))
	for _, f := range leftovers {
		_ = os.Remove(f) // of a copy that was cut off; it is tried again at the next start
	}
	if err := copyFile(path, to+".part"); err != nil {
		return errors.Join(err, os.Remove(to+".part"))
	}
	if err := os.Rename(to+".part", to); err != nil {
		return err
	}
	all := slices.DeleteFunc(backups(dir), func(f string) bool { return f == to }) // a clock may run backwards
	for _, old := range all[:max(0, len(all)+1-backupsKept)] {
		if err := os.Remove(old); err != nil {
			return err
		}
	}
	return nil
}

func sameContent(a, b string) (bool, error) {
	var sums [2][sha256.Size]byte
	for i, path := range []string{a, b} {
		f, err := os.Open(path)
		if err != nil {
			return false, err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return false, err
		}
		h.Sum(sums[i][:0])
	}
	return sums[0] == sums[1], nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(err, out.Close())
	}
	return errors.Join(out.Sync(), out.Close())
}

// VerifyFile opens a store read-only and checks every page. A damaged file may
// kill the process that calls it.
func VerifyFile(path string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second, PreLoadFreelist: true})
	if err != nil {
		return fmt.Errorf("it is not a store, or its head is damaged: %w", err)
	}
	err = db.View(func(tx *bolt.Tx) error {
		var first error
		for err := range tx.Check() {
			if first == nil {
				first = fmt.Errorf("it is damaged inside: %w", err)
			}
		}
		return first
	})
	return errors.Join(err, db.Close())
}

// DamagedError is the verdict on a file that cannot be trusted.
type DamagedError struct{ Err error }

func (e *DamagedError) Error() string { return e.Err.Error() }

// Unwrap returns what was found.
func (e *DamagedError) Unwrap() error { return e.Err }

// crashed tells whether a process died of what it read: by a memory fault, or as
// Go ends after one.
func crashed(exit *exec.ExitError) bool {
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && (status.Signaled() && (status.Signal() == syscall.SIGSEGV || status.Signal() == syscall.SIGBUS) || status.ExitStatus() == 2)
}

// VerifyCommand returns a Verify that runs a command with the path as its last
// argument. The command calls VerifyFile; its exit status is the verdict.
func VerifyCommand(command ...string) func(context.Context, string) error {
	return func(ctx context.Context, path string) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		args := append(slices.Clone(command[1:]), path)
		out, err := exec.CommandContext(ctx, command[0], args...).CombinedOutput()
		var exit *exec.ExitError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("check %s: %w", path, ctx.Err())
		case errors.As(err, &exit) && exit.ExitCode() == 1:
			return &DamagedError{errors.New(strings.TrimSpace(string(out)))}
		case errors.As(err, &exit) && crashed(exit):
			return &DamagedError{fmt.Errorf("reading it crashed the checking process: %w", exit)}
		}
		return fmt.Errorf("the check of %s did not run: %w: %s", path, err, strings.TrimSpace(string(out)))
	}
}
