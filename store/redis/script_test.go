package redis

import (
	"slices"
	"strings"
	"testing"
)

// Constants stand in their places; what only looks like one does not.
func TestInline(t *testing.T) {
	got := inline(`-- LIMIT is a word here.
local LIMIT, NAME = 12, 'a LIMIT' -- with its name
local DOUBLE = 2 * LIMIT
  return LIMIT, NAME, DOUBLE, 'LIMIT', LIMITS
`)
	want := `local DOUBLE = 2 * 12 return 12, 'a LIMIT', DOUBLE, 'LIMIT', LIMITS`
	if !slices.Equal(strings.Fields(got), strings.Fields(want)) {
		t.Errorf("got %q, want %q", got, want)
	}
}
