package memory_test

import (
	"testing"

	"github.com/rationhq/ration/subject"
	"github.com/rationhq/ration/subject/memory"
	"github.com/rationhq/ration/subject/subjecttest"
)

func TestConformance(t *testing.T) {
	subjecttest.Run(t, func(t testing.TB) []subject.Directory {
		d := memory.New(memory.Options{})
		t.Cleanup(func() { _ = d.Close() })
		return []subject.Directory{d}
	})
}

func TestConformanceOnDisk(t *testing.T) {
	subjecttest.Run(t, func(t testing.TB) []subject.Directory {
		return []subject.Directory{openDir(t, t.TempDir())}
	})
}

func openDir(t testing.TB, dir string) *memory.Directory {
	t.Helper()
	d, err := memory.Open(dir, memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}
