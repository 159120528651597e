package delivery

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// refused takes a refusal: who is guilty is parked, everything else in the
// response counts as not held and is sent again.
func (s *Session) refused(st *state, o *sent, message string, now time.Time) {
	resources := o.named()
	guilty := Guilty(message, resources)
	message = clip(message)
	s.emit(model.Event{Kind: model.EventDeliveryRefused, Subject: model.Subject{Kind: st.typ.Short(), Name: strings.Join(guilty, " ")}, To: o.version, Reason: message})
	if !s.client.Delta && st.typ.fullState() && !st.fresh && !st.base && st.accepted == 0 {
		// What it holds is not known, so that any smaller set could take away what
		// serves it. It keeps that until the content changes.
		s.unknown(st, o)
		st.stuck, st.owed = true, true
		return
	}
	suspects := s.newIn(st, o)
	if len(guilty) == 0 && len(suspects) == 1 {
		guilty = suspects
	}
	for _, name := range guilty {
		if last := s.memory.last(st.typ, name); last != nil && last.Version == resources[name].Version {
			s.memory.forget(st.typ, name) // what it accepted once it refuses now: it was restarted
		}
	}
	s.unknown(st, o)
	if !s.client.Delta && st.typ.fullState() {
		st.owed, st.refused = true, o.version // the whole set again, without the guilty
	}
	if len(guilty) > 0 {
		st.groups = nil
		for _, name := range guilty {
			s.park(st, resources[name], message, now)
		}
		return
	}
	st.split(suspects)
}

// newIn lists, sorted, the names of a response that this proxy had not accepted
// in this form: the others cannot be what was refused.
func (s *Session) newIn(st *state, o *sent) []string {
	var out []string
	for _, r := range o.resources {
		if last := s.memory.last(st.typ, r.Name); last == nil || last.Version != r.Version || !st.stand(r.Name).some {
			out = append(out, r.Name)
		}
	}
	if len(out) == 0 {
		for _, r := range o.resources {
			out = append(out, r.Name)
		}
	}
	slices.Sort(out)
	return out
}

// split tries the halves of what was refused apart. A set that must be whole
// grows by them, on top of what the client is known to have.
func (st *state) split(names []string) {
	if len(names) == 0 { // only removals were refused; they are told again
		return
	}
	rest := slices.DeleteFunc(st.groups, func(g map[string]bool) bool { return g[names[0]] })
	half := (len(names) + 1) / 2
	st.groups = append([]map[string]bool{setOf(names[:half]), setOf(names[half:])}, rest...)
}

func setOf(names []string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

func (s *Session) park(st *state, r *Resource, message string, now time.Time) {
	if is := s.table.Get(r.Type, r.Name); is == nil || is.Version != r.Version {
		return // it changed while the answer was under way: that is not sent again
	}
	key := content{r.Type, r.Name, r.Version}
	st.retried[key] = true
	s.memory.park(model.Parked{Type: string(r.Type), Name: r.Name, Version: r.Version, Document: r.Document, Message: message, Since: now})
	s.engine.setSuspect(key)
	s.emit(model.Event{Kind: model.EventDeliveryParked, Subject: model.Subject{Kind: st.typ.Short(), Name: r.Name}, To: r.Version, Reason: message})
}

// maxMessage bounds what is kept of Envoy's words: some of its messages dump the
// whole resource.
const maxMessage = 2 << 10

func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > maxMessage {
		return strings.ToValidUTF8(s[:maxMessage], "") + "…"
	}
	return s
}

// named are the forms in which Envoy names a single resource.
var named = regexp.MustCompile(`duplicate name ([^ ]+) found|in route ([^ ,]+)|(?:cluster_name|name): "([^"]*)"`)

// Guilty reads in Envoy's words which of the refused resources it means, sorted.
// Names count only as whole names and only where the response carried them.
// Nothing is guessed: an empty answer means that nobody is named.
func Guilty(message string, refused map[string]*Resource) []string {
	found := map[string]bool{}
	for _, head := range []string{"Error adding/updating cluster(s) ", "Error adding/updating listener(s) "} {
		_, list, ok := strings.Cut(message, head)
		if !ok {
			continue
		}
		for name := range refused {
			if strings.HasPrefix(list, name+": ") || strings.Contains(list, ", "+name+": ") {
				found[name] = true
			}
		}
	}
	if len(found) == 0 {
		for _, m := range named.FindAllStringSubmatch(message, -1) {
			for _, name := range m[1:] {
				if refused[name] != nil {
					found[name] = true
				}
			}
			if len(found) > 0 {
				break // a dump names its own resource first, and others inside
			}
		}
	}
	out := make([]string, 0, len(found))
	for name := range found {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
