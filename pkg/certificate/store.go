package certificate

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Config of a store.
type Config struct {
	// Dir is the folder of the secrets that documents name; it is left out where
	// files are told.
	Dir    string
	Logger *slog.Logger
	// Emit takes the events; it does not block. nil drops them.
	Emit func(model.Event)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Store keeps the bundles that are wanted. It is safe for concurrent use.
type Store struct {
	cfg Config

	mu      sync.Mutex // guards what follows
	wanted  map[string]map[Ref]bool
	kept    map[Ref]*kept
	changed chan struct{} // closed when a bundle changed
}

// kept is one Ref: the last good bundle, and why there is no newer one.
type kept struct {
	good  *Bundle
	fault error
	told  model.CertificateState // the last state that an event told
}

// New returns a store that keeps nothing.
func New(cfg Config) *Store {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Emit == nil {
		cfg.Emit = func(model.Event) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Store{cfg: cfg, wanted: map[string]map[Ref]bool{}, kept: map[Ref]*kept{}, changed: make(chan struct{})}
}

// Want makes refs all that a user wants, and reads those that are new. What nobody
// wants any more is forgotten.
func (s *Store) Want(user string, refs ...Ref) {
	s.mu.Lock()
	var unread []Ref
	for _, r := range refs {
		if s.kept[r] == nil {
			unread = append(unread, r)
		}
	}
	s.mu.Unlock()
	fresh := map[Ref]*kept{}
	for _, r := range unread { // no lock is held: a file system may hang
		k := &kept{}
		k.good, k.fault = Read(r)
		fresh[r] = k
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	set := map[Ref]bool{}
	for _, r := range refs {
		set[r] = true
		if k := fresh[r]; k != nil && s.kept[r] == nil {
			s.kept[r] = k
			if k.fault != nil {
				s.tell(r, k, model.EventCertificateFailed, k.fault.Error())
			}
			s.judge(r, k)
		}
	}
	s.setWanted(user, set)
}

// Users makes what each user under a prefix wants all that is wanted under it.
func (s *Store) Users(prefix string, wants map[string][]Ref) {
	for user, refs := range wants {
		s.Want(user, refs...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for user := range s.wanted {
		if _, still := wants[user]; !still && strings.HasPrefix(user, prefix) {
			s.setWanted(user, nil)
		}
	}
}

func (s *Store) setWanted(user string, set map[Ref]bool) {
	s.wanted[user] = set
	if len(set) == 0 {
		delete(s.wanted, user)
	}
	maps.DeleteFunc(s.kept, func(r Ref, _ *kept) bool {
		for _, refs := range s.wanted {
			if refs[r] {
				return false
			}
		}
		return true
	})
}

// Get returns a wanted bundle in its last good form. The error says why there is
// none.
func (s *Store) Get(r Ref) (*Bundle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kept[r]
	switch {
	case k == nil:
		return nil, fmt.Errorf("%s: %w", r.Cert, ErrUnread)
	case k.good == nil:
		return nil, k.fault
	}
	return k.good, nil
}

// Changed returns a channel that is closed once a bundle changed.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Paths lists the files of all wanted bundles.
func (s *Store) Paths() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for r := range s.kept {
		out = append(out, r.Cert)
		if r.Key != "" {
			out = append(out, r.Key)
		}
	}
	return out
}

// Reload reads every file again.
func (s *Store) Reload() {
	s.mu.Lock()
	refs := slices.Collect(maps.Keys(s.kept))
	s.mu.Unlock()
	moved := false
	for _, r := range refs {
		b, err := Read(r) // no lock is held: a file system may hang
		s.mu.Lock()
		if k := s.kept[r]; k != nil {
			moved = s.take(r, k, b, err) || moved
		}
		s.mu.Unlock()
	}
	if moved {
		s.mu.Lock()
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
	}
}

// take notes what a read brought, and tells whether the bundle is another one.
func (s *Store) take(r Ref, k *kept, b *Bundle, err error) (moved bool) {
	switch {
	case err != nil && (k.fault == nil || k.fault.Error() != err.Error()):
		k.fault = err
		s.tell(r, k, model.EventCertificateFailed, err.Error())
	case err == nil && b.equal(k.good):
		k.fault = nil
	case err == nil:
		k.good, k.fault, k.told, moved = b, nil, "", true
		s.tell(r, k, model.EventCertificateRenewed, "valid until "+b.shown().NotAfter.UTC().Format(time.RFC3339))
	}
	s.judge(r, k)
	return moved
}

// judge tells once that a certificate ends soon, or ended, or has not begun.
func (s *Store) judge(r Ref, k *kept) {
	state := s.state(k)
	if state == k.told || state == model.CertificateValid || state == model.CertificateMissing {
		return
	}
	k.told = state
	if state == model.CertificateEarly {
		s.tell(r, k, model.EventCertificateFailed, "not valid before "+k.good.shown().NotBefore.UTC().Format(time.RFC3339)+"; nobody accepts it until then")
		return
	}
	s.tell(r, k, model.EventCertificateExpiring, fmt.Sprintf("%s: valid until %s", state, k.good.shown().NotAfter.UTC().Format(time.RFC3339)))
}

func (s *Store) tell(r Ref, k *kept, kind, why string) {
	s.cfg.Emit(model.Event{Kind: kind, Subject: model.Subject{Kind: "Certificate", Name: s.short(r.Cert)}, To: string(s.state(k)), Reason: why})
	if kind == model.EventCertificateRenewed {
		s.cfg.Logger.Info("certificate renewed", "file", r.Cert, "why", why)
		return
	}
	s.cfg.Logger.Warn("certificate needs care", "file", r.Cert, "why", why)
}

func (s *Store) state(k *kept) model.CertificateState {
	if k.good == nil {
		return model.CertificateMissing
	}
	now, c := s.cfg.Now(), k.good.shown()
	switch {
	case now.Before(c.NotBefore):
		return model.CertificateEarly
	case now.After(c.NotAfter):
		return model.CertificateExpired
	case expiring(c, now):
		return model.CertificateExpiring
	}
	return model.CertificateValid
}

// short is a path below the folder of secrets.
func (s *Store) short(path string) string {
	if rel, err := filepath.Rel(s.cfg.Dir, path); err == nil && s.cfg.Dir != "" && filepath.IsLocal(rel) {
		return rel
	}
	return path
}

// List tells every wanted certificate, the one that ends first before the others.
func (s *Store) List() []model.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]model.Certificate, 0, len(s.kept))
	for r, k := range s.kept {
		c := model.Certificate{File: s.short(r.Cert), State: s.state(k)}
		for user, refs := range s.wanted {
			if refs[r] {
				c.Users = append(c.Users, user)
			}
		}
		slices.Sort(c.Users)
		if k.fault != nil {
			c.Why = k.fault.Error()
		}
		if k.good != nil {
			x := k.good.shown()
			c.Subject, c.Names, c.NotBefore, c.NotAfter = x.Subject.String(), SANs(x), x.NotBefore.UTC(), x.NotAfter.UTC()
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b model.Certificate) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.File, b.File))
	})
	return out
}
