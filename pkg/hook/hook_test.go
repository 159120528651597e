package hook

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/findings"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

func finding(name string, code diagnose.Code, s findings.Severity) findings.TimedFinding {
	return findings.TimedFinding{Subject: model.Subject{Kind: "Upstream", Name: name}, Severity: s, Finding: diagnose.Finding{Code: code, Says: "it is down"}}
}

// runs has hooks run, and returns what takes findings, and the events so far.
func runs(t *testing.T, hooks ...Hook) (*Runner, func() []string) {
	t.Helper()
	var mu sync.Mutex
	var told []string
	r := New(Config{Hooks: hooks, Client: http.DefaultClient, Open: func(model.Subject, diagnose.Code) bool { return true }, Emit: func(e model.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Kind != model.EventHookRun {
			t.Errorf("event %+v", e)
		}
		told = append(told, strings.Join([]string{e.Actor, e.Subject.Name, e.From, e.To, e.Reason}, " "))
	}})
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { _ = r.Run(ctx); close(over) }()
	t.Cleanup(func() { cancel(); <-over })
	return r, func() []string { mu.Lock(); defer mu.Unlock(); return append([]string{}, told...) }
}

// waits until so many events were told.
func waits(t *testing.T, told func() []string, n int) []string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); len(told()) < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("told %q, want %d", told(), n)
		}
	}
	return told()
}

func script(t *testing.T, text string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil { //nolint:gosec // it is a program
		t.Fatal(err)
	}
	return []string{file, "an argument"}
}

func wants(t *testing.T, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("%q does not say %q", got, want)
	}
}

// A command gets the finding on stdin and in its environment, and nothing else of ours;
// what it says is kept where it fails.
func TestCommand(t *testing.T) {
	t.Setenv("A_SECRET", "of ours")
	dir := t.TempDir()
	r, told := runs(t,
		Hook{Name: "restart", Codes: []diagnose.Code{"H3"}, Critical: true, Command: script(t, `cat > `+dir+`/stdin; echo "$1 $WELLSPRING_CODE $WELLSPRING_KIND $WELLSPRING_NAME $WELLSPRING_SEVERITY [$A_SECRET]" > `+dir+`/env`), Every: time.Hour, PerHour: 10, Timeout: 10 * time.Second},
		Hook{Name: "fails", Codes: []diagnose.Code{"A1"}, Command: script(t, `echo "no such unit"; exit 3`), Every: time.Hour, PerHour: 10, Timeout: 10 * time.Second},
		Hook{Name: "missing", Codes: []diagnose.Code{"A2"}, Command: []string{dir + "/none"}, Every: time.Hour, PerHour: 10, Timeout: 10 * time.Second},
	)
	r.Begun(finding("web", "H3", findings.Warning)) // not for this one
	r.Begun(finding("web", "H3", findings.Critical))
	wants(t, waits(t, told, 1)[0], "hook restart web H3 done exit 0 in ")
	text, err := os.ReadFile(filepath.Join(dir, "stdin")) //nolint:gosec // ours
	var got findings.TimedFinding
	if err != nil || json.Unmarshal(text, &got) == nil && got.Code != "H3" || !strings.Contains(string(text), `"says":"it is down"`) {
		t.Errorf("stdin %s (%v)", text, err)
	}
	env, err := os.ReadFile(filepath.Join(dir, "env")) //nolint:gosec // ours
	if strings.TrimSpace(string(env)) != "an argument H3 Upstream web critical []" {
		t.Errorf("environment %s (%v)", env, err)
	}
	r.Begun(finding("web", "A1", findings.Warning))
	wants(t, waits(t, told, 2)[1], "hook fails web A1 failed exit status 3: no such unit")
	r.Begun(finding("web", "A2", findings.Critical))
	wants(t, waits(t, told, 3)[2], "hook missing web A2 failed ")
	r.Begun(finding("web", "F1", findings.Critical)) // nobody's
	time.Sleep(50 * time.Millisecond)
	if len(told()) != 3 {
		t.Errorf("told %q", told())
	}
}

// A command that does not end is ended, with what it started.
func TestTimeout(t *testing.T) {
	child := filepath.Join(t.TempDir(), "child")
	r, told := runs(t, Hook{Name: "slow", Command: script(t, "sleep 600 & echo $! > "+child+"; wait"), Every: time.Hour, PerHour: 1, Timeout: time.Second})
	start := time.Now()
	r.Begun(finding("web", "H3", findings.Critical))
	wants(t, waits(t, told, 1)[0], "failed it did not end within 1s, and was ended")
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	ends(t, child)
}

// What a command leaves behind is ended with it.
func TestLeftBehind(t *testing.T) {
	child := filepath.Join(t.TempDir(), "child")
	r, told := runs(t, Hook{Name: "starts", Command: script(t, "sleep 600 & echo $! > "+child), Every: time.Hour, PerHour: 1, Timeout: 10 * time.Second})
	r.Begun(finding("web", "H3", findings.Critical))
	wants(t, waits(t, told, 1)[0], "done exit 0, and what it left behind was ended,")
	ends(t, child)
}

// An address, which may be a secret, is not told.
func TestSecretURL(t *testing.T) {
	r, told := runs(t, Hook{Name: "post", URL: "http://127.0.0.1:1/s3cret", Every: time.Hour, PerHour: 10, Timeout: time.Second})
	r.Begun(finding("web", "H3", findings.Critical))
	if got := waits(t, told, 1)[0]; !strings.Contains(got, "failed") || strings.Contains(got, "s3cret") {
		t.Errorf("told %q", got)
	}
}

// ends waits until the process whose id is in a file is gone.
func ends(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file) //nolint:gosec // ours
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid == 0 {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); alive(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d lives on", pid)
		}
	}
}

// alive tells whether a process runs: one that nobody waits for is a zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && syscall.Kill(pid, 0) == nil && !strings.Contains(string(stat), ") Z ")
}

// A URL gets the finding and the token; an answer that is no success is one that failed.
func TestPost(t *testing.T) {
	status := http.StatusNoContent
	var body, token string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := make([]byte, r.ContentLength)
		_, _ = r.Body.Read(text)
		body, token = r.Method+" "+string(text), r.Header.Get("Authorization")
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("t0ken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, told := runs(t, Hook{Name: "post", URL: s.URL, TokenFile: file, Every: time.Hour, PerHour: 10, Timeout: 10 * time.Second})
	r.Begun(finding("web", "H3", findings.Critical))
	wants(t, waits(t, told, 1)[0], "hook post web H3 done answer 204 No Content in ")
	wants(t, body, `POST {"subject":{"kind":"Upstream","name":"web"},"severity":"critical","code":"H3"`)
	wants(t, token, "Bearer t0ken")
	status = http.StatusBadGateway
	r.Begun(finding("api", "H3", findings.Critical))
	wants(t, waits(t, told, 2)[1], "failed it answers 502 Bad Gateway")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	r.Begun(finding("shop", "H3", findings.Critical))
	wants(t, waits(t, told, 3)[2], "failed read its token: ")
}

// A hook runs once for a subject within Every, and PerHour times for all; what is held
// back is told, and runs later if it goes on. What waits too long is told.
func TestHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards what follows
		var told []string
		open := map[string]bool{"a": true, "b": true, "c": true}
		r := New(Config{
			Hooks:  []Hook{{Name: "h", URL: "http://127.0.0.1:1", Every: 10 * time.Minute, PerHour: 3, Timeout: time.Second}},
			Client: &http.Client{Transport: answers{}}, Open: func(of model.Subject, _ diagnose.Code) bool { mu.Lock(); defer mu.Unlock(); return open[of.Name] },
			Emit: func(e model.Event) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, e.Subject.Name+" "+e.To+" "+e.Reason)
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() { _ = r.Run(ctx); close(over) }()
		begun := func(names ...string) {
			for _, name := range names {
				r.Begun(finding(name, "H3", findings.Critical))
				synctest.Wait()
			}
		}
		want := func(want string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if got := strings.Join(told, "; "); got != want {
				t.Errorf("told %q, want %q", got, want)
			}
			told = nil
		}
		const done = " done answer 200 OK in 0s"
		begun("a")
		want("a" + done)
		time.Sleep(5 * time.Minute)
		begun("a", "b")
		want("a held it ran 5m0s ago, and runs each 10m0s; then, if it goes on; b" + done)
		time.Sleep(4 * time.Minute)
		want("")
		time.Sleep(2 * time.Minute) // 11 minutes after the first
		want("a" + done)
		begun("c")
		want("c held it ran 3 times in this hour; later, if it goes on")
		time.Sleep(48 * time.Minute)
		want("")
		time.Sleep(2 * time.Minute) // an hour after the first
		want("c" + done)
		begun("c")
		mu.Lock()
		told = nil
		open["c"] = false // it is over before it may run again
		mu.Unlock()
		time.Sleep(time.Hour)
		want("")
		cancel()
		<-over
		for range waiting + 1 { // nobody takes them
			begun("a")
		}
		want("a held 100 findings wait for it already")
	})
}

// answers is a server that always does.
type answers struct{}

func (answers) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: http.NoBody}, nil
}
