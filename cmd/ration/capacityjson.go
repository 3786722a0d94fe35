package main

import (
	"math/big"

	"github.com/rationhq/ration/cmd/ration/capacity"
)

// capacityReport is what ration capacity prints as JSON. Amounts are whole, rounded up, in the unit of the meter: of cost in
// nano-dollars, as everywhere in ration's API.
type capacityReport struct {
	Verdict       string         `json:"verdict"` // fits, tight or does_not_fit
	Domain        string         `json:"domain"`
	CallsPerHour  int64          `json:"callsInBusyHour"`
	CallsInMinute int64          `json:"callsInBusiestMinute"`
	Limits        []capacityRow  `json:"limits"`
	Binds         string         `json:"fullFirst,omitempty"`
	Users         *int64         `json:"usersThatFit,omitempty"`
	WaitSeconds   int64          `json:"longestWaitSeconds,omitempty"`
	Held          []capacityHeld `json:"heldBackByTheirOwn,omitempty"`
	Costs         []capacityCost `json:"costs"`
	Unserved      []string       `json:"modelsWithoutUpstream,omitempty"`
}

type capacityRow struct {
	Limit    string   `json:"limit"`
	Meter    string   `json:"meter"`
	CallsOf  []string `json:"callsOf,omitempty"` // tiers
	Ceiling  int64    `json:"ceiling"`
	Says     string   `json:"says"` // the ceiling with its time, in words
	Peak     int64    `json:"peak"`
	Percent  *int64   `json:"percent,omitempty"`
	AtMost   *int64   `json:"atMost,omitempty"` // without: their own limits do not bound it
	Verdict  string   `json:"verdict"`
	Shadow   bool     `json:"shadow,omitempty"`
	Asked    int64    `json:"tooLargeCall,omitempty"`
	Unpriced string   `json:"modelWithoutPrice,omitempty"`
}

type capacityHeld struct {
	Tier        string `json:"tier,omitempty"`
	Limit       string `json:"limit"`
	Allows      int64  `json:"allowsCalls"`
	Plans       int64  `json:"plansCalls"`
	SpanSeconds int64  `json:"inSeconds"`
}

type capacityCost struct {
	Tier  string `json:"tier,omitempty"`
	Model string `json:"model"`
	Hour  *int64 `json:"busyHour,omitempty"` // without: there is no price
	Day   *int64 `json:"day,omitempty"`
	Month *int64 `json:"month,omitempty"` // of 31 days
}

func capacityJSON(plan *capacity.Plan, report *capacity.Report) *capacityReport {
	out := &capacityReport{
		Verdict: verdictNames[report.Verdict], Domain: plan.Domain.Name(), CallsPerHour: capacity.Up(report.CallsPerHour),
		CallsInMinute: capacity.Up(report.Calls), Limits: []capacityRow{}, WaitSeconds: limitSeconds(report), Unserved: report.Without,
	}
	for i := range report.Rows {
		r := &report.Rows[i]
		row := capacityRow{
			Limit: r.Limit.Path, Meter: r.Limit.Meter.String(), Ceiling: capacity.Down(r.Room), Says: rate(r.Limit.Meter, r.Quantity, r.Room),
			Peak: capacity.Up(r.Peak), AtMost: up(r.Most), Verdict: verdictNames[r.Verdict],
			Shadow: r.Limit.Shadow, Asked: r.Asked, Unpriced: r.Unpriced,
		}
		if len(plan.Domain.Tiers()) > 0 {
			row.CallsOf = groupNames(plan.Domain, r.Groups)
		}
		if n, ok := r.Percent(); ok {
			row.Percent = &n
		}
		out.Limits = append(out.Limits, row)
	}
	if b := report.Binds; b != nil {
		out.Binds, out.Users = b.Limit.Path, &report.Users
	}
	for i := range report.Held {
		h := &report.Held[i]
		out.Held = append(out.Held, capacityHeld{
			Tier: tierName(plan.Domain, h.Group), Limit: h.Limit, Allows: capacity.Down(h.Allows), Plans: capacity.Up(h.Plans),
			SpanSeconds: h.Span.Seconds(),
		})
	}
	for i := range report.Bills {
		b := &report.Bills[i]
		out.Costs = append(out.Costs, capacityCost{
			Tier: tierName(plan.Domain, b.Group), Model: b.Group.Model, Hour: up(b.Hour), Day: up(b.Day), Month: up(b.Month),
		})
	}
	return out
}

func limitSeconds(report *capacity.Report) int64 { return int64(roughly(report.Waits).Seconds()) }

// up returns a fraction as a whole number; nil of nil.
func up(r *big.Rat) *int64 {
	if r == nil {
		return nil
	}
	n := capacity.Up(r)
	return &n
}
