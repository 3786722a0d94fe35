package memory_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/subject"
	"github.com/rationhq/ration/subject/memory"
	"github.com/rationhq/ration/subject/subjecttest"
)

var by = subject.By{Actor: "root", Reason: "a test"}

func set(t testing.TB, d *memory.Directory, of subject.Ref, tier string) {
	t.Helper()
	_, err := d.Change(context.Background(), of, by, func(s *subject.Subject) error {
		s.Tier = tier
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// content is all that a directory says.
type content struct {
	Subjects []subject.Subject
	Rows     []subject.Row
	Owners   []subject.Ref // of the API keys
}

func contentOf(t testing.TB, d *memory.Directory) (c content) {
	t.Helper()
	var err error
	if c.Subjects, err = d.List(context.Background(), "llm", "", subject.MaxPage); err != nil {
		t.Fatal(err)
	}
	if c.Rows, err = d.Audit(context.Background(), subject.Ref{}, "", subject.MaxPage); err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Subjects {
		for _, k := range s.APIKeys {
			owner, _, err := d.FindByKey(context.Background(), k.Hash)
			if err != nil {
				t.Fatal(err)
			}
			c.Owners = append(c.Owners, owner.Ref())
		}
	}
	return c
}

// filled makes a directory with some of everything in it, and returns where, and what there is.
func filled(t testing.TB) (dir string, what content) {
	t.Helper()
	dir = t.TempDir()
	d := openDir(t, dir)
	for i := range 40 {
		of := subject.Ref{Domain: "llm", Name: fmt.Sprint("user ", i)}
		full := subjecttest.Full(of)
		if _, err := d.Change(context.Background(), of, by, func(s *subject.Subject) error {
			*s = full
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			if _, err := d.Delete(context.Background(), of, by); err != nil {
				t.Fatal(err)
			}
		}
	}
	set(t, d, subject.Ref{Domain: "llm", Name: strings.Repeat("n", subject.MaxName)}, "pro")
	what = contentOf(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, what
}

// What was there when it was closed is there when it is opened again: subjects, revisions, API keys and the audit.
func TestReopened(t *testing.T) {
	dir, want := filled(t)
	d := openDir(t, dir)
	if got := contentOf(t, d); !reflect.DeepEqual(got, want) {
		t.Errorf("it is\n%+v\nwant\n%+v", got, want)
	}
	if len(want.Subjects) != 27 || len(want.Owners) != 52 || len(want.Rows) != 40+14+1 {
		t.Errorf("there are %d subjects, %d API keys and %d rows", len(want.Subjects), len(want.Owners), len(want.Rows))
	}
	gone := subject.Ref{Domain: "llm", Name: "user 0"}
	set(t, d, gone, "pro")
	if s, _, err := d.Find(t.Context(), gone); err != nil || s.Revision <= 2 {
		t.Errorf("made anew it has revision %d, %v, want one above that at which it was deleted", s.Revision, err)
	}
}

// The audit is bounded on disk, too.
func TestAuditOnDiskIsBounded(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	of := subject.Ref{Domain: "llm", Name: "alice"}
	for i := range subject.AuditRows + 20 {
		set(t, d, of, fmt.Sprint(i))
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	records := 0
	inFile(t, dir, func(tx *bbolt.Tx) error {
		records = tx.Bucket([]byte("records")).Stats().KeyN
		return nil
	})
	if records != subject.AuditRows+1 {
		t.Errorf("%d records are on disk, want the subject and %d rows", records, subject.AuditRows)
	}
}

func inFile(t testing.TB, dir string, do func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, memory.FileName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(do), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// record is a value of the file with its checksum.
func record(key, value string) []byte {
	sum := crc32.Checksum([]byte(key+value), crc32.MakeTable(crc32.Castagnoli))
	return binary.LittleEndian.AppendUint32([]byte(value), sum)
}

// A file that is not in order is refused, with a reason and a cure, and left as it is.
func TestDamaged(t *testing.T) {
	file := func(dir string) string { return filepath.Join(dir, memory.FileName) }
	write := func(t *testing.T, dir string, data []byte) {
		if err := os.WriteFile(file(dir), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	records := func(do func(part *bbolt.Bucket) error) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			inFile(t, dir, func(tx *bbolt.Tx) error { return do(tx.Bucket([]byte("records"))) })
		}
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir string)
		wants  string
	}{
		"empty":          {func(t *testing.T, dir string) { write(t, dir, nil) }, "it is empty"},
		"something else": {func(t *testing.T, dir string) { write(t, dir, []byte(strings.Repeat("hello", 9000))) }, "damaged, or is not ration's"},
		"the end is torn": {func(t *testing.T, dir string) {
			info, err := os.Stat(file(dir))
			if err == nil {
				err = os.Truncate(file(dir), info.Size()/2)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, "damaged"},
		"a record is missing": {records(func(part *bbolt.Bucket) error {
			key, _ := part.Cursor().First()
			return part.Delete(key)
		}), "records, and should have"},
		"a record too many": {records(func(part *bbolt.Bucket) error {
			return part.Put([]byte("s3:llmeve"), record("s3:llmeve", `1 {"tier":"premium"}`))
		}), "records, and should have"},
		"a record that was changed": {records(func(part *bbolt.Bucket) error {
			return part.Put([]byte("s3:llmuser 1"), append([]byte(`9 {"tier":"premium"}`), 0, 0, 0, 0))
		}), "its checksum is wrong"},
		"a record of no kind": {records(func(part *bbolt.Bucket) error {
			return part.Put([]byte("x"), record("x", "y"))
		}), "makes no sense"},
		"a newer format": {func(t *testing.T, dir string) {
			inFile(t, dir, func(tx *bbolt.Tx) error {
				return tx.Bucket([]byte("meta")).Put([]byte("format"), record("format", "2"))
			})
		}, "another version of ration: it has format \"2\", and this one knows 1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := filled(t)
			c.damage(t, dir)
			before, err := os.ReadFile(file(dir))
			if err != nil {
				t.Fatal(err)
			}
			d, err := memory.Open(dir, memory.Options{})
			if err == nil {
				_ = d.Close()
				t.Fatal("it was opened")
			}
			for _, wants := range []string{c.wants, file(dir), "move"} {
				if !strings.Contains(err.Error(), wants) {
					t.Errorf("the error is %v, want one that says %q", err, wants)
				}
			}
			if after, err := os.ReadFile(file(dir)); err != nil || string(after) != string(before) {
				t.Errorf("the file is another one now, %v", err)
			}
		})
	}
}

// One wrong byte anywhere in the file is noticed, or does not matter.
func TestFlippedByte(t *testing.T) {
	dir, want := filled(t)
	good, err := os.ReadFile(filepath.Join(dir, memory.FileName))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	refused := 0
	const flips = 300
	for range flips {
		bad := append([]byte(nil), good...)
		at := r.IntN(len(bad))
		bad[at] ^= 1 << r.IntN(8)
		copied := t.TempDir()
		if err := os.WriteFile(filepath.Join(copied, memory.FileName), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := memory.Open(copied, memory.Options{})
		if err != nil {
			refused++
			continue
		}
		if got := contentOf(t, d); !reflect.DeepEqual(got, want) {
			t.Errorf("with byte %d flipped it was opened, and is another", at)
		}
		_ = d.Close()
	}
	t.Logf("%d of %d were refused, the others are what they were", refused, flips)
	if refused == 0 {
		t.Error("none was refused")
	}
}

// One process at a time.
func TestOpenedTwice(t *testing.T) {
	dir, _ := filled(t)
	openDir(t, dir)
	if d, err := memory.Open(dir, memory.Options{}); err == nil || !strings.Contains(err.Error(), "another process has") {
		t.Errorf("opened a second time: %v, %v", d, err)
	}
}

// A directory with the store's file, or with what a creation has left that was cut short, is taken.
func TestOpenBesideOthers(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"ration.db", memory.FileName + ".new-17"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set(t, openDir(t, dir), subject.Ref{Domain: "llm", Name: "alice"}, "pro")
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("there are %v, %v; want the store's file, and that of subjects", entries, err)
	}
}

// After Close everything is ErrUnavailable.
func TestClosed(t *testing.T) {
	d := openDir(t, t.TempDir())
	of := subject.Ref{Domain: "llm", Name: "alice"}
	set(t, d, of, "pro")
	for range 2 {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, _, found := d.Find(t.Context(), of)
	_, _, byKey := d.FindByKey(t.Context(), subjecttest.NewKey())
	_, changed := d.Change(t.Context(), of, by, func(s *subject.Subject) error { s.Tier = "x"; return nil })
	_, deleted := d.Delete(t.Context(), of, by)
	_, listed := d.List(t.Context(), "llm", "", 1)
	_, audited := d.Audit(t.Context(), of, "", 1)
	for i, err := range []error{found, byKey, changed, deleted, listed, audited} {
		if !errors.Is(err, subject.ErrUnavailable) {
			t.Errorf("call %d: %v, want ErrUnavailable", i, err)
		}
	}
}

// A clock that steps back does not mix up the audit.
func TestAuditWhenTheClockStepsBack(t *testing.T) {
	now := int64(1_763_000_000_000_000)
	d := memory.New(memory.Options{Clock: func() limit.Micros { now -= 3_600_000_000; return limit.Micros(now) }})
	of := subject.Ref{Domain: "llm", Name: "alice"}
	for i := range 5 {
		set(t, d, of, fmt.Sprint(i))
	}
	rows, err := d.Audit(t.Context(), of, "", 10)
	if err != nil || len(rows) != 5 {
		t.Fatal(rows, err)
	}
	for i, r := range rows {
		if r.Revision != uint64(5-i) {
			t.Errorf("row %d is of revision %d", i, r.Revision)
		}
	}
}

func sumOf(record []byte) uint32 { return binary.LittleEndian.Uint32(record[len(record)-4:]) }

// tallyOf is the entry of the file that says what records there are.
func tallyOf(count, sum uint64) []byte {
	var b []byte
	for _, v := range []uint64{1, count, sum} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return record("tally", string(b))
}
