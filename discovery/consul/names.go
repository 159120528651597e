package consul

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Import says which services are upstreams without being declared.
type Import string

// The choices. Never imported are Consul itself, sidecar proxies, and whatever is
// registered with a kind: gateways and proxies.
const (
	ImportNone   Import = "none"
	ImportTagged Import = "tagged" // those with the tag wellspring
	ImportAll    Import = "all"
)

// ImportTag marks a service for ImportTagged.
const ImportTag = "wellspring"

const (
	// namesInterval is the time between two lists: every registration wakes a reader
	// of the list, so that it is read now and then and not watched.
	namesInterval = 4 * time.Second
	namesJitter   = 2 * time.Second
	proxySuffix   = "-sidecar-proxy"
)

// Names implements discovery.Importer. Each list is a plain read.
func (s *Source) Names(ctx context.Context, report func([]model.ServiceKey, discovery.Failed)) {
	pause := newBackoff()
	for {
		keys, failed := s.names(ctx)
		if ctx.Err() != nil {
			return
		}
		report(keys, failed)
		wait := namesInterval + rand.N(namesJitter)
		if failed.Err != nil {
			wait = pause.NextBackOff()
		} else {
			pause.Reset()
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

// names lists what is to be imported, and believes only what cannot be an absence of
// knowledge.
func (s *Source) names(ctx context.Context) ([]model.ServiceKey, discovery.Failed) {
	ctx, cancel := context.WithTimeout(ctx, plainWait)
	defer cancel()
	o := s.options(ctx, model.ServiceKey{})
	o.Filter = `ServiceKind == ""`
	if s.cfg.Import == ImportTagged {
		o.Filter += fmt.Sprintf(" and %q in ServiceTags", ImportTag)
	}
	services, meta, err := s.client.Catalog().Services(o)
	if err != nil {
		return nil, failure(err)
	}
	switch {
	case !meta.KnownLeader:
		return nil, discovery.Failed{Reason: discovery.NoLeader, Err: fmt.Errorf("consul listed services without knowing a leader")}
	case meta.ResultsFilteredByACLs:
		return nil, discovery.Failed{Reason: discovery.Filtered, Err: fmt.Errorf("consul hides services from this token; give it service:read and node:read for all that is to be imported")}
	case len(services) == 0 && strings.EqualFold(meta.DefaultACLPolicy, "deny") && s.token.get() == "":
		return nil, discovery.Failed{Reason: discovery.Denied, Err: fmt.Errorf("consul denies by default and no token is set; an empty list proves nothing")}
	case meta.LastIndex <= 1:
		return nil, discovery.Failed{Reason: discovery.BadAnswer, Err: fmt.Errorf("consul listed services with index %d, which no loaded state has", meta.LastIndex)}
	}
	var keys []model.ServiceKey
	for name := range services {
		if name == "" || name == probeService || name == model.CanaryService || strings.HasSuffix(name, proxySuffix) {
			continue
		}
		keys = append(keys, model.ServiceKey{Source: s.cfg.Name, Name: name})
	}
	slices.SortFunc(keys, model.ServiceKey.Compare)
	return keys, discovery.Failed{}
}
