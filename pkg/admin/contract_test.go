package admin_test

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// contract stands before the API and holds every answer against what the API says
// of itself in /openapi.json: path, method, status, content type and schema. A key
// that the schema does not list is an error here, though clients must take it.
type contract struct {
	t     *testing.T
	api   http.Handler
	paths *http.ServeMux
	doc   map[string]any
	form  *jsonschema.Compiler
	seen  map[string]bool // "GET /v1/apply 200"
}

func newContract(t *testing.T, api http.Handler) *contract {
	t.Helper()
	rec := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "http://localhost/openapi.json", nil)
	api.ServeHTTP(rec, r)
	value, err := jsonschema.UnmarshalJSON(rec.Body)
	if err != nil {
		t.Fatalf("/openapi.json: %d %v", rec.Code, err)
	}
	c := &contract{t: t, api: api, paths: http.NewServeMux(), doc: value.(map[string]any), form: jsonschema.NewCompiler(), seen: map[string]bool{}}
	if c.doc["openapi"] != "3.1.0" {
		t.Errorf("openapi %v", c.doc["openapi"])
	}
	for _, s := range c.at("components", "schemas") {
		if s := s.(map[string]any); s["properties"] != nil {
			s["additionalProperties"] = false
		}
	}
	for path, ops := range c.at("paths") {
		for method := range ops.(map[string]any) {
			c.paths.HandleFunc(strings.ToUpper(method)+" "+path, func(http.ResponseWriter, *http.Request) {})
		}
	}
	c.form.AssertFormat()
	if err := c.form.AddResource("openapi.json", value); err != nil {
		t.Fatal(err)
	}
	return c
}

// at returns the object at a place of the description, nil where there is none.
func (c *contract) at(keys ...string) map[string]any {
	var v any = c.doc
	for _, k := range keys {
		o, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = o[k]
	}
	o, _ := v.(map[string]any)
	return o
}

// do sends a request and returns the answer, which follows the description.
func (c *contract) do(r *http.Request) *httptest.ResponseRecorder {
	c.t.Helper()
	rec := httptest.NewRecorder()
	c.api.ServeHTTP(rec, r)
	_, pattern := c.paths.Handler(r)
	method, path, _ := strings.Cut(pattern, " ")
	what := r.Method + " " + r.URL.String() + " → " + strconv.Itoa(rec.Code)
	if pattern == "" {
		c.t.Errorf("%s: no path of /openapi.json", what)
		return rec
	}
	status := strconv.Itoa(rec.Code)
	responses := []string{"paths", path, strings.ToLower(method), "responses"}
	if c.at(append(slices.Clone(responses), status)...) == nil {
		status = "default"
		if rec.Code < 400 {
			c.t.Errorf("%s: this status is not described", what)
		}
	}
	media, _, err := mime.ParseMediaType(rec.Header().Get("Content-Type"))
	if err != nil {
		c.t.Errorf("%s: content type: %v", what, err)
	}
	place := append(responses, status, "content", media, "schema")
	if c.at(place...) == nil {
		c.t.Errorf("%s: %s is not described", what, media)
		return rec
	}
	c.seen[method+" "+path+" "+strconv.Itoa(rec.Code)] = true
	if media == "text/plain" || media == "text/html" || media == "application/octet-stream" {
		return rec
	}
	if err := c.follows(rec.Body.Bytes(), place...); err != nil {
		c.t.Errorf("%s: %v\n%s", what, err, rec.Body)
	}
	return rec
}

// follows holds a JSON text against the schema at a place of the description.
func (c *contract) follows(text []byte, place ...string) error {
	pointer := ""
	escape := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D")
	for _, k := range place {
		pointer += "/" + escape.Replace(k)
	}
	s, err := c.form.Compile("openapi.json#" + pointer)
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return s.Validate(value)
}

// unseen lists what the description promises and no answer so far showed.
func (c *contract) unseen() (out []string) {
	for path, ops := range c.at("paths") {
		for method, op := range ops.(map[string]any) {
			for status := range op.(map[string]any)["responses"].(map[string]any) {
				if one := strings.ToUpper(method) + " " + path + " " + status; status != "default" && !c.seen[one] {
					out = append(out, one)
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// decode reads an answer into a fresh value.
func decode[T any](t *testing.T, rec *httptest.ResponseRecorder) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(rec.Body.Bytes(), &v); err != nil {
		t.Fatalf("%v\n%s", err, rec.Body)
	}
	return v
}
