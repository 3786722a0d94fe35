package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rationhq/ration/client"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/price"
)

// usageCmd is ration usage.
type usageCmd struct {
	callerFlags
	From  instant  `env:"-" placeholder:"TIME" help:"Instead of how limits stand now: what was used since then."`
	To    instant  `env:"-" placeholder:"TIME" help:"Until then. Now."`
	By    []string `env:"-" placeholder:"NAME,…" help:"By what it is told apart: subject, tier, model, or a tag that the policy declares."`
	Every string   `env:"-" enum:"hour,day,total" default:"day" placeholder:"hour|day|total" help:"How finely. Default day."`
	serverFlags
}

// Run implements the command.
func (c *usageCmd) Run(to streams) error {
	if time.Time(c.From).IsZero() {
		if !time.Time(c.To).IsZero() || len(c.By) > 0 {
			return misused("--from is missing: --to and --by are about what was used in a time")
		}
		request := &rationv1.GetUsageRequest{Caller: c.caller()}
		return call(&c.remoteFlags, c.Server, to, request,
			reporting(rationv1.UsageServiceClient.GetUsage), standingAnswer)
	}
	request := &rationv1.QueryUsageRequest{
		Domain: c.Domain, From: c.From.message(), To: c.To.message(), GroupBy: c.By,
		Resolution: map[string]rationv1.Resolution{
			"hour": rationv1.Resolution_RESOLUTION_HOUR, "day": rationv1.Resolution_RESOLUTION_DAY, "total": rationv1.Resolution_RESOLUTION_TOTAL,
		}[c.Every],
	}
	switch {
	case len(c.Attributes) > 1:
		return misused("with --from, name one subject, as in user=alice, or none for all together")
	case c.Model != "" || c.Tier != "":
		return misused("with --from, leave --model and --tier out: --by model tells models apart, and --by tier tiers")
	case len(c.Attributes) == 1:
		request.Subject = string(c.Attributes[0])
	}
	return call(&c.remoteFlags, c.Server, to, request,
		reporting(rationv1.UsageServiceClient.QueryUsage), func(r *rationv1.QueryUsageResponse) *answer {
			return rowsAnswer(r, c.By)
		})
}

// standingAnswer lists how limits stand, and where they go.
func standingAnswer(r *rationv1.GetUsageResponse) *answer {
	a := &answer{columns: []string{"limit", "meter", "capacity", "used", "held", "remaining", "resets_at", "forecast"}, after: r.GetWarnings()}
	if r.GetTier() != "" {
		a.before = []string{"tier " + r.GetTier()}
	}
	for _, f := range r.GetLimits() {
		l := f.GetStatus()
		amount := func(n int64) string { return amountOf(l.GetMeter(), n) }
		a.row(l.GetLimit(), word("METER_", l.GetMeter()), amount(l.GetCapacity()), amount(l.GetUsed()), amount(l.GetHeld()),
			amount(l.GetRemaining()), when(l.GetResetsAt()), f.GetForecast())
	}
	if len(a.rows) == 0 {
		a.before = append(a.before, "nothing limits it")
	}
	return a.of(r)
}

// rowsAnswer lists what was used.
func rowsAnswer(r *rationv1.QueryUsageResponse, by []string) *answer {
	refusals := []string{"rate_limited", "quota_exhausted", "request_too_large", "blocked"} // what is said to callers
	a := &answer{columns: slices.Concat([]string{"start"}, by, []string{"requests", "refusals"}, refusals, []string{
		"input", "cache_read", "cache_write", "output", "cost", "tokens_per_request", "p50", "p95", "p99",
	})}
	add := func(row *rationv1.UsageRow, start string) {
		cells := []any{start}
		for _, name := range by {
			cells = append(cells, row.GetGroup()[name])
		}
		var all int64
		for _, n := range row.GetRefusals() {
			all += n
		}
		cells = append(cells, row.GetRequests(), all)
		for _, said := range refusals {
			if n := row.GetRefusals()[said]; n > 0 {
				cells = append(cells, n)
			} else {
				cells = append(cells, "") // so that a table has only columns that say something
			}
		}
		u, l := row.GetUsage(), row.GetLatency()
		cells = append(cells, u.GetInputTokens(), u.GetCacheReadTokens(), u.GetCacheWriteTokens(),
			u.GetOutputTokens(), price.Nanos(row.GetCost()), row.GetTokensPerRequest())
		for _, q := range []interface{ AsDuration() time.Duration }{l.GetP50(), l.GetP95(), l.GetP99()} {
			if l.GetCount() == 0 {
				cells = append(cells, "")
				continue
			}
			cells = append(cells, q.AsDuration().Round(time.Millisecond))
		}
		a.row(cells...)
	}
	for _, row := range r.GetRows() {
		add(row, when(row.GetStart()))
	}
	if len(r.GetRows()) != 1 {
		add(r.GetTotal(), "total")
	}
	return a.of(r)
}

// topCmd is ration top.
type topCmd struct {
	Domain string  `required:"" placeholder:"NAME" help:"Domain of the policy."`
	By     string  `env:"-" enum:"cost,requests,tokens,refusals" default:"cost" placeholder:"WHAT" help:"cost, requests, tokens or refusals. Default cost."`
	At     instant `env:"-" placeholder:"TIME" help:"The day in which this is. Today."`
	Month  bool    `env:"-" help:"The whole month."`
	N      int32   `env:"-" short:"n" default:"10" placeholder:"N" help:"How many. Default 10."`
	serverFlags
}

// Run implements the command.
func (c *topCmd) Run(to streams) error {
	request := &rationv1.TopUsageRequest{
		Domain: c.Domain, At: c.At.message(), Month: c.Month, Limit: c.N,
		By: rationv1.Ranking(rationv1.Ranking_value["RANKING_"+strings.ToUpper(c.By)]),
	}
	return call(&c.remoteFlags, c.Server, to, request,
		reporting(rationv1.UsageServiceClient.TopUsage), func(r *rationv1.TopUsageResponse) *answer {
			a := &answer{columns: []string{"subject", c.By}, before: []string{"since " + when(r.GetStart())}}
			for _, s := range r.GetSubjects() {
				if c.By == "cost" {
					a.row(s.GetSubject(), price.Nanos(s.GetAmount()))
					continue
				}
				a.row(s.GetSubject(), s.GetAmount())
			}
			return a.of(r)
		})
}

// explainCmd is ration explain.
type explainCmd struct {
	callerFlags
	estimateFlags
	serverFlags
}

// Run implements the command.
func (c *explainCmd) Run(to streams) error {
	estimate, err := c.estimate()
	if err != nil {
		return err
	}
	request := &rationv1.ExplainRequest{Caller: c.caller(), Estimate: estimate}
	return call(&c.remoteFlags, c.Server, to, request,
		reporting(rationv1.UsageServiceClient.Explain), func(r *rationv1.ExplainResponse) *answer {
			a := &answer{columns: []string{"limit", "remaining", "says", "because", "place", "meaning"}}
			for _, reason := range r.GetReasons() {
				l, says := reason.GetStatus(), ""
				if l.GetRefuses() {
					says = "refuses"
				}
				meaning := strings.ReplaceAll(reason.GetMeaning(), "\n  ", "; ") // in one line
				a.row(l.GetLimit(), amountOf(l.GetMeter(), l.GetRemaining()), says, strings.Join(reason.GetBecause(), " "), reason.GetPlace(), meaning)
			}
			if c.Format == "table" {
				a.before, a.rows = r.GetText(), nil // the server says it all in words
			}
			return a.of(r)
		})
}

// reporting makes a method of UsageService one that call can use.
func reporting[Request, Answer any](
	method func(rationv1.UsageServiceClient, context.Context, Request, ...grpc.CallOption) (Answer, error),
) func(*client.Client) func(context.Context, Request) (Answer, error) {
	return func(c *client.Client) func(context.Context, Request) (Answer, error) {
		stub := rationv1.NewUsageServiceClient(c.Conn())
		return func(ctx context.Context, r Request) (Answer, error) { return method(stub, ctx, r) }
	}
}

// pairs returns a map as key=value, in order.
func pairs(m map[string]string) string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		all = append(all, key+"="+m[key])
	}
	return strings.Join(all, " ")
}

// until returns when something ends, for tables.
func until(t *timestamppb.Timestamp) string {
	if t == nil {
		return "never"
	}
	return when(t)
}
