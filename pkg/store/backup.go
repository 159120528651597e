package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

// Backup copies the store as it is at one moment into a file of the data directory,
// verifies the copy, and returns it open for reading with the revision that it has.
// The caller closes and removes it. Writes go on meanwhile: the copy is one read
// transaction, which ends before anybody reads the file.
func (s *Store) Backup(ctx context.Context) (file *os.File, revision uint64, err error) {
	out, err := os.CreateTemp(s.cfg.Dir, spoolPattern)
	if err != nil {
		return nil, 0, fmt.Errorf("spool the backup: %w; make room in %s", err, s.cfg.Dir)
	}
	fail := func(err error) (*os.File, uint64, error) {
		return nil, 0, errors.Join(err, out.Close(), os.Remove(out.Name()))
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		revision = number(tx.Bucket(bucketMeta).Get(keyHead))
		_, err := tx.WriteTo(out)
		return err
	})
	if err != nil {
		return fail(fmt.Errorf("spool the backup: %w", err))
	}
	if err := out.Sync(); err != nil {
		return fail(fmt.Errorf("spool the backup: %w", err))
	}
	if err := s.cfg.Verify(ctx, out.Name()); err != nil {
		return fail(fmt.Errorf("the backup cannot be trusted: %w", err))
	}
	if _, err := out.Seek(0, 0); err != nil {
		return fail(err)
	}
	return out, revision, nil
}

// spoolPattern are the files of backups under way; one that is left by a process
// that died is removed when the store is opened.
const spoolPattern = ".backup-*.db"

func removeSpools(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, spoolPattern))
	for _, f := range left {
		_ = os.Remove(f) // tried again at the next start
	}
}

// Load puts a backup into a data directory that has no store, after it was verified.
// No server may run on the directory.
func Load(ctx context.Context, cfg Config, from string) error {
	if cfg.Verify == nil {
		cfg.Verify = func(_ context.Context, path string) error { return VerifyFile(path) }
	}
	if _, err := os.Stat(from); err != nil {
		return err
	}
	if err := cfg.Verify(ctx, from); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	if err := makeDir(cfg.Dir); err != nil {
		return err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // released by the kernel in any case
	path := filepath.Join(cfg.Dir, FileName)
	if _, err := os.Stat(path); err == nil {
		return fmt.Errorf("%s has a store already; move %s away, or choose another with --data-dir", cfg.Dir, path)
	}
	if err := copyFile(from, path+".part"); err != nil {
		return errors.Join(err, os.Remove(path+".part"))
	}
	if err := cfg.Verify(ctx, path+".part"); err != nil { // read back: what lies there is what was meant
		return errors.Join(fmt.Errorf("the copy in %s: %w", cfg.Dir, err), os.Remove(path+".part"))
	}
	if err := os.Rename(path+".part", path); err != nil {
		return err
	}
	return syncDir(cfg.Dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
