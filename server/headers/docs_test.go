package headers_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/server/headers"
)

// The table of docs/accounting.md has all fields that are ever written, and no others.
func TestTableOfFields(t *testing.T) {
	page, err := os.ReadFile("../../docs/accounting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Header fields\n")
	section, _, _ = strings.Cut(section, "\n## ")
	explained := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?`) \\| ").FindAllStringSubmatch(section, -1) {
		for name := range strings.SplitSeq(row[1], ", ") {
			explained[strings.Trim(name, "`")] = true
		}
	}
	written := map[string]bool{}
	b := newBench(t)
	record(t, b.Engine, "user", "m", price.Usage{Output: 8_000})
	record(t, b.Engine, "warned", "", price.Usage{})
	for _, d := range []*engine.Decision{
		reserve(t, b.Engine, "user", "m", price.Usage{Input: 1}),
		reserve(t, b.Engine, "user", "m", price.Usage{Output: 4_000}),
		reserve(t, engineOver(t, gone{}), "user", "", price.Usage{}),
		reserve(t, b.Engine, "warned", "", price.Usage{}),
		askAs(t, engineOver(t, gone{}), "anthropic", policy.Entry{Key: "ration.request", Value: "id"}),
	} {
		for _, f := range headers.Append(nil, d) {
			written[f.Name] = true
		}
	}
	if !maps.Equal(explained, written) {
		t.Errorf("the page has %v\nwritten  %v", slices.Sorted(maps.Keys(explained)), slices.Sorted(maps.Keys(written)))
	}
}
