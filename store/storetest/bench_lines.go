package storetest

import (
	"testing"

	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/store"
)

// BenchmarkLine measures each kind of step: where nobody waits, and where a thousand do, of a hundred subjects in three
// classes. Where a step would leave the line another one, what is measured is a round of two: that is in its name. measured
// calls what is to be measured.
func BenchmarkLine(b *testing.B, s store.Lines, measured func(b *testing.B, run func())) {
	spec := lane.Spec{Classes: 3, Aging: minute, Most: lane.MaxTickets, MostOfSubject: lane.MaxTickets}
	names := 0
	for _, size := range []struct {
		name    string
		tickets int
	}{{"nobody waits", 0}, {"a thousand wait", 1000}} {
		for _, kind := range []struct {
			name  string
			steps func(n int) []lane.Step
		}{
			{"beat", func(int) []lane.Step { return []lane.Step{{Do: lane.Beat}} }},
			{"free", func(int) []lane.Step { return []lane.Step{{Do: lane.Free, Room: 0}} }},
			{"enter", func(n int) []lane.Step { return []lane.Step{benchEnter(n, false)} }},
			{"enter and leave", func(n int) []lane.Step {
				return []lane.Step{benchEnter(n, true), {Do: lane.Leave, Ticket: benchTicket(n)}}
			}},
			{"refused", func(int) []lane.Step { return []lane.Step{{Do: lane.Refused}} }},
			{"enter and admitted", func(n int) []lane.Step { return []lane.Step{benchEnter(n, true), {Do: lane.Admitted}} }},
		} {
			waits := size.tickets > 0
			if kind.name == "enter" && waits || kind.name == "refused" && !waits {
				continue // it would grow without end; nobody is called
			}
			b.Run(size.name+"/"+kind.name, func(b *testing.B) {
				names++
				name := []byte{byte(names), byte(names >> 8)}
				called := lane.ID{}
				perform := func(step lane.Step) {
					step.Waiter = waiterID(1)
					if step.Do == lane.Admitted || step.Do == lane.Refused {
						step.Ticket.ID = called
					}
					out, err := s.Line(b.Context(), name, &spec, &step)
					if err != nil {
						b.Fatal(err)
					}
					for _, c := range out.Calls {
						called = c.Ticket
					}
				}
				for n := range size.tickets {
					perform(benchEnter(-1-n, true))
				}
				b.ResetTimer()
				measured(b, func() {
					for n := range b.N {
						for _, step := range kind.steps(n) {
							perform(step)
						}
					}
				})
			})
		}
	}
}

func benchTicket(n int) lane.Ticket {
	return lane.Ticket{ID: ticketID(n), Class: (n%3 + 3) % 3, Subject: subjectID(n % 100), Cost: int64(1 + (n%7+7)%7)}
}

// benchEnter enters; of one that waits, though nothing keeps others from trying.
func benchEnter(n int, waits bool) lane.Step {
	step := lane.Step{Do: lane.Enter, Ticket: benchTicket(n), Wait: lane.MaxWait, Tried: waits}
	return step
}
