package discovery

import (
	"maps"
	"slices"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// importGrace is how long a name stays imported after its source ceased to list it.
// Consul knows a name only while it has an instance: without the grace the last
// deregistration of a rollout would take the upstream away, and its clients would be
// told that there is no such host in place of nobody there.
const importGrace = 10 * time.Minute

// Imports are the services that sources import, as of now. The same value is
// returned until something changed.
func (c *Catalog) Imports() *model.Imports {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.imports
}

// reportNames is what importers call.
func (c *Catalog) reportNames(source string, keys []model.ServiceKey, failed Failed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Now()
	listed := c.listed[source]
	if failed.Err != nil { // its own state tells it; what was listed stays, and its grace begins anew
		for k := range listed {
			listed[k] = now
		}
		return
	}
	if listed == nil {
		listed = map[model.ServiceKey]time.Time{}
		c.listed[source] = listed
	}
	for _, k := range keys {
		listed[k] = now
	}
	maps.DeleteFunc(listed, func(_ model.ServiceKey, last time.Time) bool { return now.Sub(last) > importGrace })
	next := &model.Imports{}
	for name := range c.cfg.Importers {
		if c.listed[name] == nil {
			next.Unknown = append(next.Unknown, name)
		}
		next.Keys = slices.AppendSeq(next.Keys, maps.Keys(c.listed[name]))
	}
	slices.Sort(next.Unknown)
	slices.SortFunc(next.Keys, model.ServiceKey.Compare)
	if slices.Equal(next.Keys, c.imports.Keys) && slices.Equal(next.Unknown, c.imports.Unknown) {
		return
	}
	c.imports = next
	select {
	case c.signal <- struct{}{}:
	default:
	}
}
