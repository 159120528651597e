package certificate_test

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/certificate"
	"github.com/wellspring-xds/wellspring/pkg/certtest"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// shelf is a store over the files of an authority, with a clock of its own.
type shelf struct {
	t         *testing.T
	authority *certtest.Authority
	store     *certificate.Store
	now       time.Time
	events    []model.Event
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	a, err := certtest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &shelf{t: t, authority: a, now: time.Now()}
	s.store = certificate.New(certificate.Config{
		Dir: a.Dir, Now: func() time.Time { return s.now }, Emit: func(e model.Event) { s.events = append(s.events, e) },
	})
	return s
}

func (s *shelf) issue(name string, life time.Duration, sans ...string) certificate.Ref {
	s.t.Helper()
	cert, key, err := s.authority.Issue(name, life, sans...)
	if err != nil {
		s.t.Fatal(err)
	}
	return certificate.Ref{Cert: cert, Key: key}
}

// told lists the kinds of the events since the last call.
func (s *shelf) told() string {
	var out []string
	for _, e := range s.events {
		out = append(out, e.Kind+" "+e.Subject.Name)
	}
	s.events = nil
	return strings.Join(out, ", ")
}

func (s *shelf) write(path string, text []byte) {
	s.t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// What was good stays while its files are gone, cut short, or do not match, which
// is told once; the next good form takes its place.
func TestLastGoodStays(t *testing.T) {
	s := newShelf(t)
	ref := s.issue("web", time.Hour, "web.test", "spiffe://test/web", "127.0.0.1")
	s.store.Want("Listener/edge", ref)
	first, err := s.store.Get(ref)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(certificate.SANs(first.Certificates[0]), " "); got != "spiffe://test/web web.test 127.0.0.1" {
		t.Errorf("names: %s", got)
	}
	other := s.issue("other", time.Hour)
	cert, _ := os.ReadFile(ref.Cert)
	otherKey, _ := os.ReadFile(other.Key)
	for what, spoil := range map[string]func(){
		"gone":               func() { _ = os.Remove(ref.Cert) },
		"cut short":          func() { s.write(ref.Cert, cert[:len(cert)/2]) },
		"the second cut":     func() { s.write(ref.Cert, slices.Concat(cert, cert[:len(cert)/2])) },
		"the second damaged": func() { s.write(ref.Cert, slices.Concat(cert, bytes.Replace(cert, []byte("M"), []byte("#"), 1))) },
		"empty":              func() { s.write(ref.Cert, nil) },
		"of another key":     func() { s.write(ref.Key, otherKey) },
		"a key for a chain":  func() { s.write(ref.Cert, otherKey) },
		"larger than it may": func() { s.write(ref.Cert, make([]byte, 2<<20)) },
		"a folder":           func() { _ = os.Remove(ref.Key); _ = os.Mkdir(ref.Key, 0o700) },
	} {
		spoil()
		changed := s.store.Changed()
		s.store.Reload()
		s.store.Reload()
		if got := s.told(); got != "certificate.failed web.pem" {
			t.Errorf("%s: told %q", what, got)
		}
		if now, err := s.store.Get(ref); err != nil || now != first {
			t.Errorf("%s: the good one is gone: %v", what, err)
		}
		if c := s.store.List()[0]; c.Why == "" || strings.Contains(c.Why, "PRIVATE KEY") && strings.Contains(c.Why, "MH") || c.State != model.CertificateValid {
			t.Errorf("%s: listed as %+v", what, c)
		}
		select {
		case <-changed:
			t.Errorf("%s: told as a change", what)
		default:
		}
		_ = os.Remove(ref.Key)
		s.issue("web", time.Hour)
		s.store.Reload()
		select {
		case <-changed:
		default:
			t.Errorf("%s: the renewal was not told", what)
		}
		if got := s.told(); got != "certificate.renewed web.pem" {
			t.Errorf("%s, then renewed: told %q", what, got)
		}
		if first, err = s.store.Get(ref); err != nil {
			t.Fatal(err)
		}
		cert, _ = os.ReadFile(ref.Cert)
	}
}

// A file that was never readable is an error that names it, until it is there.
func TestMissing(t *testing.T) {
	s := newShelf(t)
	ref := certificate.Ref{Cert: s.authority.File("late.pem"), Key: s.authority.File("late-key.pem")}
	if _, err := s.store.Get(ref); err == nil {
		t.Error("nobody wants it")
	}
	s.store.Want("Listener/edge", ref)
	if got := s.told(); got != "certificate.failed late.pem" {
		t.Errorf("told %q", got)
	}
	if _, err := s.store.Get(ref); err == nil || !strings.Contains(err.Error(), "late.pem") {
		t.Errorf("missing: %v", err)
	}
	if c := s.store.List()[0]; c.State != model.CertificateMissing || c.Why == "" || c.File != "late.pem" {
		t.Errorf("listed as %+v", c)
	}
	s.issue("late", time.Hour)
	s.store.Reload()
	if _, err := s.store.Get(ref); err != nil {
		t.Error(err)
	}
}

// The end of a certificate is told when a quarter of its life is left and when it
// is over, once each; of a bundle of authorities the one that lasts longest counts.
func TestExpiry(t *testing.T) {
	s := newShelf(t)
	short, long := s.issue("short", 3*time.Hour), s.issue("long", 90*24*time.Hour)
	s.store.Want("a", short, certificate.Ref{Cert: s.authority.CA()})
	s.store.Want("b", long, short)
	step := func(d time.Duration, want string, states ...model.CertificateState) {
		t.Helper()
		s.now = s.now.Add(d)
		s.store.Reload()
		s.store.Reload()
		if got := s.told(); got != want {
			t.Errorf("after %s: told %q, want %q", d, got, want)
		}
		for i, c := range s.store.List() {
			if c.State != states[i] {
				t.Errorf("after %s: %s is %s, want %s", d, c.File, c.State, states[i])
			}
		}
	}
	const v, e, x = model.CertificateValid, model.CertificateExpiring, model.CertificateExpired
	step(0, "", v, v, v)
	step(2*time.Hour+5*time.Minute, "certificate.expiring short.pem", e, v, v)
	step(time.Hour, "certificate.expiring short.pem", x, v, v)
	if got := s.store.List()[0]; strings.Join(got.Users, " ") != "a b" {
		t.Errorf("users: %v", got.Users)
	}
	s.issue("short", 6*time.Hour)
	step(0, "certificate.renewed short.pem", v, v, v)
	step(4*time.Hour, "certificate.expiring short.pem", x, v, v) // the renewed one ends too
	s.issue("short", 100*24*time.Hour)
	step(0, "certificate.renewed short.pem", v, v, v)
	both, _ := os.ReadFile(s.authority.CA())
	next, err := certtest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	more, _ := os.ReadFile(next.CA())
	s.write(s.authority.CA(), append(both, more...))
	s.store.Reload()
	s.told()
	if b, err := s.store.Get(certificate.Ref{Cert: s.authority.CA()}); err != nil || len(b.Certificates) != 2 || b.Pool() == nil {
		t.Errorf("two authorities: %v", err)
	}
}

// One that is not valid yet is told: peers refuse it.
func TestEarly(t *testing.T) {
	s := newShelf(t)
	s.now = s.now.Add(-48 * time.Hour)
	s.store.Want("Listener/edge", s.issue("web", 100*24*time.Hour))
	s.store.Reload()
	if got := s.told(); got != "certificate.failed web.pem" {
		t.Errorf("told %q", got)
	}
	if c := s.store.List()[0]; c.State != model.CertificateEarly {
		t.Errorf("listed as %+v", c)
	}
	s.now = s.now.Add(48 * time.Hour)
	s.store.Reload()
	if c := s.store.List()[0]; c.State != model.CertificateValid {
		t.Errorf("two days later %+v", c)
	}
}

// What nobody wants any more is forgotten.
func TestForgotten(t *testing.T) {
	s := newShelf(t)
	web, api := s.issue("web", time.Hour), s.issue("api", time.Hour)
	s.store.Want("xds.tls", web)
	s.store.Users("Listener/", map[string][]certificate.Ref{"Listener/a": {web, api}, "Listener/b": {api}})
	if n := len(s.store.Paths()); n != 4 {
		t.Errorf("%d paths", n)
	}
	s.store.Users("Listener/", map[string][]certificate.Ref{"Listener/b": {web}})
	if got := s.store.Paths(); len(got) != 2 {
		t.Errorf("kept: %v", got)
	}
	s.store.Users("Listener/", nil)
	if c := s.store.List(); len(c) != 1 || strings.Join(c[0].Users, " ") != "xds.tls" {
		t.Errorf("kept: %+v", c)
	}
}
