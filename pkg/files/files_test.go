package files_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wellspring-xds/wellspring/pkg/files"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watch runs a watch of one file, whose poll is far away unless it is said, and
// returns its calls.
func watch(t *testing.T, path string, poll time.Duration) <-chan string {
	t.Helper()
	calls := make(chan string, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = files.Watch(ctx, files.Config{
			Paths: func() []string { return []string{path, ""} }, Poll: poll,
			Changed: func() { text, _ := os.ReadFile(path); calls <- string(text) },
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	time.Sleep(50 * time.Millisecond) // the folder is watched by then
	return calls
}

func wants(t *testing.T, calls <-chan string, what, want string) {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		select {
		case got := <-calls:
			if got == want {
				return
			}
		case <-late:
			t.Fatalf("%s: never told", what)
		}
	}
}

// Every way in which a file is replaced is told: written over, renamed over, taken
// away, and by the links of a mounted secret.
func TestReplaced(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write("cert", "one")
	calls := watch(t, filepath.Join(dir, "cert"), time.Hour)
	write("cert", "two")
	wants(t, calls, "written over", "two")
	write(".cert", "three")
	do(os.Rename(filepath.Join(dir, ".cert"), filepath.Join(dir, "cert")))
	wants(t, calls, "renamed over", "three")
	do(os.Remove(filepath.Join(dir, "cert")))
	wants(t, calls, "taken away", "")

	// as a mounted secret: cert -> ..data/cert, ..data -> ..1
	for _, v := range []string{"..1", "..2"} {
		do(os.Mkdir(filepath.Join(dir, v), 0o700))
		write(filepath.Join(v, "cert"), "of "+v)
	}
	do(os.Symlink("..1", filepath.Join(dir, "..data")))
	do(os.Symlink(filepath.Join("..data", "cert"), filepath.Join(dir, "cert")))
	wants(t, calls, "linked", "of ..1")
	do(os.Symlink("..2", filepath.Join(dir, "..tmp")))
	do(os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
	wants(t, calls, "links swapped", "of ..2")
}

// A folder that is not there yet is found by the poll.
func TestPoll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "later", "cert")
	calls := watch(t, path, 20*time.Millisecond)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("there"), 0o600); err != nil {
		t.Fatal(err)
	}
	wants(t, calls, "a new folder", "there")
}
