package spec

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Spec is all documents declared by operators, at one revision. It is immutable.
type Spec struct {
	// Revision is the last one that changed a document that is not a Service.
	Revision uint64

	docs    map[Ref]*Document
	order   sync.Once
	ordered map[Kind][]*Document // set by order; all under ""
}

// New resolves the references among documents. It returns the Spec, or every
// fault; warnings are things that work and are probably not meant.
func New(revision uint64, docs []*Document) (*Spec, []Fault, Faults) {
	s := &Spec{Revision: revision, docs: make(map[Ref]*Document, len(docs))}
	var twice Faults
	for _, d := range docs {
		if first, ok := s.docs[d.Ref]; ok {
			p := first.place("")
			twice = append(twice, d.fault("name", fmt.Sprintf("%s is declared twice, first at %s:%d", d.Ref, p.File, p.Line)))
			continue
		}
		s.docs[d.Ref] = d
	}
	warnings, faults := s.Check()
	return s, warnings, append(twice, faults...)
}

// Check resolves the references among the documents, as New does: a Spec that With made
// is to be checked before it is used.
func (s *Spec) Check() ([]Fault, Faults) {
	l := &linker{spec: s}
	for _, d := range s.Documents("") {
		switch b := d.Body.(type) {
		case *Upstream:
			l.upstream(d, b)
		case *Route:
			l.route(d, b)
		case *Listener:
			l.listener(d, b)
		case *Group:
			l.group(d, b)
		}
	}
	l.unused()
	return s.Heeded(l.warnings), l.faults
}

// With is the Spec in which some documents have another form, or are new, and others are
// gone. It costs little where these are few.
func (s *Spec) With(revision uint64, set []*Document, gone []Ref) *Spec {
	out := &Spec{Revision: revision, docs: maps.Clone(s.docs)}
	all := slices.Clone(s.Documents(""))
	find := func(ref Ref) (int, bool) {
		return slices.BinarySearchFunc(all, ref, func(d *Document, ref Ref) int { return CompareRefs(d.Ref, ref) })
	}
	for _, ref := range gone {
		delete(out.docs, ref)
		if i, ok := find(ref); ok {
			all = slices.Delete(all, i, i+1)
		}
	}
	for _, d := range set {
		out.docs[d.Ref] = d
		if i, ok := find(d.Ref); ok {
			all[i] = d
		} else {
			all = slices.Insert(all, i, d)
		}
	}
	out.order.Do(func() { out.ordered = byKind(all) })
	return out
}

// Documents lists the documents of a kind, or all for "", sorted by kind and
// name. The list is not to be changed.
func (s *Spec) Documents(kind Kind) []*Document {
	s.order.Do(func() {
		s.ordered = byKind(slices.SortedFunc(maps.Values(s.docs), func(a, b *Document) int { return CompareRefs(a.Ref, b.Ref) }))
	})
	return slices.Clip(s.ordered[kind])
}

// byKind are the parts of a sorted list.
func byKind(all []*Document) map[Kind][]*Document {
	out := map[Kind][]*Document{"": all}
	for from := 0; from < len(all); {
		to := from + 1
		for to < len(all) && all[to].Kind == all[from].Kind {
			to++
		}
		out[all[from].Kind] = all[from:to]
		from = to
	}
	return out
}

// CompareRefs orders by kind, then name.
func CompareRefs(a, b Ref) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
}

// Document finds one document, nil when it is not declared.
func (s *Spec) Document(kind Kind, name string) *Document { return s.docs[Ref{kind, name}] }

// body finds the body of a document of type B.
func body[B Body](s *Spec, kind Kind, name string) (B, bool) {
	var none B
	if d := s.docs[Ref{kind, name}]; d != nil {
		b, ok := d.Body.(B)
		return b, ok
	}
	return none, false
}

// Upstream, Route, Listener, Group and Service find a document's body.
func (s *Spec) Upstream(name string) (*Upstream, bool) { return body[*Upstream](s, KindUpstream, name) }

// Route finds a Route by name.
func (s *Spec) Route(name string) (*Route, bool) { return body[*Route](s, KindRoute, name) }

// Listener finds a Listener by name.
func (s *Spec) Listener(name string) (*Listener, bool) { return body[*Listener](s, KindListener, name) }

// Group finds a Group by name.
func (s *Spec) Group(name string) (*Group, bool) { return body[*Group](s, KindGroup, name) }

// GroupsOf lists the groups that a proxy matches, sorted. One is right; none or
// several mean that the proxy is refused.
func (s *Spec) GroupsOf(p model.Proxy) []string {
	var out []string
	for _, d := range s.Documents(KindGroup) {
		if g, ok := d.Body.(*Group); ok && g.Match.effective(d.Name).matches(p) {
			out = append(out, d.Name)
		}
	}
	return out
}

// Upstreams lists the names of the upstreams reachable from a group's listeners,
// sorted.
func (s *Spec) Upstreams(group string) []string {
	return s.reachable(group, func(*Listener) bool { return true })
}

// AutoRouted lists the upstreams to which a listener with autoRoutes leads, sorted.
func (s *Spec) AutoRouted(l *Listener) []string {
	seen, beside := map[string]bool{}, s.applications()
	for ref, d := range s.docs {
		u, ok := d.Body.(*Upstream)
		if ok && u.Protocol != "tcp" && !beside[ref.Name] && (!l.GRPC || (d.Imported || u.SpeaksHTTP2()) && u.resolvableByGRPC()) {
			seen[ref.Name] = true
		}
	}
	return sortedKeys(seen)
}

// UpstreamsFor lists those that are reachable for one kind of client: gRPC's own, or
// proxies.
func (s *Spec) UpstreamsFor(group string, grpc bool) []string {
	return s.reachable(group, func(l *Listener) bool { return l.GRPC == grpc })
}

func (s *Spec) reachable(group string, via func(*Listener) bool) []string {
	seen := map[string]bool{}
	g, _ := s.Group(group)
	if g == nil {
		return nil
	}
	for _, ln := range g.Listeners {
		l, _ := s.Listener(ln)
		if l == nil || !via(l) {
			continue
		}
		for _, name := range s.leadsTo(l) {
			seen[name] = true
		}
		if l.AutoRoutes != nil {
			for _, name := range s.AutoRouted(l) {
				seen[name] = true
			}
		}
	}
	return sortedKeys(seen)
}

// leadsTo lists the upstreams that a listener and its routes name, as often as they
// do.
func (s *Spec) leadsTo(l *Listener) []string {
	var out []string
	for _, to := range l.Destinations() {
		out = append(out, to.Upstream)
	}
	for _, name := range l.Routes {
		if r, _ := s.Route(name); r != nil {
			out = append(out, r.leadsTo()...)
		}
	}
	return out
}

// LocalServices lists what the source "local" knows, sorted by key: Service
// documents and the short form in upstreams.
func (s *Spec) LocalServices() []model.Service {
	var out []model.Service
	for _, d := range s.docs {
		if svc := d.LocalService(); svc != nil {
			out = append(out, *svc)
		}
	}
	slices.SortFunc(out, func(a, b model.Service) int { return a.Key.Compare(b.Key) })
	return out
}

// LocalService is the service that a document declares: a Service, or an Upstream
// with endpoints of its own. It is nil for others.
func (d *Document) LocalService() *model.Service {
	var eps []model.Endpoint
	switch b := d.Body.(type) {
	case *Service:
		eps = b.Model(d.Name, d.Revision)
	case *Upstream:
		origin := model.Origin{Source: SourceLocal, Key: d.String(), Revision: d.Revision}
		switch {
		case b.Endpoints != nil:
			eps = modelEndpoints(b.Endpoints, origin)
		case b.DNS != nil && len(b.DNS.Hosts) > 0:
			eps = dnsEndpoints(b.DNS.Hosts, origin)
		default:
			return nil
		}
	default:
		return nil
	}
	presence := model.Present
	if len(eps) == 0 {
		presence = model.Empty
	}
	return &model.Service{Key: model.ServiceKey{Source: SourceLocal, Name: d.Name}, Presence: presence, Endpoints: eps}
}

// linker resolves references.
type linker struct {
	spec     *Spec
	faults   Faults
	warnings []Fault
}

func (l *linker) fault(d *Document, field, format string, args ...any) {
	l.faults = append(l.faults, d.fault(field, fmt.Sprintf(format, args...)))
}

func (l *linker) warn(d *Document, code, field, format string, args ...any) {
	l.warnings = append(l.warnings, d.Advise(code, field, format, args...))
}

// missing reports a reference to a document that is not there.
func (l *linker) missing(d *Document, field string, kind Kind, name string) {
	var names []string
	for _, other := range l.spec.Documents(kind) {
		names = append(names, other.Name)
	}
	msg := fmt.Sprintf("no %s is named %q", kind, name)
	if near := nearest(name, names); near != "" {
		msg += fmt.Sprintf("; did you mean %s?", near)
	} else {
		msg += "; declare it or correct the name"
	}
	l.fault(d, field, "%s", msg)
}

func (l *linker) upstream(d *Document, u *Upstream) {
	key := u.Key(d.Name)
	if key.Source == SourceLocal && !u.declaresEndpoints() && l.spec.docs[Ref{KindService, key.Name}] == nil {
		l.fault(d, "spec.service", "no Service document is named %q; write endpoints here, declare the Service, or name another source", key.Name)
	}
	if other := l.spec.docs[Ref{KindService, d.Name}]; u.declaresEndpoints() && other != nil {
		p := other.place("")
		field := "spec.endpoints"
		if u.Endpoints == nil {
			field = "spec.dns.hosts"
		}
		l.fault(d, field, "these endpoints are the local service %q, which Service/%s at %s:%d declares too; keep one", d.Name, d.Name, p.File, p.Line)
	}
	if len(u.HealthChecks) > 1 {
		l.warn(d, AdviceFirstCheck, "spec.healthChecks", "an Envoy before 1.40 is sent only the first of the %d", len(u.HealthChecks))
	}
	if u.LoadBalancing.Localities == "loadAware" {
		l.warn(d, AdviceLocalities, "spec.loadBalancing.localities", "an Envoy before 1.40 uses the endpoints of all localities alike")
	}
	for i, h := range u.HealthChecks {
		if h.Timeout > h.Interval {
			l.warn(d, AdviceCheckTimeout, index("spec.healthChecks", i)+".timeout", "%s is longer than the interval %s", h.Timeout, h.Interval)
		}
	}
	if n := len(u.Endpoints); u.Outlier != nil && u.Endpoints != nil && n*int(u.Outlier.MaxEjectionPercent)/100 == 0 {
		l.warn(d, AdviceEjectsNobody, "spec.outlierDetection", "%d %% of %d endpoints is none: nothing is ever ejected", u.Outlier.MaxEjectionPercent, n)
	}
}

func (l *linker) route(d *Document, r *Route) {
	for i := range r.Rules {
		rule := &r.Rules[i]
		if rule.Match.Path.Regex != "" && bigRegex(rule.Match.Path.Regex) {
			l.warn(d, AdviceRegexSize, index("spec.rules", i)+".match.path.regex", "an Envoy that was not started with `wellspring bootstrap` may refuse it for its size")
		}
		for j, to := range rule.To {
			at := func() string { return index(index("spec.rules", i)+".to", j) + ".upstream" }
			u, ok := l.spec.Upstream(to.Upstream)
			switch {
			case !ok:
				l.missing(d, at(), KindUpstream, to.Upstream)
			case u.Protocol == "tcp":
				l.fault(d, at(), "Upstream/%s speaks tcp; only a Listener with tcp leads there", to.Upstream)
			case rule.Rewrite != nil && rule.Rewrite.HostOfEndpoint && !u.Hostnames():
				l.fault(d, index("spec.rules", i)+".rewrite.hostOfEndpoint", "the endpoints of Upstream/%s have addresses, no names", to.Upstream)
			}
		}
	}
}

func (l *linker) listener(d *Document, li *Listener) {
	switch {
	case li.GRPC:
		l.forGRPC(d, li)
	case li.Inbound:
		l.inbound(d, li)
	}
	for i, to := range li.Destinations() {
		if _, ok := l.spec.Upstream(to.Upstream); !ok {
			l.missing(d, index("spec.tcp.to", i)+".upstream", KindUpstream, to.Upstream)
		}
	}
	hosts := map[string]string{} // host → Route document
	for i, name := range li.Routes {
		r, ok := l.spec.Route(name)
		if !ok {
			l.missing(d, index("spec.routes", i), KindRoute, name)
			continue
		}
		for j, h := range r.Hosts {
			h = strings.ToLower(h)
			if li.GRPC && strings.Contains(h, "*") {
				l.fault(d, index("spec.routes", i), "Route/%s has the host %q; a target of gRPC is one host", name, h)
			}
			if first, ok := hosts[h]; ok && first != name {
				rd := l.spec.docs[Ref{KindRoute, name}]
				l.fault(rd, index("spec.hosts", j), "host %q belongs to Route/%s too, on Listener/%s; a host belongs to one Route per listener", h, first, d.Name)
			}
			hosts[h] = name
		}
	}
}

func (l *linker) group(d *Document, g *Group) {
	type bound struct{ name, address string }
	var all []bound
	targets := map[string]string{} // host → Listener document
	for i, name := range g.Listeners {
		at := index("spec.listeners", i)
		li, ok := l.spec.Listener(name)
		if !ok {
			l.missing(d, at, KindListener, name)
			continue
		}
		if li.GRPC {
			l.targets(d, name, li, targets)
			continue
		}
		for _, b := range all {
			if overlaps(b.address, li.Address) {
				ld := l.spec.docs[Ref{KindListener, name}]
				l.fault(ld, "spec.address", "%s is taken by Listener/%s (%s) in Group/%s; a group's listeners need addresses of their own", li.Address, b.name, b.address, d.Name)
			}
		}
		all = append(all, bound{name, li.Address})
	}
	m := g.Match.effective(d.Name)
	for _, other := range l.spec.Documents(KindGroup) {
		if og, ok := other.Body.(*Group); ok && other.Name > d.Name && m.compatible(og.Match.effective(other.Name)) {
			l.warn(d, AdviceTwoGroups, "spec.match", "one proxy could match Group/%s too, and would then be refused", other.Name)
		}
	}
}

// forGRPC warns of what gRPC's own clients do otherwise than a proxy.
func (l *linker) forGRPC(d *Document, li *Listener) {
	for i, rn := range li.Routes {
		r, _ := l.spec.Route(rn)
		if r == nil {
			continue
		}
		at := index("spec.routes", i)
		for _, rule := range r.Rules {
			if rule.Redirect != nil || rule.Respond != nil || rule.Rewrite != nil || len(rule.Request.Set)+len(rule.Request.Add)+len(rule.Request.Remove)+len(rule.Upgrades) > 0 {
				l.warn(d, AdviceGRPC, at, "gRPC's own clients know no redirects, answers, rewrites, header edits or upgrades: Route/%s has some", rn)
				break
			}
		}
		for _, rule := range r.Rules {
			for _, to := range rule.To {
				u, ok := l.spec.Upstream(to.Upstream)
				switch {
				case !ok:
				case !u.resolvableByGRPC():
					l.fault(d, at, "Upstream/%s has endpoints by name; gRPC's own clients take one dns.hosts only", to.Upstream)
				case u.LoadBalancing.Policy == "random" || u.LoadBalancing.Policy == "maglev":
					l.warn(d, AdviceGRPC, at, "gRPC's own clients do not have the policy %s of Upstream/%s; they use roundRobin", u.LoadBalancing.Policy, to.Upstream)
				case u.TLS != nil:
					l.warn(d, AdviceGRPC, at, "gRPC's own clients bring their own TLS to Upstream/%s; what it says of tls is not sent to them", to.Upstream)
				}
			}
		}
	}
}

// targets wants each host of gRPC's clients on one listener of a group.
func (l *linker) targets(g *Document, name string, li *Listener, seen map[string]string) {
	one := func(field, h string) {
		if first, ok := seen[h]; ok && first != name {
			d := l.spec.docs[Ref{KindListener, name}]
			l.fault(d, field, "host %q is a target by Listener/%s too, in Group/%s; a target is on one listener", h, first, g.Name)
		}
		seen[h] = name
	}
	if li.AutoRoutes != nil {
		one("spec.autoRoutes.domain", "*."+li.AutoRoutes.Domain)
	}
	for i, rn := range li.Routes {
		r, _ := l.spec.Route(rn)
		if r == nil {
			continue
		}
		for _, h := range r.Hosts {
			one(index("spec.routes", i), h)
		}
	}
}

// unused warns of documents that nothing leads to.
func (l *linker) unused() {
	listeners, routes, upstreams := map[string]bool{}, map[string]bool{}, make(map[string]bool, len(l.spec.Documents(KindUpstream)))
	for _, d := range l.spec.Documents("") {
		switch b := d.Body.(type) {
		case *Group:
			for _, n := range b.Listeners {
				listeners[n] = true
			}
		case *Listener:
			for _, n := range b.Routes {
				routes[n] = true
			}
			for _, to := range b.Destinations() {
				upstreams[to.Upstream] = true
			}
			if b.AutoRoutes != nil {
				for _, name := range l.spec.AutoRouted(b) {
					upstreams[name] = true
				}
			}
		case *Route:
			for _, name := range b.leadsTo() {
				upstreams[name] = true
			}
		}
	}
	for _, d := range l.spec.Documents("") {
		switch {
		case d.Kind == KindListener && !listeners[d.Name]:
			l.warn(d, AdviceUnused, "name", "no Group has this listener; no proxy is sent it")
		case d.Kind == KindRoute && !routes[d.Name]:
			l.warn(d, AdviceUnused, "name", "no Listener has this route; no proxy is sent it")
		case d.Kind == KindUpstream && !upstreams[d.Name]:
			l.warn(d, AdviceUnused, "name", "nothing leads to this upstream; no proxy is sent it")
		}
	}
}
