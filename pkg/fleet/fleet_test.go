package fleet_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// world is a fleet on a clock of its own.
type world struct {
	*fleet.Fleet
	now     time.Time
	events  []string
	streams map[string]uint64 // the newest of each proxy
}

func newWorld(cfg fleet.Config) *world {
	w := &world{now: time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC)}
	cfg.Now = func() time.Time { return w.now }
	cfg.Emit = func(e model.Event) { w.events = append(w.events, e.Kind+" "+e.Subject.Name) }
	w.Fleet = fleet.New(cfg)
	return w
}

func (w *world) join(id string, level model.Telemetry) {
	if w.streams == nil {
		w.streams = map[string]uint64{}
	}
	w.streams[id]++
	w.Joined(w.streams[id], model.Proxy{ID: id, Group: "edge", ReportKey: "key of " + id, Locality: model.Locality{Zone: "a"}}, level)
}

// leave ends the newest stream of a proxy.
func (w *world) leave(id string) {
	w.Left(w.streams[id], id)
	w.streams[id] = max(1, w.streams[id]) - 1
}

// report sends one, in lines: "uptime 5", "catalog requests 7", "catalog 10.0.0.1:80
// up", "catalog shop[0] UH 3".
func (w *world) report(id string, lines ...string) {
	metrics := map[string]fleet.Metric{
		"members": fleet.Members, "healthy": fleet.Healthy, "requests": fleet.Requests, "none": fleet.NoneHealthy, "panicked": fleet.Panicked,
		"overflow": fleet.PendingOverflow, "atOnce": fleet.ActiveOverflow, "up": fleet.EndpointHealthy, "down": fleet.EndpointHealthy, "failed": fleet.EndpointConnectFailed,
	}
	var up uint64
	for _, line := range lines {
		if text, ok := strings.CutPrefix(line, "uptime "); ok {
			_, _ = fmt.Sscan(text, &up)
		}
	}
	r := w.Open(id, time.Duration(up)*time.Second)
	if r == nil {
		return
	}
	defer r.Close()
	for _, line := range lines {
		f := strings.Fields(line)
		var n uint64
		_, _ = fmt.Sscan(f[len(f)-1], &n)
		switch {
		case f[0] == "uptime":
			r.Add(fleet.Point{Metric: fleet.Uptime, Value: n})
		case len(f) == 4 && f[2] == "failed":
			r.Add(fleet.Point{Metric: fleet.EndpointConnectFailed, Upstream: []byte(f[0]), Endpoint: []byte(f[1]), Value: n})
		case len(f) == 4:
			r.Add(fleet.Point{Metric: fleet.FailedRequests, Upstream: []byte(f[0]), Route: []byte(f[1]), Flag: []byte(f[2]), Value: n})
		case strings.Contains(f[1], ":"):
			p := fleet.Point{Metric: metrics[f[2]], Upstream: []byte(f[0]), Endpoint: []byte(f[1])}
			if f[2] == "up" {
				p.Value = 1
			}
			r.Add(p)
		default:
			r.Add(fleet.Point{Metric: metrics[f[1]], Upstream: []byte(f[0]), Value: n})
		}
	}
}

// counted is what the fleet counted in the last hour: requests, failed, none.
func (w *world) counted(upstream string) string {
	minutes, _ := w.Trend(upstream)
	var sum fleet.Span
	for _, m := range minutes {
		sum.Requests, sum.Failed, sum.NoneHealthy = sum.Requests+m.Requests, sum.Failed+m.Failed, sum.NoneHealthy+m.NoneHealthy
	}
	return fmt.Sprintf("%d %d %d", sum.Requests, sum.Failed, sum.NoneHealthy)
}

// Totals become counts: from the first report of a proxy that began while we listened,
// from the second of an older one; over a gap; over a restart; of what was never
// named before.
func TestCounts(t *testing.T) {
	w := newWorld(fleet.Config{})
	w.now = w.now.Add(time.Minute)
	w.join("old", model.TelemetryUpstreams)
	w.join("young", model.TelemetryUpstreams)
	wants := func(want string) {
		t.Helper()
		if got := w.counted("catalog"); got != want {
			t.Errorf("counted %s, want %s", got, want)
		}
	}
	w.report("old", "catalog members 2", "catalog requests 1000", "catalog shop[0] UH 10", "catalog none 10", "uptime 3600")
	wants("0 0 0")
	w.report("young", "catalog members 2", "catalog requests 5", "catalog shop[0] UH 1", "catalog none 1", "uptime 30")
	wants("5 1 1")
	w.now = w.now.Add(5 * time.Second)
	w.report("old", "catalog members 2", "catalog requests 1007", "catalog shop[0] UH 10", "catalog none 10", "uptime 3605")
	wants("12 1 1")
	w.now = w.now.Add(10 * time.Minute) // nothing was heard
	w.report("old", "catalog members 2", "catalog requests 1107", "catalog shop[0] UH 30", "catalog none 30", "uptime 4205")
	wants("112 21 21")
	w.now = w.now.Add(5 * time.Second)
	w.report("old", "catalog members 2", "catalog requests 3", "catalog shop[0] UH 1", "catalog none 1", "uptime 2") // it began anew
	wants("115 22 22")
	w.now = w.now.Add(5 * time.Second)
	w.report("old", "catalog members 2", "catalog requests 3", "catalog shop[0] UH 1", "catalog shop[1] UF 4", "catalog none 1", "uptime 7")
	wants("115 26 22")
	if all := w.All("catalog"); all.Requests != 115 || all.Failed != 26 || all.NoneHealthy != 22 || w.All("nobody").Requests != 0 {
		t.Errorf("in all %+v", all)
	}
	w.now = w.now.Add(5 * time.Second)
	w.report("old", "catalog members 2", "catalog requests 2", "catalog shop[0] UH 1") // anew, though nothing says for how long it is up
	if all := w.All("catalog"); all.Requests != 117 {
		t.Errorf("in all %+v", all)
	}
	failed, _ := w.Failures("catalog")
	if got := fmt.Sprintf("%d %s %s, %d %s %s", failed[0].Count, failed[0].Route, failed[0].Flag, failed[1].Count, failed[1].Route, failed[1].Flag); got != "22 shop[0] UH, 4 shop[1] UF" {
		t.Error(got)
	}
}

// What a report does not name is gone; what moved in the last minute is of now.
// What failed lately, and since when without a pause, beside what failed ever.
func TestLately(t *testing.T) {
	w := newWorld(fleet.Config{})
	w.now = w.now.Truncate(time.Minute).Add(time.Minute)
	w.join("a", model.TelemetryUpstreams)
	total, up := 0, 0
	step := func(after time.Duration, n int, want string) {
		t.Helper()
		w.now, total, up = w.now.Add(after), total+n, up+int(after.Seconds())
		w.report("a", "catalog members 2", fmt.Sprintf("catalog requests %d", total), fmt.Sprintf("catalog shop[0] UT %d", total), fmt.Sprintf("uptime %d", up+10))
		all, _ := w.Failures("catalog")
		got := fmt.Sprintf("%d of %d, begun %s ago", all[0].Lately, all[0].Count, w.now.Sub(all[0].Begun))
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	step(0, 5, "5 of 5, begun 0s ago")
	step(30*time.Second, 5, "10 of 10, begun 30s ago")
	step(40*time.Second, 5, "15 of 15, begun 1m10s ago") // the next minute
	step(50*time.Second, 5, "10 of 20, begun 2m0s ago")  // and the next: the first is over
	step(60*time.Second, 0, "5 of 20, begun 3m0s ago")   // none came
	step(10*time.Minute, 0, "0 of 20, begun 13m0s ago")  // nor since
	w.report("a", "catalog members 2", "catalog requests 20", "catalog shop[0] UT 20", fmt.Sprintf("uptime %d", up+10))
	step(10*time.Second, 3, "3 of 23, begun 0s ago") // a run of its own
}

func TestViews(t *testing.T) {
	w := newWorld(fleet.Config{})
	w.join("e", model.TelemetryEndpoints)
	shown := func(upstream string) (out string) {
		for _, v := range w.Views(upstream, true) {
			out += fmt.Sprintf("%d/%d %t %t %t", v.Healthy, v.Members, v.Panicked, v.NoneHealthy, v.Overflowed)
			if v.Unserved {
				out += " unserved"
			}
			for _, e := range v.Endpoints {
				out += fmt.Sprintf(" %s %t %t", e.Address, e.Healthy, !e.Unreachable.IsZero())
			}
		}
		return out
	}
	wants := func(upstream, want string) {
		t.Helper()
		if got := shown(upstream); got != want {
			t.Errorf("%s is seen as %q, want %q", upstream, got, want)
		}
	}
	changed := func(want ...string) {
		t.Helper()
		var got []string
		for name := range w.Changed() {
			got = append(got, name)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("changed %v, want %v", got, want)
		}
	}
	next := func(lines ...string) {
		w.now = w.now.Add(5 * time.Second)
		w.report("e", lines...)
	}
	next("a members 2", "a healthy 1", "a 10.0.0.2:80 up", "a 10.0.0.1:80 down", "b members 1", "a 10.0.0.1:80 failed 3")
	wants("a", "1/2 false false false 10.0.0.1:80 false false 10.0.0.2:80 true false")
	changed("a", "b")
	next("a members 2", "a healthy 1", "a 10.0.0.2:80 up", "a 10.0.0.1:80 down", "b members 1", "a 10.0.0.1:80 failed 3")
	changed()
	next("a members 1", "a healthy 1", "a 10.0.0.2:80 up", "a panicked 1", "a none 2", "a overflow 1", "a 10.0.0.2:80 failed 1")
	wants("a", "1/1 true true true 10.0.0.2:80 true true")
	wants("b", "")
	changed("a", "b")
	for range 2 {
		next("a members 1", "a healthy 1", "a 10.0.0.2:80 up", "a panicked 1", "a none 2", "a overflow 1", "a 10.0.0.2:80 failed 1")
	}
	wants("a", "1/1 true true true 10.0.0.2:80 true true")
	for range 9 {
		next("a members 1", "a healthy 1", "a 10.0.0.2:80 up", "a panicked 1", "a none 2", "a overflow 1", "a 10.0.0.2:80 failed 1")
	}
	wants("a", "1/1 true false true 10.0.0.2:80 true true")
	next("a members 1", "a healthy 1", "a 10.0.0.2:80 up", "a 10.0.0.2:80 up", "a panicked 1", "a none 2", "a overflow 1")
	wants("a", "1/1 false false false 10.0.0.2:80 true true") // a minute is over
	next("a members 2", "a healthy 1", "a 10.0.0.2:80 up", "a 10.0.0.2:80 down")
	wants("a", "1/2 false false false 10.0.0.2:80 false true") // two of one address: the worse counts
	changed("a")
	next("a members 2", "a healthy 1", "a 10.0.0.2:80 down", "a 10.0.0.2:80 up")
	wants("a", "1/2 false false false 10.0.0.2:80 false true")
	changed()
	for range 2 {
		next("a members 2", "a healthy 1", "a 10.0.0.2:80 down", "a 10.0.0.2:80 up", "a atOnce 1")
	}
	wants("a", "1/2 false false true 10.0.0.2:80 false true")
}

// Requests that meet nobody count as going on when two reports in a row say so, and as
// over with the first that does not.
func TestUnserved(t *testing.T) {
	w := newWorld(fleet.Config{})
	w.join("e", model.TelemetryUpstreams)
	var got []bool
	for _, total := range []int{0, 1, 1, 2, 3, 3} {
		w.now = w.now.Add(5 * time.Second)
		w.report("e", "a members 1", fmt.Sprintf("a none %d", total))
		got = append(got, w.Views("a", false)[0].Unserved)
		if last := len(got) - 1; last > 0 && (got[last] != got[last-1]) != w.Changed()["a"] && total == 3 {
			t.Error("a change was not told")
		}
		w.Changed()
	}
	if want := []bool{false, false, false, false, true, false}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Of what is TCP connections count as requests.
func TestConnections(t *testing.T) {
	w := newWorld(fleet.Config{})
	w.join("e", model.TelemetryUpstreams)
	for total := range uint64(3) {
		r := w.Open("e", time.Second)
		r.Add(fleet.Point{Metric: fleet.Members, Upstream: []byte("a"), Value: 1})
		r.Add(fleet.Point{Metric: fleet.Connections, Upstream: []byte("a"), Value: 5 * total})
		r.Close()
	}
	if got := w.counted("a"); got != "10 0 0" {
		t.Error(got)
	}
}

// Above what its group asks for, a proxy may say what it likes.
func TestLevels(t *testing.T) {
	for level, want := range map[model.Telemetry]string{
		model.TelemetryOff: "0 0 0 views 0", model.TelemetryFailures: "0 2 0 views 0", model.TelemetryUpstreams: "1 2 0 views 1 endpoints 0",
		model.TelemetryEndpoints: "1 2 0 views 1 endpoints 1",
	} {
		w := newWorld(fleet.Config{})
		w.join("e", level)
		w.report("e", "uptime 1", "a members 1", "a requests 1", "a 10.0.0.1:80 up", "a r UH 2")
		got := fmt.Sprintf("%s views %d", w.counted("a"), len(w.Views("a", true)))
		for _, v := range w.Views("a", true) {
			got += fmt.Sprintf(" endpoints %d", len(v.Endpoints))
		}
		if got != want {
			t.Errorf("%s: %s, want %s", level, got, want)
		}
	}
}

// A view is as old as its report: after three intervals it is no evidence, which is
// told once; the next report ends the gap.
func TestSilence(t *testing.T) {
	w := newWorld(fleet.Config{})
	w.join("e", model.TelemetryUpstreams)
	state := func() string {
		p := w.Proxies()[0]
		gap := ""
		if g := p.Reports.Gap; g != nil {
			gap = " gap"
			if !g.To.IsZero() {
				gap += " of " + g.To.Sub(g.From).String()
			}
		}
		return fmt.Sprintf("%s%s, %d views", p.Reports.State, gap, len(w.Views("a", false)))
	}
	wants := func(want string) {
		t.Helper()
		if got := state(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	w.Look()
	wants("due, 0 views")
	w.now = w.now.Add(40 * time.Second)
	wants("never, 0 views")
	for range 3 {
		w.report("e", "a members 1")
		w.now = w.now.Add(10 * time.Second)
	}
	w.Look()
	wants("verified, 1 views")
	w.now = w.now.Add(20 * time.Second)
	w.Look()
	wants("verified, 1 views")
	w.now = w.now.Add(time.Second)
	w.Changed()
	w.Look()
	w.Look()
	wants("silent gap, 0 views")
	ask := func() {
		r := w.OpenAsked("e")
		r.Add(fleet.Point{Metric: fleet.Members, Upstream: []byte("a"), Value: 1})
		r.Close()
	}
	ask()
	wants("asked gap, 1 views") // what it counts is not known
	if !w.Changed()["a"] || !slices.Equal(w.events, []string{"proxy.silent e"}) {
		t.Errorf("told %v", w.events)
	}
	w.report("e", "a members 1")
	wants("verified gap of 31s, 1 views")
	w.leave("e")
	wants("verified gap of 31s, 0 views")
	w.now = w.now.Add(time.Hour)
	w.Look()
	wants("silent gap of 31s, 0 views")
	w.now = w.now.Add(time.Second)
	w.Look()
	if n := len(w.Proxies()); n != 0 {
		t.Errorf("%d proxies are kept", n)
	}
}

// A proxy with two streams is gone when both are.
func TestStreams(t *testing.T) {
	w := newWorld(fleet.Config{})
	w.join("e", model.TelemetryUpstreams)
	w.join("e", model.TelemetryUpstreams)
	w.leave("e")
	if !w.Proxies()[0].Gone.IsZero() || w.Connected()["edge"] != 1 {
		t.Error("gone with a stream left")
	}
	w.Moved("e", "other", model.TelemetryOff)
	if w.Connected()["other"] != 1 || w.Proxies()[0].Reports.State != fleet.ReportsOff {
		t.Errorf("moved: %v", w.Connected())
	}
	w.leave("e")
	w.leave("e")
	w.leave("nobody")
	if w.Proxies()[0].Gone.IsZero() || len(w.Connected()) != 0 {
		t.Error("not gone")
	}
}

// Limits: what is too much is dropped and counted, and nothing else is harmed; a
// proxy that is gone makes room.
func TestLimits(t *testing.T) {
	w := newWorld(fleet.Config{MaxProxies: 2, MaxUpstreams: 2, MaxEndpoints: 2})
	w.join("a", model.TelemetryEndpoints)
	w.join("b", model.TelemetryEndpoints)
	w.join("c", model.TelemetryEndpoints)
	if n := len(w.Proxies()); n != 2 || w.Dropped(fleet.DroppedProxies) != 1 {
		t.Errorf("%d proxies, %d dropped", n, w.Dropped(fleet.DroppedProxies))
	}
	w.leave("a")
	w.join("c", model.TelemetryEndpoints)
	if p := w.Proxies(); len(p) != 2 || p[0].ID != "b" || p[1].ID != "c" {
		t.Errorf("%+v", p)
	}
	w.report("b", "u members 1", "v members 1", "w members 1", "u 1.1.1.1:1 up", "u 1.1.1.2:1 up", "u 1.1.1.3:1 up")
	if len(w.Views("u", true)) != 1 || len(w.Views("u", true)[0].Endpoints) != 2 || len(w.Views("w", true)) != 0 {
		t.Errorf("%+v", w.Views("u", true))
	}
	if w.Dropped(fleet.DroppedUpstreams) != 1 || w.Dropped(fleet.DroppedEndpoints) != 1 {
		t.Errorf("dropped %d upstreams, %d endpoints", w.Dropped(fleet.DroppedUpstreams), w.Dropped(fleet.DroppedEndpoints))
	}
	w.Keep(func(name string) bool { return name == "u" }) // v is seen
	w.report("b", "u members 1", "u 1.1.1.3:1 up")        // the others are gone, and make room
	w.report("b", "u members 1", "w members 1")
	if w.Dropped(fleet.DroppedUpstreams) != 2 {
		t.Error("an upstream that was seen made room")
	}
	w.Keep(func(name string) bool { return name == "u" })
	w.report("b", "u members 1", "u 1.1.1.4:1 up", "w members 1")
	if len(w.Views("w", true)) != 1 || len(w.Views("u", true)[0].Endpoints) != 1 {
		t.Errorf("%+v", w.Views("w", true))
	}
}

// The newest samples of a reason stay, and the first; the quietest reason makes room.
func TestReasons(t *testing.T) {
	w := newWorld(fleet.Config{})
	for i := range 60 {
		for j := range 6 {
			w.Failed(fleet.Failed{Time: w.now.Add(time.Duration(i) * time.Second), Upstream: "u", Flag: "UH", Detail: fmt.Sprint(i), Request: fmt.Sprint(j)})
		}
	}
	_, told := w.Failures("u")
	if len(told) != 50 || told[0].Count != 6 {
		t.Fatalf("%d reasons, %+v", len(told), told[0])
	}
	for _, r := range told {
		var ids string
		for _, s := range r.Samples {
			ids += s.Request
		}
		if ids != "0345" || r.Detail < "10" && len(r.Detail) == 2 {
			t.Errorf("%s has samples %s", r.Detail, ids)
		}
	}
}

// Whose a report is.
func TestProve(t *testing.T) {
	w := newWorld(fleet.Config{})
	w.Joined(1, model.Proxy{ID: "keyed", ReportKey: "k"}, model.TelemetryUpstreams)
	w.Joined(1, model.Proxy{ID: "old"}, model.TelemetryUpstreams)
	w.Joined(1, model.Proxy{ID: "certified", Identity: []string{"edge.test", "edge-1"}}, model.TelemetryUpstreams)
	w.Joined(1, model.Proxy{ID: "both", Identity: []string{"fleet.test"}, ReportKey: "k"}, model.TelemetryUpstreams)
	own, fleets := []string{"edge.test", "edge-1"}, []string{"fleet.test"}
	for what, x := range map[string]struct {
		node string
		c    fleet.Credential
		want fleet.Proof
		why  string
	}{
		"its key":                            {"keyed", fleet.Credential{Key: "k", Private: true}, fleet.Verified, ""},
		"its key where others can read it":   {"keyed", fleet.Credential{Key: "k"}, fleet.Unverified, "others can read"},
		"another key":                        {"keyed", fleet.Credential{Key: "l", Private: true}, fleet.Refused, "report key is not"},
		"no key":                             {"keyed", fleet.Credential{Private: true}, fleet.Unverified, "without a report key"},
		"a bootstrap without a key":          {"old", fleet.Credential{Key: "k", Private: true}, fleet.Unverified, "no report key; print a new one"},
		"nobody":                             {"nobody", fleet.Credential{Key: "k", Private: true}, fleet.Unverified, "no proxy of this node id"},
		"its certificate":                    {"certified", fleet.Credential{Names: own, Private: true}, fleet.Verified, ""},
		"another certificate":                {"certified", fleet.Credential{Names: fleets, Private: true}, fleet.Refused, "edge.test, edge-1"},
		"no certificate":                     {"certified", fleet.Credential{Private: true}, fleet.Unverified, "came with a certificate"},
		"the fleet's certificate, its key":   {"both", fleet.Credential{Names: fleets, Key: "k"}, fleet.Verified, ""},
		"the fleet's certificate, no key":    {"both", fleet.Credential{Names: fleets}, fleet.Unverified, "without a report key"},
		"the fleet's certificate, other key": {"both", fleet.Credential{Names: fleets, Key: "l"}, fleet.Refused, "report key is not"},
	} {
		got, why := w.Prove(x.node, x.c)
		if got != x.want || !strings.Contains(why, x.why) {
			t.Errorf("%s: %v %q", what, got, why)
		}
	}
	for range 3 {
		w.Refuse("keyed", "10.0.0.9", "why")
	}
	if r := w.RefusedReports(); len(r) != 1 || r[0].Count != 3 || !slices.Equal(w.events, []string{"report.refused keyed"}) {
		t.Errorf("%+v %v", r, w.events)
	}
	w.now = w.now.Add(11 * time.Minute)
	if r := w.RefusedReports(); len(r) != 0 {
		t.Errorf("kept: %+v", r)
	}
}

// The admin's answer stands for a report only where none comes.
func TestAsked(t *testing.T) {
	w := newWorld(fleet.Config{})
	w.join("e", model.TelemetryOff)
	r := w.OpenAsked("e")
	r.Add(fleet.Point{Metric: fleet.Members, Upstream: []byte("a"), Value: 3})
	r.Add(fleet.Point{Metric: fleet.EndpointHealthy, Upstream: []byte("a"), Endpoint: []byte("1.1.1.1:1"), Value: 1})
	r.Close()
	if v := w.Views("a", true); len(v) != 1 || v[0].Members != 3 || len(v[0].Endpoints) != 1 || w.Proxies()[0].Reports.State != fleet.ReportsAsked {
		t.Errorf("%+v", v)
	}
	w.Moved("e", "edge", model.TelemetryUpstreams)
	w.report("e", "a members 2")
	if v := w.Views("a", true); len(v) != 1 || v[0].Members != 2 || len(v[0].Endpoints) != 0 || w.Proxies()[0].Reports.State != fleet.ReportsVerified {
		t.Errorf("%+v", v)
	}
	if w.OpenAsked("e") != nil {
		t.Error("asked though it reports")
	}
}

// A latency lies where the counts say, and only what is new counts.
func TestLatency(t *testing.T) {
	w := newWorld(fleet.Config{})
	w.join("e", model.TelemetryUpstreams)
	for i := range 2 {
		r := w.Open("e", 0)
		r.Add(fleet.Point{Metric: fleet.Members, Upstream: []byte("a"), Value: 1})
		r.Add(fleet.Point{Metric: fleet.Uptime, Value: 100})
		r.Add(fleet.Point{Metric: fleet.Latency, Upstream: []byte("a"), Bounds: []float64{10, 100, 1000}, Buckets: []uint64{50, 1000 + 90*uint64(i), 10 * uint64(i), 0}})
		r.Close()
		w.now = w.now.Add(5 * time.Second)
	}
	minutes, hours := w.Trend("a")
	if len(minutes) != 1 || len(hours) != 1 || minutes[0].P50 != 60*time.Millisecond || minutes[0].P99 != 910*time.Millisecond {
		t.Errorf("%+v", minutes)
	}
}

// A cluster that is gone is no evidence, though requests to it failed once; its
// failures are counted on.
func TestGoneWithFailures(t *testing.T) {
	w := newWorld(fleet.Config{})
	w.join("e", model.TelemetryEndpoints)
	w.report("e", "uptime 1", "a members 3", "a 1.1.1.1:1 up", "a r UH 2")
	w.report("e", "uptime 6", "a r UH 2")
	if v := w.Views("a", true); len(v) != 0 {
		t.Errorf("seen: %+v", v)
	}
	w.report("e", "uptime 11", "a members 1", "a r UH 5")
	if v := w.Views("a", true); len(v) != 1 || v[0].Members != 1 || len(v[0].Endpoints) != 0 || w.counted("a") != "0 5 0" {
		t.Errorf("seen: %+v, counted %s", v, w.counted("a"))
	}
}

// Totals that a proxy was not asked for before are where we begin to count.
func TestRaisedLevel(t *testing.T) {
	w := newWorld(fleet.Config{})
	w.join("e", model.TelemetryFailures)
	lines := []string{"uptime 1", "a members 1", "a requests 1000", "a none 7", "a r UH 7"}
	w.report("e", lines...)
	w.Moved("e", "edge", model.TelemetryUpstreams)
	w.report("e", lines...)
	if got := w.counted("a"); got != "0 7 0" {
		t.Errorf("counted %s", got)
	}
	w.report("e", "a members 1", "a requests 1001", "a none 8", "a r UH 8")
	w.Moved("e", "edge", model.TelemetryFailures)
	w.report("e", "a members 1", "a requests 1100", "a none 8", "a r UH 8")
	w.Moved("e", "edge", model.TelemetryUpstreams)
	w.report("e", "a members 1", "a requests 1200", "a none 8", "a r UH 8")
	if got := w.counted("a"); got != "1 8 1" {
		t.Errorf("counted %s", got)
	}
}

// A proxy that was forgotten, and one that comes from another server, is not counted
// from its begin; one that starts anew is, however high its totals are by then; and the
// older of two processes of one name is not listened to.
func TestProcesses(t *testing.T) {
	w := newWorld(fleet.Config{})
	wants := func(want string) {
		t.Helper()
		if got := w.counted("a"); got != want {
			t.Errorf("counted %s, want %s", got, want)
		}
	}
	w.now = w.now.Add(time.Hour)
	w.join("e", model.TelemetryUpstreams)
	w.report("e", "uptime 1", "a members 1", "a requests 5")
	wants("5 0 0")
	w.leave("e")
	w.now = w.now.Add(2 * time.Hour)
	w.Look()
	w.join("e", model.TelemetryUpstreams)
	w.report("e", "uptime 7200", "a members 1", "a requests 1000")
	wants("0 0 0") // the hour is over too
	w.now = w.now.Add(5 * time.Second)
	w.report("e", "uptime 2", "a members 1", "a requests 2000")
	wants("2000 0 0")
	w.now = w.now.Add(5 * time.Second)
	w.report("e", "uptime 7210", "a members 1", "a requests 1001")
	wants("2000 0 0")
	w.now = w.now.Add(5 * time.Second)
	w.report("e", "uptime 12", "a members 1", "a requests 2001")
	wants("2001 0 0")
}

// Two streams of one node: the reports of both count while both are open, and of the
// one that is left.
func TestTwoStreams(t *testing.T) {
	w := newWorld(fleet.Config{})
	proof := func(key string) fleet.Proof {
		p, _ := w.Prove("e", fleet.Credential{Key: key, Private: true})
		return p
	}
	w.Joined(1, model.Proxy{ID: "e", ReportKey: "own"}, model.TelemetryUpstreams)
	w.Joined(2, model.Proxy{ID: "e", ReportKey: "other"}, model.TelemetryUpstreams)
	if proof("own") != fleet.Verified || proof("other") != fleet.Verified || proof("third") != fleet.Refused {
		t.Error("two streams")
	}
	w.Left(2, "e")
	if proof("own") != fleet.Verified || proof("other") != fleet.Refused {
		t.Error("one stream")
	}
	w.Left(1, "e")
	if proof("own") != fleet.Verified || proof("other") != fleet.Refused {
		t.Error("gone")
	}
}

// Who comes without a credential does not make a proxy that reports an unverified one.
func TestSomebodyElse(t *testing.T) {
	w := newWorld(fleet.Config{})
	w.join("e", model.TelemetryUpstreams)
	w.report("e", "a members 1")
	w.Prove("e", fleet.Credential{Private: true})
	if got := w.Proxies()[0].Reports.State; got != fleet.ReportsVerified {
		t.Error(got)
	}
	w.now = w.now.Add(time.Minute)
	w.Prove("e", fleet.Credential{Private: true})
	if got := w.Proxies()[0].Reports.State; got != fleet.ReportsUnverified {
		t.Error(got)
	}
}

// Too many causes are counted together, and none is lost; texts that are no names, and
// upstreams that are not declared, are dropped.
func TestTooMuch(t *testing.T) {
	w := newWorld(fleet.Config{Known: func(name string) bool { return name == "a" }})
	w.join("e", model.TelemetryUpstreams)
	for round := range 3 {
		lines := []string{"uptime 1", "a members 1", "b members 1", strings.Repeat("x", 256) + " members 1"}
		for i := range 300 {
			lines = append(lines, fmt.Sprintf("a route-%d UH %d", i, round+1))
		}
		w.report("e", lines...)
	}
	if got := w.counted("a"); got != "0 900 0" {
		t.Errorf("counted %s", got)
	}
	failed, _ := w.Failures("a")
	if len(failed) != 201 || failed[0].Flag != "other" || failed[0].Count != 300 {
		t.Errorf("%d causes, %+v", len(failed), failed[0])
	}
	if len(w.Views("b", false)) != 0 || w.Dropped(fleet.DroppedUpstreams) != 3 || w.Dropped(fleet.DroppedTexts) != 3 {
		t.Errorf("dropped %d upstreams, %d texts", w.Dropped(fleet.DroppedUpstreams), w.Dropped(fleet.DroppedTexts))
	}
}

// A latency that is none is left out.
func TestOddLatency(t *testing.T) {
	w := newWorld(fleet.Config{})
	w.join("e", model.TelemetryUpstreams)
	for n := range uint64(3) { // the first that is counted
		r := w.Open("e", 0)
		r.Add(fleet.Point{Metric: fleet.Latency, Upstream: []byte("a"), Buckets: []uint64{n}})
		r.Close()
	}
	for round := range uint64(3) {
		for _, x := range []fleet.Point{{Buckets: []uint64{round}}, {Bounds: []float64{1}}, {Bounds: []float64{1}, Buckets: []uint64{1}}, {Bounds: []float64{1}, Buckets: []uint64{5 + round, 5}}, {Bounds: []float64{1, 2}, Buckets: []uint64{5, 5, 9 + round}}} {
			r := w.Open("e", 0)
			x.Metric, x.Upstream = fleet.Latency, []byte("a")
			r.Add(x)
			r.Close()
		}
	}
}

// However a proxy names its endpoints, what it sees is what its last report says.
func TestEndpointsProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(fleet.Config{})
		w.join("e", model.TelemetryEndpoints)
		for range rapid.IntRange(1, 5).Draw(t, "reports") {
			up := rapid.MapOf(rapid.StringMatching(`1\.1\.1\.[1-9]:8[0-3]`), rapid.Bool()).Draw(t, "endpoints")
			names := make([]string, 0, len(up))
			for name := range up {
				names = append(names, name)
			}
			slices.Sort(names)
			names = rapid.Permutation(names).Draw(t, "order")
			lines := []string{"a members 1"}
			for _, name := range names {
				lines = append(lines, fmt.Sprintf("a %s %s", name, map[bool]string{true: "up", false: "down"}[up[name]]))
			}
			w.report("e", lines...)
			got := map[string]bool{}
			for _, e := range w.Views("a", true)[0].Endpoints {
				got[e.Address] = e.Healthy
			}
			if fmt.Sprint(got) != fmt.Sprint(up) {
				t.Fatalf("%v, want %v", got, up)
			}
		}
	})
}
