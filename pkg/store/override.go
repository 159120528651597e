package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

var bucketOverrides = []byte("overrides")

func overrideKey(upstream, endpoint string) []byte { return []byte(upstream + "/" + endpoint) }

func readOverrides(tx *bolt.Tx) (out []model.Override, err error) {
	return out, tx.Bucket(bucketOverrides).ForEach(func(k, v []byte) error {
		var o model.Override
		if err := json.Unmarshal(v, &o); err != nil {
			return fmt.Errorf("override %q: %w", k, err)
		}
		out = append(out, o)
		return nil
	})
}

// Overrides lists those that are in force, by upstream and endpoint. The slice is
// not to be changed; the same one is returned until something changed.
func (s *Store) Overrides() []model.Override {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.overrides
}

// SetOverride writes an override, in place of one for the same endpoint. It makes no
// revision.
func (s *Store) SetOverride(o model.Override) error {
	value, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return s.changeOverrides(func(b *bolt.Bucket) error { return b.Put(overrideKey(o.Upstream, o.Endpoint), value) })
}

// EndOverride takes an override away, and returns it. The error is model.ErrNotFound
// where there is none.
func (s *Store) EndOverride(upstream, endpoint string) (model.Override, error) {
	return s.endOverride(upstream, endpoint, func(model.Override) bool { return true })
}

// endOverride takes one away if it is still one that is meant: it may have been set
// anew since it was looked at.
func (s *Store) endOverride(upstream, endpoint string, meant func(model.Override) bool) (o model.Override, err error) {
	err = s.changeOverrides(func(b *bolt.Bucket) error {
		v := b.Get(overrideKey(upstream, endpoint))
		if v != nil {
			if err := json.Unmarshal(v, &o); err != nil {
				return err
			}
		}
		if v == nil || !meant(o) {
			return fmt.Errorf("an override for endpoint %q of upstream %q: %w", endpoint, upstream, model.ErrNotFound)
		}
		return b.Delete(overrideKey(upstream, endpoint))
	})
	return o, err
}

func (s *Store) changeOverrides(change func(*bolt.Bucket) error) error {
	s.write.Lock()
	defer s.write.Unlock()
	var all []model.Override
	err := s.db.Update(func(tx *bolt.Tx) (err error) {
		if err := change(tx.Bucket(bucketOverrides)); err != nil {
			return err
		}
		all, err = readOverrides(tx)
		return err
	})
	if err != nil {
		return fmt.Errorf("overrides: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.overrides = all
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// withoutOverride takes one out of force that could not be taken off the disk.
func (s *Store) withoutOverride(o model.Override) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.overrides, o); i >= 0 {
		s.overrides = slices.Delete(slices.Clone(s.overrides), i, i+1)
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// ExpireOverrides ends overrides when their time is over, until ctx ends. ended is
// told of each.
func (s *Store) ExpireOverrides(ctx context.Context, ended func(model.Override)) error {
	var left []model.Override // over, and still on the disk
	for {
		changed := s.Changed()
		next := s.cfg.Now().Add(time.Hour) // a clock that was set is noticed by then
		all := slices.Concat(s.Overrides(), left)
		left = nil
		for _, o := range all {
			switch {
			case o.Ended(s.cfg.Now()):
				_, err := s.endOverride(o.Upstream, o.Endpoint, func(now model.Override) bool { return now == o })
				switch {
				case err == nil:
					ended(o)
				case !errors.Is(err, model.ErrNotFound): // it is over all the same; the next try cleans the disk
					s.withoutOverride(o)
					left = append(left, o)
					s.cfg.Logger.Error("override not ended", "upstream", o.Upstream, "endpoint", o.Endpoint, "err", err)
					next = s.cfg.Now().Add(5 * time.Second)
				}
			case !o.Until.IsZero() && o.Until.Before(next):
				next = o.Until
			}
		}
		timer := time.NewTimer(max(time.Millisecond, next.Sub(s.cfg.Now())))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}
