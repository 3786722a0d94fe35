package events

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that is certain to happen.
const patience = 20 * time.Second

// shelf is a source of which a test knows everything.
type shelf struct {
	mu      sync.Mutex
	all     []Event
	broken  error
	mute    bool // no notices come
	notices map[chan struct{}]bool
	reads   int
	during  func(reads int) // called before each
}

func (s *shelf) put(all ...Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, all...)
	inOrder(s.all)
	for c := range s.notices {
		if s.mute {
			continue
		}
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (s *shelf) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
}

func (s *shelf) Events(_ context.Context, since limit.Micros) (all []Event, err error) {
	s.mu.Lock()
	s.reads++
	reads, during := s.reads, s.during
	s.mu.Unlock()
	if during != nil {
		during(reads)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.all {
		if e.At >= since {
			all = append(all, e)
		}
	}
	return all, s.broken
}

func (s *shelf) Notices(ctx context.Context) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan struct{}, 1)
	if s.notices == nil {
		s.notices = make(map[chan struct{}]bool)
	}
	s.notices[c] = true
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.notices, c)
	})
	return c
}

// watched returns how many listen for notices.
func (s *shelf) watched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.notices)
}

// crossing is the event of a threshold, at so many seconds.
func crossing(id string, seconds int64) Event {
	return Event{ID: id, Kind: Threshold, At: limit.Micros(seconds) * limit.Second, Domain: "d"}
}

func hub(t *testing.T, opts Options) *Hub {
	t.Helper()
	h := New(opts)
	t.Cleanup(h.Close)
	return h
}

func watch(t *testing.T, h *Hub, want Want) *Watcher {
	t.Helper()
	if want.Kinds == nil {
		want.Kinds = Kinds()
	}
	w, err := h.Watch(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// next returns the IDs, or messages of those without a fixed one, of the next n events.
func next(t *testing.T, w *Watcher, n int) (told []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range n {
		e, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("after %v: %v", told, err)
		}
		if e.Kind == Threshold {
			told = append(told, e.ID)
		} else {
			told = append(told, e.Message)
		}
	}
	return told
}

func wants(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// Who watches hears what is new, each once, and nothing of before; by a notice, or when the source is looked at anyway.
func TestWatch(t *testing.T) {
	for _, mute := range []bool{false, true} {
		s := &shelf{mute: mute}
		s.put(crossing("01", 100))
		h := hub(t, Options{Source: s, Every: 20 * time.Millisecond})
		a, b := watch(t, h, Want{}), watch(t, h, Want{Takes: func(e *Event) bool { return e.ID == "03" }})
		s.put(crossing("02", 101))
		wants(t, "the first", next(t, a, 1), "02")
		s.put(crossing("00", 70), crossing("03", 102)) // the clock has stepped back for one
		wants(t, "what came then", next(t, a, 2), "00", "03")
		h.Publish(Event{Kind: Policy, Message: "loaded"})
		wants(t, "what was published", next(t, a, 1), "loaded")
		wants(t, "of another", next(t, b, 1), "03")
	}
}

// Nothing runs, and the source is not asked, while nobody wants to hear of thresholds.
func TestNobodyWatches(t *testing.T) {
	s := &shelf{}
	h := hub(t, Options{Source: s, Every: time.Millisecond})
	w := watch(t, h, Want{Kinds: []Kind{Policy}})
	h.Publish(Event{Kind: Policy, Message: "loaded"})
	wants(t, "published", next(t, w, 1), "loaded")
	if s.watched() != 0 || s.reads != 0 {
		t.Fatalf("%d listen, %d reads", s.watched(), s.reads)
	}
	watch(t, h, Want{}).Close()
	for deadline := time.Now().Add(patience); s.watched() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the source is still listened to")
		}
	}
}

// Who has watched before goes on behind the last event that it has seen: of either sort, here or at another process.
func TestAfter(t *testing.T) {
	s := &shelf{}
	h, other := hub(t, Options{Source: s}), hub(t, Options{Source: s})
	s.put(crossing("0a", 100), crossing("0b", 200), crossing("0c", 300))
	wants(t, "behind a threshold", next(t, watch(t, h, Want{After: "0a"}), 2), "0b", "0c")
	wants(t, "elsewhere", next(t, watch(t, other, Want{After: "0b"}), 1), "0c")
	wants(t, "behind one that is not kept any more", next(t, watch(t, h, Want{After: "ff"}), 3), "0a", "0b", "0c")
	h.Publish(Event{Kind: Policy, Message: "one"})
	h.Publish(Event{Kind: Policy, Message: "two"})
	h.Publish(Event{Kind: Degraded, Message: "three"})
	w := watch(t, h, Want{After: "0c"})
	wants(t, "published later", next(t, w, 3), "one", "two", "three")
	first := h.kept[Policy][0]
	w = watch(t, h, Want{After: first.ID, Kinds: []Kind{Policy, Degraded}})
	wants(t, "behind one that was published", next(t, w, 2), "two", "three")
	now := limit.At(time.Now())
	s.put(Event{ID: "0d", Kind: Threshold, At: now})
	w = watch(t, other, Want{After: first.ID})
	wants(t, "behind one that another has published", next(t, w, 1), "0d")
}

// What happens while somebody begins to watch is neither lost nor told twice.
func TestAfterAndNew(t *testing.T) {
	s := &shelf{}
	s.put(crossing("0000", 100))
	h := hub(t, Options{Source: s, Every: time.Millisecond})
	const n = 300
	go func() {
		for i := range n {
			s.put(crossing(fmt.Sprintf("%04x", i+1), int64(101+i)))
		}
	}()
	var watching sync.WaitGroup
	for range 4 {
		w := watch(t, h, Want{After: "0000"})
		watching.Go(func() {
			seen := map[string]int{}
			for len(seen) < n {
				e, err := w.Next(t.Context())
				if err != nil {
					t.Errorf("after %d events: %v", len(seen), err)
					return
				}
				if seen[e.ID]++; seen[e.ID] > 1 {
					t.Errorf("%s was told twice", e.ID)
				}
			}
		})
	}
	watching.Wait()
}

// What is written while it is read what was missed is both kept and new: it is told once.
func TestKeptAndNew(t *testing.T) {
	s := &shelf{}
	s.put(crossing("01", 100))
	told := make(chan struct{})
	h := hub(t, Options{Source: s, Every: time.Hour})
	var again sync.Once
	s.during = func(reads int) {
		if reads == 2 { // what was missed
			s.put(crossing("02", 101))
			<-told
		}
		if reads > 3 {
			again.Do(func() { close(told) }) // the feed has told of it
		}
		if reads == 3 {
			s.put() // so that it reads once more
		}
	}
	w := watch(t, h, Want{After: "01"})
	s.put(crossing("03", 102))
	wants(t, "missed and new", next(t, w, 2), "02", "03")
}

// Who has seen no event goes on where it began.
func TestPosition(t *testing.T) {
	h := hub(t, Options{})
	h.Publish(Event{Kind: Policy, Message: "old"})
	w := watch(t, h, Want{})
	w.Close()
	h.Publish(Event{Kind: Policy, Message: "new"})
	wants(t, "afterwards", next(t, watch(t, h, Want{After: w.Position()}), 1), "new")
}

// A watcher that does not listen ends, having heard all that there was room for; others do not notice.
func TestTooSlow(t *testing.T) {
	h := hub(t, Options{Buffer: 3})
	slow, other := watch(t, h, Want{}), watch(t, h, Want{})
	for i := range 5 {
		h.Publish(Event{Kind: Policy, Message: fmt.Sprint(i)})
		wants(t, "the other", next(t, other, 1), fmt.Sprint(i))
	}
	wants(t, "the slow one", next(t, slow, 3), "0", "1", "2")
	if _, err := slow.Next(t.Context()); !errors.Is(err, ErrTooSlow) {
		t.Errorf("then: %v", err)
	}
}

// A source that cannot be read when somebody begins to watch does not keep the rest from being told; what happens
// meanwhile is told when it can be read, and nothing of before.
func TestSourceIsAway(t *testing.T) {
	s := &shelf{}
	s.put(crossing("01", 100))
	s.fail(errors.New("away"))
	var mu sync.Mutex
	failures := 0
	h := hub(t, Options{Source: s, Every: 5 * time.Millisecond, Failed: func(error) {
		mu.Lock()
		defer mu.Unlock()
		failures++
	}})
	w := watch(t, h, Want{})
	h.Publish(Event{Kind: Degraded, Message: "out"})
	wants(t, "meanwhile", next(t, w, 1), "out")
	s.put(Event{ID: "02", Kind: Threshold, At: limit.At(time.Now())})
	s.fail(nil)
	wants(t, "afterwards", next(t, w, 1), "02")
	mu.Lock()
	defer mu.Unlock()
	if failures == 0 {
		t.Error("nobody was told")
	}
	s.fail(errors.New("away"))
	if _, err := h.Watch(t.Context(), Want{Kinds: Kinds(), After: "01"}); err == nil {
		t.Error("what is kept was read while the source is away")
	}
}

// Refusals that are alike are one event, with their number; those of too many subjects are added up without them.
func TestRefusals(t *testing.T) {
	h := hub(t, Options{RefusalsEvery: time.Hour}) // the test ends it
	refuse := func(user string) {
		h.Refused("d", []byte("d|user="+user), "d.n", "rate_limited", func() ([]policy.Entry, string) {
			return []policy.Entry{{Key: "user", Value: user}}, "Rate limit reached."
		})
	}
	if h.WantsRefusals() {
		t.Error("somebody wants refusals, it is said")
	}
	w := watch(t, h, Want{Kinds: []Kind{Refusal}})
	if !h.WantsRefusals() {
		t.Error("nobody wants refusals, it is said")
	}
	for range 3 {
		refuse("alice")
	}
	for i := range mostRefusals + 10 {
		refuse(fmt.Sprint(i))
	}
	h.mu.Lock()
	h.refusals.timer.Reset(0)
	h.mu.Unlock()
	of := map[string]string{}
	for range mostRefusals + 1 {
		e, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		of[e.Subject()] = e.Message
	}
	if len(of) != mostRefusals+1 || !strings.Contains(of["user=alice"], "Rate limit reached. (3 times") || of["user=7"] != "Rate limit reached." ||
		!strings.Contains(of[""], "Other requests were refused (rate_limited). (11 times") {
		t.Errorf("%d events: %q %q %q", len(of), of["user=alice"], of["user=7"], of[""])
	}
	w.Close()
	if h.WantsRefusals() {
		t.Error("somebody still wants refusals, it is said")
	}
}

// What cannot be is said.
func TestWatchErrors(t *testing.T) {
	h := New(Options{})
	for _, after := range []string{"xyz", "1.2", "1.x.y", "-1.x.2", ".x.1", "zz.x.1", strings.Repeat("a", 1000), "abc"} {
		if _, err := h.Watch(t.Context(), Want{Kinds: Kinds(), After: after}); !errors.Is(err, ErrPosition) {
			t.Errorf("after %.20q: %v", after, err)
		}
	}
	var all []*Watcher
	for range mostWatchers {
		w, err := h.Watch(t.Context(), Want{Kinds: Kinds()})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, w)
	}
	if _, err := h.Watch(t.Context(), Want{Kinds: Kinds()}); !errors.Is(err, ErrCrowded) {
		t.Errorf("one too many: %v", err)
	}
	all[0].Close()
	w, err := h.Watch(t.Context(), Want{Kinds: Kinds()})
	if err != nil {
		t.Errorf("when one has left: %v", err)
	}
	h.Close()
	if _, err := w.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("at the end: %v", err)
	}
	if _, err := h.Watch(t.Context(), Want{}); !errors.Is(err, ErrClosed) {
		t.Errorf("afterwards: %v", err)
	}
}
