package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/store/redis/redistest"
)

// inEach runs a test of the example in each language.
func inEach(t *testing.T, run func(t *testing.T, command []string)) {
	for _, language := range slices.Sorted(maps.Keys(languages())) {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			run(t, languages()[language])
		})
	}
}

// rows are those of the printed table, by user.
func rows(t *testing.T, said string) map[string]string {
	t.Helper()
	_, table, _ := strings.Cut(said, "\n\ntier     user   calls  served  first wait   median  longest\n")
	table, _, found := strings.Cut(table, "\n\n")
	if !found {
		t.Fatal("it has printed no table")
	}
	all := map[string]string{}
	for line := range strings.Lines(table + "\n") {
		all[strings.Fields(line)[1]] = strings.TrimSuffix(line, "\n")
	}
	return all
}

// The whole of it: every call is there and served, in the time that the lane takes, and the table says what ration says.
func TestBurst(t *testing.T) {
	for _, store := range []string{"memory", "redis"} {
		t.Run(store, func(t *testing.T) {
			inEach(t, func(t *testing.T, command []string) {
				as := setting{}
				if store == "redis" {
					as.store = redistest.Start(t).URL()
				}
				s := newSite(t, as)
				said, status := s.example(t, command).ends(t)
				if status != 0 {
					t.Errorf("it ends with status %d", status)
				}
				admitted := s.witness.inOrder()
				checkDrain(t, admitted, 200*time.Millisecond)
				checkTable(t, said, admitted)
				checkShape(t, said)
				s.checkLedger(t, admitted)
				if n := strings.Count(said, " in line: about "); n < 3 || n > 15 {
					t.Errorf("it says %d times who is the last in line", n)
				}
			})
		})
	}
}

// checkDrain makes sure of the lane's pace, by the store's clock.
func checkDrain(t *testing.T, admitted []*admission, pace time.Duration) {
	t.Helper()
	for i := 1; i < len(admitted); i++ {
		if apart := admitted[i].at.Sub(admitted[i-1].at); apart < pace {
			t.Errorf("call %d was let through %v after the one before it, want %v at least", i+1, apart, pace)
		}
	}
}

// checkTable makes sure that the table says of each user what ration has said, and in the last line of each tier.
func checkTable(t *testing.T, said string, admitted []*admission) {
	t.Helper()
	printed := rows(t, said)
	longest, calls := map[string]float64{}, 0
	for _, v := range burst() {
		var waits []float64
		for _, a := range admitted {
			if a.user != v.name {
				continue
			}
			if waits = append(waits, a.waited.Seconds()); a.tier != v.tier {
				t.Errorf("%s was %s, want %s", v.name, a.tier, v.tier)
			}
		}
		slices.Sort(waits)
		calls += v.calls
		if len(waits) != v.calls {
			t.Errorf("%d calls of %s were let through, want %d", len(waits), v.name, v.calls)
			continue
		}
		want := fmt.Sprintf("%-8s %-5s %6d %7d %9.1f s %6.1f s %6.1f s", v.tier, v.name, v.calls, v.calls, waits[0], waits[(len(waits)-1)/2], waits[len(waits)-1])
		if printed[v.name] != want {
			t.Errorf("it prints\n%s\nof %s, want\n%s", printed[v.name], v.name, want)
		}
		longest[v.tier] = max(longest[v.tier], waits[len(waits)-1])
	}
	if longest["premium"] >= longest["pro"] || longest["pro"] >= longest["free"] {
		t.Errorf("the longest waits are %v", longest)
	}
	want := fmt.Sprintf("\n\n%d of %d calls were served. The longest wait: premium %.1f s, pro %.1f s, free %.1f s.\n",
		calls, calls, longest["premium"], longest["pro"], longest["free"])
	if !strings.HasSuffix(said, want) {
		t.Errorf("it does not end with %q", want)
	}
}

// checkShape makes sure that what is printed looks as the README shows it: all but how long who has waited.
func checkShape(t *testing.T, said string) {
	t.Helper()
	page, err := os.ReadFile("examples/lanes/README.md")
	if err != nil {
		t.Fatal(err)
	}
	shape := func(text string) string {
		_, table, _ := strings.Cut(text, "\n\ntier ")
		table, _, _ = strings.Cut(table, "```")
		return regexp.MustCompile(` +\d+\.\d s`).ReplaceAllString(table, " # s")
	}
	if got, want := shape(said), shape(string(page)); got != want {
		t.Errorf("it prints\n%s\nthe README shows\n%s", got, want)
	}
}

// checkLedger makes sure that the model was called once for each call that was let through, and that what it says it has
// served is what ration was told.
func (s *site) checkLedger(t *testing.T, admitted []*admission) {
	t.Helper()
	var settled rationv1.Usage
	for _, a := range admitted {
		if a.settled == nil || a.released {
			t.Errorf("a call of %s was not settled", a.user)
		}
		settled.InputTokens += a.settled.GetInputTokens()
		settled.CacheReadTokens += a.settled.GetCacheReadTokens()
		settled.OutputTokens += a.settled.GetOutputTokens()
	}
	var ledger struct {
		Total struct {
			Requests, Completed int
			Served              struct {
				Input     int64 `json:"input_tokens"`
				CacheRead int64 `json:"cache_read_tokens"`
				Output    int64 `json:"output_tokens"`
			}
		}
	}
	if err := json.Unmarshal(get(t, s.model+"/fake/ledger"), &ledger); err != nil {
		t.Fatal(err)
	}
	total := ledger.Total
	if total.Completed != len(admitted) || total.Requests != len(admitted) || total.Served.Output == 0 ||
		total.Served.Input != settled.InputTokens || total.Served.CacheRead != settled.CacheReadTokens || total.Served.Output != settled.OutputTokens {
		t.Errorf("the model has served %+v, and ration was told of %d calls and %v", total, len(admitted), &settled)
	}
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, response.Status, err)
	}
	return body
}

// Who is refused hears why: the line is full of their own calls, or they have waited for too long. All others are served.
func TestRefused(t *testing.T) {
	inEach(t, func(t *testing.T, command []string) {
		s := newSite(t, setting{
			policy: map[string]string{"max_wait: 30s": "max_wait: 1100ms", "per_subject: 10": "per_subject: 3"}, script: "first-byte=2s",
		})
		said, status := s.example(t, command).ends(t)
		if status != 0 {
			t.Errorf("it ends with status %d", status)
		}
		served := len(s.witness.inOrder())
		want := map[string]int{}
		for _, d := range s.witness.refused {
			want[d.GetMessage()]++
		}
		got := map[string]int{}
		for _, m := range regexp.MustCompile(`(?m)^\w+ \(\w+\) is refused: (.*)$`).FindAllStringSubmatch(said, -1) {
			got[m[1]]++
		}
		if !maps.Equal(got, want) || served+len(s.witness.refused) != 30 {
			t.Errorf("%d were served, and it says that others were refused as follows:\n%v\nration says\n%v", served, got, want)
		}
		for _, words := range []string{"is refused: Too many of your requests wait for their turn already.", "is refused: Waited 1 s, "} {
			if !strings.Contains(said, words) {
				t.Errorf("nobody %q", words)
			}
		}
		if row := rows(t, said)["finn"]; !regexp.MustCompile(`^free     finn       8       [0-4]( |$)`).MatchString(row) {
			t.Errorf("the row of the batch is %q", row)
		}
		if end := fmt.Sprintf("\n\n%d of 30 calls were served.", served); !strings.Contains(said, end) {
			t.Errorf("it does not end with %q", end)
		}
	})
}

// Where the model fails all that calls hold is given back.
func TestModelFails(t *testing.T) {
	inEach(t, func(t *testing.T, command []string) {
		s := newSite(t, setting{policy: map[string]string{"drain: 5/second": "drain: 100/second"}, script: "status=500"})
		said, status := s.example(t, command).ends(t)
		if status != 1 || !strings.HasSuffix(said, "\n\n0 of 30 calls were served.\nlanes: 30 calls have failed\n") {
			t.Errorf("it ends with status %d", status)
		}
		if n := strings.Count(said, "): the model has answered 500 Internal Server Error\n"); n != 30 {
			t.Errorf("it says of %d calls that the model has failed", n)
		}
		admitted := s.witness.inOrder()
		for _, a := range admitted {
			if !a.released || a.settled != nil {
				t.Errorf("a call of %s is not released", a.user)
			}
		}
		if len(admitted) != 30 {
			t.Errorf("%d calls were let through", len(admitted))
		}
	})
}

// Who hangs up leaves the line, and gives back what was held, although the model has not answered.
func TestHangUp(t *testing.T) {
	inEach(t, func(t *testing.T, command []string) {
		s := newSite(t, setting{policy: map[string]string{"drain: 5/second": "drain: 30/minute"}, script: "first-byte=1h"})
		p := s.example(t, command)
		eventually(t, "a call has been let through", func() bool { return len(s.witness.inOrder()) > 0 })
		if err := p.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		said, status := p.ends(t)
		if status != 1 || !strings.HasSuffix(said, "lanes: interrupted: who waited has left the line, and what was held is given back\n") ||
			strings.Contains(said, "Traceback") || strings.Contains(said, "canceled") {
			t.Errorf("it ends with status %d", status)
		}
		if n := len(s.witness.inOrder()); n == 30 {
			t.Error("those who waited have stayed until their turns")
		}
		eventually(t, "nobody waits", func() bool {
			return strings.Contains(string(get(t, "http://"+s.metrics+"/metrics")), `ration_lane_waiting{domain="chat",lane="model"} 0`)
		})
		for _, v := range burst() {
			eventually(t, "nothing is held of "+v.name, func() bool { return s.held(t, v.user) == 0 })
		}
	})
}

// held returns how many tokens are held of a user.
func (s *site) held(t *testing.T, u user) int64 {
	t.Helper()
	answer, err := rationv1.NewUsageServiceClient(s.ration).GetUsage(t.Context(), &rationv1.GetUsageRequest{
		Caller: &rationv1.Caller{Domain: "chat", Attributes: map[string]string{"user": u.name}, Tier: u.tier},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range answer.GetLimits() {
		if l.GetStatus().GetLimit() == "chat.user.tokens" {
			return l.GetStatus().GetHeld()
		}
	}
	t.Fatalf("%s has no limit of tokens: %v", u.name, answer)
	return 0
}

// Where connections break all that got lost is asked again, and counts once.
func TestConnectionsBreak(t *testing.T) {
	inEach(t, func(t *testing.T, command []string) {
		s := newSite(t, setting{breaks: true})
		said, status := s.example(t, command).ends(t)
		if status != 0 || !strings.Contains(said, "\n\n30 of 30 calls were served.") {
			t.Errorf("it ends with status %d", status)
		}
		admitted := s.witness.inOrder()
		checkDrain(t, admitted, 200*time.Millisecond)
		s.checkLedger(t, admitted)
		again := 0
		for _, n := range s.witness.streams {
			if n > 1 {
				again++
			}
		}
		if len(s.witness.streams) != 30 || again < 10 {
			t.Errorf("%d keys, of which %d came again", len(s.witness.streams), again)
		}
		for _, a := range admitted {
			if a.ends != 2 {
				t.Errorf("the end of a call of %s was told %d times", a.user, a.ends)
			}
		}
	})
}
