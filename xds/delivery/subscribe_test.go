package delivery

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// TestSubscriptions holds what a delta stream is sent against a model that knows nothing
// of sets, steps and exceptions: for each name what the client was told last, and
// whether it asks to be told again. Each response must be just what the model owes, so
// that nothing is sent twice and nothing is left out, whatever clients subscribe to, leave,
// repeat, present, and however late they answer.
func TestSubscriptions(t *testing.T) {
	for _, typ := range []Type{Listeners, Assignments} {
		t.Run(typ.Short(), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) { runSubscriber(rt, typ) })
		})
	}
}

// FuzzSubscriptions is TestSubscriptions with inputs that a fuzzer finds.
func FuzzSubscriptions(f *testing.F) {
	f.Fuzz(func(t *testing.T, input []byte) {
		for _, typ := range []Type{Listeners, Assignments} {
			rapid.MakeFuzz(func(rt *rapid.T) { runSubscriber(rt, typ) })(t, input)
		}
	})
}

// subscriber is a client of one type, and what it is owed.
type subscriber struct {
	*rapid.T
	typ     Type
	engine  *Engine
	session *Session
	table   *Table
	now     time.Time

	served map[string]string // what is declared
	n      int               // versions so far

	first bool // nothing was requested on this stream
	begun bool // the first response came, where one is owed whatever is in it
	all   bool
	names map[string]bool
	asks  map[string]bool   // names to be answered whatever was told
	told  map[string]string // version that the client was told last, or presented
	open  *Response
	holds map[string]string // what the client has taken
	nonce string            // that it answered last
}

func runSubscriber(t *rapid.T, typ Type) {
	s := &subscriber{T: t, typ: typ, engine: NewEngine(), now: time.Unix(1000, 0), served: map[string]string{}, holds: map[string]string{}}
	for range 3 {
		s.change()
	}
	s.connect()
	t.Repeat(map[string]func(*rapid.T){
		"change":    func(*rapid.T) { s.change(); s.session.SetTable(s.table) },
		"subscribe": func(*rapid.T) { s.subscribe() },
		"answer":    func(*rapid.T) { s.answer() },
		"repeat":    func(*rapid.T) { s.repeat() },
		"reconnect": func(*rapid.T) { s.connect() },
		"":          func(*rapid.T) { s.pump() },
	})
	for s.open != nil {
		s.answer()
		s.pump()
	}
	for name, version := range s.served {
		if s.wants(name) && s.holds[name] != version {
			t.Fatalf("%s=%s is served and subscribed to; the client has %q", name, version, s.holds[name])
		}
	}
}

var subscriberNames = []string{"a@1", "b@1", "c@1", "d@1", "e@1"}

func (s *subscriber) some(label string) []string {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(subscriberNames), 0, 3, rapid.ID).Draw(s.T, label)
}

func (s *subscriber) wants(name string) bool { return s.all || s.names[name] }

// change declares another form of a name, or none.
func (s *subscriber) change() {
	name := rapid.SampledFrom(subscriberNames).Draw(s.T, "name")
	if s.n++; s.served[name] != "" && rapid.IntRange(0, 3).Draw(s.T, "gone") == 0 {
		delete(s.served, name)
	} else {
		s.served[name] = fmt.Sprint(s.n)
	}
	var all []*Resource
	for name, version := range s.served {
		all = append(all, resource(s.typ, name, version))
	}
	for _, name := range subscriberNames { // the clusters that assignments belong to
		all = append(all, cluster(upstreamOf(name), "1"))
	}
	s.table = table(all...)
}

// connect opens another stream; the client presents what it has.
func (s *subscriber) connect() {
	if s.session != nil {
		s.session.Close(s.now)
	}
	memory := s.engine.Memory("g", "n", "1.40.0", s.now)
	s.session = NewSession(Config{}, s.engine, memory, Client{Delta: true, Private: true}, s.table, s.now, func(model.Event) {})
	s.first, s.begun, s.all, s.open, s.nonce = true, false, false, nil, ""
	s.names, s.asks, s.told = map[string]bool{}, map[string]bool{}, map[string]string{}
	// It asked for clusters before, as every client does, and has them.
	s.session.Request(Request{Type: Clusters}, s.now)
	for {
		out, _ := s.session.Pump(s.now)
		if len(out) == 0 {
			break
		}
		for _, r := range out {
			s.session.Request(Request{Type: r.Type, Nonce: r.Nonce}, s.now)
		}
	}
}

// subscribe adds names, leaves others, or changes to and from all.
func (s *subscriber) subscribe() {
	r := Request{Type: s.typ, Subscribe: s.some("subscribe"), Unsubscribe: s.some("unsubscribe")}
	r.Unsubscribe = slices.DeleteFunc(r.Unsubscribe, func(n string) bool { return slices.Contains(r.Subscribe, n) })
	star := s.typ.fullState() && rapid.IntRange(0, 3).Draw(s.T, "star") == 0
	if star && s.all {
		r.Unsubscribe = append(r.Unsubscribe, "*")
	} else if star {
		r.Subscribe = append(r.Subscribe, "*")
	}
	first := s.first
	if s.first = false; first {
		s.told = maps.Clone(s.holds)
		r.Initial, r.Unsubscribe = maps.Clone(s.holds), nil
	}
	if s.open != nil && rapid.Bool().Draw(s.T, "stale") {
		r.Nonce = "0" // that of a stream that is gone
	}
	s.session.Request(r, s.now)

	legacy := first && len(r.Subscribe) == 0 && s.typ.fullState()
	was := s.all
	s.all = (s.all || slices.Contains(r.Subscribe, "*") || legacy) && !slices.Contains(r.Unsubscribe, "*")
	s.begun = s.begun || !first || len(s.holds) > 0 || !s.all
	for _, n := range r.Subscribe {
		if n == "*" {
			continue
		}
		s.names[n] = true
		if _, presented := r.Initial[n]; !presented || s.typ.everyTime() {
			s.asks[n] = true
		}
	}
	for _, n := range r.Unsubscribe {
		delete(s.names, n)
	}
	for _, n := range subscriberNames {
		if was || slices.Contains(r.Unsubscribe, n) || first {
			if !s.wants(n) && (was || !first) { // what it leaves it forgets
				delete(s.told, n)
				delete(s.holds, n)
				delete(s.asks, n)
			}
		}
	}
}

// repeat says again what is known: it changes nothing.
func (s *subscriber) repeat() {
	if !s.first {
		s.session.Request(Request{Type: s.typ, Nonce: s.nonce}, s.now)
	}
}

// owed is what the next response must be.
func (s *subscriber) owed() (send, remove []string) {
	for _, n := range subscriberNames {
		version, is := s.served[n]
		told, was := s.told[n]
		switch {
		case !s.wants(n):
		case is && (told != version || s.asks[n]):
			send = append(send, n+"="+version)
		case !is && s.typ.fullState() && (was || s.asks[n]): // a published cluster's assignment is never told as removed
			remove = append(remove, n)
		}
	}
	return send, remove
}

// pump wants to be sent just what is owed, once what came before was answered.
func (s *subscriber) pump() {
	var got []Response
	for range 10 {
		out, _ := s.session.Pump(s.now)
		for _, r := range out {
			if r.Type == s.typ {
				got = append(got, r)
			}
		}
		if len(out) == 0 {
			break
		}
	}
	send, remove := s.owed()
	if s.first || s.open != nil || len(send)+len(remove) == 0 && s.begun {
		if len(got) > 0 {
			s.Fatalf("sent %s though nothing is owed", say(got))
		}
		return
	}
	if len(got) != 1 {
		s.Fatalf("sent %s, want one response with %v, without %v", say(got), send, remove)
	}
	var sent []string
	for _, r := range got[0].Resources {
		sent = append(sent, r.Name+"="+r.Version)
	}
	if !slices.Equal(sent, send) || !slices.Equal(got[0].Removed, remove) {
		s.Fatalf("sent %s, want %v, without %v", say(got), send, remove)
	}
	s.open, s.begun = &got[0], true
	for _, x := range send {
		name, version, _ := strings.Cut(x, "=")
		s.told[name] = version
		delete(s.asks, name)
	}
	for _, n := range remove {
		delete(s.told, n)
		delete(s.asks, n)
	}
}

// answer takes the open response and says so.
func (s *subscriber) answer() {
	if s.open == nil {
		return
	}
	for _, r := range s.open.Resources {
		if s.wants(r.Name) {
			s.holds[r.Name] = r.Version
		}
	}
	for _, n := range s.open.Removed {
		delete(s.holds, n)
	}
	s.nonce, s.open = s.open.Nonce, nil
	s.session.Request(Request{Type: s.typ, Nonce: s.nonce}, s.now)
}
