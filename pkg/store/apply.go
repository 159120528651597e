package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Edit sets a document, or deletes it where Document is nil.
type Edit struct {
	Ref      spec.Ref
	Document *spec.Document
	// Match is the revision that the document must have now; nil is any, 0 is
	// "must not exist".
	Match *uint64
	// Exists wants the document to be there, at any revision.
	Exists bool
}

// Apply is a set of edits that are made at once.
type Apply struct {
	Edits   []Edit
	Author  string
	Message string
	// Expect is the Spec revision that the edits were made against; nil is any.
	Expect *uint64
	// At is the revision of the whole store that the edits were made against; nil is
	// any.
	At *uint64
	// Check may refuse the outcome before it is written.
	Check func(before, after *spec.Spec) error
}

// Change is one document of a revision. From and To are hashes, empty where the
// document did not exist before or does not after.
type Change struct {
	Kind spec.Kind `json:"kind"`
	Name string    `json:"name"`
	From string    `json:"from,omitempty"`
	To   string    `json:"to,omitempty"`
}

func (c Change) ref() spec.Ref { return spec.Ref{Kind: c.Kind, Name: c.Name} }

// Revision is one apply.
type Revision struct {
	Number  uint64    `json:"revision"`
	Time    time.Time `json:"time"`
	Author  string    `json:"author"`
	Message string    `json:"message,omitempty"`
	Changes []Change  `json:"changes"`
	// Spec tells that more than services changed.
	Spec bool `json:"spec"`
}

// Result is what an apply did, or would do.
type Result struct {
	// Revision is 0 where nothing changed, and in a dry run.
	Revision uint64
	Changes  []Change
	Warnings []spec.Fault
	Before   *spec.Spec
	After    *spec.Spec
}

// MismatchError says that a document or the Spec moved on since it was read.
type MismatchError struct {
	What      string
	Want, Got uint64
	// New means that it was expected not to be there.
	New bool
}

func (e *MismatchError) Error() string {
	switch {
	case e.New:
		return fmt.Sprintf("%s exists already, at revision %d", e.What, e.Got)
	case e.Got == 0:
		return e.What + " does not exist; it was expected to"
	}
	return fmt.Sprintf("%s is at revision %d, %d was expected; read it again and repeat the change", e.What, e.Got, e.Want)
}

// Is makes errors.Is(err, model.ErrConflict) hold.
func (e *MismatchError) Is(target error) bool { return target == model.ErrConflict }

// Plan says what Apply would do, without doing it.
func (s *Store) Plan(a Apply) (Result, error) {
	r, _, err := s.plan(a)
	return r, err
}

// plan builds the outcome. Its caller holds write, or does not mind that the
// state moves on.
func (s *Store) plan(a Apply) (r Result, specChanged bool, err error) {
	state := s.State()
	before := state.Spec
	if a.Expect != nil && *a.Expect != before.Revision {
		return r, false, &MismatchError{What: "the Spec", Want: *a.Expect, Got: before.Revision}
	}
	if a.At != nil && *a.At != state.Revision {
		return r, false, &MismatchError{What: "the store", Want: *a.At, Got: state.Revision}
	}
	touched := map[spec.Ref]bool{}
	var set []*spec.Document
	var gone []spec.Ref
	var faults spec.Faults
	for _, e := range a.Edits {
		if touched[e.Ref] {
			faults = append(faults, spec.Fault{Document: e.Ref.String(), Message: "stands twice in one apply"})
			continue
		}
		touched[e.Ref] = true
		was := before.Document(e.Ref.Kind, e.Ref.Name)
		if err := checkMatch(e, was); err != nil {
			return r, false, err
		}
		switch {
		case e.Document == nil && was == nil:
			return r, false, fmt.Errorf("%s: %w", e.Ref, model.ErrNotFound)
		case e.Document == nil:
			gone = append(gone, e.Ref)
		case was == nil || was.Hash() != e.Document.Hash():
			d := *e.Document
			d.Revision = state.Revision + 1
			set = append(set, &d)
		default:
			continue
		}
		c := Change{Kind: e.Ref.Kind, Name: e.Ref.Name, From: hash(was), To: hash(e.Document)}
		r.Changes = append(r.Changes, c)
		specChanged = specChanged || !spec.OnlyServices(was, e.Document)
	}
	if len(faults) > 0 {
		return r, false, faults
	}
	slices.SortFunc(r.Changes, func(a, b Change) int { return spec.CompareRefs(a.ref(), b.ref()) })
	specRevision := before.Revision
	if specChanged {
		specRevision = state.Revision + 1
	}
	after := before.With(specRevision, set, gone)
	warnings, linked := after.Check()
	if len(linked) > 0 {
		return r, false, linked
	}
	r.Warnings, r.Before, r.After = warnings, before, after
	if a.Check != nil {
		if err := a.Check(before, after); err != nil {
			return r, false, err
		}
	}
	return r, specChanged, nil
}

// hash is that of a document, "" where there is none.
func hash(d *spec.Document) string {
	if d == nil {
		return ""
	}
	return d.Hash()
}

func checkMatch(e Edit, now *spec.Document) error {
	got := uint64(0)
	if now != nil {
		got = now.Revision
	}
	if e.Exists && now == nil {
		return &MismatchError{What: e.Ref.String(), Want: 1}
	}
	if e.Match == nil {
		return nil
	}
	if got != *e.Match {
		return &MismatchError{What: e.Ref.String(), Want: *e.Match, Got: got, New: *e.Match == 0}
	}
	return nil
}

// Apply makes the edits in one transaction and one revision. Faults of the
// documents come back as spec.Faults, a moved revision as *MismatchError. An
// apply that changes nothing makes no revision.
func (s *Store) Apply(ctx context.Context, a Apply) (Result, error) {
	s.write.Lock()
	defer s.write.Unlock()
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	r, specChanged, err := s.plan(a)
	if err != nil || len(r.Changes) == 0 {
		return r, err
	}
	r.Revision = s.State().Revision + 1
	rev := Revision{Number: r.Revision, Time: s.cfg.Now().UTC(), Author: a.Author, Message: a.Message, Changes: r.Changes, Spec: specChanged}
	if err := s.db.Update(func(tx *bolt.Tx) error { return write(tx, rev, r.After) }); err != nil {
		return Result{}, fmt.Errorf("write revision %d: %w", r.Revision, err)
	}
	var stored []*spec.Document
	for _, c := range r.Changes {
		if d := r.After.Document(c.Kind, c.Name); d != nil {
			stored = append(stored, d.Stored(r.Revision))
		}
	}
	if r.Revision%pruneEvery == 0 {
		if err := s.prune(); err != nil { // the revision itself is written
			s.cfg.Logger.Error("history not pruned", "err", err)
		}
	}
	s.setState(r.Revision, r.After.With(r.After.Revision, stored, nil))
	return r, nil
}

func write(tx *bolt.Tx, rev Revision, sp *spec.Spec) error {
	for _, c := range rev.Changes {
		ref := c.ref()
		key := []byte(ref.String())
		if c.To == "" {
			if err := tx.Bucket(bucketHeads).Delete(key); err != nil {
				return err
			}
			continue
		}
		value, err := json.Marshal(head{Hash: c.To, Revision: rev.Number})
		if err != nil {
			return err
		}
		if err := tx.Bucket(bucketObjects).Put([]byte(c.To), sp.Document(c.Kind, c.Name).Written); err != nil {
			return err
		}
		if err := tx.Bucket(bucketHeads).Put(key, value); err != nil {
			return err
		}
	}
	value, err := json.Marshal(rev)
	if err != nil {
		return err
	}
	if err := tx.Bucket(bucketRevisions).Put(be64(rev.Number), value); err != nil {
		return err
	}
	if err := tx.Bucket(bucketMeta).Put(keySpecRevision, be64(sp.Revision)); err != nil {
		return err
	}
	return tx.Bucket(bucketMeta).Put(keyHead, be64(rev.Number))
}
