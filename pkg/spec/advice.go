package spec

import (
	"fmt"
	"slices"
	"strings"
)

// Advice is one rule of lint: of documents that are taken, and are probably not meant.
type Advice struct {
	// Code names it; a document that has it in `ignore` is left alone by it.
	Code string
	// Says is what it finds, Fix what to do.
	Says, Fix string
	// Living tells that it needs what runs: it is asked of a server only.
	Living bool
}

// The codes.
const (
	AdviceUnused       = "unused"
	AdviceFirstCheck   = "first-check-only"
	AdviceLocalities   = "localities-alike"
	AdviceCheckTimeout = "check-timeout"
	AdviceEjectsNobody = "ejects-nobody"
	AdviceFewToEject   = "few-to-eject"
	AdviceNoWayOut     = "no-way-out"
	AdviceRegexSize    = "regex-size"
	AdviceTwoGroups    = "two-groups"
	AdviceGRPC         = "grpc-differs"
	AdviceOverrides    = "overrides-fields"
	AdviceLosesProxies = "loses-proxies"
	AdviceShadowed     = "shadowed-rule"
	AdviceRetryStorm   = "retry-storm"
	AdviceNoEndpoints  = "no-endpoints"
	AdviceNotReadable  = "not-readable"
	AdviceCheckFails   = "check-fails"
	AdviceSlowCheck    = "slow-check"
	AdviceNoProxies    = "no-proxies"
)

var advices = []Advice{
	{AdviceUnused, "a document that nothing leads to", "name it where it belongs, or delete it", false},
	{AdviceShadowed, "a rule that no request reaches, since one before it takes them all", "move it before that one, or delete it", false},
	{AdviceCheckTimeout, "a check that may take longer than its interval", "make the interval longer, or the timeout shorter", false},
	{AdviceNoWayOut, "panic is off, and one endpoint is all there is: one check that fails is an outage", "declare another endpoint, or leave whenUnavailable.panic as it is by default", false},
	{AdviceEjectsNobody, "outlier detection that can eject nobody", "raise maxEjectionPercent, or leave outlierDetection out", false},
	{AdviceFewToEject, "outlier detection with less than three endpoints: one ejection is half of them, or all", "add endpoints, or leave it to health checks", false},
	{AdviceRetryStorm, "tries that multiply from hop to hop", "try again at one hop of the road only: retry.attempts: 1 at the others", false},
	{AdviceFirstCheck, "an Envoy before 1.40 is sent only the first health check", "leave one, or upgrade the proxies", false},
	{AdviceLocalities, "an Envoy before 1.40 uses the endpoints of all localities alike", "upgrade the proxies, or write another localities", false},
	{AdviceRegexSize, "a pattern that an Envoy may refuse for its size", "start it with the bootstrap of `wellspring bootstrap`, or write a shorter one", false},
	{AdviceTwoGroups, "one proxy could match two groups, and would then be refused", "make their match keys exclude each other", false},
	{AdviceGRPC, "what gRPC's own clients do otherwise than a proxy", "leave it out on the road of these clients, or have them do it", false},
	{AdviceOverrides, "`envoy:` overrides what the document's own fields say", "write it in one place", false},
	{AdviceLosesProxies, "connected proxies would lose their group", "correct the group's match or identities", true},
	{AdviceNoEndpoints, "the source knows nobody of that name, or the document selects none", "correct service.name, tags and metadata: wellspring explain UPSTREAM", true},
	{AdviceNotReadable, "the source cannot be read", "see wellspring sources; name one of those", true},
	{AdviceCheckFails, "the health check, tried from the server, fails at endpoints that are healthy now", "correct path, host, port or expectedStatuses before it is applied", true},
	{AdviceSlowCheck, "endpoints are replaced faster than the check notices that they are gone", "check more often, or replace more slowly", true},
	{AdviceNoProxies, "no proxy of the group is connected", "see wellspring proxies; wellspring bootstrap makes what one starts with", true},
}

// Advices lists the rules of lint.
func Advices() []Advice { return slices.Clone(advices) }

func adviceOf(code string) (Advice, bool) {
	i := slices.IndexFunc(advices, func(a Advice) bool { return a.Code == code })
	if i < 0 {
		return Advice{}, false
	}
	return advices[i], true
}

// Advise makes a warning at one of the document's fields, with its fix.
func (d *Document) Advise(code, field, format string, args ...any) Fault {
	f := d.fault(field, fmt.Sprintf(format, args...))
	a, _ := adviceOf(code)
	f.Code, f.Fix = code, a.Fix
	return f
}

// Heeded are the warnings that their documents do not ignore.
func (s *Spec) Heeded(all []Fault) []Fault {
	return slices.DeleteFunc(all, func(f Fault) bool {
		kind, name, _ := strings.Cut(f.Document, "/")
		d := s.docs[Ref{Kind(kind), name}]
		return d != nil && f.Code != "" && slices.Contains(d.Ignore, f.Code)
	})
}

// checkIgnored finds codes that there are not.
func (d *decoder) checkIgnored(codes []string) {
	for i, code := range codes {
		if _, known := adviceOf(code); !known {
			d.add(index("ignore", i), fmt.Sprintf("%q is no rule of lint", code), adviceCodes())
		}
	}
}

func adviceCodes() (out []string) {
	for _, a := range advices {
		out = append(out, a.Code)
	}
	return out
}
