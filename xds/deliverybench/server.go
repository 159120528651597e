package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/wellspring-xds/wellspring/pkg/certtest"
)

// peer is a server to compare with. flip changes the next moving assignment to a
// mark and pushes it to every stream.
type peer interface {
	serve(net.Listener) error
	flip(i int)
}

// stats are what a server says of itself after a collection.
type stats struct {
	Mallocs    uint64 // since it began
	AllocBytes uint64
	Live       uint64 // heap and stacks
	Goroutines int
}

// collections are how often garbage is collected before what lives is measured: each one
// halves the stacks that have become larger than what is on them.
const collections = 5

func readStats() stats {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s := stats{Mallocs: m.Mallocs, AllocBytes: m.TotalAlloc, Goroutines: runtime.NumGoroutine()}
	for range collections {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	s.Live = m.HeapAlloc + m.StackInuse
	return s
}

// servePeer runs one of the peers: it prints its address, and takes commands from
// its input, "flip N", "flip N WINDOW" and "stats".
func servePeer(dir, form string) error {
	var of cell
	if err := json.Unmarshal([]byte(form), &of); err != nil {
		return err
	}
	c, err := load(dir)
	if err != nil {
		return err
	}
	creds := insecure.NewCredentials()
	if of.TLS {
		k := &keys{Authority: certtest.Authority{Dir: filepath.Dir(dir)}}
		if creds, err = credentials.NewServerTLSFromFile(k.cert(), k.key()); err != nil {
			return err
		}
	}
	var p peer
	switch of.Server {
	case "rawgrpc":
		p = newRawGRPC(c, of.SotW, creds)
	case "h2raw":
		p = newH2Raw(c)
	case "linear":
		p = newLinear(c)
	case "snapshot":
		p = newSnapshot(c)
	default:
		return fmt.Errorf("no server is named %q", of.Server)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		if err := p.serve(l); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	fmt.Println(l.Addr())
	var waiting []int
	window := time.NewTimer(time.Hour)
	lines := make(chan []string)
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			lines <- strings.Fields(in.Text())
		}
		close(lines)
	}()
	for {
		select {
		case words, ok := <-lines:
			switch {
			case !ok:
				return nil
			case words[0] == "stats":
				if err := json.NewEncoder(os.Stdout).Encode(readStats()); err != nil {
					return err
				}
			case len(words) == 3: // with the others of a window
				d, _ := time.ParseDuration(words[2])
				if len(waiting) == 0 {
					window.Reset(d)
				}
				i, _ := strconv.Atoi(words[1])
				waiting = append(waiting, i)
			default:
				i, _ := strconv.Atoi(words[1])
				p.flip(i)
			}
		case <-window.C:
			p.(batcher).flips(waiting)
			waiting = waiting[:0]
		}
	}
}

// batcher pushes several changes in one response.
type batcher interface{ flips(marks []int) }

// setMark overwrites the digits of the mark in encoded content.
func setMark(b []byte, i int) {
	at := bytes.Index(b, markPrefix) + len(markPrefix)
	copy(b[at:at+markDigits], fmt.Sprintf("%0*d", markDigits, i))
}
