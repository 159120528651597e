package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// History is how much of it is kept. Revisions that changed only services are
// counted apart, so that endpoints that change all day push no document's history
// out. The present revision is always kept.
type History struct {
	// Keep is the most of each kind. Default 1000.
	Keep int
	// MaxAge is the longest that one is kept. Default 90 days.
	MaxAge time.Duration
}

const (
	defaultKeep   = 1000
	defaultMaxAge = 90 * 24 * time.Hour
	// pruneEvery bounds how often the whole history is looked at.
	pruneEvery = 64
)

// prune takes out revisions that are not kept any more. One that has a kept one
// before it is folded into the next newer: undoing that one then leads past both, and
// every kept revision can still be restored exactly.
func (s *Store) prune() error {
	return s.db.Update(func(tx *bolt.Tx) error {
		all, err := revisions(tx)
		if err != nil {
			return err
		}
		kept := s.kept(all)
		if len(kept) == len(all) {
			return nil
		}
		b := tx.Bucket(bucketRevisions)
		var folded []Revision // older first, to be folded into the next that is kept
		first := true
		for _, r := range all {
			if !kept[r.Number] {
				if !first {
					folded = append(folded, r)
				}
				if err := b.Delete(be64(r.Number)); err != nil {
					return err
				}
				continue
			}
			first = false
			if len(folded) > 0 {
				value, err := json.Marshal(fold(append(folded, r)))
				if err != nil {
					return err
				}
				if err := b.Put(be64(r.Number), value); err != nil {
					return err
				}
				folded = nil
			}
		}
		return sweep(tx)
	})
}

// revisions lists all, oldest first.
func revisions(tx *bolt.Tx) (out []Revision, err error) {
	return out, tx.Bucket(bucketRevisions).ForEach(func(k, v []byte) error {
		var r Revision
		if err := json.Unmarshal(v, &r); err != nil {
			return fmt.Errorf("revision %d: %w", number(k), err)
		}
		out = append(out, r)
		return nil
	})
}

// kept tells by number which revisions stay.
func (s *Store) kept(all []Revision) map[uint64]bool {
	out := map[uint64]bool{}
	count := map[bool]int{}
	oldest := s.cfg.Now().Add(-s.cfg.History.MaxAge)
	for i, r := range slices.Backward(all) {
		count[r.Spec]++
		if i == len(all)-1 || count[r.Spec] <= s.cfg.History.Keep && r.Time.After(oldest) {
			out[r.Number] = true
		}
	}
	return out
}

// fold is the last of several revisions as if it had made the changes of all; of which
// kind it is, and counted as, stays its own.
func fold(rs []Revision) Revision {
	out := rs[len(rs)-1]
	at := map[spec.Ref]int{}
	var changes []Change
	for _, r := range rs {
		for _, c := range r.Changes {
			if i, ok := at[c.ref()]; ok {
				changes[i].To = c.To
				continue
			}
			at[c.ref()] = len(changes)
			changes = append(changes, c)
		}
	}
	out.Changes = slices.DeleteFunc(changes, func(c Change) bool { return c.From == c.To })
	return out
}

// sweep deletes the objects that neither a head nor a kept revision names.
func sweep(tx *bolt.Tx) error {
	named := map[string]bool{}
	current, err := heads(tx)
	if err != nil {
		return err
	}
	for _, h := range current {
		named[h.Hash] = true
	}
	all, err := revisions(tx)
	if err != nil {
		return err
	}
	for i, r := range all {
		for _, c := range r.Changes {
			named[c.To] = true
			if i > 0 { // before the oldest nothing is asked for
				named[c.From] = true
			}
		}
	}
	var gone [][]byte
	objects := tx.Bucket(bucketObjects)
	if err := objects.ForEach(func(k, _ []byte) error {
		if !named[string(k)] {
			gone = append(gone, bytes.Clone(k))
		}
		return nil
	}); err != nil {
		return err
	}
	for _, k := range gone {
		if err := objects.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
