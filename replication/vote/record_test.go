package vote

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// What bbolt's checks cannot see, the records' own do.
func TestRecordThatIsLostOrForeignIsFound(t *testing.T) {
	for name, change := range map[string]func(*bbolt.Bucket) error{
		"a record is lost": func(b *bbolt.Bucket) error { return b.Delete([]byte(recordKey(3, CurrentTerm))) },
		"a record comes from elsewhere": func(b *bbolt.Bucket) error {
			return b.Put([]byte(recordKey(4, CurrentTerm)), b.Get([]byte(recordKey(3, CurrentTerm))))
		},
		"an older record is back": func(b *bbolt.Bucket) error {
			key := recordKey(3, CurrentTerm)
			return b.Put([]byte(key), encodeRecord(key, make([]byte, 8)))
		},
		"the sum is lost": func(b *bbolt.Bucket) error { return b.Delete([]byte(recordKey(sumGroup, sumName))) },
		"a key is short":  func(b *bbolt.Bucket) error { return b.Put([]byte("short"), nil) },
		"a bucket in the bucket": func(b *bbolt.Bucket) error {
			_, err := b.CreateBucket([]byte("bucket in it"))
			return err
		},
		"another bucket beside it": func(b *bbolt.Bucket) error {
			_, err := b.Tx().CreateBucket([]byte("another"))
			return err
		},
		"the bucket is lost": func(b *bbolt.Bucket) error { return b.Tx().DeleteBucket(bucketName) },
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := filled(t, 5)
			path := filepath.Join(t.TempDir(), "stable.db")
			must(t, os.WriteFile(path, p, 0o644))
			db, err := openBolt(path)
			must(t, err)
			must(t, db.Update(func(tx *bbolt.Tx) error { return change(tx.Bucket(bucketName)) }))
			must(t, db.Close())
			if _, err := Open(path, onDisk); !errors.Is(err, ErrDamaged) {
				t.Errorf("%v", err)
			}
		})
	}
}
