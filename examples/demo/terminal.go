package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Sequences of the terminal, as ECMA-48 and xterm have them.
const (
	otherScreen = "\x1b[?1049h\x1b[?25l" // and no cursor
	firstScreen = "\x1b[?25h\x1b[?1049l"
	clearAll    = "\x1b[2J"
	clearRest   = "\x1b[K"
)

// terminal redraws a screen of its own, and leaves the bill behind.
type terminal struct {
	out    io.Writer
	size   func() (width, height int, err error)
	colour bool

	where         addresses
	open          bool
	width, height int
	drawn         []string
}

// viewOn is a terminal where the file is one, and else plain lines.
func viewOn(f *os.File) view {
	if !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return &plainView{out: f}
	}
	return &terminal{
		out: f, colour: os.Getenv("NO_COLOR") == "", // https://no-color.org
		size: func() (int, int, error) { return term.GetSize(int(f.Fd())) },
	}
}

func (t *terminal) begin(where addresses) {
	t.where, t.open = where, true
	fmt.Fprint(t.out, otherScreen)
}

// update writes the lines that have changed, so that what is selected stays selected where it did not.
func (t *terminal) update(now state) {
	width, height, err := t.size()
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	if width != t.width || height != t.height {
		t.width, t.height, t.drawn = width, height, nil
		fmt.Fprint(t.out, clearAll)
	}
	rows := make([]string, 0, height)
	for _, l := range screen(t.where, now, width, height) {
		rows = append(rows, t.paint(l))
	}
	var change strings.Builder
	for i := range max(len(rows), len(t.drawn)) {
		before, after := "", ""
		if i < len(t.drawn) {
			before = t.drawn[i]
		}
		if i < len(rows) {
			after = rows[i]
		}
		if before != after {
			fmt.Fprintf(&change, "\x1b[%d;1H%s%s", i+1, after, clearRest)
		}
	}
	if change.Len() > 0 {
		fmt.Fprintf(&change, "\x1b[%d;1H", height) // what is typed shows there
	}
	fmt.Fprint(t.out, change.String())
	t.drawn = rows
}

func (t *terminal) close() {
	if t.open {
		fmt.Fprint(t.out, firstScreen)
	}
	t.open = false
}

func (t *terminal) end(final bill) {
	for _, l := range final.lines() {
		fmt.Fprintln(t.out, t.paint(l))
	}
}

// paint puts a line into colours, if they are wanted.
func (t *terminal) paint(l line) string {
	codes := map[style]string{strong: "1", faint: "2", good: "32", warning: "33", bad: "31"}
	var b strings.Builder
	for _, s := range l {
		if code := codes[s.style]; t.colour && code != "" && s.text != "" {
			fmt.Fprintf(&b, "\x1b[%sm%s\x1b[0m", code, s.text)
			continue
		}
		b.WriteString(s.text)
	}
	return b.String()
}
