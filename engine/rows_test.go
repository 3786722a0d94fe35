package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
)

// used says what was used on the days around now, by some names.
func (b bench) used(t testing.TB, subject string, by ...string) (lines string) {
	t.Helper()
	q := engine.UsageQuery{Domain: "llm", Resolution: engine.Totals, By: by}
	now := limit.At(time.Now())
	q.From, q.To = now-24*3600*limit.Second, now+24*3600*limit.Second
	if subject != "" {
		q.Subject = policy.Entry{Key: "user", Value: subject}
	}
	rows, total, err := b.Usage(context.Background(), &q)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range append(rows, total) {
		lines += fmt.Sprintf("%v requests %d refusals %v input %d+%d+%d output %d cost %d, %d each; ",
			r.Group, r.Requests, r.Refusals, r.Usage.Input, r.Usage.CacheRead, r.Usage.CacheWrite, r.Usage.Output, r.Cost, r.TokensPerRequest)
	}
	return lines
}

func TestRowsOfUsage(t *testing.T) {
	b := newAccounts(t)
	a := b.reserve(t, call("small", 100, 200))
	const sum = "[] requests 1 refusals [0 0 0 0 0] input 100+0+0 output 0 cost 100000, 100 each; "
	expect(t, "what stays if nobody settles it", b.used(t, "alice"), sum+sum)
	b.settle(t, a, price.Usage{Input: 90, CacheRead: 10, Output: 50})
	b.settle(t, a, price.Usage{Input: 90, CacheRead: 10, Output: 50})
	b.reserve(t, call("small", 100, 2_000))
	const settled = "[] requests 1 refusals [0 0 0 0 0] input 90+10+0 output 50 cost 195000, 150 each; "
	expect(t, "settled", b.used(t, "alice"), settled+settled)
	expect(t, "of all", b.used(t, ""), settled+settled)
	expect(t, "of somebody else", b.used(t, "bob"), "[] requests 0 refusals [0 0 0 0 0] input 0+0+0 output 0 cost 0, 0 each; ")

	b.askIn(t, "llm", hits(1, "user=bob"))
	b.askIn(t, "llm", hits(30, "user=bob", "ration.phase=record", "ration.meter=output_tokens", "ration.model=large"))
	expect(t, "by model", b.used(t, "", "model"),
		"[] requests 1 refusals [0 0 0 0 0] input 0+0+0 output 0 cost 0, 0 each; "+
			"[large] requests 0 refusals [0 0 0 0 0] input 0+0+0 output 30 cost 600000, 0 each; "+
			"[small] requests 1 refusals [0 0 0 0 0] input 90+10+0 output 50 cost 195000, 150 each; "+
			"[] requests 2 refusals [0 0 0 0 0] input 90+10+0 output 80 cost 795000, 90 each; ")

	top, _, err := b.Top(context.Background(), "llm", engine.ByCost, limit.At(time.Now()), false, 10)
	if err != nil || fmt.Sprint(top) != "[{user=bob 600000} {user=alice 195000}]" {
		t.Errorf("the most was used by %v (%v)", top, err)
	}
}

func TestRowsOfCallsThatEndOtherwise(t *testing.T) {
	b := newAccounts(t)
	nothing := b.used(t, "alice")
	var s engine.Settlement
	if err := b.Release(context.Background(), b.reserve(t, call("small", 100, 200)).ID, &s); err != nil {
		t.Fatal(err)
	}
	const none = "[] requests 0 refusals [0 0 0 0 0] input 0+0+0 output 0 cost 0, 0 each; "
	expect(t, "nothing was used", nothing, none)
	expect(t, "released", b.used(t, "alice"), none)

	a := b.reserve(t, call("large", 100, 200))
	report := engine.Report{ID: a.ID, Usage: price.Usage{Input: 100, Output: 10}, Model: "small"}
	if err := b.Settle(context.Background(), &report, &s); err != nil {
		t.Fatal(err)
	}
	expect(t, "served by another model", b.used(t, "alice", "model"),
		"[small] requests 1 refusals [0 0 0 0 0] input 100+0+0 output 10 cost 120000, 110 each; "+
			"[] requests 1 refusals [0 0 0 0 0] input 100+0+0 output 10 cost 120000, 110 each; ")

	report = engine.Report{ID: engine.ReservationID{1}, Usage: price.Usage{Input: 5}, Caller: &call("", 0, 0, named("bob")).Caller}
	if err := b.Settle(context.Background(), &report, &s); err != nil {
		t.Fatal(err)
	}
	const bob = "[] requests 1 refusals [0 0 0 0 0] input 5+0+0 output 0 cost 0, 5 each; "
	expect(t, "of a reservation that nobody knows", b.used(t, "bob"), bob+bob)
}

func TestUsageThatCannotBeAsked(t *testing.T) {
	b := newAccounts(t)
	var invalid *engine.InvalidError
	_, _, err := b.Usage(context.Background(), &engine.UsageQuery{Domain: "llm", To: 1, By: []string{"modell"}})
	if !errors.As(err, &invalid) || invalid.Field != "group_by[0]" {
		t.Errorf("%v", err)
	}
	if _, _, err = b.Usage(context.Background(), &engine.UsageQuery{Domain: "llm"}); !errors.As(err, &invalid) || invalid.Field != "to" {
		t.Errorf("%v", err)
	}
	if _, _, err = b.Usage(context.Background(), &engine.UsageQuery{Domain: "shop"}); !errors.Is(err, engine.ErrUnknownDomain) {
		t.Errorf("%v", err)
	}
	if _, _, err = b.Top(context.Background(), "llm", engine.ByCost, 0, false, 0); !errors.As(err, &invalid) || invalid.Field != "limit" {
		t.Errorf("%v", err)
	}
}

func TestRowsOfRefusals(t *testing.T) {
	b := newAccounts(t)
	b.reserve(t, call("small", 0, 2_000)) // too large
	b.reserve(t, call("smal", 0, 1))      // without a price
	b.settle(t, b.reserve(t, call("small", 0, 1_000)), price.Usage{Output: 1_000})
	b.reserve(t, call("small", 0, 1)) // used up for today
	for range 4 {
		b.askIn(t, "llm", hits(1, "user=bob"))
	}
	b.askIn(t, "llm", hits(2, "user=bob")) // too many in a minute
	b.Close()                              // and what waits is written
	expect(t, "alice's", b.used(t, "alice"), "[] requests 1 refusals [0 0 1 1 1] input 0+0+0 output 1000 cost 2000000, 1000 each; "+
		"[] requests 1 refusals [0 0 1 1 1] input 0+0+0 output 1000 cost 2000000, 1000 each; ")
	expect(t, "bob's", b.used(t, "bob"), "[] requests 4 refusals [0 1 0 0 0] input 0+0+0 output 0 cost 0, 0 each; "+
		"[] requests 4 refusals [0 1 0 0 0] input 0+0+0 output 0 cost 0, 0 each; ")
	top, _, err := b.Top(context.Background(), "llm", engine.ByRefusals, limit.At(time.Now()), true, 1)
	if err != nil || fmt.Sprint(top) != "[{user=alice 3}]" {
		t.Errorf("refused most often: %v (%v)", top, err)
	}
}
