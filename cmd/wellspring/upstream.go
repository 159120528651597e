package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/health"
)

// reportsLine says which proxies do not report as they should; "" where all do.
func reportsLine(r admin.ReportCounts) string {
	var odd []string
	for _, x := range []struct {
		n    int
		what string
	}{
		{r.Silent, "do not report any more"},
		{r.Never, "never did"},
		{r.Unverified, "without a credential"},
		{r.NewBootstrap, "need a new bootstrap (wellspring bootstrap)"},
		{r.Refused, "reports were another node's"},
	} {
		if x.n > 0 {
			odd = append(odd, fmt.Sprintf("%d %s", x.n, x.what))
		}
	}
	if len(odd) == 0 {
		return ""
	}
	line := fmt.Sprintf("reports: %d proxies report; %s", r.Verified, strings.Join(odd, ", "))
	if len(r.Some) > 0 {
		line += ": " + strings.Join(r.Some, " ")
	}
	return line
}

// showUpstream shows every endpoint of one upstream, by its source and the proxies.
func (g *global) showUpstream(ctx context.Context, w io.Writer, name string, matrix bool) (fine bool, err error) {
	var u admin.UpstreamHealth
	if err := g.client().Get(ctx, "/v1/upstreams/"+url.PathEscape(name)+"/health", nil, &u); err != nil {
		return false, err
	}
	people := g.output == "table" || g.output == "wide"
	say := func(format string, args ...any) {
		if line := fmt.Sprintf(format, args...); people {
			if g.output != "wide" {
				line = cut(line)
			}
			_, _ = fmt.Fprintln(w, line)
		}
	}
	say("upstream %s: %s (for %s), %d more may fail", u.Name, u.State, ago(u.Since), u.Spare)
	if u.Why != "" {
		say("  %s", u.Why)
	}
	if u.State != health.Healthy {
		say("  why: wellspring explain %s", u.Name)
	}
	t, names := endpointTable(u), []string{}
	if matrix {
		t = matrixTable(u.Matrix)
	}
	for _, e := range u.Endpoints {
		names = append(names, e.Address)
	}
	if err := g.print(w, u, t, names); err != nil {
		return false, err
	}
	for _, r := range u.Matrix {
		for _, c := range r.Conflicts {
			say("%s", c)
		}
	}
	for _, p := range u.Proxies {
		if !p.Asked {
			say("proxy %s was not asked: %s", p.Proxy, p.Why)
		}
	}
	for _, p := range u.Problems {
		say("problem: %s", p.String())
	}
	return u.State == health.Healthy, nil
}

// endpointTable is each endpoint with how many proxies would use it, and why not.
func endpointTable(u admin.UpstreamHealth) *table {
	t := &table{head: []string{"ENDPOINT", "SOURCE", "PROXIES", "REASON"}}
	counts := map[string]string{}
	for _, r := range u.Matrix {
		use, of := 0, 0
		for _, z := range r.Zones {
			use, of = use+z.Healthy, of+z.Healthy+z.Unhealthy+z.Missing
		}
		if of > 0 {
			counts[r.Address] = fmt.Sprintf("%d/%d", use, of)
		}
	}
	for _, e := range u.Endpoints {
		why := e.Reason
		for _, v := range e.Proxies {
			if !v.Usable && len(v.Flags) > 0 {
				why = strings.TrimPrefix(why+"; ", "; ") + v.Proxy + ": " + strings.Join(v.Flags, " ")
			}
		}
		t.add(e.Address, string(e.Health), orDash(counts[e.Address]), orDash(why))
	}
	return t
}

// matrixTable is each endpoint by its source and by the proxies of each zone.
func matrixTable(rows []health.Row) *table {
	t := &table{head: []string{"ENDPOINT", "SOURCE"}}
	if len(rows) == 0 {
		return t
	}
	for _, z := range rows[0].Zones {
		name := "PROXIES"
		if z.Zone != "" {
			name = "ZONE " + z.Zone
		}
		t.head = append(t.head, name)
	}
	for _, r := range rows {
		cells := []string{r.Address, string(r.Source)}
		for _, z := range r.Zones {
			cell := fmt.Sprintf("%d/%d", z.Healthy, z.Healthy+z.Unhealthy+z.Missing)
			if z.Unreachable > 0 {
				cell += fmt.Sprintf(" (%d cannot connect)", z.Unreachable)
			}
			cells = append(cells, cell)
		}
		t.add(cells...)
	}
	return t
}

// trend is what the API says of one.
type trend struct {
	Minutes []fleet.Span `json:"minutes"`
	Hours   []fleet.Span `json:"hours"`
}

// failures is what the API says of those of an upstream.
type failures struct {
	Counted []fleet.Failure `json:"counted"`
	Told    []fleet.Reason  `json:"told"`
}

// showTrend shows the last hour of an upstream, minute by minute, and what failed.
func (g *global) showTrend(ctx context.Context, w io.Writer, name string) (fine bool, err error) {
	var tr trend
	var fs failures
	path := "/v1/upstreams/" + url.PathEscape(name)
	if err := g.client().Get(ctx, path+"/trend", nil, &tr); err != nil {
		return false, err
	}
	if err := g.client().Get(ctx, path+"/failures", nil, &fs); err != nil {
		return false, err
	}
	var o admin.Overview
	if err := g.client().Get(ctx, "/v1/health", nil, &o); err != nil {
		return false, err
	}
	t := &table{head: []string{"MINUTE", "REQUESTS", "FAILED", "NOBODY", "ERRORS", "RETRIES", "P50", "P99"}}
	var sum fleet.Span
	for _, m := range tr.Minutes {
		t.add(m.From.Local().Format("15:04"), fmt.Sprint(m.Requests), fmt.Sprint(m.Failed), fmt.Sprint(m.NoneHealthy), fmt.Sprint(m.Errors), fmt.Sprint(m.Retries), took(m.P50), took(m.P99))
		sum.Requests, sum.Failed = sum.Requests+m.Requests, sum.Failed+m.Failed
	}
	if g.output != "table" && g.output != "wide" {
		return sum.Failed == 0, g.print(w, struct {
			trend
			Failures failures `json:"failures"`
		}{tr, fs}, t, nil)
	}
	say := func(line string) {
		if g.output != "wide" {
			line = cut(line)
		}
		_, _ = fmt.Fprintln(w, line)
	}
	say(fmt.Sprintf("upstream %s, last hour: %d requests, %d failed", name, sum.Requests, sum.Failed))
	for _, u := range o.Upstreams {
		if u.Name == name && u.Seen != nil && u.Seen.Reporting < u.Seen.Proxies {
			say(fmt.Sprintf("%d of %d proxies that reach it report: what others do is not counted (wellspring proxies)", u.Seen.Reporting, u.Seen.Proxies))
		}
	}
	if err := g.print(w, tr, t, nil); err != nil {
		return false, err
	}
	for _, f := range fs.Counted {
		say(fmt.Sprintf("failed: %d %s on %s, the last %s ago", f.Count, f.Flag, orDash(f.Route), ago(f.Last)))
	}
	for _, r := range fs.Told {
		what, last := "requests", r.Samples[len(r.Samples)-1]
		if r.Attempt {
			what = "attempts"
		}
		say(fmt.Sprintf("told: %d %s %s %s, as %s by %s", r.Count, what, r.Flag, cmp.Or(last.Failure, r.Detail, "-"), cmp.Or(strings.TrimSpace(last.Method+" "+last.Path), "a connection"), last.Proxy))
	}
	return sum.Failed == 0, nil
}

// took prints a latency with three digits.
func took(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}
