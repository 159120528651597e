package admin

import (
	"maps"
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// describe finishes the description of the API with what cannot be read off the
// handlers: the one form of every error, that a PUT may create, the stream of
// events, and what answers in plain text.
func describe(o *huma.OpenAPI) {
	failed := &huma.Response{Description: "Error", Content: map[string]*huma.MediaType{
		(*Error)(nil).ContentType(""): {Schema: o.Components.Schemas.Schema(reflect.TypeFor[Error](), true, "")},
	}}
	for path, item := range o.Paths {
		for _, op := range operations(item) {
			for _, code := range op.Errors {
				named := *failed
				named.Description = http.StatusText(code)
				op.Responses[strconv.Itoa(code)] = &named
			}
			op.Responses["default"] = failed
			delete(op.Responses, "500") // nobody can plan for it; it has the same form
		}
		if item.Put != nil && path != logPath { // documents are created by it
			created := *item.Put.Responses["200"]
			created.Description = http.StatusText(http.StatusCreated)
			item.Put.Responses["201"] = &created
		}
		if path == eventsPath {
			item.Get.Responses["200"].Content["text/event-stream"] = &huma.MediaType{Schema: &huma.Schema{
				Type: huma.TypeString, Description: "id, event (the kind) and data (an Event as JSON) of each, as it happens; resumed by Last-Event-ID",
			}}
		}
	}
	schemas := o.Components.Schemas.Map()
	maps.DeleteFunc(schemas, func(name string, _ *huma.Schema) bool { return name == "ErrorModel" || name == "ErrorDetail" })
	for _, s := range schemas {
		for _, p := range s.Properties {
			p.Nullable = p.Nullable && p.Type != huma.TypeArray // an empty list is [], never null
		}
	}

	for path, summary := range map[string]string{
		"/livez":   "Whether the process runs",
		"/readyz":  "Whether every group can be served; ?verbose names each",
		"/metrics": "Metrics in the text format of Prometheus",
		docsPath:   "This description as a page",
	} {
		form := "text/plain"
		if path == docsPath {
			form = "text/html"
		}
		plain := func(description string) *huma.Response {
			return &huma.Response{Description: description, Content: map[string]*huma.MediaType{form: {Schema: &huma.Schema{Type: huma.TypeString}}}}
		}
		op := &huma.Operation{OperationID: path[1:], Method: http.MethodGet, Path: path, Summary: summary, Responses: map[string]*huma.Response{"200": plain("OK")}}
		if path == "/readyz" {
			op.Responses["503"] = plain("Not ready")
			op.Parameters = []*huma.Param{{Name: "verbose", In: "query", AllowEmptyValue: true, Schema: &huma.Schema{Type: huma.TypeString}}}
		}
		o.AddOperation(op)
	}
}
