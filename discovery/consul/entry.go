package consul

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// maxReason bounds what is kept of a check's output, in bytes.
const maxReason = 256

// reportOf says an answer in our words. A name exists in Consul only with an
// instance, so that none is Absent.
func (s *Source) reportOf(k model.ServiceKey, entries []*api.ServiceEntry) (report discovery.Report) {
	// What a registry says is hostile input: what cannot be read takes nothing away.
	defer func() {
		if r := recover(); r != nil {
			report = discovery.Failed{Reason: discovery.BadAnswer, Err: fmt.Errorf("the answer about %q cannot be read: %v", k.Name, r)}
		}
	}()
	if len(entries) == 0 {
		return discovery.Absent{}
	}
	p := discovery.Present{Endpoints: make([]model.Endpoint, 0, len(entries))}
	seen := map[string]bool{}
	for i, e := range entries {
		ep, err := s.endpoint(k, e)
		if err == nil && seen[ep.ID] {
			err = fmt.Errorf("is listed twice")
		}
		if err != nil {
			id := ep.ID
			if id == "" {
				id = fmt.Sprintf("[%d]", i)
			}
			p.Problems = append(p.Problems, model.Problem{Document: k.String(), Field: id, Message: err.Error()})
			continue
		}
		seen[ep.ID] = true
		p.Endpoints = append(p.Endpoints, ep)
	}
	slices.SortFunc(p.Endpoints, func(a, b model.Endpoint) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(p.Problems, func(a, b model.Problem) int { return strings.Compare(a.Field, b.Field) })
	return p
}

// endpoint reads one entry of /v1/health/service.
func (s *Source) endpoint(k model.ServiceKey, e *api.ServiceEntry) (model.Endpoint, error) {
	if e == nil || e.Service == nil || e.Node == nil {
		return model.Endpoint{}, fmt.Errorf("has no node or no service in it")
	}
	ep := model.Endpoint{ID: e.Node.Node + "/" + e.Service.ID, Tags: e.Service.Tags, Metadata: e.Service.Meta}
	host := e.Service.Address
	if host == "" {
		host = e.Node.Address
	}
	if host == "" {
		return ep, fmt.Errorf("has no address")
	}
	if e.Service.Port < 1 || e.Service.Port > 65535 {
		return ep, fmt.Errorf("has port %d; register it with the port that it listens on", e.Service.Port)
	}
	ep.Address = net.JoinHostPort(host, strconv.Itoa(e.Service.Port))
	for tag, a := range e.Service.TaggedAddresses {
		if a.Address == "" {
			continue
		}
		port := a.Port
		if port == 0 {
			port = e.Service.Port
		}
		if ep.Addresses == nil {
			ep.Addresses = map[string]string{}
		}
		ep.Addresses[tag] = net.JoinHostPort(a.Address, strconv.Itoa(port))
	}
	ep.Health, ep.Weight, ep.Reason, ep.Check = health(e)
	lk := s.cfg.LocalityKeys
	meta := func(key string) string {
		if v := e.Service.Meta[key]; v != "" {
			return v
		}
		return e.Node.Meta[key]
	}
	ep.Locality = model.Locality{Region: meta(lk.Region), Zone: meta(lk.Zone), SubZone: meta(lk.SubZone)}
	ep.Origin = model.Origin{Source: k.Source, Key: k.String() + "#" + ep.ID}
	return ep, nil
}

// health folds the checks of node and service: maintenance, then critical, then
// warning, then passing. https://developer.hashicorp.com/consul/api-docs/health
func health(e *api.ServiceEntry) (h model.Health, weighs uint32, reason, check string) {
	status := worst(e.Checks)
	weight := e.Service.Weights.Passing
	h = model.Healthy
	switch status {
	case api.HealthMaint:
		h = model.Draining
	case api.HealthCritical:
		h = model.Unhealthy
	case api.HealthWarning:
		weight = e.Service.Weights.Warning
	}
	for _, c := range e.Checks {
		if c == nil {
			continue
		}
		maint := c.CheckID == api.NodeMaint || strings.HasPrefix(c.CheckID, api.ServiceMaintPrefix)
		switch {
		case status == api.HealthMaint && maint:
			reason = "maintenance: " + c.Notes
		case status != api.HealthPassing && status != api.HealthMaint && c.Status == status, status == api.HealthCritical && c.Status != api.HealthPassing && c.Status != api.HealthWarning:
			reason = c.Name + ": " + strings.TrimSpace(c.Output)
		default:
			continue
		}
		check = c.CheckID
		break
	}
	if weight <= 0 && h == model.Healthy {
		// Envoy refuses weight 0; draining is what it means.
		h, reason, check = model.Draining, "weight 0 in Consul", ""
	}
	return h, clampWeight(weight), clip(reason), check
}

// worst is the aggregate of checks. A status that is not known counts as critical:
// nobody says that the instance works.
func worst(checks api.HealthChecks) string {
	rank := map[string]int{api.HealthPassing: 0, api.HealthWarning: 1, api.HealthCritical: 2, api.HealthMaint: 3}
	out := api.HealthPassing
	for _, c := range checks {
		if c == nil {
			continue
		}
		s := c.Status
		if c.CheckID == api.NodeMaint || strings.HasPrefix(c.CheckID, api.ServiceMaintPrefix) {
			s = api.HealthMaint
		} else if _, known := rank[s]; !known {
			s = api.HealthCritical
		}
		if rank[s] > rank[out] {
			out = s
		}
	}
	return out
}

func clampWeight(w int) uint32 { return uint32(min(max(w, 1), 1<<16)) }

// clip cuts a text to maxReason bytes of valid UTF-8.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "�")
	if len(s) <= maxReason {
		return s
	}
	s = s[:maxReason]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}
