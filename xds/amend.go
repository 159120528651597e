package xds

import (
	"slices"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds/delivery"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

// amend takes up a Spec in which nothing but the definitions of some upstreams is other
// than in the one before, and nothing that anybody else sees of them. So a timeout that is
// set costs one cluster, and not a look at everything. It tells whether that was so;
// where not, it may have begun, and the whole is to be made. mu is held.
func (p *Publisher) amend(s *spec.Spec) bool {
	if p.declared == nil || p.cfg.Catalog.Imports() != p.imports {
		return false
	}
	changed := p.amended(s)
	if len(changed) == 0 {
		return false
	}
	if p.spec == p.declared {
		p.spec = s
	} else {
		p.spec = p.spec.With(s.Revision, changed, nil)
	}
	p.declared = s
	var upstreams []definition
	for _, d := range changed {
		next := p.redefine(d)
		upstreams = append(upstreams, next)
		own := next.body.Secrets(d.Name)
		p.problems = slices.DeleteFunc(p.problems, func(x model.Problem) bool {
			return x.Document == d.String() && !slices.ContainsFunc(own, func(s spec.Secret) bool { return s.Field == x.Field })
		})
		name := translate.AssignmentName(d.Name, next.body)
		r, faults := p.assignment(name, next)
		if r == nil || p.assignments[name] == nil {
			return false
		}
		p.assignments[name], p.unusable[name] = r, faults
	}
	for c := range p.classes {
		if !p.amendClass(c, upstreams) {
			return false
		}
	}
	for _, d := range changed {
		p.cfg.Touched.Touch(d.Name)
	}
	close(p.changed)
	p.changed = make(chan struct{})
	return true
}

// amended lists the upstreams of a Spec that have another definition than before; none
// where more than that changed.
func (p *Publisher) amended(s *spec.Spec) (out []*spec.Document) {
	before, after := p.declared.Documents(""), s.Documents("")
	if len(before) != len(after) {
		return nil
	}
	for i, is := range after {
		was := before[i]
		if was == is {
			continue
		}
		if was.Ref != is.Ref || !p.amendable(was, is) {
			return nil
		}
		out = append(out, is)
	}
	return out
}

// amendable tells whether nothing but the cluster of an upstream has another form: not
// where its endpoints come from, not its protocol, by which routes differ, and not its
// secrets.
func (p *Publisher) amendable(was, is *spec.Document) bool {
	a, ok := was.Body.(*spec.Upstream)
	b, ok2 := is.Body.(*spec.Upstream)
	if !ok || !ok2 || a.Hostnames() || b.Hostnames() || was.LocalService() != nil || is.LocalService() != nil {
		return false
	}
	pub := p.published[is.Name]
	return pub != nil && !pub.frozen && pub.body == a &&
		translate.AssignmentName(is.Name, a) == translate.AssignmentName(is.Name, b) && // selection and protocol
		slices.Equal(a.Secrets(is.Name), b.Secrets(is.Name))
}

// redefine gives an upstream that is published another definition.
func (p *Publisher) redefine(d *spec.Document) definition {
	next, _ := definitionOf(d)
	pub := p.published[d.Name]
	was := pub.definition
	pub.definition = next
	p.definitions[translate.AssignmentName(d.Name, next.body)] = next
	for i, x := range p.uses[pub.key] {
		if x.name == d.Name && x.body == was.body {
			p.uses[pub.key][i] = next
		}
	}
	for i, x := range p.selects[pub.key] {
		if x.Name == d.Name {
			p.selects[pub.key][i] = d
		}
	}
	return next
}

// amendClass gives a class the clusters and assignments of upstreams in their new form;
// false where one of them is served in another form, or is not and should be.
func (p *Publisher) amendClass(c delivery.Class, upstreams []definition) bool {
	now, form := p.cfg.Engine.Table(c), formOf(c)
	if now == nil {
		return false
	}
	var news []*delivery.Resource
	for _, d := range upstreams {
		name := translate.AssignmentName(d.name, d.body)
		if now.Get(delivery.Assignments, name) != nil { // also where only proxies hold it still
			news = append(news, p.assignmentFor(name, form.Band))
		}
		if now.Unknown[d.name] {
			return false
		}
		served := now.Get(delivery.Clusters, d.name)
		if served == nil {
			continue // nothing of the group leads there
		}
		if served.Assignment != name {
			return false // and it is served with another assignment
		}
		cluster := p.cluster(d.name, p.published[d.name], form)
		if cluster == nil || cluster.Assignment != name {
			return false
		}
		news = append(news, cluster)
	}
	if slices.Contains(news, nil) {
		return false
	}
	if t := now.With(news...); t != now {
		p.cfg.Engine.Publish(c, t)
	}
	return true
}
