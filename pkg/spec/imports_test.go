package spec_test

import (
	"strings"
	"testing"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// The rule, by example.
func TestEscape(t *testing.T) {
	for name, want := range map[string]string{
		"web": "web", "web-2": "web-2", "a--b": "a--b", "xyz": "xyz", "x": "x", "web_api": "web-x5fapi", "Web": "x-x57eb", "web.prod": "web-x2eprod",
		"-web": "x-x2dweb", "web-": "web-x2d", "a-x5fb": "a-x2dx5fb", "a-xyz": "a-xyz", "x_": "x-x78-x5f", "xa_": "xa-x5f", "_": "x-x5f", "x-x5f": "x-x78-x2dx5f", "ü": "x-xc3-xbc",
	} {
		got, err := spec.Escape(name)
		if err != nil || got != want {
			t.Errorf("%q becomes %q (%v), want %q", name, got, err, want)
		}
		if back := spec.Unescape(got); back != name {
			t.Errorf("%q comes back as %q", name, back)
		}
	}
	for name, want := range map[string]string{"": "no name", strings.Repeat("a", 64): "64 characters", strings.Repeat("_", 16): "65 characters"} {
		if _, err := spec.Escape(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// FuzzEscape: what comes out is a document's name, comes back, and is of one name
// only.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"web", "x-x5f", "-x", "x-", "--x5f", "Ab_c", "x\x00", "-x2d-x2d"} {
		f.Add(s, "web_api")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		x, err := spec.Escape(a)
		if err != nil {
			return
		}
		if back := spec.Unescape(x); back != a {
			t.Errorf("%q becomes %q and comes back as %q", a, x, back)
		}
		if docs, faults := spec.Parse("f", []byte("kind: Upstream\nname: \""+x+"\"\nspec: {endpoints: []}\n")); !strings.HasPrefix(x, spec.ReservedPrefix) && (len(faults) > 0 || len(docs) != 1) {
			t.Errorf("%q is no name of a document: %v", x, faults)
		}
		if y, err := spec.Escape(b); err == nil && a != b && x == y {
			t.Errorf("%q and %q both become %q", a, b, x)
		}
	})
}

// Imported services become upstreams with every default; a declared one wins, and
// what two services would be is neither.
func TestWithImports(t *testing.T) {
	docs, faults := spec.Parse("a", []byte("kind: Upstream\nname: declared\nspec: {service: {source: consul}}\n"))
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	s, _, _ := spec.New(7, docs)
	key := func(source, name string) model.ServiceKey { return model.ServiceKey{Source: source, Name: name} }
	out, problems := s.WithImports([]model.ServiceKey{
		key("consul", "declared"), key("consul", "web_api"), key("consul", "both"), key("other", "both"), key("consul", strings.Repeat("a", 70)), key("consul", "wellspring-xds"),
		{Source: "consul", Datacenter: "dc2", Name: "far"},
	}, nil, nil)
	if out.Revision != 7 || s.Document(spec.KindUpstream, "far") != nil {
		t.Errorf("revision %d, or the Spec itself was changed", out.Revision)
	}
	var names []string
	for _, d := range out.Documents(spec.KindUpstream) {
		names = append(names, d.Name)
		if again, faults := spec.Parse("w", d.Written); len(faults) > 0 || again[0].Hash() != d.Hash() {
			t.Errorf("%s: %s reads as %v", d.Name, d.Written, faults)
		}
	}
	if got := strings.Join(names, " "); got != "declared far web-x5fapi" {
		t.Errorf("upstreams: %s", got)
	}
	u, _ := out.Upstream("web-x5fapi")
	if k := u.Key("web-x5fapi"); k != key("consul", "web_api") || u.LoadBalancing.Policy != "leastRequest" || u.WhenUnavailable.Panic.Below != 50 {
		t.Errorf("web_api is %+v", u)
	}
	var told []string
	for _, p := range problems {
		told = append(told, p.String())
	}
	all := strings.Join(told, "\n")
	for _, want := range []string{"consul/both: cannot be imported: other/both would be Upstream/both too", "other/both: cannot be imported: consul/both", "consul/wellspring-xds: cannot be imported: names that begin", "70 characters long"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not told:\n%s", want, all)
		}
	}
	if len(problems) != 4 {
		t.Errorf("told:\n%s", all)
	}

	// who was there first stays, whoever comes
	first, _ := s.WithImports([]model.ServiceKey{key("other", "both")}, nil, nil)
	second, problems := s.WithImports([]model.ServiceKey{key("consul", "both"), key("other", "both")}, first, nil)
	if u, ok := second.Upstream("both"); !ok || u.Key("both") != key("other", "both") || len(problems) != 2 {
		t.Errorf("both is %+v, told %v", u, problems)
	}
	if second.Document(spec.KindUpstream, "both") != first.Document(spec.KindUpstream, "both") {
		t.Error("the document was made anew")
	}
	// after a restart nobody was there first, and the store knows who had answered
	third, _ := s.WithImports([]model.ServiceKey{key("consul", "both"), key("other", "both")}, nil, func(k model.ServiceKey) bool { return k.Source == "consul" })
	if u, ok := third.Upstream("both"); !ok || u.Key("both") != key("consul", "both") {
		t.Errorf("both is %+v", u)
	}
}

// A service whose name an application beside its proxies has is told: no caller
// reaches it. An inbound listener that no group has hides nothing.
func TestHiddenServices(t *testing.T) {
	const documents = `
kind: Upstream
name: catalog
spec: {endpoints: [{address: "127.0.0.1:8080"}]}
---
kind: Route
name: in
spec: {hosts: ["*"], rules: [{to: [{upstream: catalog}]}]}
---
kind: Listener
name: in
spec: {address: "0.0.0.0:10080", inbound: true, routes: [in]}
---
kind: Listener
name: out
spec: {address: "127.0.0.1:15001", autoRoutes: {domain: svc.local}}
---
kind: Group
name: catalog
spec: {listeners: [LISTENERS]}
`
	keys := []model.ServiceKey{{Source: "consul", Name: "catalog"}, {Source: "consul", Name: "web"}}
	for listeners, want := range map[string]string{
		"in, out": "web; consul/catalog: cannot be imported: Upstream/catalog is the application beside its proxies",
		"out":     "catalog web; ",
	} {
		docs, faults := spec.Parse("a", []byte(strings.Replace(documents, "LISTENERS", listeners, 1)))
		if err := faults.Err(); err != nil {
			t.Fatal(err)
		}
		s, _, linked := spec.New(1, docs)
		if err := linked.Err(); err != nil {
			t.Fatal(err)
		}
		with, problems := s.WithImports(keys, nil, nil)
		out, _ := with.Listener("out")
		got := strings.Join(with.AutoRouted(out), " ") + "; "
		for _, p := range problems {
			got += p.String()
		}
		if !strings.HasPrefix(got, want) || want[len(want)-1] == ' ' && got != want {
			t.Errorf("%s: %s\nwant %s", listeners, got, want)
		}
	}
}
