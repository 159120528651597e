package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// TestMain lets the test binary be the child that verifies a store, and the child
// that is killed while it writes.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "verify" {
		if err := VerifyFile(os.Args[2]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == "write" {
		writeForever(os.Args[2])
	}
	os.Exit(m.Run())
}

func config(dir string) Config {
	return Config{Dir: dir, Verify: VerifyCommand(os.Args[0], "verify")}
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), config(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func docs(t *testing.T, text string) []Edit {
	t.Helper()
	ds, faults := spec.Parse("test", []byte(text))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	var edits []Edit
	for _, d := range ds {
		edits = append(edits, Edit{Ref: d.Ref, Document: d})
	}
	return edits
}

func apply(t *testing.T, s *Store, text string) Result {
	t.Helper()
	r, err := s.Apply(t.Context(), Apply{Edits: docs(t, text), Author: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func upstream(name, endpoints string) string {
	return fmt.Sprintf("kind: Upstream\nname: %s\nspec: {endpoints: [%s]}\n---\n", name, endpoints)
}

const one, two = `{address: "10.0.0.1:80"}`, `{address: "10.0.0.1:80"}, {address: "10.0.0.2:80"}`

// One apply is one revision; what it wrote is there after a restart, byte for
// byte.
func TestApply(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	changed := s.Changed()
	r := apply(t, s, upstream("a", one)+upstream("b", one))
	if r.Revision != 1 || len(r.Changes) != 2 {
		t.Fatalf("got %+v", r)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	// nothing changes, nothing is written
	if r := apply(t, s, upstream("a", one)); r.Revision != 0 || s.State().Revision != 1 {
		t.Errorf("an apply without a change made revision %d", r.Revision)
	}
	// what is stored has no place in a text that is gone
	warnings, _ := s.State().Spec.Check()
	for _, w := range warnings {
		if w.File != "" || w.Line != 0 {
			t.Errorf("a warning of what is stored: %s", w)
		}
	}
	written := string(s.State().Spec.Document(spec.KindUpstream, "a").Written)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if got := s.State(); got.Revision != 1 || string(got.Spec.Document(spec.KindUpstream, "a").Written) != written {
		t.Errorf("after a restart: revision %d, %s", got.Revision, got.Spec.Document(spec.KindUpstream, "a").Written)
	}
}

// Faults and moved revisions change nothing.
func TestApplyRefused(t *testing.T) {
	s := open(t, t.TempDir())
	apply(t, s, upstream("a", one))
	dangling := docs(t, upstream("b", one)+"kind: Route\nname: r\nspec: {hosts: ['*'], rules: [{to: [{upstream: nobody}]}]}\n")
	zero, seven := uint64(0), uint64(7)
	edit := docs(t, upstream("a", two))
	for what, x := range map[string]struct {
		apply Apply
		want  error
		words string
	}{
		"dangling reference": {Apply{Edits: dangling}, model.ErrInvalid, `no Upstream is named "nobody"`},
		"wrong revision":     {Apply{Edits: []Edit{{Ref: edit[0].Ref, Document: edit[0].Document, Match: &seven}}}, model.ErrConflict, "Upstream/a is at revision 1, 7 was expected"},
		"exists already":     {Apply{Edits: []Edit{{Ref: edit[0].Ref, Document: edit[0].Document, Match: &zero}}}, model.ErrConflict, "Upstream/a exists already"},
		"the Spec moved":     {Apply{Edits: edit, Expect: &seven}, model.ErrConflict, "the Spec is at revision 1"},
		"delete nothing":     {Apply{Edits: []Edit{{Ref: spec.Ref{Kind: spec.KindRoute, Name: "r"}}}}, model.ErrNotFound, "Route/r"},
		"twice":              {Apply{Edits: append(edit, edit...)}, model.ErrInvalid, "stands twice"},
		"a check says no":    {Apply{Edits: edit, Check: func(_, _ *spec.Spec) error { return model.ErrInvalid }}, model.ErrInvalid, ""},
	} {
		t.Run(what, func(t *testing.T) {
			before := s.State()
			_, err := s.Apply(t.Context(), x.apply)
			if !errors.Is(err, x.want) || !strings.Contains(err.Error(), x.words) {
				t.Errorf("got %v, want %v with %q", err, x.want, x.words)
			}
			if s.State().Revision != before.Revision {
				t.Error("something was written")
			}
		})
	}
}

// History, what stood at a revision, and restore.
func TestHistory(t *testing.T) {
	s := open(t, t.TempDir())
	apply(t, s, upstream("a", one)+"kind: Service\nname: svc\nspec: {endpoints: ["+one+"]}\n")                                                        // 1
	apply(t, s, "kind: Upstream\nname: b\nspec: {service: {name: svc}}\n")                                                                            // 2
	apply(t, s, upstream("a", two))                                                                                                                   // 3: only endpoints
	_, err := s.Apply(t.Context(), Apply{Edits: []Edit{{Ref: spec.Ref{Kind: "Upstream", Name: "b"}}, {Ref: spec.Ref{Kind: "Service", Name: "svc"}}}}) // 4
	if err != nil {
		t.Fatal(err)
	}
	revs, total, err := s.Revisions(0, 10)
	if err != nil || total != 4 || len(revs) != 4 || revs[0].Number != 4 {
		t.Fatalf("got %d of %d: %v", len(revs), total, err)
	}
	var isSpec []bool
	for _, r := range revs {
		isSpec = append(isSpec, r.Spec)
	}
	if want := []bool{true, false, true, true}; !slices.Equal(isSpec, want) {
		t.Errorf("changed more than services: %v, want %v (newest first)", isSpec, want)
	}
	if got := s.State().Spec.Revision; got != 4 {
		t.Errorf("the Spec is at %d", got)
	}
	if page, _, _ := s.Revisions(3, 1); len(page) != 1 || page[0].Number != 2 {
		t.Errorf("the page below 3 is %+v", page)
	}
	at, err := s.At(2)
	if err != nil || len(at) != 3 {
		t.Fatalf("at 2: %d documents, %v", len(at), err)
	}
	if _, err := s.At(9); !errors.Is(err, model.ErrNotFound) {
		t.Errorf("at 9: %v", err)
	}
	// what a revision changed, of the documents that are wanted
	for number, want := range map[uint64]string{1: "Upstream/a -+", 3: "Upstream/a ++", 4: ""} {
		r, err := s.Revision(number)
		if err != nil {
			t.Fatal(err)
		}
		all, err := s.Differences(r, func(ref spec.Ref) bool { return ref.Name == "a" })
		got := ""
		for _, d := range all {
			got += string(d.Ref.Kind) + "/" + d.Ref.Name + " " + map[bool]string{true: "+", false: "-"}[d.Before != nil] + map[bool]string{true: "+", false: "-"}[d.After != nil]
		}
		if err != nil || got != want {
			t.Errorf("revision %d changed %q (%v), want %q", number, got, err, want)
		}
	}
	// restore 2: b comes back with the service that it needs; a keeps today's endpoints
	restoring, back, err := s.Restoring(2, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(back) != 1 || back[0].Name != "svc" {
		t.Errorf("back %v", back)
	}
	// somebody writes meanwhile: it is refused, and made again of what is there now
	if _, err := s.Apply(t.Context(), Apply{Edits: docs(t, "kind: Group\nname: late\nspec: {listeners: []}\n")}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(t.Context(), restoring); !errors.Is(err, model.ErrConflict) || !strings.Contains(err.Error(), "the store is at revision 5, 4 was expected") {
		t.Errorf("over another's write: %v", err)
	}
	if restoring, _, err = s.Restoring(2, false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(t.Context(), restoring); err != nil {
		t.Fatal(err)
	}
	u, _ := s.State().Spec.Upstream("a")
	if _, late := s.State().Spec.Group("late"); late {
		t.Error("what was written meanwhile is in revision 2")
	}
	if _, ok := s.State().Spec.Upstream("b"); !ok || len(u.Endpoints) != 2 {
		t.Errorf("after restore: b %v, a has %d endpoints", ok, len(u.Endpoints))
	}
	// with services, a's endpoints too
	restoring, _, err = s.Restoring(2, true)
	if edits := restoring.Edits; err != nil || len(edits) != 1 || edits[0].Ref.Name != "a" {
		t.Errorf("restore with services: %+v, %v", edits, err)
	}
	if all, err := s.Upstreams(); err != nil || len(all) != 3 {
		t.Errorf("%d forms of upstreams, %v", len(all), err)
	}
}

func TestAnswered(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	k := model.ServiceKey{Source: "consul", Name: "web"}
	for range 2 {
		if err := s.MarkAnswered([]model.ServiceKey{k}); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.Close()
	if got := open(t, dir).Answered(); len(got) != 1 || !got[k] {
		t.Errorf("got %v", got)
	}
}

func TestImported(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	east, west := model.ServiceKey{Source: "east", Name: "web"}, model.ServiceKey{Source: "west", Name: "web"}
	for _, k := range []model.ServiceKey{east, west} {
		if err := s.MarkImported(map[string]model.ServiceKey{"web": k}); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.Close()
	if got := open(t, dir).Imported(); len(got) != 1 || got["web"] != west {
		t.Errorf("got %v", got)
	}
}

// A file that cannot be trusted is refused with the backup's name, and is left
// as it is.
func TestDamaged(t *testing.T) {
	for what, x := range map[string]struct {
		harm  func(text []byte) []byte
		words string
	}{
		"truncated":   {func(b []byte) []byte { return b[:len(b)/2+100] }, "the newest verified backup is"},
		"zeroed":      {func(b []byte) []byte { return make([]byte, len(b)) }, "the newest verified backup is"},
		"foreign":     {func([]byte) []byte { return []byte(strings.Repeat("SQLite format 3\x00", 4096)) }, "it is not a store"},
		"empty":       {func([]byte) []byte { return []byte("x") }, "cannot be used"},
		"middle gone": {func(b []byte) []byte { clear(b[3*4096 : 8*4096]); return b }, "cannot be used"},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			for i := range 20 {
				apply(t, s, upstream(fmt.Sprintf("u%d", i), one))
			}
			_ = s.Close()
			_ = open(t, dir).Close() // makes the backup
			file := filepath.Join(dir, FileName)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			harmed := x.harm(text)
			if err := os.WriteFile(file, harmed, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = Open(t.Context(), config(dir))
			if err == nil || !strings.Contains(err.Error(), x.words) || !strings.Contains(err.Error(), "backups/wellspring-") {
				t.Fatalf("got %v", err)
			}
			if now, _ := os.ReadFile(file); string(now) != string(harmed) {
				t.Error("the damaged file was touched")
			}
			// the backup that was named is good
			names := backups(dir)
			if err := copyFile(names[len(names)-1], file); err != nil {
				t.Fatal(err)
			}
			if got := open(t, dir).State().Revision; got != 20 {
				t.Errorf("the backup is at revision %d", got)
			}
		})
	}
}

func TestOpenRefused(t *testing.T) {
	t.Run("locked", func(t *testing.T) {
		dir := t.TempDir()
		open(t, dir)
		_, err := Open(t.Context(), config(dir))
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by another wellspring (process %d)", os.Getpid())) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("not a directory", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), config(filepath.Join(file, "data")))
		if err == nil || !strings.Contains(err.Error(), "--data-dir") {
			t.Errorf("got %v", err)
		}
	})
}

func TestBackupsRotate(t *testing.T) {
	dir := t.TempDir()
	now := time.Unix(0, 0)
	for range backupsKept + 3 {
		c := config(dir)
		c.Now = func() time.Time { now = now.Add(time.Second); return now }
		s, err := Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
	}
	if n := len(backups(dir)); n != backupsKept {
		t.Errorf("%d backups are kept", n)
	}
}

// writeForever applies and prints each revision once it was acknowledged.
func writeForever(dir string) {
	s, err := Open(context.Background(), Config{Dir: dir})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := s.State().Revision; ; i++ {
		ds, _ := spec.Parse("test", []byte(upstream(fmt.Sprintf("u%d", i%50), fmt.Sprintf(`{address: "10.0.0.1:%d"}`, i%60000+1))))
		r, err := s.Apply(context.Background(), Apply{Edits: []Edit{{Ref: ds[0].Ref, Document: ds[0]}}})
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Printf("%d %s\n", r.Revision, r.Changes[0].To)
	}
}

// A backup that is taken while others write is one moment: it verifies, and what is
// loaded from it elsewhere is exactly a revision that was acknowledged, with all
// before it.
func TestBackupUnderWrites(t *testing.T) {
	whole := func(dir string) *Store {
		cfg := config(dir)
		cfg.History.Keep = 1 << 20 // a fast disk writes more than a thousand here
		s, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	s := whole(t.TempDir())
	var wrote atomic.Uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 1; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			docs, _ := spec.Parse("w", fmt.Appendf(nil, "kind: Upstream\nname: u%d\nspec: {endpoints: [{address: '10.0.0.1:%d'}]}\n", n%7, n))
			r, err := s.Apply(context.Background(), Apply{Edits: []Edit{{Ref: docs[0].Ref, Document: docs[0]}}, Message: fmt.Sprint(n)})
			if err != nil {
				t.Error(err)
				return
			}
			wrote.Store(r.Revision)
			time.Sleep(2 * time.Millisecond) // the history stays short enough to be undone often
		}
	}()
	for round := range 5 {
		for before := wrote.Load(); wrote.Load() < before+10; {
			time.Sleep(time.Millisecond)
		}
		least := wrote.Load()
		file, revision, err := s.Backup(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
		dir := filepath.Join(t.TempDir(), "elsewhere")
		if err := Load(t.Context(), config(dir), file.Name()); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(file.Name())
		loaded := whole(dir)
		if got := loaded.State().Revision; got != revision || got < least || got > wrote.Load() {
			t.Errorf("round %d: revision %d was loaded, %d said, %d to %d written", round, got, revision, least, wrote.Load())
		}
		at, err := s.At(revision)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range loaded.State().Spec.Documents("") {
			if at[d.Ref] == nil || at[d.Ref].Hash() != d.Hash() {
				t.Errorf("round %d: %s is not as it was at revision %d", round, d, revision)
			}
		}
		if _, total, err := loaded.Revisions(0, 1); err != nil || uint64(total) != revision {
			t.Errorf("round %d: %d revisions of %d: %v", round, total, revision, err)
		}
	}
	close(stop)
	<-done
	if left, _ := filepath.Glob(filepath.Join(s.cfg.Dir, ".backup-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// What is no store, or would take the place of one, is not loaded.
func TestLoadRefused(t *testing.T) {
	s := open(t, t.TempDir())
	file, _, err := s.Backup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	text, _ := os.ReadFile(file.Name())
	bad := filepath.Join(t.TempDir(), "bad.db")
	for what, content := range map[string][]byte{"cut short": text[:len(text)/3], "empty": nil, "something else": []byte("kind: Upstream\n")} {
		if err := os.WriteFile(bad, content, 0o600); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "new")
		if err := Load(t.Context(), config(dir), bad); err == nil || !strings.Contains(err.Error(), "bad.db") {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(filepath.Join(dir, FileName)); err == nil {
			t.Errorf("%s: something lies there", what)
		}
	}
	if err := Load(t.Context(), config(s.cfg.Dir), file.Name()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("under a running server: %v", err)
	}
	if err := Load(t.Context(), config(t.TempDir()), filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there")
	}
}

// A restore keeps today's endpoints, whichever form they had then and have now.
func TestRestoreAcrossForms(t *testing.T) {
	const (
		short   = "kind: Upstream\nname: web\nspec: {connectTimeout: TIMEOUT, endpoints: [{address: 'ADDRESS'}]}\n"
		service = "kind: Upstream\nname: web\nspec: {connectTimeout: TIMEOUT, service: {name: web}}\n---\nkind: Service\nname: web\nspec: {endpoints: [{address: 'ADDRESS'}]}\n"
	)
	form := func(text, timeout, address string) string {
		return strings.NewReplacer("TIMEOUT", timeout, "ADDRESS", address).Replace(text)
	}
	for name, c := range map[string][2]string{
		"short to short": {short, short}, "short to service": {short, service}, "service to short": {service, short}, "service to service": {service, service},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			if _, err := s.Apply(t.Context(), Apply{Edits: docs(t, form(c[0], "1s", "10.0.0.1:80"))}); err != nil {
				t.Fatal(err)
			}
			edits := docs(t, form(c[1], "2s", "10.0.0.9:80"))
			if c[1] == short && c[0] == service {
				edits = append(edits, Edit{Ref: spec.Ref{Kind: spec.KindService, Name: "web"}})
			}
			if _, err := s.Apply(t.Context(), Apply{Edits: edits}); err != nil {
				t.Fatal(err)
			}
			restoring, back, err := s.Restoring(1, false)
			if err != nil || len(back) > 0 {
				t.Fatalf("gone: %v, %v", back, err)
			}
			if _, err := s.Apply(t.Context(), restoring); err != nil {
				t.Fatal(err)
			}
			sp := s.State().Spec
			u, _ := sp.Upstream("web")
			if u.ConnectTimeout.String() != "1s" || (u.Endpoints != nil) != (c[0] == short) {
				t.Errorf("restored: %+v", u)
			}
			local := sp.LocalServices()
			if len(local) != 1 || len(local[0].Endpoints) != 1 || local[0].Endpoints[0].Address != "10.0.0.9:80" {
				t.Errorf("endpoints: %+v", local)
			}
		})
	}
}
