package consul

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reply is one answer of the fake Consul.
type reply struct {
	status  int
	body    string
	index   string // X-Consul-Index; "" leaves it out
	leader  bool
	header  map[string]string
	hang    bool // until the request is given up
	instant bool // a blocking read that does not wait
}

// fake answers plain and blocking reads of "web" from two lists, the last of each
// for ever; a blocking read takes its whole wait. Without blocking answers nothing
// changes.
type fake struct {
	mu              sync.Mutex
	plain, blocking []reply
	log             []string
}

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/health/service/consul") {
		return respond(r, reply{status: 200, body: `[]`, index: "15", leader: true}), nil
	}
	blocking := r.URL.Query().Get("index") != ""
	f.mu.Lock()
	list, kind := &f.plain, "plain"
	if blocking && len(f.blocking) == 0 {
		kind = "blocking, unchanged" // the last plain answer, after the wait
	} else if blocking {
		list, kind = &f.blocking, "blocking@"+r.URL.Query().Get("index")
	}
	f.log = append(f.log, kind)
	var a reply
	if len(*list) > 0 {
		a = (*list)[0]
		if len(*list) > 1 {
			*list = (*list)[1:]
		}
	} else {
		a = reply{hang: true}
	}
	f.mu.Unlock()
	wait := time.Duration(0)
	if blocking && !a.instant {
		wait = 45 * time.Second
	}
	if a.hang {
		wait = time.Hour
	}
	select {
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case <-time.After(wait):
	}
	return respond(r, a), nil
}

func respond(r *http.Request, a reply) *http.Response {
	h := http.Header{"Content-Type": {"application/json"}, "X-Consul-Lastcontact": {"0"}}
	if a.index != "" {
		h.Set("X-Consul-Index", a.index)
	}
	h.Set("X-Consul-Knownleader", fmt.Sprint(a.leader))
	for k, v := range a.header {
		h.Set(k, v)
	}
	return &http.Response{StatusCode: a.status, Header: h, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}
}

// instance is one entry of /v1/health/service, with a status of its check.
func instance(id, status string) string {
	return fmt.Sprintf(`{"Node":{"Node":"n1","Address":"10.0.0.9"},"Service":{"ID":%q,"Service":"web","Address":"10.0.0.1","Port":%d,"Weights":{"Passing":1,"Warning":1}},
	 "Checks":[{"Name":"alive","CheckID":"c","Status":%q,"Output":"out of %s"}]}`, id, 8000+int(id[len(id)-1]), status, id)
}

func list(ids ...string) string {
	var out []string
	for _, id := range ids {
		out = append(out, instance(id, "passing"))
	}
	return "[" + strings.Join(out, ",") + "]"
}

func good(index, body string) reply {
	return reply{status: 200, body: body, index: index, leader: true}
}

// streamed is an answer of the streaming backend, which knows no leader.
func streamed(index, body string) reply {
	return reply{status: 200, body: body, index: index, header: map[string]string{"X-Consul-Query-Backend": "streaming"}}
}

// watchFor runs a source for a while of fake time and returns what was reported
// of web, a line each: the IDs, or Absent, or the reason of a failure.
func watchFor(t *testing.T, d time.Duration, f *fake, cfg Config) (said []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Name, cfg.Transport = "consul", f
		src, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		want := make(chan []model.ServiceKey, 1)
		key := model.ServiceKey{Source: "consul", Name: "web"}
		want <- []model.ServiceKey{key}
		var mu sync.Mutex
		if err := src.Run(ctx, want, func(k model.ServiceKey, r discovery.Report) {
			mu.Lock()
			defer mu.Unlock()
			if k != key {
				return
			}
			line := sayReport(r)
			if n := len(said); n == 0 || said[n-1] != line {
				said = append(said, line)
			}
		}); err != nil {
			t.Error(err)
		}
	})
	return said
}

func sayReport(r discovery.Report) string {
	switch x := r.(type) {
	case discovery.Present:
		var out []string
		for _, e := range x.Endpoints {
			s := strings.TrimPrefix(e.ID, "n1/")
			if e.Health != model.Healthy {
				s += "=" + string(e.Health)
			}
			out = append(out, s)
		}
		for _, p := range x.Problems {
			out = append(out, "problem of "+p.Field)
		}
		return strings.Join(out, " ")
	case discovery.Absent:
		return "absent"
	case discovery.Failed:
		return "failed: " + string(x.Reason)
	}
	return fmt.Sprintf("%T", r)
}

// Each row of what Consul really answers, and what is made of it.
func TestAnswers(t *testing.T) {
	noLeader := reply{status: 500, body: "No cluster leader"}
	denied := reply{status: 403, body: "ACL not found"}
	filtered := reply{status: 200, body: "[]", index: "15", leader: true, header: map[string]string{"X-Consul-Results-Filtered-By-Acls": "true"}}
	for what, x := range map[string]struct {
		plain, blocking []reply
		cfg             Config
		want            []string
	}{
		"healthy, nobody registered: a plain read says so": {
			plain: []reply{good("15", "[]")}, want: []string{"absent"},
		},
		"streaming says nobody is left: a plain read confirms": {
			plain: []reply{good("15", list("a")), good("20", "[]")}, blocking: []reply{streamed("20", "[]")}, want: []string{"a", "absent"},
		},
		"streaming says nobody is left and a plain read disagrees: the plain read counts": {
			plain: []reply{good("15", list("a"))}, blocking: []reply{streamed("20", "[]")}, want: []string{"a"},
		},
		"no leader, never had one": {
			plain: []reply{noLeader}, blocking: []reply{streamed("1", "[]")}, want: []string{"failed: no leader"},
		},
		"servers killed, service seen before: streaming goes on with the old instances": {
			plain: []reply{good("15", list("a")), noLeader}, blocking: []reply{streamed("15", list("a"))}, want: []string{"a"},
		},
		"servers killed and streaming says nobody: nothing is removed": {
			plain: []reply{good("15", list("a")), noLeader}, blocking: []reply{streamed("16", "[]")}, want: []string{"a", "failed: no leader"},
		},
		"streaming without a snapshot: index 1": {
			plain: []reply{good("15", list("a"))}, blocking: []reply{streamed("1", "[]")}, want: []string{"a"},
		},
		"unknown token": {
			plain: []reply{denied}, cfg: Config{Token: "x"}, want: []string{"failed: denied"},
		},
		"token without service:read: plain read is filtered": {
			plain: []reply{filtered}, cfg: Config{Token: "x"}, want: []string{"failed: filtered"},
		},
		"token loses service:read: streaming is empty without a word, the plain read tells": {
			plain: []reply{good("15", list("a")), filtered}, blocking: []reply{streamed("20", "[]")}, cfg: Config{Token: "x"}, want: []string{"a", "failed: filtered"},
		},
		"anonymous under default deny": {
			plain: []reply{{status: 200, body: "[]", index: "15", leader: true, header: map[string]string{"X-Consul-Default-Acl-Policy": "deny"}}},
			want:  []string{"failed: denied"},
		},
		"token deleted during a long poll": {
			plain: []reply{good("15", list("a")), denied}, blocking: []reply{denied}, cfg: Config{Token: "x"}, want: []string{"a", "failed: denied"},
		},
		"unknown datacenter": {
			plain: []reply{{status: 500, body: "No path to datacenter"}}, want: []string{"failed: no datacenter"},
		},
		"plain read without a leader": {
			plain: []reply{{status: 200, body: "[]", index: "15"}}, want: []string{"failed: no leader"},
		},
		"plain read with index 0": {
			plain: []reply{good("0", "[]")}, want: []string{"failed: bad answer"},
		},
		"index missing": {
			plain: []reply{good("", "[]")}, want: []string{"failed: bad answer"},
		},
		"too many connections": {
			plain: []reply{{status: 429, body: "Your IP is issuing too many concurrent connections"}}, want: []string{"failed: limited"},
		},
		"the index runs backwards: read again from 0": {
			plain: []reply{good("90", list("a")), good("30", list("a", "b"))}, blocking: []reply{streamed("20", list("a"))}, want: []string{"a", "a b"},
		},
		"more than half of three is lost: a plain read confirms": {
			plain: []reply{good("15", list("a", "b", "c")), good("20", list("a"))}, blocking: []reply{streamed("20", list("a"))}, want: []string{"a b c", "a"},
		},
		"more than half of three is lost and a plain read disagrees": {
			plain: []reply{good("15", list("a", "b", "c"))}, blocking: []reply{streamed("20", list("a"))}, want: []string{"a b c"},
		},
		"one of three is lost: no second question": {
			plain: []reply{good("15", list("a", "b", "c")), noLeader}, blocking: []reply{streamed("20", list("a", "b"))}, want: []string{"a b c", "a b"},
		},
		"null in place of a list": {
			plain: []reply{good("15", list("a")), good("20", "null")}, blocking: []reply{streamed("20", "null")}, want: []string{"a", "absent"},
		},
		"HTML":          {plain: []reply{good("15", "<html>")}, want: []string{"failed: bad answer"}},
		"cut JSON":      {plain: []reply{good("15", list("a")[:60])}, want: []string{"failed: unreachable"}},
		"redirect":      {plain: []reply{{status: 302, header: map[string]string{"Location": "http://127.0.0.1:1/"}}}, want: []string{"failed: bad answer"}},
		"no answer":     {plain: []reply{{hang: true}}, want: []string{"failed: unreachable"}},
		"broken record": {plain: []reply{good("15", `[{"Node":{"Node":"n1"},"Service":null},null,`+instance("a", "passing")+`,{"Node":{"Node":"n1"},"Service":{"ID":"p","Port":0,"Address":"10.0.0.1"}}]`)}, want: []string{"a problem of [0] problem of [1] problem of n1/p"}},
		"twice":         {plain: []reply{good("15", list("a", "a"))}, want: []string{"a problem of n1/a"}},
		"a check that is null, and a status that nobody knows": {
			plain: []reply{good("15", "["+strings.Replace(instance("a", "passing"), `"Checks":[`, `"Checks":[null,`, 1)+","+instance("b", "splendid")+"]")},
			want:  []string{"a b=unhealthy"},
		},
		"critical and maintenance": {
			plain: []reply{good("15", "["+instance("a", "critical")+","+strings.Replace(instance("b", "critical"), `"CheckID":"c"`, `"CheckID":"_service_maintenance:b"`, 1)+","+instance("c", "warning")+"]")},
			want:  []string{"a=unhealthy b=draining c"},
		},
	} {
		t.Run(what, func(t *testing.T) {
			got := watchFor(t, 3*time.Minute, &fake{plain: x.plain, blocking: x.blocking}, x.cfg)
			if diff := cmp.Diff(x.want, got); diff != "" {
				t.Errorf("reported (-want +got):\n%s", diff)
			}
		})
	}
}

// A failing read backs off; a flapping service is read at most every 100 ms.
func TestPace(t *testing.T) {
	f := &fake{plain: []reply{{status: 500, body: "No cluster leader"}}}
	watchFor(t, 5*time.Minute, f, Config{})
	if n := len(f.log); n < 15 || n > 60 {
		t.Errorf("%d reads in five minutes of failure", n)
	}
	busy := streamed("15", list("a"))
	busy.instant = true
	f = &fake{plain: []reply{good("15", list("a"))}, blocking: []reply{busy}}
	watchFor(t, 10*time.Second, f, Config{})
	if n := len(f.log); n < 80 || n > 102 {
		t.Errorf("%d reads in ten seconds of flapping", n)
	}
}

// Beyond the connection limit keys are polled, and every key is answered.
func TestConnectionLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{plain: []reply{good("15", list("a"))}, blocking: []reply{streamed("15", list("a"))}}
		src, err := New(Config{Name: "consul", Transport: f, MaxConnections: 45})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		want := make(chan []model.ServiceKey, 1)
		var keys []model.ServiceKey
		for i := range 100 {
			keys = append(keys, model.ServiceKey{Source: "consul", Name: fmt.Sprintf("s%d", i)})
		}
		want <- keys
		var mu sync.Mutex
		answered := map[string]int{}
		if err := src.Run(ctx, want, func(k model.ServiceKey, _ discovery.Report) {
			mu.Lock()
			defer mu.Unlock()
			answered[k.Name]++
		}); err != nil {
			t.Error(err)
		}
		delete(answered, "")
		if len(answered) != 100 {
			t.Errorf("%d of 100 keys were answered", len(answered))
		}
		if n := answered["s99"]; n < 10 || n > 40 {
			t.Errorf("a polled key was read %d times in 20 s; a round of 95 takes about a second", n)
		}
	})
}

// What one entry becomes.
func TestEndpoint(t *testing.T) {
	f := &fake{plain: []reply{good("15", `[{"Node":{"Node":"n1","Address":"10.0.0.9","Meta":{"region":"eu","zone":"node-zone"}},
		"Service":{"ID":"web-1","Service":"web","Port":8080,"Tags":["v2"],"Meta":{"zone":"b"},"Weights":{"Passing":7,"Warning":2},
		"TaggedAddresses":{"wan":{"Address":"192.0.2.1","Port":99},"lan":{"Address":"10.0.0.9"}}},
		"Checks":[{"Name":"slow","Status":"warning","Output":"`+strings.Repeat("é", 300)+`"}]}]`)}}
	var got discovery.Report
	synctest.Test(t, func(t *testing.T) {
		src, err := New(Config{Name: "consul", Transport: f})
		if err != nil {
			t.Fatal(err)
		}
		k := model.ServiceKey{Source: "consul", Name: "web"}
		got = src.reportOf(k, src.plainRead(t.Context(), k).entries)
	})
	e := got.(discovery.Present).Endpoints[0]
	if len(e.Reason) > maxReason || !strings.HasPrefix(e.Reason, "slow: é") {
		t.Errorf("reason of %d bytes: %q", len(e.Reason), e.Reason)
	}
	e.Reason = ""
	want := model.Endpoint{
		ID: "n1/web-1", Address: "10.0.0.9:8080", Health: model.Healthy, Weight: 2,
		Addresses: map[string]string{"wan": "192.0.2.1:99", "lan": "10.0.0.9:8080"},
		Locality:  model.Locality{Region: "eu", Zone: "b"}, Tags: []string{"v2"}, Metadata: map[string]string{"zone": "b"},
		Origin: model.Origin{Source: "consul", Key: "consul/web#n1/web-1"},
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
