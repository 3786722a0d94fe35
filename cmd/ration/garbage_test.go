package main

import "testing"

// Much garbage may lie beside little that is live, and little beside much.
func TestGarbagePercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 1 << 20: 400, 32 << 20: 400, 128 << 20: 100, 256 << 20: 50, 512 << 20: 25, 4 << 30: 25} {
		if got := garbagePercent(live); got != want {
			t.Errorf("beside %d live bytes %d %%, want %d %%", live, got, want)
		}
	}
}
