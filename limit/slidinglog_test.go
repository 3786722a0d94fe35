package limit_test

import (
	"testing"

	"github.com/rationhq/ration/limit"
)

// A log that is full of what was given back is still exact: those entries make room.
func TestLogDropsWhatWasGivenBack(t *testing.T) {
	s := limit.Spec{Algorithm: limit.SlidingLog, Limit: 3, Window: minute}
	var st limit.State
	var now limit.Micros
	at := func(d limit.Micros) limit.Micros { return s.Advance(&st, day+d) }

	s.Charge(&st, at(5000-minute), 1) // passes out of sight meanwhile
	s.Charge(&st, at(0), 1)
	for i := range limit.Micros(2 * limit.MaxLog) { // within 20 ms
		now = at(1 + i)
		s.Settle(&st, now, s.Hold(&st, now, 1), 1, 0)
	}
	s.Charge(&st, at(10*limit.Second), 1)
	now = at(20 * limit.Second)
	mark := s.Hold(&st, now, 1)
	if got := s.Judge(&st, now, 1, 0); got.RetryAfter != 40*limit.Second {
		t.Errorf("the first of three passes out of sight in 40 s, and the answer is %+v", got)
	}
	if got := s.Judge(&st, now, 2, 0); got.RetryAfter != 50*limit.Second {
		t.Errorf("the second of three passes out of sight in 50 s, and the answer is %+v", got)
	}
	s.Settle(&st, now, mark, 1, 0)
	if got := s.Describe(&st, now); got.Remaining != 1 || got.ResetAfter != 50*limit.Second {
		t.Errorf("two are left in sight, and the answer is %+v", got)
	}
	if n := len(st.Log.Entries); n > limit.MaxLog {
		t.Errorf("the log has %d entries, want at most %d", n, limit.MaxLog)
	}
}

// What is charged regardless of the limit, and does not fit the log, counts with the newest entry: it
// is forgotten late rather than early, and the log does not grow.
func TestLogIsBounded(t *testing.T) {
	s := limit.Spec{Algorithm: limit.SlidingLog, Limit: limit.MaxLog, Window: minute}
	var st limit.State
	const more = 500
	for i := range limit.Micros(limit.MaxLog + more) {
		s.Charge(&st, s.Advance(&st, day+i), 1)
	}
	newest := day + limit.Micros(limit.MaxLog+more-1)
	if got := s.Describe(&st, newest); got.Remaining != -more || got.ResetAfter != minute {
		t.Errorf("%d units were charged, and the answer is %+v", limit.MaxLog+more, got)
	}
	if n := len(st.Log.Entries); n != limit.MaxLog {
		t.Errorf("the log has %d entries, want %d", n, limit.MaxLog)
	}
	// All but the newest entry are of one microsecond each; that one has taken up the last 501.
	now := s.Advance(&st, newest+minute-1)
	if got := s.Describe(&st, now).Used; got != more+1 {
		t.Errorf("just before the newest entry passes out of sight, %d are used, want %d", got, more+1)
	}
}

// A hold in an entry that was taken up by a newer one is settled there.
func TestLogSettlesWhatWasTakenUp(t *testing.T) {
	s := limit.Spec{Algorithm: limit.SlidingLog, Limit: limit.MaxLog, Window: minute}
	var st limit.State
	now := limit.Micros(0)
	for i := range limit.Micros(limit.MaxLog - 1) {
		now = s.Advance(&st, day+i)
		s.Charge(&st, now, 1)
	}
	now = s.Advance(&st, now+1)
	mark := s.Hold(&st, now, 1)
	now = s.Advance(&st, now+1)
	s.Charge(&st, now, 5)
	s.Settle(&st, now, mark, 1, 0)
	if got := s.Describe(&st, now); got.Held != 0 || got.Remaining != 1-5 {
		t.Errorf("one place was settled to nothing, 5 are debt, and the answer is %+v", got)
	}
}

// A log in use does not keep what has passed out of sight.
func TestLogSlides(t *testing.T) {
	for _, n := range []int{1, 16, 100, 1000} {
		s := limit.Spec{Algorithm: limit.SlidingLog, Limit: int64(n), Window: limit.Micros(n)}
		var st limit.State
		for i := range limit.Micros(50 * n) {
			s.Charge(&st, s.Advance(&st, day+i), 1) // always n of them in sight
		}
		if got := s.Describe(&st, st.At).Remaining; got != 0 {
			t.Errorf("%d remain of %d", got, n)
		}
		if c := cap(st.Log.Entries); c > 3*n+8 {
			t.Errorf("the log of %d charges has room for %d", n, c)
		}
	}
}

// Whether a charge makes a log take more memory is known before.
func TestLogGrows(t *testing.T) {
	s := limit.Spec{Algorithm: limit.SlidingLog, Limit: limit.MaxLog, Window: 2 * limit.MaxLog}
	var st limit.State
	room := func() int {
		if st.Log == nil {
			return -1
		}
		return cap(st.Log.Entries)
	}
	seen := map[bool]int{}
	for i := range limit.Micros(5 * limit.MaxLog) {
		now := s.Advance(&st, day+i/2+i/7) // some charges are of one instant
		before, grows := room(), st.LogGrows(now)
		s.Charge(&st, now, 1)
		if after := room(); grows != (after > before) {
			t.Fatalf("charge %d: the log has room for %d, had for %d; that it grows was said: %v", i, after, before, grows)
		}
		if i%3 == 0 {
			s.GiveBack(&st, now, 1)
		}
		seen[grows]++
	}
	if seen[true] < 10 || seen[false] < limit.MaxLog {
		t.Errorf("%d charges made the log grow, and %d did not", seen[true], seen[false])
	}
	// Read from somewhere, a log has room for what is in it; with as many entries as it may have, it needs
	// no more.
	st.Log = &limit.Log{Entries: make([]limit.Entry, limit.MaxLog)}
	st.Count, st.Rest = 0, 0
	for i := range st.Log.Entries {
		st.Log.Entries[i] = limit.Entry{At: st.At - limit.MaxLog + limit.Micros(i), Units: 1}
		st.Count++
	}
	if before := room(); st.LogGrows(st.At) {
		t.Error("a full log is said to grow")
	} else if s.Charge(&st, st.At, 1); room() != before {
		t.Errorf("a full log of %d has grown to %d", before, room())
	}
}

// A hold whose entry was given back, and dropped when the log was full, takes nothing out of another.
func TestLogSettlesNothingOfOthers(t *testing.T) {
	s := limit.Spec{Algorithm: limit.SlidingLog, Limit: limit.MaxLog, Window: limit.MaxLog * limit.Second}
	var st limit.State
	now := s.Advance(&st, 1)
	for i := range limit.Micros(limit.MaxLog - 1) {
		now = s.Advance(&st, 2+i)
		s.Charge(&st, now, 1)
	}
	now = s.Advance(&st, now+1)
	mark := s.Hold(&st, now, 1)
	s.GiveBack(&st, now, 1)
	now = s.Advance(&st, now+1)
	s.Charge(&st, now, 1)
	s.Settle(&st, now, mark, 1, 0)
	if got := s.Describe(&st, now); got.Used != limit.MaxLog || got.Held != 0 {
		t.Errorf("%+v, want %d used", got, limit.MaxLog)
	}
}
