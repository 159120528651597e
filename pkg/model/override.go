package model

import "time"

// Override is an operator's word about one endpoint of an upstream. It goes before
// what the source says, survives a restart, and ends by time or by hand.
type Override struct {
	Upstream string `json:"upstream"`
	// Endpoint is its id.
	Endpoint string         `json:"endpoint"`
	Action   OverrideAction `json:"action" enum:"drain,enable"`
	Reason   string         `json:"reason"`
	Actor    string         `json:"actor"`
	Since    time.Time      `json:"since"`
	// Until is when it ends by itself; zero is never.
	Until time.Time `json:"until,omitzero"`
}

// OverrideAction is what an override does.
type OverrideAction string

// The actions: drain takes no new requests, enable is used whatever the source says
// of its health.
const (
	OverrideDrain  OverrideAction = "drain"
	OverrideEnable OverrideAction = "enable"
)

// Ended tells whether it is over.
func (o Override) Ended(now time.Time) bool { return !o.Until.IsZero() && !now.Before(o.Until) }

// Overridden returns the service with the overrides of one upstream in it: the very
// same where none of them is about its endpoints.
func (s *Service) Overridden(overrides []Override) *Service {
	if s == nil || len(overrides) == 0 {
		return s
	}
	by := map[string]Override{}
	for _, o := range overrides {
		by[o.Endpoint] = o
	}
	out := *s
	out.Endpoints = nil
	touched := false
	for _, e := range s.Endpoints {
		if o, ok := by[e.ID]; ok {
			e, touched = o.apply(e), true
		}
		out.Endpoints = append(out.Endpoints, e)
	}
	if !touched {
		return s
	}
	return &out
}

func (o Override) apply(e Endpoint) Endpoint {
	said := string(e.Health)
	if e.Reason != "" {
		said += ": " + e.Reason
	}
	e.Health = Draining
	word := "drained"
	if o.Action == OverrideEnable {
		e.Health, word = Healthy, "enabled"
	}
	e.Reason = word + " by " + o.Actor + " (" + o.Reason + ")"
	if !o.Until.IsZero() {
		e.Reason += " until " + o.Until.UTC().Format(time.RFC3339)
	}
	e.Reason += "; the source says " + said
	return e
}
