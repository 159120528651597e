package health

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Row is what is said of one endpoint: by its source, and by proxies, zone by zone.
type Row struct {
	Address string       `json:"address"`
	Source  model.Health `json:"source" enum:"healthy,unhealthy,draining,unlisted" doc:"unlisted: proxies have it, the source does not list it"`
	Reason  string       `json:"reason,omitempty" doc:"the source's"`
	Zones   []ZoneCount  `json:"zones" doc:"of the proxies"`
	// Conflicts are where proxies and source do not say the same.
	Conflicts []string `json:"conflicts"`
}

// ZoneCount is how many proxies of a zone would use an endpoint.
type ZoneCount struct {
	Zone        string `json:"zone"`
	Healthy     int    `json:"healthy" doc:"would use it"`
	Unhealthy   int    `json:"unhealthy" doc:"would not"`
	Missing     int    `json:"missing" doc:"do not have it"`
	Unreachable int    `json:"unreachable" doc:"could not connect to it in the last minute"`
}

// Unlisted is an endpoint that its source does not list.
const Unlisted model.Health = "unlisted"

// unreachableFor is for how long a failed connection is of now.
const unreachableFor = time.Minute

// Matrix holds what a source says of endpoints against what proxies say; views that
// have none of their endpoints are left out.
func Matrix(source string, endpoints []model.Endpoint, views []fleet.View, now time.Time) []Row {
	views = slices.DeleteFunc(slices.Clone(views), func(v fleet.View) bool { return len(v.Endpoints) == 0 && v.Members > 0 })
	rows := map[string]*Row{}
	for _, e := range endpoints {
		rows[e.Address] = &Row{Address: e.Address, Source: e.Health, Reason: e.Reason}
	}
	for _, v := range views {
		for _, e := range v.Endpoints {
			if rows[e.Address] == nil {
				rows[e.Address] = &Row{Address: e.Address, Source: Unlisted}
			}
		}
	}
	out := make([]Row, 0, len(rows))
	for _, r := range rows {
		r.fill(source, views, now)
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Row) int { return cmp.Compare(a.Address, b.Address) })
	return out
}

// says is what one proxy says of an endpoint.
type says struct {
	proxy, zone                   string
	healthy, missing, unreachable bool
}

func (r *Row) fill(source string, views []fleet.View, now time.Time) {
	zones := map[string]*ZoneCount{}
	r.Zones, r.Conflicts = []ZoneCount{}, []string{}
	var all []says
	for _, v := range views {
		z := zones[v.Zone]
		if z == nil {
			z = &ZoneCount{Zone: v.Zone}
			zones[v.Zone] = z
		}
		x := says{proxy: v.Proxy, zone: v.Zone}
		i := slices.IndexFunc(v.Endpoints, func(e fleet.EndpointView) bool { return e.Address == r.Address })
		switch {
		case i < 0:
			x.missing = true
			z.Missing++
		case v.Endpoints[i].Healthy:
			x.healthy = true
			z.Healthy++
		default:
			z.Unhealthy++
		}
		if i >= 0 && v.Endpoints[i].Unreachable.After(v.Endpoints[i].Since) && now.Sub(v.Endpoints[i].Unreachable) < unreachableFor {
			x.unreachable = true
			z.Unreachable++
		}
		all = append(all, x)
	}
	for _, z := range zones {
		r.Zones = append(r.Zones, *z)
	}
	slices.SortFunc(r.Zones, func(a, b ZoneCount) int { return cmp.Compare(a.Zone, b.Zone) })
	r.conflicts(source, all)
}

// conflicts names where proxies and source differ.
func (r *Row) conflicts(source string, all []says) {
	name := func(which func(says) bool, does string) {
		if text := who(all, which); text != "" {
			r.Conflicts = append(r.Conflicts, fmt.Sprintf("%s %s %s; %s", text, does, r.Address, r.word(source)))
		}
	}
	switch r.Source {
	case Unlisted:
		name(func(x says) bool { return !x.missing }, "kept")
	case model.Healthy:
		name(func(x says) bool { return x.unreachable }, "cannot reach")
		name(func(x says) bool { return !x.healthy && !x.missing && !x.unreachable }, "would not use")
		name(func(x says) bool { return x.missing }, "did not get")
	default:
		name(func(x says) bool { return x.healthy }, "would use")
		name(func(x says) bool { return x.missing }, "did not get")
	}
}

func (r *Row) word(source string) string {
	switch {
	case r.Source == Unlisted:
		return source + " does not list it"
	case r.Reason != "":
		return fmt.Sprintf("%s says %s: %s", source, r.Source, r.Reason)
	}
	return fmt.Sprintf("%s says %s", source, r.Source)
}

// who counts those proxies, with the zone where it is one: "3 of 40 proxies, all in zone b,".
func who(all []says, which func(says) bool) string {
	n, one := 0, ""
	zones := map[string]bool{}
	for _, x := range all {
		if which(x) {
			n++
			one = x.proxy
			zones[x.zone] = true
		}
	}
	switch {
	case n == 0:
		return ""
	case n == 1 && len(all) == 1:
		return "proxy " + one
	case n == 1:
		return fmt.Sprintf("proxy %s, 1 of %d,", one, len(all))
	case len(zones) == 1 && n < len(all):
		for z := range zones {
			if z != "" {
				return fmt.Sprintf("%d of %d proxies, all in zone %s,", n, len(all), z)
			}
		}
	}
	return fmt.Sprintf("%d of %d proxies", n, len(all))
}
