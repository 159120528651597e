package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
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
	r, _, _, err := s.plan(a)
	return r, err
}

// plan builds the outcome. Its caller holds write, or does not mind that the
// state moves on.
func (s *Store) plan(a Apply) (r Result, docs map[spec.Ref]*spec.Document, specChanged bool, err error) {
	s.mu.Lock()
	state, before := s.state, s.docs
	s.mu.Unlock()
	if a.Expect != nil && *a.Expect != state.Spec.Revision {
		return r, nil, false, &MismatchError{What: "the Spec", Want: *a.Expect, Got: state.Spec.Revision}
	}
	if a.At != nil && *a.At != state.Revision {
		return r, nil, false, &MismatchError{What: "the store", Want: *a.At, Got: state.Revision}
	}
	docs = maps.Clone(before)
	touched := map[spec.Ref]bool{}
	var faults spec.Faults
	for _, e := range a.Edits {
		if touched[e.Ref] {
			faults = append(faults, spec.Fault{Document: e.Ref.String(), Message: "stands twice in one apply"})
			continue
		}
		touched[e.Ref] = true
		if err := checkMatch(e, before[e.Ref]); err != nil {
			return r, nil, false, err
		}
		switch {
		case e.Document == nil && before[e.Ref] == nil:
			return r, nil, false, fmt.Errorf("%s: %w", e.Ref, model.ErrNotFound)
		case e.Document == nil:
			delete(docs, e.Ref)
		case before[e.Ref] == nil || before[e.Ref].Hash() != e.Document.Hash():
			d := *e.Document
			d.Revision = state.Revision + 1
			docs[e.Ref] = &d
		}
	}
	if len(faults) > 0 {
		return r, nil, false, faults
	}
	r.Changes, specChanged = changes(before, docs)
	specRevision := state.Spec.Revision
	if specChanged {
		specRevision = state.Revision + 1
	}
	after, warnings, linked := spec.New(specRevision, slices.Collect(maps.Values(docs)))
	if len(linked) > 0 {
		return r, nil, false, linked
	}
	r.Warnings, r.Before, r.After = warnings, state.Spec, after
	if a.Check != nil {
		if err := a.Check(state.Spec, after); err != nil {
			return r, nil, false, err
		}
	}
	return r, docs, specChanged, nil
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

// changes lists what differs, sorted, and tells whether it is more than
// services.
func changes(before, after map[spec.Ref]*spec.Document) (out []Change, specChanged bool) {
	hash := func(d *spec.Document) string {
		if d == nil {
			return ""
		}
		return d.Hash()
	}
	refs := slices.Collect(maps.Keys(before))
	for ref := range after {
		if before[ref] == nil {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, spec.CompareRefs)
	for _, ref := range refs {
		if before[ref] == after[ref] {
			continue
		}
		c := Change{Kind: ref.Kind, Name: ref.Name, From: hash(before[ref]), To: hash(after[ref])}
		if c.From == c.To {
			continue
		}
		out = append(out, c)
		specChanged = specChanged || !spec.OnlyServices(before[ref], after[ref])
	}
	return out, specChanged
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
	r, docs, specChanged, err := s.plan(a)
	if err != nil || len(r.Changes) == 0 {
		return r, err
	}
	r.Revision = s.State().Revision + 1
	rev := Revision{Number: r.Revision, Time: s.cfg.Now().UTC(), Author: a.Author, Message: a.Message, Changes: r.Changes, Spec: specChanged}
	if err := s.db.Update(func(tx *bolt.Tx) error { return write(tx, rev, docs, r.After.Revision) }); err != nil {
		return Result{}, fmt.Errorf("write revision %d: %w", r.Revision, err)
	}
	for _, c := range r.Changes {
		ref := spec.Ref{Kind: c.Kind, Name: c.Name}
		if d := docs[ref]; d != nil {
			docs[ref] = d.Stored(r.Revision)
		}
	}
	if r.Revision%pruneEvery == 0 {
		if err := s.prune(); err != nil { // the revision itself is written
			s.cfg.Logger.Error("history not pruned", "err", err)
		}
	}
	return r, s.setState(r.Revision, r.After.Revision, docs)
}

func write(tx *bolt.Tx, rev Revision, docs map[spec.Ref]*spec.Document, specRevision uint64) error {
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
		if err := tx.Bucket(bucketObjects).Put([]byte(c.To), docs[ref].Written); err != nil {
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
	if err := tx.Bucket(bucketMeta).Put(keySpecRevision, be64(specRevision)); err != nil {
		return err
	}
	return tx.Bucket(bucketMeta).Put(keyHead, be64(rev.Number))
}
