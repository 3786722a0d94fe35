package engine

import (
	"context"
	"fmt"
	"math/bits"
	"time"

	"github.com/rationhq/ration/limit"
)

// Standing says how every limit stands for a caller, and changes nothing: also for one whose calls are refused whatever the
// limits say, for which d.Bar says why. Its errors are those of [Engine.Check].
func (e *Engine) Standing(ctx context.Context, c *Caller, d *Decision) error {
	*d = Decision{Statuses: d.Statuses[:0], Limits: d.Limits[:0]}
	_, domain, err := e.domainOf(ctx, c)
	if err != nil {
		return err
	}
	s := e.scratch.Get().(*scratch)
	defer e.release(s)
	if err := e.findPlaces(ctx, domain, c, d, s, c.Model); err != nil {
		return err
	}
	bar := d.Bar
	d.Bar, s.now = BarNone, time.Now()
	var want demand
	want.charge.add(requests, 0)
	e.askPlaces(&want, d, s)
	s.onlyLook(e.opts.Shadow)
	err = e.askWhole(ctx, s, d)
	d.Bar = bar
	return err
}

// Forecast returns how long the limit lasts if it is used on as in its period until now, and false where it lasts
// until the period ends, where nothing was used, and for limits that have no period.
func (a *Applied) Forecast(now limit.Micros) (lasts limit.Micros, ends bool) {
	spec := &a.Quantity.Spec
	if a.Unavailable || a.Status.Used <= 0 || spec.Algorithm != limit.FixedWindow && spec.Algorithm != limit.CalendarWindow {
		return 0, false
	}
	end := now + a.Status.ResetAfter
	start := end - spec.Window
	if spec.Calendar != nil {
		start, end = spec.Calendar.Bounds(now)
	}
	hi, lo := bits.Mul64(uint64(max(0, a.Status.Remaining)), uint64(max(0, now-start)))
	if hi >= uint64(a.Status.Used) {
		return 0, false
	}
	wait, _ := bits.Div64(hi, lo, uint64(a.Status.Used))
	if wait >= uint64(end-now) {
		return 0, false
	}
	return limit.Micros(wait), true
}

// ForecastWords says a forecast: "exhausted in 3 d 4 h at this rate".
func ForecastWords(lasts limit.Micros) string {
	if lasts == 0 {
		return "exhausted"
	}
	seconds := lasts.Seconds()
	for _, unit := range []struct {
		seconds     int64
		name, minor string
		part        int64
	}{{86_400, "d", "h", 3600}, {3600, "h", "min", 60}, {60, "min", "s", 1}} {
		if seconds >= unit.seconds {
			text := fmt.Sprintf("exhausted in %d %s", seconds/unit.seconds, unit.name)
			if rest := seconds % unit.seconds / unit.part; rest > 0 {
				text += fmt.Sprintf(" %d %s", rest, unit.minor)
			}
			return text + " at this rate"
		}
	}
	return fmt.Sprintf("exhausted in %d s at this rate", seconds)
}
