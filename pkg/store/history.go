package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Revisions lists up to limit revisions, newest first, starting below before (0
// is the newest), and the total that is kept.
func (s *Store) Revisions(before uint64, limit int) (out []Revision, total int, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketRevisions)
		total = b.Stats().KeyN
		c := b.Cursor()
		var k, v []byte
		if before == 0 {
			k, v = c.Last()
		} else {
			c.Seek(be64(before))
			k, v = c.Prev()
		}
		for ; k != nil && len(out) < limit; k, v = c.Prev() {
			var r Revision
			if err := json.Unmarshal(v, &r); err != nil {
				return fmt.Errorf("revision %d: %w", number(k), err)
			}
			out = append(out, r)
		}
		return nil
	})
	return out, total, err
}

// Revision reads one revision.
func (s *Store) Revision(n uint64) (r Revision, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		r, err = readRevision(tx, n)
		return err
	})
	return r, err
}

func readRevision(tx *bolt.Tx, n uint64) (r Revision, err error) {
	v := tx.Bucket(bucketRevisions).Get(be64(n))
	if v == nil {
		return r, notKept(tx, n)
	}
	return r, json.Unmarshal(v, &r)
}

// At returns the documents as they stood after revision n; 0 is before the
// first.
func (s *Store) At(n uint64) (docs map[spec.Ref]*spec.Document, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketRevisions).Cursor()
		oldest, _ := c.First()
		if n > 0 && tx.Bucket(bucketRevisions).Get(be64(n)) == nil || n == 0 && oldest != nil && number(oldest) > 1 {
			return notKept(tx, n)
		}
		at, err := heads(tx)
		if err != nil {
			return err
		}
		for k, v := c.Last(); k != nil && number(k) > n; k, v = c.Prev() {
			var r Revision
			if err := json.Unmarshal(v, &r); err != nil {
				return fmt.Errorf("revision %d: %w", number(k), err)
			}
			undo(r, at)
		}
		docs, err = readAll(tx, at)
		return err
	})
	return docs, err
}

// Difference is one document before and after a revision; nil where it did not exist.
type Difference struct {
	Ref           spec.Ref
	Before, After *spec.Document
}

// Differences reads what a revision changed, of the documents that are wanted.
func (s *Store) Differences(r Revision, wanted func(spec.Ref) bool) (out []Difference, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		for _, c := range r.Changes {
			if !wanted(c.ref()) {
				continue
			}
			e := Difference{Ref: c.ref()}
			for hash, to := range map[string]**spec.Document{c.From: &e.Before, c.To: &e.After} {
				if hash == "" {
					continue
				}
				if *to, err = readObject(tx, hash); err != nil {
					return err
				}
			}
			out = append(out, e)
		}
		return nil
	})
	return out, err
}

// notKept says why a revision cannot be read.
func notKept(tx *bolt.Tx, n uint64) error {
	if newest := number(tx.Bucket(bucketMeta).Get(keyHead)); n > newest {
		return fmt.Errorf("revision %d: %w; the newest is %d", n, model.ErrNotFound, newest)
	}
	return fmt.Errorf("revision %d: %w; it is not kept any more", n, model.ErrNotFound)
}

// undo takes one revision's changes back.
func undo(r Revision, at map[spec.Ref]head) {
	for _, c := range r.Changes {
		if c.From == "" {
			delete(at, c.ref())
			continue
		}
		at[c.ref()] = head{Hash: c.From}
	}
}

// Before is the newest kept revision before n; 0 where n is the first that there
// ever was. The error is model.ErrNotFound where older ones are not kept any more.
func (s *Store) Before(n uint64) (before uint64, err error) {
	return before, s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketRevisions).Cursor()
		c.Seek(be64(n))
		k, _ := c.Prev()
		if k == nil && n > 1 {
			return fmt.Errorf("the revision before %d: %w; it is not kept any more", n, model.ErrNotFound)
		}
		before = number(k)
		return nil
	})
}

// Upstreams returns every form of every Upstream that a kept revision has,
// newest first, for finding an older generation's definition. A form that cannot be
// read is left out, and logged.
func (s *Store) Upstreams() (out []*spec.Document, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		seen := map[string]bool{"": true}
		c := tx.Bucket(bucketRevisions).Cursor()
		for k, v := c.Last(); k != nil; k, v = c.Prev() {
			var r Revision
			if err := json.Unmarshal(v, &r); err != nil {
				return fmt.Errorf("revision %d: %w", number(k), err)
			}
			for _, ch := range r.Changes {
				for _, hash := range []string{ch.To, ch.From} { // what made From may not be kept
					if ch.Kind != spec.KindUpstream || seen[hash] {
						continue
					}
					seen[hash] = true
					d, err := readObject(tx, hash)
					switch {
					case err == nil:
						out = append(out, d)
					case !errors.Is(err, model.ErrNotFound): // the oldest kept revision's From is swept
						s.cfg.Logger.Error("a form of an upstream cannot be read", "revision", r.Number, "name", ch.Name, "err", err)
					}
				}
			}
		}
		return nil
	})
	return out, err
}

// carryServices keeps today's endpoints in the documents that are restored, whichever
// of the two forms declares a service then and now: a Service, or an Upstream with
// endpoints. What is referred to and gone comes back as it was, and is added to back.
func carryServices(want, then, now map[spec.Ref]*spec.Document, back *[]spec.Ref) {
	for ref, d := range want {
		if ref.Kind != spec.KindUpstream || !d.DeclaresService() {
			continue
		}
		service := spec.Ref{Kind: spec.KindService, Name: ref.Name}
		if want[service] != nil { // it was moved out of the upstream since
			want[ref] = spec.WithServicesOf(d, want[service])
			delete(want, service)
			continue
		}
		want[ref] = spec.WithServicesOf(d, now[ref])
	}
	for _, ref := range spec.LocalServiceRefs(slices.Collect(maps.Values(want))) {
		if want[ref] != nil || then[ref] == nil {
			continue
		}
		want[ref] = then[ref]
		if short := now[spec.Ref{Kind: spec.KindUpstream, Name: ref.Name}]; short.DeclaresService() { // it was moved into the upstream since
			want[ref] = spec.WithServicesOf(then[ref], short)
			continue
		}
		*back = append(*back, ref)
	}
}

// Restoring is what brings revision n back, as the store is now: it is refused once
// the store has moved on. Today's services stay unless services is set; a service that
// the restored documents refer to and that is gone comes back, and is listed in back.
func (s *Store) Restoring(n uint64, services bool) (a Apply, back []spec.Ref, err error) {
	then, err := s.At(n)
	if err != nil {
		return a, nil, err
	}
	state := s.State()
	at, now := state.Revision, map[spec.Ref]*spec.Document{}
	for _, d := range state.Spec.Documents("") {
		now[d.Ref] = d
	}
	want := map[spec.Ref]*spec.Document{}
	for ref, d := range then {
		if ref.Kind != spec.KindService || services {
			want[ref] = d
		}
	}
	if !services {
		for ref, d := range now {
			if ref.Kind == spec.KindService {
				want[ref] = d
			}
		}
		carryServices(want, then, now, &back)
	}
	for ref := range now {
		if want[ref] == nil {
			a.Edits = append(a.Edits, Edit{Ref: ref})
		}
	}
	for ref, d := range want {
		if now[ref] == nil || now[ref].Hash() != d.Hash() {
			a.Edits = append(a.Edits, Edit{Ref: ref, Document: d})
		}
	}
	slices.SortFunc(a.Edits, func(a, b Edit) int { return spec.CompareRefs(a.Ref, b.Ref) })
	slices.SortFunc(back, spec.CompareRefs)
	a.At = &at
	return a, back, nil
}
