package consul

import (
	"os"
	"strings"
	"sync"
	"time"
)

// token is the ACL token. One from a file is read again when the file changes, so
// that it can be rotated while we run.
type token struct {
	file string // set in New, then read-only

	mu      sync.Mutex // guards what follows
	value   string
	changed time.Time // of the file
	looked  time.Time
}

// lookEvery bounds how often the file is looked at.
const lookEvery = time.Second

// get returns the token; the last good one while the file cannot be read.
func (t *token) get() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == "" || time.Since(t.looked) < lookEvery {
		return t.value
	}
	t.looked = time.Now()
	info, err := os.Stat(t.file)
	if err != nil || info.ModTime().Equal(t.changed) {
		return t.value
	}
	if text, err := os.ReadFile(t.file); err == nil && len(text) > 0 {
		t.value, t.changed = strings.TrimSpace(string(text)), info.ModTime()
	}
	return t.value
}
