package main

import (
	"fmt"
	"time"

	"github.com/rationhq/ration/limit"
)

// picture is one file of a page.
type picture struct {
	file string
	draw func() string
}

func pictures() []picture {
	return []picture{
		{"same-requests.svg", sameRequests},
		{"worst-minute.svg", worstMinute},
		{"token_bucket.svg", tokenBucket},
		{"sliding_window.svg", slidingWindow},
		{"sliding_log.svg", slidingLog},
		{"fixed_window.svg", fixedWindow},
		{"calendar.svg", calendar},
		{"concurrency.svg", concurrency},
		{"holds.svg", holds},
		{"lane-strict.svg", laneStrict},
		{"lane-weighted.svg", laneWeighted},
		{"lane-batch.svg", laneBatch},
	}
}

const (
	second = limit.Second
	minute = 60 * second
	hour   = 60 * minute
)

// epoch is where the time of most pictures begins: a full hour.
const epoch = limit.Micros(1_800_000_000) * second

// The limits of the page: 10 a minute.
func tenPerMinute(a limit.Algorithm) *limit.Spec {
	return &limit.Spec{Algorithm: a, Limit: 10, Burst: 10, Window: minute}
}

// everyday is what most pictures ask: twelve requests shortly before a minute ends, twelve more
// shortly after, and then one every four seconds.
func everyday() []limit.Micros {
	asked := burst(epoch+45*second, second, 12)
	asked = append(asked, burst(epoch+62*second, second, 12)...)
	return append(asked, burst(epoch+90*second, 4*second, 23)...)
}

// row is one algorithm among others.
type row struct {
	name  string
	spec  *limit.Spec
	asked []limit.Micros
}

// sameRequests puts the same requests to all algorithms.
func sameRequests() string {
	firstUse := tenPerMinute(limit.FixedWindow)
	firstUse.FirstUse = true
	small := tenPerMinute(limit.TokenBucket)
	small.Burst = 3
	asked := everyday()
	return compared("The same requests, put to each algorithm",
		"Ticks above the line were admitted, ticks below it refused. All limits are 10 per minute.",
		3*minute, asked, []row{
			{"fixed_window", tenPerMinute(limit.FixedWindow), asked},
			{"fixed_window, first use", firstUse, asked},
			{"sliding_window", tenPerMinute(limit.SlidingWindow), asked},
			{"sliding_log", tenPerMinute(limit.SlidingLog), asked},
			{"token_bucket, burst 10", tenPerMinute(limit.TokenBucket), asked},
			{"token_bucket, burst 3", small, asked},
		})
}

// worstMinute asks each algorithm so that most is admitted within a minute.
func worstMinute() string {
	return compared("The most that each algorithm admits within one minute",
		"Requests timed to get the most out of 10 per minute. Brackets show the busiest minute.",
		3*minute, nil, worstRows())
}

func worstRows() []row {
	const soon = second / 10
	edge := append(burst(epoch+minute-10*soon, soon, 10), burst(epoch+minute, soon, 10)...)
	firstUse := tenPerMinute(limit.FixedWindow)
	firstUse.FirstUse = true
	// Ten at once, and then one a second.
	eager := append(burst(epoch+30*second, soon, 10), burst(epoch+31*second, second, 100)...)
	early := append([]limit.Micros{epoch + 30*second}, burst(epoch+90*second-9*soon, soon, 9)...)
	return []row{
		{"fixed_window", tenPerMinute(limit.FixedWindow), edge},
		{"fixed_window, first use", firstUse, append(early, burst(epoch+90*second, soon, 10)...)},
		{
			"sliding_window", tenPerMinute(limit.SlidingWindow),
			append(burst(epoch+minute-10*soon, 1, 10), burst(epoch+2*minute-11*soon, 1, 10)...),
		},
		{"sliding_log", tenPerMinute(limit.SlidingLog), eager},
		{"token_bucket, burst 10", tenPerMinute(limit.TokenBucket), eager},
	}
}

// compared draws rows below one another, with the numbers that follow.
func compared(title, subtitle string, length limit.Micros, asked []limit.Micros, rows []row) string {
	var c canvas
	s := span{left: 168 * px, right: 592 * px, begin: epoch, until: epoch + length}
	c.text(16*px, 26*px, start, "strong", title)
	c.text(16*px, 44*px, start, "soft", subtitle)
	const pitch = 44 * px
	y := 66 * px
	top := y
	c.text(648*px, y+5*px, end, "small", "admitted")
	c.text(744*px, y+5*px, end, "small", "busiest minute")
	bottom := y + tenths(len(rows))*pitch + 12*px
	if asked != nil {
		bottom += pitch - 12*px
	}
	c.axis(s, 30*second, top, bottom)
	y += 34 * px
	if asked != nil {
		c.text(16*px, y, start, "soft", "asked")
		d := ""
		for _, t := range asked {
			d += fmt.Sprintf("M%v %vv-15", s.x(t), y)
		}
		c.horizontal("grid", s.left, s.right, y)
		c.path("asked", d)
		c.text(648*px, y, end, "soft", fmt.Sprint(len(asked)))
		y += pitch
	}
	says := subtitle
	for _, r := range rows {
		outcomes, _ := ask(r.spec, r.asked, s.begin, s.until, s.step())
		most, from, to := busiest(outcomes, minute)
		c.text(16*px, y, start, "plain", r.name)
		c.ticks(s, outcomes, y)
		c.bracket("mark", s.x(from)-3*px, max(s.x(to), s.x(from))+3*px, y-23*px)
		c.text(648*px, y, end, "plain", fmt.Sprint(admitted(outcomes)))
		c.text(744*px, y, end, "strong", fmt.Sprint(most))
		says += fmt.Sprintf(" %s: %d admitted, at most %d in one minute.", r.name, admitted(outcomes), most)
		y += pitch
	}
	return c.svg(bottom+28*px, title, says)
}

const described = " Above, which of the same requests are admitted; below, how full the limit is."

func tokenBucket() string {
	s := tenPerMinute(limit.TokenBucket)
	s.Burst = 5
	c := newChart(head+78*px, 120*px, 6, epoch, epoch+3*minute)
	outcomes, samples := ask(s, everyday(), c.begin, c.until, c.step())
	c.axis(c.span, 30*second, head+24*px, c.zero)
	c.requests(outcomes, head+40*px)
	c.area("area", samples, all)
	c.levels(1, 5, "burst 5")
	c.curve(samples)
	c.waits(outcomes, c.y(6*unit)+4*px)
	return c.titled(c.zero+30*px, "token_bucket: 10 per minute, burst 5",
		"The bucket fills with each request and drains steadily, one unit in six seconds."+described)
}

func slidingWindow() string {
	s := tenPerMinute(limit.SlidingWindow)
	c := newChart(head+78*px, 130*px, 12, epoch, epoch+3*minute)
	outcomes, samples := ask(s, everyday(), c.begin, c.until, c.step())
	c.axis(c.span, 30*second, head+24*px, c.zero)
	c.requests(outcomes, head+40*px)
	c.area("area", samples, all)
	c.area("before", samples, before)
	c.levels(5, 10, "limit 10")
	for t := c.begin + minute; t < c.until; t += minute {
		c.vertical("edge", c.x(t), head+64*px, c.zero)
	}
	c.curve(samples)
	c.waits(outcomes, c.y(11*unit))
	c.text(c.right+8*px, c.y(3*unit), start, "small", "violet: the")
	c.text(c.right+8*px, c.y(3*unit)+14*px, start, "small", "window before")
	return c.titled(c.zero+30*px, "sliding_window: 10 per minute",
		"What was counted in the minute before fades steadily; this minute's count stands on top of it."+described)
}

func slidingLog() string {
	s := tenPerMinute(limit.SlidingLog)
	c := newChart(head+78*px, 130*px, 12, epoch, epoch+3*minute)
	outcomes, samples := ask(s, everyday(), c.begin, c.until, c.step())
	c.axis(c.span, 30*second, head+24*px, c.zero)
	c.requests(outcomes, head+40*px)
	c.area("area", samples, all)
	c.levels(5, 10, "limit 10")
	c.curve(samples)
	c.waits(outcomes, c.y(11*unit))
	return c.titled(c.zero+30*px, "sliding_log: 10 per minute",
		"Each request is forgotten exactly one minute after it was admitted."+described)
}

func fixedWindow() string {
	aligned, firstUse := tenPerMinute(limit.FixedWindow), tenPerMinute(limit.FixedWindow)
	firstUse.FirstUse = true
	const pitch = 190 * px
	c := newChart(head+78*px, 110*px, 12, epoch, epoch+3*minute)
	bottom := c.zero + pitch
	c.axis(c.span, 30*second, head+24*px, bottom)
	for _, part := range []struct {
		spec  *limit.Spec
		names [2]string
	}{{aligned, [2]string{"aligned", "windows"}}, {firstUse, [2]string{"starts:", "first_use"}}} {
		outcomes, samples := ask(part.spec, everyday(), c.begin, c.until, c.step())
		c.requests(outcomes, c.y(12*unit)-38*px)
		c.area("area", samples, all)
		c.levels(5, 10, "limit 10")
		for _, t := range edges(part.spec, outcomes) {
			if c.begin < t && t < c.until {
				c.vertical("edge", c.x(t), c.y(12*unit)-14*px, c.zero)
			}
		}
		c.curve(samples)
		c.text(c.right+8*px, c.y(3*unit), start, "small", part.names[0])
		c.text(c.right+8*px, c.y(3*unit)+14*px, start, "small", part.names[1])
		c.waits(outcomes, c.y(11*unit))
		c.zero += pitch
	}
	return c.titled(bottom+30*px, "fixed_window: 10 per minute",
		"The count begins anew with each minute of the clock, or in the second part a minute after the first request."+described)
}

// edges returns where the windows in which something was admitted begin and end.
func edges(s *limit.Spec, outcomes []outcome) (all []limit.Micros) {
	ends := limit.Micros(0)
	for _, o := range outcomes {
		if !o.admitted || o.at < ends {
			continue
		}
		begins := o.at
		if !s.FirstUse {
			begins = s.Start(o.at)
		}
		ends = begins + s.Window
		all = append(all, begins, ends)
	}
	return all
}

func calendar() string {
	berlin, err := limit.ParseCalendar("day;Europe/Berlin")
	if err != nil {
		panic(err) // the zones are part of the program
	}
	s := &limit.Spec{Algorithm: limit.CalendarWindow, Limit: 10, Calendar: berlin}
	at := func(day int) limit.Micros { return limit.At(time.Date(2026, 10, day, 0, 0, 0, 0, berlin.Zone)) }
	c := newChart(head+78*px, 110*px, 12, at(24), at(27))
	asked := burst(c.begin+30*minute, 2*hour, 36)
	outcomes, samples := ask(s, asked, c.begin, c.until, c.step())
	c.requests(outcomes, head+40*px)
	c.area("area", samples, all)
	c.levels(5, 10, "limit 10")
	c.curve(samples)
	for start := c.begin; start < c.until; {
		_, end := berlin.Bounds(start)
		c.vertical("edge", c.x(start), head+24*px, c.zero+4*px)
		from := start.Time().In(berlin.Zone)
		c.text((c.x(start)+c.x(end))/2, c.zero+18*px, middle, "plain", from.Format("Monday, 2 January"))
		c.text((c.x(start)+c.x(end))/2, c.zero+33*px, middle, "small",
			fmt.Sprintf("%d hours, from 00:00 %s", (end-start)/hour, from.Format("-07:00")))
		start = end
	}
	c.vertical("edge", c.x(c.until), head+24*px, c.zero+4*px)
	return c.titled(c.zero+46*px, "calendar: 10 per day in Europe/Berlin",
		"Three days, the second of which has 25 hours. The count begins anew at each midnight of Berlin."+described)
}
