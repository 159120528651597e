package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// markPrefix and markDigits are what a change looks like: the id of the first
// endpoint of a service, which every server sends as it stands.
var markPrefix = []byte("mark-")

const markDigits = 9

func mark(i int) string { return fmt.Sprintf("%s%0*d", markPrefix, markDigits, i) }

// registry speaks as much of Consul's HTTP API as a watch of a service needs, with
// services of some endpoints each. The real Consul takes a core of its own at a
// hundred changes a second, which these machines do not have.
type registry struct {
	address   string
	endpoints int
	server    *http.Server

	mu      sync.Mutex
	index   int
	marks   map[string]int // by service
	at      map[string]int // the index at which it changed
	changed map[string]chan struct{}
}

func newRegistry(endpoints int) (*registry, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &registry{address: l.Addr().String(), endpoints: endpoints, index: 10, marks: map[string]int{}, at: map[string]int{}, changed: map[string]chan struct{}{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/health/service/{name}", r.service)
	r.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = r.server.Serve(l) }()
	return r, nil
}

func (r *registry) close() { _ = r.server.Close() }

// change gives a service a mark.
func (r *registry) change(service string, i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index++
	r.marks[service], r.at[service] = i, r.index
	if c := r.changed[service]; c != nil {
		close(c)
		delete(r.changed, service)
	}
}

func (r *registry) service(w http.ResponseWriter, q *http.Request) {
	name := q.PathValue("name")
	index, _ := strconv.Atoi(q.FormValue("index"))
	wait, err := time.ParseDuration(q.FormValue("wait"))
	if err != nil {
		wait = 5 * time.Minute
	}
	ctx, cancel := context.WithTimeout(q.Context(), wait)
	defer cancel()
	r.mu.Lock()
	for index > 0 && max(r.at[name], 10) <= index {
		c := r.changed[name]
		if c == nil {
			c = make(chan struct{})
			r.changed[name] = c
		}
		r.mu.Unlock()
		select {
		case <-c:
		case <-ctx.Done():
			index = 0
		}
		r.mu.Lock()
	}
	i, at := r.marks[name], max(r.at[name], 10)
	r.mu.Unlock()
	w.Header().Set("X-Consul-Index", strconv.Itoa(at))
	w.Header().Set("X-Consul-Knownleader", "true")
	w.Header().Set("X-Consul-Lastcontact", "0")
	w.Header().Set("X-Consul-Default-Acl-Policy", "allow")
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(entries(name, r.endpoints, i))
}

func entries(name string, endpoints, i int) []map[string]any {
	out := make([]map[string]any, endpoints)
	for k := range out {
		id := fmt.Sprintf("%s-%d", name, k)
		if k == 0 {
			id = mark(i)
		}
		out[k] = map[string]any{
			"Node":    map[string]any{"Node": "bench", "Address": "10.0.0.1"},
			"Service": map[string]any{"ID": id, "Service": name, "Address": fmt.Sprintf("10.1.%d.%d", k/250, k%250+1), "Port": 8080, "Weights": map[string]int{"Passing": 1, "Warning": 1}},
			"Checks":  []map[string]any{{"CheckID": "alive", "Status": "passing"}},
		}
	}
	return out
}

// documents are as many upstreams behind one listener: moving ones, of services of
// the registry, and the rest, which all select one service of the store.
func documents(clusters, moving, endpoints int) string {
	var b strings.Builder
	var rules []string
	for i := range clusters {
		name := upstream(i, moving)
		if i < moving {
			fmt.Fprintf(&b, "kind: Upstream\nname: %s\nspec: {service: {source: consul}}\n---\n", name)
		} else {
			fmt.Fprintf(&b, "kind: Upstream\nname: %s\nspec: {service: {source: local, name: still}}\n---\n", name)
		}
		rules = append(rules, fmt.Sprintf("{match: {path: {prefix: /%s}}, to: [{upstream: %s}]}", name, name))
	}
	var still []string
	for k := range endpoints {
		still = append(still, fmt.Sprintf("{address: '10.2.%d.%d:8080'}", k/250, k%250+1))
	}
	fmt.Fprintf(&b, "kind: Service\nname: still\nspec: {endpoints: [%s]}\n---\n", strings.Join(still, ", "))
	var routes []string
	for i := 0; i < len(rules); i += 500 {
		name := fmt.Sprintf("part-%03d", i/500)
		routes = append(routes, name)
		fmt.Fprintf(&b, "kind: Route\nname: %s\nspec: {hosts: ['%s.bench'], rules: [%s]}\n---\n", name, name, strings.Join(rules[i:min(i+500, len(rules))], ", "))
	}
	fmt.Fprintf(&b, "kind: Listener\nname: edge\nspec: {address: '127.0.0.1:10000', routes: [%s]}\n---\nkind: Group\nname: edge\nspec: {listeners: [edge]}\n", strings.Join(routes, ", "))
	return b.String()
}

func upstream(i, moving int) string {
	if i < moving {
		return fmt.Sprintf("moving-%04d", i)
	}
	return fmt.Sprintf("still-%05d", i)
}
