//go:build unix

package memory_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/rationhq/ration/subject"
)

// smallFiles, in the environment of a child, says that it is the one whose files stay small.
const smallFiles = "RATION_TEST_SMALL_FILES"

// While the disk is full nothing changes, and the error says so; what there is can be asked for. When there is room
// again it goes on.
func TestDiskFull(t *testing.T) {
	if os.Getenv(smallFiles) == "" {
		// In a process of its own: the limit is on all files of a process, and go test has one, too.
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), smallFiles+"=1")
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, said)
		}
		return
	}
	dir := t.TempDir()
	d := openDir(t, dir)
	limitFiles(t, 128<<10)
	put := func(i int) error {
		_, err := d.Change(t.Context(), subject.Ref{Domain: "llm", Name: fmt.Sprint("user ", i)}, by, func(s *subject.Subject) error {
			s.Attributes = map[string]string{"org": strings.Repeat("x", 1000)}
			return nil
		})
		return err
	}
	made := 0
	var err error
	for ; err == nil && made < 1000; made++ {
		err = put(made)
	}
	if !errors.Is(err, subject.ErrUnavailable) || !strings.Contains(err.Error(), "nothing was written") {
		t.Fatalf("with a full disk: %v, want ErrUnavailable that says that nothing was written", err)
	}
	made--
	before := contentOf(t, d)
	if len(before.Subjects) != made || len(before.Rows) != made {
		t.Errorf("there are %d subjects and %d rows, want %d", len(before.Subjects), len(before.Rows), made)
	}
	limitFiles(t, 0)
	if err := put(made); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	want := contentOf(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got := contentOf(t, openDir(t, dir)); !reflect.DeepEqual(got, want) || len(got.Subjects) != made+1 {
		t.Errorf("opened again there are %d subjects, want %d, or they are others", len(got.Subjects), made+1)
	}
}

// limitFiles lets files grow to so many bytes; 0 is as many as before.
func limitFiles(t *testing.T, bytes uint64) {
	t.Helper()
	var now syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &now); err != nil {
		t.Fatal(err)
	}
	if bytes == 0 {
		bytes = now.Max
	} else {
		signal.Ignore(syscall.SIGXFSZ) // otherwise the process would be ended by a write beyond
		t.Cleanup(func() { limitFiles(t, 0); signal.Reset(syscall.SIGXFSZ) })
	}
	now.Cur = bytes
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &now); err != nil {
		t.Fatal(err)
	}
}
