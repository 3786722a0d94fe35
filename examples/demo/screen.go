package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// style is how text stands out.
type style int

const (
	plain style = iota
	strong
	faint
	good
	warning
	bad
)

// span is text in one style, line what stands in a row of the terminal.
type (
	span struct {
		text string
		style
	}
	line []span
)

func text(format string, args ...any) span { return span{fmt.Sprintf(format, args...), plain} }

func (s style) text(format string, args ...any) span { return span{fmt.Sprintf(format, args...), s} }

// widest is as wide as the screen gets: the tables need 79 columns, and longer lines are hard to read.
const widest = 110

// mostNews is how many lines of news there is room for, so that what stands below them does not move.
const mostNews = 8

// screen is everything that the terminal shows, at a width and a height. Where there is little room the oldest news go
// first.
func screen(where addresses, s state, width, height int) []line {
	width = min(width, widest)
	top := append([]line{title(s, width), nil}, table(s.users)...)
	if s.trouble != "" {
		top = append(top, nil, line{bad.text("Unexpected: %s", s.trouble)})
	}
	top = append(top, nil, line{strong.text("WHAT RATION SAYS")})
	bottom := append([]line{nil}, instructions(where)...)
	said := news(s.events, width)
	room := max(0, min(mostNews, height-len(top)-len(bottom)))
	for len(said) > 0 && count(said) > room {
		said = drop(said)
	}
	all := top
	for _, n := range said {
		all = append(all, n.lines...)
	}
	all = append(all, make([]line, room-count(said))...)
	all = append(all, bottom...)
	for i := range all {
		all[i] = cut(all[i], width)
	}
	return all[:min(len(all), height)]
}

func title(s state, width int) line {
	left := "three users of a model, behind Envoy"
	right := clock(s.elapsed) + "   Ctrl-C ends it"
	if s.ending {
		right = "waiting for open calls"
	}
	gap := max(2, width-1-len("ration  ")-len(left)-len(right))
	return line{strong.text("ration"), text("  %s%s", left, strings.Repeat(" ", gap)), faint.text("%s", right)}
}

// table shows how users stand.
func table(users []user) []line {
	all := []line{{faint.text("%-5s %-7s  %-9s %6s %7s %4s %7s  %7s", "USER", "TIER", "NOW", "SERVED", "REFUSED", "OPEN", "TOKENS", "SPENT")}}
	for _, u := range users {
		now, how := u.now.words()
		part := u.part()
		full := good
		switch {
		case u.now == exhausted || part >= 100:
			full = bad
		case part >= 80:
			full = warning
		}
		const bar = 8
		filled := min(bar, int(part*bar/100))
		all = append(all, line{
			strong.text("%-5s", u.name), text(" %-7s  ", u.tier), how.text("%-9s", now),
			text(" %6s %7s %4d %7s  %7s of %-5s ", grouped(u.served), grouped(u.refused), u.inFlight, grouped(u.tokens), u.cost.brief(), u.budget.round()),
			full.text("%s", strings.Repeat("█", filled)), faint.text("%s", strings.Repeat("░", bar-filled)),
		})
	}
	return all
}

// part is how much of the budget is spent, in percent.
func (u user) part() int64 {
	if u.budget <= 0 {
		return 0
	}
	return int64(u.cost * 100 / u.budget)
}

func (m mood) words() (string, style) {
	switch m {
	case served:
		return "served", good
	case throttled:
		return "throttled", warning
	case exhausted:
		return "exhausted", bad
	case idle:
	}
	return "", plain
}

// item is an event in lines.
type item struct {
	event
	lines []line
}

// news words events.
func news(events []event, width int) []item {
	var all []item
	for _, e := range events {
		what, how := "warned ", warning
		if e.refusal {
			what, how = "refused", bad
		}
		n := item{event: e}
		before := line{faint.text("%s ", e.at.Local().Format("15:04:05")), strong.text("%-5s", e.user), how.text("  %s ", what)}
		for i, part := range wrap(e.message, max(20, width-1-before.width())) {
			if i > 0 {
				before = line{text("%s", strings.Repeat(" ", before.width()))}
			}
			n.lines = append(n.lines, append(before, text("%s", part)))
		}
		all = append(all, n)
	}
	return all
}

func count(all []item) (lines int) {
	for _, n := range all {
		lines += len(n.lines)
	}
	return lines
}

// drop leaves out what happened first.
func drop(all []item) []item {
	oldest := 0
	for i, n := range all {
		if n.at.Before(all[oldest].at) {
			oldest = i
		}
	}
	return append(all[:oldest:oldest], all[oldest+1:]...)
}

// instructions say how to look for oneself, in lines that a shell takes as they stand.
func instructions(where addresses) []line {
	all := []line{{strong.text("LOOK FOR YOURSELF"), text(" in another terminal, or change %s", where.policy)}}
	for _, l := range []string{
		"curl -i " + where.envoy + `/v1/messages -H 'x-api-key: key-of-carol' \`,
		`  -H 'anthropic-version: 2023-06-01' -H 'content-type: application/json' \`,
		`  -d '{"model": "claude-haiku-4-5", "max_tokens": 50,`,
		`  "messages": [{"role": "user", "content": "Hello"}]}'`,
		"bin/ration usage --server " + where.ration + " --domain " + domain + " user=bob",
		"bin/ration watch --server " + where.ration + " --domain " + domain + " --kind refusal",
	} {
		all = append(all, line{text("  %s", l)})
	}
	return all
}

// wrap breaks text into lines.
func wrap(text string, width int) []string {
	var all []string
	current := ""
	for word := range strings.FieldsSeq(text) {
		if current != "" && utf8.RuneCountInString(current)+1+utf8.RuneCountInString(word) > width {
			all, current = append(all, current), ""
		}
		if current != "" {
			current += " "
		}
		current += word
	}
	return append(all, current)
}

func (l line) width() (n int) {
	for _, s := range l {
		n += utf8.RuneCountInString(s.text)
	}
	return n
}

// cut shortens a line to what fits.
func cut(l line, width int) line {
	var kept line
	for _, s := range l {
		runes := []rune(s.text)
		if len(runes) > width {
			runes = runes[:width]
		}
		width -= len(runes)
		kept = append(kept, span{string(runes), s.style})
	}
	return kept
}
