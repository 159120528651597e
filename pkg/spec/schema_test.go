package spec

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schema compiles the published schema; that alone holds it against the
// metaschema of JSON Schema.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("documents.json", value); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("documents.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func follows(t *testing.T, s *jsonschema.Schema, document string) error {
	t.Helper()
	text, err := yaml.YAMLToJSON([]byte(document)) // the parser's own reader: in YAML 1.1 a bare n is false
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(value)
}

// What is parsed follows the schema: an editor must not mark a good document.
func TestSchemaTakesWhatIsParsed(t *testing.T) {
	s := schema(t)
	var texts []string
	stories, _ := filepath.Glob("../../xds/translate/testdata/*.txtar")
	for _, file := range stories {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(ar.Files[0].Data))
	}
	examples, _ := filepath.Glob("../../examples/*/*.yaml")
	for _, file := range examples {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	n := 0
	for _, text := range texts {
		for doc := range strings.SplitSeq(text, "\n---\n") {
			if _, faults := Parse("x", []byte(doc)); len(faults) > 0 {
				continue // a service list or a note of the story
			}
			n++
			if err := follows(t, s, doc); err != nil {
				t.Errorf("%v\n%s", err, doc)
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d documents were tried", n)
	}
}

// What the schema can refuse, it refuses, and so does the parser.
func TestSchemaRefuses(t *testing.T) {
	s := schema(t)
	for why, doc := range map[string]string{
		"unknown kind":        "kind: Cluster\nname: a\nspec: {}\n",
		"unknown key":         "kind: Upstream\nname: a\nspec: {loadBalancer: {}}\n",
		"wrong type":          "kind: Upstream\nname: a\nspec: {healthChecks: {}}\n",
		"not in the list":     "kind: Upstream\nname: a\nspec: {protocol: http3}\n",
		"out of bounds":       "kind: Upstream\nname: a\nspec: {outlierDetection: {maxEjectionPercent: 101}}\n",
		"required key":        "kind: Group\nname: a\nspec: {}\n",
		"no name":             "kind: Group\nspec: {listeners: []}\n",
		"name with a slash":   "kind: Group\nname: a/b\nspec: {listeners: []}\n",
		"reserved name":       "kind: Group\nname: wellspring-a\nspec: {listeners: []}\n",
		"duration, no unit":   "kind: Upstream\nname: a\nspec: {connectTimeout: '1'}\n",
		"duration, a number":  "kind: Upstream\nname: a\nspec: {connectTimeout: 1}\n",
		"number, but a text":  "kind: Upstream\nname: a\nspec: {outlierDetection: {maxEjectionPercent: '50'}}\n",
		"boolean, but a text": "kind: Upstream\nname: a\nspec: {healthChecks: [{http: {path: /, method: get}}]}\n",
	} {
		if _, faults := Parse("x", []byte(doc)); len(faults) == 0 {
			t.Errorf("%s: the parser takes it", why)
		}
		if follows(t, s, doc) == nil {
			t.Errorf("%s: the schema takes it", why)
		}
	}
}
