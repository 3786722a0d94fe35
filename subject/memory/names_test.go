package memory

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Whatever comes and goes, there is what a sorted map would have, in pieces that hang together.
func TestNames(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		n, want := &names{}, map[string]string{}
		bulk := rapid.SampledFrom([]int{0, pieceSize - 1, pieceSize, pieceSize + 1, 3 * pieceSize}).Draw(r, "there before")
		for i := range bulk {
			name := fmt.Sprintf("%06d", 10*i)
			n.put(name, name)
			want[name] = name
		}
		for i := range rapid.IntRange(1, 600).Draw(r, "operations") {
			name := fmt.Sprintf("%06d", rapid.IntRange(0, 10*bulk+20).Draw(r, "name"))
			if rapid.IntRange(0, 2).Draw(r, "remove") == 0 {
				n.remove(name)
				delete(want, name)
			} else {
				n.put(name, fmt.Sprint(i))
				want[name] = fmt.Sprint(i)
			}
			if got, found := n.get(name); found != (want[name] != "") || got != want[name] {
				r.Fatalf("%s is %q, %v, want %q", name, got, found, want[name])
			}
		}
		after := rapid.SampledFrom([]string{"", "000000", "000015", "999999", fmt.Sprintf("%06d", 10*pieceSize)}).Draw(r, "after")
		var sorted, got []string
		for name := range want {
			if name > after {
				sorted = append(sorted, name)
			}
		}
		slices.Sort(sorted)
		n.behind(after, func(e entry) bool { got = append(got, e.name); return true })
		if !slices.Equal(got, sorted) {
			r.Fatalf("behind %q are %d names, want %d", after, len(got), len(sorted))
		}
		for _, piece := range n.pieces {
			if len(piece) == 0 || len(piece) > pieceSize {
				r.Fatalf("a piece has %d entries", len(piece))
			}
		}
	})
}

// What comes in order, as from a file, fills its pieces.
func TestNamesInOrderFillPieces(t *testing.T) {
	n := &names{}
	for i := range 10 * pieceSize {
		n.put(fmt.Sprintf("%06d", i), "x")
	}
	if len(n.pieces) != 10 {
		t.Errorf("they are in %d pieces, want 10", len(n.pieces))
	}
}
