package client_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestPage holds the Go of docs/client.md to the examples, which are compiled and run.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../docs/client.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(shown) == 0 {
		t.Fatal("the page shows no Go")
	}
	words := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	for _, s := range shown {
		if !strings.Contains(words(string(source)), words(s[1])) {
			t.Errorf("no example has\n%s", s[1])
		}
	}
}
