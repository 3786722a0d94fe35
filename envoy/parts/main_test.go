package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestWritten shows that the bootstraps are what the parts make of them, and that nothing else is beside them.
func TestWritten(t *testing.T) {
	written := map[string]bool{}
	for _, v := range variants() {
		want, err := compose(v)
		if err != nil {
			t.Fatalf("%s: %v", v.File, err)
		}
		got, err := os.ReadFile(filepath.Join("..", v.File))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("envoy/%s differs from envoy/parts: run `make generate`", v.File)
		}
		written[v.File] = true
	}
	found, err := filepath.Glob("../llm-*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range found {
		if !written[filepath.Base(file)] {
			t.Errorf("no variant makes %s", file)
		}
	}
}

// TestReadable shows that a bootstrap is YAML that a stranger can read: nothing of the templates is left, and lines end where
// an editor shows them.
func TestReadable(t *testing.T) {
	const widest = 150
	for _, v := range variants() {
		text, err := compose(v)
		if err != nil {
			t.Fatal(err)
		}
		var tree map[string]any
		if err := yaml.Unmarshal([]byte(text), &tree); err != nil {
			t.Errorf("%s: %v", v.File, err)
		}
		number := 0
		for line := range strings.Lines(text) {
			number++
			line = strings.TrimRight(line, "\n")
			if len(line) > widest || strings.TrimRight(line, " ") != line || strings.Contains(line, "<<") {
				t.Errorf("%s:%d: %s", v.File, number, line)
			}
		}
	}
}
