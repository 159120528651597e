package xds_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wellspring-xds/wellspring/xds/xdstest"
)

// An Envoy that reads nothing holds up nobody else, and is cut off once something
// cannot be handed over for the stall time.
func TestSlowReader(t *testing.T) {
	both(t, func(t *testing.T, sotw bool) {
		w := newWorld(t, newStore(t, fleet(300)))
		for i := range 300 {
			w.registry.say(fmt.Sprintf("u%d", i), present(20))
		}
		waitReady(t, w, "edge")
		quick := w.envoy(xdstest.Config{ID: "quick", SotW: sotw})
		quick.until("all", func(v xdstest.View) error {
			if len(v.Endpoints) != 300 || len(v.Warming) > 0 || len(v.Routes) == 0 {
				return fmt.Errorf("%d clusters", len(v.Endpoints))
			}
			return nil
		})
		slow := w.envoy(xdstest.Config{ID: "slow", SotW: sotw})
		slow.until("all", func(v xdstest.View) error {
			if len(v.Endpoints) != 300 || len(v.Warming) > 0 || len(v.Routes) == 0 {
				return fmt.Errorf("%d clusters", len(v.Endpoints))
			}
			return nil
		})
		slow.quiet(0)
		slow.Pause()
		ended := make(chan error, 1)
		go func() { ended <- w.cutOff("slow") }()
		flips := 0
		for {
			select {
			case err := <-ended:
				if err != nil {
					t.Fatal(err)
				}
				if flips == 0 {
					t.Error("nobody else was served meanwhile")
				}
				return
			default:
			}
			// Cluster responses may follow each other unanswered; each is larger than what
			// gRPC takes of a stream that nobody reads.
			w.store.apply(t, strings.ReplaceAll(fleet(300), "source: consul}", fmt.Sprintf("source: consul}, connectTimeout: %dms", 100+flips)))
			w.registry.say("u7", present(1+flips%5))
			quick.until("a flip", func(v xdstest.View) error {
				if n := len(v.Endpoints["u7"]); n != 1+flips%5 {
					return fmt.Errorf("%d endpoints", n)
				}
				return nil
			})
			flips++
			time.Sleep(700 * time.Millisecond)
		}
	})
}

// cutOff waits until the stream of a proxy is refused for reading nothing.
func (w *world) cutOff(id string) error {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		for _, r := range w.server.Refused() {
			if r.Proxy.ID == id && strings.Contains(r.Why, "read nothing for") {
				return nil
			}
		}
	}
	return fmt.Errorf("%s was never cut off", id)
}

// A process that is stopped, or a machine that vanished, answers no ping: its
// stream ends after 30 s of silence and 10 s of waiting, and no sooner.
func TestStoppedProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ready(t, fleet(1), "u0")
		e := w.envoy(xdstest.Config{ID: "e"})
		e.holds("u0=1")
		time.Sleep(4 * time.Minute) // an Envoy that has nothing to say is not cut off
		if n := len(w.server.Streams(t.Context())); n != 1 {
			t.Fatalf("%d streams after four quiet minutes", n)
		}
		w.freeze()
		time.Sleep(9 * time.Second)
		if n := len(w.server.Streams(t.Context())); n != 1 {
			t.Errorf("%d streams after 9 s", n)
		}
		time.Sleep(35 * time.Second)
		if n := len(w.server.Streams(t.Context())); n != 0 {
			t.Errorf("%d streams after 44 s", n)
		}
	})
}
