package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// shown is a screen as text.
func shown(width, height int, s state) []string {
	where, _ := still()
	var all []string
	for _, l := range screen(where, s, width, height) {
		var b strings.Builder
		for _, part := range l {
			b.WriteString(part.text)
		}
		all = append(all, b.String())
	}
	return all
}

func TestScreenFits(t *testing.T) {
	_, s := still()
	s.trouble = "ann: " + strings.Repeat("what nobody expected ", 10)
	for _, size := range [][2]int{{200, 60}, {80, 24}, {80, 12}, {40, 24}, {1, 1}} {
		width, height := size[0], size[1]
		lines := shown(width, height, s)
		if len(lines) > height {
			t.Errorf("%d×%d: %d lines", width, height, len(lines))
		}
		for _, l := range lines {
			if n := len([]rune(l)); n > width {
				t.Errorf("%d×%d: a line of %d characters: %s", width, height, n, l)
			}
		}
	}
}

// Where 80 columns and 24 lines are there nothing is cut off.
func TestScreenIsWhole(t *testing.T) {
	where, s := still()
	text := strings.Join(shown(80, 24, s), "\n")
	words := strings.Join(strings.Fields(text), " ")
	for _, e := range s.events {
		if !strings.Contains(words, e.message) {
			t.Errorf("it does not show %q", e.message)
		}
	}
	for _, l := range append(instructions(where), table(s.users)...) {
		line := ""
		for _, part := range l {
			line += part.text
		}
		if !strings.Contains(text, line) {
			t.Errorf("it does not show %q", line)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// What stands below the news stays where it is, whatever is new.
func TestScreenDoesNotMove(t *testing.T) {
	_, s := still()
	place := func() int {
		return slices.IndexFunc(shown(80, 24, s), func(l string) bool { return strings.HasPrefix(l, "LOOK FOR YOURSELF") })
	}
	full := place()
	s.events = nil
	if empty := place(); full < 0 || empty != full {
		t.Errorf("it begins in line %d, and in line %d with news", empty, full)
	}
}

// The oldest news give way.
func TestScreenDropsTheOldest(t *testing.T) {
	_, s := still()
	text := strings.Join(shown(80, 22, s), "\n")
	if strings.Contains(text, "Too many requests at once") || !strings.Contains(text, "81 % of your daily budget") {
		t.Errorf("with two lines less it shows:\n%s", text)
	}
}

// The README shows what the program draws now.
func TestPictureIsCurrent(t *testing.T) {
	where, s := still()
	want := picture(screen(where, s, columns, rows))
	const file = "examples/demo/demo.svg"
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		t.Errorf("%s is not what is drawn now (%v): run make generate", file, err)
	}
	for d := xml.NewDecoder(strings.NewReader(want)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "]("+file+")") {
		t.Errorf("README.md does not show %s", file)
	}
}

// A terminal gets only what has changed, in colours if it wants them, and is left as it was.
func TestTerminal(t *testing.T) {
	for _, colour := range []bool{true, false} {
		var out strings.Builder
		term := &terminal{out: &out, colour: colour, size: func() (int, int, error) { return 80, 24, nil }}
		said := func() string {
			defer out.Reset()
			return out.String()
		}
		where, s := still()
		term.begin(where)
		term.update(s)
		if first := said(); strings.Contains(first, "\x1b[31m") != colour || !strings.HasPrefix(first, otherScreen) {
			t.Errorf("colours %v: it begins with %q", colour, first)
		}
		s.users[0].served++
		term.update(s)
		changed := said()
		if rows := regexp.MustCompile(`\x1b\[(\d+);1H`).FindAllString(changed, -1); !slices.Equal(rows, []string{"\x1b[4;1H", "\x1b[24;1H"}) {
			t.Errorf("colours %v: of a change in line 4 it writes %q", colour, changed)
		}
		term.close()
		term.close()
		if last := said(); last != firstScreen {
			t.Errorf("colours %v: it ends with %q", colour, last)
		}
	}
}

func TestBootstrapIsMoved(t *testing.T) {
	where := addresses{fakellm: "http://127.0.0.1:1111", ration: "127.0.0.1:2222"}
	shipped, err := os.ReadFile("envoy/llm-reserve.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]struct{ from, to, err string }{
		"as it is shipped":                {"", "", ""},
		"with a port that nobody knows":   {"port_value: 8000", "port_value: 8123", "port 8123 is none that the demo knows"},
		"without one that is to be moved": {"port_value: 8081", "port_value: 8000", "nothing has port [8081]"},
	} {
		dir := t.TempDir()
		from, to := filepath.Join(dir, "shipped.yaml"), filepath.Join(dir, "moved.json")
		if err := os.WriteFile(from, []byte(strings.ReplaceAll(string(shipped), f.from, f.to)), 0o600); err != nil {
			t.Fatal(err)
		}
		err := moveBootstrap(from, to, where)
		if f.err != "" {
			if err == nil || !strings.Contains(err.Error(), f.err) {
				t.Errorf("%s: %v, want %q", name, err, f.err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		moved, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		ports := regexp.MustCompile(`"port_value":(\d+)`).FindAllStringSubmatch(string(moved), -1)
		var found []string
		for _, m := range ports {
			found = append(found, m[1])
		}
		slices.Sort(found)
		if want := []string{"0", "0", "1111", "2222"}; !slices.Equal(slices.Compact(found), slices.Compact(want)) {
			t.Errorf("%s: the ports are %v, want %v", name, found, want)
		}
	}
}

func TestFigures(t *testing.T) {
	for _, f := range []struct{ got, want string }{
		{nanos(59_331_000).String(), "$0.059331"}, {nanos(5_000_000_001).String(), "$5.000000001"}, {nanos(20_000_000).String(), "$0.020000"},
		{nanos(59_399_999).brief(), "$0.0593"}, {nanos(5_000_000_000).round(), "$5.00"}, {nanos(125_000_000).round(), "$0.125"},
		{grouped(0), "0"}, {grouped(999), "999"}, {grouped(1_000), "1,000"}, {grouped(1_234_567), "1,234,567"},
		{clock(65_400_000_000), "1:05"},
	} {
		if f.got != f.want {
			t.Errorf("%s, want %s", f.got, f.want)
		}
	}
}
