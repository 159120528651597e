package evidence

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// happened are the events of the last hour that are of an upstream, of its service or its
// source, oldest first: those in memory and, where that is not an hour long, on disk.
func (g *Gatherer) happened(ctx context.Context, recent []model.Event, k model.ServiceKey, upstream string) (out []model.Event, notAsked []string) {
	from := time.Now().Add(-lastHour)
	all := recent
	if len(all) < maxEvents && (len(all) == 0 || all[0].Time.After(from)) { // more is not read from disk either
		ctx, cancel := context.WithTimeout(ctx, gatherDisk)
		defer cancel()
		before, err := g.eventsBefore(ctx, from, all)
		if err != nil {
			notAsked = append(notAsked, "events before this server began: "+err.Error())
		}
		all = slices.Concat(before, all)
	}
	return about(all, k, upstream), notAsked
}

// eventsBefore are the events before this process began. They do not change: they are read once.
func (g *Gatherer) eventsBefore(ctx context.Context, from time.Time, memory []model.Event) ([]model.Event, error) {
	g.mu.Lock()
	earlier := g.earlier
	g.mu.Unlock()
	if earlier != nil {
		return *earlier, nil
	}
	recorded, err := g.Recorded.Between(ctx, from, time.Time{}, maxEvents)
	if err != nil {
		return nil, err
	}
	if len(memory) == 0 {
		return recorded, nil // which of them are this process's is not known
	}
	boot, _, _ := strings.Cut(memory[0].ID, "-")
	recorded = slices.DeleteFunc(recorded, func(e model.Event) bool { return strings.HasPrefix(e.ID, boot+"-") })
	g.mu.Lock()
	g.earlier = &recorded
	g.mu.Unlock()
	return recorded, nil
}

// about are the events of the last hour that matter to an upstream.
func about(all []model.Event, k model.ServiceKey, upstream string) []model.Event {
	return aboutSince(all, k, upstream, time.Now().Add(-lastHour))
}

// aboutSince are the events since a time that are of an upstream, of its service or its
// source, or of everything.
func aboutSince(all []model.Event, k model.ServiceKey, upstream string, from time.Time) (out []model.Event) {
	source := k.OfSource()
	for _, e := range all {
		switch {
		case e.Time.Before(from), strings.HasPrefix(e.Kind, "finding."): // a finding is no evidence of another
		case e.Subject.Kind == "Service" && e.Subject.Name == k.String(),
			e.Subject.Kind == string(spec.KindUpstream) && e.Subject.Name == upstream,
			e.Subject.Kind == "Source" && e.Subject.Name == source.String(),
			e.Subject.Kind == "External", strings.HasPrefix(e.Kind, "certificate."):
			out = append(out, e)
		}
	}
	return out
}

const maxEvents = 10_000
