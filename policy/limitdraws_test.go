package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/price"
)

// drawLimit draws an entry of `limits` whose fields have values that each make sense by itself; most of
// the time they fit the algorithm too.
func drawLimit(t *rapid.T) map[string]any {
	entry := map[string]any{"name": "x"}
	some := func(field string, values ...any) {
		if rapid.IntRange(0, 7).Draw(t, field+"?") == 0 {
			entry[field] = rapid.SampledFrom(values).Draw(t, field)
		}
	}
	algorithm := rapid.SampledFrom(algorithmNames()).Draw(t, "algorithm")
	entry["algorithm"], entry["meter"] = algorithm, "tokens"
	if algorithm == "concurrency" {
		entry["meter"] = "concurrency"
	}
	some("meter", "requests", "input_tokens", "output_tokens", "tokens", "concurrency")
	if rapid.Bool().Draw(t, "money?") {
		entry["meter"] = "cost"
	}
	some("shadow", true)
	some("clamp", true)
	some("count_denied", true)
	some("starts", "epoch", "first_use")
	some("time_zone", "UTC", "Asia/Kathmandu", "subject", "subject or Asia/Kathmandu")
	some("warn_at", "0.01%", []string{"100%", "33.33%"})
	some("week_start", "sunday")
	some("anchor", 31, "subject", "subject or 31", map[string]any{"month": "feb", "day": 29})
	return entry
}

// drawQuantity adds how much a limit allows. Of money the amounts are the same in nano-dollars, most of the time.
func drawQuantity(t *rapid.T, algorithm, meter any, into map[string]any) {
	switch algorithm {
	case "token_bucket":
		into["rate"] = rapid.SampledFrom([]string{
			"7/minute", "0/day", "9007199254740991/us", "9007199254740991/104_249d", "1/104_249d", "unlimited",
		}).Draw(t, "rate")
		if rapid.Bool().Draw(t, "burst?") {
			into["burst"] = rapid.SampledFrom([]any{0, 1, "9007199254740991"}).Draw(t, "burst")
		}
	case "concurrency":
		into["limit"] = rapid.SampledFrom([]any{0, 7, "9007199254740991", "unlimited"}).Draw(t, "limit")
	default:
		into["limit"] = rapid.SampledFrom([]string{
			"0/day", "7/day", "7/month", "7/week", "7/2w", "9007199254740991/us", "10_000/second", "10_001/second",
			"7/52_124d", "7/104_249d", "unlimited",
		}).Draw(t, "limit")
	}
	if rapid.IntRange(0, 2).Draw(t, "per_request?") == 0 {
		into["per_request"] = rapid.SampledFrom([]any{1, "9007199254740991"}).Draw(t, "per_request")
	}
	if rapid.IntRange(0, 2).Draw(t, "ceiling?") == 0 {
		into["ceiling"] = rapid.SampledFrom([]any{"0%", "33.33%", "100%", 3}).Draw(t, "ceiling")
	}
	if meter == "cost" && rapid.IntRange(0, 15).Draw(t, "in dollars") > 0 {
		for field, written := range into {
			if slices.Contains([]string{"rate", "limit", "burst", "per_request", "ceiling"}, field) {
				into[field] = inDollars(fmt.Sprint(written))
			}
		}
	}
}

// inDollars writes a quantity in money.
func inDollars(units string) string {
	number, per, _ := strings.Cut(units, "/")
	n, err := parseUnits(number)
	if err != nil {
		return units // a part, or no limit
	}
	if per != "" {
		per = "/" + per
	}
	return price.Nanos(n).String() + per
}

// Whatever is combined is refused with words, or can be used by every tier and counts by itself.
func TestLimitsAreUsableOrRefused(t *testing.T) {
	used, refused, money := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		entry := drawLimit(t)
		drawQuantity(t, entry["algorithm"], entry["meter"], entry)
		user := map[string]any{"key": "user", "value": "alice", "subject": true}
		file := map[string]any{
			"domain": "d", "descriptors": []any{user},
			"tiers": []any{map[string]any{"name": "free"}, map[string]any{"name": "pro"}},
		}
		switch rapid.IntRange(0, 2).Draw(t, "where") {
		case 0:
			file["limits"] = []any{entry}
		case 1:
			file["upstreams"] = []any{map[string]any{"name": "u", "models": "m", "limits": []any{entry}}}
		default:
			user["limits"] = []any{entry}
			if rapid.Bool().Draw(t, "by tier") {
				pro := map[string]any{}
				drawQuantity(t, entry["algorithm"], entry["meter"], pro)
				entry["tiers"] = map[string]any{"pro": pro}
			}
		}
		yaml, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := Parse([]Source{{"policy.yaml", yaml}}, Options{})
		if err != nil {
			refused++
			return
		}
		used++
		checkLimit(t, p, p.Limits()[0], map[string]*Limit{})
		if p.Limits()[0].Meter == Cost {
			money++
		}
	})
	if money == 0 {
		t.Error("no policy limited money")
	}
	if all := used + refused; used < all/10 || refused < all/10 {
		t.Errorf("%d policies could be used, and %d not: too few to say anything", used, refused)
	}
}
