package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/examples/backend"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/findings"
	"github.com/wellspring-xds/wellspring/pkg/notify"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

// findings are what the server keeps of an upstream.
func (c *controlPlane) findings(upstream string, ended bool) []findings.TimedFinding {
	c.t.Helper()
	var all admin.Findings
	text, _ := c.cli("findings", upstream, "-o", "json", fmt.Sprintf("--ended=%t", ended))
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		c.t.Fatalf("%v: %s", err, text)
	}
	return all.Items
}

// finds waits until a code is found, or is not.
func (c *controlPlane) finds(figure time.Duration, code string, severity findings.Severity, is bool) (f findings.TimedFinding) {
	c.t.Helper()
	within(c.t, figure, fmt.Sprintf("%s %s is found: %t", severity, code, is), func() string {
		all := c.findings("web", false)
		i := slices.IndexFunc(all, func(f findings.TimedFinding) bool { return string(f.Code) == code && f.Severity == severity })
		if i >= 0 {
			f = all[i]
		}
		if (i >= 0) != is {
			return fmt.Sprintf("%+v", all)
		}
		return ""
	})
	return f
}

// TestRealFindings: the server finds by itself why nobody answers, warns before that, says
// so to whoever is to be told, does what was configured, keeps the begin over a restart,
// and says when it is over.
func TestRealFindings(t *testing.T) {
	s := newStack(t, "1.40", nil)
	s.control.Stop(5 * time.Second)
	dir := t.TempDir()
	var mu sync.Mutex
	var summaries []string
	told := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m notify.Message
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		summaries = append(summaries, m.Summary)
	}))
	defer told.Close()
	script, did := filepath.Join(dir, "hook.sh"), filepath.Join(dir, "did")
	err := os.WriteFile(script, []byte("#!/bin/sh\necho $WELLSPRING_CODE $WELLSPRING_NAME >> "+did+"\n"), 0o700) //nolint:gosec // it is a program
	config := filepath.Join(dir, "wellspring.yaml")
	if err == nil {
		err = os.WriteFile(config, fmt.Appendf(nil, `
probe: {allowLoopback: true}
notify: {after: 5s, clear: 2s, allowLoopback: true, receivers: [{name: chat, url: '%s'}]}
hooks: [{name: restart, codes: [H3], command: [%s]}, {name: other, codes: [A1], command: [%[2]s]}]
`, told.URL, script), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.control.args = append(s.control.args, "-c", config)
	s.control.start()
	for i := range s.backends {
		s.register(i)
	}
	s.answers(10*time.Second, "all is well", 200, "")
	s.startLoad()
	defer s.load.Stop()
	if out, code := s.control.cli("findings"); code != 0 {
		t.Errorf("while all is well: exit %d: %s", code, out)
	}

	time.Sleep(time.Second)
	well := time.Now()

	// 1. one is gone: no outage yet
	s.backends[0].Kill()
	f := s.control.finds(15*time.Second, "W1", findings.Warning, true)
	if !strings.Contains(strings.Join(f.Evidence, ";"), "2 of 3") {
		t.Errorf("%+v", f)
	}
	if out, code := s.control.cli("findings", "web"); code != 0 || !strings.Contains(out, "WARNING W1 web: one more loss is an outage") {
		t.Errorf("exit %d: %s", code, out)
	}

	// 2. all are: the cause, a message, a hook
	broke := time.Now()
	s.backends[1].Kill()
	s.backends[2].Kill()
	f = s.control.finds(15*time.Second, "H3", findings.Critical, true)
	t.Logf("begun %s after it broke", f.Begun.Sub(broke).Round(time.Millisecond))
	out, code := s.control.cli("findings")
	if t.Log(out); code != 79 || !strings.Contains(out, "CRITICAL H3 web: the health check cannot connect") {
		t.Errorf("exit %d: %s", code, out)
	}
	within(t, 5*time.Second, "the hook ran", func() string {
		text, err := os.ReadFile(did) //nolint:gosec // ours
		if err != nil || string(text) != "H3 web\n" {
			return fmt.Sprintf("%s (%v)", text, err)
		}
		return ""
	})
	within(t, 25*time.Second, "people are told, with the code", func() string {
		mu.Lock()
		defer mu.Unlock()
		if len(summaries) != 1 || !strings.HasPrefix(summaries[0], "web: ") || !strings.Contains(summaries[0], "(H3 the health check cannot connect)") {
			return fmt.Sprint(summaries)
		}
		return ""
	})
	if n := s.control.metric("wellspring_findings", `code="H3",severity="critical",upstream="web"`); n != 1 {
		t.Errorf("metric: %v", n)
	}

	during := time.Now()

	// 3. a restart, without warning, changes nothing of that
	if err := s.control.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.control.Kill()
	s.control.start()
	again := s.control.finds(20*time.Second, "H3", findings.Critical, true)
	if again.Begun.Sub(f.Begun).Abs() > 10*time.Second { // by the event, that is a look or two later
		t.Errorf("begun %s, before the restart %s", again.Begun, f.Begun)
	}
	time.Sleep(5 * time.Second)                                                  // what would run again would have
	if text, err := os.ReadFile(did); err != nil || string(text) != "H3 web\n" { //nolint:gosec // ours
		t.Errorf("the hook ran again: %s (%v)", text, err)
	}

	// 4. mended
	for i, b := range s.backends {
		x, err := backend.Start(b.Name, b.Addr)
		proc.Need(t, err)
		t.Cleanup(x.Kill)
		s.backends[i] = x
	}
	s.answers(10*time.Second, "they answer", 200, "")
	s.control.finds(60*time.Second, "H3", findings.Critical, false)
	all := s.control.findings("web", true)
	if i := slices.IndexFunc(all, func(f findings.TimedFinding) bool { return f.Code == "H3" }); i < 0 || all[i].Ended.Before(all[i].Begun) || all[i].Begun != again.Begun {
		t.Errorf("over: %+v", all)
	}

	// 5. what was then, from before the restart
	out, code = s.control.cli("explain", "web", "--at", during.Format(time.RFC3339Nano))
	if t.Log(out); code != 79 || !strings.Contains(out, "CAUSE H3 ") || !strings.Contains(out, "certain") || !strings.Contains(out, "time that is over") {
		t.Errorf("then: exit %d: %s", code, out)
	}
	if out, code = s.control.cli("explain", "web", "--at", well.Format(time.RFC3339Nano)); code != 0 || !strings.Contains(out, "nothing was found") {
		t.Errorf("before: exit %d: %s", code, out)
	}
	out, _ = s.control.cli("events", "--since", "10m")
	for _, want := range []string{"finding.begun  web  critical → H3", "hook.run  web  H3 → done  by hook restart", "finding.ended  web  H3 → over"} {
		if !strings.Contains(out, want) {
			t.Errorf("no event %q in\n%s", want, out)
		}
	}
}
