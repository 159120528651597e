package health_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// upstream is one whose service has so many endpoints, with panic as it is written.
func upstream(t *testing.T, panic string) *spec.Upstream {
	t.Helper()
	docs, faults := spec.Parse("test", []byte("kind: Upstream\nname: catalog\nspec: {service: {source: consul}, whenUnavailable: {panic: "+panic+"}}\n"))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	u, _ := docs[0].Body.(*spec.Upstream)
	return u
}

func known(u *spec.Upstream, healthy, unhealthy int) model.Known {
	svc := &model.Service{Key: u.Key("catalog"), Presence: model.Present}
	for i := range healthy + unhealthy {
		e := model.Endpoint{ID: fmt.Sprint(i), Address: fmt.Sprintf("10.0.0.%d:80", i), Health: model.Healthy, Weight: 1}
		if i >= healthy {
			e.Health, e.Reason = model.Unhealthy, "check failed"
		}
		svc.Endpoints = append(svc.Endpoints, e)
	}
	return model.Known{Service: svc}
}

// sees is a proxy's view: how many of how many it would use.
func sees(proxy, zone string, healthy, members int) fleet.View {
	return fleet.View{Proxy: proxy, Zone: zone, Healthy: healthy, Members: members, At: time.Now()}
}

// How an upstream does, by its source and by the fleet: the worse counts, and who
// decides is named.
func TestJoin(t *testing.T) {
	const tryAll, fail = "{below: 50, then: tryAll}", "{then: fail}"
	with := func(v fleet.View, f func(*fleet.View)) fleet.View { f(&v); return v }
	for what, x := range map[string]struct {
		panic              string
		healthy, unhealthy int
		views              []fleet.View
		want               string
	}{
		"nobody reports":                 {tryAll, 4, 0, nil, "healthy, 2 spare: "},
		"all agree":                      {tryAll, 4, 0, []fleet.View{sees("a", "", 4, 4), sees("b", "", 4, 4)}, "healthy, 2 spare: "},
		"one of four":                    {tryAll, 4, 0, []fleet.View{sees("a", "", 1, 4), sees("b", "", 4, 4)}, "hidden, 0 spare: 1 of 2 proxies: 1 of 4 usable, below 50 %: panic sends requests to all of them"},
		"two of four is not below":       {tryAll, 4, 0, []fleet.View{sees("a", "", 2, 4)}, "degraded, 0 spare: proxy a: 2 of 4 usable, 4 are healthy by source consul"},
		"none, panic":                    {tryAll, 4, 0, []fleet.View{sees("a", "", 0, 4)}, "hidden, 0 spare: proxy a: 0 of 4 usable, below 50 %: panic sends requests to all of them"},
		"none, no panic":                 {fail, 4, 0, []fleet.View{sees("a", "", 0, 4)}, "critical, 0 spare: proxy a: none of 4 usable: requests get 503 UH"},
		"one, no panic":                  {fail, 4, 0, []fleet.View{sees("a", "", 1, 4)}, "degraded, 0 spare: proxy a: 1 of 4 usable, 4 are healthy by source consul"},
		"the source says it too":         {tryAll, 1, 3, []fleet.View{sees("a", "", 1, 4)}, "hidden, 0 spare: proxy a: 1 of 4 usable, below 50 %: panic sends requests to all of them"},
		"the source alone":               {tryAll, 1, 3, []fleet.View{sees("a", "", 2, 4)}, "critical, 0 spare: 1 of 4 usable, below 50 %: check failed"},
		"some have nobody":               {tryAll, 4, 0, []fleet.View{sees("a", "", 0, 0), sees("b", "", 4, 4)}, "critical, 0 spare: 1 of 2 proxies: none of 4 endpoints is there: requests get 503 UH"},
		"nobody is there":                {tryAll, 0, 0, []fleet.View{sees("a", "", 0, 0)}, "empty, 0 spare: the service has no endpoints"},
		"one zone":                       {tryAll, 4, 0, []fleet.View{sees("a", "x", 1, 4), sees("b", "x", 1, 4), sees("c", "y", 4, 4)}, "hidden, 0 spare: 2 of 3 proxies, all of zone x: 1 of 4 usable, below 50 %: panic sends requests to all of them"},
		"some of one zone":               {tryAll, 4, 0, []fleet.View{sees("a", "x", 1, 4), sees("b", "x", 4, 4), sees("c", "y", 4, 4)}, "hidden, 0 spare: 1 of 3 proxies, in zone x: 1 of 4 usable, below 50 %: panic sends requests to all of them"},
		"everybody":                      {tryAll, 4, 0, []fleet.View{sees("a", "x", 1, 4), sees("b", "y", 1, 4)}, "hidden, 0 spare: all 2 proxies: 1 of 4 usable, below 50 %: panic sends requests to all of them"},
		"degraded ones are used":         {tryAll, 4, 0, []fleet.View{with(sees("a", "", 1, 4), func(v *fleet.View) { v.Degraded = 1 })}, "degraded, 0 spare: proxy a: 2 of 4 usable, 4 are healthy by source consul"},
		"excluded ones do not count":     {tryAll, 4, 0, []fleet.View{with(sees("a", "", 2, 5), func(v *fleet.View) { v.Excluded = 1 })}, "degraded, 0 spare: proxy a: 2 of 5 usable, 4 are healthy by source consul"},
		"a definition that is not there": {tryAll, 4, 0, []fleet.View{with(sees("a", "", 4, 4), func(v *fleet.View) { v.Warming = true })}, "degraded, 2 spare: proxy a: its newest definition is not in use yet"},
		"a limit":                        {tryAll, 4, 0, []fleet.View{with(sees("a", "", 4, 4), func(v *fleet.View) { v.Overflowed = true })}, "degraded, 2 spare: proxy a: requests met a limit (503 UO) in the last minute"},
		"the worst decides":              {fail, 4, 0, []fleet.View{with(sees("a", "", 3, 4), func(v *fleet.View) { v.Warming = true }), sees("b", "", 0, 4)}, "critical, 0 spare: 1 of 2 proxies: none of 4 usable: requests get 503 UH"},
		"enough for panic to stay away":  {"{below: 90, then: tryAll}", 4, 0, []fleet.View{sees("a", "", 3, 4)}, "degraded, 0 spare: proxy a: 3 of 4 usable, 4 are healthy by source consul"},
		"not enough, below 90":           {"{below: 90, then: tryAll}", 10, 0, []fleet.View{sees("a", "", 7, 10)}, "hidden, 0 spare: proxy a: 7 of 10 usable, below 90 %: panic sends requests to all of them"},
		"the part that decides counts":   {tryAll, 4, 0, []fleet.View{sees("a", "", 0, 0), sees("b", "", 2, 4)}, "critical, 0 spare: 1 of 2 proxies: none of 4 endpoints is there: requests get 503 UH"},
		"all drain":                      {tryAll, 4, 0, []fleet.View{with(sees("a", "", 0, 4), func(v *fleet.View) { v.Excluded = 4 })}, "hidden, 0 spare: proxy a: 0 of 4 usable, below 50 %: panic sends requests to all of them"},
		"nobody met, though healthy":     {tryAll, 4, 0, []fleet.View{with(sees("a", "", 4, 4), func(v *fleet.View) { v.Unserved = true })}, "critical, 2 spare: proxy a: requests get 503 UH, though 4 of 4 are usable"},
		"threshold of nothing":           {"{below: 0, then: tryAll}", 4, 0, []fleet.View{sees("a", "", 0, 4)}, "critical, 0 spare: proxy a: none of 4 usable: requests get 503 UH"},
	} {
		u := upstream(t, x.panic)
		h := health.Of("catalog", u, known(u, x.healthy, x.unhealthy))
		h = health.Join(u, h, health.See(u, h, x.views, len(x.views)))
		if got := fmt.Sprintf("%s, %d spare: %s", h.State, h.Spare, h.Why); got != x.want {
			t.Errorf("%s: %s\nwant %s", what, got, x.want)
		}
	}
}

// A report that is older than what the source says now, or about as old, is not held
// against it: every scaling up would look like a loss.
func TestScaledUp(t *testing.T) {
	u := upstream(t, "{below: 50, then: tryAll}")
	h := health.Of("catalog", u, known(u, 4, 0))
	h.Since = time.Now()
	for after, want := range map[time.Duration]health.State{-time.Second: health.Healthy, 4 * time.Second: health.Healthy, 5 * time.Second: health.Degraded} {
		for _, members := range []int{0, 2} {
			v := sees("a", "", members, members)
			v.At = h.Since.Add(after)
			got := health.Join(u, h, health.See(u, h, []fleet.View{v}, 1)).State
			if members == 0 && want == health.Degraded {
				want = health.Critical
			}
			if members == 2 && want == health.Critical {
				want = health.Degraded
			}
			if got != want {
				t.Errorf("%d endpoints, told %s after: %s, want %s", members, after, got, want)
			}
		}
	}
}

// How many more may fail: of the source's and of each proxy's, whoever has fewest.
func TestSpare(t *testing.T) {
	for panic, want := range map[string]string{"{below: 50, then: tryAll}": "10:5 3:1 2:1 1:0", "{then: fail}": "10:9 3:2 2:1 1:0", "{below: 30, then: tryAll}": "10:7 3:2 2:1 1:0"} {
		u := upstream(t, panic)
		var got []string
		for _, n := range []int{10, 3, 2, 1} {
			got = append(got, fmt.Sprintf("%d:%d", n, health.Of("catalog", u, known(u, n, 0)).Spare))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", panic, got, want)
		}
	}
}

// Conflicts between source and proxies are named, with the zone where it is one.
func TestMatrix(t *testing.T) {
	now := time.Now()
	const a, b, c, d = "10.2.0.7:8080", "10.2.0.8:8080", "10.2.0.9:8080", "10.2.0.6:8080"
	view := func(proxy, zone string, endpoints ...fleet.EndpointView) fleet.View {
		return fleet.View{Proxy: proxy, Zone: zone, Members: len(endpoints), Endpoints: endpoints}
	}
	up := func(address string) fleet.EndpointView {
		return fleet.EndpointView{Address: address, Healthy: true, Since: now.Add(-time.Hour)}
	}
	down := func(address string) fleet.EndpointView {
		return fleet.EndpointView{Address: address, Since: now.Add(-time.Hour)}
	}
	cut := func(e fleet.EndpointView, ago time.Duration) fleet.EndpointView {
		e.Unreachable = now.Add(-ago)
		return e
	}
	back := up(a)
	back.Since = now // it is used again since
	rows := health.Matrix("consul", []model.Endpoint{
		{Address: a, Health: model.Healthy}, {Address: b, Health: model.Healthy}, {Address: c, Health: model.Unhealthy, Reason: "503 from /healthz"},
	}, []fleet.View{
		view("1", "a", up(a), up(b), down(c)), view("2", "a", cut(back, time.Second), down(b), up(c)), view("3", "b", cut(down(a), time.Second), down(b), down(c)),
		view("4", "b", cut(up(a), 59*time.Second), up(b), up(d)), view("5", "b", cut(up(a), 61*time.Second), up(b), down(c)),
		{Proxy: "6", Zone: "b", Members: 3, Healthy: 3}, // says nothing of endpoints
	}, now)
	var got []string
	for _, r := range rows {
		line := r.Address + " " + string(r.Source)
		for _, z := range r.Zones {
			line += fmt.Sprintf(" %s:%d/%d/%d/%d", z.Zone, z.Healthy, z.Unhealthy, z.Missing, z.Unreachable)
		}
		got = append(append(got, line), r.Conflicts...)
	}
	want := []string{
		d + " unlisted a:0/0/2/0 b:1/0/2/0", "proxy 4, 1 of 5, kept " + d + "; consul does not list it",
		a + " healthy a:2/0/0/0 b:2/1/0/2", "2 of 5 proxies, all in zone b, cannot reach " + a + "; consul says healthy",
		b + " healthy a:1/1/0/0 b:2/1/0/0", "2 of 5 proxies would not use " + b + "; consul says healthy",
		c + " unhealthy a:1/1/0/0 b:0/2/1/0", "proxy 2, 1 of 5, would use " + c + "; consul says unhealthy: 503 from /healthz",
		"proxy 4, 1 of 5, did not get " + c + "; consul says unhealthy: 503 from /healthz",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// declared is a source of one upstream of two endpoints.
type declared struct {
	spec    *spec.Spec
	healthy int
}

func (d *declared) Spec() *spec.Spec { return d.spec }

func (d *declared) HealthOf(name string) (health.Upstream, bool) {
	u, ok := d.spec.Upstream(name)
	if !ok {
		return health.Upstream{}, false
	}
	return health.Of(name, u, known(u, d.healthy, 4-d.healthy)), true
}

func (d *declared) Health() (out []health.Upstream) {
	for _, doc := range d.spec.Documents(spec.KindUpstream) {
		h, _ := d.HealthOf(doc.Name)
		out = append(out, h)
	}
	return out
}

// A watch tells of a change of state, whoever saw it: at once where the source did,
// within a second where a proxy did, and when the last minute is over.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docs, faults := spec.Parse("test", []byte("kind: Upstream\nname: catalog\nspec: {service: {source: consul}}\n---\nkind: Route\nname: r\nspec: {hosts: ['*'], rules: [{to: [{upstream: catalog}]}]}\n---\nkind: Listener\nname: l\nspec: {address: '127.0.0.1:1', routes: [r]}\n---\nkind: Group\nname: edge\nspec: {listeners: [l]}\n"))
		s, _, linked := spec.New(3, docs)
		if faults = append(faults, linked...); len(faults) > 0 {
			t.Fatal(faults)
		}
		d, f, touched := &declared{s, 4}, fleet.New(fleet.Config{}), health.NewTouched()
		f.Joined(1, model.Proxy{ID: "e", Group: "edge"}, model.TelemetryUpstreams)
		f.Joined(1, model.Proxy{ID: "silent", Group: "edge"}, model.TelemetryUpstreams)
		var mu sync.Mutex // guards told
		var told []string
		w := health.NewWatch(health.WatchConfig{Source: d, Fleet: f, Touched: touched, Emit: func(e model.Event) {
			what := strings.TrimPrefix(e.Kind, "upstream.")
			if what == "state" {
				what = e.Subject.Name
			}
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprintf("%s %s → %s by %d", what, e.From, e.To, e.Revision))
		}})
		ctx := t.Context()
		go w.Run(ctx) //nolint:errcheck // it ends with ctx
		wants := func(after time.Duration, want string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if got := strings.Join(told, "; "); got != want {
				t.Errorf("told %q, want %q", got, want)
			}
			told = nil
		}
		report := func(healthy, overflow uint64) {
			r := f.Open("e", 0)
			for m, n := range map[fleet.Metric]uint64{fleet.Members: 4, fleet.Healthy: healthy, fleet.PendingOverflow: overflow} {
				r.Add(fleet.Point{Metric: m, Upstream: []byte("catalog"), Value: n})
			}
			r.Close()
		}
		wants(0, "catalog  → healthy by 3")
		report(4, 1)
		wants(time.Second, "")
		report(1, 1)
		wants(time.Second, "panic  → begun by 3; catalog healthy → hidden by 3")
		if h := w.Health()[0]; h.State != health.Hidden || h.Seen.Proxies != 2 || h.Seen.Reporting != 1 {
			t.Errorf("%+v %+v", h, h.Seen)
		}
		d.healthy = 1
		touched.Touch("catalog", "nobody")
		wants(0, "")
		report(2, 2)
		wants(time.Second, "panic begun → over by 3; catalog hidden → critical by 3")
		d.healthy = 4
		touched.Touch("catalog")
		wants(0, "catalog critical → degraded by 3")
		for range 14 {
			time.Sleep(5 * time.Second)
			report(4, 2)
		}
		wants(time.Second, "catalog degraded → healthy by 3")
		report(0, 2)
		if h, ok := w.HealthBy("catalog", f.Views("catalog", false)); !ok || h.State != health.Hidden {
			t.Errorf("%+v", h)
		}
		if _, ok := w.HealthBy("nobody", nil); ok {
			t.Error("health of nobody")
		}
		wants(time.Second, "panic  → begun by 3; catalog healthy → hidden by 3")
		wants(31*time.Second, "panic begun → over by 3; catalog hidden → healthy by 3") // its word is too old
	})
}
