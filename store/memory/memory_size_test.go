package memory_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/storetest"
)

// mostPerSubject is how many bytes a subject with three limits may take.
const mostPerSubject = 400

// A subject with three limits takes no more memory than promised, and the store knows how much.
func TestMemoryOfASubject(t *testing.T) {
	const subjects = 200_000
	s := open(t, memory.Options{})
	heap := heapOf(func() { fillSubjects(t, s, subjects) })
	t.Logf("%d bytes per subject, of which the store knows of %d", heap/subjects, s.Bytes()/subjects)
	if heap/subjects > mostPerSubject {
		t.Errorf("%d bytes per subject with three limits, want at most %d", heap/subjects, mostPerSubject)
	}
	if off := s.Bytes() - heap; off < -heap/4 || off > heap/4 {
		t.Errorf("the store takes itself for %d bytes, and has grown the heap by %d", s.Bytes(), heap)
	}
	if s.Len() != 3*subjects {
		t.Errorf("%d buckets, want %d", s.Len(), 3*subjects)
	}
}

// What the holds of a token bucket take, which keeps a floor of each, the store knows.
func TestMemoryOfFloors(t *testing.T) {
	bytes := func(a limit.Algorithm) int64 {
		s := open(t, memory.Options{Clock: storetest.NewClock(noon).Now})
		for n := range limit.MaxFloors {
			op := native("owner", "b", spec(a, hour))
			op.Kind = store.Hold
			apply(t, s, &store.Step{Lease: &store.Lease{ID: id(n), Lasts: limit.Second}, Ops: []store.Op{op}})
		}
		return s.Bytes()
	}
	const floors = limit.MaxFloors * int64(unsafe.Sizeof(limit.Floor{}))
	if more := bytes(limit.TokenBucket) - bytes(limit.FixedWindow); more < floors || more > 2*floors {
		t.Errorf("%d bytes more for a token bucket than for a window, want %d at least", more, floors)
	}
}

// BenchmarkMillionSubjects says what a million subjects take that have three limits each: requests
// by token bucket, tokens by sliding window, and a month's by the calendar.
//
//	go test -run xxx -bench MillionSubjects -benchtime 1x ./store/memory
func BenchmarkMillionSubjects(b *testing.B) {
	const subjects = 1_000_000
	for range b.N {
		s := open(b, memory.Options{})
		heap := heapOf(func() { fillSubjects(b, s, subjects) })
		b.ReportMetric(float64(heap)/subjects, "B/subject")
		b.ReportMetric(float64(heap)/1e6, "MB")
		runtime.KeepAlive(s)
	}
}

// fillSubjects decides once for each subject.
func fillSubjects(t testing.TB, s *memory.Store, subjects int) {
	month := &limit.Calendar{Period: limit.PerMonth}
	step := &store.Step{Ops: []store.Op{
		native("", "|requests|token_bucket|60s", limit.Spec{Algorithm: limit.TokenBucket, Limit: 60, Burst: 20, Window: 60 * limit.Second}),
		native("", "|tokens|sliding_window|3600s", limit.Spec{Algorithm: limit.SlidingWindow, Limit: 50_000, Window: 3600 * limit.Second}),
		native("", "|budget|calendar|month;UTC;1", limit.Spec{Algorithm: limit.CalendarWindow, Limit: 1_000_000, Calendar: month}),
	}}
	var out store.Outcome
	name := make([]byte, 0, 64)
	for i := range subjects {
		name = fmt.Appendf(name[:0], "app|user=user-%08d", i)
		for j := range step.Ops {
			step.Ops[j].Owner = name
		}
		if err := s.Apply(context.Background(), step, &out); err != nil {
			t.Fatal(err)
		}
	}
}

// heapOf returns by how many bytes f makes the live heap grow.
func heapOf(f func()) int64 {
	live := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := live()
	f()
	return live() - before
}
