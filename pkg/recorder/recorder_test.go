package recorder_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wellspring-xds/wellspring/pkg/events"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/recorder"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is set by the test.
type clock struct{ nanos atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.nanos.Store(time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time      { return time.Unix(0, c.nanos.Load()) }
func (c *clock) add(d time.Duration) { c.nanos.Add(int64(d)) }

// world is a recorder of a folder, and the log that it follows.
type world struct {
	*recorder.Recorder
	t   *testing.T
	log *events.Log
	end func()
}

func start(t *testing.T, dir string, now func() time.Time, maxBytes int64) *world {
	t.Helper()
	w := &world{t: t, log: events.New(now)}
	r, err := recorder.Open(recorder.Config{Dir: dir, Log: w.log, MaxBytes: maxBytes, MaxAge: 24 * time.Hour, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	w.Recorder = r
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	w.end = func() { cancel(); <-done }
	return w
}

func (w *world) emit(names ...string) {
	for _, name := range names {
		w.log.Emit(model.Event{Kind: model.EventUpstreamState, Subject: model.Subject{Kind: "Upstream", Name: name}, Reason: "a line\nof two"})
	}
}

func (w *world) wants(from, to time.Time, limit int, want string) {
	w.t.Helper()
	all, err := w.Between(w.t.Context(), from, to, limit)
	if err != nil {
		w.t.Fatal(err)
	}
	var got []string
	for _, e := range all {
		got = append(got, e.Subject.Name)
	}
	if strings.Join(got, " ") != want {
		w.t.Errorf("read %v, want %s", got, want)
	}
}

// What was recorded before a restart is there after it; a torn line, and what is not
// ours, is skipped.
func TestRestart(t *testing.T) {
	dir, never := t.TempDir(), time.Time{}
	clock := newClock()
	w := start(t, dir, clock.now, 0)
	w.emit("a", "b")
	w.wants(never, never, 10, "a b")
	w.end()
	all, _ := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if len(all) != 1 {
		t.Fatalf("files %v", all)
	}
	f, err := os.OpenFile(all[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	whole, _ := os.ReadFile(all[0])
	_, _ = f.Write(whole) // as after a write that failed half way
	_, _ = f.WriteString(`{"id":"x-1","time":"2026-11-23T14:00`)
	_ = f.Close()
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	clock.add(time.Hour)
	w = start(t, dir, clock.now, 0)
	w.emit("c")
	clock.add(time.Hour)
	w.emit("d")
	w.wants(never, never, 10, "a b c d")
	w.wants(never, never, 3, "b c d")
	now := clock.now()
	w.wants(now.Add(-time.Hour), never, 10, "c d")
	w.wants(never, now.Add(-time.Hour), 10, "a b c")
	w.wants(now.Add(-90*time.Minute), now.Add(-time.Minute), 10, "c")
	w.end()
}

// The oldest files go when there are too many bytes, and when all of it is too old.
func TestBounds(t *testing.T) {
	dir, never := t.TempDir(), time.Time{}
	clock := newClock()
	w := start(t, dir, clock.now, 64<<10)
	defer func() { w.end() }()
	for i := range 2000 { // 150 bytes each
		w.emit(fmt.Sprint(i))
		if i%20 == 0 {
			w.wants(clock.now().Add(time.Hour), never, 1, "") // what waits is written
		}
	}
	var bytes int64
	all, _ := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	for _, path := range all {
		info, _ := os.Stat(path)
		bytes += info.Size()
		if info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v", info.Mode())
		}
	}
	if bytes > 64<<10 || bytes < 32<<10 || len(all) < 8 {
		t.Errorf("%d bytes in %d files", bytes, len(all))
	}
	w.wants(never, never, 2, "1998 1999")
	clock.add(25 * time.Hour)
	for i := range 60 { // more than one file
		w.emit(fmt.Sprint("new", i))
		w.wants(clock.now().Add(time.Hour), never, 1, "")
	}
	got, err := w.Between(t.Context(), never, never, 100_000)
	if err != nil || len(got) > 100 {
		t.Errorf("%d events, %v", len(got), err)
	}
}

// What a disk does not take waits in memory, and is recorded when it does.
func TestDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	w := start(t, dir, time.Now, 0)
	defer func() { w.end() }()
	if err := os.Remove(dir); err != nil { // nothing can be made in it
		t.Fatal(err)
	}
	w.emit("a")
	if _, err := w.Between(t.Context(), time.Time{}, time.Time{}, 10); err == nil || !strings.Contains(err.Error(), "read recorder") {
		t.Errorf("error %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w.emit("b")
	w.wants(time.Time{}, time.Time{}, 10, "a b")
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := recorder.Open(recorder.Config{Dir: filepath.Join(file, "events")}); err == nil || !strings.Contains(err.Error(), "open recorder") {
		t.Errorf("error %v", err)
	}
}
