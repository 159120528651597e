package xds

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// ErrNoGroup and ErrTwoGroups refuse a proxy, as does model.ErrDenied.
var (
	ErrNoGroup   = errors.New("no group matches this proxy")
	ErrTwoGroups = errors.New("more than one group matches this proxy")
)

// GroupOf finds the one group of a proxy, and what the proxy is asked to report: what
// the group says, as far as its bootstrap carries it.
func (p *Publisher) GroupOf(x model.Proxy) (string, model.Telemetry, error) {
	s := p.Spec()
	groups := s.GroupsOf(x)
	switch len(groups) {
	case 1:
		g, _ := s.Group(groups[0])
		if !g.Allows(x.Identity) {
			return "", "", fmt.Errorf("%w: group %q takes certificates with the names %s; this stream has %s",
				model.ErrDenied, groups[0], strings.Join(g.Identities, ", "), cmp.Or(strings.Join(x.Identity, ", "), "no certificate"))
		}
		return groups[0], model.TelemetryOf(g.Telemetry).Least(x.Telemetry), nil
	case 0:
		var names []string
		for _, d := range s.Documents(spec.KindGroup) {
			names = append(names, d.Name)
		}
		return "", "", fmt.Errorf("%w (node id %q, cluster %q, zone %q; groups: %s); apply a Group that matches it, or start Envoy with the cluster of one",
			ErrNoGroup, x.ID, x.Cluster, x.Locality.Zone, cmp.Or(strings.Join(names, ", "), "none"))
	}
	return "", "", fmt.Errorf("%w (node id %q: %s); make their match keys exclude each other", ErrTwoGroups, x.ID, strings.Join(groups, ", "))
}
