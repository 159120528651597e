package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/examples/backend"
	"github.com/wellspring-xds/wellspring/examples/traffic"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/admin/client"
	"github.com/wellspring-xds/wellspring/pkg/diagnose"
)

// act is one scene: what is done, and what must be seen of it.
type act struct {
	title string
	do    func() error
	// seen is nil once traffic, access log and API show what the act is about.
	seen func(since time.Time) error
	show []string
	// why is the code that explain must name first, where something is wrong.
	why diagnose.Code
}

// patience is how long an act may take to be seen.
const patience = 12 * time.Second

// play runs the acts and returns what was not seen.
func (s *stage) play() (failed []error) {
	skip, _ := strconv.Atoi(os.Getenv("SABOTAGE"))
	for i, a := range s.acts() {
		fmt.Printf("\n== Act %d. %s\n", i+1, a.title)
		start := time.Now()
		if i+1 != skip {
			if err := a.do(); err != nil {
				return append(failed, fmt.Errorf("act %d: %w", i+1, err))
			}
		}
		err := s.await(start, a.seen)
		if s.ctx.Err() != nil {
			return append(failed, s.ctx.Err())
		}
		if err != nil {
			fmt.Printf("   NOT SEEN: %v\n", err)
			failed = append(failed, fmt.Errorf("act %d: %w", i+1, err))
			continue
		}
		fmt.Printf("   seen after %s\n", time.Since(start).Round(100*time.Millisecond))
		if a.show != nil {
			s.show(a.show...)
		}
		if a.why != "" {
			if err := s.await(time.Now(), func(time.Time) error { return s.explained(a.why) }); err != nil {
				fmt.Printf("   NOT EXPLAINED: %v\n", err)
				failed = append(failed, fmt.Errorf("act %d: %w", i+1, err))
			}
			s.show("explain", "catalog")
		}
		select {
		case <-s.ctx.Done():
		case <-time.After(s.pace):
		}
	}
	return failed
}

func (s *stage) await(start time.Time, seen func(time.Time) error) error {
	for {
		err := seen(start)
		if err == nil || time.Since(start) > patience || s.ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *stage) acts() []act {
	return []act{
		{
			title: "All is well: blue and green share the traffic.",
			do:    func() error { return nil },
			seen:  func(time.Time) error { return s.window(time.Second, s.only("blue", "green")) },
			show:  []string{"health"},
		},
		{
			title: "Blue fails its health check: Envoy takes it out of rotation.",
			do:    func() error { s.backends["blue"].SetHealth(503); return nil },
			seen: func(time.Time) error {
				if err := s.proxySees("catalog", s.addrs["blue"], false); err != nil {
					return err
				}
				return s.window(time.Second, s.only("green"))
			},
			show: []string{"health", "catalog"},
			why:  diagnose.H1,
		},
		{
			title: "Blue recovers; a canary takes a fifth of the traffic, by apply.",
			do: func() error {
				s.backends["blue"].SetHealth(0)
				_, err := s.apply("canary to 20 %", s.documents(80, 20))
				return err
			},
			seen: func(time.Time) error { return s.window(2*time.Second, s.only("blue", "green", "canary")) },
			show: []string{"history"},
		},
		{
			title: "Every backend is killed: panic hides it for whoever still answers; 503 with UF.",
			do: func() error {
				s.died = time.Now()
				for _, b := range s.backends {
					b.Kill()
				}
				return nil
			},
			seen: func(start time.Time) error {
				if err := s.proxySees("catalog", s.addrs["green"], false); err != nil {
					return err
				}
				if err := s.flagged(start, "UF"); err != nil {
					return err
				}
				return s.says("hidden")
			},
			show: []string{"health", "catalog", "--matrix"},
			why:  diagnose.H3,
		},
		{
			title: "Every instance is taken out: nobody is left, 503 no healthy upstream (UH).",
			do: func() error {
				if err := s.registry.set("catalog"); err != nil {
					return err
				}
				return s.registry.set("catalog-next")
			},
			seen: func(start time.Time) error {
				if err := s.flagged(start, "UH"); err != nil {
					return err
				}
				return s.says("empty")
			},
			show: []string{"health"},
			why:  diagnose.A6,
		},
		{
			title: "Recovery: the backends run again and are registered again.",
			do: func() error {
				for name, addr := range s.addrs {
					b, err := backend.Start(name, addr)
					if err != nil {
						return err
					}
					s.backends[name] = b
				}
				if err := s.registry.set("catalog-next", "canary"); err != nil {
					return err
				}
				return s.registry.set("catalog", "blue", "green")
			},
			seen: func(time.Time) error {
				s.back = time.Now()
				return s.window(2*time.Second, s.only("blue", "green", "canary"))
			},
			show: []string{"health"},
		},
		{
			title: "The canary is taken back: restore the first documents.",
			do: func() error {
				s.show("restore", strconv.FormatUint(s.first, 10), "-m", "canary taken back")
				return nil
			},
			seen: func(time.Time) error { return s.window(time.Second, s.only("blue", "green")) },
			show: []string{"history"},
		},
	}
}

// window wants the requests of the last d to satisfy a check.
func (s *stage) window(d time.Duration, ok func(traffic.Summary) error) error {
	return ok(traffic.Sum(s.load.Since(time.Now().Add(-d))))
}

// only wants every request answered with 200, by each of the named backends and
// no other.
func (s *stage) only(names ...string) func(traffic.Summary) error {
	return func(sum traffic.Summary) error {
		if sum.Failed() > 0 || sum.Total < 20 {
			return fmt.Errorf("%d of %d requests failed: %v", sum.Failed(), sum.Total, sum.Failures)
		}
		for _, n := range names {
			if sum.Backends[n] == 0 {
				return fmt.Errorf("%s has no traffic: %v", n, sum.Backends)
			}
		}
		if len(sum.Backends) != len(names) {
			return fmt.Errorf("traffic goes to %v, wanted only %v", sum.Backends, names)
		}
		return nil
	}
}

// proxySees wants Envoy to call an endpoint usable or not, as `health` joins it.
func (s *stage) proxySees(upstream, addr string, usable bool) error {
	u, err := s.upstream(upstream)
	if err != nil {
		return err
	}
	for _, e := range u.Endpoints {
		for _, p := range e.Proxies {
			if e.Address == addr && p.Usable == usable {
				return nil
			}
		}
	}
	return fmt.Errorf("health does not say that Envoy finds %s usable=%v", addr, usable)
}

// says wants every upstream in a state.
func (s *stage) says(state string) error {
	for _, name := range []string{"catalog", "catalog-next"} {
		u, err := s.upstream(name)
		if err != nil {
			return err
		}
		if string(u.State) != state {
			return fmt.Errorf("upstream %s is %s, wanted %s", name, u.State, state)
		}
		if u.Why == "" {
			return fmt.Errorf("upstream %s is %s and health does not say why", name, state)
		}
	}
	return nil
}

// flagged wants a failed request with a response flag in Envoy's access log since
// a moment, and every request of the last half second to have failed.
func (s *stage) flagged(since time.Time, flag string) error {
	sum := traffic.Sum(s.load.Since(time.Now().Add(-500 * time.Millisecond)))
	if sum.OK > 0 || sum.Total == 0 {
		return fmt.Errorf("%d of %d requests are still answered", sum.OK, sum.Total)
	}
	text, err := os.ReadFile(s.log)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for i := len(lines) - 1; i >= 0 && i > len(lines)-25; i-- {
		var entry struct {
			Time   time.Time `json:"time"`
			Status int       `json:"status"`
			Flags  string    `json:"flags"`
			Detail string    `json:"details"`
			Path   string    `json:"path"`
		}
		if json.Unmarshal([]byte(lines[i]), &entry) != nil || entry.Time.Before(since) {
			continue
		}
		if entry.Status == 503 && strings.Contains(","+entry.Flags+",", ","+flag+",") {
			fmt.Printf("   access log: GET %s → %d, flags %s\n               %.64s\n", entry.Path, entry.Status, entry.Flags, entry.Detail)
			return nil
		}
	}
	return fmt.Errorf("no 503 with flag %s in the access log yet", flag)
}

// explained wants a cause to be the first that explain names, and to be proved.
func (s *stage) explained(code diagnose.Code) error {
	var e diagnose.Explanation
	if err := client.New(client.Config{Server: s.admin}).Get(s.ctx, "/v1/explain", url.Values{"upstream": {"catalog"}}, &e); err != nil {
		return err
	}
	if len(e.Findings) == 0 || e.Findings[0].Code != code || e.Findings[0].Strength != diagnose.Certain {
		return fmt.Errorf("explain names %+v, wanted %s first, and certain", e.Findings, code)
	}
	return nil
}

func (s *stage) upstream(name string) (u admin.UpstreamHealth, err error) {
	return u, client.New(client.Config{Server: s.admin}).Get(s.ctx, "/v1/upstreams/"+name+"/health", nil, &u)
}
