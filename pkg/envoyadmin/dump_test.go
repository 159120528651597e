package envoyadmin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// A folder may have any endings; what is missing or unreadable is named with what to do,
// all at once.
func TestReadDump(t *testing.T) {
	const clusters, config = "c::10.0.0.1:80::health_flags::healthy\n", `{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {"node": {"id": "e"}}}]}`
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for what, c := range map[string]struct {
		files fstest.MapFS
		says  []string
	}{
		"as they are":       {fstest.MapFS{"clusters": file(clusters), "stats": file("a: 1\n"), "config_dump": file(config)}, nil},
		"with endings":      {fstest.MapFS{"clusters.txt": file(clusters), "stats.json": file(`{"stats": [{"name": "a", "value": 1}, {"histograms": {}}]}`), "config_dump.json": file(config)}, nil},
		"nothing":           {fstest.MapFS{}, []string{"there is no clusters; save it with: curl", "there is no stats", "there is no config_dump"}},
		"not JSON":          {fstest.MapFS{"clusters": file(clusters), "stats": file("a: 1\n"), "config_dump": file("<html>")}, []string{"config_dump: read /config_dump: invalid character"}},
		"empty":             {fstest.MapFS{"clusters": file(""), "stats": file(""), "config_dump": file("{}")}, []string{"clusters: read /clusters: there is no line", "stats: read stats: there is no line", "config_dump: read /config_dump: it has no configs"}},
		"another's JSON":    {fstest.MapFS{"clusters": file(`{"cluster_statuses": 7}`), "stats": file(`{"stats": "x"}`), "config_dump": file(config)}, []string{"clusters: read /clusters: json", "stats: read stats: json"}},
		"a field of a kind": {fstest.MapFS{"clusters": file(clusters), "stats": file("a: 1\n"), "config_dump": file(`{"configs": [{"@type": "x/envoy.admin.v3.ClustersConfigDump", "static_clusters": [{"cluster": {"name": 3}}]}]}`)}, []string{"config_dump: read /config_dump: json"}},
	} {
		d, _, err := ReadDump(c.files)
		if err == nil && (len(c.says) > 0 || d.Stats["a"] != 1 || len(d.Clusters["c"].Hosts) != 1 || d.Config.Node.ID != "e") {
			t.Errorf("%s: %+v", what, d)
		}
		if err != nil && len(c.says) == 0 {
			t.Errorf("%s: %v", what, err)
		}
		for _, says := range c.says {
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v, want %q", what, err, says)
			}
		}
	}
	if _, _, err := ReadDump(fstest.MapFS{"clusters": file(clusters), "stats": {Mode: os.ModeDevice}, "config_dump": file(config)}); err == nil || !strings.Contains(err.Error(), "stats is no file") {
		t.Errorf("a device: %v", err)
	}
	odd, _, err := ReadDump(fstest.MapFS{"clusters": file(clusters), "stats": file("a: 1\n"), "config_dump": file(`{"configs": [{"@type": "x/envoy.admin.v3.ClustersConfigDump", "static_clusters": [{"cluster": {"name": "c", "cluster_type": {"name": "x", "typed_config": {"@type": "x/Other", "clusters": {"a": 1}}}}}]}]}`)})
	if err != nil || odd.Config.Clusters["c"].Members() != nil {
		t.Errorf("an extension of somebody's: %v", err)
	}
	d, before, err := ReadDump(fstest.MapFS{"clusters": file(clusters), "stats": file("a: 1\n"), "stats-later": file("a: 3\n"), "config_dump": file(config)})
	if err != nil || d.Stats["a"] != 3 || before["a"] != 1 {
		t.Errorf("asked twice: %v, %v (%v)", d, before, err)
	}
}

// Addresses of all forms keep their colons.
func TestAddresses(t *testing.T) {
	got, err := ParseClusters([]byte("c::[fd00::1]:80::health_flags::/failed_active_hc/active_hc_timeout\nc::[fd00::1]:80::zone::a\nc::/run/x.sock::health_flags::healthy\nc::default_priority::max_connections::7\n"))
	if err != nil {
		t.Fatal(err)
	}
	c := got["c"]
	if len(c.Hosts) != 2 || c.Hosts[1].Address != "[fd00::1]:80" || !c.Hosts[1].Has("failed_active_health_check") || !c.Hosts[1].Has("active_hc_timeout") || c.Hosts[1].Usable || c.Hosts[1].Zone != "a" ||
		c.Hosts[0].Address != "/run/x.sock" || !c.Hosts[0].Usable || c.Limits.Connections != 7 {
		t.Errorf("%+v", c)
	}
	odd, err := ParseClusters([]byte("q::z::observability_name::q::z\nq::z::default_priority::max_connections::7\nq::z::[::1]:80::health_flags::healthy\nplain::added_via_api::true\n"))
	if err != nil || len(odd) != 2 || odd["q::z"].Limits.Connections != 7 || odd["q::z"].StatName != "q::z" || odd["q::z"].Hosts[0].Address != "[::1]:80" || !odd["plain"].ByAPI {
		t.Errorf("colons in a name: %+v (%v)", odd, err)
	}
	gone, err := ParseClusters([]byte("c::10.0.0.1:80::health_flags::/eds_status_draining\n"))
	if err != nil || gone["c"].Hosts[0].Usable || !gone["c"].Hosts[0].Excluded {
		t.Errorf("draining: %+v (%v)", gone["c"], err)
	}
	json, err := ParseClusters([]byte(`{"cluster_statuses": [{"name": "c", "host_statuses": [{"address": {"pipe": {"path": "/run/x.sock"}}}, {"address": {"envoy_internal_address": {"server_listener_name": "l"}}}]}]}`))
	if err != nil || json["c"].Hosts[0].Address != "/run/x.sock" || json["c"].Hosts[1].Address != "envoy://l/" {
		t.Errorf("%+v (%v)", json["c"], err)
	}
}

// FuzzDump: no text makes a reader fall over.
func FuzzDump(f *testing.F) {
	for _, name := range []string{"clusters", "stats", "config_dump"} {
		text, err := os.ReadFile(filepath.Join("..", "diagnose", "testdata", "ward", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text[:min(len(text), 4<<10)])
	}
	f.Add([]byte(`{"configs": [null, {"@type": "/envoy.admin.v3.ClustersConfigDump", "dynamic_warming_clusters": [{}, {"cluster": null}]}]}`))
	f.Add([]byte(`{"cluster_statuses": [{"host_statuses": [{}]}]}`))
	f.Add([]byte("a::b::c::::\n::\n"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		_, _ = ParseClusters(text)
		_, _ = ParseStats(text)
		if c, err := ParseConfig(text); err == nil {
			for _, x := range c.Clusters {
				x.Members()
				x.TLS()
			}
		}
	})
}

func TestAt(t *testing.T) {
	for address, fine := range map[string]bool{
		"127.0.0.1:9901": true, "http://127.0.0.1:9901": true, "http://envoy.example:9901/": true, "[::1]:9901": true, "unix:///run/envoy.sock": true,
		"127.0.0.1": false, "https://x": false, "unix://relative": false, "": false, "127.0.0.1:": false,
	} {
		if _, err := At(address); (err == nil) != fine {
			t.Errorf("%q: %v", address, err)
		}
	}
}
