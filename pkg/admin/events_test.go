package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/admin/client"
	"github.com/wellspring-xds/wellspring/pkg/events"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

var errEnough = errors.New("enough")

// watch streams until n events came, or the stream is quiet for a while.
func watch(t *testing.T, c *client.Client, after string, n int) (names []string, last string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	last, err := c.Watch(ctx, after, func(e model.Event) error {
		name := e.Subject.Name
		if e.Kind == model.EventGap {
			name = "gap"
		}
		if names = append(names, name); len(names) == n {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatalf("after %v: %v", names, err)
	}
	return names, last
}

// Who comes back with the last id that it saw misses nothing and sees nothing
// twice; who was away for too long, or comes from before a restart, is told of a
// gap; who has no id sees what happens from now on.
func TestWatchResumes(t *testing.T) {
	log := events.New(time.Now)
	api := httptest.NewServer(admin.New(admin.Config{Events: log}))
	defer api.Close()
	c := client.New(client.Config{Server: api.URL})
	emit := func(names ...string) {
		for _, n := range names {
			log.Emit(model.Event{Kind: model.EventUpstreamState, Subject: model.Subject{Kind: "Upstream", Name: n}})
		}
	}
	wants := func(why string, got []string, want string) {
		t.Helper()
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %q, want %q", why, s, want)
		}
	}
	emit("old")
	var wg sync.WaitGroup
	seen := make(chan struct{})
	wg.Go(func() { // it cannot be told when the watcher is there
		for {
			select {
			case <-seen:
				return
			case <-time.After(5 * time.Millisecond):
				emit("new")
			}
		}
	})
	got, _ := watch(t, c, "", 1)
	close(seen)
	wg.Wait()
	wants("from now on", got, "new")
	wg.Wait()

	last := log.Last(1)[0].ID
	emit("a", "b", "c")
	got, last = watch(t, c, last, 3)
	wants("resumed", got, "a b c")
	emit("d")
	got, last = watch(t, c, last, 1)
	wants("resumed again", got, "d")

	got, _ = watch(t, c, "before-17", 2)
	wants("an id of another start", got, "gap old")
	got, _ = watch(t, c, "nonsense", 2)
	wants("no id at all", got, "gap old")

	emit(make([]string, 10_000)...) // the ring turned over
	emit("e")
	got, _ = watch(t, c, last, 10_001)
	if got[0] != "gap" || got[10_000] != "e" {
		t.Errorf("after 10,001 events: %q … %q", got[0], got[10_000])
	}
}

// unbuffered is a connection that keeps what is written, and flushes.
type unbuffered struct {
	*httptest.ResponseRecorder
	mu   sync.Mutex
	text strings.Builder
}

func (u *unbuffered) Write(b []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.text.Write(b)
}

func (u *unbuffered) String() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.text.String()
}

// A quiet stream says now and then that it is still there; its frames are those of
// server-sent events and its data is an Event.
func TestWatchFrames(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		log := events.New(time.Now)
		api := admin.New(admin.Config{Events: log})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		conn := &unbuffered{ResponseRecorder: httptest.NewRecorder()}
		done := make(chan struct{})
		go func() {
			defer close(done)
			api.ServeHTTP(conn, httptest.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/v1/events?watch=true", nil))
		}()
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if got := conn.String(); got != ": still here\n\n: still here\n\n" {
			t.Errorf("31 quiet seconds: %q", got)
		}
		log.Emit(model.Event{Kind: model.EventProxyGone, Subject: model.Subject{Kind: "Proxy", Name: "a\nb"}, Reason: "line\nline"})
		synctest.Wait()
		e := log.Last(1)[0]
		lines := strings.Split(strings.TrimPrefix(conn.String(), ": still here\n\n: still here\n\n"), "\n")
		if len(lines) != 5 || lines[0] != "id: "+e.ID || lines[1] != "event: proxy.gone" || lines[3] != "" {
			t.Fatalf("frame %q", lines)
		}
		data := strings.TrimPrefix(lines[2], "data: ")
		var got model.Event
		if err := json.Unmarshal([]byte(data), &got); err != nil || got.Reason != e.Reason {
			t.Errorf("data %q: %v", data, err)
		}
		if err := w.contract.follows([]byte(data), "components", "schemas", "Event"); err != nil {
			t.Error(err)
		}
		if ct := conn.Header().Get("Content-Type"); ct != "text/event-stream" {
			t.Errorf("content type %q", ct)
		}
		cancel()
		<-done
	})
}
