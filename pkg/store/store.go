// Package store keeps the documents that operators declared, with every
// revision of them, in one bbolt file.
//
// Its nouns:
//
//	document   canonical JSON, kept once under its hash (bucket objects)
//	head       KIND/NAME → hash and the revision that set it (bucket heads)
//	revision   what one apply changed, by whom, when, why (bucket revisions)
//	override   an operator's word about one endpoint; no revision (bucket overrides)
//	answered   service keys that ever had an authoritative answer, written once
//	imported   an upstream's name → the service that has it
//
// One apply is one transaction and one revision; either all of it is on disk
// when Apply returns, or none. Readers never touch the disk: they get the
// immutable Spec of the newest revision.
//
// Decisions:
//   - The file is verified in a child process before every open, not only after
//     an unclean stop: a truncated file kills the process that maps it, no error
//     can be returned from there, and the cost is that of reading a small file.
//   - After a verified open the file is copied to backups/, three are kept. A
//     damaged file is never replaced by a backup on its own: the refusal names
//     the backup and the commands, and a person decides.
package store

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// schemaVersion is the layout of the file. A newer one is refused.
const schemaVersion = 1

// FileName is the store's file below the data directory.
const FileName = "wellspring.db"

var (
	bucketMeta      = []byte("meta")
	bucketObjects   = []byte("objects")
	bucketHeads     = []byte("heads")
	bucketRevisions = []byte("revisions")
	bucketAnswered  = []byte("answered")
	bucketImported  = []byte("imported") // an upstream's name, and the service that has it
	keySchema       = []byte("schema")
	keyHead         = []byte("head")
	keySpecRevision = []byte("spec")
)

// Config says where the store lies. Dir is created with mode 0700.
type Config struct {
	Dir    string
	Logger *slog.Logger
	// Verify checks a file before it is opened, in another process; see
	// VerifyCommand. nil checks in this process, which a damaged file may kill.
	Verify func(ctx context.Context, path string) error
	// History is how much of it is kept.
	History History
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Store is safe for concurrent use.
type Store struct {
	cfg  Config
	db   *bolt.DB
	lock *os.File

	write sync.Mutex // one apply at a time; held across its disk sync

	mu       sync.Mutex // guards what follows; never held across I/O
	state    State
	answered map[model.ServiceKey]bool
	imported map[string]model.ServiceKey
	changed  chan struct{}
	// overrides are immutable
	overrides []model.Override
}

// State is the newest revision and its Spec.
type State struct {
	// Revision counts every apply; Spec.Revision only those that changed more
	// than services.
	Revision uint64
	Spec     *spec.Spec
}

// Open verifies, backs up and opens the store. Errors name the file and what to
// do about it.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.History.Keep, cfg.History.MaxAge = cmp.Or(cfg.History.Keep, defaultKeep), cmp.Or(cfg.History.MaxAge, defaultMaxAge)
	if cfg.Verify == nil {
		cfg.Verify = func(_ context.Context, path string) error {
			if err := VerifyFile(path); err != nil {
				return &DamagedError{err}
			}
			return nil
		}
	}
	if err := makeDir(cfg.Dir); err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	removeSpools(cfg.Dir)
	s := &Store{cfg: cfg, lock: lock, changed: make(chan struct{})}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	path := filepath.Join(s.cfg.Dir, FileName)
	switch _, err := os.Stat(path); {
	case errors.Is(err, os.ErrNotExist):
		if kept := backups(s.cfg.Dir); len(kept) > 0 {
			last := kept[len(kept)-1]
			return fmt.Errorf("the store %s is gone, and %s has copies of it: to go on from the newest: cp %s %s; to begin with nothing move the folder backups away", path, filepath.Join(s.cfg.Dir, "backups"), last, path)
		}
	case err != nil:
		return fmt.Errorf("open store: %w", err)
	default:
		var verdict *DamagedError
		switch err := s.cfg.Verify(ctx, path); {
		case errors.As(err, &verdict):
			return damaged(s.cfg.Dir, path, verdict.Err)
		case err != nil:
			return err
		}
		if err := backup(s.cfg.Dir, path, s.cfg.Now()); err != nil {
			s.cfg.Logger.Error("store not backed up at start: make room in its backups folder", "err", err)
		}
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return fmt.Errorf("open store %s: %w", path, err)
	}
	s.db = db
	if err := s.load(); err != nil {
		return errors.Join(fmt.Errorf("read store %s: %w", path, err), db.Close())
	}
	if err := s.prune(); err != nil {
		s.cfg.Logger.Error("history not pruned", "err", err)
	}
	return nil
}

// Close ends the store; applies in flight finish first.
func (s *Store) Close() error {
	s.write.Lock()
	defer s.write.Unlock()
	return errors.Join(s.db.Close(), s.lock.Close())
}

// load reads everything into memory, creating what a new file lacks.
func (s *Store) load() error {
	return s.db.Update(func(tx *bolt.Tx) error {
		if first, _ := tx.Cursor().First(); first != nil && tx.Bucket(bucketMeta) == nil {
			return fmt.Errorf("it is a bbolt file of another program (it has a bucket %q); choose another directory with --data-dir", first)
		}
		for _, b := range [][]byte{bucketMeta, bucketObjects, bucketHeads, bucketRevisions, bucketAnswered, bucketImported, bucketOverrides} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if v := meta.Get(keySchema); v == nil {
			if err := meta.Put(keySchema, be64(schemaVersion)); err != nil {
				return err
			}
		} else if got := number(v); got > schemaVersion {
			return fmt.Errorf("its layout is version %d, this program knows up to %d; run the newer program that wrote it", got, schemaVersion)
		}
		docs, err := readHeads(tx)
		if err != nil {
			return err
		}
		s.answered = map[model.ServiceKey]bool{}
		if err := tx.Bucket(bucketAnswered).ForEach(func(k, _ []byte) error {
			var key model.ServiceKey
			if err := json.Unmarshal(k, &key); err != nil {
				return fmt.Errorf("answered key %q: %w", k, err)
			}
			s.answered[key] = true
			return nil
		}); err != nil {
			return err
		}
		s.imported = map[string]model.ServiceKey{}
		if err := tx.Bucket(bucketImported).ForEach(func(name, v []byte) error {
			var key model.ServiceKey
			if err := json.Unmarshal(v, &key); err != nil {
				return fmt.Errorf("imported name %q: %w", name, err)
			}
			s.imported[string(name)] = key
			return nil
		}); err != nil {
			return err
		}
		if s.overrides, err = readOverrides(tx); err != nil {
			return err
		}
		sp, _, faults := spec.New(number(meta.Get(keySpecRevision)), slices.Collect(maps.Values(docs)))
		if len(faults) > 0 {
			return fmt.Errorf("the stored documents do not fit together any more: %w; they were accepted by another version of this program: run that one, correct them there, and come back", faults)
		}
		s.setState(number(meta.Get(keyHead)), sp)
		return nil
	})
}

// setState makes a Spec the newest one.
func (s *Store) setState(revision uint64, sp *spec.Spec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = State{Revision: revision, Spec: sp}
	close(s.changed)
	s.changed = make(chan struct{})
}

// readHeads parses every current document.
func readHeads(tx *bolt.Tx) (map[spec.Ref]*spec.Document, error) {
	all, err := heads(tx)
	if err != nil {
		return nil, err
	}
	return readAll(tx, all)
}

// heads says which form and revision of each document is current.
func heads(tx *bolt.Tx) (map[spec.Ref]head, error) {
	out := map[spec.Ref]head{}
	err := tx.Bucket(bucketHeads).ForEach(func(k, v []byte) error {
		var h head
		if err := json.Unmarshal(v, &h); err != nil {
			return fmt.Errorf("head %s: %w", k, err)
		}
		kind, name, _ := strings.Cut(string(k), "/")
		out[spec.Ref{Kind: spec.Kind(kind), Name: name}] = h
		return nil
	})
	return out, err
}

// readAll parses documents by the hashes of their forms.
func readAll(tx *bolt.Tx, all map[spec.Ref]head) (map[spec.Ref]*spec.Document, error) {
	docs := make(map[spec.Ref]*spec.Document, len(all))
	for ref, h := range all {
		d, err := readObject(tx, h.Hash)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ref, err)
		}
		d.Revision = h.Revision
		docs[ref] = d
	}
	return docs, nil
}

func readObject(tx *bolt.Tx, hash string) (*spec.Document, error) {
	text := tx.Bucket(bucketObjects).Get([]byte(hash))
	if text == nil {
		return nil, fmt.Errorf("document %s: %w", hash, model.ErrNotFound)
	}
	d, err := spec.ParseStored(text)
	if err != nil {
		return nil, fmt.Errorf("document %s: %w; it was accepted by another version of this program: run that one, or go back to a backup in backups/", hash, err)
	}
	return d, nil
}

// State returns the newest revision.
func (s *Store) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Changed returns a channel that is closed when State moves on.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Answered returns the service keys that ever had an authoritative answer.
func (s *Store) Answered() map[model.ServiceKey]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.answered)
}

// MarkAnswered writes keys down that had an authoritative answer; those that
// stand there already cost nothing.
func (s *Store) MarkAnswered(keys []model.ServiceKey) error {
	s.mu.Lock()
	keys = slices.DeleteFunc(slices.Clone(keys), func(k model.ServiceKey) bool { return s.answered[k] })
	s.mu.Unlock()
	if len(keys) == 0 {
		return nil
	}
	s.write.Lock()
	defer s.write.Unlock()
	err := s.db.Update(func(tx *bolt.Tx) error {
		for _, k := range keys {
			text, err := json.Marshal(k)
			if err != nil {
				return err
			}
			if err := tx.Bucket(bucketAnswered).Put(text, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write answered services: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		s.answered[k] = true
	}
	return nil
}

// Imported returns which service had an imported upstream's name last.
func (s *Store) Imported() map[string]model.ServiceKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.imported)
}

// MarkImported writes down who has a name now.
func (s *Store) MarkImported(holders map[string]model.ServiceKey) error {
	if len(holders) == 0 {
		return nil
	}
	s.write.Lock()
	defer s.write.Unlock()
	if err := s.db.Update(func(tx *bolt.Tx) error {
		for name, k := range holders {
			text, err := json.Marshal(k)
			if err != nil {
				return err
			}
			if err := tx.Bucket(bucketImported).Put([]byte(name), text); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("write imported names: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.imported, holders)
	return nil
}

// head is the value in bucket heads.
type head struct {
	Hash     string `json:"hash"`
	Revision uint64 `json:"revision"`
}

func be64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func number(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
