package notify

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/wellspring-xds/wellspring/pkg/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// story is how upstreams do, second by second: "a hidden" from a second on.
type story struct {
	at   int
	name string
	is   health.State
}

// told plays a story and returns the messages, with the second of each.
func told(seconds int, changes []story) (out []string) {
	lost := map[string]uint64{}
	t := &tracker{
		after: 30 * time.Second, clear: time.Minute, wait: gather, again: again, lost: func(name string) uint64 { return lost[name] },
		turns: map[string]time.Time{}, down: map[string]*Upstream{}, base: map[string]uint64{},
	}
	began := time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC)
	t.causes = func(name string) []string {
		if name == "d" && lost["d"] < 50 {
			return []string{"H3 refused", "P1 off"}
		}
		return nil
	}
	is := map[string]health.State{"a": health.Healthy, "b": health.Healthy, "c": health.Degraded}
	for s := range seconds {
		for _, c := range changes {
			if c.at == s {
				if is[c.name] = c.is; c.is == "" {
					delete(is, c.name)
				}
			}
		}
		var all []health.Upstream
		for name, state := range is {
			if bad(state) {
				lost[name]++
			}
			all = append(all, health.Upstream{Name: name, State: state, Why: "why", Counts: health.Counts{Total: 4, Healthy: 1}})
		}
		m := t.step(began.Add(time.Duration(s)*time.Second), all)
		if m == nil {
			continue
		}
		var with []string
		for _, u := range m.Upstreams {
			text := fmt.Sprintf("%s %s lost %d", u.Name, u.State, u.Lost)
			for _, cause := range u.Causes {
				text += " by " + cause
			}
			if !u.Until.IsZero() {
				text += fmt.Sprintf(" until %d", int(u.Until.Sub(began).Seconds()))
			}
			with = append(with, text)
		}
		out = append(out, fmt.Sprintf("%d %s %s (%s)", s, m.Status, m.Summary, strings.Join(with, ", ")))
	}
	return out
}

// One outage is one message, and one when it is over.
func TestOutages(t *testing.T) {
	for what, x := range map[string]struct {
		changes []story
		want    []string
	}{
		"nothing":                {nil, nil},
		"a glitch":               {[]story{{10, "a", health.Hidden}, {39, "a", health.Healthy}}, nil},
		"degraded is no outage":  {[]story{{10, "a", health.Degraded}}, nil},
		"unknown is no outage":   {[]story{{10, "a", health.Unknown}}, nil},
		"one, and back":          {[]story{{10, "a", health.Hidden}, {100, "a", health.Healthy}}, []string{"50 firing a: hidden, why (a hidden lost 40)", "160 resolved a: up again after 2m30s, 89 requests failed (a hidden lost 89 until 100)"}},
		"three at once":          {[]story{{10, "a", health.Hidden}, {12, "b", health.Empty}, {15, "c", health.Critical}}, []string{"50 firing 3 upstreams (b and others): empty, why (b empty lost 38, c critical lost 35, a hidden lost 40)"}},
		"another joins":          {[]story{{10, "a", health.Hidden}, {100, "b", health.Hidden}}, []string{"50 firing a: hidden, why (a hidden lost 40)", "350 firing 2 upstreams (a and others): hidden, why (a hidden lost 340, b hidden lost 250)"}},
		"it flaps":               {[]story{{10, "a", health.Hidden}, {100, "a", health.Healthy}, {150, "a", health.Hidden}}, []string{"50 firing a: hidden, why (a hidden lost 40)"}},
		"it is declared no more": {[]story{{10, "a", health.Hidden}, {100, "a", ""}}, []string{"50 firing a: hidden, why (a hidden lost 40)", "100 resolved a: up again after 1m30s, 89 requests failed (a hidden lost 89 until 100)"}},
		"one of two is back":     {[]story{{10, "a", health.Hidden}, {10, "b", health.Hidden}, {100, "a", health.Healthy}, {200, "b", health.Healthy}}, []string{"50 firing 2 upstreams (a and others): hidden, why (a hidden lost 40, b hidden lost 40)", "260 resolved 2 upstreams (a and others): up again after 4m10s, 278 requests failed (a hidden lost 89 until 100, b hidden lost 189 until 200)"}},
		"its cause is known":     {[]story{{10, "d", health.Hidden}, {100, "d", health.Healthy}}, []string{"50 firing d: hidden, why (H3 refused) (d hidden lost 40 by H3 refused by P1 off)", "160 resolved d: up again after 2m30s, 89 requests failed (H3 refused) (d hidden lost 89 by H3 refused by P1 off until 100)"}},
		"over before it is told": {[]story{{10, "a", health.Hidden}, {41, "a", ""}}, nil},
	} {
		if got := told(400, x.changes); !slices.Equal(got, x.want) {
			t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(x.want, "\n"))
		}
	}
}

// receivers take what is posted.
type receivers struct {
	mu    sync.Mutex
	fail  int // so many times
	got   []string
	began time.Time
}

func (r *receivers) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, _ := io.ReadAll(req.Body)
	rec := httptest.NewRecorder()
	if r.fail > 0 {
		r.fail--
		rec.WriteHeader(http.StatusBadGateway)
		return rec.Result(), nil
	}
	text := string(body)
	var m Message
	var as []alert
	if json.Unmarshal(body, &m) == nil {
		text = m.Status
	} else if json.Unmarshal(body, &as) == nil {
		text = ""
		for _, a := range as {
			text += fmt.Sprintf("%s ends in %s;", a.Labels["upstream"], time.Until(a.EndsAt).Round(time.Second))
		}
	}
	r.got = append(r.got, fmt.Sprintf("%s %s %s %s", time.Since(r.began).Round(time.Second), req.URL, req.Header.Get("Authorization"), text))
	return rec.Result(), nil
}

// A webhook is told once, though it fails at first; Alertmanager each minute while it
// lasts, and of the end.
func TestReceivers(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		state := health.Hidden
		r := &receivers{fail: 2, began: time.Now()}
		n := New(Config{
			Receivers: []Receiver{{"chat", Webhook, "http://chat.test/hook", token}, {"am", Alertmanager, "http://am.test/base/", ""}},
			Client:    &http.Client{Transport: r}, Lost: func(string) uint64 { return 0 },
			Health: func() []health.Upstream {
				mu.Lock()
				defer mu.Unlock()
				return []health.Upstream{{Name: "a", State: state}}
			},
		})
		ctx := t.Context()
		go n.Run(ctx)                               //nolint:errcheck // it ends with ctx
		time.Sleep(170*time.Second + time.Second/2) // between two looks
		mu.Lock()
		state = health.Healthy
		mu.Unlock()
		time.Sleep(2 * time.Minute)
		r.mu.Lock()
		defer r.mu.Unlock()
		var got []string
		for _, line := range r.got {
			at, what, _ := strings.Cut(line, " ")
			if strings.Contains(what, "chat") && strings.Contains(what, "firing") {
				at = "" // it came after a failure or two
			}
			got = append(got, at+" "+what)
		}
		slices.Sort(got)
		want := []string{
			" http://chat.test/hook Bearer secret firing", "1m0s http://am.test/base/api/v2/alerts  a ends in 4m0s;", "2m0s http://am.test/base/api/v2/alerts  a ends in 4m0s;",
			"3m0s http://am.test/base/api/v2/alerts  a ends in 4m0s;", "3m51s http://am.test/base/api/v2/alerts  a ends in -1m0s;", "3m51s http://chat.test/hook Bearer secret resolved",
		}
		var rest []string
		for _, line := range got {
			if !strings.HasPrefix(line, "4") && !strings.Contains(line, "am.test/base/api/v2/alerts  a ends in 4m0s") {
				rest = append(rest, line)
			}
		}
		for _, line := range want {
			if !slices.Contains(got, line) {
				t.Errorf("%s did not come; got\n%s", line, strings.Join(got, "\n"))
			}
		}
		if len(rest) != 3 {
			t.Errorf("other messages came:\n%s", strings.Join(rest, "\n"))
		}
	})
}
