package limit_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
)

// row is something that happens to a bucket, and what the limit says of it.
//
//	charge n        judged, and counted if there is room
//	check           judged as 1, counting nothing
//	record n        counted regardless
//	hold a n        judged, and held under the name a if there is room
//	settle a n      the hold a ends: n were used
//	correct a n     the hold a had ended; in truth n were used
//	give back n     returned without saying of what
//
// What it says: whether there is room, what is left and held after it, how long until there is room
// for it, and how long until nothing is used ("empty").
type row struct{ at, do, says string }

// Each table is a walk through one limit, which doubles as its specification.
func TestTables(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	tables := []struct {
		name  string
		spec  limit.Spec
		start string
		rows  []row
	}{
		{"10 per minute, burst 5", limit.Spec{Algorithm: limit.TokenBucket, Limit: 10, Burst: 5, Window: minute}, "2026-11-21T12:00:07Z", []row{
			{"0s", "check", "room; 5 left; empty in 0s"},
			{"0s", "charge 5", "room; 0 left; empty in 30s"},
			{"0s", "charge 1", "refused; 0 left; retry in 6s; empty in 30s"},
			{"0s", "charge 5", "refused; 0 left; retry in 30s; empty in 30s"},
			{"0s", "charge 6", "never; 0 left; empty in 30s"},
			{"5.999999s", "charge 1", "refused; 0 left; retry in 1µs; empty in 24.000001s"},
			{"6s", "charge 1", "room; 0 left; empty in 30s"},
			{"15s", "charge 2", "refused; 1 left; retry in 3s; empty in 21s"}, // 1½ have drained
			{"15s", "charge 1", "room; 0 left; empty in 27s"},                 // 4½ are in it
			{"18s", "charge 1", "room; 0 left; empty in 30s"},
			{"48s", "check", "room; 5 left; empty in 0s"},
			{"48s", "record 8", "-3 left; empty in 48s"}, // debt
			{"48s", "check", "refused; -3 left; retry in 24s; empty in 48s"},
			{"1m36s", "hold a 4", "room; 1 left; 4 held; empty in 24s"},
			{"1m48s", "settle a 3", "4 left; empty in 6s"}, // 2 have drained; 1 of the other 2 goes back
			{"1m54s", "hold b 4", "room; 1 left; 4 held; empty in 24s"},
			{"2m6s", "settle b 1", "5 left; empty in 0s"}, // of the 3 not used, 1 has drained already
			{"2m6s", "hold c 1", "room; 4 left; 1 held; empty in 6s"},
			{"2m7.5s", "settle c 0", "5 left; empty in 0s"}, // ¾ of a unit goes back
			{"2m7.5s", "hold d 2", "room; 3 left; 2 held; empty in 12s"},
			{"3m", "charge 5", "room; 0 left; 2 held; empty in 30s"}, // the hold has drained, but has not ended
			{"3m", "settle d 0", "0 left; empty in 30s"},             // so that nothing of it goes back
			{"3m3s", "give back 5", "5 left; empty in 0s"},           // no more than is in it
			{"3m3s", "hold e 1", "room; 4 left; 1 held; empty in 6s"},
			{"3m3s", "settle e 4", "1 left; empty in 24s"},
			{"3m3s", "correct e 7", "-2 left; empty in 42s"},
			{"3m3s", "correct e 6", "-1 left; empty in 36s"},
		}},
		{"burst 10 of which the upper 4 are for others", limit.Spec{Algorithm: limit.TokenBucket, Limit: 10, Burst: 10, Headroom: 4, Window: minute}, "2026-11-21T12:00:07Z", []row{
			{"0s", "charge 7", "never; 6 left; empty in 0s"},
			{"0s", "charge 6", "room; 0 left; empty in 36s"},
			{"0s", "record 4", "-4 left; empty in 1m0s"}, // the others
			{"0s", "charge 1", "refused; -4 left; retry in 30s; empty in 1m0s"},
		}},
		{"sliding window, 10 per minute", limit.Spec{Algorithm: limit.SlidingWindow, Limit: 10, Window: minute}, "2026-11-21T12:00:00Z", []row{
			{"50s", "charge 10", "room; 0 left; empty in 1m10s"},
			{"50s", "charge 1", "refused; 0 left; retry in 16s; empty in 1m10s"}, // into the next window, to its 6th second
			{"50s", "charge 10", "refused; 0 left; retry in 1m10s; empty in 1m10s"},
			{"1m0s", "charge 1", "refused; 0 left; retry in 6s; empty in 1m0s"},
			{"1m5.999999s", "charge 1", "refused; 0 left; retry in 1µs; empty in 54.000001s"},
			{"1m6s", "charge 1", "room; 0 left; empty in 1m54s"},
			{"1m30s", "charge 5", "refused; 4 left; retry in 6s; empty in 1m30s"}, // half of the 10 is in sight, and 1
			{"1m36s", "charge 5", "room; 0 left; empty in 1m24s"},
			{"1m36s", "charge 11", "never; 0 left; empty in 1m24s"},
			{"2m0s", "hold a 4", "room; 0 left; 4 held; empty in 2m0s"},
			{"3m30s", "check", "room; 8 left; 2 held; empty in 30s"},
			{"3m30s", "settle a 1", "9 left; empty in 30s"}, // half of 1, rounded up
			{"3m30s", "record 12", "-3 left; empty in 1m30s"},
			{"3m30s", "give back 20", "9 left; empty in 30s"}, // the current window's only
			{"4m0s", "hold b 2", "room; 8 left; 2 held; empty in 2m0s"},
			{"6m0s", "settle b 9", "10 left; empty in 0s"}, // out of sight
		}},
		{"sliding log, 3 per minute", limit.Spec{Algorithm: limit.SlidingLog, Limit: 3, Window: minute}, "2026-11-21T12:00:07Z", []row{
			{"0s", "charge 1", "room; 2 left; empty in 1m0s"},
			{"20s", "charge 2", "room; 0 left; empty in 1m0s"},
			{"20s", "charge 1", "refused; 0 left; retry in 40s; empty in 1m0s"},
			{"20s", "charge 2", "refused; 0 left; retry in 1m0s; empty in 1m0s"},
			{"20s", "charge 4", "never; 0 left; empty in 1m0s"},
			{"59.999999s", "charge 1", "refused; 0 left; retry in 1µs; empty in 20.000001s"},
			{"1m0s", "hold a 1", "room; 0 left; 1 held; empty in 1m0s"},
			{"1m0s", "charge 2", "refused; 0 left; 1 held; retry in 20s; empty in 1m0s"},
			{"1m1s", "settle a 0", "1 left; empty in 19s"},
			{"1m2s", "record 4", "-3 left; empty in 1m0s"},
			{"1m2s", "charge 1", "refused; -3 left; retry in 1m0s; empty in 1m0s"},
			{"1m3s", "give back 5", "2 left; empty in 17s"}, // the newest first
			{"1m20s", "check", "room; 3 left; empty in 0s"},
			{"1m20s", "hold b 2", "room; 1 left; 2 held; empty in 1m0s"},
			{"1m50s", "settle b 3", "0 left; empty in 30s"}, // counted when it was held
			{"2m20s", "correct b 1", "3 left; empty in 0s"}, // out of sight
		}},
		{"10 per minute", limit.Spec{Limit: 10, Window: minute}, "2026-11-21T12:00:00Z", []row{
			{"50s", "charge 10", "room; 0 left; empty in 10s"},
			{"50s", "charge 1", "refused; 0 left; retry in 10s; empty in 10s"},
			{"50s", "charge 11", "never; 0 left; empty in 10s"},
			{"59.999999s", "charge 1", "refused; 0 left; retry in 1µs; empty in 1µs"},
			{"1m0s", "charge 10", "room; 0 left; empty in 1m0s"}, // 20 within 10 s
			{"1m1s", "record 5", "-5 left; empty in 59s"},
			{"2m0s", "hold a 6", "room; 4 left; 6 held; empty in 1m0s"},
			{"2m1s", "settle a 2", "8 left; empty in 59s"},
			{"2m2s", "correct a 3", "7 left; empty in 58s"},
			{"2m3s", "give back 5", "10 left; empty in 0s"},
			{"2m4s", "hold b 6", "room; 4 left; 6 held; empty in 56s"},
			{"3m0s", "settle b 9", "10 left; empty in 0s"}, // never touches the new window
		}},
		{"10 per minute of first use", limit.Spec{FirstUse: true, Limit: 10, Window: minute}, "2026-11-21T12:00:00Z", []row{
			{"50s", "check", "room; 10 left; empty in 0s"}, // begins nothing
			{"55s", "charge 10", "room; 0 left; empty in 1m0s"},
			{"1m30s", "charge 1", "refused; 0 left; retry in 25s; empty in 25s"},
			{"1m54.999999s", "charge 1", "refused; 0 left; retry in 1µs; empty in 1µs"},
			{"1m55s", "check", "room; 10 left; empty in 0s"},
			{"2m0s", "charge 1", "room; 9 left; empty in 1m0s"},
		}},
		// Clocks go from 2:00 to 3:00 on 29 March.
		{"10 per day in Berlin", limit.Spec{Algorithm: limit.CalendarWindow, Limit: 10, Calendar: &limit.Calendar{Period: limit.PerDay, Zone: berlin}}, "2026-03-29T00:00:00+01:00", []row{
			{"0s", "charge 10", "room; 0 left; empty in 23h0m0s"},
			{"2h", "charge 1", "refused; 0 left; retry in 21h0m0s; empty in 21h0m0s"},
			{"22h59m59.999999s", "charge 1", "refused; 0 left; retry in 1µs; empty in 1µs"},
			{"23h", "charge 1", "room; 9 left; empty in 24h0m0s"},
			{"24h", "hold a 5", "room; 4 left; 5 held; empty in 23h0m0s"},
			{"47h", "settle a 8", "10 left; empty in 0s"}, // never touches the new day
		}},
		{"3 at once", limit.Spec{Algorithm: limit.Concurrency, Limit: 3}, "2026-11-21T12:00:07Z", []row{
			{"0s", "hold a 1", "room; 2 left; 1 held; empty in 0s"},
			{"1s", "hold b 2", "room; 0 left; 3 held; empty in 0s"},
			{"1s", "hold c 4", "never; 0 left; 3 held; empty in 0s"},
			{"1h", "check", "refused; 0 left; 3 held; retry in 2501999h47m34.740991s; empty in 0s"}, // no time frees a place
			{"1h", "record 1", "0 left; 3 held; empty in 0s"},                                       // and none is taken but by a hold
			{"1h", "settle a 7", "1 left; 2 held; empty in 0s"},                                     // whatever was used
			{"1h", "give back 2", "1 left; 2 held; empty in 0s"},
			{"2h", "settle b 0", "3 left; empty in 0s"},
		}},
	}
	for _, table := range tables {
		t.Run(table.name, func(t *testing.T) {
			start, err := time.Parse(time.RFC3339, table.start)
			if err != nil {
				t.Fatal(err)
			}
			w := walkThrough{s: table.spec, holds: map[string]*held{}}
			for _, row := range table.rows {
				after, err := time.ParseDuration(row.at)
				if err != nil {
					t.Fatal(err)
				}
				w.now = w.s.Advance(&w.st, limit.At(start.Add(after)))
				if got := w.do(t, row.do); got != row.says {
					t.Errorf("%s, %s\nsays %s\nwant %s", row.at, row.do, got, row.says)
				}
			}
		})
	}
}

type walkThrough struct {
	s     limit.Spec
	st    limit.State
	now   limit.Micros
	holds map[string]*held
}

func (w *walkThrough) do(t *testing.T, what string) string {
	verb, rest, _ := strings.Cut(strings.Replace(what, "give back", "give-back", 1), " ")
	name, number, named := strings.Cut(rest, " ")
	if !named {
		name, number = "", name
	}
	amount := int64(1)
	if number != "" {
		var err error
		if amount, err = strconv.ParseInt(number, 10, 64); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}

	verdict, retry := "", ""
	judged := verb == "charge" || verb == "check" || verb == "hold"
	if judged {
		status := w.s.Judge(&w.st, w.now, amount, 0)
		switch {
		case status.Never:
			verdict = "never; "
		case status.Refused:
			verdict, retry = "refused; ", fmt.Sprintf("retry in %v; ", status.RetryAfter.Duration())
		default:
			verdict = "room; "
		}
	}
	if !judged || verdict == "room; " {
		w.apply(t, verb, name, amount)
	}
	after := w.s.Describe(&w.st, w.now)
	held := ""
	if after.Held > 0 {
		held = fmt.Sprintf("%d held; ", after.Held)
	}
	return fmt.Sprintf("%s%d left; %s%sempty in %v", verdict, after.Remaining, held, retry, after.ResetAfter.Duration())
}

func (w *walkThrough) apply(t *testing.T, verb, name string, amount int64) {
	h := w.holds[name]
	if h == nil && (verb == "settle" || verb == "correct") {
		t.Fatalf("nothing was held under the name %s", name)
	}
	switch verb {
	case "check":
	case "charge", "record":
		w.s.Charge(&w.st, w.now, amount)
	case "give-back":
		w.s.GiveBack(&w.st, w.now, amount)
	case "hold":
		w.holds[name] = &held{units: amount, mark: w.s.Hold(&w.st, w.now, amount)}
	case "settle":
		w.s.Settle(&w.st, w.now, h.mark, h.units, amount)
		h.units = amount
	case "correct":
		w.s.Correct(&w.st, w.now, h.mark, h.units, amount)
		h.units = amount
	default:
		t.Fatalf("what is %q?", verb)
	}
}
