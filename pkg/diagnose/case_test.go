package diagnose

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/envoyadmin"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/probe"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

var now = time.Date(2026, 7, 1, 14, 9, 22, 0, time.UTC)

var catalogKey = model.ServiceKey{Source: "consul", Name: "catalog"}

// well is a case in which all is well: two endpoints, and two proxies in two zones.
func well() *Case {
	c := &Case{
		At: now, Upstream: "catalog", Spec: &spec.Upstream{Service: spec.ServiceRef{Source: "consul", Name: "catalog"}}, LastFresh: now.Add(-2 * time.Second), Groups: []string{"edge"},
		Health: health.Upstream{Name: "catalog", State: health.Healthy, Counts: health.Counts{Total: 2, Healthy: 2}, Since: now.Add(-time.Hour), Service: catalogKey, Seen: &health.Seen{Proxies: 2, Reporting: 2, Healthy: 2, Members: 2, Requests: 1000}},
	}
	for i := range 2 {
		c.Endpoints = append(c.Endpoints, model.Endpoint{ID: fmt.Sprintf("n/%d", i), Address: fmt.Sprintf("10.0.0.%d:80", i+1), Health: model.Healthy, Weight: 1})
		id, zone := fmt.Sprintf("edge-%d", i), []string{"a", "b"}[i]
		p := model.Proxy{ID: id, Group: "edge", Locality: model.Locality{Zone: zone}, Version: "1.40.0"}
		c.Streams = append(c.Streams, model.Stream{Proxy: p, Delivery: []model.Delivery{{Type: "clusters", Version: "1", AckedVersion: "1"}}})
		c.Members = append(c.Members, fleet.Member{Proxy: p, Began: now.Add(-time.Hour)})
		v := fleet.View{Proxy: id, Zone: zone, At: now, Members: 2, Healthy: 2}
		for j := range 2 {
			v.Endpoints = append(v.Endpoints, fleet.EndpointView{Address: fmt.Sprintf("10.0.0.%d:80", j+1), Healthy: true})
		}
		c.Views = append(c.Views, v)
	}
	c.Known = model.Known{Service: &model.Service{Key: catalogKey, Presence: model.Present, Endpoints: c.Endpoints}, Since: now.Add(-time.Hour)}
	return c
}

const minute = time.Minute

// empties leaves nobody: its source lists nobody, and proxies have nobody, for so long.
func (c *Case) empties(presence model.Presence) {
	c.Known.Service = &model.Service{Key: catalogKey, Presence: presence}
	c.Endpoints = nil
	c.nobody()
}

func (c *Case) nobody() {
	since := now.Add(-6 * minute)
	c.Health.State, c.Health.Since, c.Health.Why = health.Empty, since, "nobody"
	c.Health.Seen.Nobody = &health.Part{Count: 2, Zones: []string{"a", "b"}, Some: []string{"edge-0", "edge-1"}, Since: since}
}

// out has proxies say that endpoints are not usable.
func (c *Case) out(proxies ...int) {
	for i := range c.Views {
		for j := range c.Views[i].Endpoints {
			c.Views[i].Endpoints[j].Since = now.Add(-minute)
		}
	}
	for _, i := range proxies {
		c.Views[i].Healthy = 0
		for j := range c.Views[i].Endpoints {
			c.Views[i].Endpoints[j].Healthy = false
		}
	}
	since := now.Add(-6 * minute)
	c.Health.State, c.Health.Since = health.Hidden, since
	c.Health.Seen.Panicking = &health.Part{Count: len(proxies), Some: []string{"edge-0"}, Since: since}
	c.Spec.HealthChecks = []spec.HealthCheck{{HTTP: &spec.HTTPCheck{Path: "/healthz"}, Timeout: spec.Duration(time.Second)}}
}

// forgets has both endpoints leave, one some time after the other; from here they are as
// told.
func (c *Case) forgets(apart time.Duration, outcomes ...probe.Outcome) {
	c.empties(model.Empty)
	for i, o := range outcomes {
		e := event(model.EventEndpointRemoved, catalogKey.String(), 6*minute-time.Duration(i)*apart)
		e.Endpoint = fmt.Sprintf("10.0.0.%d:80", i+1)
		c.Events = append(c.Events, e)
		c.Left = append(c.Left, probe.Result{Endpoint: e.Endpoint, Target: e.Endpoint, Outcome: o})
	}
}

// outFor has nobody use the endpoints for so long; their check ends from here as told.
func (c *Case) outFor(d time.Duration, o probe.Outcome) {
	c.out(0, 1)
	for i := range c.Views {
		for j := range c.Views[i].Endpoints {
			c.Views[i].Endpoints[j].Since = now.Add(-d)
		}
	}
	for _, e := range c.Endpoints {
		c.Probes = append(c.Probes, probe.Result{Endpoint: e.Address, Target: e.Address, Outcome: o, Checked: true})
	}
}

// asks has one proxy answer, whose cluster asks for an assignment of a name.
func (c *Case) asks(name string) {
	is := &envoyadmin.ClusterConfig{Name: "catalog", Type: "EDS", Serving: true}
	is.Assignment.Service = name
	c.Asked = []Asked{{Proxy: "edge-0", Envoy: Envoy{Dump: &envoyadmin.Dump{
		Config:   &envoyadmin.Config{Clusters: map[string]*envoyadmin.ClusterConfig{"catalog": is}},
		Clusters: map[string]*envoyadmin.Cluster{"catalog": {Hosts: []envoyadmin.Host{{Address: "10.0.0.1:80", Usable: true, ConnectFailed: 3, Connections: 9}}}},
		Stats:    envoyadmin.Stats{"cluster.catalog.update_success": 1, "control_plane.connected_state": 1},
	}}}}
}

// lacks has proxies not hold the second endpoint, for so long.
func (c *Case) lacks(d time.Duration, proxies ...int) {
	for i := range c.Views {
		c.Views[i].Since = now.Add(-d)
	}
	for _, i := range proxies {
		c.Views[i].Members, c.Views[i].Endpoints = 1, c.Views[i].Endpoints[:1]
	}
}

// turns has it be not well for so long, so many times, with a threshold of checks.
func (c *Case) turns(threshold uint32, d time.Duration, times int) {
	c.Spec.HealthChecks = []spec.HealthCheck{{TCP: &spec.TCPCheck{}, UnhealthyThreshold: threshold}}
	for i := range times {
		for _, x := range []struct {
			at time.Duration
			to string
		}{{0, "critical"}, {d, "healthy"}} {
			e := event(model.EventUpstreamState, "catalog", 50*minute-time.Duration(i)*5*minute-x.at)
			e.To = x.to
			c.Events = append(c.Events, e)
		}
	}
}

// minutes counts so many requests in each of some minutes, and so many in the last one.
func (c *Case) minutes(usual uint64, n int, last uint64) {
	at := now.Truncate(minute).Add(-minute)
	for i := range n {
		c.Minutes = append(c.Minutes, fleet.Span{From: at.Add(-time.Duration(i+2) * minute), Requests: usual})
	}
	c.Minutes = append(c.Minutes, fleet.Span{From: at, Requests: last})
}

func (c *Case) unknownFor(reason discovery.Reason) {
	c.Known = model.Known{Failure: errors.New("no"), Reason: string(reason), FailingSince: now.Add(-minute)}
	c.Endpoints = nil
	c.Health.State, c.Health.Why, c.Health.Seen = health.Unknown, "no", nil
}

func (c *Case) unhealthy(h model.Health, check string) {
	for i := range c.Endpoints {
		c.Endpoints[i].Health, c.Endpoints[i].Check, c.Endpoints[i].Reason = h, check, "disk: full"
	}
	c.Health.State, c.Health.Since, c.Health.Counts = health.Critical, now.Add(-6*minute), health.Counts{Total: 2, Unhealthy: 2}
}

func (c *Case) probed(o probe.Outcome, says string, checked bool) {
	for _, e := range c.Endpoints {
		c.Probes = append(c.Probes, probe.Result{Endpoint: e.Address, Target: e.Address, Outcome: o, Says: says, Checked: checked})
	}
}

func (c *Case) failed(flag string, n uint64) {
	c.Failures = append(c.Failures, fleet.Failure{Route: "all", Flag: flag, Count: 10 * n, Lately: n, Since: now.Add(-time.Hour), Begun: now.Add(-minute), Last: now.Add(-time.Second)})
	c.Health.Seen.Failed += n
	c.Health.State, c.Health.Why = health.Degraded, "requests failed"
}

// asked has the first proxy answer with one cluster.
func (c *Case) asked(e *Envoy) {
	e.Clusters["catalog"], e.Config.Clusters["catalog"] = e.Clusters["c"], e.Config.Clusters["c"]
	e.Clusters["catalog"].StatName = "catalog"
	e.Config.Clusters["catalog"].Name = "catalog"
	delete(e.Clusters, "c")
	delete(e.Config.Clusters, "c")
	c.Asked = append(c.Asked, Asked{Proxy: "edge-0", Zone: "a", Envoy: *e})
}

func event(kind, subject string, ago time.Duration) model.Event {
	return model.Event{Kind: kind, Subject: model.Subject{Name: subject}, Endpoint: "10.0.0.1:80", Time: now.Add(-ago), Reason: "because"}
}

// Each cause of the control plane's by its evidence, without what any Envoy shows: the
// first finding, and how strong it is.
func TestCases(t *testing.T) {
	key := catalogKey.String()
	for _, x := range []struct {
		name string
		do   func(c *Case)
		want string // findings, the best first, as far as is written
	}{
		{"well", func(*Case) {}, ""},
		{"no such service", func(c *Case) { c.empties(model.Absent) }, "A1 likely"},
		{"nobody registered", func(c *Case) { c.empties(model.Empty) }, "A1 likely"},
		{"the last one left", func(c *Case) {
			c.empties(model.Empty)
			c.Events = []model.Event{event(model.EventEndpointRemoved, key, 6*minute)}
		}, "A6 likely"},
		{"both left in one step, and answer", func(c *Case) { c.forgets(0, probe.Passes, probe.Passes) }, "B5 likely !A6"},
		{"they left in one step, and are gone", func(c *Case) { c.forgets(0, probe.Refused, probe.Refused) }, "A6 likely !B5"},
		{"they left one after the other, and answer", func(c *Case) { c.forgets(time.Minute, probe.Passes, probe.Passes) }, " !B5"},
		{"one of two still answers", func(c *Case) { c.forgets(time.Second, probe.Passes, probe.Refused) }, "B5 likely !A6"},
		{"two of five left, and answer", func(c *Case) {
			c.forgets(0, probe.Passes, probe.Passes)
			for i := range 3 {
				c.Known.Service.Endpoints = append(c.Known.Service.Endpoints, model.Endpoint{Address: fmt.Sprint(i), Health: model.Healthy})
			}
		}, " !B5"},
		{"a document's endpoints left", func(c *Case) { c.forgets(0, probe.Passes, probe.Passes); c.Health.Service.Source = "local" }, " !B5"},
		{"an address that another has too", func(c *Case) {
			c.out(0, 1)
			c.Elsewhere = map[string][]string{"10.0.0.1:80": {"billing"}}
		}, "A7 likely"},
		{"an address that another has too, in use", func(c *Case) { c.Elsewhere = map[string][]string{"10.0.0.1:80": {"billing"}} }, ""},
		{"nobody answers for long", func(c *Case) { c.outFor(11*minute, probe.Refused) }, "A7 likely"},
		{"nobody answers for a while", func(c *Case) { c.outFor(9*minute, probe.Refused) }, "H3 likely !A7"},
		{"its check fails for long", func(c *Case) { c.outFor(11*minute, probe.Unexpected) }, "H1 likely !A7"},
		{"the registry stopped telling", func(c *Case) { c.Unseen = minute }, "B3 possible"},
		{"it stopped, and nobody is where it said", func(c *Case) {
			c.Unseen = minute
			c.failed("UF", 100)
			c.probed(probe.Refused, "refused", false)
		}, "B3 likely, E1 likely"},
		{"it stopped, nobody answers from here, and requests meet a limit", func(c *Case) {
			c.Unseen = minute
			c.failed("UO", 100)
			c.probed(probe.Refused, "refused", true)
		}, "F1 likely, B3 possible"},
		{"it stopped, nobody answers from here, and nothing fails", func(c *Case) { c.Unseen = minute; c.probed(probe.Refused, "refused", false) }, "B3 possible"},
		{"it stopped, and said before that they are ill", func(c *Case) {
			c.Unseen = minute
			c.unhealthy(model.Unhealthy, "web")
			c.probed(probe.Refused, "refused", false)
		}, "A2 likely, E1 likely, B3 possible"},
		{"it stopped, and they are ill", func(c *Case) { c.Unseen = minute; c.out(0, 1); c.probed(probe.Unexpected, "404", true) }, "H1 likely, B3 possible"},
		{"it stopped before anybody was known", func(c *Case) { c.unknownFor(""); c.Known.Failure = nil; c.Unseen = minute }, "B3 likely"},
		{"another name is asked for", func(c *Case) { c.asks("elsewhere") }, "C5 certain"},
		{"its own name is asked for", func(c *Case) { c.asks("catalog@1f") }, " !C5"},
		{"a name of the same beginning", func(c *Case) { c.asks("catalog-v2@1f") }, "C5 certain"},
		{"old addresses, in vain", func(c *Case) { c.asks(""); c.Resolved = []string{"10.9.0.1"}; c.nobody() }, "D3 likely"},
		{"other addresses, on purpose", func(c *Case) { c.asks(""); c.Resolved = []string{"10.9.0.1"} }, "D3 possible"},
		{"the same addresses", func(c *Case) { c.asks(""); c.Resolved = []string{"10.0.0.1"}; c.nobody() }, " !D3"},
		{"one proxy lacks an endpoint", func(c *Case) { c.lacks(11*time.Second, 1); c.nobody() }, "C7 likely"},
		{"one proxy lacks it, and others serve", func(c *Case) { c.lacks(11*time.Second, 1) }, "C7 possible"},
		{"one proxy lacks it for a moment", func(c *Case) { c.lacks(9*time.Second, 1) }, ""},
		{"all lack it", func(c *Case) { c.lacks(11*time.Second, 0, 1) }, ""},
		{"too large for a client", func(c *Case) {
			c.Refused = []model.RefusedStream{{Time: now, Proxy: model.Proxy{ID: "grpc-1", Group: "edge"}, Code: "ResourceExhausted", Why: "a response of 5000000 bytes of clusters is more than …"}}
		}, "C8 likely"},
		{"too large for the only client", func(c *Case) {
			c.Streams, c.Asked, c.Views = nil, nil, nil
			c.Refused = []model.RefusedStream{{Proxy: model.Proxy{ID: "g", Group: "edge"}, Code: "ResourceExhausted", Why: "a response of 5000000 bytes", Time: c.At}}
		}, "C8 likely, C1 possible"},
		{"too large for one, and others left", func(c *Case) {
			c.Streams, c.Asked, c.Views = nil, nil, nil
			c.Members = []fleet.Member{{Proxy: model.Proxy{ID: "edge-9"}, Gone: c.At.Add(-time.Minute)}}
			c.Refused = []model.RefusedStream{{Proxy: model.Proxy{ID: "g", Group: "edge"}, Code: "ResourceExhausted", Why: "a response of 5000000 bytes", Time: c.At}}
		}, "C1 likely, C8 likely"},
		{"too large for another group's", func(c *Case) {
			c.Refused = []model.RefusedStream{{Time: now, Proxy: model.Proxy{ID: "grpc-1", Group: "other"}, Code: "ResourceExhausted", Why: "a response of 5000000 bytes"}}
		}, ""},
		{"checks of three services fail together", func(c *Case) {
			c.unhealthy(model.Unhealthy, "web")
			c.Together, c.TogetherBy = []string{"consul/a", "consul/b"}, "db-main: connection refused"
		}, "A2 likely, H10 likely"},
		{"those of two", func(c *Case) { c.unhealthy(model.Unhealthy, "web"); c.Together = []string{"consul/a"} }, "A2 likely !H10"},
		{"it turns for moments, by one check", func(c *Case) { c.turns(1, 10*time.Second, 3) }, "H11 likely"},
		{"for moments, twice", func(c *Case) { c.turns(1, 10*time.Second, 2) }, ""},
		{"for long", func(c *Case) { c.turns(1, minute, 3) }, ""},
		{"for moments, and one failure is not enough", func(c *Case) { c.turns(3, 10*time.Second, 3) }, ""},
		{"a flood", func(c *Case) { c.minutes(200, 20, 1000); c.nobody() }, "F4 likely"},
		{"a flood that is served", func(c *Case) { c.minutes(200, 20, 1000) }, "F4 possible"},
		{"as many as usual", func(c *Case) { c.minutes(900, 20, 1000); c.nobody() }, " !F4"},
		{"few, though more than usual", func(c *Case) { c.minutes(1, 20, 999); c.nobody() }, " !F4"},
		{"what is usual is not known yet", func(c *Case) { c.minutes(10, 9, 5000); c.nobody() }, " !F4"},
		{"the last one of another service left", func(c *Case) {
			c.empties(model.Empty)
			c.Events = []model.Event{event(model.EventEndpointRemoved, "consul/old", 6*minute)}
		}, "A1 likely"},
		{"no tag", func(c *Case) {
			c.Spec.Service.Tags = []string{"blue"}
			c.Endpoints = nil
			c.nobody()
		}, "A5 likely"},
		{"a check is critical", func(c *Case) { c.unhealthy(model.Unhealthy, "web") }, "A2 likely"},
		{"one is critical, and the other serves", func(c *Case) {
			c.Endpoints[0].Health = model.Unhealthy
			c.Health.State = health.Degraded
		}, "A2 possible"},
		{"a node is lost", func(c *Case) { c.unhealthy(model.Unhealthy, "serfHealth") }, "A3 likely !A2"},
		{"maintenance of the node", func(c *Case) { c.unhealthy(model.Draining, "_node_maintenance") }, "A4 likely"},
		{"maintenance of the service", func(c *Case) { c.unhealthy(model.Draining, "_service_maintenance:web") }, "A4 likely"},
		{"drained", func(c *Case) { c.unhealthy(model.Draining, "") }, "H8 likely"},
		{"flaps", func(c *Case) {
			for i := range manyTurns {
				c.Events = append(c.Events, event(model.EventEndpointHealth, key, time.Duration(i)*time.Second))
			}
		}, "A8 likely"},
		{"turns of long ago", func(c *Case) {
			for range manyTurns {
				c.Events = append(c.Events, event(model.EventEndpointHealth, key, 11*minute))
			}
		}, ""},
		{"the registry is down", func(c *Case) { c.unknownFor(discovery.Unreachable) }, "B1 likely"},
		{"no leader, and all is known", func(c *Case) {
			c.Known.Failure, c.Known.Reason = errors.New("no"), string(discovery.NoLeader)
		}, "B1 possible"},
		{"denied", func(c *Case) { c.unknownFor(discovery.Denied) }, "B2 likely"},
		{"filtered", func(c *Case) { c.unknownFor(discovery.Filtered) }, "B2 likely"},
		{"no such source", func(c *Case) { c.unknownFor(discovery.NoSource) }, "B1 likely"},
		{"unreadable", func(c *Case) { c.unknownFor(discovery.BadAnswer) }, "B4 likely"},
		{"not read yet", func(c *Case) { c.unknownFor(""); c.Known.Failure = nil }, "B6 likely"},
		{"no usable record", func(c *Case) {
			c.Endpoints, c.Problems = nil, []model.Problem{{Document: "Upstream/catalog", Message: "no IP"}}
			c.nobody()
		}, "B4 likely"},
		{"one record of several", func(c *Case) { c.Problems = []model.Problem{{Document: "Upstream/catalog", Message: "no IP"}} }, "B4 possible"},
		{"nobody connected", func(c *Case) { c.Streams, c.Views, c.Health.Seen = nil, nil, nil }, "C1 likely"},
		{"nobody leads there", func(c *Case) { c.Groups, c.Streams = nil, nil }, "C1 likely"},
		{"refused", func(c *Case) {
			c.Streams[1].Delivery[0].Parked = []model.Parked{{Type: "clusters", Name: "catalog", Message: "bad"}}
		}, "C2 certain"},
		{"another's is refused", func(c *Case) {
			c.Streams[1].Delivery[0].Parked = []model.Parked{{Type: "clusters", Name: "shop", Document: "Upstream/shop", Message: "bad"}}
		}, ""},
		{"waits", func(c *Case) {
			c.Streams[1].Delivery[0].Waiting = []model.Waiting{{Name: "catalog", Why: "warming", Since: now}}
			c.nobody()
		}, "C3 likely"},
		{"late", func(c *Case) {
			c.Streams[0].Delivery = []model.Delivery{{Type: "assignments", Open: 1, OpenSince: now.Add(-6 * time.Second)}}
		}, "C6 likely"},
		{"another cluster warms", func(c *Case) {
			c.Streams[0].Delivery[0].Open, c.Streams[0].Delivery[0].OpenSince = 1, now.Add(-6*time.Second)
		}, "C6 possible"},
		{"flags of long ago", func(c *Case) {
			c.failed("UH", 100)
			c.Failures = append(c.Failures, fleet.Failure{Flag: "UC", Count: 4000, Last: now.Add(-80 * time.Second)})
		}, ""},
		{"another resource is refused", func(c *Case) {
			e := envoy(nil, hosts("h h")...)
			e.Config.Rejected = []envoyadmin.Rejected{{Kind: "listener", Name: "catalog", Detail: "bad"}, {Kind: "cluster", Name: "shop", Detail: "bad"}}
			c.asked(e)
		}, ""},
		{"its cluster is refused", func(c *Case) {
			e := envoy(nil, hosts("h h")...)
			e.Config.Rejected = []envoyadmin.Rejected{{Kind: "cluster", Name: "catalog", Detail: "bad"}}
			e.Stats["cluster.catalog.update_rejected"] = 1
			c.asked(e)
		}, "C2 certain"},
		{"one is ejected at one proxy", func(c *Case) { c.out(1); c.Views[1].Ejected = 1 }, ""},
		{"a duplicate record, and nobody at a proxy", func(c *Case) {
			c.Problems = []model.Problem{{Document: "Upstream/catalog", Message: "twice"}}
			c.nobody()
			e := envoy(nil)
			e.Stats["cluster.catalog.update_success"] = 1
			e.Stats["cluster.catalog.upstream_cx_none_healthy"] = 9
			c.asked(e)
		}, "A1 likely, B4 possible"},
		{"one of ten is marked", func(c *Case) {
			all := hosts("h h h h h h h h h u")
			all[9].Flags = []string{"eds_unhealthy"}
			c.asked(envoy(nil, all...))
		}, "A2 possible"},
		{"one request in a million", func(c *Case) {
			c.Health.Seen.Requests, c.Health.Seen.Failed = 1_000_000, 1
			c.Endpoints[0].Health, c.Endpoints[0].Check = model.Draining, "_node_maintenance"
		}, "A4 possible"},
		{"under way", func(c *Case) {
			c.Streams[0].Delivery[0].Open, c.Streams[0].Delivery[0].OpenSince = 1, now.Add(-time.Second)
		}, ""},
		{"takes nothing", func(c *Case) { c.Streams[0].Unsent = now.Add(-minute) }, "C6 likely"},
		{"one zone is cut off", func(c *Case) { c.out(1) }, "H4 likely"},
		{"all are out, and it passes from here", func(c *Case) { c.out(0, 1); c.probed(probe.Passes, "GET /: 200", true) }, "H4 likely"},
		{"another status", func(c *Case) { c.out(0, 1); c.probed(probe.Unexpected, "GET /: 404, expected 200", true) }, "H1 likely"},
		{"too much to do", func(c *Case) {
			c.out(0, 1)
			c.probed(probe.Unexpected, "GET /: 503 with Retry-After, expected 200", true)
		}, "H9 likely"},
		{"a 503 of its own", func(c *Case) { c.out(0, 1); c.probed(probe.Unexpected, "GET /: 503, expected 200", true) }, "H1 likely"},
		{"slow", func(c *Case) { c.out(0, 1); c.probed(probe.TimedOut, "late", true) }, "H2 likely"},
		{"no handshake", func(c *Case) { c.out(0, 1); c.probed(probe.BadTLS, "x509", true) }, "H5 likely"},
		{"another protocol", func(c *Case) { c.out(0, 1); c.probed(probe.OtherWords, "EOF", true) }, "H6 likely"},
		{"refused", func(c *Case) { c.out(0, 1); c.probed(probe.Refused, "refused", true) }, "H3 likely"},
		{"refused here, used there", func(c *Case) { c.probed(probe.Refused, "refused", true) }, ""},
		{"refused here, used there, and slow", func(c *Case) {
			c.failed("UT", 100)
			c.Spec.HealthChecks = []spec.HealthCheck{{HTTP: &spec.HTTPCheck{Path: "/"}}}
			c.probed(probe.Refused, "refused", true)
		}, "F2 certain !H3"},
		{"refused, unchecked", func(c *Case) { c.failed("UF", 100); c.probed(probe.Refused, "refused", false) }, "E1 likely"},
		{"slow, unchecked", func(c *Case) { c.failed("UF", 100); c.probed(probe.TimedOut, "late", false) }, "E2 likely"},
		{"no way", func(c *Case) { c.failed("UF", 100); c.probed(probe.Unreachable, "no route", false) }, "E3 likely"},
		{"TLS", func(c *Case) { c.failed("UF", 100); c.probed(probe.BadTLS, "x509", false) }, "E4 likely"},
		{"no way, as proxies tell", func(c *Case) {
			c.failed("UF", 100)
			c.Reasons = []fleet.Reason{{Flag: "UF", Count: 90, Last: now, Detail: "x", Samples: []fleet.Failed{{Failure: "delayed connect error: No route to host"}}}}
		}, "E3 likely"},
		{"limits", func(c *Case) { c.failed("UO", 100) }, "F1 likely"},
		{"limits, and a proxy that counts none", func(c *Case) {
			c.failed("UO", 100)
			c.asked(envoy(nil, hosts("h h")...))
		}, "F1 possible"},
		{"zones that differ for a moment", func(c *Case) {
			c.out(1)
			c.Views[1].Endpoints[0].Since, c.Views[1].Endpoints[1].Since = now.Add(-time.Second), now.Add(-time.Second)
		}, ""},
		{"one client of many", func(c *Case) { c.failed("UO", 2) }, "F1 possible"},
		{"one in a thousand", func(c *Case) { c.failed("UO", 9) }, "F1 possible"},
		{"two of two", func(c *Case) { c.Health.Seen.Requests = 2; c.failed("UT", 2) }, "F2 possible"},
		{"timeouts, with retries", func(c *Case) { c.failed("URX,UT", 100) }, "F2 certain"},
		{"closed", func(c *Case) { c.failed("UC", 100) }, "E5 certain"},
		{"a revision of a route", func(c *Case) {
			c.empties(model.Absent)
			c.Changes = []Edit{{Revision: 41, Time: now.Add(-6*minute - 4*time.Second), Fields: []string{"Route/shop: spec.rules[0].to"}}}
		}, "A1 likely, K1 possible"},
		{"limits, and nobody is left", func(c *Case) { c.failed("UO", 100); c.empties(model.Absent) }, "A1 likely, F1 possible"},
		{"no cluster", func(c *Case) { c.failed("NC", 100) }, "G1 certain"},
		{"dropped", func(c *Case) { c.failed("UDO", 100) }, "G3 certain"},
		{"by a revision", func(c *Case) {
			c.empties(model.Absent)
			c.Changes = []Edit{{Revision: 41, Newest: true, Time: now.Add(-6*minute - 4*time.Second), Fields: []string{"Upstream/catalog: spec.service.name"}}}
		}, "A1 likely, K1 likely"},
		{"a revision after which it was well", func(c *Case) {
			c.empties(model.Absent)
			c.Changes = []Edit{{Revision: 41, Time: now.Add(-6*minute - 9*time.Second)}}
			well := event(model.EventUpstreamState, "catalog", 6*minute+4*time.Second)
			well.To = "healthy"
			c.Events = []model.Event{well}
		}, "A1 likely !K1"},
		{"a revision of before", func(c *Case) {
			c.empties(model.Absent)
			c.Changes = []Edit{{Revision: 41, Time: now.Add(-8 * minute)}}
		}, "A1 likely"},
		{"a revision, and all is well", func(c *Case) { c.Changes = []Edit{{Revision: 41, Time: now.Add(-time.Hour)}} }, ""},
		{"a deploy", func(c *Case) {
			c.empties(model.Empty)
			c.Events = []model.Event{event("external.deploy", "deploy", 6*minute+10*time.Second)}
		}, "A1 likely, K2 likely"},
		{"another certificate", func(c *Case) {
			c.Spec.TLS = &spec.UpstreamTLS{CA: spec.CAFile{File: "ca.pem"}}
			c.out(0, 1)
			c.probed(probe.BadTLS, "x509", true)
			c.Events = []model.Event{event(model.EventCertificateRenewed, "ca.pem", 6*minute+time.Second)}
		}, "H5 likely, K3 likely"},
		{"these proxies began just then", func(c *Case) {
			c.nobody()
			c.Health.Seen.Nobody = &health.Part{Count: 1, Some: []string{"edge-1"}, Since: now.Add(-6 * minute)}
			c.Members[1].Began = now.Add(-6*minute - 5*time.Second)
		}, "K4 likely"},
		{"all proxies began just then", func(c *Case) {
			c.nobody()
			c.Health.Seen.Nobody = &health.Part{Count: 1, Some: []string{"edge-1"}, Since: now.Add(-6 * minute)}
			c.Members[0].Began, c.Members[1].Began = now.Add(-6*minute-5*time.Second), now.Add(-6*minute-5*time.Second)
		}, "K4 possible"},
	} {
		c := well()
		x.do(c)
		var got []string
		e := Explain(*c)
		for _, f := range e.Findings {
			got = append(got, fmt.Sprintf("%s %s", f.Code, f.Strength))
			if f.Title == "" || f.Says == "" || f.Next == "" || len(f.Evidence) == 0 {
				t.Errorf("%s: a finding that says too little: %+v", x.name, f)
			}
		}
		text := strings.Join(got, ", ")
		want, not, _ := strings.Cut(x.want, " !")
		if not != "" && strings.Contains(text, not) {
			t.Errorf("%s: found %q, and %s is not there", x.name, text, not)
		}
		x.want = want
		if x.want == "" && not != "" {
			continue
		}
		if text != x.want && (x.want == "" || !strings.HasPrefix(text, x.want+", ")) {
			t.Errorf("%s: found %q, want %q", x.name, text, x.want)
		}
		for _, f := range e.Findings {
			if f.Strength == Certain && !strings.Contains("C2 C5 F1 F2 E5 G1 G3", string(f.Code)) { // Envoys' own words and counts
				t.Errorf("%s: %s is certain, and no Envoy showed it", x.name, f.Code)
			}
		}
	}
}

// Since when: what decides now, and no time of before.
func TestSince(t *testing.T) {
	c := well()
	c.failed("UT", 100)
	if since := c.Since(); !since.Equal(now.Add(-minute)) {
		t.Errorf("requests fail since %s", since)
	}
	c = well()
	c.failed("UT", 100)
	c.Failures[0].Lately = 2 // and others, of other kinds
	if since := c.Since(); !since.Equal(now.Add(-minute)) {
		t.Errorf("few requests of each kind fail since %s", since)
	}
	c = well()
	c.Health.Seen.NoneMet = &health.Part{Count: 1, Some: []string{"edge-0"}, Since: now.Add(-5 * time.Second)}
	if since := c.Since(); !since.Equal(now.Add(-5 * time.Second)) {
		t.Errorf("requests meet nobody since %s", since)
	}
	c = well()
	c.unknownFor(discovery.Unreachable)
	if since := c.Since(); !since.Equal(now.Add(-minute)) {
		t.Errorf("unknown since %s", since)
	}
}

// What was not looked at rules nothing out.
func TestNotRuledOut(t *testing.T) {
	ruled := func(c *Case) (codes string) {
		for _, r := range Explain(*c).RuledOut {
			codes += string(r.Code) + " "
		}
		return codes
	}
	for _, x := range []struct {
		name string
		do   func(c *Case)
		not  string
	}{
		{"nobody reports", func(c *Case) { c.Health.Seen, c.Views = nil, nil }, "E5 F1 F2 G1 G3"},
		{"the registry is down", func(c *Case) { c.Known.Failure, c.Known.Reason = errors.New("no"), "unreachable" }, "A1 A2 A5 B1"},
		{"history was cut", func(c *Case) { c.nobody() }, "K1"},
		{"an answer is open", func(c *Case) { c.Streams[0].Delivery[0].Open, c.Streams[0].Delivery[0].OpenSince = 1, now }, "C6"},
	} {
		c := well()
		x.do(c)
		for code := range strings.FieldsSeq(x.not) {
			if got := ruled(c); strings.Contains(got, code+" ") {
				t.Errorf("%s: ruled out %s", x.name, got)
			}
		}
	}
	c := well()
	c.nobody()
	c.HistoryRead = true
	if got := ruled(c); !strings.Contains(got, "K1 ") || !strings.Contains(got, "A1 ") || !strings.Contains(got, "F1 ") {
		t.Errorf("ruled out %s", got)
	}
}

// A revision is taken back whole only where nothing came after it.
func TestUndo(t *testing.T) {
	for want, x := range map[string]Edit{
		"see it: wellspring history 41; undo: wellspring restore 40":                    {Revision: 41, Newest: true},
		"see it: wellspring history 41; undo: wellspring restore 40 --services":         {Revision: 41, Newest: true, Fields: []string{"Service/catalog: spec"}},
		"see what it changed: wellspring history 41; and apply what stood there before": {Revision: 41},
		"see what it changed: wellspring history 1; and apply what stood there before":  {Revision: 1, Newest: true},
	} {
		if got := x.undo(); got != want {
			t.Errorf("%+v: %q", x, got)
		}
	}
}

// What an Envoy shows by a general word is told by the cause that the control plane knows,
// with the Envoy's evidence, and is certain then; the general one is not told beside it.
func TestBothHalves(t *testing.T) {
	toldOfNobody := func(c *Case) {
		e := envoy(nil)
		e.Stats["cluster.catalog.update_success"] = 3
		e.Stats["cluster.catalog.upstream_cx_none_healthy"] = 30
		e.Before = envoyadmin.Stats{"cluster.catalog.upstream_cx_none_healthy": 10}
		c.asked(e)
	}
	c := well()
	c.Spec.Service.Tags = []string{"blue"}
	c.Endpoints = nil
	c.nobody()
	toldOfNobody(c)
	e := Explain(*c)
	f := e.Findings[0]
	if f.Code != A5 || f.Strength != Certain || len(e.Findings) != 1 || f.Proxies == nil || f.Proxies.String() != "proxy edge-0" {
		t.Errorf("%+v", e.Findings)
	}
	if text := strings.Join(f.Evidence, "\n"); !strings.Contains(text, "proxy edge-0 /clusters: no host") || !strings.Contains(text, `tag "blue": 0 of 2 instances`) {
		t.Errorf("evidence:\n%s", text)
	}
	// An Envoy alone says what it can.
	c = well()
	c.nobody()
	toldOfNobody(c)
	if e := Explain(*c); len(e.Findings) == 0 || e.Findings[0].Code != A1 || e.Findings[0].Strength != Likely {
		t.Errorf("%+v", e.Findings)
	}
	// What is ruled out by the registry is not told as ruled out where an Envoy shows it.
	for _, r := range e.RuledOut {
		if r.Code == A5 {
			t.Errorf("A5 is found and ruled out: %s", r.By)
		}
	}
}

// Three of four proxies answer, one does not: what they show is counted by code, and
// nothing is ruled out that one of them shows.
func TestSeveralEnvoys(t *testing.T) {
	c := well()
	c.out(0, 1)
	for i := range 3 {
		text := "h h"
		if i > 0 {
			text = "u u"
		}
		e := envoy(nil, hosts(text)...)
		e.Stats["cluster.catalog.health_check.failure"] = 5
		e.Stats["cluster.catalog.health_check.network_failure"] = 5
		e.Before = envoyadmin.Stats{}
		c.asked(e)
		c.Asked[i].Proxy, c.Asked[i].Zone = fmt.Sprintf("edge-%d", i), []string{"a", "b", "b"}[i]
	}
	c.asked(envoy(nil)) // without a host: it rules nothing out of those that have some
	c.Asked[3].Proxy = "edge-4"
	for _, r := range c.ask() {
		if r.Code == A1 {
			t.Errorf("three of four rule out A1, and it is ruled out: %s", r.By)
		}
	}
	c.Asked = c.Asked[:3]
	c.NotAsked = []string{"proxy edge-3: no answer"}
	e := Explain(*c)
	i := -1
	for j, f := range e.Findings {
		if f.Code == H3 {
			i = j
		}
	}
	if i < 0 || e.Findings[i].Proxies.String() != "2 of 3 proxies, in zone b" || len(e.NotAsked) != 1 {
		t.Errorf("%+v", e)
	}
	for _, r := range e.RuledOut {
		if r.Code == H3 {
			t.Error("H3 is found and ruled out")
		}
	}
}

// The first line says what happens, to how many, and since when.
func TestHeadline(t *testing.T) {
	c := well()
	c.empties(model.Empty)
	c.Health.Seen.Nobody = &health.Part{Count: 1, Zones: []string{"b"}, Some: []string{"edge-1"}}
	if e := Explain(*c); e.Says != "no healthy upstream in 1 of 2 proxies, in zone b" || !e.Since.Equal(now.Add(-6*minute)) {
		t.Errorf("%q since %s", e.Says, e.Since)
	}
	if e := Explain(*well()); e.Says != "2 of 2 endpoints usable in all 2 proxies" || !e.Since.IsZero() || e.Found() {
		t.Errorf("%q since %s", e.Says, e.Since)
	}
	c = well()
	c.Health.Seen, c.Views = nil, nil
	if e := Explain(*c); !strings.Contains(e.Says, "no proxy reports") {
		t.Errorf("health that nobody saw is claimed: %q", e.Says)
	}
}
