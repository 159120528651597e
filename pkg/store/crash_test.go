package store

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"
)

// What was acknowledged survives kill -9: a child applies and prints each
// acknowledged revision until it is killed, over and over on the same file.
func TestKilledWhileWriting(t *testing.T) {
	rounds := 8
	if os.Getenv("SLOW") == "1" {
		rounds = 200
	}
	dir := t.TempDir()
	var acknowledged uint64
	var hash string
	for round := range rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "write", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// It is killed some time after its first word, so that each round gets on.
		timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		lines := bufio.NewScanner(out)
		for first := true; lines.Scan(); first = false {
			if first {
				timer.Reset(time.Duration(rand.IntN(60)) * time.Millisecond)
			}
			var n uint64
			var h string
			if c, _ := fmt.Sscan(lines.Text(), &n, &h); c == 2 {
				if n != acknowledged+1 && n != acknowledged+2 { // one may have been written and not printed
					t.Fatalf("round %d: revision %d follows %d", round, n, acknowledged)
				}
				acknowledged, hash = n, h
			} else {
				t.Fatalf("round %d: %s", round, lines.Text())
			}
		}
		_ = cmd.Wait()
		timer.Stop()
	}
	s := open(t, dir)
	if got := s.State().Revision; got < acknowledged || got > acknowledged+1 {
		t.Fatalf("the store is at revision %d, %d was acknowledged", got, acknowledged)
	}
	r, err := s.Revision(acknowledged)
	if err != nil || r.Changes[0].To != hash {
		t.Errorf("revision %d is %+v, %v; its change was acknowledged as %s", acknowledged, r, err, hash)
	}
	t.Logf("%d rounds, %d revisions acknowledged, none lost", rounds, acknowledged)
}
