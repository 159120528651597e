package model

import "strings"

// MatchName holds a name in a certificate against a pattern: exact, or with one *
// at the beginning or the end. A * alone matches every name.
func MatchName(pattern, name string) bool {
	if rest, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(name, rest)
	}
	if rest, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, rest)
	}
	return pattern == name
}

// MatchAnyName tells whether any of the names matches any of the patterns.
func MatchAnyName(patterns, names []string) bool {
	for _, p := range patterns {
		for _, n := range names {
			if MatchName(p, n) {
				return true
			}
		}
	}
	return false
}
