package evidence

import (
	"strings"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

var (
	noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	web  = model.ServiceKey{Source: "consul", Name: "web"}
)

// event is one of a second after noon.
func event(second int, id, kind, subject, name string, more func(e *model.Event)) model.Event {
	e := model.Event{ID: id, Time: noon.Add(time.Duration(second) * time.Second), Kind: kind, Subject: model.Subject{Kind: subject, Name: name}}
	if more != nil {
		more(&e)
	}
	return e
}

func endpoint(second int, id, kind, address, health string) model.Event {
	return event(second, id, kind, "Service", web.String(), func(e *model.Event) { e.Endpoint, e.To = address, health })
}

func said(k model.Known) string {
	if k.Service == nil {
		return "unknown"
	}
	var out []string
	for _, e := range k.Service.Endpoints {
		out = append(out, e.Address+" "+string(e.Health))
	}
	return strings.Join(append(out, string(k.Service.Presence)), ", ")
}

// Who was registered is replayed; a process that begins tells of all anew, so that what it
// does not tell of was gone.
func TestKnownAt(t *testing.T) {
	all := []model.Event{
		endpoint(0, "a-1", model.EventEndpointAdded, "10.0.0.1:80", "healthy"), endpoint(0, "a-2", model.EventEndpointAdded, "10.0.0.2:80", "healthy"),
		endpoint(10, "a-3", model.EventEndpointHealth, "10.0.0.1:80", "unhealthy"),
		event(11, "a-4", model.EventEndpointAdded, "Service", "consul/other", func(e *model.Event) { e.Endpoint = "10.0.0.9:80" }),
		event(15, "a-5", model.EventSourceState, "Source", "consul", func(e *model.Event) { e.To, e.Reason = "no leader", "consul has none" }),
		endpoint(20, "a-6", model.EventEndpointRemoved, "10.0.0.2:80", ""),
		endpoint(30, "b-1", model.EventEndpointAdded, "10.0.0.3:80", "healthy"), // another process, which knows but this one
		event(35, "b-2", model.EventSourceState, "Source", "consul", func(e *model.Event) { e.To = "fresh" }),
		endpoint(40, "b-3", model.EventEndpointRemoved, "10.0.0.3:80", ""),
	}
	for _, x := range []struct {
		second int
		want   string
		failed bool
	}{
		{-1, "unknown", false},
		{5, "10.0.0.1:80 healthy, 10.0.0.2:80 healthy, present", false},
		{12, "10.0.0.1:80 unhealthy, 10.0.0.2:80 healthy, present", false},
		{16, "10.0.0.1:80 unhealthy, 10.0.0.2:80 healthy, present", true},
		{25, "10.0.0.1:80 unhealthy, present", true},
		{32, "10.0.0.3:80 healthy, present", true},
		{36, "10.0.0.3:80 healthy, present", false},
		{50, "empty", false},
	} {
		at := noon.Add(time.Duration(x.second) * time.Second)
		until := all[:len(all)-len(after(all, at))]
		k := knownAt(until, web)
		if got := said(k); got != x.want || (k.Failure != nil) != x.failed || x.failed && (k.Reason != "no leader" || k.FailingSince != noon.Add(15*time.Second)) {
			t.Errorf("at %d: %s, %v (%s since %s), want %s", x.second, got, k.Failure, k.Reason, k.FailingSince, x.want)
		}
	}
}

// The state is that of the last turn, and it is not well since the first of them.
func TestStateAt(t *testing.T) {
	turn := func(second int, name string, to health.State) model.Event {
		return event(second, "a-1", model.EventUpstreamState, "Upstream", name, func(e *model.Event) { e.To, e.Reason = string(to), string(to)+" by then" })
	}
	all := []model.Event{turn(1, "web", health.Healthy), turn(5, "web", health.Critical), turn(7, "api", health.Healthy), turn(9, "web", health.Empty), turn(20, "web", health.Degraded), turn(30, "web", health.Hidden)}
	for n, want := range map[int]struct {
		state health.State
		since int
	}{1: {health.Healthy, 1}, 2: {health.Critical, 5}, 4: {health.Empty, 5}, 5: {health.Degraded, 20}, 6: {health.Hidden, 30}} {
		h := health.Upstream{Name: "web", State: health.Healthy}
		stateAt(&h, all[:n])
		if h.State != want.state || !h.Since.Equal(noon.Add(time.Duration(want.since)*time.Second)) || h.Why != string(want.state)+" by then" {
			t.Errorf("after %d: %s since %s: %s", n, h.State, h.Since, h.Why)
		}
	}
}

// What had begun and was not over is told, though it was found a moment later.
func TestFoundAt(t *testing.T) {
	begun := func(second, since int, code string) model.Event {
		return event(second, "a-1", model.EventFindingBegun, "Upstream", "web", func(e *model.Event) {
			e.From, e.To, e.Reason, e.Strength, e.Evidence = "critical", code, "says", "certain", []string{"a line"}
			e.Since = noon.Add(time.Duration(since) * time.Second)
		})
	}
	over := func(second int, code string) model.Event {
		return event(second, "a-1", model.EventFindingEnded, "Upstream", "web", func(e *model.Event) { e.From, e.To = code, "over" })
	}
	all := []model.Event{begun(0, -5, "H3"), begun(5, 5, "P2"), over(8, "P2"), begun(12, 9, "A1"), begun(13, 10, "K1"), over(25, "H3")}
	got := foundAt(all, "web", noon.Add(9*time.Second))
	codes := map[string]bool{}
	for _, f := range got {
		codes[string(f.Code)] = true
		if f.Strength.String() != "certain" || f.Says != "says" || len(f.Evidence) != 1 || f.Title == "" {
			t.Errorf("%+v", f)
		}
	}
	if len(codes) != 2 || !codes["H3"] || !codes["A1"] {
		t.Errorf("found %v", codes)
	}
	if got := foundAt(all, "api", noon.Add(9*time.Second)); len(got) != 0 {
		t.Errorf("of another: %v", got)
	}
}

// Checks that fail in the same moment with the same words have one cause; words that name
// nothing tell nothing.
func TestTogether(t *testing.T) {
	fail := func(second int, name, to, words string) model.Event {
		return event(second, "a-1", model.EventEndpointHealth, "Service", name, func(e *model.Event) {
			e.To, e.Reason = to, "Service '"+name+"' check: "+words // as Consul names checks
		})
	}
	const words = "database db-main: connection refused"
	all := []model.Event{
		fail(0, "consul/a", "unhealthy", words), fail(1, "consul/b", "unhealthy", words+"\nmore"), fail(2, "consul/b", "unhealthy", words), fail(3, web.String(), "unhealthy", words),
		fail(4, "consul/c", "unhealthy", "disk full on sda1"), fail(5, "consul/d", "healthy", words), fail(40, "consul/e", "unhealthy", words),
	}
	if got, by := together(all, web); strings.Join(got, " ") != "consul/a consul/b" || by != words {
		t.Errorf("%v by %q", got, by)
	}
	if got, _ := together([]model.Event{fail(0, "consul/a", "unhealthy", "late"), fail(0, web.String(), "unhealthy", "late")}, web); len(got) > 0 {
		t.Errorf("by words that name nothing: %v", got)
	}
}

// An address that stands in another service too is found, whoever declares it.
func TestElsewhere(t *testing.T) {
	docs, faults := spec.Parse("x", []byte("kind: Upstream\nname: web\nspec: {service: {source: consul}}\n---\nkind: Upstream\nname: api\nspec: {service: {source: consul}}\n---\nkind: Upstream\nname: again\nspec: {service: {source: consul, name: web}}\n"))
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	sp, _, _ := spec.New(1, docs)
	of := map[string][]model.Endpoint{"web": {{Address: "10.0.0.1:80"}, {Address: "10.0.0.2:80"}}, "api": {{Address: "10.0.0.2:80"}, {Address: "10.0.0.3:80"}}}
	entry := func(k model.ServiceKey) model.Known {
		return model.Known{Service: &model.Service{Endpoints: of[k.Name]}}
	}
	if got := elsewhere(sp, entry, model.ServiceKey{Source: spec.SourceLocal, Name: "own"}, of["web"]); len(got) != 0 {
		t.Errorf("of a document: %v", got)
	}
	got := elsewhere(sp, entry, web, of["web"])
	if len(got) != 1 || strings.Join(got["10.0.0.2:80"], " ") != "api" {
		t.Errorf("%v", got)
	}
}
