package notify

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/wellspring-xds/wellspring/pkg/health"
)

// Form is how a receiver is written to.
type Form string

// The forms.
const (
	// Webhook is sent each Message as JSON.
	Webhook Form = "webhook"
	// Alertmanager is sent an alert for each upstream, again and again while it is down,
	// by its API v2; it groups and silences them by itself.
	Alertmanager Form = "alertmanager"
)

// Receiver is who is told.
type Receiver struct {
	Name string
	Form Form
	// URL of a webhook, or the base of an Alertmanager.
	URL string
	// TokenFile holds what is sent as a bearer token; "" sends none. It is read each
	// time.
	TokenFile string
}

// Config of a notifier. Zero durations are the defaults.
type Config struct {
	Receivers []Receiver
	Health    func() []health.Upstream
	// Lost counts the failed requests of an upstream since it is known.
	Lost func(upstream string) uint64
	// Causes are the codes and titles of what was found in an upstream, the best proved
	// first; nil finds nothing.
	Causes func(upstream string) []string
	Client *http.Client
	Logger *slog.Logger
	// After which an upstream counts as down; default 30s.
	After time.Duration
	// Clear is for how long it must be up before it counts so; default 1m.
	Clear time.Duration
}

const (
	defaultAfter = 30 * time.Second
	defaultClear = time.Minute
	gather       = 10 * time.Second // from the first that is down to the first message
	again        = 5 * time.Minute  // between two messages of one outage
	lookEvery    = time.Second
	resendEvery  = time.Minute // of Alertmanager's alerts,
	alertLasts   = 4 * time.Minute
	longestRetry = time.Minute
	maxTries     = 10
)

// Notifier tells receivers of outages.
type Notifier struct {
	cfg  Config
	sent *prometheus.CounterVec
}

// New returns a notifier.
func New(cfg Config) *Notifier {
	cfg.After, cfg.Clear = cmp.Or(cfg.After, defaultAfter), cmp.Or(cfg.Clear, defaultClear)
	if cfg.Causes == nil {
		cfg.Causes = func(string) []string { return nil }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	n := &Notifier{cfg: cfg, sent: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wellspring_notifications_total", Help: "Messages of outages, by receiver; those with the result failed were given up.",
	}, []string{"receiver", "result"})}
	for _, r := range cfg.Receivers {
		n.sent.WithLabelValues(r.Name, "sent")
		n.sent.WithLabelValues(r.Name, "failed")
	}
	return n
}

// Metrics are what is counted, to be registered.
func (n *Notifier) Metrics() prometheus.Collector { return n.sent }

// Run looks at upstreams, and tells of outages, until ctx ends.
func (n *Notifier) Run(ctx context.Context) error {
	if len(n.cfg.Receivers) == 0 {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	var to []chan *Message
	for _, r := range n.cfg.Receivers {
		c := make(chan *Message, 1)
		to = append(to, c)
		g.Go(func() error { n.serve(ctx, r, c); return nil })
	}
	g.Go(func() error {
		t := tracker{after: n.cfg.After, clear: n.cfg.Clear, wait: gather, again: again, lost: n.cfg.Lost, causes: n.cfg.Causes, turns: map[string]time.Time{}, down: map[string]*Upstream{}, base: map[string]uint64{}}
		tick, resend := time.NewTicker(lookEvery), time.NewTicker(resendEvery)
		defer tick.Stop()
		defer resend.Stop()
		for {
			var m *Message
			form := Alertmanager // it forgets an alert that is not sent again
			select {
			case <-ctx.Done():
				return nil
			case <-resend.C:
				m = t.current(time.Now())
			case <-tick.C:
				if m = t.step(time.Now(), n.cfg.Health()); m != nil {
					n.cfg.Logger.Info("outage told", "status", m.Status, "summary", m.Summary)
					form = ""
				}
			}
			for i, c := range to {
				if m != nil && (form == "" || n.cfg.Receivers[i].Form == form) {
					replace(c, m)
				}
			}
		}
	})
	return g.Wait()
}

// replace puts a message in the place of one that waits.
func replace(c chan *Message, m *Message) {
	select {
	case <-c:
	default:
	}
	c <- m
}

// serve sends what is to be told to one receiver.
func (n *Notifier) serve(ctx context.Context, r Receiver, messages <-chan *Message) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-messages:
			n.send(ctx, r, m, messages)
		}
	}
}

// send tries until the receiver takes a message, or a newer one waits.
func (n *Notifier) send(ctx context.Context, r Receiver, m *Message, newer <-chan *Message) {
	b := backoff.NewExponentialBackOff()
	b.MaxInterval = longestRetry
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		if len(newer) > 0 {
			return struct{}{}, backoff.Permanent(errors.New("a newer message takes its place"))
		}
		return struct{}{}, n.post(ctx, r, m)
	}, backoff.WithBackOff(b), backoff.WithMaxTries(maxTries))
	if err != nil {
		n.sent.WithLabelValues(r.Name, "failed").Inc()
		n.cfg.Logger.Error("outage not told", "receiver", r.Name, "err", err)
		return
	}
	n.sent.WithLabelValues(r.Name, "sent").Inc()
}

// post sends a message once.
func (n *Notifier) post(ctx context.Context, r Receiver, m *Message) error {
	url, body := r.URL, any(m)
	if r.Form == Alertmanager {
		url, body = strings.TrimSuffix(r.URL, "/")+"/api/v2/alerts", alerts(m, time.Now())
	}
	text, err := json.Marshal(body)
	if err != nil {
		return backoff.Permanent(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return backoff.Permanent(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if r.TokenFile != "" {
		token, err := os.ReadFile(r.TokenFile)
		if err != nil {
			return fmt.Errorf("read the token of %s: %w", r.Name, err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := n.cfg.Client.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s answers %s", r.Name, resp.Status)
	}
	return nil
}

// alert is one of Alertmanager's, as its API v2 takes it.
type alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
}

// alerts are those of a message: the labels of an upstream stay the same while it is
// down, so that it stays one alert.
func alerts(m *Message, now time.Time) []alert {
	out := []alert{}
	for _, u := range m.Upstreams {
		a := alert{
			Labels: map[string]string{"alertname": "WellspringUpstreamDown", "upstream": u.Name, "severity": "critical"},
			Annotations: map[string]string{
				"summary": fmt.Sprintf("%s is %s: %s", u.Name, u.State, cmp.Or(u.Why, "-")), "next": u.Next, "outage": m.ID, "cause": cmp.Or(strings.Join(u.Causes, "; "), "not found"),
				"endpoints": fmt.Sprintf("%d of %d healthy by their source", u.Healthy, u.Total),
				"proxies":   fmt.Sprintf("%d of %d report", u.Reporting, u.Proxies), "lost": fmt.Sprintf("%d requests failed", u.Lost),
			},
			StartsAt: u.Since, EndsAt: now.Add(alertLasts),
		}
		if !u.Until.IsZero() {
			a.EndsAt = u.Until
		}
		out = append(out, a)
	}
	return out
}
