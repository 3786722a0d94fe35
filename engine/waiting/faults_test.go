package waiting_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rationhq/ration/engine/waiting"
	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
)

// fault is what becomes of a step in the line.
type fault struct {
	before, after time.Duration
	unheard       bool // it is not performed, and that is an error
	unanswered    bool // it is performed, and nobody hears of it: an error too
}

// faulty is a line by which a process comes to know such faults.
type faulty struct {
	store.Lines
	faults atomic.Pointer[func(*lane.Step) fault]
	steps  atomic.Int64
	deaf   bool // no call by another process is heard
}

func (f *faulty) script(faults func(*lane.Step) fault) { f.faults.Store(&faults) }

func (f *faulty) Line(ctx context.Context, name []byte, spec *lane.Spec, step *lane.Step) (lane.Outcome, error) {
	f.steps.Add(1)
	var is fault
	if faults := f.faults.Load(); faults != nil {
		is = (*faults)(step)
	}
	time.Sleep(is.before)
	if is.unheard {
		return lane.Outcome{}, store.ErrUnavailable
	}
	out, err := f.Lines.Line(context.WithoutCancel(ctx), name, spec, step)
	time.Sleep(is.after)
	switch {
	case ctx.Err() != nil:
		return lane.Outcome{}, ctx.Err()
	case is.unanswered:
		return lane.Outcome{}, store.ErrUnavailable
	}
	return out, err
}

func (f *faulty) Called(ctx context.Context, waiter lane.ID) <-chan store.Called {
	if f.deaf {
		return nil
	}
	return f.Lines.Called(ctx, waiter)
}

// hall is where several rooms lead to one line, by a clock of the test's.
type hall struct {
	*testing.T
	lines  *memory.Store
	rooms  []*waiting.Room
	faulty []*faulty
	places *places
	all    sync.WaitGroup
}

// inHall runs a test with so many rooms, and so many places. In the end nothing may be left in the line.
func inHall(t *testing.T, rooms, most int, test func(*hall)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &hall{T: t, lines: memory.New(memory.Options{})}
		defer h.lines.Close()
		for range rooms {
			f := &faulty{Lines: h.lines}
			h.faulty = append(h.faulty, f)
			h.rooms = append(h.rooms, waiting.New(f, time.Second))
		}
		h.places = &places{most: most, room: h.rooms[0]}
		test(h)
		h.all.Wait()
		for range 2 { // whom the line misses it keeps for a while
			time.Sleep(time.Minute)
			h.inLine()
		}
		if left := h.inLine(); left != "" {
			t.Errorf("in the end there are %s", left)
		}
		for _, r := range h.rooms {
			r.Close()
		}
	})
}

// inLine returns those that are in line, in the order in which it is their turn, but those set aside: and those in the end.
func (h *hall) inLine() string {
	h.Helper()
	// The line ends what is due when somebody says something.
	if _, err := h.lines.Line(h.Context(), []byte("line"), &spec, &lane.Step{Do: lane.Beat}); err != nil {
		h.Fatal(err)
	}
	state, err := h.lines.LineState(h.Context(), []byte("line"))
	if err != nil {
		h.Fatal(err)
	}
	var words []string
	for _, id := range state.Line().Order(&spec) {
		words = append(words, nameOf(id))
	}
	for i := range state.Tickets {
		if state.Tickets[i].Where == lane.Aside {
			words = append(words, "("+nameOf(state.Tickets[i].ID)+")")
		}
	}
	return strings.Join(words, " ")
}

func nameOf(id lane.ID) string { return strings.TrimRight(string(id[:]), "\x00") }

// waited is what came of waiting.
type waited struct {
	waiting.Result
	who string
	err error
	had bool // it had a place
}

// come has somebody wait in a room, for a minute. It returns when nothing more happens.
func (h *hall) come(ctx context.Context, room int, who string, more ...func(*waiting.Party)) <-chan waited {
	h.Helper()
	done := make(chan waited, 1)
	h.all.Go(func() {
		had := false
		p := h.places.party(lane.Ticket{ID: id("%s", who), Subject: id("%s", who), Cost: 1}, time.Minute)
		try := p.Try
		p.Try = func(ctx context.Context, left time.Duration) (waiting.Attempt, error) {
			a, err := try(ctx, left)
			had = err == nil && a.Verdict == waiting.Got
			return a, err
		}
		for _, change := range more {
			change(p)
		}
		result, err := h.rooms[room].Wait(ctx, p)
		done <- waited{result, who, err, had}
	})
	synctest.Wait()
	return done
}

func keep(p *waiting.Party) { p.Keep = true }

// has fails the test unless somebody has got a place within some time from now on.
func (h *hall) has(done <-chan waited, within time.Duration) {
	h.Helper()
	synctest.Wait()
	select {
	case w := <-done:
		if w.err != nil || !w.had {
			h.Fatalf("%s has no place: %+v, %v", w.who, w.Result, w.err)
		}
	case <-time.After(max(1, within)):
		h.Fatalf("somebody still waits after %v; there are %s", within, h.inLine())
	}
}

// waits fails the test if somebody does not wait.
func (h *hall) waits(done <-chan waited) {
	h.Helper()
	synctest.Wait()
	select {
	case w := <-done:
		h.Fatalf("%s waits no more: %+v, %v", w.who, w.Result, w.err)
	default:
	}
}

func (h *hall) expectLine(want string) {
	h.Helper()
	synctest.Wait()
	if got := h.inLine(); got != want {
		h.Fatalf("in line: %s, want %s", got, want)
	}
}

// once makes a fault of the first step of a kind about one ticket.
func once(do lane.Action, who string, is fault) func(*lane.Step) fault {
	var was atomic.Bool
	return func(step *lane.Step) fault {
		if step.Do == do && nameOf(step.Ticket.ID) == who && !was.Swap(true) {
			return is
		}
		return fault{}
	}
}

// However late the line answers, whatever it does not hear, and whoever leaves meanwhile: everybody else has one turn, and never
// more than there is room.
func TestFaultsInLine(t *testing.T) {
	const people = 120
	for name, faults := range map[string]func(*lane.Step) fault{
		"late": func(*lane.Step) fault {
			return fault{before: rand.N(200 * time.Millisecond), after: rand.N(200 * time.Millisecond)}
		},
		"later than anybody waits for": func(*lane.Step) fault { return fault{after: rand.N(1200 * time.Millisecond)} },
		"some are not heard":           func(*lane.Step) fault { return fault{unheard: rand.N(8) == 0} },
		"some are not answered":        func(*lane.Step) fault { return fault{unanswered: rand.N(8) == 0} },
	} {
		t.Run(name, func(t *testing.T) {
			inHall(t, 2, 3, func(h *hall) {
				for _, f := range h.faulty {
					f.script(func(step *lane.Step) fault {
						if step.Do == lane.Enter && step.Ticket.Subject[0] == 'e' {
							return fault{} // whose coming is not heard tries, and does not wait
						}
						return faults(step)
					})
				}
				var all sync.WaitGroup
				for i := range people {
					all.Go(func() {
						ctx, leave := context.WithCancel(h.Context())
						defer leave()
						leaves := i%5 == 0
						if leaves {
							time.AfterFunc(rand.N(5*time.Second), leave)
						}
						p := h.places.party(lane.Ticket{ID: id("%d", i), Subject: id("early %d", i%30), Cost: 1}, time.Hour)
						got := false
						try := p.Try
						p.Try = func(ctx context.Context, left time.Duration) (waiting.Attempt, error) {
							a, err := try(ctx, left)
							if a.Verdict == waiting.Got {
								if got {
									h.Error("somebody has two places")
								}
								got = true
							}
							return a, err
						}
						p.Keep = i%2 == 0
						result, err := h.rooms[i%2].Wait(ctx, p)
						switch {
						case leaves && !got:
							return
						case err != nil && !leaves || !got:
							h.Errorf("%+v %v", result, err)
							return
						}
						time.Sleep(10 * time.Millisecond)
						h.places.free()
					})
				}
				all.Wait()
				if h.places.max > 3 {
					h.Errorf("%d had places at a time", h.places.max)
				}
			})
		})
	}
}

// A ticket that the line calls for nobody keeps nobody waiting: whose coming was not answered, or whose going was not heard.
func TestCalledForNobody(t *testing.T) {
	for name, c := range map[string]struct {
		do   lane.Action
		is   fault
		ends string // what becomes of ann
	}{
		"she has come":      {lane.Enter, fault{unanswered: true}, "tries"},
		"she has come late": {lane.Enter, fault{after: 2 * time.Second}, "tries"},
		"she has left":      {lane.Leave, fault{unheard: true}, "leaves"},
		"she had her turn":  {lane.Admitted, fault{unheard: true}, "has"},
	} {
		t.Run(name, func(t *testing.T) {
			inHall(t, 1, 1, func(h *hall) {
				h.has(h.come(h.Context(), 0, "first"), 0)
				h.faulty[0].script(once(c.do, "ann", c.is))
				ctx, leave := context.WithCancel(h.Context())
				defer leave()
				ann := h.come(ctx, 0, "ann")
				if c.ends == "tries" {
					if w := <-ann; w.err != nil || w.had || w.End != waiting.Tried {
						h.Fatalf("ann has come: %+v %v", w.Result, w.err)
					}
				}
				bob := h.come(h.Context(), 0, "bob")
				h.waits(bob)
				if c.ends == "leaves" {
					leave()
					<-ann
				}
				h.places.free()
				if c.ends == "has" {
					h.has(ann, 0)
					h.places.free()
				}
				h.has(bob, 1100*time.Millisecond) // with the next beat, and not when the line misses somebody
			})
		})
	}
}

// A process that the line has missed for a while enters all its tickets again, in the order in which they came; but not those
// that have their turn meanwhile.
func TestEnterAgain(t *testing.T) {
	inHall(t, 2, 2, func(h *hall) {
		h.has(h.come(h.Context(), 0, "first"), 0)
		h.has(h.come(h.Context(), 0, "second"), 0)
		var came []<-chan waited
		for i := range 20 {
			came = append(came, h.come(h.Context(), 0, string(rune('a'+i))))
		}
		h.faulty[0].script(func(*lane.Step) fault { return fault{unheard: true} })
		time.Sleep(4 * time.Second)
		h.expectLine("") // nobody is there any more who would be called
		h.faulty[0].script(func(step *lane.Step) fault {
			if step.Do == lane.Enter {
				return fault{before: 10 * time.Millisecond}
			}
			return fault{}
		})
		time.Sleep(time.Second)
		began := time.Now()
		h.places.free()
		for i, c := range came {
			h.has(c, time.Second)
			if i > 0 {
				time.Sleep(5 * time.Millisecond)
			}
			h.places.free()
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// Where nothing is known of the line everybody tries. Those who wait already try with each beat when that has lasted for some
// seconds, and go on waiting when the line is back.
func TestWithoutALine(t *testing.T) {
	inHall(t, 1, 1, func(h *hall) {
		h.has(h.come(h.Context(), 0, "first"), 0)
		waits := h.come(h.Context(), 0, "ann")
		h.faulty[0].script(func(*lane.Step) fault { return fault{unheard: true} })
		if w := <-h.come(h.Context(), 0, "bob"); w.err != nil || w.End != waiting.Tried || w.had {
			t.Errorf("there is no room for bob: %+v, %v", w.Result, w.err)
		}
		time.Sleep(5 * time.Second)
		h.waits(waits)
		h.places.free()
		h.has(h.come(h.Context(), 0, "carol"), 0)
		h.faulty[0].script(func(*lane.Step) fault { return fault{} })
		time.Sleep(2 * time.Second)
		h.expectLine("ann")
		h.places.free()
		h.has(waits, 0)

		waits = h.come(h.Context(), 0, "ben")
		h.faulty[0].script(func(*lane.Step) fault { return fault{unheard: true} })
		h.places.free()
		time.Sleep(1500 * time.Millisecond)
		h.waits(waits)
		h.has(waits, 2600*time.Millisecond)
		h.places.free()
	})
}

// A call that does not come through is said again, once a second.
func TestMissedCall(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		inHall(t, 2, 1, func(h *hall) {
			h.faulty[1].deaf = deaf
			h.has(h.come(h.Context(), 0, "first"), 0)
			waits, began := h.come(h.Context(), 1, "ann"), time.Now()
			time.Sleep(100 * time.Millisecond)
			h.places.free()
			h.has(waits, 1100*time.Millisecond)
			if took := time.Since(began); took < 200*time.Millisecond == deaf {
				t.Errorf("deaf %v: it took %v", deaf, took)
			}
			h.places.free()
		})
	}
}

// Who leaves in the instant in which it is called leaves its turn to the next one at once; and what it got meanwhile, to those
// who asked for it.
func TestLeavesWhenCalled(t *testing.T) {
	inHall(t, 2, 1, func(h *hall) {
		h.has(h.come(h.Context(), 0, "first"), 0)
		ctx, leave := context.WithCancel(h.Context())
		ann := h.come(ctx, 1, "ann", func(p *waiting.Party) {
			try := p.Try
			p.Try = func(ctx context.Context, left time.Duration) (waiting.Attempt, error) {
				if ctx.Err() != nil {
					return waiting.Attempt{}, ctx.Err()
				}
				return try(ctx, left)
			}
		})
		bob := h.come(h.Context(), 1, "bob")
		h.faulty[0].script(func(step *lane.Step) fault {
			if step.Do == lane.Free {
				leave()
			}
			return fault{}
		})
		h.places.free()
		if w := <-ann; !w.had && w.err == nil {
			t.Errorf("ann has left: %+v, %v", w.Result, w.err)
		} else if w.had {
			h.places.free()
		}
		h.has(bob, 0)
		h.places.free()
	})
}

// All who wait when their process stops are told so. The line keeps their places, and calls others meanwhile. Who comes back
// by another process goes before all who were behind.
func TestStop(t *testing.T) {
	inHall(t, 2, 1, func(h *hall) {
		h.has(h.come(h.Context(), 1, "first"), 0)
		ann, bob := h.come(h.Context(), 0, "ann"), h.come(h.Context(), 0, "bob", keep)
		carol, dan := h.come(h.Context(), 1, "carol"), h.come(h.Context(), 1, "dan")
		h.expectLine("ann bob carol dan")
		h.rooms[0].Stop()
		for _, done := range []<-chan waited{ann, bob} {
			if w := <-done; w.err != waiting.ErrStopping { //nolint:errorlint // nothing wraps it
				t.Errorf("%s: %+v, %v", w.who, w.Result, w.err)
			}
		}
		if w := <-h.come(h.Context(), 0, "eve"); w.err != waiting.ErrStopping { //nolint:errorlint // nothing wraps it
			t.Errorf("who comes later: %+v, %v", w.Result, w.err)
		}
		h.expectLine("carol dan (ann) (bob) (eve)")
		h.places.free()
		h.has(carol, 0)
		bob = h.come(h.Context(), 1, "bob")
		h.expectLine("bob dan (ann) (eve)")
		h.places.free()
		h.has(bob, 0)
		h.places.free()
		h.has(dan, 0)
		h.places.free()
	})
}

// A line that is full says so at once, and how long it would have taken.
func TestFullLine(t *testing.T) {
	inHall(t, 1, 1, func(h *hall) {
		few := func(p *waiting.Party) { p.Spec.Most, p.Spec.MostOfSubject, p.Pace = 3, 2, time.Second }
		of := func(subject string) func(*waiting.Party) {
			return func(p *waiting.Party) { p.Ticket.Subject = id("%s", subject) }
		}
		h.has(h.come(h.Context(), 0, "first"), 0)
		ctx, leave := context.WithCancel(h.Context())
		var all []<-chan waited
		for _, who := range []string{"ann", "ann's second"} {
			all = append(all, h.come(ctx, 0, who, few, of("ann")))
		}
		full := func(who, subject string, want waiting.End) {
			t.Helper()
			w := <-h.come(h.Context(), 0, who, few, of(subject))
			n := len(all)
			if w.err != nil || w.End != want || w.Waiting != n || w.Expected != time.Duration(n+1)*time.Second || w.Waited != 0 {
				t.Errorf("%s: %+v, %v", who, w.Result, w.err)
			}
		}
		full("ann's third", "ann", waiting.FullForSubject)
		all = append(all, h.come(ctx, 0, "bob", few))
		full("carol", "carol", waiting.Full)
		leave()
		for _, done := range all {
			<-done
		}
		h.places.free()
		h.has(h.come(h.Context(), 0, "carol", few), 0)
		h.places.free()
	})
}

// Two who ask for the same have one place in line, and hear the same: in one process, where the place is theirs until both have
// left, and in two, where it is that of whoever came last.
func TestTwoForOneTicket(t *testing.T) {
	for _, other := range []int{0, 1} {
		inHall(t, 2, 1, func(h *hall) {
			h.has(h.come(h.Context(), 0, "first"), 0)
			ctx, leave := context.WithCancel(h.Context())
			waits, bob := h.come(ctx, 0, "ann", keep), h.come(h.Context(), 0, "bob")
			again := h.come(h.Context(), other, "ann", keep)
			h.expectLine("ann bob")
			leave()
			<-waits
			h.expectLine("ann bob")
			h.places.free()
			h.has(again, 0)
			h.places.free()
			h.has(bob, 0)
			h.places.free()
		})
		inHall(t, 2, 2, func(h *hall) {
			h.has(h.come(h.Context(), 0, "first"), 0)
			h.has(h.come(h.Context(), 0, "second"), 0)
			waits := h.come(h.Context(), 0, "ann", keep)
			again := h.come(h.Context(), other, "ann", keep)
			h.places.free()
			h.places.free()
			h.has(again, 0)
			h.places.free()
			if other == 0 {
				h.has(waits, 0)
				h.places.free()
			} else if w := <-waits; w.err != nil || w.End != waiting.TimedOut || w.Position != 0 {
				t.Errorf("whose place another process has: %+v, %v", w.Result, w.err)
			}
		})
	}
}

// Who comes again with the same ticket in the instant in which it leaves has a place in line.
func TestComesAsItLeaves(t *testing.T) {
	inHall(t, 1, 1, func(h *hall) {
		h.has(h.come(h.Context(), 0, "first"), 0)
		ctx, leave := context.WithCancel(h.Context())
		waits, bob := h.come(ctx, 0, "ann", keep), h.come(h.Context(), 0, "bob")
		h.faulty[0].script(once(lane.Leave, "ann", fault{before: 100 * time.Millisecond}))
		leave()
		synctest.Wait()
		again := h.come(h.Context(), 0, "ann", keep)
		<-waits
		h.expectLine("ann bob")
		h.places.free()
		h.has(again, 0)
		h.places.free()
		h.has(bob, 0)
		h.places.free()
	})
}
