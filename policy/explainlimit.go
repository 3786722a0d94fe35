package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rationhq/ration/limit"
)

// explainTiers adds a line that lists the tiers of the domain.
func (d *Domain) explainTiers(lines []string) []string {
	if len(d.tiers) == 0 {
		return lines
	}
	names := make([]string, len(d.tiers))
	for i := range d.tiers {
		names[i] = word(d.tiers[i].Name)
	}
	says := fmt.Sprintf("  tiers: %s; ", enumerate(names))
	if payers := d.root.payers(nil); len(payers) > 0 {
		const most = 3 // that are worth naming
		if len(payers) > most {
			payers = append(payers[:most], "others")
		}
		says += fmt.Sprintf("the subject is %s; ", alternatives(payers))
	}
	says += fmt.Sprintf("who is unknown is in %s", names[0])
	if d.trustsTier {
		says += "; a request may name its tier"
	}
	return append(lines, says)
}

// payers adds whom the subjects below n are.
func (n *node) payers(whoms []string) []string {
	for _, c := range n.ordered {
		if c.subject {
			whoms = append(whoms, c.whom())
		} else {
			whoms = c.payers(whoms)
		}
	}
	return whoms
}

// Explain says in plain words what the limit means: in a line, or, where tiers differ, in one with a
// further line for each tier.
func (l *Limit) Explain() []string {
	head := fmt.Sprintf("%s (limit %s)", l.whom(), l.Path)
	notes := ""
	for _, n := range l.notes() {
		notes += "; " + n
	}
	if len(l.quantities) == 1 {
		return []string{head + ": " + l.allows(l.quantities[0]) + notes}
	}
	lines := []string{head + ", by tier" + notes}
	for i, q := range l.quantities {
		lines = append(lines, fmt.Sprintf("  %s: %s", word(l.tiers[i].Name), l.allows(q)))
	}
	return lines
}

// whom says whose counter it is.
func (l *Limit) whom() string {
	switch {
	case l.upstream != nil:
		models := make([]string, len(l.upstream.models))
		for i, m := range l.upstream.models {
			models[i] = word(m.value)
		}
		return fmt.Sprintf("all requests together to upstream %s, which serves %s", word(l.upstream.Name), enumerate(models))
	case l.lane != nil:
		return fmt.Sprintf("all calls in lane %s together", word(l.lane.Name))
	case l.node.parent == nil:
		return "all requests of the domain together"
	}
	return l.node.whom()
}

// Allows says in words how much the limit admits to a tier, given by its index in [Domain.Tiers]: "10
// requests per minute, flowing steadily, up to 5 at once".
func (l *Limit) Allows(tier int) string { return l.allows(l.For(tier)) }

func (l *Limit) allows(q *Quantity) string {
	if q == nil {
		return "unlimited and not counted"
	}
	s := &q.Spec
	if s.Capacity() == 0 {
		return "no " + l.Meter.Unit() + " at all"
	}
	says := []string{l.rate(s)}
	if s.Headroom > 0 {
		says = append(says, fmt.Sprintf("of which these callers may use %s", l.Meter.Number(s.Ceiling())))
	}
	if q.PerRequest > 0 {
		says = append(says, fmt.Sprintf("at most %s in one request", l.Meter.Number(q.PerRequest)))
	}
	return strings.Join(says, ", ")
}

// rate says how much a spec admits in what time.
func (l *Limit) rate(s *limit.Spec) string {
	units := l.Meter.Amount(s.Limit)
	per := lengthInWords(s.Window)
	switch s.Algorithm {
	case limit.TokenBucket:
		return fmt.Sprintf("%s per %s, flowing steadily, up to %s at once", units, per, l.Meter.Number(s.Burst))
	case limit.SlidingWindow:
		return fmt.Sprintf("%s per sliding %s, estimated from two windows", units, per)
	case limit.SlidingLog:
		return fmt.Sprintf("%s in any %s, exactly", units, per)
	case limit.FixedWindow:
		if s.FirstUse {
			return fmt.Sprintf("%s per %s, which begins with the first use", units, per)
		}
		return fmt.Sprintf("%s per %s, %s", units, per, alignedWindow(s.Window, per))
	case limit.CalendarWindow:
		return fmt.Sprintf("%s per %s", units, l.calendarInWords(s.Calendar))
	case limit.Concurrency:
		return units + " at the same time"
	}
	return s.Algorithm.String()
}

// alignedWindow says where the windows of that length begin.
func alignedWindow(length limit.Micros, per string) string {
	for u := Second; u <= Week; u++ {
		if u.Window() == length && u.String() == per {
			return u.aligned()
		}
	}
	return "in windows counted from 1970-01-01 UTC on"
}

// periodNames name the periods of a calendar.
var periodNames = [...]string{
	limit.PerMinute: "minute", limit.PerHour: "hour", limit.PerDay: "day", limit.PerWeek: "week",
	limit.PerMonth: "month", limit.PerYear: "year",
}

// calendarInWords says a period of the limit's calendar: "calendar month (UTC)".
func (l *Limit) calendarInWords(c *limit.Calendar) string {
	zone := zoneName(c.Zone)
	if l.SubjectZone {
		zone = "the subject's time zone, else " + zone
	}
	begins := ""
	switch {
	case c.Period == limit.PerWeek:
		begins = ", from " + c.WeekStart.String() + " on"
	case c.Period == limit.PerMonth && l.SubjectAnchor:
		begins = fmt.Sprintf(", from the subject's billing day on, else day %d", max(1, c.Anchor))
	case c.Period == limit.PerYear && l.SubjectAnchor:
		month := max(time.January, c.AnchorMonth)
		begins = fmt.Sprintf(", from the subject's billing day in %s on, else %[1]s %d", month, max(1, c.Anchor))
	case c.Period == limit.PerMonth && c.Anchor > 1:
		begins = fmt.Sprintf(", from day %d on", c.Anchor)
	case c.Period == limit.PerYear && (c.Anchor > 1 || c.AnchorMonth > time.January):
		begins = fmt.Sprintf(", from %s %d on", max(time.January, c.AnchorMonth), max(1, c.Anchor))
	}
	return fmt.Sprintf("calendar %s (%s)%s", periodNames[c.Period], zone, begins)
}

// notes say what else there is to the limit.
func (l *Limit) notes() (notes []string) {
	for _, n := range []struct {
		holds bool
		says  string
	}{
		{l.Shadow, "in shadow, so counted and reported but never refused"},
		{l.any() != nil && len(l.any().warnAt) > 0, "a warning is due at " + sharesInWords(l.WarnAt)},
		{l.Clamp, "a request that is too large is admitted with less output"},
		{l.CountDenied, "refused requests count too"},
		{l.CountCacheRead, "cache reads count as input"},
		{l.CountAsked, "what was asked for counts, whatever is used"},
		{l.OnLapse == LapseAll, "a hold that nobody settles stays charged"},
		{l.OnLapse == LapseNothing, "a hold that nobody settles is given back"},
		{l.OnStoreError == StoreErrorDeny && !l.Shadow, "refused while the store cannot decide"},
		{l.OnStoreError == StoreErrorFail && !l.Shadow, "an error while the store cannot decide"},
		{l.OnStoreError == StoreErrorLocal && !l.Shadow, fmt.Sprintf("while the store cannot decide, each replica admits %v of it by itself", l.LocalShare)},
		{l.Meter == InFlight, "over Envoy a place is taken only where `ration.request` names the request, else just looked for"},
	} {
		if n.holds {
			notes = append(notes, n.says)
		}
	}
	return notes
}

func sharesInWords(shares []Share) string {
	words := make([]string, len(shares))
	for i, s := range shares {
		words[i] = s.String()
	}
	return enumerate(words)
}

// grouped writes an amount with commas: 50,000.
func grouped(n int64) string { return commas(strconv.FormatInt(n, 10)) }

// commas puts a comma before every third digit from the end.
func commas(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
