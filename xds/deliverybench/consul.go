package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/wellspring-xds/wellspring/pkg/consultest"
)

// churn is how fast a change in a real Consul is at the streams: of a service of so many
// instances, one of which is exchanged every so often. A service is asked for ten times a
// second at most (discovery/consul), so that what changes that often waits for its turn.
type churn struct {
	Endpoints int           `json:"endpoints"`
	Every     time.Duration `json:"everyNanos"`
	P50       float64       `json:"p50Millis"`
	P99       float64       `json:"p99Millis"`
	Stolen    float64       `json:"stolen"`
}

const (
	churnStreams = 10
	churnChanges = 150
)

func (b *bench) consul(endpoints int, every time.Duration) (out churn, err error) {
	fmt.Fprintf(os.Stderr, "Consul, a service of %d …\n", endpoints)
	out.Endpoints, out.Every = endpoints, every
	dir, err := os.MkdirTemp(b.dir, "consul-")
	if err != nil {
		return out, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	agent, err := consultest.Start(ctx, consultest.Config{Dir: dir})
	if err != nil {
		return out, err
	}
	defer agent.Kill()
	c := cell{Server: "wellspring", Clusters: 1, Endpoints: endpoints, Streams: churnStreams}
	service := upstream(0, 1)
	register := func(id string, n int) error {
		return agent.Client.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: service, Address: fmt.Sprintf("10.1.%d.%d", n/250, n%250+1), Port: 8080})
	}
	for n := range endpoints - 1 {
		if err := register(fmt.Sprintf("still-%03d", n), n); err != nil {
			return out, err
		}
	}
	if err := register(mark(0), endpoints); err != nil {
		return out, err
	}
	t, err := startWellspring(b.binary, dir, c, b.keys, agent.Address)
	if err != nil {
		return out, err
	}
	defer t.stop()
	if err := learn(t.address, insecure.NewCredentials(), b.contentDir(c), 1); err != nil {
		return out, err
	}
	content, err := load(b.contentDir(c))
	if err != nil {
		return out, err
	}
	f := &fleet{address: t.address, subscribe: subscriptions(content.names()), want: 1, moving: 1, marks: newMarks(churnChanges, churnStreams)}
	if err := f.connect(0, churnStreams); err != nil {
		return out, err
	}
	defer f.close()
	busy, stolen := machine()
	for i := 1; i <= churnChanges; i++ {
		next := time.After(every/2 + rand.N(every))
		f.marks.make(i)
		if err := register(mark(i), endpoints+1+i%100); err != nil {
			return out, err
		}
		if err := agent.Client.Agent().ServiceDeregister(mark(i - 1)); err != nil {
			return out, err
		}
		<-next
	}
	for range churnChanges {
		select {
		case <-f.marks.done:
		case err := <-f.failed:
			return out, err
		case <-time.After(10 * time.Second):
			return out, fmt.Errorf("service of %d in Consul: a change did not arrive", endpoints)
		}
	}
	busyThen, stolenThen := machine()
	out.P50, out.P99 = millis(f.marks.late.quantile(0.5)), millis(f.marks.late.quantile(0.99))
	out.Stolen = (stolenThen - stolen) / max(1, busyThen-busy)
	return out, nil
}

// print tells the line of a service.
func (c churn) print(to io.Writer) {
	fmt.Fprintf(to, "change in a real Consul → bytes at a stream, service of %d, one exchanged each %s or so: p50 %.1f ms, p99 %.1f ms (stolen %.0f %%)\n", c.Endpoints, c.Every, c.P50, c.P99, 100*c.Stolen)
}
