package main

import "testing"

// Much garbage may lie beside little that is live, and little beside much.
func TestGarbagePercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 1 << 20: 400, 16 << 20: 400, 64 << 20: 100, 128 << 20: 50, 256 << 20: 25, 4 << 30: 25} {
		if got := garbagePercent(live); got != want {
			t.Errorf("beside %d live bytes %d %%, want %d %%", live, got, want)
		}
	}
}
