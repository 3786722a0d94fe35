package redistest

import (
	_ "embed"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

//go:embed clock/clock.c
var clockSource []byte

// Clock shifts the wall clock of one server, while it runs.
type Clock struct{ file *os.File }

// Shift lets the server's clock show the machine's time plus by, from now on.
func (c *Clock) Shift(t testing.TB, by time.Duration) {
	t.Helper()
	if _, err := c.file.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(by.Microseconds())), 0); err != nil {
		t.Fatal(err)
	}
}

// StartWithClock is [Start] for a server whose clock can be shifted. It needs a C compiler, which
// the race detector needs too.
func StartWithClock(t testing.TB, more ...string) (*Server, *Clock) {
	t.Helper()
	dir := t.TempDir()
	source, library := filepath.Join(dir, "clock.c"), filepath.Join(dir, "clock.so")
	if err := os.WriteFile(source, clockSource, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-O1", "-o", library, source).CombinedOutput(); err != nil {
		t.Fatalf("compile the clock: %v (`make test` installs a C compiler)\n%s", err, out)
	}
	file, err := os.Create(filepath.Join(dir, "shift"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	c := &Clock{file}
	c.Shift(t, 0)
	return start(t, FreePort(t), []string{"LD_PRELOAD=" + library, "REDISTEST_CLOCK=" + file.Name()}, more...), c
}
