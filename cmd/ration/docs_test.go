package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// configurationPage returns the page that lists all settings, by its headings.
func configurationPage(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		heading, body, _ := strings.Cut(section, "\n")
		sections[heading] = body
	}
	return sections
}

// TestConfigurationPage holds docs/configuration.md to the code: a row for every flag, with its
// variable, its default and the established variables, under the heading of its group, in the order
// of the help.
func TestConfigurationPage(t *testing.T) {
	sections := configurationPage(t)
	for _, group := range groups() {
		title, _, _ := strings.Cut(group.Title, ":")
		body, ok := sections[title]
		if !ok {
			t.Errorf("the page has no section %q", title)
			continue
		}
		var want, got []string
		for _, f := range serveFlagsOf(read(t, nil, "version").model) {
			if f.Group == nil || f.Group.Key != group.Key {
				continue
			}
			value, def := "", ""
			if f.PlaceHolder != "" {
				value = " " + f.PlaceHolder
			}
			if f.HasDefault {
				def = "`" + f.Default + "`"
			}
			want = append(want, row("`--"+f.Name+value+"`", "`"+f.Envs[0]+"`", def, establishedFor(f.Name)))
		}
		for line := range strings.Lines(body) {
			if strings.HasPrefix(line, "| `--") {
				// The last cell is for the reader.
				cells := strings.SplitAfter(strings.TrimSpace(line), "|")
				got = append(got, strings.Join(cells[:len(cells)-2], ""))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("section %q has the rows\n%s\nwant, each with an explanation behind it,\n%s",
				title, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// row returns cells as a row of a table begins with them.
func row(cells ...string) string {
	text := "|"
	for _, cell := range cells {
		if cell != "" {
			text += " " + cell
		}
		text += " |"
	}
	return text
}

// establishedFor returns the established variables of a flag as the page shows them.
func establishedFor(flag string) string {
	var names []string
	for _, tr := range translations() {
		if tr.flag == flag {
			for _, name := range tr.names {
				names = append(names, "`"+name+"`")
			}
		}
	}
	return strings.Join(names, ", ")
}

// TestPageNamesWhatHasNoEffect holds the list of variables without effect to the code.
func TestPageNamesWhatHasNoEffect(t *testing.T) {
	var got []string
	section := configurationPage(t)["Variables without effect"]
	for _, name := range regexp.MustCompile("`([A-Z][A-Z0-9_*]+)`").FindAllStringSubmatch(section, -1) {
		got = append(got, name[1])
	}
	slices.Sort(got)
	want := unsupported()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the page names %v\nwant %v", got, want)
	}
}
