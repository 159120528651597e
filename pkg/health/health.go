// Package health says in one word, with counts and a phrase, how an upstream
// does. Its functions are pure: what is declared and what is known go in.
package health

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// State of an upstream.
type State string

// The states, best first.
const (
	Healthy  State = "healthy"  // every endpoint is usable
	Degraded State = "degraded" // some are out, and the share of usable ones is not below panic
	Unknown  State = "unknown"  // nobody ever said who is there
	Hidden   State = "hidden"   // below the panic threshold, and proxies send to the dead too
	Critical State = "critical" // below the panic threshold, or none is usable
	Empty    State = "empty"    // nobody is there: requests get 503 UH
)

// States lists the states, best first.
var States = []State{Healthy, Degraded, Unknown, Hidden, Critical, Empty}

// Worse tells whether s is worse than o.
func (s State) Worse(o State) bool { return s.rank() > o.rank() }

func (s State) rank() int {
	for i, x := range States {
		if x == s {
			return i
		}
	}
	return -1
}

// Counts of an upstream's endpoints. Draining ones are in Total and not in the
// share.
type Counts struct {
	Total     int `json:"total"`
	Healthy   int `json:"healthy"`
	Unhealthy int `json:"unhealthy"`
	Draining  int `json:"draining"`
}

// Stale says since when the source cannot be asked, and why.
type Stale struct {
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
}

// Upstream is the health of one upstream: as its source reports it, and as the fleet
// sees it.
type Upstream struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Counts Counts `json:"counts" doc:"as the source says"`
	// Spare is how many more endpoints may fail before Envoy panics or answers 503 UH.
	Spare int `json:"spare" doc:"how many more endpoints may fail before a proxy panics (sends requests to all of them), or answers 503 UH"`
	// Since is when the service last changed, or when proxies first saw what decides.
	Since time.Time `json:"since,omitzero"`
	// Why is one phrase, empty while all is well.
	Why     string           `json:"why,omitempty"`
	Service model.ServiceKey `json:"service"`
	Stale   *Stale           `json:"stale,omitempty"`
	// Seen is how the fleet sees it; nil where nobody looked.
	Seen *Seen `json:"seen,omitempty"`

	decided *Part // by whom the state was decided; nil is the source
}

// Of joins a declared upstream with what is known of its service.
func Of(name string, u *spec.Upstream, k model.Known) Upstream {
	h := Upstream{Name: name, Service: u.Key(name), Since: k.Since}
	if k.Failure != nil {
		h.Stale = &Stale{Since: k.FailingSince, Why: k.Failure.Error()}
	}
	if k.Service == nil {
		h.State, h.Why = Unknown, "no answer from source "+h.Service.Source+" yet"
		if k.Failure != nil {
			h.Why = k.Failure.Error()
		}
		return h
	}
	eps, problems := u.Select(name, k.Service)
	out := map[string]int{}
	for _, e := range eps {
		h.Counts.Total++
		switch e.Health {
		case model.Healthy:
			h.Counts.Healthy++
		case model.Draining:
			h.Counts.Draining++
		default:
			h.Counts.Unhealthy++
			out[e.Reason]++
		}
	}
	h.Spare = spare(u, h.Counts.Healthy, h.Counts.Total-h.Counts.Draining)
	h.State, h.Why = judge(u, k.Service, h.Counts, len(problems)+len(k.Service.Problems), out)
	return h
}

func judge(u *spec.Upstream, svc *model.Service, c Counts, problems int, out map[string]int) (State, string) {
	share := c.Total - c.Draining
	switch {
	case c.Total == 0:
		return Empty, whyEmpty(svc, problems)
	case c.Healthy == 0:
		return Critical, fmt.Sprintf("none of %d usable: %s", c.Total, reasons(out, c.Draining))
	case c.Unhealthy == 0:
		if problems > 0 {
			return Degraded, fmt.Sprintf("%d records cannot be used", problems)
		}
		if c.Draining > 0 {
			return Healthy, fmt.Sprintf("%d draining", c.Draining)
		}
		return Healthy, ""
	case float64(c.Healthy)*100 < min(u.WhenUnavailable.Panic.Below, enough)*float64(share):
		return Critical, fmt.Sprintf("%d of %d usable, below %g %%: %s", c.Healthy, share, u.WhenUnavailable.Panic.Below, reasons(out, 0))
	}
	return Degraded, fmt.Sprintf("%d of %d out: %s", c.Unhealthy, share, reasons(out, 0))
}

func whyEmpty(svc *model.Service, problems int) string {
	switch {
	case problems > 0:
		return fmt.Sprintf("%d records, none can be used", problems)
	case len(svc.Endpoints) > 0:
		return fmt.Sprintf("%d instances, none is selected by tags, metadata or address tag", len(svc.Endpoints))
	case svc.Presence == model.Absent:
		return fmt.Sprintf("source %s knows no service %q", svc.Key.Source, svc.Key.Name)
	}
	return "the service has no endpoints"
}

// reasons names the most frequent reason.
func reasons(out map[string]int, draining int) string {
	if len(out) == 0 {
		return fmt.Sprintf("%d draining", draining)
	}
	keys := make([]string, 0, len(out))
	for r := range out {
		keys = append(keys, r)
	}
	sort.Slice(keys, func(i, j int) bool {
		if out[keys[i]] != out[keys[j]] {
			return out[keys[i]] > out[keys[j]]
		}
		return keys[i] < keys[j]
	})
	first := keys[0]
	if first == "" {
		first = "reported unhealthy"
	}
	if len(first) > 60 {
		first = strings.ToValidUTF8(first[:60], "") + "…"
	}
	if len(keys) > 1 {
		first += fmt.Sprintf(" (and %d other reasons)", len(keys)-1)
	}
	return first
}
