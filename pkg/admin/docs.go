package admin

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// docsPath is a page for people: the API's description as plain HTML, without a
// script and without anything from elsewhere, so that it can be read where there is
// no internet.
const docsPath = "/docs"

//go:embed docs.html
var docsText string

var docsPage = template.Must(template.New("docs").Funcs(template.FuncMap{
	"operations": operations,
	"kind":       kindOf,
	"required":   func(s *huma.Schema, field string) bool { return slices.Contains(s.Required, field) },
	"lower":      strings.ToLower,
}).Parse(docsText))

// docs returns what answers with the page.
func docs(api *huma.OpenAPI) http.HandlerFunc {
	var b bytes.Buffer
	if err := docsPage.Execute(&b, map[string]any{"API": api, "Schemas": api.Components.Schemas.Map()}); err != nil {
		panic(fmt.Sprintf("the page of the API: %v", err)) // of a description made here
	}
	page := b.Bytes()
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		_, _ = w.Write(page)
	}
}

// operations lists what a path takes.
func operations(item *huma.PathItem) []*huma.Operation {
	return slices.DeleteFunc([]*huma.Operation{item.Get, item.Put, item.Post, item.Delete}, func(op *huma.Operation) bool { return op == nil })
}

// kindOf says what a schema takes, with a link to one that has a name.
func kindOf(s *huma.Schema) template.HTML {
	name, named := strings.CutPrefix(s.Ref, "#/components/schemas/")
	switch {
	case named:
		name = template.HTMLEscapeString(name)
		return template.HTML(`<a href="#` + name + `">` + name + `</a>`) //nolint:gosec // escaped
	case s.Type == huma.TypeArray && s.Items != nil:
		return "list of " + kindOf(s.Items)
	case len(s.Enum) > 0:
		words := make([]string, len(s.Enum))
		for i, w := range s.Enum {
			words[i] = fmt.Sprint(w)
		}
		return template.HTML(template.HTMLEscapeString(strings.Join(words, ", "))) //nolint:gosec // escaped
	case s.Type == huma.TypeObject:
		if of, ok := s.AdditionalProperties.(*huma.Schema); ok {
			return "map of " + kindOf(of)
		}
	case s.Type == "":
		return "anything"
	case s.Format == "date-time":
		return "time (RFC 3339)"
	}
	return template.HTML(template.HTMLEscapeString(s.Type)) //nolint:gosec // escaped
}
