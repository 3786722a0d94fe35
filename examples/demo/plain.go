package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// plainView prints lines, for pipes and logs: what is new at once, and how everybody stands every few seconds.
type plainView struct {
	out io.Writer

	next time.Duration // when the table is due
	told map[event]bool
}

const tableEvery = 5 * time.Second

func (v *plainView) begin(where addresses) {
	v.told = map[event]bool{}
	v.print("", line{text("Three users of a model, behind Envoy at %s, with ration at %s.", where.envoy, where.ration)})
	v.print("", instructions(where)...)
}

// update prints what is the first of its kind, and the last of each kind before a table.
func (v *plainView) update(now state) {
	at, due := clock(now.elapsed)+"  ", now.elapsed >= v.next
	for _, n := range news(now.events, 1<<16) {
		kind := event{user: n.user, limit: n.limit, refusal: n.refusal}
		if !v.told[kind] || due && !v.told[n.event] {
			v.told[kind], v.told[n.event] = true, true
			v.print(at, n.lines...)
		}
	}
	if due {
		v.next = now.elapsed + tableEvery
		v.print(at, table(now.users)...)
	}
}

func (v *plainView) close() {}

func (v *plainView) end(final bill) { v.print("", final.lines()...) }

func (v *plainView) print(before string, lines ...line) {
	for _, l := range lines {
		var b strings.Builder
		for _, s := range l {
			b.WriteString(s.text)
		}
		fmt.Fprintln(v.out, strings.TrimRight(before+b.String(), " "))
	}
}
