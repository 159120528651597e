package xds

import (
	"fmt"
	"slices"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds/delivery"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

// publish re-makes what the touched services reach, everything for nil, and
// hands every class its table. mu is held.
func (p *Publisher) publish(touched map[model.ServiceKey]bool) {
	p.problems = nil
	p.assign(touched)
	for c := range p.classes {
		if g, _ := p.spec.Group(c.Group); g == nil {
			delete(p.classes, c)
			p.cfg.Engine.Drop(c)
			continue
		}
		now := p.cfg.Engine.Table(c)
		if t := p.content(c).table(now); t != now {
			p.cfg.Engine.Publish(c, t)
		}
	}
	p.tellTouched(touched)
}

// assign makes the assignments of every published upstream and wanted older
// generation.
func (p *Publisher) assign(touched map[model.ServiceKey]bool) {
	next := make(map[string]*delivery.Resource, len(p.assignments))
	problems := make(map[string][]model.Problem, len(p.unusable))
	p.uses = make(map[model.ServiceKey][]definition, len(p.uses))
	add := func(d definition) {
		key := d.body.Key(d.name)
		p.uses[key] = append(p.uses[key], d)
		if d.body.Hostnames() { // its endpoints are part of the cluster
			return
		}
		name := translate.AssignmentName(d.name, d.body)
		if was := p.assignments[name]; was != nil && touched != nil && !touched[key] {
			next[name], problems[name] = was, p.unusable[name]
			return
		}
		r, faults := p.assignment(name, d)
		if problems[name] = faults; r != nil {
			next[name] = r
		}
	}
	for _, pub := range p.published {
		d := pub.definition
		d.leaving = pub.frozen
		add(d)
	}
	for name := range p.older {
		if d := p.definitions[name]; next[name] == nil {
			d.leaving = true
			add(d)
		}
	}
	p.assignments, p.unusable = next, problems
}

// assignment makes the assignment of a definition; nil where nothing is known.
func (p *Publisher) assignment(name string, d definition) (*delivery.Resource, []model.Problem) {
	svc := p.serviceOf(d.name, d.body.Key(d.name))
	if d.leaving && d.own != nil {
		svc = d.own.Overridden(p.overrides[d.name]) // its endpoints were part of it, and its document has others now, or none
	}
	if made := p.made[name]; made.of == (source{d.body, svc, d.leaving}) && made.resource == p.assignments[name] {
		return made.resource, made.problems
	}
	var m *endpointv3.ClusterLoadAssignment
	var faults []model.Problem
	if svc != nil {
		m, faults = translate.Assignment(d.name, d.body, svc)
	}
	if svc == nil || d.leaving && len(m.Endpoints) == 0 {
		// What is on its way out keeps whom it had: those whom it selects may be gone
		// by the very change that its successor is warming for. Where nobody is known,
		// silence lets the proxy keep them.
		return p.assignments[name], p.unusable[name]
	}
	r, problem := p.resource(delivery.Assignments, name, forEnvoys, "Upstream/"+d.name, m, nil, nil)
	faults = slices.Concat(faults, svc.Problems, problem)
	p.made[name] = madeAssignment{source{d.body, svc, d.leaving}, r, faults}
	return r, faults
}

// publishEndpoints re-makes the assignments that touched services reach and nothing
// else, and hands them to the classes that are served them. It does not where more
// than endpoints may change.
func (p *Publisher) publishEndpoints(touched map[model.ServiceKey]bool) bool {
	changed := map[string]*delivery.Resource{}
	for key := range touched {
		for _, d := range p.uses[key] {
			if d.body.Hostnames() {
				return false
			}
			name := translate.AssignmentName(d.name, d.body)
			r, faults := p.assignment(name, d)
			if r == nil || p.assignments[name] == nil {
				return false
			}
			p.unusable[name] = faults
			if r != p.assignments[name] {
				p.assignments[name], changed[name] = r, r
			}
		}
	}
	for c := range p.classes {
		now := p.cfg.Engine.Table(c)
		if now == nil {
			return false
		}
		var news []*delivery.Resource
		for name := range changed {
			if now.Get(delivery.Assignments, name) == nil {
				continue
			}
			r := p.assignmentFor(name, translate.Band(c.Band))
			if r == nil {
				return false
			}
			news = append(news, r)
		}
		if t := now.With(news...); t != now {
			p.cfg.Engine.Publish(c, t)
		}
	}
	p.tellTouched(touched)
	return true
}

// content is what a class is served, as it is gathered.
type content struct {
	resources map[delivery.Type]map[string]*delivery.Resource
	unknown   map[string]bool
}

func newContent() content {
	c := content{map[delivery.Type]map[string]*delivery.Resource{}, map[string]bool{}}
	for _, typ := range delivery.Types {
		c.resources[typ] = map[string]*delivery.Resource{}
	}
	return c
}

func (c content) add(r *delivery.Resource) { c.resources[r.Type][r.Name] = r }

// table is the content as a table, which is the one before where nothing changed.
func (c content) table(before *delivery.Table) *delivery.Table {
	return delivery.NewTable(before, c.resources, c.unknown)
}

// forGRPC is the form for gRPC's own clients, forEnvoys what all Envoys have alike.
var (
	forGRPC   = translate.Form{Band: translate.GRPC}
	forEnvoys = translate.Form{Band: translate.MinBand}
)

func formOf(c delivery.Class) translate.Form {
	return translate.Form{Band: translate.Band(c.Band), Telemetry: c.Telemetry}
}

// content is all that a class is served.
func (p *Publisher) content(c delivery.Class) content {
	form := formOf(c)
	band := form.Band
	t := newContent()
	names := p.spec.UpstreamsFor(c.Group, band == translate.GRPC)
	if band != translate.GRPC {
		for _, pub := range p.own {
			names = append(names, pub.name)
		}
	}
	for _, name := range names {
		pub := p.published[name]
		if pub == nil {
			t.unknown[name] = true
			p.unknownSecrets(t, name)
			continue
		}
		cluster := p.cluster(name, pub, form)
		if cluster == nil || cluster.Assignment != "" && p.assignments[cluster.Assignment] == nil {
			t.unknown[name] = true // it exists and cannot be said: that is not a deletion
			p.unknownSecrets(t, name)
			continue
		}
		t.add(cluster)
		if cluster.Assignment != "" {
			if r := p.assignmentFor(cluster.Assignment, band); r != nil {
				t.add(r)
			}
		}
		if band != translate.GRPC {
			p.addSecrets(t, "Upstream/"+name, pub.body.Secrets(name))
		}
	}
	for name := range p.older { // a session serves them only to who holds the cluster
		if r := p.assignmentFor(name, band); r != nil {
			t.add(r)
		}
	}
	g, _ := p.spec.Group(c.Group)
	for _, name := range g.Listeners {
		l, ok := p.spec.Listener(name)
		if !ok || l.GRPC != (band == translate.GRPC) {
			continue
		}
		if l.GRPC {
			p.addTargets(t, name, l)
			continue
		}
		if r := p.entrance(delivery.Listeners, name, form, l); r != nil {
			t.add(r)
			p.addSecrets(t, "Listener/"+name, l.Secrets(name))
		}
		if !l.RoutesHTTP() {
			continue
		}
		if r := p.entrance(delivery.RouteTables, name, form, l); r != nil {
			t.add(r)
		}
	}
	return t
}

// addTargets puts a listener for gRPC's own clients into a table: one resource for
// each host, and the routes.
func (p *Publisher) addTargets(t content, name string, l *spec.Listener) {
	for _, host := range translate.Targets(l, p.spec) {
		r, problem := p.resource(delivery.Listeners, host, forGRPC, "Listener/"+name, translate.APIListener(host, name), nil, nil)
		if p.note(r, problem) != nil {
			t.add(r)
		}
	}
	if r := p.entrance(delivery.RouteTables, name, forGRPC, l); r != nil {
		t.add(r)
	}
}

// assignmentFor is an assignment in the form of a band; nil where it is not known.
func (p *Publisher) assignmentFor(name string, band translate.Band) *delivery.Resource {
	r := p.assignments[name]
	if r == nil || band != translate.GRPC {
		return r
	}
	if same := p.forGRPC[name]; same.from == r {
		return same.resource
	}
	m := &endpointv3.ClusterLoadAssignment{}
	if err := proto.Unmarshal(r.Content(), m); err != nil {
		return p.note(nil, []model.Problem{{Document: r.Document, Message: "cannot be read again: " + err.Error()}})
	}
	out, problem := p.resource(delivery.Assignments, name, forGRPC, r.Document, translate.GRPCAssignment(m), nil, nil)
	if problem == nil {
		p.forGRPC[name] = form{r, out}
	}
	return p.note(out, problem)
}

// form is a resource as another client takes it.
type form struct{ from, resource *delivery.Resource }

// entrance is a listener or its route table. Services do not touch it, so that it
// is made once for each Spec.
func (p *Publisher) entrance(typ delivery.Type, name string, form translate.Form, l *spec.Listener) *delivery.Resource {
	if form = form.OfListener(); typ == delivery.RouteTables {
		form.Telemetry = ""
	}
	key := lastKey{typ, name, form}
	made, ok := p.entrances[key]
	if !ok {
		doc := "Listener/" + name
		if typ == delivery.Listeners {
			listener, err := translate.Listener(name, l, form)
			made.resource, made.problems = p.resource(typ, name, form, doc, listener, err, func(r *delivery.Resource) {
				r.Address, r.Clusters = l.Address, translate.ListenerClusters(l)
			})
		} else {
			routes, err := translate.RouteTable(name, l, p.spec, form.Band)
			made.resource, made.problems = p.resource(typ, name, form, doc, routes, err, func(r *delivery.Resource) { r.Clusters = translate.Clusters(routes) })
		}
		p.entrances[key] = made
	}
	return p.note(made.resource, made.problems)
}

func (p *Publisher) cluster(name string, pub *published, form translate.Form) *delivery.Resource {
	u := pub.body
	form = form.OfCluster()
	key := clusterKey{name, form}
	var svc *model.Service
	var unusable []model.Problem
	if u.Hostnames() {
		svc = p.serviceOf(name, pub.key)
		_, unusable = u.Select(name, svc)
		if svc != nil {
			unusable = slices.Concat(unusable, svc.Problems)
		}
	}
	p.note(nil, unusable)
	if made := p.clusters[key]; made.resource != nil && made.body == u && made.svc == svc {
		return made.resource
	}
	c, err := translate.Cluster(name, u, svc, form)
	r, problem := p.resource(delivery.Clusters, name, form, "Upstream/"+name, c, err, func(r *delivery.Resource) {
		if !u.Hostnames() {
			r.Assignment = translate.AssignmentName(name, u)
		}
	})
	if problem == nil { // a last good form is looked for again each time, with its problem
		p.clusters[key] = madeCluster{u, svc, r}
	}
	return p.note(r, problem)
}

// note keeps the problems of a resource.
func (p *Publisher) note(r *delivery.Resource, problem []model.Problem) *delivery.Resource {
	p.problems = append(p.problems, problem...)
	return r
}

// resource checks and encodes a message; err says why there is none. fill adds to a
// new resource what is not encoded. The same content gives the same resource; what
// does not pass gives its last good form, or nil.
func (p *Publisher) resource(typ delivery.Type, name string, form translate.Form, doc string, m proto.Message, err error, fill func(*delivery.Resource)) (*delivery.Resource, []model.Problem) {
	key := lastKey{typ, name, form}
	var r *delivery.Resource
	if err == nil {
		r, err = encode(typ, name, doc, m)
	}
	if err != nil {
		return p.lastGood[key], []model.Problem{{Document: doc, Message: err.Error()}}
	}
	if same := p.lastGood[key]; same != nil && same.Version == r.Version {
		return same, nil
	}
	if fill != nil {
		fill(r)
	}
	p.lastGood[key] = r
	return r, nil
}

// encode checks a message and makes a resource of it.
func encode(typ delivery.Type, name, doc string, m proto.Message) (*delivery.Resource, error) {
	if err := translate.Check(m); err != nil {
		return nil, fmt.Errorf("cannot be said to Envoy: %w", err)
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("cannot be encoded: %w", err)
	}
	r := delivery.NewResource(typ, name, body)
	r.Document = doc
	return r, nil
}
