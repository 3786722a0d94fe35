package engine_test

import (
	"context"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/price"
)

func TestStanding(t *testing.T) {
	b := newAccounts(t)
	held := b.reserve(t, call("small", 100, 200))
	for range 2 {
		var d engine.Decision
		if err := b.Standing(context.Background(), &call("small", 0, 0).Caller, &d); err != nil {
			t.Fatal(err)
		}
		expect(t, "the same as often as it is asked for", sayLimits(&d),
			"OK requests:0+1 tokens:0+300 in-flight:0+1 company:0+500000 itpm:0+100")
		if n := len(d.Listing()); n != 6 {
			t.Errorf("%d limits are listed, want the plain rule with the five others", n)
		}
	}
	b.settle(t, held, price.Usage{})
}

func TestForecast(t *testing.T) {
	const day = 86_400 * limit.Second
	for _, tc := range []struct {
		name    string
		quarter limit.Micros // into the day
		used    int64        // of 1,000 tokens
		want    string       // empty: it lasts
	}{
		{"nothing was used", day / 4, 0, ""},
		{"half in a quarter of the day", day / 4, 500, "exhausted in 6 h at this rate"},
		{"as fast as it may", day / 4, 250, ""},
		{"a little faster", day / 4, 251, "exhausted in 17 h 54 min at this rate"},
		{"all", day / 4, 1_000, "exhausted"},
		{"soon", 60 * limit.Second, 500, "exhausted in 1 min at this rate"},
		{"sooner", 60 * limit.Second, 900, "exhausted in 7 s at this rate"},
	} {
		b := newAccounts(t)
		b.clock.Advance(12*3600*limit.Second + tc.quarter) // noon, and on to the next day
		r := engine.Record{Caller: call("small", 0, 0).Caller, Usage: price.Usage{Output: tc.used}}
		var s engine.Settlement
		if err := b.Record(context.Background(), &r, &s); err != nil {
			t.Fatal(err)
		}
		var d engine.Decision
		if err := b.Standing(context.Background(), &r.Caller, &d); err != nil {
			t.Fatal(err)
		}
		got := ""
		for i := range d.Limits {
			if a := &d.Limits[i]; a.Limit.Name == "tokens" {
				if lasts, ends := a.Forecast(d.Now); ends {
					got = engine.ForecastWords(lasts)
				}
			}
		}
		expect(t, tc.name, got, tc.want)
	}
	expect(t, "days", engine.ForecastWords(76*3600*limit.Second), "exhausted in 3 d 4 h at this rate")
}
