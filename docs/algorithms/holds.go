package main

import (
	"fmt"

	"github.com/rationhq/ration/limit"
)

// call is a request that holds a place, or an amount, from its admission to its end.
type call struct {
	from, until limit.Micros
	amount      int64 // held
	actual      int64 // what it was settled with, or charged at its lapse
	lapses      bool
	mark        limit.Mark
	status      limit.Status
}

// run puts calls, in the order of their beginning, to a limit, settles them at their end, and
// returns them with what became of them.
func run(s *limit.Spec, calls []call, begin, until limit.Micros) ([]call, []sample) {
	var st limit.State
	var samples []sample
	var live []int // places in calls
	see := func(now limit.Micros, change func()) {
		s.Advance(&st, now)
		samples = append(samples, look(s, &st, now))
		change()
		samples = append(samples, look(s, &st, now))
	}
	// earliest returns which live call ends next.
	earliest := func(only func(call) bool) int {
		first := -1
		for i, n := range live {
			if only(calls[n]) && (first < 0 || calls[n].until < calls[live[first]].until) {
				first = i
			}
		}
		return first
	}
	endUntil := func(now limit.Micros) {
		for i := earliest(anyCall); i >= 0 && calls[live[i]].until <= now; i = earliest(anyCall) {
			k := calls[live[i]]
			see(k.until, func() { s.Settle(&st, k.until, k.mark, k.amount, k.actual) })
			live = append(live[:i], live[i+1:]...)
		}
	}
	see(begin, func() {})
	for n := range calls {
		k := &calls[n]
		endUntil(k.from)
		see(k.from, func() {
			lapse := limit.Micros(0)
			if i := earliest(func(k call) bool { return k.lapses }); i >= 0 {
				lapse = calls[live[i]].until
			}
			k.status = s.Judge(&st, k.from, k.amount, lapse)
			if !k.status.Refused {
				k.mark = s.Hold(&st, k.from, k.amount)
				live = append(live, n)
			}
		})
	}
	endUntil(until)
	see(until, func() {})
	return calls, samples
}

func anyCall(call) bool { return true }

// holds is one hour's tokens, reserved and settled.
func holds() string {
	s := &limit.Spec{Algorithm: limit.FixedWindow, Limit: 10_000, Window: hour}
	at := func(m, s limit.Micros) limit.Micros { return epoch + m*minute + s*second }
	calls, samples := run(s, []call{
		{from: at(0, 30), until: at(1, 30), amount: 6_000, actual: 2_000},
		{from: at(2, 30), until: at(3, 30), amount: 4_000, actual: 5_500},
		{from: at(4, 0), until: at(9, 0), amount: 2_000, actual: 500, lapses: true},
		{from: at(5, 0), until: at(5, 0), amount: 1_000, actual: 1_000},
		{from: at(9, 30), until: at(10, 30), amount: 1_000, actual: 400},
	}, epoch, at(11, 30))
	c := newChart(head+54*px, 200*px, 11_500, epoch, at(11, 30))
	c.axis(c.span, minute, head+24*px, c.zero)
	c.area("held", samples, all)
	c.area("spent", samples, spent)
	c.levels(2_500, 10_000, "limit")
	c.curve(samples)
	// after returns the level from an instant on.
	after := func(t limit.Micros) tenths {
		y := c.zero
		for _, s := range samples {
			if s.at <= t {
				y = c.y(s.all)
			}
		}
		return y
	}
	for _, k := range calls {
		if k.status.Refused {
			y := c.y(10_800 * unit)
			c.vertical("no", c.x(k.from), y-3*px, y+3*px)
			c.arrow("no", c.x(k.from), c.x(k.from+k.status.RetryAfter), y)
			c.text(c.x(k.from), y-10*px, start, "small",
				fmt.Sprintf("%s refused: room comes when the lease lapses, or before", thousands(k.amount)))
			continue
		}
		if k.lapses {
			c.text(c.x(k.from)+4*px, after(k.from)+14*px, start, "small", fmt.Sprintf("hold %s, and crash", thousands(k.amount)))
			c.text(c.x(k.until)-4*px, after(k.from)+14*px, end, "small", "lapse: "+thousands(k.actual)+" charged")
			continue
		}
		c.text(c.x(k.from)+4*px, after(k.from)-5*px, start, "small", "hold "+thousands(k.amount))
		c.text(c.x(k.until)+4*px, after(k.until)-5*px, start, "small", "settle "+thousands(k.actual))
	}
	c.text(c.right+8*px, c.zero-60*px, start, "small", "strong: spent")
	c.text(c.right+8*px, c.zero-45*px, start, "small", "pale: held")
	return c.titled(c.zero+30*px, "Holds: 10,000 tokens per hour",
		"Four calls reserve tokens: one is settled with less, one with more, one crashes and lapses after five minutes.")
}

// concurrency is three places, and who has them.
func concurrency() string {
	s := &limit.Spec{Algorithm: limit.Concurrency, Limit: 3}
	at := func(m, s limit.Micros) limit.Micros { return epoch + m*minute + s*second }
	calls, samples := run(s, []call{
		{from: at(0, 20), until: at(2, 0), amount: 1, actual: 1},
		{from: at(0, 50), until: at(5, 50), amount: 1, actual: 1, lapses: true},
		{from: at(1, 10), until: at(3, 10), amount: 1, actual: 1},
		{from: at(1, 40), until: at(1, 40), amount: 1, actual: 1},
		{from: at(2, 10), until: at(4, 20), amount: 1, actual: 1},
		{from: at(2, 40), until: at(2, 40), amount: 1, actual: 1},
		{from: at(3, 30), until: at(6, 30), amount: 1, actual: 1},
		{from: at(4, 0), until: at(4, 0), amount: 1, actual: 1},
		{from: at(4, 40), until: at(7, 20), amount: 1, actual: 1},
		{from: at(5, 20), until: at(5, 20), amount: 1, actual: 1},
		{from: at(6, 0), until: at(7, 40), amount: 1, actual: 1},
	}, epoch, at(8, 0))
	c := newChart(head+132*px, 80*px, 4, epoch, at(8, 0))
	const top, pitch = head + 28*px, 26 * px
	c.axis(c.span, minute, head+24*px, c.zero)
	var free [3]limit.Micros // when each place is
	refusals := ""
	for _, k := range calls {
		if k.status.Refused {
			refusals += fmt.Sprintf("M%v %vv9", c.x(k.from), top+3*pitch+2*px)
			continue
		}
		place := 0
		for free[place] > k.from {
			place++
		}
		free[place] = k.until
		class, says := "bar", ""
		if k.lapses {
			class, says = "lost", "crashed; its lease lapses after 5 minutes"
		}
		y := top + tenths(place)*pitch
		c.bar(class, c.x(k.from), y, c.x(k.until)-c.x(k.from), 18*px)
		c.text(c.x(k.from)+8*px, y+13*px, start, "small", says)
	}
	for i := range tenths(3) {
		c.text(c.left-8*px, top+i*pitch+13*px, end, "small", fmt.Sprintf("place %d", i+1))
	}
	c.text(c.left-8*px, top+3*pitch+11*px, end, "small", "refused")
	c.path("no", refusals)
	c.area("area", samples, all)
	c.levels(1, 3, "limit 3")
	c.curve(samples)
	return c.titled(c.zero+30*px, "concurrency: 3 places",
		"Calls that run at the same time. A fourth is refused; a place is free again when its call ends or its lease lapses.")
}
