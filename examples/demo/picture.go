package main

import (
	"fmt"
	"html"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// still is the state of a run half a minute after its beginning, for the picture in the README.
func still() (addresses, state) {
	at := func(second int) time.Time { return time.Date(2026, time.November, 22, 20, 58, second, 0, time.Local) }
	return addresses{envoy: "http://127.0.0.1:37333", ration: "127.0.0.1:35495", policy: "examples/demo/policy.yaml"}, state{
		elapsed: 31 * time.Second,
		users: []user{
			{name: "ann", tier: "premium", served: 89, inFlight: 2, tokens: 26_079, cost: 113_308_000, budget: 5_000_000_000, now: served},
			{name: "bob", tier: "pro", served: 39, refused: 6, tokens: 17_055, cost: 59_331_000, budget: 60_000_000, now: exhausted},
			{name: "carol", tier: "free", served: 14, refused: 714, inFlight: 1, tokens: 2_246, cost: 6_345_000, budget: 20_000_000, now: throttled},
		},
		events: []event{
			{at(21), "carol", true, "llm.user.in-flight", "Too many requests at once: at most 2 on the free plan. Try again when one of them has ended. (16 times in 1s)"},
			{at(49), "carol", true, "llm.user.requests", "Rate limit reached: 20 requests per minute on the free plan. Try again in 1 s. (25 times in 1s)"},
			{at(37), "bob", false, "llm.user.spend", "You have used 81 % of your daily budget of $0.06: $0.04912. It resets at 00:00 (UTC)."},
			{at(49), "bob", true, "llm.user.spend", "Daily budget used up: $0.059331 of $0.06; $0.000669 left. Resets at 00:00 (UTC)."},
		},
	}
}

// Sizes of the picture, in pixels; a character is cell wide.
const (
	columns, rows    = 80, 24
	cell, leading    = 8.4, 19.0
	margin, baseline = 14.0, 14.0
)

// look has the colours of the terminal, which is dark wherever it stands.
const look = `text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#d4d4d4;white-space:pre}
.paper{fill:#1e1e1e}.strong{font-weight:600;fill:#fff}.faint{fill:#9d9d9d}.good{fill:#4ec970}.warning{fill:#e5c07b}.bad{fill:#f2777a}
rect.faint{fill:#4a4a4a}`

// phrase is text that may be drawn as one: words with no more than a space between them.
var phrase = regexp.MustCompile(`\S+( \S+)*`)

// picture is the screen of a terminal as SVG. Each phrase has its place, since no two readers have the same font.
func picture(lines []line) string {
	classes := map[style]string{plain: "plain", strong: "strong", faint: "faint", good: "good", warning: "warning", bad: "bad"}
	var b strings.Builder
	width, height := columns*cell+2*margin, rows*leading+2*margin
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img">`+"\n",
		width, height, width, height)
	fmt.Fprintf(&b, "<style>%s</style>\n", look)
	fmt.Fprintf(&b, `<rect class="paper" width="%.0f" height="%.0f" rx="8"/>`+"\n", width, height)
	for row, l := range lines {
		column, y := 0, margin+float64(row)*leading
		for _, s := range l {
			for _, found := range phrase.FindAllStringIndex(s.text, -1) {
				word := s.text[found[0]:found[1]]
				x := margin + float64(column+utf8.RuneCountInString(s.text[:found[0]]))*cell
				w := float64(utf8.RuneCountInString(word)) * cell
				if strings.Trim(word, "█░") == "" {
					fmt.Fprintf(&b, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`+"\n", classes[s.style], x, y+2, w, leading-5)
					continue
				}
				fmt.Fprintf(&b, `<text class="%s" x="%.1f" y="%.1f" textLength="%.1f" lengthAdjust="spacingAndGlyphs">%s</text>`+"\n",
					classes[s.style], x, y+baseline, w, html.EscapeString(word))
			}
			column += utf8.RuneCountInString(s.text)
		}
	}
	return b.String() + "</svg>\n"
}
