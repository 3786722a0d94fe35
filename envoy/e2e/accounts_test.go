package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// used is what ration tells of the usage of a subject, of all its calls so far.
type used struct {
	Requests, Cost int64
	Usage          struct{ InputTokens, CacheReadTokens, CacheWriteTokens, OutputTokens int64 }
}

// post calls a method of ration's own API over HTTP and reads its answer.
func (r *ration) post(t testing.TB, method string, question, answer any) {
	t.Helper()
	body, err := json.Marshal(question)
	if err != nil {
		t.Fatal(err)
	}
	got := send(t, "http://"+r.http, request{method: http.MethodPost, path: "/ration.v1." + method, body: string(body),
		header: map[string]string{"content-type": "application/json"}})
	if got.code != http.StatusOK {
		t.Fatalf("%s: code %d: %s", method, got.code, got.body)
	}
	if err := json.Unmarshal([]byte(got.body), answer); err != nil {
		t.Fatalf("%s: %v in %s", method, err, got.body)
	}
}

// used tells what the users of the domain llm have used since a time, by user.
func (r *ration) used(t testing.TB, since time.Time) map[string]used {
	t.Helper()
	var told struct {
		Rows []struct {
			Group          map[string]string
			Requests, Cost int64 `json:",string"`
			Usage          struct {
				InputTokens, CacheReadTokens, CacheWriteTokens, OutputTokens int64 `json:",string"`
			}
		}
	}
	r.post(t, "UsageService/QueryUsage", map[string]any{
		"domain": "llm", "from": since.UTC().Format(time.RFC3339), "resolution": "RESOLUTION_TOTAL", "groupBy": []string{"subject"},
	}, &told)
	all := map[string]used{}
	for _, row := range told.Rows {
		u := used{Requests: row.Requests, Cost: row.Cost}
		u.Usage = struct{ InputTokens, CacheReadTokens, CacheWriteTokens, OutputTokens int64 }(row.Usage)
		var user string
		if _, err := fmt.Sscanf(row.Group["subject"], "user=%s", &user); err != nil {
			t.Fatalf("subject %q: %v", row.Group["subject"], err)
		}
		all[user] = u
	}
	return all
}

// byUser adds up what fakellm has served, by user.
func (f *fakellm) byUser(t testing.TB) map[string]served {
	t.Helper()
	all := map[string]served{}
	_, rows := f.ledger(t)
	for _, row := range rows {
		if _, twice := all[row.User]; twice {
			t.Fatalf("%s has used two models, which one sum cannot tell apart", row.User)
		}
		all[row.User] = row
	}
	return all
}
