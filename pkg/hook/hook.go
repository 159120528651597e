// Package hook does what an operator configured when a cause is found: it runs a command,
// or posts to a URL.
//
//	finding that began ─► which hooks are for its code ─► limits ─► command or POST ─► event
//
// Nothing is done unless it is configured: a remedy that is wrong makes an outage worse.
// Each hook runs once for a finding, not again for the same subject within Every, not more
// than PerHour times in an hour for all, and one at a time. What these limits hold back is
// an event, like what was done, and runs later if it goes on by then. A command is started
// without a shell, with the finding as JSON on its stdin; when it ends, or its time is
// over, all of its process group is killed. What makes a session of its own escapes that.
package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/findings"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Hook is what is done, for which causes.
type Hook struct {
	Name string
	// Codes that it is for; none is all.
	Codes []diagnose.Code
	// Critical leaves warnings out.
	Critical bool
	// Command and its arguments, or URL, which is sent a POST.
	Command []string
	URL     string
	// TokenFile holds what is sent as a bearer token; "" sends none. It is read each time.
	TokenFile string
	// Every is the least time between two runs for one subject; PerHour how often it may
	// run for all.
	Every   time.Duration
	PerHour int
	Timeout time.Duration
}

// wants tells whether it is for a finding.
func (h Hook) wants(f findings.TimedFinding) bool {
	return (len(h.Codes) == 0 || slices.Contains(h.Codes, f.Code)) && (!h.Critical || f.Severity == findings.Critical)
}

// Config of a runner. All is required but Logger.
type Config struct {
	Hooks []Hook
	// Client has no time-out of its own.
	Client *http.Client
	// Open tells whether a finding goes on.
	Open func(of model.Subject, code diagnose.Code) bool
	// Emit takes what was done; it does not block.
	Emit   func(model.Event)
	Logger *slog.Logger
}

// Runner runs hooks.
type Runner struct {
	cfg    Config
	queues []chan findings.TimedFinding
}

// waiting findings of one hook; what comes beyond is held back, and said.
const waiting = 100

// New returns a runner.
func New(cfg Config) *Runner {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Runner{cfg: cfg}
	for range cfg.Hooks {
		r.queues = append(r.queues, make(chan findings.TimedFinding, waiting))
	}
	return r
}

// Begun takes a finding that began. It does not block.
func (r *Runner) Begun(f findings.TimedFinding) {
	for i, h := range r.cfg.Hooks {
		if !h.wants(f) {
			continue
		}
		select {
		case r.queues[i] <- f:
		default:
			r.tell(h, f, held, fmt.Sprintf("%d findings wait for it already", waiting))
		}
	}
}

// Run runs hooks until ctx ends.
func (r *Runner) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, h := range r.cfg.Hooks {
		g.Go(func() error { r.serve(ctx, h, r.queues[i]); return nil })
	}
	return g.Wait()
}

// What came of a run.
const (
	done   = "done"
	failed = "failed"
	held   = "held"
)

// serve runs one hook, one finding after the other.
func (r *Runner) serve(ctx context.Context, h Hook, queue <-chan findings.TimedFinding) {
	l := limits{Hook: h, last: map[model.Subject]time.Time{}, later: map[key]findings.TimedFinding{}}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-queue:
			r.try(ctx, &l, f)
		case <-tick.C:
			for k, f := range l.later { // what was held back, and goes on
				switch why := l.why(f.Subject, time.Now()); {
				case !r.cfg.Open(f.Subject, f.Code):
					delete(l.later, k)
				case why == "":
					delete(l.later, k)
					r.try(ctx, &l, f)
				}
			}
		}
	}
}

// lookEvery is how often is looked whether what was held back may run.
const lookEvery = 5 * time.Second

type key struct {
	of   model.Subject
	code diagnose.Code
}

// limits are when a hook ran, and what waits for that.
type limits struct {
	Hook
	last  map[model.Subject]time.Time
	runs  []time.Time // of the last hour
	later map[key]findings.TimedFinding
}

// why says why it may not run now; "" where it may.
func (l *limits) why(of model.Subject, now time.Time) string {
	l.runs = slices.DeleteFunc(l.runs, func(t time.Time) bool { return now.Sub(t) >= time.Hour })
	maps.DeleteFunc(l.last, func(_ model.Subject, t time.Time) bool { return now.Sub(t) >= l.Every })
	if at, again := l.last[of]; again {
		return fmt.Sprintf("it ran %s ago, and runs each %s; then, if it goes on", now.Sub(at).Round(time.Second), l.Every)
	}
	if len(l.runs) >= l.PerHour {
		return fmt.Sprintf("it ran %d times in this hour; later, if it goes on", l.PerHour)
	}
	return ""
}

// try runs a hook, or holds it back.
func (r *Runner) try(ctx context.Context, l *limits, f findings.TimedFinding) {
	now := time.Now()
	if why := l.why(f.Subject, now); why != "" {
		l.later[key{f.Subject, f.Code}] = f
		r.tell(l.Hook, f, held, why)
		return
	}
	l.last[f.Subject] = now
	l.runs = append(l.runs, now)
	says, err := r.run(ctx, l.Hook, f)
	switch {
	case ctx.Err() != nil:
		r.tell(l.Hook, f, failed, "this server stops")
	case err != nil:
		r.tell(l.Hook, f, failed, err.Error())
	default:
		r.tell(l.Hook, f, done, fmt.Sprintf("%s in %s", says, time.Since(now).Round(time.Millisecond)))
	}
}

// tell says what came of a hook.
func (r *Runner) tell(h Hook, f findings.TimedFinding, what, why string) {
	r.cfg.Emit(model.Event{
		Kind: model.EventHookRun, Subject: f.Subject, From: string(f.Code), To: what, Reason: why, Actor: "hook " + h.Name,
	})
	r.cfg.Logger.Info("hook", "hook", h.Name, "code", f.Code, "of", f.Subject.Name, "result", what, "says", why)
}

// run does it once, and says what came of it.
func (r *Runner) run(ctx context.Context, h Hook, f findings.TimedFinding) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	text, err := json.Marshal(f)
	if err != nil {
		return "", err
	}
	if h.URL != "" {
		return r.post(ctx, h, text)
	}
	return command(ctx, h, f, text)
}

const mostOutput = 300 // bytes of what a command says that are kept

// command runs it. What it says is kept in short, where it fails.
func command(ctx context.Context, h Hook, f findings.TimedFinding, text []byte) (string, error) {
	cmd := exec.CommandContext(ctx, h.Command[0], h.Command[1:]...) //nolint:gosec // the operator's own configuration
	cmd.Stdin = bytes.NewReader(text)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "WELLSPRING_CODE=" + string(f.Code), "WELLSPRING_KIND=" + f.Subject.Kind,
		"WELLSPRING_NAME=" + f.Subject.Name, "WELLSPRING_SEVERITY=" + string(f.Severity),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left behind
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "", fmt.Errorf("it did not end within %s, and was ended", h.Timeout)
	case errors.Is(err, exec.ErrWaitDelay): // it ended well, and something that it started went on
		return "exit 0, and what it left behind was ended,", nil
	case err != nil:
		return "", fmt.Errorf("%w%s", err, out)
	}
	return "exit 0", nil
}

// tail keeps the end of what is written.
type tail struct{ text []byte }

func (t *tail) Write(b []byte) (int, error) {
	t.text = append(t.text, b...)
	t.text = bytes.Clone(t.text[max(0, len(t.text)-mostOutput):])
	return len(b), nil
}

func (t *tail) String() string {
	if s := strings.Join(strings.Fields(strings.ToValidUTF8(string(t.text), "")), " "); s != "" {
		return ": " + s
	}
	return ""
}

func (r *Runner) post(ctx context.Context, h Hook, text []byte) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(text))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	if h.TokenFile != "" {
		token, err := os.ReadFile(h.TokenFile)
		if err != nil {
			return "", fmt.Errorf("read its token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := r.cfg.Client.Do(req)
	var at *url.Error
	if errors.As(err, &at) {
		err = at.Err // its address may be a secret
	}
	if err != nil {
		return "", err
	}
	_ = resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return "", fmt.Errorf("it answers %s", resp.Status)
	}
	return "answer " + resp.Status, nil
}
