package rls

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store/memory"
)

// Over Envoy's protocol money is whole cents where there is room for whole numbers only, and exact dollars, as strings,
// in the metadata and the body. An output token costs $0.0003 here.
func TestMoney(t *testing.T) {
	const spending = `
domain: shop
prices: { book: none, models: { haiku: { input: 1, output: 300 } } }
descriptors:
- key: user
  limits: [ { name: spend, meter: cost, limit: $1/month } ]
- key: company
  limits: [ { name: most, meter: cost, limit: "$9_007_199.25/month" } ]
- key: drop
  limits: [ { name: drop, meter: cost, limit: $0.009/month } ]
- key: both
  limits:
  - { name: spend, meter: cost, limit: $1/month }
  - { name: tokens, meter: tokens, algorithm: fixed_window, limit: 5_000/hour }
`
	p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: []byte(spending)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, time.November, 30, 12, 0, 0, 0, time.UTC)
	s := memory.New(memory.Options{Clock: func() limit.Micros { return limit.At(now) }})
	defer func() { _ = s.Close() }()
	e := engine.New(s, engine.Options{})
	defer e.Close()
	e.SetPolicy(p)
	service := New(e, Options{Headers: DefaultHeaders, Metadata: true, Body: true})

	const recorded = "ration.phase=record ration.meter=output_tokens ration.model=haiku"
	for _, c := range []struct {
		entries string
		hits    int // 0: as many as there are without saying
		// What is answered: the code of HTTP; the status; the headers of limit and remaining; the first limit of the
		// metadata but for times; and a part of the body.
		code                            int
		status, headers, metadata, body string
	}{
		{
			"user=ann ration.model=haiku", 0, http.StatusOK, "spend 100/MONTH 100", "100 100",
			"held:0.00 limit:1.00 meter:cost name:spend remaining:1.00 unit:usd used:0.00", "",
		},
		{
			"user=ann " + recorded, 2501, http.StatusOK, "spend 100/MONTH 24", "100 24",
			"held:0.00 limit:1.00 meter:cost name:spend remaining:0.2497 unit:usd used:0.7503", "",
		},
		{
			"user=ann ration.request=r ration.phase=hold ration.meter=output_tokens ration.model=haiku", 833, http.StatusTooManyRequests,
			"spend 100/MONTH 24", "100 24", "held:0.00 limit:1.00 meter:cost name:spend over:true remaining:0.2497 unit:usd used:0.7503",
			`"limit":"1.00","remaining":"0.2497","name":"spend","meter":"cost","unit":"usd"`,
		},
		{
			"user=ann " + recorded, 836, http.StatusOK, "spend 100/MONTH 0", "100 0",
			"held:0.00 limit:1.00 meter:cost name:spend remaining:-0.0011 unit:usd used:1.0011", "",
		},
		{
			"user=ann ration.model=haiku", 0, http.StatusTooManyRequests, "spend 100/MONTH 0", "100 0",
			"held:0.00 limit:1.00 meter:cost name:spend over:true remaining:-0.0011 unit:usd used:1.0011",
			`"message":"Monthly budget used up: $1.0011 of $1.00. Resets at 00:00 (UTC)."`,
		},
		{
			"company=x ration.model=haiku", 0, http.StatusOK, "most 900719925/MONTH 900719925", "900719925 900719925",
			"held:0.00 limit:9007199.25 meter:cost name:most remaining:9007199.25 unit:usd used:0.00", "",
		},
		{
			"drop=x ration.model=haiku", 0, http.StatusOK, "drop 1/MONTH 0", "1 0",
			"held:0.00 limit:0.009 meter:cost name:drop remaining:0.009 unit:usd used:0.00", "",
		},
		{
			"both=x " + recorded, 3000, http.StatusOK, "tokens 5000/HOUR 2000", "5000 2000",
			"held:0.00 limit:1.00 meter:cost name:spend remaining:0.10 unit:usd used:0.90", "",
		},
		{
			"user=ann ration.model=haikoo", 0, http.StatusTooManyRequests, "spend 100/MONTH 0", "100 0",
			"held:0.00 limit:1.00 meter:cost name:spend over:true remaining:-0.0011 unit:usd used:1.0011",
			`the model haikoo has no price here. Did you mean haiku?"`,
		},
	} {
		t.Run(fmt.Sprintf("%s %d", c.entries, c.hits), func(t *testing.T) {
			code, got := askJSON(t, service, c.entries, c.hits)
			if code != c.code {
				t.Errorf("HTTP status %d, want %d", code, c.code)
			}
			first := got.GetStatuses()[0]
			current := first.GetCurrentLimit()
			status := fmt.Sprintf("%s %d/%s %d", current.GetName(), current.GetRequestsPerUnit(), current.GetUnit(), first.GetLimitRemaining())
			if status != c.status {
				t.Errorf("the status says %s, want %s", status, c.status)
			}
			headers := map[string]string{}
			for _, h := range got.GetResponseHeadersToAdd() {
				headers[h.GetKey()] = h.GetValue()
			}
			if said := headers["RateLimit-Limit"] + " " + headers["RateLimit-Remaining"]; said != c.headers {
				t.Errorf("the headers say %s, want %s", said, c.headers)
			}
			if said := degradedOf(got); said != "degraded=<nil> limits=map["+c.metadata+"]" {
				t.Errorf("the metadata says %s\nwant %s", said, c.metadata)
			}
			body := string(got.GetRawBody())
			if !strings.Contains(body, c.body) || (body == "") != (c.body == "") || body != "" && !json.Valid([]byte(body)) {
				t.Errorf("the body is %s\nand lacks %s", body, c.body)
			}
		})
	}
}

// askJSON asks /json about one descriptor, and returns the answer.
func askJSON(t *testing.T, s *Service, entries string, hits int) (code int, answer *ratelimitv3.RateLimitResponse) {
	t.Helper()
	type entry struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	type descriptor struct {
		Entries []entry `json:"entries"`
		Hits    *int    `json:"hitsAddend,omitempty"`
	}
	d := descriptor{}
	for _, word := range strings.Fields(entries) {
		key, value, _ := strings.Cut(word, "=")
		d.Entries = append(d.Entries, entry{key, value})
	}
	if hits > 0 {
		d.Hits = &hits
	}
	body, err := json.Marshal(map[string]any{"domain": "shop", "descriptors": []descriptor{d}})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/json", strings.NewReader(string(body))))
	answer = new(ratelimitv3.RateLimitResponse)
	if err := protojson.Unmarshal(w.Body.Bytes(), answer); err != nil {
		t.Fatalf("%d: %v: %s", w.Code, err, w.Body)
	}
	return w.Code, answer
}
