package delivery

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Whatever an Envoy says of a refusal: only what was refused is named, once, in
// order, and what it says is kept within bounds.
func FuzzGuilty(f *testing.F) {
	f.Add("Error adding/updating cluster(s) a: unknown lb, b: no", "a b c")
	f.Add("Error adding/updating listener(s) edge: duplicate address", "edge edge-2")
	f.Add(`Proto constraint validation failed (ClusterLoadAssignmentValidationError.Endpoints[0]): cluster_name: "a@1" name: "b"`, "a@1 b")
	f.Add("Only unique values for domains are permitted. Duplicate entry of domain x in route edge", "edge")
	f.Add("duplicate name x found", "x")
	f.Add("\xff\xfe", "\xff")
	f.Fuzz(func(t *testing.T, message, names string) {
		refused := map[string]*Resource{}
		for _, n := range strings.Fields(names) {
			refused[n] = resource(Clusters, n, "1")
		}
		guilty := Guilty(message, refused)
		for _, n := range guilty {
			if refused[n] == nil || !strings.Contains(message, n) {
				t.Errorf("%q is named by %q", n, message)
			}
		}
		if !slices.IsSorted(guilty) || len(slices.Compact(slices.Clone(guilty))) != len(guilty) {
			t.Errorf("%q", guilty)
		}
		if c := clip(message); len(c) > maxMessage+len("…") {
			t.Errorf("%d bytes are kept", len(c))
		}
	})
}

// FuzzRequests plays whatever requests, in whatever order, with nonces and versions that
// nobody gave out: a session never panics, never sends without end, has at most as much
// open as it may, and keeps nothing of a stream that is gone.
func FuzzRequests(f *testing.F) {
	f.Add(true, []byte("\x00\x00\x00\x10\x01\x00\x11\x07\x05"))
	f.Add(false, []byte("\x00\x03\x01\x40\x81\xff\x22"))
	names := []string{"a", "b@1", "a@1", "edge", "*", ""}
	f.Fuzz(func(t *testing.T, delta bool, input []byte) {
		next := func() int {
			if len(input) == 0 {
				return 0
			}
			b := input[0]
			input = input[1:]
			return int(b)
		}
		some := func() (out []string) {
			for bits := next(); bits > 0; bits >>= 1 {
				if bits&1 == 1 {
					out = append(out, names[len(out)%len(names)])
				} else if bits > 1 {
					out = append(out, names[bits%len(names)])
				}
			}
			return out
		}
		tables := []*Table{table(shop()...), table(), table(with(shop(), assignment("a@1", "2"), cluster("b", "bad"))...)}
		e, now := NewEngine(), time.Unix(1000, 0)
		var s *Session
		open := func() {
			s = NewSession(Config{}, e, e.Memory("g", "n", "1.40.0", now), Client{Delta: delta, Private: true}, tables[0], now, func(model.Event) {})
		}
		open()
		for len(input) > 0 {
			switch op := next(); op % 8 {
			case 0:
				s.SetTable(tables[next()%len(tables)])
			case 1:
				now = now.Add(time.Duration(next()) * 300 * time.Millisecond)
			case 2:
				s.Close(now)
				open()
			default:
				r := Request{Type: Types[next()%len(Types)], Nonce: []string{"", "0", strconv.Itoa(next()), strconv.FormatUint(s.nonce, 10)}[op>>3%4]}
				if op>>5&1 == 1 {
					words := "Error adding/updating cluster(s) b: no"
					r.Refused = &words
				}
				if delta {
					r.Subscribe, r.Unsubscribe = some(), some()
					for _, n := range some() {
						if r.Initial == nil {
							r.Initial = map[string]string{}
						}
						r.Initial[n] = strconv.Itoa(next() % 3)
					}
				} else {
					r.Names, r.Version = some(), strconv.Itoa(next()%3)
				}
				s.Request(r, now)
			}
			for n := 0; ; n++ {
				out, _ := s.Pump(now)
				if len(out) == 0 {
					break
				}
				if n > 100 {
					t.Fatalf("sends without end, lately %s", say(out))
				}
			}
			for _, st := range s.types {
				if limit := map[bool]int{true: maxOpenClusters, false: 1}[st.typ == Clusters]; len(st.open) > limit {
					t.Fatalf("%d %s responses are open", len(st.open), st.typ.Short())
				}
				if st.count < 0 {
					t.Fatalf("%d %s are held", st.count, st.typ.Short())
				}
			}
			_ = s.Deliveries()
		}
		s.Close(now)
		if len(e.names) != 0 {
			t.Fatalf("names of streams that are gone are kept: %d", len(e.names))
		}
	})
}
