package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/probe"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/pkg/store"
)

// Prober tries endpoints from here.
type Prober interface {
	Try(ctx context.Context, t probe.Target) []probe.Result
}

type (
	explainIn struct {
		Upstream string   `query:"upstream" doc:"name of an upstream; this, or host and path, or log"`
		Host     string   `query:"host" doc:"of a request, as a client sends it: the way that it takes is walked first"`
		Path     string   `query:"path" doc:"of that request"`
		Method   string   `query:"method" default:"GET"`
		Header   []string `query:"header,explode" doc:"NAME: VALUE of that request"`
		Log      string   `query:"log" maxLength:"65536" doc:"a line of an access log: ours, Envoy's default, Istio's, or JSON"`
		Proxy    string   `query:"proxy" doc:"id of a proxy: only what it was sent, reports and answers"`
	}
	explainOut struct{ Body diagnose.Explanation }
)

// adminsAtOnce are asked for all that they hold; each takes a second at least.
const adminsAtOnce = 32

// What gathering may take: each part by itself, and all together.
const (
	gatherAll  = 1900 * time.Millisecond
	gatherDisk = time.Second
	lookApart  = time.Second // two looks at counters
	explained  = 6           // proxies whose admins are asked for all
	lastHour   = time.Hour
	// Revisions that are looked at: how long before and after something began, and how many.
	touchedBefore   = 5 * time.Minute
	touchedAfter    = 30 * time.Second
	maxTouching     = 100
	revisionsAtOnce = 50
)

func (s *server) explain(api huma.API) {
	huma.Register(api, operation("explain", http.MethodGet, "/v1/explain", "Why requests to an upstream fail, or soon will", 400, 404),
		func(ctx context.Context, in *explainIn) (*explainOut, error) {
			ctx, cancel := context.WithTimeout(ctx, gatherAll)
			defer cancel()
			a, line, err := s.asking(in)
			if err != nil {
				return nil, err
			}
			e, err := s.answer(ctx, in, a, line)
			if err != nil {
				return nil, err
			}
			if line != nil {
				e.Road = append([]string{line.Says()}, e.Road...)
			}
			return &explainOut{e}, nil
		})
}

// asking is the request that is asked about, and the line of a log that it was read from.
// A log's cluster that is one of our upstreams is asked about by its name.
func (s *server) asking(in *explainIn) (a spec.Asking, l *diagnose.LogLine, err error) {
	ways := 0
	for _, x := range []string{in.Upstream, in.Host + in.Path, in.Log} {
		if x != "" {
			ways++
		}
	}
	if ways != 1 {
		return a, nil, newError(http.StatusBadRequest, "name an upstream, or host and path of a request, or a line of a log; one of these")
	}
	if in.Log != "" {
		line, err := diagnose.ParseLogLine(in.Log)
		if err != nil {
			return a, nil, newError(http.StatusBadRequest, "log: "+err.Error())
		}
		if _, ok := s.withImports().Upstream(line.Cluster); ok {
			in.Upstream = line.Cluster
		}
		return line.Asking, &line, nil
	}
	a = spec.Asking{Method: in.Method, Host: in.Host, Path: in.Path, Headers: map[string]string{}}
	for _, h := range in.Header {
		name, value, ok := strings.Cut(h, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return a, nil, newError(http.StatusBadRequest, fmt.Sprintf("header %q is not NAME: VALUE", h))
		}
		a.Headers[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	return a, nil, nil
}

// answer explains an upstream, or the one of those on a request's way that does worst.
func (s *server) answer(ctx context.Context, in *explainIn, a spec.Asking, l *diagnose.LogLine) (diagnose.Explanation, error) {
	if in.Upstream != "" {
		c, err := s.gather(ctx, in.Upstream, in.Proxy)
		if err != nil {
			return diagnose.Explanation{}, err
		}
		return diagnose.Explain(c), nil
	}
	ways, err := s.ways(ctx, in.Proxy, a, l)
	if err != nil {
		return diagnose.Explanation{}, err
	}
	worst, well := s.worstOf(ways)
	if worst == "" {
		if l != nil && len(l.Flags) > 0 && !slices.Contains(l.Flags, "NR") && !slices.Contains(l.Flags, "NoRouteFound") {
			return diagnose.Explanation{}, newError(http.StatusNotFound, l.Says()+"; its upstream is none of ours, and no route of ours leads its request anywhere: ask about an upstream by its name")
		}
		return diagnose.NoWay(ways, a, time.Now()), nil
	}
	c, err := s.gather(ctx, worst, in.Proxy)
	if err != nil {
		return diagnose.Explanation{}, err
	}
	e := diagnose.Explain(c).Sibling(well)
	for _, w := range ways {
		e.Road = append(e.Road, diagnose.Road(w))
	}
	return e, nil
}

// ways are where a request goes: at the listeners of one proxy or, where none is named, of
// all but those that lead to the application beside a proxy. A log's route goes before
// its host and path: it was matched by all of the request.
func (s *server) ways(ctx context.Context, proxy string, a spec.Asking, l *diagnose.LogLine) ([]spec.Way, error) {
	sp, group := s.withImports(), ""
	if proxy != "" {
		for _, st := range s.Fleet.Streams(ctx) {
			if st.ID == proxy {
				group = st.Group
			}
		}
		if group == "" {
			return nil, newError(http.StatusNotFound, fmt.Sprintf("no proxy %q is connected; wellspring proxies lists them", proxy))
		}
	}
	if l != nil {
		if ways := sp.WaysOf(group, l.Route); len(ways) > 0 {
			return ways, nil
		}
	}
	return sp.Ways(group, a), nil
}

// worstOf picks the upstream that does worst, and says which others of its rule are well;
// "" where there is none.
func (s *server) worstOf(ways []spec.Way) (worst string, well []string) {
	var state health.State
	for _, w := range ways {
		var fine []string
		here := false
		for _, to := range w.To {
			if to.Weight == 0 {
				continue
			}
			h, _ := s.Health.HealthBy(to.Upstream, s.Seen.Views(to.Upstream, false))
			if worst == "" || h.State.Worse(state) {
				worst, state, here = to.Upstream, h.State, true
			}
			if h.State == health.Healthy {
				fine = append(fine, to.Upstream)
			}
		}
		if here {
			well = slices.DeleteFunc(fine, func(name string) bool { return name == worst })
		}
	}
	return worst, well
}

// gather collects what is known of an upstream, or of what one proxy has of it: what must
// be asked for in parallel, each part with a deadline, and then what is in memory, so that
// it is of the time of the answers. What did not answer is said.
func (s *server) gather(ctx context.Context, name, proxy string) (c diagnose.Case, err error) {
	if err := s.remember(ctx, &c, name, proxy); err != nil {
		return c, err
	}
	var wg sync.WaitGroup
	var notAsked [3][]string
	wg.Go(func() { c.Events, notAsked[0] = s.happened(ctx, c.Health.Service, name) })
	wg.Go(func() { c.Asked, notAsked[1] = s.askEnvoys(ctx, name, c.Streams, c.Health.Seen) })
	wg.Go(func() { c.Probes, notAsked[2] = s.probe(ctx, name, c.Spec, c.Endpoints, c.Views) })
	wg.Wait()
	if err := s.remember(ctx, &c, name, proxy); err != nil {
		return c, err
	}
	c.NotAsked = slices.Concat(notAsked[:]...)
	if proxy != "" {
		c.NotAsked = append(c.NotAsked, "how its requests failed: that is counted for all proxies together")
	}
	since := c.Since()
	var cut []string
	c.Changes, cut = s.touching(name, c.Spec, since)
	c.HistoryRead, c.NotAsked = len(cut) == 0, append(c.NotAsked, cut...)
	if !since.IsZero() && proxy == "" {
		c.Requests, c.Lost = s.lost(name, since)
	}
	return c, nil
}

// remember fills in what is in memory.
func (s *server) remember(ctx context.Context, c *diagnose.Case, name, proxy string) error {
	sp := s.withImports()
	u, ok := sp.Upstream(name)
	if !ok {
		return failed(s.notFound(spec.Ref{Kind: spec.KindUpstream, Name: name}))
	}
	of := func(id string) bool { return proxy == "" || id == proxy }
	c.At, c.Upstream, c.Spec, c.Known = time.Now(), name, u, s.Catalog.Entry(u.Key(name))
	c.Views = slices.DeleteFunc(s.Seen.Views(name, true), func(v fleet.View) bool { return !of(v.Proxy) })
	c.Health, _ = s.Health.HealthBy(name, c.Views)
	c.Endpoints, c.Problems, _ = s.Publisher.Endpoints(name)
	if c.Known.Service != nil {
		c.Problems = append(slices.Clone(c.Problems), c.Known.Service.Problems...)
	}
	for _, x := range s.Catalog.Sources() {
		if k := u.Key(name); x.Name == k.Source && x.Datacenter == k.Datacenter {
			c.LastFresh = x.LastFresh
		}
	}
	if proxy == "" {
		c.Failures, c.Reasons = s.Seen.Failures(name)
	} else if c.Health.Seen != nil {
		c.Health.Seen.Requests, c.Health.Seen.Failed = 0, 0 // of all proxies together
	}
	c.Groups, c.Streams, c.Members = groupsOf(sp, name), nil, nil
	for _, st := range s.Fleet.Streams(ctx) {
		if slices.Contains(c.Groups, st.Group) && of(st.ID) {
			c.Streams = append(c.Streams, st)
		}
	}
	for _, m := range s.Seen.Proxies() {
		if slices.Contains(c.Groups, m.Group) && of(m.ID) {
			c.Members = append(c.Members, m)
		}
	}
	if proxy != "" && len(c.Members) == 0 {
		return newError(http.StatusNotFound, fmt.Sprintf("no proxy %q reaches upstream %s; wellspring proxies lists them", proxy, name))
	}
	c.Refused = s.Fleet.Refused()
	return nil
}

func groupsOf(sp *spec.Spec, upstream string) (out []string) {
	for _, d := range sp.Documents(spec.KindGroup) {
		if slices.Contains(sp.Upstreams(d.Name), upstream) {
			out = append(out, d.Name)
		}
	}
	return out
}

// happened are the events of the last hour that are of an upstream, of its service or its
// source, oldest first: those in memory and, where that is not an hour long, on disk.
func (s *server) happened(ctx context.Context, k model.ServiceKey, upstream string) (out []model.Event, notAsked []string) {
	from := time.Now().Add(-lastHour)
	all := s.Events.Last(maxEvents)
	if len(all) < maxEvents && (len(all) == 0 || all[0].Time.After(from)) { // more is not read from disk either
		ctx, cancel := context.WithTimeout(ctx, gatherDisk)
		defer cancel()
		recorded, err := s.Recorded.Between(ctx, from, time.Time{}, maxEvents)
		if err != nil {
			notAsked = append(notAsked, "events before this server began: "+err.Error())
		} else {
			all = recorded
		}
	}
	source := model.ServiceKey{Source: k.Source, Datacenter: k.Datacenter}
	for _, e := range all {
		switch {
		case e.Time.Before(from):
		case e.Subject.Kind == "Service" && e.Subject.Name == k.String(),
			e.Subject.Kind == string(spec.KindUpstream) && e.Subject.Name == upstream,
			e.Subject.Kind == "Source" && e.Subject.Name == source.String(),
			e.Subject.Kind == "External", strings.HasPrefix(e.Kind, "certificate."):
			out = append(out, e)
		}
	}
	return out, notAsked
}

const maxEvents = 10_000

// askEnvoys asks the admins of some proxies for all that they hold, first of those that
// have it worst, and for their counters twice.
func (s *server) askEnvoys(ctx context.Context, upstream string, streams []model.Stream, seen *health.Seen) (out []diagnose.Asked, notAsked []string) {
	who := worstFirst(streams, seen)
	all, errs := make([]*diagnose.Asked, len(who)), make([]error, len(who))
	var wg sync.WaitGroup
	for i, p := range who {
		wg.Go(func() { all[i], errs[i] = s.askEnvoy(ctx, p, upstream) })
	}
	wg.Wait()
	for i, p := range who {
		if errs[i] != nil {
			notAsked = append(notAsked, fmt.Sprintf("proxy %s: %v", p.ID, errs[i]))
			continue
		}
		out = append(out, *all[i])
	}
	if n := len(streams) - len(who); n > 0 {
		notAsked = append(notAsked, fmt.Sprintf("%d more proxies: %d were asked, and all that report are counted", n, len(who)))
	}
	return out, notAsked
}

// worstFirst picks whom to ask: those that have it worst, then one of each zone.
func worstFirst(streams []model.Stream, seen *health.Seen) (out []model.Proxy) {
	bad := map[string]bool{}
	if p := seen.Worst(); p != nil {
		for _, id := range p.Some {
			bad[id] = true
		}
	}
	taken, zones := map[string]bool{}, map[string]bool{}
	take := func(want func(model.Stream) bool, most int) {
		for _, st := range streams {
			if len(out) < most && !taken[st.ID] && !strings.HasPrefix(st.Agent, "gRPC") && want(st) {
				taken[st.ID], zones[st.Locality.Zone] = true, true
				out = append(out, st.Proxy)
			}
		}
	}
	take(func(st model.Stream) bool { return bad[st.ID] }, explained/2)
	take(func(st model.Stream) bool { return !zones[st.Locality.Zone] }, explained)
	take(func(model.Stream) bool { return true }, explained/2)
	return out
}

func (s *server) askEnvoy(ctx context.Context, p model.Proxy, upstream string) (*diagnose.Asked, error) {
	client, err := s.Admins.Client(p)
	if err != nil {
		return nil, err
	}
	select {
	case s.admins <- struct{}{}:
		defer func() { <-s.admins }()
	case <-ctx.Done():
		return nil, errors.New("too many ask at once")
	}
	a := &diagnose.Asked{Proxy: p.ID, Zone: p.Locality.Zone}
	if a.Before, err = client.StatsOf(ctx, upstream); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(lookApart):
	}
	a.Dump, err = client.DumpOf(ctx, upstream)
	return a, err
}

// probe tries endpoints from here: first those that a proxy would not use.
func (s *server) probe(ctx context.Context, name string, u *spec.Upstream, endpoints []model.Endpoint, views []fleet.View) ([]probe.Result, []string) {
	if s.Prober == nil {
		return nil, []string{"endpoints themselves: probes are switched off (probe.enabled)"}
	}
	if u.Hostnames() || len(endpoints) == 0 {
		return nil, nil // what a name is here need not be what it is at a proxy
	}
	t := probe.Target{Name: name, Spec: u}
	var err error
	if t.TLS, err = s.ClientTLS(name); err != nil {
		return nil, []string{"endpoints themselves: " + err.Error()}
	}
	out := map[string]bool{}
	for _, v := range views {
		for _, e := range v.Endpoints {
			out[e.Address] = out[e.Address] || !e.Healthy
		}
	}
	for _, bad := range []bool{true, false} {
		for _, e := range endpoints {
			if out[e.Address] == bad {
				t.Addresses = append(t.Addresses, e.Address)
			}
		}
	}
	results := s.Prober.Try(ctx, t)
	for _, r := range results {
		if r.Outcome == probe.NotTried {
			return results, []string{"endpoints themselves: " + r.Says + "; see probe.loopback"}
		}
	}
	return results, nil
}

// lost counts the requests since a time, to the minute; of more than an hour, to the hour.
func (s *server) lost(name string, since time.Time) (requests, lost uint64) {
	minutes, hours := s.Seen.Trend(name)
	spans, from := minutes, since.Truncate(time.Minute)
	if time.Since(since) > lastHour {
		spans, from = hours, since.Truncate(time.Hour)
	}
	for _, x := range spans {
		if !x.From.Before(from) {
			requests, lost = requests+x.Requests, lost+x.Failed
		}
	}
	return max(requests, lost), lost
}

// touching are the revisions that touch an upstream's road, from a while before something
// began until shortly after, oldest first; and what of history could not be looked at.
func (s *server) touching(name string, u *spec.Upstream, since time.Time) (out []diagnose.Edit, notAsked []string) {
	if since.IsZero() {
		return nil, nil
	}
	said := func(why string) []string { return []string{"revisions before it began: " + why} }
	for before, n := uint64(0), 0; ; {
		page, _, err := s.Store.Revisions(before, revisionsAtOnce)
		switch {
		case err != nil:
			return out, said(err.Error())
		case len(page) == 0:
			return out, nil
		}
		for _, r := range page {
			if r.Time.Before(since.Add(-touchedBefore)) {
				return out, nil
			}
			if r.Time.After(since.Add(touchedAfter)) {
				continue
			}
			if n++; n > maxTouching {
				return out, said(fmt.Sprintf("only the %d newest of them", n-1))
			}
			fields, err := s.fieldsOf(r, name, u)
			if err != nil {
				return out, said(err.Error())
			}
			if len(fields) > 0 {
				newest := s.Store.State().Revision == r.Number
				out = slices.Insert(out, 0, diagnose.Edit{Revision: r.Number, Time: r.Time, Author: r.Author, Message: r.Message, Fields: fields, Newest: newest})
			}
		}
		before = page[len(page)-1].Number
	}
}

// fieldsOf lists what a revision changed on the road to an upstream, as paths.
func (s *server) fieldsOf(r store.Revision, name string, u *spec.Upstream) (fields []string, err error) {
	key := u.Key(name)
	quoted := []byte(`"` + name + `"`)
	edits, err := s.Store.Differences(r, func(ref spec.Ref) bool {
		switch ref.Kind {
		case spec.KindUpstream:
			return ref.Name == name
		case spec.KindService:
			return key.Source == spec.SourceLocal && ref.Name == key.Name
		}
		return true // a route, listener or group: whether it names the upstream is seen below
	})
	for _, e := range edits {
		a, b := writtenText(e.Before), writtenText(e.After)
		if e.Ref.Kind != spec.KindUpstream && e.Ref.Kind != spec.KindService && !bytes.Contains(a, quoted) && !bytes.Contains(b, quoted) {
			continue
		}
		for _, path := range differ(a, b) {
			fields = append(fields, string(e.Ref.Kind)+"/"+e.Ref.Name+": "+path)
		}
	}
	return fields, err
}

func writtenText(d *spec.Document) []byte {
	if d == nil {
		return nil
	}
	return d.Written
}

// differ lists the paths of a document at which two texts of it differ, with what stood
// and stands there where that is short.
func differ(a, b []byte) []string {
	switch {
	case a == nil:
		return []string{"added"}
	case b == nil:
		return []string{"removed"}
	}
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return []string{"changed"}
	}
	return differs("", x, y)
}

func differs(path string, x, y any) (out []string) {
	if reflect.DeepEqual(x, y) {
		return nil
	}
	mx, xs := x.(map[string]any)
	my, ys := y.(map[string]any)
	lx, xl := x.([]any)
	ly, yl := y.([]any)
	switch {
	case xs && ys:
		keys := map[string]bool{}
		for k := range mx {
			keys[k] = true
		}
		for k := range my {
			keys[k] = true
		}
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			at := k
			if path != "" {
				at = path + "." + k
			}
			out = append(out, differs(at, mx[k], my[k])...)
		}
	case xl && yl && len(lx) == len(ly):
		for i := range lx {
			out = append(out, differs(fmt.Sprintf("%s[%d]", path, i), lx[i], ly[i])...)
		}
	default:
		out = append(out, fmt.Sprintf("%s: %s -> %s", path, short(x), short(y)))
	}
	return out
}

// short is a value of a document in a few characters.
func short(v any) string {
	if v == nil {
		return "none"
	}
	text, err := json.Marshal(v)
	if err != nil || len(text) > 40 {
		return "…"
	}
	return string(text)
}
