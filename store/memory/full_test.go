//go:build unix

package memory_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
)

// smallFiles, in the environment of a child, says that it is the one whose files stay small.
const smallFiles = "RATION_TEST_SMALL_FILES"

// While the disk is full, reservations fail, and say why; all else goes on. When there is room again,
// everything gets onto disk.
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
	var log lockedBuffer
	s := openDir(t, dir, memory.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	reserve := func(n int) error {
		hold := native(fmt.Sprint("owner ", n), strings.Repeat("long name ", 300), spec(limit.FixedWindow, year))
		hold.Kind = store.Hold
		var out store.Outcome
		return s.Apply(context.Background(), &store.Step{
			Lease: &store.Lease{ID: id(n), Lasts: store.MaxLease}, Ops: []store.Op{hold},
		}, &out)
	}
	if err := reserve(0); err != nil {
		t.Fatal(err)
	}
	limitFiles(t, 64<<10)
	last := 1
	var err error
	for ; err == nil && last < 1000; last++ {
		err = reserve(last)
	}
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "data directory cannot be written to") ||
		!strings.Contains(err.Error(), "file too large") {
		t.Fatalf("with a full disk: %v, want ErrUnavailable that says why", err)
	}
	if err := s.Ready(context.Background()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("ready: %v, want ErrUnavailable", err)
	}
	before, waiting := s.Len(), s.Bytes()
	if err := reserve(2000); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("the next reservation: %v, want ErrUnavailable", err)
	}
	if s.Len() != before {
		t.Error("a reservation that is refused at once has made a bucket")
	}
	charge := native("", "charged while the disk was full", spec(limit.FixedWindow, year))
	apply(t, s, &store.Step{Ops: []store.Op{charge}})

	limitFiles(t, 0)
	waitFor(t, "the store to be ready", func() bool { return s.Ready(context.Background()) == nil })
	if s.Bytes() >= waiting {
		t.Errorf("%d bytes are taken, and %d while records waited for the disk: want less", s.Bytes(), waiting)
	}
	if err := reserve(2001); err != nil {
		t.Errorf("with room on the disk: %v", err)
	}
	if got := log.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "level=ERROR") ||
		!strings.Contains(got, "can be written to again") {
		t.Errorf("the log is\n%s\nwant one line when it fails, and one when it is good again", got)
	}
	known := s.Bytes()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = openDir(t, dir, memory.Options{})
	if s.Bytes() != known {
		t.Errorf("the store takes itself for %d bytes, and for %d before it was closed", s.Bytes(), known)
	}
	charge.Amount = 0
	if used := apply(t, s, &store.Step{Ops: []store.Op{charge}}).Results[0].Used; used != 1 {
		t.Errorf("charged while the disk was full: %d is left of 1", used)
	}
	for n := range last {
		step := &store.Step{Lease: &store.Lease{ID: id(n), Lasts: store.MaxLease}}
		if out := apply(t, s, step); out.Lease != store.LeaseReplayed {
			t.Errorf("reservation %d of %d is gone", n, last)
		}
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
		// Otherwise the process would be ended by a write beyond.
		signal.Ignore(syscall.SIGXFSZ)
		t.Cleanup(func() { limitFiles(t, 0); signal.Reset(syscall.SIGXFSZ) })
	}
	now.Cur = bytes
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &now); err != nil {
		t.Fatal(err)
	}
}

// A step that waits for the disk does not wait for longer than its caller does, nor than the store
// lives.
func TestWaitingEnds(t *testing.T) {
	s := openDir(t, t.TempDir(), memory.Options{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	ctx, cancel := context.WithCancel(context.Background())
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			var out store.Outcome
			for n := 0; ctx.Err() == nil; n++ {
				step := &store.Step{Lease: &store.Lease{ID: id(i*1_000_000 + n), Lasts: 1}}
				err := s.Apply(ctx, step, &out)
				if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, store.ErrUnavailable) {
					t.Error(err)
				}
				if err != nil && i < 4 {
					return
				}
			}
		})
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	var out store.Outcome // of one that no caller has opened: a repeat has nothing to wait for
	err := s.Apply(context.Background(), &store.Step{Lease: &store.Lease{ID: id(-1), Lasts: 1}}, &out)
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("after the store was closed: %v, want ErrUnavailable", err)
	}
	cancel()
	callers.Wait()
}

// lockedBuffer is a buffer that several goroutines may use.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
