package subject_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rationhq/ration/subject"
)

func wants(t *testing.T, c *subject.Cache, when, want string) {
	t.Helper()
	if got := tierOf(c); got != want {
		t.Errorf("%s: %s, want %s", when, got, want)
	}
}

// What is known is not asked for again, until it is told that it has changed: also that there is nobody of a name.
func TestCacheAsksOnce(t *testing.T) {
	c, f, now := cached(t, subject.CacheOptions{})
	for _, step := range []struct {
		change func()
		want   string
	}{
		{func() {}, "none"},
		{func() { f.put(of("free")) }, "free"},
		{func() { f.put(of("pro")) }, "pro"},
		{func() { now.advance(1000 * time.Hour) }, "pro"},
	} {
		step.change()
		for range 3 {
			wants(t, c, "then", step.want)
		}
	}
	if f.times() != 3 {
		t.Errorf("it asked %d times, want 3", f.times())
	}
	if s := c.Stats(); s.Hits != 9 || s.Loads != 3 || s.Entries != 1 || s.Failures != 0 || s.Stale != 0 {
		t.Errorf("it says %+v of itself", s)
	}
}

// Names that nobody can have are not remembered.
func TestCacheIgnoresLongNames(t *testing.T) {
	c, f, _ := cached(t, subject.CacheOptions{})
	a, err := c.Get(t.Context(), subject.Ref{Domain: "llm", Name: strings.Repeat("n", subject.MaxName+1)})
	if a.Subject != nil || err != nil || f.times() != 0 || c.Stats().Entries != 0 {
		t.Errorf("it says %+v, %v, asked %d times and has %d entries", a, err, f.times(), c.Stats().Entries)
	}
}

// The caller's strings may be used for something else afterwards.
func TestCacheKeepsNoCallersMemory(t *testing.T) {
	c, f, _ := cached(t, subject.CacheOptions{})
	f.put(of("free"))
	buffer := []byte("llmalice")
	borrowed := unsafeString(buffer)
	if got := said(c.Get(t.Context(), subject.Ref{Domain: borrowed[:3], Name: borrowed[3:]})); got != "free" {
		t.Fatal(got)
	}
	copy(buffer, "xxxxxxxx")
	before := f.times()
	wants(t, c, "after the buffer was used again", "free")
	if f.times() != before {
		t.Error("what it knew was lost with the buffer")
	}
}

// Many who ask at once are answered by one question, and it does not matter that the first of them leaves.
func TestCacheAsksOnceForAll(t *testing.T) {
	c, f, _ := cached(t, subject.CacheOptions{Timeout: time.Minute})
	f.put(of("free"))
	gate := make(chan struct{})
	f.set(func() { f.gate = gate })
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := c.Get(ctx, alice)
		left <- err
	}()
	waitFor(t, "the question", func() bool { return f.times() == 1 })
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if got := tierOf(c); got != "free" {
				t.Errorf("one of them is told %s", got)
			}
		})
	}
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who left is told %v", err)
	}
	close(gate)
	wg.Wait()
	if f.times() != 1 {
		t.Errorf("it asked %d times", f.times())
	}
}

// An answer that was on its way when the subject changed is not remembered; nor when changes went unheard.
func TestCacheForgetsWhatWasOvertaken(t *testing.T) {
	for name, overtake := range map[string]func(*fake){
		"by a change": func(f *fake) { f.put(of("new")) },
		"by changes that went unheard": func(f *fake) {
			f.say(subject.Notice{Kind: subject.Lost})
			f.quietly(of("new"))
			f.say(subject.Notice{Kind: subject.Live})
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, f, _ := cached(t, subject.CacheOptions{Timeout: time.Minute})
			f.quietly(of("old"))
			gate := make(chan struct{})
			f.set(func() { f.gate = gate })
			first := make(chan string)
			go func() { first <- tierOf(c) }()
			waitFor(t, "the question", func() bool { return f.times() == 1 })
			overtake(f)
			f.set(func() { f.gate = nil })
			wants(t, c, "who asks after the change, while the old answer is on its way", "new")
			close(gate)
			if got := <-first; got != "old" {
				t.Errorf("who asked before the change is told %s", got)
			}
			wants(t, c, "when the old answer has come", "new")
		})
	}
}

// While changes are not heard of, what is known is trusted for a second.
func TestCacheUnwatched(t *testing.T) {
	c, f, now := cached(t, subject.CacheOptions{})
	f.put(of("free"))
	wants(t, c, "at first", "free")
	f.say(subject.Notice{Kind: subject.Lost})
	f.quietly(of("pro"))
	wants(t, c, "lost: everything is asked for anew", "pro")
	f.quietly(of("premium"))
	now.advance(999 * time.Millisecond)
	wants(t, c, "within a second", "pro")
	now.advance(time.Millisecond)
	wants(t, c, "after a second", "premium")
	f.quietly(of("free"))
	f.say(subject.Notice{Kind: subject.Live})
	wants(t, c, "live again: everything is asked for anew", "free")
	f.quietly(of("unheard"))
	now.advance(time.Hour)
	wants(t, c, "live: trusted", "free")
}

// While the directory is away, the answer is what was known last, for an hour; then, and of others, it is the error.
func TestCacheWhileTheDirectoryIsAway(t *testing.T) {
	for name, away := range map[string]func(*fake){
		"changes are not heard of": func(f *fake) { f.say(subject.Notice{Kind: subject.Lost}) },
		"a change is heard of":     func(f *fake) { f.say(subject.Notice{Kind: subject.Changed, Subject: alice}) },
	} {
		t.Run(name, func(t *testing.T) {
			c, f, now := cached(t, subject.CacheOptions{})
			suspended := of("pro")
			suspended.Suspended = true
			f.put(suspended)
			wants(t, c, "at first", "pro")
			now.advance(5 * time.Hour) // it is right still
			f.set(func() { f.down = true })
			away(f)
			a, err := c.Get(t.Context(), alice)
			if err != nil || !a.Stale || a.Subject == nil || !a.Subject.Suspended {
				t.Errorf("the suspension is forgotten: %+v, %v", a, err)
			}
			if _, err := c.Get(t.Context(), subject.Ref{Domain: "llm", Name: "bob"}); !errors.Is(err, errDown) {
				t.Errorf("of one of whom nothing is known: %v, want the directory's error", err)
			}
			for range 4 {
				now.advance(15 * time.Minute)
				wants(t, c, "within an hour", "pro?")
			}
			now.advance(time.Second)
			waitFor(t, "the value to be too old", func() bool { return tierOf(c) == "down" })
			f.set(func() { f.down = false })
			now.advance(time.Second)
			wants(t, c, "back", "pro")
		})
	}
}

// Also an answer that a change has overtaken is what was known last, if no other comes.
func TestCacheWithNothingButAnOvertakenAnswer(t *testing.T) {
	c, f, _ := cached(t, subject.CacheOptions{Timeout: time.Minute})
	f.quietly(of("old"))
	gate := make(chan struct{})
	f.set(func() { f.gate = gate })
	first := make(chan string)
	go func() { first <- tierOf(c) }()
	waitFor(t, "the question", func() bool { return f.times() == 1 })
	f.say(subject.Notice{Kind: subject.Changed, Subject: alice})
	f.set(func() { f.gate, f.down = nil, true })
	close(gate)
	if got := <-first; got != "old" {
		t.Errorf("who asked first is told %s", got)
	}
	wants(t, c, "who asks then", "old?")
}

// A directory that fails is asked about a subject now and then, not by everybody; and who has something to go by
// does not wait for it.
func TestCacheAsksRarelyWhatFails(t *testing.T) {
	c, f, now := cached(t, subject.CacheOptions{Timeout: time.Minute})
	f.put(of("pro"))
	wants(t, c, "at first", "pro")
	f.set(func() { f.down = true })
	f.say(subject.Notice{Kind: subject.Lost})
	before := f.times()
	for range 10 {
		wants(t, c, "away", "pro?")
	}
	if asked := f.times() - before; asked != 1 {
		t.Errorf("it asked %d times, want once", asked)
	}
	gate := make(chan struct{})
	f.set(func() { f.gate, f.down = gate, false }) // it stalls
	now.advance(250 * time.Millisecond)
	for range 10 {
		wants(t, c, "stalling", "pro?") // and not a minute later
	}
	waitFor(t, "one more question", func() bool { return f.times() == before+2 })
	close(gate)
	waitFor(t, "its answer", func() bool { return tierOf(c) == "pro" })
}

// A change that is told after a failure is asked for at once.
func TestCacheTriesAgainWhenTold(t *testing.T) {
	c, f, _ := cached(t, subject.CacheOptions{})
	f.set(func() { f.down = true })
	wants(t, c, "away", "down")
	f.set(func() { f.down = false })
	wants(t, c, "at once after that", "down")
	f.put(of("pro"))
	wants(t, c, "told of a change", "pro")
}

// However many names there are, so many are remembered; those that are asked for stay.
func TestCacheIsBounded(t *testing.T) {
	const most = 6400
	c, f, _ := cached(t, subject.CacheOptions{Entries: most})
	for i := range 5 * most {
		f.quietly(of("free"))
		wants(t, c, "in the crowd", "free")
		if _, err := c.Get(t.Context(), subject.Ref{Domain: "llm", Name: fmt.Sprint("made up ", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := c.Stats().Entries; n > most || n < most/2 {
		t.Errorf("it has %d entries, want up to %d", n, most)
	}
	if asked := f.times() - 5*most; asked != 1 {
		t.Errorf("it asked %d times for her whom somebody always asks for", asked)
	}
}

// An API key is that of the subject that lists it, whatever was remembered of it.
func TestCacheByKey(t *testing.T) {
	c, f, _ := cached(t, subject.CacheOptions{})
	key := subject.HashKey("a key that nobody could guess")
	lists := func(s subject.Subject) subject.Subject {
		s.APIKeys = []subject.APIKey{{Hash: key}}
		return s
	}
	bob := subject.Subject{Domain: "batch", Name: "bob", Tier: "bobs"}
	for _, step := range []struct {
		what   string
		change func()
		want   string
	}{
		{"nobody's", func() {}, "none"},
		{"added", func() { f.put(lists(of("pro")), key) }, "pro"},
		{"changed", func() { f.put(lists(of("free"))) }, "free"},
		{"removed", func() { f.put(of("free"), key) }, "none"},
		{"added to another", func() { f.put(lists(bob), key) }, "bobs"},
		{"moved, of which only what concerns records is told", func() {
			f.quietly(lists(of("pro")))
			f.put(bob)
			f.say(subject.Notice{Kind: subject.Changed, Subject: alice})
		}, "pro"},
	} {
		step.change()
		for range 3 {
			if got := said(c.GetByKey(t.Context(), key)); got != step.want {
				t.Errorf("%s: %s, want %s", step.what, got, step.want)
			}
		}
	}
	f.set(func() { f.down = true })
	f.say(subject.Notice{Kind: subject.Lost})
	if got := said(c.GetByKey(t.Context(), key)); got != "pro?" {
		t.Errorf("away: %s, want what was known last", got)
	}
	if got := said(c.GetByKey(t.Context(), subject.HashKey("another"))); got != "down" {
		t.Errorf("away, another: %s, want the error", got)
	}
}

// What was known last of a subject is older than its key: it is not taken for a subject without one.
func TestCacheByNewKeyWhileAway(t *testing.T) {
	c, f, _ := cached(t, subject.CacheOptions{})
	key := subject.HashKey("a key that nobody could guess")
	f.put(of("pro"))
	wants(t, c, "without a key", "pro")
	with := of("pro")
	with.APIKeys = []subject.APIKey{{Hash: key}}
	f.put(with, key)
	slow := make(chan struct{})
	f.set(func() { f.gate = slow })
	byKey := make(chan string)
	go func() { byKey <- said(c.GetByKey(t.Context(), key)) }()
	waitFor(t, "the question for the key", func() bool { return f.times() == 2 })
	f.set(func() { f.gate, f.down = nil, true })
	close(slow)
	if got := <-byKey; !strings.Contains(got, subject.ErrUnavailable.Error()) {
		t.Errorf("it says %q, want that it is unavailable", got)
	}
}

// After Close it says what it knows, and asks for nothing.
func TestCacheClosed(t *testing.T) {
	c, f, _ := cached(t, subject.CacheOptions{})
	f.put(of("pro"))
	wants(t, c, "before", "pro")
	c.Close()
	before := f.times()
	if _, err := c.Get(t.Context(), subject.Ref{Domain: "llm", Name: "bob"}); !errors.Is(err, subject.ErrUnavailable) {
		t.Errorf("after: %v, want ErrUnavailable", err)
	}
	if f.times() != before {
		t.Error("it asked the directory")
	}
}

// Whatever changes, is told, goes unheard or fails at the same time: nobody is told something older than what he could
// know when he asked.
func TestCacheIsNeverBehind(t *testing.T) {
	c, f, _ := cached(t, subject.CacheOptions{Unwatched: 1, Entries: 64, Timeout: time.Minute})
	const names = 4
	var versions [names]atomic.Int64
	ref := func(i int) subject.Ref { return subject.Ref{Domain: "llm", Name: strconv.Itoa(i)} }
	var over atomic.Bool
	var readers, writers sync.WaitGroup
	var reads, hits atomic.Int64
	for i := range 8 {
		readers.Go(func() {
			for n := i; !over.Load(); n++ {
				of := n % names
				least := versions[of].Load()
				a, err := c.Get(context.Background(), ref(of))
				if err != nil {
					t.Error(err)
					return
				}
				got := int64(0)
				if a.Subject != nil {
					got, _ = strconv.ParseInt(a.Subject.Tier, 10, 64)
				}
				if got < least {
					t.Errorf("it says %d, and %d was told before", got, least)
					over.Store(true)
				}
				reads.Add(1)
			}
		})
	}
	for i := range names {
		writers.Go(func() {
			for n := int64(1); n <= 1500 && !over.Load(); n++ {
				f.put(subject.Subject{Domain: "llm", Name: strconv.Itoa(i), Tier: strconv.FormatInt(n, 10)})
				versions[i].Store(n)
				if n%3 == 0 { // time for some to find it in memory
					for began := reads.Load(); reads.Load() < began+4 && !over.Load(); {
						time.Sleep(time.Microsecond)
					}
				}
			}
		})
	}
	flapping := make(chan struct{})
	go func() {
		defer close(flapping)
		for !over.Load() {
			f.say(subject.Notice{Kind: subject.Lost})
			f.say(subject.Notice{Kind: subject.Live})
			time.Sleep(time.Millisecond)
		}
	}()
	writers.Wait()
	over.Store(true)
	readers.Wait()
	<-flapping
	hits.Store(int64(c.Stats().Hits))
	t.Logf("%d answers, %d of them from memory", reads.Load(), hits.Load())
	if hits.Load() == 0 {
		t.Error("none came from memory: that proves nothing")
	}
}

// A hit allocates nothing.
func TestCacheHitsAllocateNothing(t *testing.T) {
	c, f, _ := cached(t, subject.CacheOptions{})
	key := subject.HashKey("a key that nobody could guess")
	s := of("pro")
	s.APIKeys = []subject.APIKey{{Hash: key}}
	f.put(s, key)
	ctx := context.Background()
	for name, get := range map[string]func(){
		"by name":   func() { _, _ = c.Get(ctx, alice) },
		"by key":    func() { _, _ = c.GetByKey(ctx, key) },
		"of nobody": func() { _, _ = c.Get(ctx, subject.Ref{Domain: "llm", Name: "nobody"}) },
	} {
		get()
		if n := testing.AllocsPerRun(1000, get); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkCacheHit(b *testing.B) {
	c, f, _ := cached(b, subject.CacheOptions{})
	refs := make([]subject.Ref, 10_000)
	keys := make([]subject.KeyHash, len(refs))
	ctx := context.Background()
	for i := range refs {
		refs[i] = subject.Ref{Domain: "llm", Name: fmt.Sprintf("user-%08d", i)}
		keys[i] = subject.HashKey(refs[i].Name)
		if i%2 == 0 { // the others are nobody
			f.put(subject.Subject{Domain: "llm", Name: refs[i].Name, Tier: "pro", APIKeys: []subject.APIKey{{Hash: keys[i]}}}, keys[i])
		}
		if i < 1000 { // FindByKey of the fake looks through all of them
			if _, err := c.GetByKey(ctx, keys[i]); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := c.Get(ctx, refs[i]); err != nil {
			b.Fatal(err)
		}
	}
	run := func(name string, get func(i int)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				get(i)
			}
		})
	}
	run("one subject", func(int) { _, _ = c.Get(ctx, refs[0]) })
	run("10,000 subjects", func(i int) { _, _ = c.Get(ctx, refs[i%len(refs)]) })
	run("by key, 500 subjects", func(i int) { _, _ = c.GetByKey(ctx, keys[2*(i%500)]) })
	b.Run("one subject, all cores", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, _ = c.Get(ctx, refs[0])
			}
		})
	})
}
