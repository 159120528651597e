package main_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/hashicorp/consul/api"

	"github.com/wellspring-xds/wellspring/examples/backend"
	"github.com/wellspring-xds/wellspring/pkg/admin"
	"github.com/wellspring-xds/wellspring/pkg/certtest"
	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/findings"
)

// bed is one upstream of the lab, with what is behind it.
type bed struct {
	*fault
	lab      *lab
	upstream string
	backends []*backend.Backend
	places   *strings.Replacer
	doing    context.CancelFunc // what goes on while it is broken

	broken time.Time
	first  diagnose.Explanation // the answer that was right, or the last
	after  time.Duration        // from the fault to it
	slow   time.Duration        // the slowest answer
	wrong  string               // of a control: what was found
	lied   []string             // certain, and false
}

func (b *bed) place(text string) string { return b.places.Replace(text) }

// apply sets the upstream's document.
func (b *bed) apply(spec string) {
	b.lab.control.apply("kind: Upstream\nname: " + b.upstream + "\nspec: " + b.place(spec) + "\n")
}

// start brings its backends, their registration and its document.
func (b *bed) start() {
	t := b.lab.t
	places := []string{"{name}", b.upstream, "{closed-port}", portOf(closed(t)), "{checks}", labCheck}
	n := max(2, b.hosts)
	for i := range n {
		host := "127.0.0.1"
		if b.apart != nil {
			host = b.apart(b.lab.apart)
		}
		x, err := backend.Start(fmt.Sprintf("%s-%d", b.upstream, i+1), net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		b.backends = append(b.backends, x)
		t.Cleanup(x.Kill)
		places = append(places, fmt.Sprintf("{%d}", i+1), x.Addr, fmt.Sprintf("{port%d}", i+1), portOf(x.Addr))
	}
	if b.places0 != nil {
		places = append(places, b.places0(b)...)
	}
	b.places = strings.NewReplacer(places...)
	if b.registered {
		for i := range b.backends {
			b.register(i, nil)
		}
	}
}

// register brings a backend into Consul, with a TTL check that passes.
func (b *bed) register(i int, change func(*api.AgentServiceRegistration)) {
	host, port, _ := strings.Cut(b.backends[i].Addr, ":")
	n := 0
	_, _ = fmt.Sscan(port, &n)
	r := &api.AgentServiceRegistration{
		ID: b.id(i), Name: b.upstream, Address: host, Port: n, Check: &api.AgentServiceCheck{CheckID: b.id(i), TTL: "1h", Status: api.HealthPassing},
	}
	if change != nil {
		change(r)
	}
	if err := b.lab.consul.Client.Agent().ServiceRegister(r); err != nil {
		b.lab.t.Fatal(err)
	}
}

func (b *bed) id(i int) string { return fmt.Sprintf("%s-%d", b.upstream, i) }

// eachInstance does something to every registered one.
func (b *bed) eachInstance(f func(id string) error) {
	for i := range b.backends {
		if err := f(b.id(i)); err != nil {
			b.lab.t.Errorf("%s: %v", b.name, err)
		}
	}
}

// crash kills the backends, and revive starts them on the same ports.
func (b *bed) crash() {
	for _, x := range b.backends {
		x.Kill()
	}
}

func (b *bed) revive(which ...int) {
	for _, i := range which {
		x := b.backends[i]
		deadline := time.Now().Add(time.Minute)
		again, err := backend.Start(x.Name, x.Addr)
		for ; err != nil && time.Now().Before(deadline); again, err = backend.Start(x.Name, x.Addr) {
			time.Sleep(50 * time.Millisecond) // somebody's connection has its port
		}
		if err != nil {
			b.lab.t.Fatalf("%s: %v", b.name, err)
		}
		b.lab.t.Cleanup(again.Kill)
		b.backends[i] = again
	}
}

// explain asks, and keeps how long that took.
func (b *bed) explain() (e diagnose.Explanation) {
	start := time.Now()
	if err := b.lab.control.client().Get(b.lab.t.Context(), "/v1/explain", url.Values{"upstream": {b.upstream}}, &e); err != nil {
		b.lab.t.Fatal(err)
	}
	b.slow = max(b.slow, time.Since(start))
	return e
}

// look asks until the first finding is the right one, or time is up; what is certain and
// false is held against every answer.
func (b *bed) look(patience time.Duration) {
	if b.codes+b.warns == "" {
		patience = controlled
	}
	for {
		e := b.explain()
		b.first, b.after = e, time.Since(b.broken)
		if b.codes == "" && e.Found() {
			b.wrong = labLine(e)
		}
		for _, f := range e.Findings {
			is := fmt.Sprintf("%s (%s)", f.Code, f.Says)
			if (f.Strength == diagnose.Certain || f.Code == diagnose.K1 && f.Strength == diagnose.Likely) && !b.holds(f.Code) && !slices.Contains(b.lied, is) {
				b.lied = append(b.lied, is)
			}
		}
		took := time.Since(b.broken)
		if b.codes+b.warns != "" && b.right(e) && (b.codes != "" || took > controlled) || took > patience {
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// warned tells whether the warning that must be told is, here or by the server itself.
func (b *bed) warned(e diagnose.Explanation) bool {
	return b.warns != "" && (slices.ContainsFunc(e.Warnings, func(f diagnose.Finding) bool { return string(f.Code) == b.warns }) ||
		slices.ContainsFunc(b.findings(), func(f findings.TimedFinding) bool { return string(f.Code) == b.warns }))
}

// well fails unless nothing is found before anything is broken. It looks again for a
// while: on a busy machine a check of a good endpoint fails for once, and that is said.
func (b *bed) well() {
	deadline := time.Now().Add(15 * time.Second)
	for {
		e := b.explain()
		if !e.Found() {
			return
		}
		if time.Now().After(deadline) {
			b.lab.t.Errorf("%s, before: %s: %s", b.name, e.Says, labLine(e))
			return
		}
		b.lab.t.Logf("%s, before, looked at again: %s: %s", b.name, e.Says, labLine(e))
		time.Sleep(time.Second)
	}
}

// findings are those that the server keeps by itself, of it, of its certificates and of a
// proxy that leads to it alone.
func (b *bed) findings() (out []findings.TimedFinding) {
	var all admin.Findings
	if err := b.lab.control.client().Get(b.lab.t.Context(), "/v1/findings", url.Values{"ended": {"true"}}, &all); err != nil {
		b.lab.t.Fatal(err)
	}
	for _, f := range all.Items {
		if f.Subject.Name == b.upstream || f.Subject.Kind == "Certificate" && strings.HasPrefix(f.Subject.Name, b.upstream) || b.edge != "" && f.Subject.Name == "edge-"+b.edge {
			out = append(out, f)
		}
	}
	return out
}

// stands fails unless the server found by itself what was done; and nothing critical where
// nothing was.
func (b *bed) stands() {
	if b.brief {
		return
	}
	deadline := time.Now().Add(time.Minute)
	for {
		var lacks, has []string
		lacks = append(lacks, strings.Fields(b.codes+" "+b.warns)...)
		for _, f := range b.findings() { // a proxy that hangs is gone by now, and what was found of it over
			lacks = slices.DeleteFunc(lacks, func(code string) bool { return code == string(f.Code) })
			if has = append(has, string(f.Code)); b.codes == "" && f.Severity == findings.Critical {
				b.lab.t.Errorf("%s: the server found %s: %s", b.name, f.Code, f.Says)
			}
		}
		switch {
		case len(lacks) == 0:
			b.lab.t.Logf("%s: found by itself after %.1fs", b.name, time.Since(b.broken).Seconds())
			return
		case time.Now().After(deadline):
			b.lab.t.Errorf("%s: the server did not find %v by itself, but %v", b.name, lacks, has)
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// over fails unless nothing critical goes on after it is mended.
func (b *bed) over() {
	deadline := time.Now().Add(5 * time.Minute) // requests that failed are of now for two
	for {
		all := slices.DeleteFunc(b.findings(), func(f findings.TimedFinding) bool { return f.Severity != findings.Critical || !f.Open() })
		if len(all) == 0 {
			return
		}
		if time.Now().After(deadline) {
			b.lab.t.Errorf("%s: mended, and %s goes on: %s", b.name, all[0].Code, all[0].Says)
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// holds tells whether a code is true of what was done to it.
func (b *bed) holds(code diagnose.Code) bool {
	return slices.Contains(strings.Fields(b.codes+" "+b.also), string(code))
}

// right tells whether the first finding is one of what was done, and all of that is found;
// where nothing was done, whether nothing is above possible.
func (b *bed) right(e diagnose.Explanation) bool {
	want := strings.Fields(b.codes)
	if len(want) == 0 {
		return b.wrong == "" && (b.warns == "" || b.warned(e))
	}
	if !e.Found() || !slices.Contains(want, string(e.Findings[0].Code)) {
		return false
	}
	if b.warns != "" && !b.warned(e) {
		return false
	}
	for _, code := range want {
		if !slices.ContainsFunc(e.Findings, func(f diagnose.Finding) bool {
			return string(f.Code) == code && f.Strength >= diagnose.Likely
		}) {
			return false
		}
	}
	return true
}

// through are the edges that lead to a bed: those of zones a and b, or one of its own.
func (b *bed) through() (out []*edge) {
	for i := range b.lab.edges {
		e := &b.lab.edges[i]
		if side(e.zone) == b.edge || b.edge == "" && len(e.zone) == 1 {
			out = append(out, e)
		}
	}
	return out
}

func (b *bed) ttl(status string) {
	b.eachInstance(func(id string) error { return b.agent().UpdateTTL(id, "disk full", status) })
}

func (b *bed) each(f func(i int)) {
	for i := range b.backends {
		f(i)
	}
}

// goesOn does something again and again until it is mended.
func (b *bed) goesOn(every time.Duration, f func(i int)) {
	ctx, cancel := context.WithCancel(b.lab.t.Context())
	done := make(chan struct{})
	b.doing = func() { cancel(); <-done }
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			f(i)
			select {
			case <-ctx.Done():
				return
			case <-time.After(every):
			}
		}
	}()
}

func (b *bed) status(n int) { b.each(func(i int) { b.backends[i].SetStatus(n) }) }
func (b *bed) health(n int) { b.each(func(i int) { b.backends[i].SetHealth(n) }) }

func (b *bed) agent() *api.Agent { return b.lab.consul.Client.Agent() }

// onFarNode registers its backends at the agent of another node.
func (b *bed) onFarNode() []string {
	for i, x := range b.backends {
		host, port, _ := net.SplitHostPort(x.Addr)
		n, _ := net.LookupPort("tcp", port)
		r := &api.AgentServiceRegistration{ID: b.id(i), Name: b.upstream, Address: host, Port: n}
		if err := b.lab.far.Client.Agent().ServiceRegister(r); err != nil {
			b.lab.t.Fatal(err)
		}
	}
	return nil
}

// sibling registers some of its backends as another service too.
func (b *bed) sibling(name string, which ...int) {
	for _, i := range which {
		b.register(i, func(r *api.AgentServiceRegistration) {
			r.Name, r.ID = r.Name+"-"+name, r.ID+"-"+name
			r.Check.CheckID = r.ID
		})
	}
}

// shared has the checks of it and its siblings b and c say the same.
func (b *bed) shared(status string) {
	for _, id := range []string{b.id(0), b.id(1), b.id(0) + "-b", b.id(1) + "-c"} {
		if err := b.agent().UpdateTTL(id, "the database shop-db does not answer", status); err != nil {
			b.lab.t.Error(err)
		}
	}
}

// move starts its backends at other addresses, and registers them there.
func (b *bed) move() {
	for i, x := range b.backends {
		y, err := backend.Start(x.Name, "127.0.0.1:0")
		if err != nil {
			b.lab.t.Fatal(err)
		}
		b.lab.t.Cleanup(y.Kill)
		b.backends[i] = y
		b.register(i, nil)
		x.Kill()
	}
}

// ownCluster starts the Envoy that leads to it with a cluster of its name, that asks for
// other endpoints; without where there is no name.
func (b *bed) ownCluster(asks string) {
	e := b.through()[0]
	e.envoy.Kill()
	e.config.Change = func(boot *bootstrapv3.Bootstrap) {
		b.lab.names.resolve(boot)
		if asks != "" {
			boot.StaticResources.Clusters = append(boot.StaticResources.Clusters, &clusterv3.Cluster{
				Name: b.upstream, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
				EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{ServiceName: asks, EdsConfig: &corev3.ConfigSource{
					ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_Ads{},
				}},
			})
		}
	}
	e.run(b.lab.t)
}

// ownAuthority is a server with a certificate for x, and a file of its own of who signed it;
// each request has a connection of its own.
func (b *bed) ownAuthority() []string {
	cert, key, err := b.lab.authority.Issue(b.upstream+"-server", time.Hour, "x")
	if err != nil {
		b.lab.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.lab.t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	s.SetKeepAlivesEnabled(false)
	go func() { _ = s.ServeTLS(l, cert, key) }()
	b.lab.t.Cleanup(func() { _ = s.Close() })
	b.trust(b.lab.authority)
	return []string{"{tls}", l.Addr().String()}
}

// trust writes who signs its certificates.
func (b *bed) trust(a *certtest.Authority) {
	to := b.lab.authority.File(b.upstream + ".pem")
	text, err := os.ReadFile(a.CA())
	if err == nil {
		err = os.WriteFile(to+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		b.lab.t.Fatal(err)
	}
}

// endsSoon is secure, and proxies present a certificate there that ends soon.
func (b *bed) endsSoon() []string {
	cert, key := b.issueSoon()
	return append(b.secure(), "{cert}", filepath.Base(cert), "{key}", filepath.Base(key))
}

// issueSoon writes a certificate that ends soon.
func (b *bed) issueSoon() (cert, key string) {
	cert, key, err := b.lab.authority.Issue(b.upstream+"-client", 15*time.Minute, "client")
	if err != nil {
		b.lab.t.Fatal(err)
	}
	return cert, key
}

// burst sends so many requests at once.
func (b *bed) burst(n int) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			_, _ = answer(b.lab.t.Context(), b.through()[i%2].address, b.upstream)
		})
	}
	wg.Wait()
}

// signal is sent to the Envoy that leads to it.
func (b *bed) signal(s syscall.Signal) {
	if err := b.through()[0].envoy.Signal(s); err != nil {
		b.lab.t.Error(err)
	}
}

// secure is a server with a certificate for x.
func (b *bed) secure() []string {
	e := newEcho(b.lab.t, b.upstream)
	e.check(func(http.ResponseWriter, *http.Request) {})
	return []string{"{tls}", secured(b.lab.t, b.lab.authority, e)}
}

// plain is a server that knows no HTTP/2.
func (b *bed) plain() []string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.lab.t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go func() { _ = s.Serve(l) }()
	b.lab.t.Cleanup(func() { _ = s.Close() })
	return []string{"{plain}", l.Addr().String()}
}

// deafness is an address that takes no connection.
func (b *bed) deafness() []string {
	addr := closed(b.lab.t)
	b.lab.t.Cleanup(deaf(b.lab.t, addr))
	return []string{"{deaf}", addr}
}

// drain says an operator's word about every endpoint.
func (b *bed) drain(verb string, more ...string) {
	for _, x := range b.backends {
		if out, code := b.lab.control.cli(append([]string{verb, b.upstream, x.Addr}, more...)...); code != 0 {
			b.lab.t.Errorf("%s: exit %d: %s", verb, code, out)
		}
	}
}
