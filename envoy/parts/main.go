// Command parts writes the bootstraps for models, ../llm-*.yaml. Each of them is whole, to be copied and changed, and yet
// they differ only where they mean to: what several have in common stands once, in one of the files *.yaml beside this
// program. Those are templates, with << and >> around what is not YAML; a line <<part "name">> is replaced by the file
// of that name, as far to the right as the line begins.
//
// It knows how files are put together, and of Envoy nothing. Read variants.go first, which says what the bootstraps are,
// then bootstrap.yaml.
package main

import (
	"embed"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
)

//go:embed *.yaml
var parts embed.FS

func main() {
	out := flag.String("out", "envoy", "the folder to write to")
	flag.Parse()
	for _, v := range variants() {
		if err := write(*out, v); err != nil {
			fmt.Fprintln(os.Stderr, "parts:", err)
			os.Exit(1)
		}
	}
}

func write(folder string, v variant) error {
	text, err := compose(v)
	if err != nil {
		return fmt.Errorf("compose %s: %w", v.File, err)
	}
	return os.WriteFile(filepath.Join(folder, v.File), []byte(text), 0o644)
}

// compose returns the bootstrap of a variant.
func compose(v variant) (string, error) {
	source, err := expand("bootstrap", "")
	if err != nil {
		return "", err
	}
	t, err := template.New("bootstrap").Delims("<<", ">>").Parse(source)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	if err := t.Execute(&out, v); err != nil {
		return "", err
	}
	return out.String(), nil
}

var (
	// include is a line that a part takes the place of.
	include = regexp.MustCompile(`^( *)<<part "([a-z-]+)">>$`)
	// control is a line that says what others are for, and of which nothing shall be left.
	control = regexp.MustCompile(`^ *(<<(?:if|else|end|range|with|/\*).*>>)$`)
)

// expand returns the text of a part, with those that it names, moved to the right by indent.
func expand(name, indent string) (string, error) {
	text, err := parts.ReadFile(name + ".yaml")
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if found := include.FindStringSubmatch(line); found != nil {
			part, err := expand(found[2], indent+found[1])
			if err != nil {
				return "", fmt.Errorf("part %s: %w", name, err)
			}
			out.WriteString(part)
			continue
		}
		if found := control.FindStringSubmatch(line); found != nil {
			out.WriteString(found[1])
			continue
		}
		if line != "" {
			out.WriteString(indent + line)
		}
		out.WriteString("\n")
	}
	return out.String(), nil
}
