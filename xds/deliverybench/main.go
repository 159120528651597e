package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "deliverybench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 4 && args[0] == "serve" {
		return servePeer(args[1], args[2], args[3] == "true")
	}
	flags := flag.NewFlagSet("deliverybench", flag.ContinueOnError)
	binary := flags.String("wellspring", "bin/wellspring", "the program")
	var c cell
	flags.StringVar(&c.Server, "server", "wellspring", "")
	flags.IntVar(&c.Clusters, "clusters", 1000, "")
	flags.IntVar(&c.Endpoints, "endpoints", 10, "")
	flags.IntVar(&c.Streams, "streams", 1000, "")
	flags.IntVar(&c.Pushes, "pushes", 20, "")
	flags.IntVar(&c.Storm, "storm", 0, "")
	flags.StringVar(&c.Profile, "profile", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := pinned(); err != nil {
		return err
	}
	b := bench{binary: *binary, dir: "/tmp/dbench"}
	_ = os.MkdirAll(b.dir, 0o700)
	r, err := b.run(c)
	_ = json.NewEncoder(os.Stdout).Encode(r)
	return err
}

// pinned runs this program again on the clients' core, so that every thread of it is.
func pinned() error {
	const done = "DELIVERYBENCH_PINNED"
	if os.Getenv(done) != "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	var core unix.CPUSet
	core.Set(clientCore)
	if err := unix.SchedSetaffinity(0, &core); err != nil {
		return err
	}
	return unix.Exec(self, os.Args, append(os.Environ(), done+"=1"))
}
