package policy

import (
	"strings"

	"github.com/rationhq/ration/internal/spelling"
)

// nearest returns the candidate that word was probably meant to be, or "".
func nearest(word string, candidates []string) string {
	const longest = 64
	if word == "" || len(word) > longest {
		return ""
	}
	lower := strings.ToLower(word)
	best, least := "", max(2, len(word)/3)+1
	for _, c := range candidates {
		if c == word || len(c) > longest || max(len(c)-len(word), len(word)-len(c)) >= least {
			continue
		}
		if d := spelling.Distance(lower, strings.ToLower(c), least-1); d < least {
			best, least = c, d
		}
	}
	if best != "" {
		return best
	}
	for _, c := range candidates {
		if strings.HasPrefix(strings.ToLower(c), lower) {
			return c
		}
	}
	return ""
}
