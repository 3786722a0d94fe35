package provider_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/engine/provider"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// now is when the answers of these tests come.
var now = limit.At(time.Date(2025, 8, 21, 12, 41, 0, 0, time.UTC))

// headers reads them as they stand on the wire, a line each.
func headers(text string) (all []provider.Header) {
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			all = append(all, provider.Header{Name: strings.TrimSpace(name), Value: strings.TrimSuffix(value, "\n")})
		}
	}
	return all
}

// read reads an answer, and returns what it says in words that a table can hold.
func read(status int, text string) provider.Facts {
	return provider.Read(&provider.Answer{Status: status, Headers: headers(text)}, now)
}

const (
	millisecond = limit.Second / 1000
	minute      = 60 * limit.Second
)

// TestRead reads what providers send: answers as they were recorded or are documented (docs/accounting.md says where).
func TestRead(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		text   string
		want   provider.Facts
	}{
		{"Anthropic", 200, `
			date: Thu, 21 Aug 2025 12:41:00 GMT
			content-type: application/json
			anthropic-ratelimit-input-tokens-limit: 80000
			anthropic-ratelimit-input-tokens-remaining: 79000
			anthropic-ratelimit-input-tokens-reset: 2025-08-21T12:41:01Z
			anthropic-ratelimit-output-tokens-remaining: 16000
			anthropic-ratelimit-output-tokens-reset: 2025-08-21T12:40:59Z
			anthropic-ratelimit-requests-limit: 1000
			anthropic-ratelimit-requests-remaining: 999
			anthropic-ratelimit-requests-reset: 2025-08-21T12:41:02Z
			anthropic-ratelimit-tokens-remaining: 95000
			anthropic-ratelimit-tokens-reset: 2025-08-21T12:41:00Z
			request-id: req_1`, provider.Facts{Left: []provider.Left{
			{Header: "anthropic-ratelimit-input-tokens-remaining", Meter: policy.InputTokens, Amount: 79_000, Reset: limit.Second, HasReset: true},
			{Header: "anthropic-ratelimit-output-tokens-remaining", Meter: policy.OutputTokens, Amount: 16_000, HasReset: true}, // is past
			{Header: "anthropic-ratelimit-requests-remaining", Meter: policy.Requests, Amount: 999, Reset: 2 * limit.Second, HasReset: true},
			{Header: "anthropic-ratelimit-tokens-remaining", Meter: policy.Tokens, Amount: 95_000, HasReset: true},
		}}},
		{"Anthropic, refused", 429, `
			Retry-After: 23
			Anthropic-Ratelimit-Requests-Remaining: 0
			Anthropic-Ratelimit-Requests-Reset: 2025-08-21T12:42:00Z`, provider.Facts{
			Refused: true, Wait: 23 * limit.Second, Left: []provider.Left{
				{Header: "anthropic-ratelimit-requests-remaining", Meter: policy.Requests, Reset: minute, HasReset: true},
			},
		}},
		{"Anthropic, overloaded", 529, "x-should-retry: true", provider.Facts{}},
		{"overloaded, and it says until when", 529, "retry-after: 5", provider.Facts{Refused: true, Wait: 5 * limit.Second}},
		{"OpenAI", 200, `
			x-ratelimit-limit-requests: 5000
			x-ratelimit-limit-tokens: 160000
			x-ratelimit-limit-tokens_usage_based: 160000
			x-ratelimit-remaining-requests: 4999
			x-ratelimit-remaining-tokens: 149984
			x-ratelimit-remaining-tokens_usage_based: 159976
			x-ratelimit-reset-requests: 12ms
			x-ratelimit-reset-tokens: 6m0s`, provider.Facts{Left: []provider.Left{
			{Header: "x-ratelimit-remaining-requests", Meter: policy.Requests, Amount: 4999, Reset: 12 * millisecond, HasReset: true},
			{Header: "x-ratelimit-remaining-tokens", Meter: policy.Tokens, Amount: 149_984, Reset: 6 * minute, HasReset: true},
		}}},
		{"OpenAI, refused: the finer wait counts", 429, "retry-after: 1\nretry-after-ms: 330", provider.Facts{Refused: true, Wait: 330 * millisecond}},
		{"OpenAI, without money: nothing is said", 429, "", provider.Facts{Refused: true, Wait: provider.DefaultWait}},
		{"Azure", 429, `
			Retry-After: 6
			x-ratelimit-remaining-tokens: 0
			x-ratelimit-remaining-requests: 12`, provider.Facts{Refused: true, Wait: 6 * limit.Second, Left: []provider.Left{
			{Header: "x-ratelimit-remaining-requests", Meter: policy.Requests, Amount: 12},
			{Header: "x-ratelimit-remaining-tokens", Meter: policy.Tokens},
		}}},
		{"Groq", 200, `
			x-ratelimit-remaining-requests: 14370
			x-ratelimit-remaining-tokens: 17997
			x-ratelimit-reset-requests: 2m59.56s
			x-ratelimit-reset-tokens: 7.66s`, provider.Facts{Left: []provider.Left{
			{Header: "x-ratelimit-remaining-requests", Meter: policy.Requests, Amount: 14_370, Reset: 179_560 * millisecond, HasReset: true},
			{Header: "x-ratelimit-remaining-tokens", Meter: policy.Tokens, Amount: 17_997, Reset: 7_660 * millisecond, HasReset: true},
		}}},
		{"several limits of a meter, in seconds since 1970", 200, `
			x-ratelimit-remaining-tokens-per-day: 900
			x-ratelimit-reset-tokens-per-day: 1755783660
			x-ratelimit-remaining-tokens-per-minute: 90
			x-ratelimit-reset-tokens-per-minute: 1755780070000`, provider.Facts{Left: []provider.Left{
			{Header: "x-ratelimit-remaining-tokens-per-day", Meter: policy.Tokens, Amount: 900, Reset: 60 * minute, HasReset: true},
			{Header: "x-ratelimit-remaining-tokens-per-minute", Meter: policy.Tokens, Amount: 90, Reset: 10 * limit.Second, HasReset: true},
		}}},
		{"requests, without saying so", 200, "X-RateLimit-Remaining: 7\nX-RateLimit-Reset: 30", provider.Facts{Left: []provider.Left{
			{Header: "x-ratelimit-remaining", Meter: policy.Requests, Amount: 7, Reset: 30 * limit.Second, HasReset: true},
		}}},
		{"the draft", 200, `RateLimit: "burst";r=50;t=30;pk=:QUNNRQ==:, "da,ily";r=9000, "bytes";r=3;t=1` + "\n" +
			`RateLimit-Policy: "burst";q=100;w=60, "bytes";q=9;qu="content-bytes"`, provider.Facts{Left: []provider.Left{
			{Header: "ratelimit", Meter: policy.Requests, Amount: 50, Reset: 30 * limit.Second, HasReset: true},
			{Header: "ratelimit", Meter: policy.Requests, Amount: 9000},
		}}},
		{"the draft, until version 07", 200, "RateLimit: limit=100, remaining=51, reset=31", provider.Facts{Left: []provider.Left{
			{Header: "ratelimit", Meter: policy.Requests, Amount: 51, Reset: 31 * limit.Second, HasReset: true},
		}}},
		{"the draft, until version 06", 200, "RateLimit-Limit: 100\nRateLimit-Remaining: 52\nRateLimit-Reset: 32", provider.Facts{Left: []provider.Left{
			{Header: "ratelimit-remaining", Meter: policy.Requests, Amount: 52, Reset: 32 * limit.Second, HasReset: true},
		}}},
		{"nothing of limits", 500, "content-type: text/plain\nx-request-id: 4\nanthropic-ratelimit-: 4\nx-ratelimit-remaining-apples: 1\nratelimit-policy: x", provider.Facts{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := read(c.status, c.text); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// TestWaits reads the forms in which it is said how long to wait.
func TestWaits(t *testing.T) {
	for text, want := range map[string]limit.Micros{
		"20": 20 * limit.Second, "0.5": limit.Second / 2, "0": 0, "1.5s": 1500 * millisecond,
		"Thu, 21 Aug 2025 12:41:07 GMT": 7 * limit.Second, "Thursday, 21-Aug-25 12:41:08 GMT": 8 * limit.Second,
		"Thu Aug 21 12:41:09 2025": 9 * limit.Second, "Thu, 21 Aug 2025 12:40:07 GMT": 0,
		"3600": provider.MaxWait,
	} {
		if got := read(429, "retry-after: "+text); got.Wait != want || len(got.Notes) > 0 {
			t.Errorf("%q is %+v, want %d", text, got, want)
		}
	}
}

// TestDate sees instants from when the provider has made the answer: its clock may be anywhere.
func TestDate(t *testing.T) {
	got := read(429, "retry-after: Thu, 21 Aug 2025 13:00:09 GMT\ndate: Thu, 21 Aug 2025 13:00:00 GMT")
	if got.Wait != 9*limit.Second {
		t.Errorf("nine seconds after its own time is %d", got.Wait)
	}
}

// TestNonsense tells of each field that cannot be read why, and lets all others count.
func TestNonsense(t *testing.T) {
	for text, why := range map[string]string{
		"x-ratelimit-remaining-tokens: -1":                                 `"-1" is no amount`,
		"x-ratelimit-remaining-tokens: 1e3":                                `"1e3" is no amount`,
		"x-ratelimit-remaining-tokens:":                                    `"" is no amount`,
		"x-ratelimit-remaining-tokens: " + strings.Repeat("9", 600):        "it has 600 bytes",
		"x-ratelimit-reset-tokens: soon":                                   `"soon" is no time`,
		"x-ratelimit-reset-tokens: -5s":                                    `"-5s" is no time`,
		"x-ratelimit-reset-tokens: 5.x":                                    `"5.x" is no time`,
		"x-ratelimit-reset-tokens: 0x10":                                   `"0x10" is no time`,
		"retry-after: NaN":                                                 `"NaN" is no time`,
		"retry-after: 31536000":                                            "no more than an hour is believed",
		"retry-after-ms: 1\nretry-after-ms: 2":                             "it is there twice",
		`ratelimit: "a";r=-2`:                                              `"-2" is no amount`,
		`ratelimit: "a";r=2;t=x`:                                           `"x" is no amount`,
		"X-Ratelimit-Remaining-Tokens: 4\nx-ratelimit-remaining-tokens: 5": "it is there twice",
	} {
		got := read(429, text+"\nx-ratelimit-remaining-requests: 3")
		if len(got.Notes) != 1 || !strings.Contains(got.Notes[0].Why, why) {
			t.Errorf("%.60q: %+v, want a note that %s", text, got.Notes, why)
		}
		last := got.Left[len(got.Left)-1]
		if got.Left[0].Header == "x-ratelimit-remaining-requests" {
			last = got.Left[0]
		}
		if last.Amount != 3 || !got.Refused {
			t.Errorf("%.60q: the others do not count: %+v", text, got)
		}
	}
	if got := read(200, "retry-after: 4"); got.Refused || got.Wait != 0 || len(got.Notes) != 1 {
		t.Errorf("an answer that serves the call: %+v", got)
	}
	if got := read(200, "x-ratelimit-remaining-tokens: "+strings.Repeat("9", 30)); len(got.Left) != 1 || got.Left[0].Amount != limit.MaxAmount {
		t.Errorf("more than can be counted: %+v", got)
	}
}

// FuzzRead reads whatever comes: nothing panics, everything is within its bounds, and names may be in any case.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		"retry-after: 5", "retry-after-ms: 99999999999999999999", "anthropic-ratelimit-tokens-remaining: 4\nanthropic-ratelimit-tokens-reset: 9999-12-31T23:59:59Z",
		"x-ratelimit-reset: 1755783660000\nx-ratelimit-remaining: 0", `ratelimit: "a;,";r=5;t=6,;r=,remaining=`, "date: Thu, 01 Jan 1970 00:00:00 GMT\nx-ratelimit-reset-tokens: 5.\nx-ratelimit-remaining-tokens: 1",
	} {
		f.Add(429, seed)
	}
	f.Fuzz(func(t *testing.T, status int, text string) {
		got := read(status, text)
		if got.Wait < 0 || got.Wait > provider.MaxWait || got.Wait > 0 && !got.Refused {
			t.Errorf("a wait of %d", got.Wait)
		}
		for _, l := range got.Left {
			if l.Amount < 0 || l.Amount > limit.MaxAmount || l.Reset < 0 || l.Reset > provider.MaxReset || !l.HasReset && l.Reset != 0 {
				t.Errorf("left: %+v", l)
			}
		}
		if len(got.Left) > strings.Count(text, "\n")+strings.Count(text, ",")+1 {
			t.Errorf("%d limits", len(got.Left))
		}
		all := headers(text)
		for i := range all {
			all[i].Name = strings.ToUpper(all[i].Name)
		}
		if ascii(text) && !reflect.DeepEqual(got, provider.Read(&provider.Answer{Status: status, Headers: all}, now)) {
			t.Errorf("names in capitals say something else")
		}
	})
}

func ascii(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r > 127 })
}
