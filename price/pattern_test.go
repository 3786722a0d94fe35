package price_test

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/price"
)

// A pattern stands for the names for which the regular expression does that has .* for each star.
func TestMatches(t *testing.T) {
	if price.Matches("*a*a*", "bab") || !price.Matches("*a*a*", "baa") {
		t.Error("one letter is matched twice")
	}
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab*]{0,6}`).Draw(t, "pattern")
		name := rapid.StringMatching(`[abAB]{0,8}`).Draw(t, "name")
		want := regexp.MustCompile(`(?i)^` + strings.ReplaceAll(pattern, "*", ".*") + `$`).MatchString(name)
		if got := price.Matches(pattern, name); got != want {
			t.Fatalf("%q stands for %q: %t, want %t", pattern, name, got, want)
		}
		// In a book, it does as well.
		if pattern == "" {
			return
		}
		b, err := price.NewBook([]price.Model{{Name: pattern}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, got := b.Find(name, today); got != want {
			t.Fatalf("a book with %q finds %q: %t, want %t", pattern, name, got, want)
		}
	})
}
