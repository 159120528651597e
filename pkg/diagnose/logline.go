package diagnose

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// LogLine is what a line of an access log says of a request that failed.
type LogLine struct {
	Status  int
	Flags   []string // Envoy's response flags
	Detail  string   // Envoy's response code details, where the format has them
	Cluster string
	Route   string // ROUTE[RULE], as our route tables name it
	spec.Asking
}

// logKeys of each field in JSON, ours first, then those of others' formats.
var logKeys = map[string][]string{
	"status": {"status", "response_code", "responseCode", "status_code"}, "flags": {"flags", "response_flags", "responseFlags"},
	"detail": {"details", "response_code_details", "responseCodeDetails"}, "cluster": {"upstream", "upstream_cluster", "upstreamCluster"},
	"route": {"route", "route_name", "routeName"}, "host": {"host", "authority", ":authority", "requested_host"},
	"path": {"path", "x-envoy-original-path", ":path"}, "method": {"method", ":method", "request_method"},
}

// ParseLogLine reads a line of an access log: JSON (ours, or with the keys that others
// use), Envoy's default text, or Istio's.
func ParseLogLine(line string) (LogLine, error) {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "{") {
		return parseJSONLine(line)
	}
	return parseTextLine(line)
}

func parseJSONLine(line string) (l LogLine, err error) {
	var all map[string]any
	if err := json.Unmarshal([]byte(line), &all); err != nil {
		return l, fmt.Errorf("the line begins with { and is no JSON: %w", err)
	}
	get := func(field string) string {
		for _, k := range logKeys[field] {
			switch v := all[k].(type) {
			case string:
				if v != "-" && v != "" {
					return v
				}
			case float64:
				return strconv.FormatFloat(v, 'f', -1, 64)
			}
		}
		return ""
	}
	l.Status, _ = strconv.Atoi(get("status"))
	l.Flags, l.Detail, l.Cluster, l.Route = flagsOf(get("flags")), get("detail"), get("cluster"), get("route")
	l.Host, l.Path, l.Method = get("host"), get("path"), get("method")
	if l.Status == 0 && len(l.Flags) == 0 {
		return l, fmt.Errorf("the line has neither a status (%s) nor flags (%s)", strings.Join(logKeys["status"], ", "), strings.Join(logKeys["flags"], ", "))
	}
	return l, nil
}

// What stands where in the two formats of text, by words; a quoted text is one.
const (
	logRequest, logStatus, logFlags                 = 1, 2, 3
	envoyHost                                       = 11
	istioDetail, istioHost, istioCluster, istioLast = 4, 14, 16, 20
)

func parseTextLine(line string) (l LogLine, err error) {
	w := words(line)
	if len(w) <= envoyHost {
		return l, fmt.Errorf("the line has %d words; Envoy's default format has 13: [TIME] \"METHOD PATH PROTOCOL\" STATUS FLAGS …", len(w))
	}
	request := strings.Fields(w[logRequest])
	l.Status, err = strconv.Atoi(w[logStatus])
	if err != nil || len(request) < 2 {
		return l, errors.New("the line is not in Envoy's default format, nor Istio's: [TIME] \"METHOD PATH PROTOCOL\" STATUS FLAGS …")
	}
	if request[1] == "-" {
		return l, errors.New("the line is of a TCP connection, which has no request; ask about its upstream by name")
	}
	l.Method, l.Path, l.Flags = request[0], request[1], flagsOf(w[logFlags])
	host := envoyHost
	if _, err := strconv.Atoi(w[istioDetail]); err != nil && len(w) > istioCluster { // Envoy's has the bytes received there
		host = istioHost
		l.Detail, l.Cluster = dashed(w[istioDetail]), dashed(w[istioCluster])
		if len(w) > istioLast+1 {
			l.Route = dashed(w[len(w)-1])
		}
	}
	l.Host = dashed(w[host])
	return l, nil
}

// words splits a line; what stands in "", and the time in [] at the beginning, is one word.
func words(line string) (out []string) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimLeft(line, " \t") {
		closing := ""
		switch {
		case line[0] == '"':
			closing = `"`
		case line[0] == '[' && len(out) == 0:
			closing = "]"
		}
		if end := strings.Index(line[1:], closing); closing != "" && end >= 0 {
			out, line = append(out, line[1:1+end]), line[end+2:]
			continue
		}
		end := strings.IndexAny(line, " \t")
		if end < 0 {
			end = len(line)
		}
		out, line = append(out, line[:end]), line[end:]
	}
	return out
}

func dashed(s string) string {
	if s == "-" {
		return ""
	}
	return s
}

func flagsOf(s string) (out []string) {
	for f := range strings.SplitSeq(dashed(s), ",") {
		if f = strings.TrimSpace(f); f != "" {
			out = append(out, f)
		}
	}
	return out
}

// flagSays is what each of Envoy's response flags says, short and long.
// https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage
var flagSays = []struct{ short, long, says string }{
	{"UH", "NoHealthyUpstream", "there was no healthy endpoint to choose"},
	{"NC", "NoClusterFound", "the proxy has no such cluster"},
	{"NR", "NoRouteFound", "no route matched"},
	{"UF", "UpstreamConnectionFailure", "the connection to the endpoint failed"},
	{"UO", "UpstreamOverflow", "a circuit breaker was open"},
	{"UT", "UpstreamRequestTimeout", "no answer came in time"},
	{"UC", "UpstreamConnectionTermination", "the endpoint closed the connection"},
	{"UPE", "UpstreamProtocolError", "the endpoint spoke another protocol"},
	{"UR", "UpstreamRemoteReset", "the endpoint reset the request"},
	{"LR", "LocalReset", "the proxy reset the request"},
	{"DF", "DnsResolutionFailed", "the name could not be resolved"},
	{"UDO", "UnconditionalDropOverload", "a policy drops requests"},
	{"DO", "DropOverload", "a policy drops a part of the requests"},
	{"URX", "UpstreamRetryLimitExceeded", "the tries were used up; the last one's flag says by what"},
	{"DC", "DownstreamConnectionTermination", "the client went away"},
	{"UAEX", "UnauthorizedExternalService", "the authorization service denied it"},
	{"RL", "RateLimited", "the rate limit was met"},
	{"OM", "OverloadManagerTerminated", "the proxy had too much to do"},
}

// Says is the line in words.
func (l LogLine) Says() string {
	text := fmt.Sprintf("log: status %d", l.Status)
	for _, f := range l.Flags {
		text += ", flag " + f
		for _, x := range flagSays {
			if x.short == f || x.long == f {
				text += " (" + x.says + ")"
			}
		}
	}
	switch {
	case l.Detail == "via_upstream":
		text += ": the endpoint answered so by itself, and no proxy made it up"
	case l.Detail != "":
		text += ", " + l.Detail
	}
	return text
}
