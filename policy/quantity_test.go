package policy

import (
	"fmt"
	"math/big"
	"testing"

	"github.com/rationhq/ration/limit"
	"pgregory.net/rapid"
)

// How people write amounts and times, and what each means.
func TestQuantities(t *testing.T) {
	for text, want := range map[string]string{
		"10/minute":                        "10 per minute",
		"10 / minute":                      "10 per minute",
		"10 per minute":                    "10 per minute",
		"10/Minutes":                       "10 per minute",
		"5/10m":                            "5 per 10 minutes",
		"5/10 minutes":                     "5 per 10 minutes",
		"50_000/hour":                      "50000 per hour",
		"50k/h":                            "50000 per hour",
		"1.5k/1h30m":                       "1500 per 1 hour 30 minutes",
		"1.50M/1 h 30 min":                 "1500000 per 1 hour 30 minutes",
		"5M/d":                             "5000000 per day",
		"2B/week":                          "2000000000 per week",
		"20/24h":                           "20 per day",
		"20/14d":                           "20 per 2 weeks",
		"20/10d":                           "20 per 10 days",
		"3/250ms":                          "3 per 250 milliseconds",
		"3/90s":                            "3 per 1 minute 30 seconds",
		"3/7us":                            "3 per 7 microseconds",
		"1/1_000s":                         "1 per 16 minutes 40 seconds",
		"0/second":                         "0 per second",
		"7/month":                          "7 per month",
		"7/1 month":                        "7 per month",
		"7/y":                              "7 per year",
		"$5/month":                         "$5.00 per month",
		" $0.50 / hour":                    "$0.50 per hour",
		"$5_000 per 2 days":                "$5000.00 per 2 days",
		"$0.000000001/s":                   "$0.000000001 per second",
		"$9007199.254740991/y":             "$9007199.254740991 per year",
		"$0":                               "$0.00",
		"20":                               "20",
		"unlimited":                        "unlimited",
		" unlimited ":                      "unlimited",
		fmt.Sprint(limit.MaxAmount) + "/s": fmt.Sprint(limit.MaxAmount) + " per second",
	} {
		q, err := parseQuantity(text)
		got := fmt.Sprint(q.amount)
		switch {
		case err != nil:
			got = err.Error()
		case q.unlimited:
			got = "unlimited"
		case q.per.text != "":
			got += " per " + q.per.String()
		}
		if got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

// Whatever is not written as in the test above has no meaning, rather than a surprising one.
func TestWhatIsNoQuantity(t *testing.T) {
	for _, text := range []string{
		"", "/", "minute", "10/", "/minute", "10//minute", "10/minute/user", "10 minute", "1_/s", "_1/s", "1__0/s", "١/s",
		"+1/s", "-1/s", "0x10/s", "1e3/s", "01/s", "1.5/s", "1.2345k/s", "1.k/s", ".5k/s", "1.5_0k/s", "k/s", "5K/s", "5m", "5%",
		"5$/s", "$/s", "$", "$ 5/s", "$5k/s", "-$5/s", "$-5/s", "$5,000/s", "$.5/s", "$5./s", "$$5/s", "$1_/s", "$1.0_0/s", "€5/s",
		"$1e3/s", "$0.0000000001/s", "$9007199.254740992/s", "5 dollars/s", "5/$5", "$5%", "5,000/s", "10/M", "10/MIN utes", "10/-1s", "10/+1s", "10/m5", "10/5 5m", "10/m m", "10/2months",
		"10/1d1month", "10/1month1d", "10/0month", "10/0d", "10/1.5h", "10/fortnight", "10/9007199254740992us",
		"10/9007199254740991us1us", "9007199254740992/s", "9999999999B/s", "99999999999999999999999/s", "10/99999999999999999999d",
	} {
		if q, err := parseQuantity(text); err == nil {
			t.Errorf("%q is read as %+v", text, q)
		}
	}
}

// Times that people write in different ways are the same.
func TestSpansAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SampledFrom(timeUnits[:7]).Draw(t, "unit")
		n := rapid.Int64Range(1, 1_000_000).Draw(t, "times")
		s, err := parseSpan(fmt.Sprint(n, rapid.SampledFrom(unit.names).Draw(t, "name")))
		if int64(unit.length) > limit.MaxAmount/n {
			if err == nil {
				t.Fatalf("%d %s is read as %d µs", n, unit.names[0], s.length)
			}
			return
		}
		if err != nil || s.length != limit.Micros(n)*unit.length {
			t.Fatalf("%d %s is %d µs: %v", n, unit.names[0], s.length, err)
		}
		if again, err := parseSpan(s.String()); err != nil || again.length != s.length {
			t.Fatalf("%q, its words, are %d µs: %v", s, again.length, err)
		}
	})
}

func TestShares(t *testing.T) {
	for text, want := range map[string]Share{
		"0%": 0, "85%": 8500, "85 %": 8500, "99.5%": 9950, "0.01%": 1, "100%": Whole, "100.00%": Whole, "007%": 700,
	} {
		if got, err := parseShare(text); err != nil || got != want {
			t.Errorf("%q is %d: %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "%", "85", "-1%", "101%", "100.01%", "1.234%", "1_0%", "a%", "1.%", ".5%", "99999999999999999999%"} {
		if got, err := parseShare(text); err == nil {
			t.Errorf("%q is read as %d", text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := Share(rapid.Int64Range(0, int64(Whole)).Draw(t, "share"))
		if again, err := parseShare(s.String()); err != nil || again != s {
			t.Fatalf("%d is written %q, and read as %d: %v", s, s, again, err)
		}
		amount := rapid.Int64Range(0, limit.MaxAmount).Draw(t, "amount")
		exact := new(big.Int).Mul(big.NewInt(amount), big.NewInt(int64(s)))
		if want := exact.Div(exact, big.NewInt(int64(Whole))).Int64(); s.Of(amount) != want {
			t.Fatalf("%s of %d is %d, want %d", s, amount, s.Of(amount), want)
		}
	})
}
