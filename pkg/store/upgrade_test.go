package store

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// layout1 puts the store of an earlier program into a directory: seven documents in
// three revisions, as layout 1 has them.
func layout1(t *testing.T) (dir string, text []byte) {
	t.Helper()
	packed, err := os.Open("testdata/layout-1.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close() //nolint:errcheck // read only
	from, err := gzip.NewReader(packed)
	if err == nil {
		text, err = io.ReadAll(from)
	}
	dir = t.TempDir()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, FileName), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir, text
}

// TestUpgrade: what an earlier program wrote is read, its history with it, after a
// copy was laid aside; and it is written on.
func TestUpgrade(t *testing.T) {
	dir, before := layout1(t)
	s := open(t, dir)
	kept := backups(dir)
	if len(kept) != 1 {
		t.Fatalf("backups %v", kept)
	}
	if aside, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(aside, before) {
		t.Errorf("the copy laid aside is not what was there (%v)", err)
	}
	address := func(docs map[spec.Ref]*spec.Document) string {
		u, ok := docs[spec.Ref{Kind: spec.KindUpstream, Name: "catalog"}].Body.(*spec.Upstream)
		if !ok || len(u.Endpoints) != 2 {
			t.Fatal("no catalog")
		}
		return u.Endpoints[1].Address
	}
	if st := s.State(); st.Revision != 3 || len(st.Spec.Documents("")) != 7 {
		t.Errorf("revision %d, %d documents", st.Revision, len(st.Spec.Documents("")))
	}
	for n, want := range map[uint64]string{1: "127.0.0.1:10002", 2: "127.0.0.1:10004", 3: "127.0.0.1:10004"} {
		at, err := s.At(n)
		if err != nil {
			t.Fatal(err)
		}
		if got := address(at); got != want {
			t.Errorf("at revision %d green is at %s, want %s", n, got, want)
		}
	}
	all, total, err := s.Revisions(0, 10)
	if err != nil || total != 3 || all[0].Message != "web is v2" || all[2].Message != "first" {
		t.Errorf("history %v, %v", all, err)
	}
	restoring, _, err := s.Restoring(1, true)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Apply(t.Context(), restoring); err != nil || r.Revision != 4 {
		t.Fatalf("restore: %+v, %v", r, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if again := open(t, dir); again.State().Revision != 4 || address(documents(again)) != "127.0.0.1:10002" {
		t.Errorf("after another start: revision %d, green at %s", again.State().Revision, address(documents(again)))
	}
}

func documents(s *Store) map[spec.Ref]*spec.Document {
	out := map[spec.Ref]*spec.Document{}
	for _, d := range s.State().Spec.Documents("") {
		out[d.Ref] = d
	}
	return out
}

// TestDowngrade: what a newer program wrote is refused with the way out, and the file
// is left as it was, for the newer program to go on from.
func TestDowngrade(t *testing.T) {
	put := func(tx *bolt.Tx, ref, text string) error {
		sum := fmt.Sprintf("%064x", len(text))
		value, err := json.Marshal(head{Hash: sum, Revision: 3})
		if err != nil {
			return err
		}
		if err := tx.Bucket(bucketObjects).Put([]byte(sum), []byte(text)); err != nil {
			return err
		}
		return tx.Bucket(bucketHeads).Put([]byte(ref), value)
	}
	for _, c := range []struct {
		name, want string
		newer      func(tx *bolt.Tx) error
	}{
		{"a newer layout", "its layout is version 99, this program knows up to 1; run the newer program that wrote it", func(tx *bolt.Tx) error {
			return tx.Bucket(bucketMeta).Put(keySchema, be64(99))
		}},
		{"a field that is newer", "it was accepted by another version of this program: run that one", func(tx *bolt.Tx) error {
			return put(tx, "Upstream/newer", `{"kind":"Upstream","name":"newer","spec":{"endpoints":[],"newer":true}}`)
		}},
		{"a reference that was fine", "they were accepted by another version of this program: run that one, correct them there", func(tx *bolt.Tx) error {
			return put(tx, "Listener/newer", `{"kind":"Listener","name":"newer","spec":{"address":"127.0.0.1:80","routes":["nobody"]}}`)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, before := layout1(t)
			path := filepath.Join(dir, FileName)
			if err := backup(dir, path, time.Unix(0, 0)); err != nil {
				t.Fatal(err)
			}
			db, err := bolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Update(c.newer); err != nil {
				t.Fatal(err)
			}
			_ = db.Close()
			written, err := os.ReadFile(path)
			if err != nil || bytes.Equal(written, before) {
				t.Fatal("nothing newer was written", err)
			}
			for range backupsKept + 1 { // as whoever starts it over and over
				_, err = Open(t.Context(), config(dir))
			}
			if kept := backups(dir); len(kept) != 2 {
				t.Errorf("%v are kept, want the one from before and one of what is refused", kept)
			} else if aside, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(aside, before) {
				t.Errorf("the copy from before was pushed out (%v)", err)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v\nwant %s", err, c.want)
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, written) {
				t.Errorf("the refusal changed the file (%v)", err)
			}
			// back to the copy from before
			if err := os.WriteFile(path, before, 0o600); err != nil {
				t.Fatal(err)
			}
			if s := open(t, dir); s.State().Revision != 3 {
				t.Errorf("revision %d", s.State().Revision)
			}
		})
	}
}

// TestGone: a store that is gone while there are copies of it is not begun anew, over
// and over, until the copies are gone too.
func TestGone(t *testing.T) {
	dir, _ := layout1(t)
	path := filepath.Join(dir, FileName)
	_ = open(t, dir).Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for range backupsKept + 1 {
		if _, err := Open(t.Context(), config(dir)); err == nil || !strings.Contains(err.Error(), "cp "+backups(dir)[0]+" "+path) {
			t.Fatalf("got %v", err)
		}
	}
	if err := copyFile(backups(dir)[0], path); err != nil {
		t.Fatal(err)
	}
	if s := open(t, dir); s.State().Revision != 3 {
		t.Errorf("revision %d", s.State().Revision)
	}
}

// TestForeign: a file of another program is refused and left as it was.
func TestForeign(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("logs")); return err }); err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), config(filepath.Dir(path))); err == nil || !strings.Contains(err.Error(), `another program (it has a bucket "logs")`) {
		t.Errorf("got %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("it was changed (%v)", err)
	}
}
