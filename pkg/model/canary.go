package model

import (
	"strings"
	"time"
)

// CanaryService is the service as which canaries are registered, in every source. It is
// imported by nobody.
const CanaryService = "wellspring-canary"

// MaxCanary is the highest value of a canary: a weight in Consul has 16 bits.
const MaxCanary = 1<<16 - 1

// Canary is an instance of CanaryService whose weight is changed now and then, so that
// one sees when a change arrives. No request goes to it.
type Canary struct {
	ID    string // of the instance; each server has its own
	Value uint32 // its weight, 1 to MaxCanary
	// Lasts is after which a registry may forget it where it is not flipped again.
	Lasts time.Duration
}

// CanaryUpstream is the cluster by which proxies hold the canaries of a source.
func CanaryUpstream(source string) string { return CanaryService + "-" + source }

// CanaryKey is the service of the canaries of a source.
func CanaryKey(source string) ServiceKey { return ServiceKey{Source: source, Name: CanaryService} }

// CanaryValues are those that a canary has in an answer: more than one where it was
// registered with several agents behind one address.
func (s *Service) CanaryValues(id string) (values []uint32) {
	if s == nil {
		return nil
	}
	for _, e := range s.Endpoints {
		if _, of, _ := strings.Cut(e.ID, "/"); of == id || e.ID == id { // NODE/SERVICE_ID in Consul
			values = append(values, e.Weight)
		}
	}
	return values
}
