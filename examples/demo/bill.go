package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// bill is what the demo came to: what ration has charged to whom, beside what the model has served.
type bill struct {
	state
	rows []billed
}

// billed is what one user has used of one model.
type billed struct {
	subject
	// charged and cost are ration's account, told is the model's.
	charged, told tokens
	cost          nanos
	// left is how many streams the user left before their end. What these have used nobody was told: it is estimated.
	left int64
}

// tokens are calls and their tokens.
type tokens struct{ calls, input, output int64 }

// ledger is what the model says that it served.
type ledger struct {
	Rows []struct {
		User, Model string
		Requests    int64
		Served      struct {
			Input  int64 `json:"input_tokens"`
			Output int64 `json:"output_tokens"`
		}
	}
}

// drawUp draws up the bill, once all calls have ended for ration too and it has told of all refusals.
func drawUp(ctx context.Context, r *ration, t *traffic, fakellm string) (b bill, err error) {
	for before := int64(-1); ; {
		if b.state, err = r.ask(ctx); err != nil {
			return b, err
		}
		var open, refused int64
		for _, u := range b.users {
			open += u.inFlight
			refused += u.refused
		}
		if open == 0 && refused == before {
			break
		}
		before = refused
		select {
		case <-ctx.Done():
			return b, fmt.Errorf("%d calls have not ended: %w", open, context.Cause(ctx))
		case <-time.After(1200 * time.Millisecond): // refusals are told of up to a second late
		}
	}
	rows, err := r.rows(ctx, "subject", "model")
	if err != nil {
		return b, err
	}
	var served ledger
	if err := getJSON(ctx, fakellm+"/fake/ledger", &served); err != nil {
		return b, err
	}
	b.rows = join(rows, served)
	for i, row := range b.rows {
		b.rows[i].left = t.left[row.subject] // it has come to its end
	}
	b.trouble = t.trouble()
	return b, nil
}

// join puts what ration has charged beside what the model has served.
func join(rows []*rationv1.UsageRow, served ledger) []billed {
	var all []billed
	of := func(s subject) *billed {
		i := slices.IndexFunc(all, func(b billed) bool { return b.subject == s })
		if i < 0 {
			i, all = len(all), append(all, billed{subject: s})
		}
		return &all[i]
	}
	for _, row := range rows {
		if row.GetRequests() == 0 {
			continue // only refused
		}
		b := of(subject{strings.TrimPrefix(row.GetGroup()["subject"], "user="), row.GetGroup()["model"]})
		b.charged = tokens{row.GetRequests(), row.GetUsage().GetInputTokens(), row.GetUsage().GetOutputTokens()}
		b.cost = nanos(row.GetCost())
	}
	for _, row := range served.Rows {
		b := of(subject{row.User, row.Model})
		b.told = tokens{row.Requests, row.Served.Input, row.Served.Output}
	}
	return all
}

// lines words the bill.
func (b bill) lines() []line {
	all := append(table(b.users), nil,
		line{text("By model, as ration has charged it, and as the model's own ledger says that it was served:")}, nil,
		line{faint.text("%-6s %-17s %5s %8s %8s %11s %9s %8s", "USER", "MODEL", "CALLS", "INPUT", "OUTPUT", "COST", "SERVED IN", "OUT")})
	var left []line
	for _, r := range b.rows {
		all = append(all, line{
			strong.text("%-6s", r.user),
			text(" %-17s %5s %8s %8s %11s %9s %8s", r.model, grouped(r.charged.calls), grouped(r.charged.input), grouped(r.charged.output),
				r.cost, grouped(r.told.input), grouped(r.told.output)),
		})
		if r.left > 0 {
			left = append(left, line{text("Of %s, %s left %d of these calls before the end: their output is estimated.", r.model, r.user, r.left)})
		}
	}
	if b.trouble != "" {
		left = append(left, line{bad.text("Unexpected: %s", b.trouble)})
	}
	if len(left) > 0 {
		all = append(append(all, nil), left...)
	}
	return all
}
