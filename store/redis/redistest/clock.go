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
	c, environment := newClock(t, compileClock(t))
	return start(t, FreePort(t), environment, more...), c
}

// StartClusterWithClocks is [StartCluster] where each master has a clock of its own, shifted by so much from
// the start: three of them.
func StartClusterWithClocks(t testing.TB, shifts ...time.Duration) ([]*Server, []*Clock) {
	t.Helper()
	library := compileClock(t)
	var clocks []*Clock
	nodes := startCluster(t, 0, func(node int) (environment, config []string) {
		c, environment := newClock(t, library)
		c.Shift(t, shifts[node])
		clocks = append(clocks, c)
		return environment, nil
	})
	return nodes, clocks
}

// compileClock returns the path of the library that a server with a shifted clock is started with.
func compileClock(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	source, library := filepath.Join(dir, "clock.c"), filepath.Join(dir, "clock.so")
	if err := os.WriteFile(source, clockSource, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-O1", "-o", library, source).CombinedOutput(); err != nil {
		t.Fatalf("compile the clock: %v (`make test` installs a C compiler)\n%s", err, out)
	}
	return library
}

// newClock returns a clock, and the environment of the server that is to show it.
func newClock(t testing.TB, library string) (*Clock, []string) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "shift"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	c := &Clock{file}
	c.Shift(t, 0)
	return c, []string{"LD_PRELOAD=" + library, "REDISTEST_CLOCK=" + file.Name()}
}
