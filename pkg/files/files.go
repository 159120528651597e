// Package files says when files may have changed.
//
// The folders of the files are watched, not the files: an editor, a certificate
// agent and a mounted secret all put a new file (or a link to a new folder) in
// place of the old one, and a watch on a file would follow the old one. A slow
// poll stands beside the watch, since a watch can be missed: on a network file
// system, past the kernel's limit of watches, or when a folder above is swapped.
//
// Nothing is compared here. Whoever is called reads its files again and finds
// out whether anything is new.
package files

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long after a first change the call waits for the rest of a
	// replacement: a certificate and its key are two files.
	settle = 50 * time.Millisecond
	// defaultPoll is how often the call is made though nothing was seen.
	defaultPoll = 10 * time.Second
)

// Config of a watch.
type Config struct {
	// Paths lists the files as of now; it is asked before every wait.
	Paths func() []string
	// Changed is called after any of them may have changed, never twice at once.
	Changed func()
	// Poll is the longest time between two calls. Default 10s.
	Poll   time.Duration
	Logger *slog.Logger
}

// Watch calls c.Changed until ctx ends.
func Watch(ctx context.Context, c Config) error {
	if c.Poll == 0 {
		c.Poll = defaultPoll
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	var events chan fsnotify.Event // nil blocks for ever: the poll goes on alone
	var failures chan error
	w, err := fsnotify.NewWatcher()
	if err != nil {
		c.Logger.Warn("files are polled only", "err", err)
	} else {
		defer w.Close() //nolint:errcheck // nothing is written by it
		events, failures = w.Events, w.Errors
	}
	watched := map[string]bool{}
	for {
		if w != nil {
			follow(w, watched, c.Paths())
		}
		poll := time.NewTimer(c.Poll)
		select {
		case <-ctx.Done():
			poll.Stop()
			return nil
		case <-poll.C:
		case err := <-failures:
			c.Logger.Warn("a change of files may have been missed", "err", err)
		case <-events:
			if !drain(ctx, events) {
				poll.Stop()
				return nil
			}
		}
		poll.Stop()
		c.Changed()
	}
}

// drain takes what follows within a moment; false when ctx ended.
func drain(ctx context.Context, events <-chan fsnotify.Event) bool {
	quiet := time.NewTimer(settle)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-events:
		case <-quiet.C:
			return true
		}
	}
}

// follow makes the watched folders those of the paths. One that is not there is
// left to the poll.
func follow(w *fsnotify.Watcher, watched map[string]bool, paths []string) {
	want := map[string]bool{}
	for _, p := range paths {
		if p != "" {
			want[filepath.Dir(p)] = true
		}
	}
	for dir := range watched {
		if !want[dir] {
			_ = w.Remove(dir) // it is gone already when this fails
			delete(watched, dir)
		}
	}
	for dir := range want {
		if !watched[dir] && w.Add(dir) == nil {
			watched[dir] = true
		}
	}
}
