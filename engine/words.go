package engine

import (
	"fmt"
	"strings"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// Message says to the user of a refused request what stopped it and what to do.
func (d *Decision) Message() string {
	binding := d.Binding()
	switch {
	case d.Waiting.refuses():
		return d.Waiting.message()
	case d.Bar == BarSuspended:
		return "This request is not allowed: the account is suspended."
	case d.Bar == BarUnknown:
		return "This request is not allowed: nobody knows who makes it. Send an API key that is valid."
	case d.Reused:
		return "This request is not allowed: its id was used before by another one."
	case binding < 0:
		return ""
	}
	s := &d.Statuses[binding]
	if a := s.Applied; a != nil {
		return a.message(d) + d.smaller()
	}
	switch {
	case s.Limit.Spec.Limit == 0:
		return "This request is not allowed: its limit is zero."
	case s.Never():
		return fmt.Sprintf("Request too large: %d at once, of at most %s.", s.Amount, s.Limit.Words())
	}
	return fmt.Sprintf("Rate limit reached: %s. Try again in %s.", s.Limit.Words(), waitWords(s.ResetAfter.Seconds()))
}

// message says to the user of a request that had no turn how it has waited: "Waited 30 s, third in line. Try again in about
// 8 s."
func (w *Waiting) message() string {
	text := "Too many requests wait for their turn already."
	switch {
	case w.Ended == LineFullOfSubject:
		text = "Too many of your requests wait for their turn already."
	case w.Ended == WaitedTooLong && w.Position > 0:
		text = fmt.Sprintf("Waited %s, %s in line.", waitWords(int64(w.For.Round(time.Second)/time.Second)), ordinal(w.Position))
	case w.Ended == WaitedTooLong:
		text = fmt.Sprintf("Waited %s in line.", waitWords(int64(w.For.Round(time.Second)/time.Second)))
	}
	if w.Expected > 0 {
		return text + fmt.Sprintf(" Try again in about %s.", waitWords(w.retryAfter().Seconds()))
	}
	return text + " Try again soon."
}

// ordinal says a number as people do who stand in line.
func ordinal(n int) string {
	if words := [...]string{"first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"}; n <= len(words) {
		return words[n-1]
	}
	switch {
	case n/10%10 == 1:
	case n%10 == 1:
		return fmt.Sprintf("%dst", n)
	case n%10 == 2:
		return fmt.Sprintf("%dnd", n)
	case n%10 == 3:
		return fmt.Sprintf("%drd", n)
	}
	return fmt.Sprintf("%dth", n)
}

// smaller says how much output would fit, where a smaller request would.
func (d *Decision) smaller() string {
	if d.Verdict() != Impossible || !d.Bounded || d.MaxOutput == 0 {
		return ""
	}
	return fmt.Sprintf(" At most %s would fit.", policy.OutputTokens.Amount(d.MaxOutput))
}

// message says what stopped a request at one of the policy's own limits. The policy may have words
// of its own for it.
func (a *Applied) message(d *Decision) string {
	q, now, zone := a.Quantity, d.Now, d.Zone
	if zone == nil {
		zone = q.Zone()
	}
	plan := ""
	if name := a.Limit.TierName(a.Tier); name != "" {
		plan = " on the " + name + " plan"
	}
	meter, ceiling := a.Limit.Meter, q.Spec.Ceiling()
	switch {
	case a.Unavailable:
		return fmt.Sprintf("Limits cannot be checked at the moment. Try again in %s.", waitWords(a.Status.RetryAfter.Seconds()))
	case a.Unpriced != "":
		return a.unpricedMessage()
	case q.Message != "":
		return q.Message
	case a.TooLarge:
		return fmt.Sprintf("Request too large: %s, %s per request%s.", meter.Amount(a.Amount), meter.Number(q.PerRequest), plan)
	case ceiling == 0:
		return fmt.Sprintf("This request is not allowed%s: its limit is zero.", plan)
	case a.Status.Never:
		return fmt.Sprintf("Request too large: %s at once, of at most %s%s.", meter.Amount(a.Amount), meter.Number(ceiling), plan)
	case meter == policy.InFlight:
		return fmt.Sprintf("Too many requests at once: at most %s%s. Try again when one of them has ended.", meter.Number(ceiling), plan)
	case a.verdict(d.longestRetry()) == Exhausted:
		left := ""
		if a.Status.Remaining > 0 {
			left = fmt.Sprintf("; %s left", meter.Number(a.Status.Remaining))
		}
		return fmt.Sprintf("%s used up: %s of %s%s. Resets %s.", q.Quota(meter), meter.Number(a.Status.Used+a.Status.Held),
			meter.Amount(ceiling), left, instantWords(now, now+a.Status.RetryAfter, zone))
	}
	return fmt.Sprintf("Rate limit reached: %s%s. Try again in %s.", q.Rate(meter), plan, waitWords(a.Status.RetryAfter.Seconds()))
}

func (a *Applied) unpricedMessage() string {
	if a.Unpriced == unnamedModel {
		return "This request is not allowed: it does not say which model it is for, so that nobody knows what it costs."
	}
	text := fmt.Sprintf("This request is not allowed: the model %.100s has no price here.", a.Unpriced)
	if name := a.book.Nearest(a.Unpriced); name != "" {
		text += fmt.Sprintf(" Did you mean %s?", name)
	}
	return text
}

// Warnings says what the caller should know of usage that was reported, although it landed.
func (o *Settlement) Warnings() []string {
	all := o.Decision.Warnings()
	switch {
	case o.Unpriced == "":
	case o.Unpriced == unnamedModel:
		all = append(all, "Nobody says which model has served: no money was charged.")
	case o.Price.Known:
		all = append(all, fmt.Sprintf("The model %.100s has no price here: the price of the one that was reserved was charged.", o.Unpriced))
	default:
		all = append(all, fmt.Sprintf("The model %.100s has no price here: no money was charged.", o.Unpriced))
	}
	return all
}

// Warnings says of the limits of which so much is used that a warning is due, how much: "You have used 83 % of your
// monthly budget."
func (d *Decision) Warnings() (all []string) {
	for i := range d.Limits {
		if text := d.Limits[i].warning(); text != "" {
			all = append(all, text)
		}
	}
	return all
}

func (a *Applied) warning() string {
	due := a.Quantity.Warnings()
	ceiling := a.Quantity.Spec.Ceiling()
	if a.Unavailable || a.Limit.Shadow || len(due) == 0 || a.Status.Used < due[0] || ceiling == 0 {
		return ""
	}
	return fmt.Sprintf("You have used %d %% of your %s.", percentOf(a.Status.Used, ceiling), withinSentence(a.Quantity.Quota(a.Limit.Meter)))
}

// withinSentence begins with a small letter what begins sentences elsewhere: "monthly budget".
func withinSentence(quota string) string { return strings.ToLower(quota[:1]) + quota[1:] }

// Text says in lines what applies to the call, and why.
func (x *Explanation) Text() []string {
	lines := []string{"The call would be admitted."}
	if x.Over {
		lines[0] = x.Message()
	}
	if x.Tier != nil {
		by := map[TierSource]string{
			TierByDefault: "nobody has said another", TierByPolicy: "the policy says so",
			TierByDirectory: "the directory of subjects says so", TierByCaller: "the caller says so",
		}
		lines = append(lines, fmt.Sprintf("It is made on the %s plan: %s.", x.Tier.Name, by[x.TierFrom]))
	}
	if len(x.Reasons) == 0 {
		return append(lines, "No limit applies to it.")
	}
	for i := range x.Reasons {
		lines = append(lines, x.Reasons[i].text(x.Now, x.Zone)...)
	}
	return lines
}

// text says how one limit stands, where it is written, and what it means there.
func (r *Reason) text(now limit.Micros, zone *time.Location) []string {
	why := "everybody"
	if len(r.Because) > 0 {
		why = strings.Join(r.Because, ", ")
	}
	var path, state string
	if a := r.Applied; a != nil {
		if path = a.Limit.Path; zone == nil {
			zone = a.Quantity.Zone()
		}
		meter := a.Limit.Meter
		state = fmt.Sprintf("%s of %s left", meter.Number(a.Status.Remaining), a.Quantity.Room(meter))
		if a.Unavailable {
			state = "it cannot be said how much is left"
		} else if a.Status.ResetAfter > 0 {
			state += ", resets " + instantWords(now, now+a.Status.ResetAfter, zone)
		}
		if a.Over {
			state += ": it refuses"
		}
	} else {
		path, state = r.Status.Rule.Path, fmt.Sprintf("%d of %s left", r.Status.Remaining, r.Status.Limit.Words())
		if r.Status.Over {
			state += ": it refuses"
		}
	}
	lines := []string{fmt.Sprintf("%s, for %s (%s): %s", path, why, r.Place, state)}
	for _, meaning := range r.Meaning {
		lines = append(lines, "  "+strings.TrimSpace(meaning))
	}
	return lines
}

// Words says the limit: "10 requests per minute", "1 request per 5 minutes".
func (l *Limit) Words() string {
	requests, unit := "requests", l.Unit.String()
	if l.RequestsPerUnit == 1 {
		requests = "request"
	}
	if l.Multiplier > 1 {
		unit = fmt.Sprintf("%d %ss", l.Multiplier, unit)
	}
	return fmt.Sprintf("%d %s per %s", l.RequestsPerUnit, requests, unit)
}

// waitWords says a wait in the unit that people would: seconds up to two minutes, and so on.
func waitWords(seconds int64) string {
	for _, unit := range []struct {
		seconds int64
		name    string
	}{{86_400, "d"}, {3600, "h"}, {60, "min"}} {
		if seconds >= 2*unit.seconds {
			return fmt.Sprintf("%d %s", (seconds+unit.seconds-1)/unit.seconds, unit.name)
		}
	}
	return fmt.Sprintf("%d s", seconds)
}

// instantWords says when something will be: the time where that is today or soon, else the day.
func instantWords(now, then limit.Micros, zone *time.Location) string {
	// Rounded up, so that nobody comes too early.
	at := limit.Micros(then.Seconds() * int64(limit.Second)).Time().In(zone)
	if then-now < 20*3600*limit.Second {
		format := "15:04"
		if at.Second() != 0 {
			format = "15:04:05"
		}
		return fmt.Sprintf("at %s (%s)", at.Format(format), zone)
	}
	return "on " + at.Format("2 January")
}
