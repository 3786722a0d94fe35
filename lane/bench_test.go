package lane_test

import (
	"fmt"
	"testing"

	"github.com/rationhq/ration/internal/lanesim"
	"github.com/rationhq/ration/lane"
)

// Where nobody waits, asking costs next to nothing.
func TestGoDoesNotAllocate(t *testing.T) {
	w := &walker{spec: strict(3, second), now: lanesim.Epoch}
	w.do(beat)
	step := enter(100, 1)
	if n := testing.AllocsPerRun(100, func() {
		if out := w.line.Apply(&w.spec, &step, w.now); out.Answer != lane.Go {
			t.Fatal(out.Answer)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGo(b *testing.B) {
	w := &walker{spec: strict(3, second), now: lanesim.Epoch}
	step := enter(100, 1)
	b.ReportAllocs()
	for b.Loop() {
		w.line.Apply(&w.spec, &step, w.now)
	}
}

// One turn in a line of so many: the one that was called is admitted, the next is called, and another comes.
func BenchmarkTurn(b *testing.B) {
	for _, n := range []int{1, 1000, lane.MaxTickets - 1} {
		for name, spec := range map[string]lane.Spec{"strict": strict(3, second), "weighted": weighted(1, 3, 6)} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				w := &walker{spec: spec, now: lanesim.Epoch}
				w.do(triedUntil(0, 2, 1))
				for i := range n {
					w.do(enter(i*37+1, i%3))
				}
				w.now += 2
				out := w.line.Apply(&w.spec, &beat, w.now)
				comes := n * 37
				b.ReportAllocs()
				b.ResetTimer()
				for b.Loop() {
					w.now += 100
					comes += 38
					step := enter(comes, comes%3)
					w.line.Apply(&w.spec, &step, w.now)
					step = admitted(lanesim.Number(out.Calls[0].Ticket), 1)
					out = w.line.Apply(&w.spec, &step, w.now)
				}
			})
		}
	}
}
