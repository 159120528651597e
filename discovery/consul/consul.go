// Package consul is the source of services registered in Consul.
//
//	want ─► one watch per key ─► blocking query ─┬─ gain, change ──────────► report
//	                                             └─ loss ─► plain read ────► report
//	surplus keys ─► round of plain reads ──────────────────────────────────► report
//	probe per datacenter ─► plain read of a fixed service ─────────────────► report (Fresh)
//
// Why it is built so. A blocking query of /v1/health/service is answered by
// Consul's streaming backend, which can say 200 with an empty list when it has
// no snapshot, no leader or no permission, and 200 with old instances when every
// server is dead. So:
//
//   - A fall to zero, and the loss of more than half of three or more, is
//     reported only as a plain read (index 0) confirms it: 200, a known leader,
//     nothing filtered, no anonymous reader under default deny, index above 1.
//   - An empty answer with an index of 0 or 1 says nothing.
//   - An index that runs backwards means a restored snapshot: read again from 0.
//   - Freshness is never inferred from watches; it is probed.
//
// Every registry's word is hostile input: one malformed record is a problem of
// that record alone, and an answer that cannot be believed is a failure, which
// takes nothing away.
package consul

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/sync/errgroup"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Config of one Consul. What is empty comes from Consul's own environment
// variables (CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN, …), then from its defaults.
type Config struct {
	// Name of the source, as upstreams say it.
	Name       string
	Address    string
	Token      string
	TokenFile  string
	Datacenter string
	Namespace  string
	Partition  string
	// TLS replaces what the environment says of TLS, where it is not nil.
	TLS *TLS
	// LocalityKeys are the keys read from Service.Meta, then Node.Meta. Zero is
	// region, zone, subzone.
	LocalityKeys LocalityKeys
	// MaxConnections is Consul's limits.http_max_conns_per_client. Zero is 200,
	// Consul's default. Watches take 40 less; other keys are polled.
	MaxConnections int
	// Import says what Names lists.
	Import Import
	Logger *slog.Logger
	// Transport replaces the HTTP transport; nil is Consul's pooled one.
	Transport http.RoundTripper
}

// TLS names files and how Consul's certificate is verified.
type TLS struct {
	CAFile, CertFile, KeyFile string
	// ServerName is the name in Consul's certificate, where it is not the address.
	ServerName         string
	InsecureSkipVerify bool
}

// LocalityKeys name metadata keys.
type LocalityKeys struct{ Region, Zone, SubZone string }

const (
	defaultMaxConnections = 200
	reservedConnections   = 40 // for plain reads, probes and other clients on this host

	queryWait   = 45 * time.Second
	queryMargin = 15 * time.Second // beyond wait × 17/16
	plainWait   = 20 * time.Second // a plain read without a leader takes 9–12 s
	minInterval = 100 * time.Millisecond

	probeInterval = 5 * time.Second
	probeJitter   = 2 * time.Second
	probeService  = "consul"

	pollParallel = 20
	pollRate     = 100 // reads a second

	maxBody = 64 << 20
)

// Source reads one Consul. Make it with New.
type Source struct {
	cfg    Config
	client *api.Client
	token  *token
}

// New checks the configuration; it does not connect.
func New(cfg Config) (*Source, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = defaultMaxConnections
	}
	if cfg.LocalityKeys == (LocalityKeys{}) {
		cfg.LocalityKeys = LocalityKeys{"region", "zone", "subzone"}
	}
	c := api.DefaultConfig()
	for _, f := range []struct {
		to   *string
		from string
	}{
		{&c.Address, cfg.Address},
		{&c.Token, cfg.Token},
		{&c.TokenFile, cfg.TokenFile},
		{&c.Datacenter, cfg.Datacenter},
		{&c.Namespace, cfg.Namespace},
		{&c.Partition, cfg.Partition},
	} {
		if f.from != "" {
			*f.to = f.from
		}
	}
	if cfg.TLS != nil {
		c.TLSConfig = api.TLSConfig{Address: cfg.TLS.ServerName, CAFile: cfg.TLS.CAFile, CertFile: cfg.TLS.CertFile, KeyFile: cfg.TLS.KeyFile, InsecureSkipVerify: cfg.TLS.InsecureSkipVerify}
	}
	if cfg.TLS != nil {
		if strings.HasPrefix(c.Address, "http://") {
			return nil, fmt.Errorf("consul source %q: tls is configured and the address %s says http; write https, or leave tls out", cfg.Name, c.Address)
		}
		c.Scheme = "https"
	}
	c.Transport.MaxIdleConnsPerHost = cfg.MaxConnections
	if socket, ok := strings.CutPrefix(c.Address, "unix://"); ok {
		// api.NewClient would replace our HTTP client and its limits.
		c.Transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
		c.Address = "127.0.0.1"
	}
	httpClient, err := api.NewHttpClient(c.Transport, c.TLSConfig)
	if err != nil {
		return nil, fmt.Errorf("consul source %q: TLS: %w", cfg.Name, err)
	}
	if cfg.Transport != nil {
		httpClient.Transport = cfg.Transport
	}
	httpClient.Transport = capped{httpClient.Transport}
	httpClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.HttpClient = httpClient
	client, err := api.NewClient(c)
	if err != nil {
		return nil, fmt.Errorf("consul source %q: %w", cfg.Name, err)
	}
	// NewClient has read the token file into c.
	return &Source{cfg: cfg, client: client, token: &token{file: c.TokenFile, value: c.Token}}, nil
}

// capped bounds what one answer may be.
type capped struct{ next http.RoundTripper }

func (c capped) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.next.RoundTrip(r)
	if err == nil && resp.Body != nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxBody)
	}
	return resp, err
}

// Run implements discovery.Source.
func (s *Source) Run(ctx context.Context, want <-chan []model.ServiceKey, report func(model.ServiceKey, discovery.Report)) error {
	g, ctx := errgroup.WithContext(ctx)
	r := &runner{Source: s, report: report, watches: map[model.ServiceKey]context.CancelFunc{}, probes: map[string]context.CancelFunc{}, polled: newRound()}
	g.Go(func() error { r.poll(ctx); return nil })
	r.want(ctx, nil)
	for {
		select {
		case <-ctx.Done():
			r.wg.Wait()
			return g.Wait()
		case keys := <-want:
			r.want(ctx, keys)
		}
	}
}

// runner is one Run.
type runner struct {
	*Source
	report func(model.ServiceKey, discovery.Report)
	wg     sync.WaitGroup

	// touched by Run's goroutine only
	watches map[model.ServiceKey]context.CancelFunc
	probes  map[string]context.CancelFunc
	said    bool

	polled *round
}

// want starts and ends watches. A key keeps its watch for as long as it is
// wanted: a watch that is cancelled still occupies Consul until its wait ends.
func (r *runner) want(ctx context.Context, keys []model.ServiceKey) {
	wanted := make(map[model.ServiceKey]bool, len(keys))
	datacenters := map[string]bool{"": true}
	r.probe(ctx, "")
	for _, k := range keys {
		wanted[k], datacenters[k.Datacenter] = true, true
		r.probe(ctx, k.Datacenter)
	}
	for dc, cancel := range r.probes {
		if !datacenters[dc] {
			cancel()
			delete(r.probes, dc)
			r.report(model.ServiceKey{Source: r.cfg.Name, Datacenter: dc}, discovery.Unwatched{})
		}
	}
	for k, cancel := range r.watches {
		if !wanted[k] {
			cancel()
			delete(r.watches, k)
		}
	}
	if i := slices.IndexFunc(keys, func(k model.ServiceKey) bool { return k.Name == model.CanaryService }); i > 0 {
		keys = slices.Clone(keys) // it is to show whether watches tell: it has one itself
		keys[0], keys[i] = keys[i], keys[0]
	}
	limit := max(1, r.cfg.MaxConnections-reservedConnections)
	var surplus []model.ServiceKey
	for _, k := range keys {
		switch {
		case r.watches[k] != nil:
		case len(r.watches) < limit:
			wctx, cancel := context.WithCancel(ctx)
			r.watches[k] = cancel
			w := &watch{runner: r, key: k}
			r.wg.Go(func() { w.run(wctx) })
		default:
			surplus = append(surplus, k)
		}
	}
	r.polled.set(surplus)
	if len(surplus) > 0 && !r.said {
		r.said = true
		r.cfg.Logger.Warn("services polled in place of watched: raise limits.http_max_conns_per_client in Consul and maxConnections of this source",
			"source", r.cfg.Name, "watched", len(r.watches), "polled", len(surplus))
	}
}

// probe starts the freshness probe of a datacenter once.
func (r *runner) probe(ctx context.Context, datacenter string) {
	if r.probes[datacenter] != nil {
		return
	}
	ctx, r.probes[datacenter] = context.WithCancel(ctx)
	key := model.ServiceKey{Source: r.cfg.Name, Datacenter: datacenter}
	r.wg.Go(func() {
		for {
			a := r.plainRead(ctx, model.ServiceKey{Source: r.cfg.Name, Datacenter: datacenter, Name: probeService})
			switch {
			case ctx.Err() != nil:
				return
			case a.failed.Err != nil && a.failed.Reason != discovery.Filtered:
				// A token that may not read the probed service still proves that the
				// leader answers; what the token hides is told of each service.
				r.report(key, a.failed)
			default:
				r.report(key, discovery.Fresh{})
			}
			if !sleep(ctx, probeInterval+rand.N(probeJitter)) {
				return
			}
		}
	})
}

// sleep waits, or returns false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
