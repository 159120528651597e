package xds

import (
	"slices"
	"strings"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

// canaries are the upstreams by which every Envoy holds the canaries of sources. They go
// the road of every other, and no route leads to them. Nobody waits for their sources:
// until these answer, there is nobody in them.
func canaries(sources []string) (out []published) {
	for _, source := range slices.Sorted(slices.Values(sources)) {
		u := &spec.Upstream{}
		spec.SetDefaults(u)
		key := model.CanaryKey(source)
		u.Service.Source, u.Service.Name = key.Source, key.Name
		out = append(out, published{definition: definition{name: model.CanaryUpstream(source), body: u}, key: key})
	}
	return out
}

// isCanary tells whether a cluster is that of a canary, of this process or of one before.
func isCanary(cluster string) bool { return strings.HasPrefix(cluster, model.CanaryUpstream("")) }

// Canary is the newest assignment with the canaries of a source: its name and version,
// and the service that it was made of, which is nil where there is none.
func (p *Publisher) Canary(source string) (assignment, version string, of *model.Service) {
	at := slices.IndexFunc(p.own, func(pub published) bool { return pub.key.Source == source })
	if at < 0 {
		return "", "", nil
	}
	name := translate.AssignmentName(p.own[at].name, p.own[at].body)
	p.mu.Lock()
	defer p.mu.Unlock()
	made, ok := p.made[name]
	if !ok || made.resource == nil {
		return name, "", nil
	}
	return name, made.resource.Version, made.of.svc
}
