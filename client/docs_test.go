package client_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestPages holds the Go of the pages to the examples, which are compiled and run.
func TestPages(t *testing.T) {
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"client.md", "accounting.md"} {
		page, err := os.ReadFile("../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		shown := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(page), -1)
		if len(shown) == 0 {
			t.Errorf("%s shows no Go", name)
		}
		words := func(text string) string { return strings.Join(strings.Fields(text), " ") }
		for _, s := range shown {
			if !strings.Contains(words(string(source)), words(s[1])) {
				t.Errorf("%s: no example has\n%s", name, s[1])
			}
		}
	}
}
