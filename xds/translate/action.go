package translate

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// redirectCodes is Envoy's word for each status.
var redirectCodes = map[uint32]routev3.RedirectAction_RedirectResponseCode{
	301: routev3.RedirectAction_MOVED_PERMANENTLY, 302: routev3.RedirectAction_FOUND, 303: routev3.RedirectAction_SEE_OTHER,
	307: routev3.RedirectAction_TEMPORARY_REDIRECT, 308: routev3.RedirectAction_PERMANENT_REDIRECT,
}

func redirect(rule spec.Rule) *routev3.RedirectAction {
	r := rule.Redirect
	a := &routev3.RedirectAction{HostRedirect: r.Host, PortRedirect: r.Port, StripQuery: r.StripQuery, ResponseCode: redirectCodes[r.Status]}
	if r.Scheme != "" {
		a.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: r.Scheme}
	}
	switch whole, pattern := newPrefix(rule.Match.Path.Prefix, r.Prefix); {
	case r.Path != "":
		a.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: r.Path}
	case pattern != nil:
		a.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: pattern}
	case whole != "":
		a.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: whole}
	}
	return a
}

func directResponse(r *spec.Respond) *routev3.DirectResponseAction {
	a := &routev3.DirectResponseAction{Status: r.Status}
	if r.Body != "" {
		a.Body = &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: r.Body}}
	}
	return a
}

// rewrite says what the upstream sees.
func rewrite(a *routev3.RouteAction, rule spec.Rule) {
	r := rule.Rewrite
	if r == nil {
		return
	}
	switch whole, pattern := newPrefix(rule.Match.Path.Prefix, r.Prefix); {
	case r.Path != "":
		a.RegexRewrite = substitute("^/.*$", escape(r.Path))
	case r.Regex != nil:
		a.RegexRewrite = substitute(r.Regex.Pattern, r.Regex.Substitution)
	case pattern != nil:
		a.RegexRewrite = pattern
	default:
		a.PrefixRewrite = whole
	}
	switch {
	case r.Host != "":
		a.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: r.Host}
	case r.HostFromHeader != "":
		a.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteHeader{HostRewriteHeader: r.HostFromHeader}
	case r.HostOfEndpoint:
		a.HostRewriteSpecifier = &routev3.RouteAction_AutoHostRewrite{AutoHostRewrite: wrapperspb.Bool(true)}
	}
}

// newPrefix puts to in place of from. Envoy replaces text: where only one of them
// ends with a slash it would double or swallow one, and a pattern does it.
func newPrefix(from, to string) (whole string, pattern *matcherv3.RegexMatchAndSubstitute) {
	from = max(from, "/")
	switch {
	case to == "" || strings.HasSuffix(from, "/") == strings.HasSuffix(to, "/"):
		return to, nil
	case strings.HasSuffix(to, "/"): // /catalog, /catalog/x → /, /x
		return "", substitute("^"+regexp.QuoteMeta(from)+"/?", escape(to))
	}
	return "", substitute("^"+regexp.QuoteMeta(from), escape(to+"/")) // /x → /catalog/x
}

func substitute(pattern, with string) *matcherv3.RegexMatchAndSubstitute {
	return &matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: pattern}, Substitution: with}
}

// escape keeps a text as it is in a substitution.
func escape(s string) string { return strings.ReplaceAll(s, `\`, `\\`) }

func edits(h spec.HeaderEdits) (add []*corev3.HeaderValueOption, remove []string) {
	add = headers(h.Set)
	for _, k := range slices.Sorted(maps.Keys(h.Add)) {
		add = append(add, &corev3.HeaderValueOption{
			Header: &corev3.HeaderValue{Key: k, Value: literal(h.Add[k])}, AppendAction: corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD, KeepEmptyValue: h.Add[k] == "",
		})
	}
	return add, h.Remove
}

// literal keeps Envoy from reading operators in a text.
func literal(s string) string { return strings.ReplaceAll(s, "%", "%%") }
