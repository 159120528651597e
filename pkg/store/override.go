package store

import (
	"context"
	"encoding/json"
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
	for _, o := range s.Overrides() {
		if o.Upstream == upstream && o.Endpoint == endpoint {
			return o, s.changeOverrides(func(b *bolt.Bucket) error { return b.Delete(overrideKey(upstream, endpoint)) })
		}
	}
	return model.Override{}, fmt.Errorf("an override for endpoint %q of upstream %q: %w", endpoint, upstream, model.ErrNotFound)
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
		return fmt.Errorf("write override: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.overrides = all
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// ExpireOverrides ends overrides when their time is over, until ctx ends. ended is
// told of each.
func (s *Store) ExpireOverrides(ctx context.Context, ended func(model.Override)) error {
	for {
		changed := s.Changed()
		var next time.Time
		for _, o := range slices.Clone(s.Overrides()) {
			switch {
			case o.Ended(s.cfg.Now()):
				if _, err := s.EndOverride(o.Upstream, o.Endpoint); err != nil {
					s.cfg.Logger.Error("override not ended", "upstream", o.Upstream, "endpoint", o.Endpoint, "err", err)
					continue
				}
				ended(o)
			case !o.Until.IsZero() && (next.IsZero() || o.Until.Before(next)):
				next = o.Until
			}
		}
		timer := time.NewTimer(time.Hour)
		if !next.IsZero() {
			timer.Reset(max(time.Millisecond, next.Sub(s.cfg.Now())))
		}
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
