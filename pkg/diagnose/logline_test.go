package diagnose

import (
	"fmt"
	"strings"
	"testing"
)

// Lines as proxies write them: ours, Envoy's default, Istio's, and JSON of others.
func TestParseLogLine(t *testing.T) {
	for _, x := range []struct{ line, want string }{
		{
			`{"bytesIn":0,"details":"no_healthy_upstream","durationMs":0,"flags":"UH","host":"shop.example:10000","listener":"edge","method":"GET","path":"/cart","protocol":"HTTP/1.1","route":"web[0]","status":503,"time":"2026-07-01T14:03:12.001Z","upstream":"catalog"}`,
			"503 UH no_healthy_upstream catalog web[0] GET shop.example:10000 /cart",
		},
		{
			`[2026-07-01T14:03:12.001Z] "GET /cart?x=1 HTTP/1.1" 503 UH 0 19 0 - "-" "curl/8.5.0" "5d3f" "shop.example" "-"`,
			"503 UH    GET shop.example /cart?x=1",
		},
		{
			`[2026-07-01T14:03:12.001Z] "POST / HTTP/2" 503 URX,UF 0 91 12 - "10.0.0.1, 10.0.0.2" "a \b c" "5d3f" "shop.example:8080" "10.2.0.7:8080"`,
			"503 URX,UF    POST shop.example:8080 /",
		},
		{
			`[2026-07-01T14:03:12.001Z] "GET /cart HTTP/1.1" 503 UH no_healthy_upstream - "-" 0 19 0 - "-" "curl/8.5.0" "5d3f" "catalog:80" "-" outbound|80||catalog.shop.svc.cluster.local [fd00::1]:4711 [fd00::2]:80 [fd00::3]:51234 - default`,
			"503 UH no_healthy_upstream outbound|80||catalog.shop.svc.cluster.local default GET catalog:80 /cart",
		},
		{
			`{"response_flags":"-","response_code":"503","response_code_details":"via_upstream","upstream_cluster":"catalog","authority":"shop.example","path":"/","method":"GET","route_name":null}`,
			"503  via_upstream catalog  GET shop.example /",
		},
		{"  {\"response_code\":503}\n", "503       "},
	} {
		l, err := ParseLogLine(x.line)
		if err != nil {
			t.Errorf("%s: %v", x.line, err)
			continue
		}
		got := strings.Join([]string{fmt.Sprint(l.Status), strings.Join(l.Flags, ","), l.Detail, l.Cluster, l.Route, l.Method, l.Host, l.Path}, " ")
		if got != x.want {
			t.Errorf("%s\n got  %q\n want %q", x.line, got, x.want)
		}
	}
	for _, line := range []string{"", "{", "[]", `{"a":1}`, "GET / 503 UH", strings.Repeat("x ", 20), `[t] "GET" 503 UH 0 0 0 - "-" "-" "-" "-" "-"`} {
		if l, err := ParseLogLine(line); err == nil {
			t.Errorf("%q is taken as %+v", line, l)
		}
	}
	l, _ := ParseLogLine(`{"status":503,"flags":"UH","details":"via_upstream"}`)
	if says := l.Says(); !strings.Contains(says, "no healthy endpoint to choose") || !strings.Contains(says, "by itself") {
		t.Errorf("%q", says)
	}
}

func FuzzParseLogLine(f *testing.F) {
	f.Add(`[t] "GET / HTTP/1.1" 503 UH 0 19 0 - "-" "c" "i" "h" "-"`)
	f.Add(`{"status":1,"flags":"a,b"}`)
	f.Add(`[ "" [] [`)
	f.Fuzz(func(_ *testing.T, line string) {
		if l, err := ParseLogLine(line); err == nil {
			_ = l.Says()
		}
	})
}
