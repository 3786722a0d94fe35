package spelling_test

import (
	"strings"
	"testing"

	"github.com/rationhq/ration/internal/spelling"
)

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "abd", 1}, {"abc", "acb", 1}, {"abc", "ab", 1},
		{"haiku", "haikoo", 2}, {"ca", "abc", 3}, {"limit", "timil", 2}, {strings.Repeat("x", 200), strings.Repeat("x", 199) + "y", 1},
	} {
		for _, most := range []int{0, 1, 2, 3, 300} {
			got := spelling.Distance(c.a, c.b, most)
			if got != c.want && (c.want <= most || got <= most) {
				t.Errorf("%.20q to %.20q, at most %d: %d, want %d", c.a, c.b, most, got, c.want)
			}
			if back := spelling.Distance(c.b, c.a, most); (back <= most) != (c.want <= most) {
				t.Errorf("%.20q to %.20q, at most %d: %d, want %d", c.b, c.a, most, back, c.want)
			}
		}
	}
}
