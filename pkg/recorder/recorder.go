// Package recorder keeps events on disk, for those who come after an outage, or after
// a restart: a ring of files of JSON lines, bounded by size and age, apart from the
// store.
//
//	DATA/events/0000000001-1795347115542.jsonl     number, and the time of its first event
//
// It follows the log of events in memory, so that nobody who emits one waits for a
// disk; where the disk is too slow, or full, events wait in that log, and what falls
// out of it is told as a gap. A new file is begun at every start and after every failed
// write: a line that was torn by a crash ends its file, and is skipped by who reads.
package recorder

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Log is where events come from.
type Log interface {
	// After returns events that follow an id, and a channel that is closed when there are
	// more.
	After(id string, limit int) ([]model.Event, <-chan struct{})
}

// Config of a recorder. Dir and Log are required; other zero values are the defaults.
type Config struct {
	// Dir is created.
	Dir string
	Log Log
	// MaxBytes of all files; default 256 MiB.
	MaxBytes int64
	// MaxAge of an event; default 30 days.
	MaxAge time.Duration
	// Logger is told of a disk that does not take events.
	Logger *slog.Logger
	// Now is the time; default time.Now.
	Now func() time.Time
}

const (
	defaultMaxBytes = 256 << 20
	defaultMaxAge   = 30 * 24 * time.Hour
	files           = 16 // in which the bytes are, about
	batch           = 500
	syncEvery       = time.Second
	retryEvery      = 5 * time.Second
	pruneEvery      = time.Minute
	maxLine         = 1 << 20
	suffix          = ".jsonl"
)

// Recorder writes and reads. It is safe for concurrent use; one Run at a time.
type Recorder struct {
	cfg Config

	mu     sync.Mutex // guards what follows
	number uint64     // of the newest file
	file   *os.File   // that is written; nil before the first event
	size   int64      // of it
	began  time.Time  // of its first event
	pruned time.Time  // when old files were last looked for
	dirty  bool       // something of it is not on disk yet
	last   string     // id of the newest event that is written
	failed bool       // the last write, and it was told
}

// Open returns a recorder of a folder, which it creates.
func Open(cfg Config) (*Recorder, error) {
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, defaultMaxBytes)
	cfg.MaxAge = cmp.Or(cfg.MaxAge, defaultMaxAge)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open recorder: %w", err)
	}
	r := &Recorder{cfg: cfg}
	all, err := r.list()
	if err != nil {
		return nil, fmt.Errorf("open recorder: %w", err)
	}
	if len(all) > 0 {
		r.number = all[len(all)-1].number
	}
	return r, nil
}

// Run records until ctx ends, and then what is there.
func (r *Recorder) Run(ctx context.Context) error {
	sync := time.NewTicker(syncEvery)
	defer sync.Stop()
	defer r.close()
	for {
		moved, err := r.record()
		if err != nil {
			select { // the disk is asked again in a while
			case <-ctx.Done():
				return nil
			case <-time.After(retryEvery):
			}
			continue
		}
		select {
		case <-ctx.Done():
			_, _ = r.record()
			return nil
		case <-moved:
		case <-sync.C:
			r.sync()
		}
	}
}

// record writes what the log has and the disk has not.
func (r *Recorder) record() (moved <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var events []model.Event
		events, moved = r.cfg.Log.After(r.last, batch)
		if len(events) == 0 {
			return moved, nil
		}
		if err := r.write(events); err != nil {
			if !r.failed {
				r.cfg.Logger.Error("events not recorded; they wait in memory", "err", err)
			}
			r.failed = true
			r.end()
			return nil, err
		}
		if r.failed {
			r.cfg.Logger.Info("events recorded again")
		}
		r.failed, r.last = false, events[len(events)-1].ID
	}
}

// write appends events. mu is held.
func (r *Recorder) write(events []model.Event) error {
	var b bytes.Buffer
	for _, e := range events {
		text, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if r.file == nil || r.size+int64(b.Len()+len(text)) >= r.cfg.MaxBytes/files {
			if err := r.flush(&b); err != nil {
				return err
			}
			if err := r.begin(e.Time); err != nil {
				return err
			}
		}
		b.Write(append(text, '\n'))
	}
	return r.flush(&b)
}

// flush writes lines to the file. mu is held.
func (r *Recorder) flush(b *bytes.Buffer) error {
	if b.Len() == 0 {
		return nil
	}
	n, err := r.file.Write(b.Bytes())
	b.Reset()
	r.size += int64(n)
	r.dirty = true
	return err
}

// begin ends the file that is written, begins the next and makes room. mu is held.
func (r *Recorder) begin(first time.Time) error {
	r.end()
	path := filepath.Join(r.cfg.Dir, fmt.Sprintf("%010d-%d%s", r.number+1, first.UnixMilli(), suffix))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	r.number++
	r.file, r.size, r.began = f, 0, first
	r.prune()
	return nil
}

// prune removes the oldest files while there are too many bytes, and those whose
// events are all too old. mu is held.
func (r *Recorder) prune() {
	all, err := r.list()
	if err != nil {
		r.cfg.Logger.Error("old events not removed", "err", err)
		return
	}
	var bytes int64
	for _, f := range all {
		bytes += f.size
	}
	oldest := r.cfg.Now().Add(-r.cfg.MaxAge)
	for i, f := range all[:max(0, len(all)-1)] {
		if bytes <= r.cfg.MaxBytes-r.cfg.MaxBytes/files && !all[i+1].began.Before(oldest) {
			break
		}
		if err := os.Remove(f.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			r.cfg.Logger.Error("old events not removed", "err", err)
			return
		}
		bytes -= f.size
	}
}

// sync brings to disk what was written.
func (r *Recorder) sync() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dirty && r.file != nil {
		_ = r.file.Sync() // a write that comes after tells
		r.dirty = false
	}
	if r.file != nil && r.cfg.Now().Sub(r.began) > r.cfg.MaxAge/files { // so that a quiet server forgets too
		r.end()
	}
	if now := r.cfg.Now(); now.Sub(r.pruned) > pruneEvery {
		r.prune()
		r.pruned = now
	}
}

// end closes the file that is written. mu is held.
func (r *Recorder) end() {
	if r.file != nil {
		_ = r.file.Sync()
		_ = r.file.Close()
		if r.size == 0 {
			_ = os.Remove(r.file.Name()) // nothing was taken
		}
		r.file, r.dirty = nil, false
	}
}

func (r *Recorder) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end()
}

// file is one of the ring.
type file struct {
	path   string
	number uint64
	began  time.Time
	size   int64
}

// list is the ring, oldest first; what is not ours is left out.
func (r *Recorder) list() ([]file, error) {
	entries, err := os.ReadDir(r.cfg.Dir)
	if err != nil {
		return nil, err
	}
	var out []file
	for _, e := range entries {
		var f file
		var began int64
		name, ours := strings.CutSuffix(e.Name(), suffix)
		if n, _ := fmt.Sscanf(name, "%d-%d", &f.number, &began); n != 2 || !ours {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // it was removed meanwhile
		}
		f.path, f.began, f.size = filepath.Join(r.cfg.Dir, e.Name()), time.UnixMilli(began), info.Size()
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b file) int { return cmp.Compare(a.number, b.number) })
	return out, nil
}

// Between reads the events of a span of time, oldest first: the newest limit of them.
// Zero times are without bound.
func (r *Recorder) Between(ctx context.Context, from, to time.Time, limit int) ([]model.Event, error) {
	_, _ = r.record() // what waits is written first; where the disk takes nothing it is told, and what is there is read
	all, err := r.list()
	if err != nil {
		return nil, fmt.Errorf("read recorder: %w", err)
	}
	var out []model.Event
	for i := len(all) - 1; i >= 0 && len(out) < limit; i-- {
		if i+1 < len(all) && !from.IsZero() && all[i+1].began.Before(from) {
			break // the next one began before: nothing here is as new
		}
		if !to.IsZero() && all[i].began.After(to) {
			continue
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		events, err := read(all[i].path, from, to)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // it may have been removed meanwhile
			return nil, fmt.Errorf("read recorder: %w", err)
		}
		out = append(events, out...)
	}
	once := map[string]bool{} // what a failed write had brought to disk is written again
	out = slices.DeleteFunc(out, func(e model.Event) bool {
		again := once[e.ID]
		once[e.ID] = true
		return again
	})
	return out[max(0, len(out)-limit):], nil
}

// read reads the events of one file; lines that are torn are skipped.
func read(path string, from, to time.Time) ([]model.Event, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	var out []model.Event
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for lines.Scan() {
		var e model.Event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.ID == "" {
			continue
		}
		if (from.IsZero() || !e.Time.Before(from)) && (to.IsZero() || !e.Time.After(to)) {
			out = append(out, e)
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return out, err
	}
	return out, nil
}
