package main

import (
	"fmt"

	"github.com/rationhq/ration/internal/lanesim"
	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
)

// laneStyle has a colour for each tier of a lane. In the charts of waiting each has a shape of its own too.
const laneStyle = `
.tier0{fill:#8250df}.tier1{fill:#0969da}.tier2{fill:#d1570c}.bin{fill-opacity:.55;stroke:none}
.wait0{stroke:#8250df;stroke-width:5;stroke-linecap:round}.wait1{stroke:#0969da;stroke-width:2}.wait2{stroke:#d1570c;stroke-width:2.5}
@media (prefers-color-scheme:dark){
.tier0{fill:#ab7df8}.tier1{fill:#4493f8}.tier2{fill:#f0883e}
.wait0{stroke:#ab7df8}.wait1{stroke:#4493f8}.wait2{stroke:#f0883e}
}`

// marks are how one that waits is drawn: a dot, an upright stroke, a level one.
var marks = [3]string{"h0", "m0 -4v8", "m-4 0h8"}

// fiveASecond is what the lanes of the page drain at.
var fiveASecond = limit.Spec{Algorithm: limit.TokenBucket, Limit: 5, Burst: 1, Window: second}

var tierNames = [3]string{"free", "pro", "premium"}

func laneStrict() string {
	return tiers("strict, aging 10 s", lane.Spec{Aging: 10 * second},
		"Premium does not wait. Free and pro have what it leaves, and each a turn at least every 10 seconds.")
}

func laneWeighted() string {
	return tiers("weighted, premium 6 : pro 3 : free 1", lane.Spec{Weights: []int64{1, 3, 6}},
		"Each tier has its share while it wants it: premium, which wants more than its share, waits too.")
}

// flood is three tiers that ask for more than the lane lets through: free for 2 a second, pro for 1, and premium, for a while, for 4.
func flood(until limit.Micros) (callers []lanesim.Caller) {
	for tier, every := range [3]limit.Micros{second / 2, second, second / 4} {
		from, to := limit.Micros(tier)*10_000, until
		if tier == 2 {
			from, to = 15*second, 35*second
		}
		for i := limit.Micros(0); from+i*every < to; i++ {
			callers = append(callers, lanesim.Caller{
				Comes: from + i*every, Class: tier, Subject: 100*tier + int(i)%(40/(1+tier)), Wait: minute,
			})
		}
	}
	return callers
}

// tiers draws what a flood makes of three tiers in a lane: how many turns each has, and how long those wait who have them.
func tiers(order string, spec lane.Spec, what string) string {
	spec.Classes, spec.Most, spec.MostOfSubject = len(tierNames), 1000, 1000
	const until = 70 * second
	l := lanesim.Lane{Order: spec, Drain: &fiveASecond, TryTakes: 1000}
	fates := l.Play(flood(until), until)

	title := "A lane of 5 per second: " + order
	c := newChart(head+72*px, 110*px, 5, epoch, epoch+until)
	c.style = laneStyle
	c.text(16*px, 44*px, start, "soft", what)
	c.text(16*px, 62*px, start, "soft", "Free asks for 2 a second, pro for 1; from 0:15 to 0:35 premium asks for 4 more.")
	c.axis(c.span, 10*second, c.zero-c.height, c.zero)
	c.levels(1, 5, "drain")
	c.text(c.left, c.zero-c.height-8*px, start, "small", "turns in each second")
	var had [until / second][3]int64
	for _, f := range fates {
		if f.End == lanesim.Admitted && f.Ended < until {
			had[f.Ended/second][f.Class]++
		}
	}
	var bins [3]string
	for i, of := range had {
		from, to := c.x(epoch+limit.Micros(i)*second), c.x(epoch+limit.Micros(i+1)*second)
		level := int64(0)
		for tier, n := range of {
			if n > 0 {
				bins[tier] += fmt.Sprintf("M%v %vH%vV%vH%vZ", from+px/2, c.y(level*unit), to-px/2, c.y((level+n)*unit), from+px/2)
			}
			level += n
		}
	}
	for tier, d := range bins {
		c.path(fmt.Sprintf("bin tier%d", tier), d)
	}

	// Below that, on the same times, the c.
	c.zero, c.height, c.most = c.zero+208*px, 150*px, 30
	c.text(c.left, c.zero-c.height-8*px, start, "small", "how long those have waited, in seconds, who have their turn then")
	c.axis(c.span, 10*second, c.zero-c.height, c.zero)
	c.seconds(10, 30)
	says := what
	for tier, name := range tierNames {
		d, longest, turns := "", limit.Micros(0), 0
		for _, f := range fates {
			if f.End == lanesim.Admitted && f.Class == tier {
				d += fmt.Sprintf("M%v %v%s", c.x(epoch+f.Ended), c.wait(f.Waited()), marks[tier])
				longest, turns = max(longest, f.Waited()), turns+1
			}
		}
		c.path(fmt.Sprintf("wait%d", tier), d)
		y := c.zero - tenths(20+40*tier)*px
		c.path(fmt.Sprintf("wait%d", tier), fmt.Sprintf("M%v %v%s", c.right+10*px, y-4*px, marks[tier]))
		c.text(c.right+20*px, y, start, "plain", name)
		c.text(c.right+20*px, y+14*px, start, "small", fmt.Sprintf("%d s at most", (longest+second/2)/second))
		says += fmt.Sprintf(" %s: %d turns, waiting for at most %d s.", name, turns, (longest+second/2)/second)
	}
	return c.titled(c.zero+30*px, title, says)
}

// wait returns where a wait is drawn.
func (c *chart) wait(wait limit.Micros) tenths { return c.y(int64(wait) * unit / int64(second)) }

// seconds draws the lines at multiples of some seconds.
func (c *chart) seconds(every, most int64) {
	for n := int64(0); n <= most; n += every {
		c.horizontal("grid", c.left, c.right, c.y(n*unit))
		c.text(c.left-8*px, c.y(n*unit)+4*px, end, "small", fmt.Sprint(n))
	}
}

// laneBatch is one user's thousand calls, and 499 others with one each, in turn and in the order in which they come.
func laneBatch() string {
	const until = 300 * second
	callers := make([]lanesim.Caller, 1000, 1499)
	for i := range 499 {
		callers = append(callers, lanesim.Caller{Comes: second + limit.Micros(i)*230_000, Subject: i + 1})
	}
	spec := lane.Spec{Classes: 1, Aging: 10 * second, Most: lane.MaxTickets, MostOfSubject: lane.MaxTickets}
	l := lanesim.Lane{Order: spec, Drain: &fiveASecond, TryTakes: 1000}
	inTurn := l.Play(callers, until+second)
	for i := range callers {
		callers[i].Subject = 0 // first come first served is what one subject has
	}
	inOrder := l.Play(callers, until+second)

	title := "One user's batch of 1,000 beside 499 others, through 5 per second"
	c := newChart(head+54*px, 180*px, 240, epoch, epoch+until)
	c.style = laneStyle
	c.text(16*px, 44*px, start, "soft", "The batch comes at 0:00, and then for two minutes another user every 0.23 seconds. Each mark is one of the 499.")
	c.axis(c.span, minute, c.zero-c.height, c.zero)
	c.seconds(60, 240)
	c.text(c.left, c.zero-c.height-8*px, start, "small", "how long those have waited, in seconds, who have their turn then")
	says := ""
	for tier, run := range [][]*lanesim.Fate{inOrder, inTurn} {
		d, longest, from := "", limit.Micros(0), limit.Micros(0)
		for _, f := range run[1000:] {
			d += fmt.Sprintf("M%v %vv8", c.x(epoch+f.Ended), c.wait(f.Waited())-4*px)
			if f.Waited() > longest {
				longest = f.Waited()
			}
			from = max(from, f.Ended)
		}
		name := [2]string{"first come first served", "in turn"}[tier]
		says += fmt.Sprintf("%s the 499 wait for at most %d.%d s. ", name, longest/second, longest%second*10/second)
		c.path(fmt.Sprintf("wait%d", 2-tier), d)
		c.text(c.x(epoch+from)+tenths(tier)*10*px, c.wait(longest)-12*px+tenths(tier)*px, [2]string{end, start}[tier], "soft",
			fmt.Sprintf("%s: %d.%d s at most", name, longest/second, longest%second*10/second))
	}
	return c.titled(c.zero+30*px, title, says)
}
