package translate_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"sigs.k8s.io/yaml"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

var update = flag.Bool("update", false, "rewrite the wanted parts of testdata")

// TestStories translates the documents of each story and compares, as messages,
// with the Envoy configuration beside them. Every result passes Envoy's own
// rules.
func TestStories(t *testing.T) {
	for _, file := range stories(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := resources(t, ar)
			for name, m := range got {
				if err := translate.Check(m); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if *update {
				ar.Files = ar.Files[:1]
				for _, name := range sorted(got) {
					ar.Files = append(ar.Files, txtar.File{Name: name, Data: toYAML(t, got[name])})
				}
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			for _, f := range ar.Files[1:] {
				m := got[f.Name]
				if m == nil {
					t.Errorf("%s is wanted and not there", f.Name)
					continue
				}
				want := m.ProtoReflect().New().Interface()
				text, err := yaml.YAMLToJSON(f.Data)
				if err != nil {
					t.Fatal(err)
				}
				if err := protojson.Unmarshal(text, want); err != nil {
					t.Fatalf("%s: %v", f.Name, err)
				}
				if diff := cmp.Diff(want, m, protocmp.Transform()); diff != "" {
					t.Errorf("%s (-want +got):\n%s", f.Name, diff)
				}
				delete(got, f.Name)
			}
			if len(got) > 0 {
				t.Errorf("not wanted: %v", sorted(got))
			}
		})
	}
}

// Every field of a document is set in at least one story.
func TestEveryField(t *testing.T) {
	set := map[string]bool{}
	for _, file := range stories(t) {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		docs, _ := spec.Parse(file, ar.Files[0].Data)
		for _, d := range docs {
			for _, f := range d.Fields() {
				set[string(d.Kind)+" "+f] = true
			}
		}
	}
	for _, kind := range spec.Kinds {
		for _, l := range spec.Leaves(kind) {
			if !set[string(kind)+" "+l.Path] {
				t.Errorf("no story sets %s %s", kind, l.Path)
			}
		}
	}
}

// The same input gives the same bytes.
func TestDeterministic(t *testing.T) {
	for _, file := range stories(t) {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		encode := func() map[string]string {
			out := map[string]string{}
			for name, m := range resources(t, ar) {
				b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
				if err != nil {
					t.Fatal(err)
				}
				out[name] = string(b)
			}
			return out
		}
		first := encode()
		for range 20 {
			if diff := cmp.Diff(first, encode()); diff != "" {
				t.Fatalf("%s: %s", file, diff)
			}
		}
	}
}

func stories(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	return files
}

// resources translates the first part of a story, as the newest Envoy gets it and,
// below old/, what the oldest gets otherwise.
func resources(t *testing.T, ar *txtar.Archive) map[string]proto.Message {
	t.Helper()
	docs, faults := spec.Parse(ar.Files[0].Name, ar.Files[0].Data)
	s, _, linked := spec.New(1, docs)
	if faults = append(faults, linked...); len(faults) > 0 {
		t.Fatal(faults)
	}
	out, err := messages(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func messages(s *spec.Spec) (map[string]proto.Message, error) {
	local := map[model.ServiceKey]*model.Service{}
	for _, svc := range s.LocalServices() {
		local[svc.Key] = &svc
	}
	form, older := translate.Form{Band: translate.MaxBand}, translate.Form{Band: translate.MinBand}
	for _, d := range s.Documents(spec.KindGroup) {
		if g, ok := d.Body.(*spec.Group); ok && slices.Contains(d.Fields(), "spec.telemetry") {
			form.Telemetry, older.Telemetry = model.Telemetry(g.Telemetry), model.Telemetry(g.Telemetry)
		}
	}
	out := map[string]proto.Message{}
	for _, d := range s.Documents("") {
		switch b := d.Body.(type) {
		case *spec.Upstream:
			svc := local[b.Key(d.Name)]
			c, err := translate.Cluster(d.Name, b, svc, form)
			if err != nil {
				return nil, err
			}
			out["clusters/"+d.Name] = c
			old, err := translate.Cluster(d.Name, b, svc, older)
			if err != nil {
				return nil, err
			}
			if !proto.Equal(old, c) {
				out["old/clusters/"+d.Name] = old
			}
			if svc != nil && !b.Hostnames() {
				a, _ := translate.Assignment(d.Name, b, svc)
				out["assignments/"+d.Name] = a
			}
		case *spec.Listener:
			if b.GRPC {
				if err := forGRPC(out, d.Name, b, s, local); err != nil {
					return nil, err
				}
				continue
			}
			l, err := translate.Listener(d.Name, b, form)
			if err != nil {
				return nil, err
			}
			out["listeners/"+d.Name] = l
			old, err := translate.Listener(d.Name, b, older)
			if err != nil {
				return nil, err
			}
			if !proto.Equal(old, l) {
				out["old/listeners/"+d.Name] = old
			}
			if !b.RoutesHTTP() {
				continue
			}
			if out["routes/"+d.Name], err = translate.RouteTable(d.Name, b, s, translate.MaxBand); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// forGRPC adds what gRPC's own clients are sent of a listener.
func forGRPC(out map[string]proto.Message, name string, l *spec.Listener, s *spec.Spec, local map[model.ServiceKey]*model.Service) (err error) {
	for _, host := range translate.Targets(l, s) {
		out["grpc/listeners/"+host] = translate.APIListener(host, name)
	}
	if out["grpc/routes/"+name], err = translate.RouteTable(name, l, s, translate.GRPC); err != nil {
		return err
	}
	for _, d := range s.Documents(spec.KindUpstream) {
		u, _ := d.Body.(*spec.Upstream)
		svc := local[u.Key(d.Name)]
		if out["grpc/clusters/"+d.Name], err = translate.Cluster(d.Name, u, svc, translate.Form{Band: translate.GRPC}); err != nil {
			return err
		}
		if svc != nil && !u.Hostnames() {
			a, _ := translate.Assignment(d.Name, u, svc)
			out["grpc/assignments/"+d.Name] = translate.GRPCAssignment(a)
		}
	}
	return nil
}

func sorted(m map[string]proto.Message) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func toYAML(t *testing.T, m proto.Message) []byte {
	t.Helper()
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err == nil {
		text, err = yaml.JSONToYAML(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// FuzzTranslate: whatever our own rules let through, Envoy's rules let through.
func FuzzTranslate(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txtar")
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(ar.Files[0].Data)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		docs, faults := spec.Parse("f", text)
		s, _, linked := spec.New(1, docs)
		if len(faults)+len(linked) > 0 {
			return
		}
		out, err := messages(s)
		if err != nil {
			return // what is wrong with an envoy: is told
		}
		for name, m := range out {
			if err := translate.Check(m); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
