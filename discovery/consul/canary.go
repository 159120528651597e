package consul

import (
	"context"
	"fmt"
	"hash/fnv"
	"net"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// A canary is an instance with the agent, as a service's own are, so that what may fail
// for these fails for it. Where its server dies, its check goes critical by itself, and
// the agent takes it out.
const (
	canaryGone = time.Minute // the least that Consul takes
	canaryPort = 9           // discard: nobody is meant to connect
)

var _ discovery.Registry = (*Source)(nil)

// Flip implements discovery.Registry. The token needs service:write on wellspring-canary.
func (s *Source) Flip(ctx context.Context, c model.Canary) error {
	weight := int(c.Value)
	r := &api.AgentServiceRegistration{
		ID: c.ID, Name: model.CanaryService, Address: canaryAddress(c), Port: canaryPort,
		Weights:   &api.AgentWeights{Passing: weight, Warning: weight},
		Namespace: s.cfg.Namespace, Partition: s.cfg.Partition,
		Check: &api.AgentServiceCheck{
			Name: "Wellspring's canary", Notes: "changed by Wellspring to see how fresh what its proxies have is",
			TTL: c.Lasts.String(), Status: api.HealthPassing, DeregisterCriticalServiceAfter: canaryGone.String(),
		},
	}
	o := api.ServiceRegisterOpts{ReplaceExistingChecks: true, Token: s.token.get()}
	if err := s.client.Agent().ServiceRegisterOpts(r, o.WithContext(ctx)); err != nil {
		return canaryFailure(err)
	}
	return nil
}

// Retire implements discovery.Registry.
func (s *Source) Retire(ctx context.Context, id string) error {
	o := (&api.QueryOptions{Token: s.token.get(), Namespace: s.cfg.Namespace, Partition: s.cfg.Partition}).WithContext(ctx)
	if err := s.client.Agent().ServiceDeregisterOpts(id, o); err != nil {
		return canaryFailure(err)
	}
	return nil
}

func canaryFailure(err error) error {
	f := failure(err)
	if f.Reason == discovery.Denied {
		return fmt.Errorf("%w; give the token service:write on %s, or set canary: off for this source", f.Err, model.CanaryService)
	}
	return f.Err
}

// canaryAddress is one of loopback's for each canary and value: of two instances with one
// address a proxy is sent only one, and behind an address of Consul there may be several
// agents, each with the value that came to it.
func canaryAddress(c model.Canary) string {
	h := fnv.New32a()
	_, _ = fmt.Fprint(h, c.ID, "/", c.Value)
	sum := h.Sum32()
	return net.IPv4(127, byte(sum>>16), byte(sum>>8), byte(sum)).String()
}
