// Command run starts backends for the examples: one for each NAME=IP:PORT.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/wellspring-xds/wellspring/examples/backend"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: run NAME=IP:PORT…, for example: run blue=127.0.0.1:10001")
		os.Exit(64)
	}
	for _, arg := range os.Args[1:] {
		name, addr, ok := strings.Cut(arg, "=")
		if !ok {
			fmt.Fprintf(os.Stderr, "%q is not NAME=IP:PORT\n", arg)
			os.Exit(64)
		}
		b, err := backend.Start(name, addr)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Printf("%s listens on %s\n", b.Name, b.Addr)
	}
	<-ctx.Done()
}
