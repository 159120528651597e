package spec

import (
	"fmt"
	"slices"
)

// fewEndpoints are so many in a group that which of them a proxy would use costs little
// to report.
const fewEndpoints = 500

// Proposals are what could be better and is not wrong: a group that does not say what
// its proxies report, whose proxies judge endpoints by themselves (health checks,
// outlier detection) and have few of them, could have them report on each. Endpoints are
// counted that documents declare; a group that reaches others is left alone.
func (s *Spec) Proposals() []Fault {
	count := map[string]int{}
	for _, svc := range s.LocalServices() {
		count[svc.Key.Name] = len(svc.Endpoints)
	}
	var out []Fault
	for _, d := range s.Documents(KindGroup) {
		if slices.Contains(d.Fields(), "spec.telemetry") {
			continue
		}
		n, judged, known := 0, false, true
		for _, name := range s.Upstreams(d.Name) {
			u, ok := s.Upstream(name)
			if !ok {
				continue
			}
			judged = judged || len(u.HealthChecks) > 0 || u.Outlier != nil
			key := u.Key(name)
			known = known && key.Source == SourceLocal && !u.Hostnames()
			n += count[key.Name]
		}
		if judged && known && n > 0 && n <= fewEndpoints {
			out = append(out, d.Fault("spec", fmt.Sprintf("its proxies judge %d endpoints by themselves; with `telemetry: endpoints` they report on each, and `wellspring health UPSTREAM --matrix` shows who sees what", n)))
		}
	}
	return out
}
