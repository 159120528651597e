package main_test

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bootstrap "github.com/wellspring-xds/wellspring/envoy-bootstrap"
	"github.com/wellspring-xds/wellspring/pkg/certtest"
	"github.com/wellspring-xds/wellspring/pkg/consultest"
	"github.com/wellspring-xds/wellspring/pkg/diagnose"
	"github.com/wellspring-xds/wellspring/pkg/envoytest"
	"github.com/wellspring-xds/wellspring/pkg/freeport"
	"github.com/wellspring-xds/wellspring/pkg/proc"
)

var (
	labSeed = flag.Uint64("lab.seed", 0, "of the fault lab; 0 draws one")
	labOnly = flag.String("lab.only", "", "regular expression: only faults whose names match")
	labOver = flag.Bool("lab.over", false, "wait until the server says by itself that all is over: some minutes")
	labLong = flag.Bool("lab.long", false, "make those faults too that take a quarter of an hour")
	labJSON = flag.String("lab.json", "", "file for the last line of the fault lab")
)

// lab is a stack with many upstreams, in each of which one thing is made to fail: real
// Consul, control plane, and an Envoy in each of two zones.
type lab struct {
	t         *testing.T
	consul    *consultest.Consul
	control   *controlPlane
	edges     []edge
	far       *consultest.Consul // an agent on another node
	authority *certtest.Authority
	stranger  *certtest.Authority
	names     *nameServer
	way       *way // of the second Envoy of split to its control plane

	third, slow, stuck *between // ways to consul
	apart              *netns   // the network of the edge far; nil where there can be none
	beds               []*bed
}

// edge is an Envoy with a listener. Those of zones that differ by a number only lead to the
// same.
type edge struct {
	zone, address string
	envoy         *envoytest.Envoy
	config        envoytest.Config
}

// says sums up an answer in a line.
func labLine(e diagnose.Explanation) string {
	var all []string
	for _, f := range e.Findings {
		all = append(all, fmt.Sprintf("%s %s", f.Code, f.Strength))
	}
	return strings.Join(all, ", ")
}

// closed is an address where nobody listens.
func closed(t *testing.T) string {
	t.Helper()
	addr, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// labCheck is a health check that decides soon.
const labCheck = "{http: {path: /healthz}, interval: 500ms, timeout: 400ms, unhealthyThreshold: 2, healthyThreshold: 1}"

// newLab starts everything, with the upstreams in an order and under names that the seed
// draws: what explains sees neither fault nor code.
func newLab(t *testing.T, r *rand.Rand, faults []fault) *lab {
	t.Helper()
	const root = "4f1d2c66-0000-4000-8000-00000000c0de"
	consul, err := consultest.Start(t.Context(), consultest.Config{Dir: t.TempDir(), Token: root})
	proc.Need(t, err)
	t.Cleanup(consul.Kill)
	l := &lab{t: t, consul: consul, names: newNameServer(t)}
	l.names.set("shop.example.", [4]byte{127, 0, 0, 1})
	if l.authority, err = certtest.New(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	file, sockets := filepath.Join(t.TempDir(), "wellspring.yaml"), t.TempDir()
	if l.stranger, err = certtest.New(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("freshness: {interval: 5s}\nsources:\n- {name: consul, canary: 'off', consul: {address: '%s', token: %s}}\n- {name: stranger, canary: 'off', consul: {address: '%s', token: 4f1d2c66-0000-4000-8000-00000000beef}}\n- {name: away, canary: 'off', consul: {address: '%s'}}\n", consul.Address, root, consul.Address, closed(t))
	for name, b := range map[string]**between{"third": &l.third, "slow": &l.slow, "stuck": &l.stuck} {
		*b = newBetween(t, consul.Address)
		text += fmt.Sprintf("- {name: %s, consul: {address: '%s', token: %s}}\n", name, (*b).Listener.Addr(), root)
	}
	text += fmt.Sprintf("probe: {allowLoopback: true}\nsecrets: {dir: '%s'}\nenvoyAdmin: {socketDir: '%s'}\n", l.authority.Dir, sockets)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	within, err := otherHosts(t, "127.0.0.2 moved.example")
	if err != nil {
		t.Logf("where the server's machine cannot know other names, what needs it is left out: %v", err)
	}
	l.names.set("moved.example.", [4]byte{127, 0, 0, 1})
	l.control = serveWithin(t, within, nil, "-c", file)
	if l.far, err = consultest.Start(t.Context(), consultest.Config{Dir: t.TempDir(), Token: root, Join: []string{consul.Gossip}, Client: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.far.Kill() })
	if l.apart, err = newNetns(t, 2); err != nil {
		t.Logf("without a network of its own, what needs one is left out: %v", err)
	}
	names := map[string]bool{}
	for i := range faults {
		if faults[i].apart != nil && l.apart == nil || faults[i].moved && within == nil {
			continue
		}
		name := ""
		for name == "" || names[name] {
			name = fmt.Sprintf("svc-%04x", r.IntN(1<<16))
		}
		names[name] = true
		b := &bed{fault: &faults[i], lab: l, upstream: name}
		b.start()
		l.beds = append(l.beds, b)
	}
	r.Shuffle(len(l.beds), func(i, j int) { l.beds[i], l.beds[j] = l.beds[j], l.beds[i] })
	slices.SortStableFunc(l.beds, func(a, b *bed) int { // who hangs is disconnected in half a minute: it is asked about before
		return cmp.Or(strings.Compare(b.edge, a.edge), strings.Compare(fmt.Sprint(b.brief), fmt.Sprint(a.brief)))
	})
	l.way = newWay(t, "tcp", "127.0.0.1:0", l.control.XDS)
	for _, zone := range []string{"a", "b", "lone", "stuck", "own", "split1", "split2"} {
		if len(zone) > 1 && !l.has(side(zone)) {
			continue
		}
		xds := l.control.XDS
		if zone == "split2" {
			xds = l.way.address
		}
		l.edges = append(l.edges, edge{zone: zone, address: closed(t), config: envoytest.Config{Dir: t.TempDir(), Bootstrap: bootstrap.Config{
			NodeID: "edge-" + zone, Group: "edge-" + zone, Zone: zone, Envoy: "1.40", Admin: closed(t), XDS: []string{xds}, Telemetry: l.control.reports("edge-" + zone),
		}, Change: l.names.resolve}})
	}
	if l.apart != nil && l.has("far") {
		key := l.control.reports("edge-far")
		key.Addresses = []string{relay(t, l.control.Telemetry)}
		l.edges = append(l.edges, edge{zone: "far", address: net.JoinHostPort(l.apart.there, "10000"), config: envoytest.Config{
			Dir: t.TempDir(), Within: []string{"ip", "netns", "exec", l.apart.name}, Bootstrap: bootstrap.Config{
				NodeID: "edge-far", Group: "edge-far", Zone: "far", Envoy: "1.40", Admin: filepath.Join(sockets, "far.sock"), XDS: []string{relay(t, l.control.XDS)}, Telemetry: key,
			},
		}})
	}
	l.control.apply(l.documents())
	for i := range l.edges {
		l.edges[i].start(t)
	}
	return l
}

// has tells whether an edge leads to something.
func (l *lab) has(edge string) bool {
	return slices.ContainsFunc(l.beds, func(b *bed) bool { return b.edge == edge })
}

// side is what an Envoy of a zone leads to.
func side(zone string) string { return strings.TrimRight(zone, "12") }

// run starts its Envoy, anew where it ran before.
func (e *edge) run(t *testing.T) {
	t.Helper()
	var err error
	e.envoy, err = envoytest.Start(t.Context(), e.config)
	proc.Need(t, err)
	t.Cleanup(e.envoy.Kill)
}

// start runs its Envoy, and waits until it serves.
func (e *edge) start(t *testing.T) {
	t.Helper()
	e.run(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := e.envoy.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

// documents of all upstreams, the routes to them, and a listener for each zone.
func (l *lab) documents() string {
	var text strings.Builder
	rules := map[string]string{}
	for _, b := range l.beds {
		fmt.Fprintf(&text, "kind: Upstream\nname: %s\nspec: %s\n---\n", b.upstream, b.place(b.spec))
		if b.more != "" {
			text.WriteString(b.place(b.more) + "\n---\n")
		}
		rules[b.edge] += fmt.Sprintf("  - {match: {path: {exact: /%s}}, to: [{upstream: %s}]%s}\n", b.upstream, b.upstream, b.rule)
	}
	for of, all := range rules {
		fmt.Fprintf(&text, "kind: Route\nname: all%s\nspec:\n  hosts: ['*']\n  rules:\n%s---\n", of, all)
	}
	for _, e := range l.edges {
		of := side(e.zone)
		if rules[of] == "" {
			of = ""
		}
		fmt.Fprintf(&text, "kind: Listener\nname: edge-%s\nspec: {address: '%s', routes: [all%s], accessLog: {to: 'off'}}\n---\nkind: Group\nname: edge-%[1]s\nspec: {listeners: [edge-%[1]s], telemetry: endpoints}\n---\n", e.zone, e.address, of)
	}
	return strings.TrimSuffix(text.String(), "---\n")
}

// everywhere calls f for every bed, a few at once.
func (l *lab) everywhere(f func(b *bed)) {
	n := 2 // and all that cannot wait
	for _, b := range l.beds {
		if b.edge != "" || b.brief {
			n++
		}
	}
	slots := make(chan struct{}, max(8, n))
	var wg sync.WaitGroup
	for _, b := range l.beds {
		slots <- struct{}{} // here: they begin in their order, and who hangs is asked about first
		wg.Go(func() {
			defer func() { <-slots }()
			f(b)
		})
	}
	wg.Wait()
}

// answers waits until every upstream answers with 200 through both edges, three times in
// a row: it is well.
func (l *lab) answers(when string) {
	l.everywhere(func(b *bed) {
		deadline := time.Now().Add(90 * time.Second)
		for _, edge := range b.through() {
			for row, last := 0, ""; row < 3; {
				got, err := answer(l.t.Context(), edge.address, b.upstream)
				if last = got; err == nil && strings.HasPrefix(got, "200 ") {
					row++
					continue
				}
				if row = 0; time.Now().After(deadline) {
					l.t.Errorf("%s, %s: %s answers %q, %v", b.name, when, edge.zone, last, err)
					return
				}
				time.Sleep(200 * time.Millisecond)
			}
		}
	})
}

// load sends requests to every upstream through both edges until ctx ends.
func (l *lab) load(ctx context.Context, wg *sync.WaitGroup) {
	for _, b := range l.beds {
		for _, edge := range b.through() {
			for i := range max(1, b.parallel) {
				wg.Go(func() {
					time.Sleep(time.Duration(i) * 250 * time.Millisecond / time.Duration(max(1, b.parallel)))
					for ctx.Err() == nil {
						_, _ = answer(ctx, edge.address, b.upstream)
						select {
						case <-ctx.Done():
						case <-time.After(250 * time.Millisecond):
						}
					}
				})
			}
		}
	}
}

// TestRealFaultlab makes each cause happen that one machine can make happen, and asks why:
// the first finding must be the right one, and nothing false may be certain. It prints a
// table; with -lab.json the sums are written to a file.
func TestRealFaultlab(t *testing.T) {
	seed := *labSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: run it again with -lab.seed %[1]d", seed)
	all := slices.DeleteFunc(slices.Concat(faults, pairs, controls), func(f fault) bool {
		return !regexp.MustCompile(*labOnly).MatchString(f.name) || f.long && !*labLong
	})
	l := newLab(t, rand.New(rand.NewPCG(seed, 7)), all)
	l.answers("before")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	l.load(ctx, &wg)
	time.Sleep(3 * time.Second)
	if slices.ContainsFunc(all, func(f fault) bool { return f.long }) {
		t.Log("twelve minutes go by, in which all is as usual")
		time.Sleep(12 * time.Minute)
	}
	l.everywhere((*bed).well)
	for _, b := range slices.Backward(l.beds) { // one after the other: each revision is its own; who hangs is the last
		b.broken = time.Now()
		if b.breaks != nil {
			b.breaks(b)
		}
	}
	l.everywhere(func(b *bed) { b.look(labPatience) })
	sums := l.table()
	l.everywhere((*bed).stands)
	l.keep()
	for _, b := range l.beds {
		if b.mends != nil {
			b.mends(b)
		}
	}
	l.answers("after")
	if *labOver {
		l.everywhere((*bed).over)
	}
	if *labJSON != "" {
		if err := os.WriteFile(*labJSON, []byte(sums+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(sums)
}

// How long the right answer may take, and for how long a control must be left alone.
const (
	labPatience = 90 * time.Second
	controlled  = 15 * time.Second
)

// table prints what came of it, and returns the sums.
func (l *lab) table() string {
	codes := map[diagnose.Code]bool{}
	sum := struct {
		Codes          int   `json:"codes"`
		Right          int   `json:"right"`
		Wrong          int   `json:"wrong"`
		FalselyCertain int   `json:"falsely_certain"`
		Quiet          int   `json:"quiet_controls"`
		Slowest        int64 `json:"slowest_answer_ms"`
	}{}
	l.t.Logf("%-8s %-34s %-30s %7s %7s %6s", "CODE", "FAULT", "ANSWER", "AFTER", "ASKED", "LOST")
	for _, b := range slices.SortedFunc(slices.Values(l.beds), func(a, b *bed) int { return strings.Compare(a.codes, b.codes) }) {
		verdict := ""
		switch {
		case len(b.lied) > 0:
			sum.FalselyCertain++
			verdict = "  FALSE " + strings.Join(b.lied, ", ")
			l.t.Errorf("%s: certain, and false: %s", b.name, strings.Join(b.lied, ", "))
			fallthrough
		case !b.right(b.first):
			if !b.right(b.first) {
				sum.Wrong++
				verdict += "  WRONG"
				l.t.Errorf("%s: %q is answered with %s: %s %s", b.name, b.codes, labLine(b.first), b.first.Says, b.wrong)
			}
		case b.codes+b.warns == "":
			sum.Quiet++
		default:
			sum.Right++
			for code := range strings.FieldsSeq(b.codes + " " + b.warns) {
				codes[diagnose.Code(code)] = true
			}
		}
		sum.Slowest = max(sum.Slowest, b.slow.Milliseconds())
		l.t.Logf("%-8s %-34s %-30s %6.1fs %6dms %6d%s", b.codes, b.name, labLine(b.first), b.after.Seconds(), b.slow.Milliseconds(), b.first.Lost, verdict)
	}
	sum.Codes = len(codes)
	text, err := json.Marshal(sum)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(text)
}

// keep writes an answer for each code: that of a bed of which it is the only one, if there
// is such a one.
func (l *lab) keep() {
	has := map[string]bool{}
	for _, most := range []int{1, 3} {
		for _, b := range slices.SortedFunc(slices.Values(l.beds), func(a, b *bed) int { return strings.Compare(a.name, b.name) }) {
			codes := strings.Fields(b.codes + " " + b.warns)
			if len(b.lied) > 0 || !b.right(b.first) {
				continue
			}
			for _, code := range codes {
				if e := b.first; len(codes) <= most && !has[code] {
					has[code] = true
					for _, f := range b.findings() { // of its certificate
						if f.Subject.Kind == "Certificate" && string(f.Code) == code {
							e = diagnose.Explanation{At: b.broken, Warnings: []diagnose.Finding{f.Finding}}
						}
					}
					keepAnswer(l.t, code, e)
				}
			}
		}
	}
}

// keepAnswer writes an answer to the folder that KEEP_LAB names, for docs/causes.md.
func keepAnswer(t *testing.T, code string, e diagnose.Explanation) {
	t.Helper()
	dir := os.Getenv("KEEP_LAB")
	if dir == "" {
		return
	}
	e.RuledOut, e.Events = nil, nil // nobody reads them there
	text, err := json.MarshalIndent(e, "", " ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, code+".json"), append(text, '\n'), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
