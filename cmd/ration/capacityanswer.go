package main

import (
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/rationhq/ration/cmd/ration/capacity"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

var verdictWords = [...]string{capacity.Fits: "fits", capacity.Tight: "WARNING: within a factor of two", capacity.DoesNotFit: "does not fit"}

// names of verdicts for programs.
var verdictNames = [...]string{capacity.Fits: "fits", capacity.Tight: "tight", capacity.DoesNotFit: "does_not_fit"}

func decimalOf(n int64) *big.Rat { return new(big.Rat).SetInt64(n) }

// answer says what was found.
func (c *capacityCmd) answer(plan *capacity.Plan, report *capacity.Report) *answer {
	d := plan.Domain
	a := &answer{columns: []string{"limit", "calls_of", "ceiling", "peak", "of_it", "at_most", "says"}, message: capacityJSON(plan, report)}
	for i := range plan.Groups {
		g := &plan.Groups[i]
		a.before = append(a.before, fmt.Sprintf("%s: %s, %s and %s a call to %s", users(g.Users, tierName(d, g)),
			plural(g.Calls, "call")+" an hour each", policy.InputTokens.Amount(g.Input), policy.OutputTokens.Amount(g.Output), g.Model))
	}
	a.before = append(a.before, "assumed:")
	for _, line := range c.assumed(plan) {
		a.before = append(a.before, "  "+line)
	}
	a.before = append(a.before, fmt.Sprintf("%s in the busy hour, %s in its busiest minute", plural(report.CallsPerHour, "call"), policy.Requests.Number(capacity.Up(report.Calls))), "")
	for i := range report.Rows {
		r := &report.Rows[i]
		most := "any"
		if r.Most != nil {
			most = r.Limit.Meter.Number(capacity.Up(r.Most))
		}
		percent := ""
		if n, ok := r.Percent(); ok {
			percent = policy.Requests.Number(n) + "%"
		}
		a.row(r.Limit.Path, strings.Join(groupNames(d, r.Groups), " "), rate(r.Limit.Meter, r.Quantity, r.Room),
			r.Limit.Meter.Number(capacity.Up(r.Peak)), percent, most, judged(r))
	}
	if len(report.Rows) == 0 {
		a.before = append(a.before, "nothing that users share limits them")
	}
	a.after = append([]string{""}, conclusions(plan, report)...)
	return a
}

// conclusions say what the rows mean, what is to be seen beside them, and what it costs.
func conclusions(plan *capacity.Plan, report *capacity.Report) []string {
	lines := []string{}
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, model := range report.Without {
		add("no upstream serves %s: nothing of a provider's key is compared with its calls", model)
	}
	if b := report.Binds; b != nil {
		if !b.Possible() {
			add("%s: %s lets no such call through", verdictWords[report.Verdict], b.Limit.Path)
		} else {
			add("%s: %s is full first", verdictWords[report.Verdict], b.Limit.Path)
			add("%s of this kind fit, and %s with half of every limit free", policy.Requests.Number(report.Users),
				policy.Requests.Number(report.Users/2))
		}
		if wait := waits(plan, report); wait != "" {
			lines = append(lines, wait)
		}
	}
	for i := range report.Held {
		h := &report.Held[i]
		whose := ""
		if name := tierName(plan.Domain, h.Group); name != "" {
			whose = " of " + name
		}
		add("each user%s is held back by %s: %s of %s %s", whose, h.Limit, policy.Requests.Number(capacity.Down(h.Allows)),
			plural(h.Plans, "call"), spanWords[h.Span])
	}
	return append(lines, bills(plan, report)...)
}

var spanWords = map[limit.Micros]string{capacity.Hour: "in the busy hour", capacity.Day: "a day", capacity.Month: "a month"}

// waits says how long those wait for whom there is no room.
func waits(plan *capacity.Plan, report *capacity.Report) string {
	binds := report.Binds
	if report.NextPeriod {
		return fmt.Sprintf("who comes after %s is full waits until its period ends", binds.Limit.Path)
	}
	if report.Waits == 0 {
		return ""
	}
	says := fmt.Sprintf("who comes last waits %v", roughly(report.Waits))
	for _, lane := range plan.Domain.Lanes() {
		if lane.Shares(binds.Limit) {
			return fmt.Sprintf("%s; lane %s lets calls wait %v, and %d at once", says, lane.Name, lane.MaxWait.Duration(), lane.MaxWaiting)
		}
	}
	return says + ", if it does not give up: no lane lets calls wait for " + binds.Limit.Path
}

// bills say what it costs.
func bills(plan *capacity.Plan, report *capacity.Report) []string {
	hour, day, month := new(big.Rat), new(big.Rat), new(big.Rat)
	var lines, each []string
	for i := range report.Bills {
		b := &report.Bills[i]
		if b.Hour == nil {
			line := b.Group.Model + " has no price, so what it costs is not known: write it into the policy, under prices"
			if !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
			continue
		}
		hour.Add(hour, b.Hour)
		day.Add(day, b.Day)
		month.Add(month, b.Month)
		each = append(each, tierName(plan.Domain, b.Group)+" "+dollars(b.Month))
	}
	if len(each) == 0 {
		return lines
	}
	line := fmt.Sprintf("cost: %s in the busy hour, %s a day, %s in a month of 31 days", dollars(hour), dollars(day), dollars(month))
	if len(each) > 1 {
		line += ": " + strings.Join(each, ", ")
	}
	return append(lines, line)
}

func dollars(nanos *big.Rat) string { return policy.Cost.Number(capacity.Up(nanos)) }

// judged is the verdict of a row, and why.
func judged(r *capacity.Row) string {
	words := verdictWords[r.Verdict]
	switch {
	case r.Unpriced != "":
		words += ": " + r.Unpriced + " has no price"
	case r.Asked > 0:
		words += fmt.Sprintf(": one call asks for %s, and there are never more than %s", r.Limit.Meter.Number(r.Asked),
			r.Limit.Meter.Number(largestCall(r.Quantity)))
	}
	if r.Limit.Shadow {
		words += ", in shadow"
	}
	return words
}

// largestCall is how much one call may ask for.
func largestCall(q *policy.Quantity) int64 {
	if q.PerRequest > 0 {
		return min(q.PerRequest, q.Spec.Ceiling())
	}
	return q.Spec.Ceiling()
}

// rate says a room in words: "600 requests per hour", "1,000 requests per minute, 600 at once".
func rate(m policy.Meter, q *policy.Quantity, room *big.Rat) string {
	of := *q
	of.Spec.Limit = capacity.Down(room)
	if of.Spec.Algorithm == limit.TokenBucket {
		return fmt.Sprintf("%s, %s at once", of.Rate(m), m.Number(of.Spec.Ceiling()))
	}
	return of.Rate(m)
}

func tierName(d *policy.Domain, g *capacity.Group) string {
	if len(d.Tiers()) == 0 {
		return ""
	}
	return d.Tiers()[g.Tier].Name
}

func groupNames(d *policy.Domain, groups []*capacity.Group) (names []string) {
	for _, g := range groups {
		names = append(names, tierName(d, g))
	}
	return names
}

// users says how many, and of which tier.
func users(n int64, tier string) string {
	text := plural(decimalOf(n), "user")
	if tier != "" {
		text += " of " + tier
	}
	return text
}

// plural says a number that need not be whole of something.
func plural(n *big.Rat, what string) string {
	text := decimal{n}.String()
	if n.IsInt() {
		text = policy.Requests.Number(capacity.Down(n))
	}
	if text != "1" {
		what += "s"
	}
	return text + " " + what
}
