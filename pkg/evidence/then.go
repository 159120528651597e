package evidence

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// slack is how much later what began by a time may be found, and recorded.
const slack = 30 * time.Second

// Then gathers what is recorded of an upstream at a time that is over: the documents of
// then, the events until then, and what the standing watch had found. Nobody is asked. The
// error is model.ErrNotFound where there was no such upstream.
func (g *Gatherer) Then(ctx context.Context, name string, at time.Time) (c diagnose.Case, err error) {
	c = diagnose.Case{At: at, Upstream: name, Past: true, NotAsked: []string{
		"proxies, and endpoints themselves: this is of a time that is over, by what was recorded",
	}}
	sp, why := g.specAt(at)
	if why != "" {
		c.NotAsked = append(c.NotAsked, "the documents of then: "+why+"; those of now are taken")
	}
	u, ok := sp.Upstream(name)
	if !ok {
		return c, fmt.Errorf("%s: %w at %s", spec.Ref{Kind: spec.KindUpstream, Name: name}, model.ErrNotFound, at.UTC().Format(time.DateTime))
	}
	all, err := g.Recorded.Between(ctx, time.Time{}, at.Add(slack), maxEvents)
	if err != nil {
		return c, err
	}
	key := u.Key(name)
	c.Spec, c.Groups = u, groupsOf(sp, name)
	until := all[:len(all)-len(after(all, at))]
	if len(all) == maxEvents {
		c.NotAsked = append(c.NotAsked, fmt.Sprintf("what happened before %s: only the %d newest events until then are read", all[0].Time.UTC().Format(time.DateTime), maxEvents))
	}
	c.Known = knownAt(until, key)
	if len(until) == 0 || until[0].Time.After(at) {
		c.NotAsked = append(c.NotAsked, "who was registered: nothing is recorded of then")
	}
	c.LastFresh = c.Known.Since
	c.Health = health.Of(name, u, c.Known)
	stateAt(&c.Health, until)
	c.Endpoints, c.Problems = u.Select(name, c.Known.Service)
	c.Events = aboutSince(until, key, name, at.Add(-lastHour))
	c.Recorded = foundAt(all, name, at)
	g.before(&c, "")
	return c, nil
}

// after are the events after a time.
func after(all []model.Event, at time.Time) []model.Event {
	i, _ := slices.BinarySearchFunc(all, at, func(e model.Event, at time.Time) int {
		if e.Time.After(at) {
			return 1
		}
		return -1
	})
	return all[i:]
}

// SpecAt are the documents in force at a time, with what is imported now.
func (g *Gatherer) SpecAt(at time.Time) *spec.Spec {
	sp, _ := g.specAt(at)
	return sp
}

// specAt also says why they are those of now instead.
func (g *Gatherer) specAt(at time.Time) (sp *spec.Spec, why string) {
	published := g.Publisher.Spec()
	now := g.present()
	for before := uint64(0); ; {
		page, _, err := g.Store.Revisions(before, revisionsAtOnce)
		if err != nil {
			return now, err.Error()
		}
		if len(page) == 0 {
			return now, "no revision of then is kept"
		}
		for _, r := range page {
			if r.Time.After(at) {
				continue
			}
			docs, err := g.Store.At(r.Number)
			if err != nil {
				return now, err.Error()
			}
			then, _, _ := spec.New(r.Number, slices.Collect(maps.Values(docs))) // it was in force: it had no fault
			return then.WithImportsOf(published), ""
		}
		before = page[len(page)-1].Number
	}
}

// knownAt is what a source had said of a service by a time: events replayed. A process that
// begins tells all of them anew.
func knownAt(events []model.Event, key model.ServiceKey) (k model.Known) {
	source := key.OfSource()
	boot, there := "", map[string]model.Endpoint{}
	for _, e := range events {
		switch {
		case e.Subject.Kind == "Service" && e.Subject.Name == key.String():
			if b, _, _ := strings.Cut(e.ID, "-"); b != boot {
				boot = b
				clear(there)
			}
			k.Since = e.Time
			switch e.Kind {
			case model.EventEndpointAdded, model.EventEndpointHealth:
				there[e.Endpoint] = model.Endpoint{ID: e.Endpoint, Address: e.Endpoint, Health: model.Health(e.To), Reason: e.Reason, Weight: 1}
			case model.EventEndpointRemoved:
				delete(there, e.Endpoint)
			}
		case e.Subject.Kind == "Source" && e.Subject.Name == source.String() && e.Kind == model.EventSourceState:
			k.Failure, k.Reason, k.FailingSince = nil, "", time.Time{}
			if e.To != "fresh" {
				k.Failure, k.Reason, k.FailingSince = errors.New(e.Reason), e.To, e.Time
			}
		}
	}
	if boot == "" { // nothing was ever told of it
		return k
	}
	k.Service = &model.Service{Key: key, Presence: model.Present}
	for _, address := range slices.Sorted(maps.Keys(there)) {
		k.Service.Endpoints = append(k.Service.Endpoints, there[address])
	}
	if len(there) == 0 {
		k.Service.Presence = model.Empty
	}
	return k
}

// stateAt is what health said of an upstream: its last turn, and since when it was not
// well.
func stateAt(h *health.Upstream, events []model.Event) {
	for _, e := range events {
		if e.Kind != model.EventUpstreamState || e.Subject.Name != h.Name {
			continue
		}
		was := h.State
		h.State, h.Why = health.State(e.To), e.Reason
		if h.Since.IsZero() || !was.Worse(health.Degraded) || !h.State.Worse(health.Degraded) {
			h.Since = e.Time
		}
	}
}

// foundAt is what the standing watch found of an upstream that had begun by a time, and was
// not over.
func foundAt(events []model.Event, name string, at time.Time) []diagnose.Finding {
	open := map[diagnose.Code]diagnose.Finding{}
	for _, e := range events {
		if e.Subject.Kind != string(spec.KindUpstream) || e.Subject.Name != name {
			continue
		}
		switch e.Kind {
		case model.EventFindingBegun:
			if e.Since.After(at) {
				continue
			}
			open[diagnose.Code(e.To)] = diagnose.Recorded(e)
		case model.EventFindingEnded:
			if !e.Time.After(at) {
				delete(open, diagnose.Code(e.From))
			}
		}
	}
	return slices.Collect(maps.Values(open))
}
