package admin_test

import (
	"html"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	links = regexp.MustCompile(`href="([^"]*)"`)
	marks = regexp.MustCompile(`id="([^"]*)"`)
)

// TestDocs: the page names every operation, parameter, form and field that
// /openapi.json has, its links lead somewhere, and it asks for nothing from elsewhere.
func TestDocs(t *testing.T) {
	w := newWorld(t)
	rec := w.wants(200, "", "GET", "/docs", "")
	page := rec.Body.String()
	if !strings.HasPrefix(rec.Header().Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("policy %q", rec.Header().Get("Content-Security-Policy"))
	}
	for _, word := range []string{"<script", "src=", "@import", "url(", "http://", "https://"} {
		if strings.Contains(page, word) {
			t.Errorf("the page has %q in it", word)
		}
	}
	var ids []string
	for _, m := range marks.FindAllStringSubmatch(page, -1) {
		ids = append(ids, m[1])
	}
	for _, m := range links.FindAllStringSubmatch(page, -1) {
		if id, ok := strings.CutPrefix(m[1], "#"); m[1] != "/openapi.json" && (!ok || !slices.Contains(ids, id)) {
			t.Errorf("the link %q leads nowhere", m[1])
		}
	}
	if slices.Sort(ids); len(slices.Compact(slices.Clone(ids))) != len(ids) {
		t.Errorf("marks twice: %v", ids)
	}
	has := func(words string) {
		t.Helper()
		if !strings.Contains(page, words) && !strings.Contains(page, html.EscapeString(words)) {
			t.Errorf("the page does not have %q", words)
		}
	}
	n := 0
	for path, ops := range w.contract.at("paths") {
		for _, op := range ops.(map[string]any) {
			op := op.(map[string]any)
			has(path)
			has(op["summary"].(string))
			has(`id="` + op["operationId"].(string) + `"`)
			params, _ := op["parameters"].([]any)
			for _, p := range params {
				has("<code>" + p.(map[string]any)["name"].(string) + "</code>")
			}
			n++
		}
	}
	for name, form := range w.contract.at("components", "schemas") {
		has(`id="` + name + `"`)
		fields, _ := form.(map[string]any)["properties"].(map[string]any)
		for field := range fields {
			has("<td><code>" + field + "</code>")
		}
	}
	if n < 40 {
		t.Errorf("%d operations", n)
	}
}
