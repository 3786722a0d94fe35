package main

import (
	"fmt"

	"github.com/rationhq/ration/limit"
)

// span is a time and the place where it is drawn.
type span struct {
	left, right  tenths
	begin, until limit.Micros
}

func (s span) x(t limit.Micros) tenths {
	t = min(max(t, s.begin), s.until)
	return s.left + tenths(limit.Micros(s.right-s.left)*(t-s.begin)/(s.until-s.begin))
}

// step is the time that half a pixel takes.
func (s span) step() limit.Micros { return (s.until - s.begin) / limit.Micros((s.right-s.left)/(px/2)) }

// clock writes a time as minutes and seconds: "1:30".
func clock(t limit.Micros) string {
	return fmt.Sprintf("%d:%02d", (t-epoch)/minute, (t-epoch)%minute/second)
}

// axis draws times below a plot, and lines up through it.
func (c *canvas) axis(s span, every limit.Micros, top, bottom tenths) {
	for t := s.begin; t <= s.until; t += every {
		c.vertical("grid", s.x(t), top, bottom)
		c.text(s.x(t), bottom+15*px, middle, "small", clock(t))
	}
}

// ticks draws what became of requests, on both sides of a line.
func (c *canvas) ticks(s span, outcomes []outcome, y tenths) {
	var yes, no string
	for _, o := range outcomes {
		if o.admitted {
			yes += fmt.Sprintf("M%v %vv-15", s.x(o.at), y)
		} else {
			no += fmt.Sprintf("M%v %vv7", s.x(o.at), y+px)
		}
	}
	c.horizontal("grid", s.left, s.right, y)
	c.path("yes", yes)
	if no != "" {
		c.path("no", no)
	}
}

// head is the room above a chart, for its title.
const head = 24 * px

// chart is how full one limit gets over time, below what became of the requests.
type chart struct {
	canvas
	span
	zero, height tenths // where 0 is drawn, and how far above it most is
	most         int64  // units
}

// titled returns the picture with its title above the chart.
func (c *chart) titled(height tenths, title, description string) string {
	c.text(16*px, 26*px, start, "strong", title)
	return c.svg(height, title, description)
}

func (c *chart) y(level int64) tenths {
	return c.zero - tenths(int64(c.height)*level/(c.most*unit))
}

// levels draws the lines at multiples of some units, and the limit.
func (c *chart) levels(every, limit int64, name string) {
	for n := int64(0); n <= limit; n += every {
		c.horizontal("grid", c.left, c.right, c.y(n*unit))
		c.text(c.left-8*px, c.y(n*unit)+4*px, end, "small", thousands(n))
	}
	c.horizontal("limit", c.left, c.right, c.y(limit*unit))
	c.text(c.right+8*px, c.y(limit*unit)+4*px, start, "soft", name)
}

func thousands(n int64) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}

// area fills from zero to what f says of the samples.
func (c *chart) area(class string, samples []sample, f func(sample) int64) {
	points := []point{{c.x(samples[0].at), c.zero}}
	for _, s := range samples {
		points = append(points, point{c.x(s.at), c.y(f(s))})
	}
	points = append(points, point{points[len(points)-1].x, c.zero})
	c.path(class, line(points)+"Z")
}

// curve draws how full the limit is.
func (c *chart) curve(samples []sample) {
	var points []point
	for _, s := range samples {
		points = append(points, point{c.x(s.at), c.y(s.all)})
	}
	c.path("level", line(points))
}

func all(s sample) int64    { return s.all }
func before(s sample) int64 { return s.before }
func spent(s sample) int64  { return s.all - s.held }

func newChart(top, height tenths, most int64, begin, until limit.Micros) *chart {
	return &chart{
		span: span{left: 84 * px, right: 664 * px, begin: begin, until: until},
		zero: top + height, height: height, most: most,
	}
}

// requests draws what became of the requests above the chart.
func (c *chart) requests(outcomes []outcome, y tenths) {
	c.text(c.left-8*px, y-5*px, end, "small", "admitted")
	c.text(c.left-8*px, y+9*px, end, "small", "refused")
	c.ticks(c.span, outcomes, y)
}

// waits draws how long the first refused request has to wait.
func (c *chart) waits(outcomes []outcome, y tenths) {
	for _, o := range outcomes {
		if o.admitted {
			continue
		}
		c.vertical("no", c.x(o.at), y-3*px, y+3*px)
		c.arrow("no", c.x(o.at), c.x(o.at+o.wait), y)
		tenthsOfSecond := (o.wait + second/20) / (second / 10)
		c.text(c.x(o.at+o.wait)+6*px, y+4*px, start, "small",
			fmt.Sprintf("retry_after %d.%d s", tenthsOfSecond/10, tenthsOfSecond%10))
		return
	}
}
