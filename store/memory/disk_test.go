package memory_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/storetest"
)

// filled makes a directory with some of everything in it, and returns its file and what there is.
func filled(t *testing.T, clock *storetest.Clock) (file string, there content) {
	t.Helper()
	dir := t.TempDir()
	s := openDir(t, dir, memory.Options{Clock: clock.Now})
	for i := range 60 {
		step := &store.Step{Lease: &store.Lease{ID: id(i), Lasts: store.MaxLease}}
		for a := limit.FixedWindow; a <= limit.Concurrency; a++ {
			op := native(fmt.Sprint("owner ", i), a.String(), spec(a, 3600*limit.Second))
			op.Kind = store.Hold
			step.Ops = append(step.Ops, op)
		}
		told := warning(native(fmt.Sprint("owner ", i), "told of", spec(limit.CalendarWindow, 0)), 1)
		step.Ops = append(step.Ops, told)
		apply(t, s, step)
	}
	deliver(t, s, eventsOf(t, s).all[:30])
	long := native("", strings.Repeat("n", store.MaxBucketName), spec(limit.TokenBucket, 3600*limit.Second))
	long.Spec.Limit = 1
	longTold := warning(native("", strings.Repeat("t", store.MaxBucketName), spec(limit.CalendarWindow, 0)), 1)
	longTold.Label = []byte(strings.Repeat("l", store.MaxLabel))
	apply(t, s, &store.Step{Ops: []store.Op{long, longTold}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "ration.db"), contentOf(t, dir, clock)
}

// content is what filled has put into a directory.
type content struct {
	answers []store.Outcome
	events  told
}

// contentOf opens a directory and asks what filled has put there.
func contentOf(t *testing.T, dir string, clock *storetest.Clock) (there content) {
	t.Helper()
	s := openDir(t, dir, memory.Options{Clock: clock.Now})
	defer s.Close()
	for i := range 60 {
		step := &store.Step{Lease: &store.Lease{ID: id(i), Lasts: store.MaxLease}}
		for a := limit.FixedWindow; a <= limit.Concurrency; a++ {
			op := native(fmt.Sprint("owner ", i), a.String(), spec(a, 3600*limit.Second))
			op.Amount = 0
			step.Ops = append(step.Ops, op)
		}
		there.answers = append(there.answers, apply(t, s, step))
	}
	long := native("", strings.Repeat("n", store.MaxBucketName), spec(limit.TokenBucket, 3600*limit.Second))
	long.Spec.Limit, long.Amount = 1, 0
	there.answers = append(there.answers, apply(t, s, &store.Step{Ops: []store.Op{long}}))
	there.events = eventsOf(t, s)
	return there
}

// A name as long as may be, and one of everything else, is found again.
func TestContentIsFoundAgain(t *testing.T) {
	_, there := filled(t, storetest.NewClock(noon))
	for i, out := range there.answers {
		if i < 60 && (out.Lease != store.LeaseReplayed || len(out.Results) != 6 || out.Results[0].Held != 1) {
			t.Errorf("reservation %d: %+v, want it replayed, and 1 unit held", i, out)
		}
	}
	if used := there.answers[60].Results[0].Used; used != 1 {
		t.Errorf("the bucket with the long name has used %d, want 1", used)
	}
	if all, left := len(there.events.all), len(there.events.undelivered); all != 61 || left != 31 {
		t.Errorf("%d events, of which %d are not delivered, want 61 and 31", all, left)
	}
}

// One wrong byte anywhere in the file is noticed, or does not matter: the directory is refused and
// left as it is, or all that was there is there.
func TestFlippedByte(t *testing.T) {
	clock := storetest.NewClock(noon)
	file, want := filled(t, clock)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	refused, opened := 0, 0
	try := func(at int, bits byte) {
		bad := append([]byte(nil), good...)
		bad[at] ^= bits
		dir := t.TempDir()
		path := filepath.Join(dir, "ration.db")
		write(t, path, bad)
		s, err := memory.Open(dir, memory.Options{Clock: clock.Now})
		if err != nil {
			refused++
			if after, _ := os.ReadFile(path); string(after) != string(bad) {
				t.Errorf("byte %d ^ %#x: the refused file was changed", at, bits)
			}
			if !strings.Contains(err.Error(), "restore a backup") && !strings.Contains(err.Error(), "newer") {
				t.Errorf("byte %d ^ %#x: refused, but not saying what to do: %v", at, bits, err)
			}
			return
		}
		opened++
		_ = s.Close()
		if got := contentOf(t, dir, clock); !reflect.DeepEqual(got, want) {
			t.Errorf("byte %d ^ %#x: opened with something else in it", at, bits)
		}
	}
	for at := range 16 + 64 { // where everything begins
		try(at, 1<<rand.IntN(8))
		try(at+os.Getpagesize(), 0xff)
	}
	for page := 0; page < len(good); page += os.Getpagesize() { // what says how to read a page
		for range 4 {
			try(page+rand.IntN(48), 1<<rand.IntN(8))
		}
	}
	for range 300 {
		try(rand.IntN(len(good)), byte(1+rand.IntN(255)))
	}
	t.Logf("%d were refused, %d opened with everything in place", refused, opened)
	if refused < 50 || opened < 10 {
		t.Error("want some of both, or nothing is proven")
	}
}

// A file whose end is missing is refused.
func TestTruncatedFile(t *testing.T) {
	clock := storetest.NewClock(noon)
	file, _ := filled(t, clock)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 1, 4096, 4097, 8192, 12_288, 16_384, 24_000} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "ration.db"), good[:size])
		refuse(t, dir, "is damaged, or is not ration's", "restore a backup")
		if after, _ := os.ReadFile(filepath.Join(dir, "ration.db")); len(after) != size {
			t.Errorf("a file of %d bytes has %d after it was refused", size, len(after))
		}
	}
}

// Directories that are somebody else's are refused.
func TestForeignDirectory(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "thesis.tex"), []byte("work of years"))
	refuse(t, dir, dir+" is not empty and has no ration.db", "name a directory that is empty")

	text := t.TempDir()
	write(t, filepath.Join(text, "ration.db"), []byte(strings.Repeat("no database ", 5000)))
	refuse(t, text, "is damaged, or is not ration's", "move it away")

	other := t.TempDir()
	write(t, filepath.Join(other, "ration.db"), nil)
	changeFile(t, filepath.Join(other, "ration.db"), func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("of another program"))
		return errors.Join(err, b.Put([]byte("k"), []byte("v")))
	})
	refuse(t, other, "it does not say its format")

	file := filepath.Join(t.TempDir(), "file")
	write(t, file, []byte("x"))
	refuse(t, file, "not a directory")
}

// A file of another version is refused, and says so.
func TestOtherFormats(t *testing.T) {
	for format, says := range map[uint32]string{
		2: "was written by an older ration: it has format 2, and this one knows 6",
		7: "was written by a newer ration: it has format 7, and this one knows 6",
	} {
		clock := storetest.NewClock(noon)
		file, _ := filled(t, clock)
		changeFile(t, file, func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("format"), memory.FormatRecord(format))
		})
		refuse(t, filepath.Dir(file), says, "use that ration")
	}
}

// A file of the version before is read as it is, and is of this version from then on: the one before would not know
// what comes into it.
func TestFormatBefore(t *testing.T) {
	clock := storetest.NewClock(noon)
	file, want := filled(t, clock)
	format := func(tx *bbolt.Tx) []byte { return tx.Bucket([]byte("meta")).Get([]byte("format")) }
	changeFile(t, file, func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("format"), memory.FormatRecord(3))
	})
	if got := contentOf(t, filepath.Dir(file), clock); !reflect.DeepEqual(got, want) {
		t.Errorf("there is something else in it: %+v, want %+v", got, want)
	}
	changeFile(t, file, func(tx *bbolt.Tx) error {
		if got := format(tx); string(got) != string(memory.FormatRecord(6)) {
			t.Errorf("it says to be of format %v", got)
		}
		return nil
	})
}

// What a process leaves that was killed while it created the directory does not stand in the way, nor
// does what a file system has at its root.
func TestLeftOverFromCreation(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	if err := os.MkdirAll(filepath.Join(dir, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "ration.db.new-1"), []byte("half a f"))
	_ = openDir(t, dir, memory.Options{}).Close()
	if _, err := os.Stat(filepath.Join(dir, "ration.db.new-1")); err == nil {
		t.Error("the left over is still there")
	}
}

// The directory is made if it is not there, for its owner alone.
func TestDirectoryIsMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	openDir(t, dir, memory.Options{})
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "ration.db"): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v (%v), want %v", path, info.Mode().Perm(), err, want)
		}
	}
}

// A second store on one directory is refused soon, while the first goes on.
func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	first := openDir(t, dir, memory.Options{})
	began := time.Now()
	refuse(t, dir, "another process has "+filepath.Join(dir, "ration.db")+" open", "use another directory")
	t.Logf("refused after %v", time.Since(began))
	apply(t, first, &store.Step{Lease: &store.Lease{ID: id(1), Lasts: 1}})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	openDir(t, dir, memory.Options{})
}

// refuse opens a directory that is refused, with words that contain all of what is said.
func refuse(t *testing.T, dir string, says ...string) {
	t.Helper()
	s, err := memory.Open(dir, memory.Options{})
	if err == nil {
		_ = s.Close()
		t.Errorf("%s was opened, want it refused: %q", dir, says)
		return
	}
	for _, words := range says {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("the error is\n%v\nwant it to say\n%s", err, words)
		}
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// changeFile changes a file behind the store's back.
func changeFile(t *testing.T, path string, change func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(change), db.Close()); err != nil {
		t.Fatal(err)
	}
}
