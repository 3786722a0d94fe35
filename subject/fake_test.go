package subject_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/rationhq/ration/subject"
)

var errDown = errors.New("down")

// fake is a directory that tests hold in their hands.
type fake struct {
	subject.Directory // the rest of it nobody asks for

	mu       sync.Mutex
	subjects map[subject.Ref]subject.Subject
	asked    int
	down     bool
	// gate, where there is one, is what Find waits for after it has looked.
	gate chan struct{}
	tell func(subject.Notice)
}

func (f *fake) Find(ctx context.Context, of subject.Ref) (subject.Subject, bool, error) {
	f.mu.Lock()
	f.asked++
	s, found := f.subjects[of]
	gate, down := f.gate, f.down
	f.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return subject.Subject{}, false, ctx.Err()
		}
	}
	if down {
		return subject.Subject{}, false, errDown
	}
	return s.Clone(), found, nil
}

func (f *fake) FindByKey(ctx context.Context, hash subject.KeyHash) (subject.Subject, bool, error) {
	f.mu.Lock()
	of := subject.Ref{}
	for _, s := range f.subjects {
		if s.Lists(hash) {
			of = s.Ref()
		}
	}
	f.mu.Unlock()
	return f.Find(ctx, of)
}

func (f *fake) Watch(ctx context.Context, tell func(subject.Notice)) {
	f.mu.Lock()
	f.tell = tell
	f.mu.Unlock()
	tell(subject.Notice{Kind: subject.Live})
	<-ctx.Done()
}

// put changes a subject and tells it.
func (f *fake) put(s subject.Subject, keys ...subject.KeyHash) {
	f.quietly(s)
	f.say(subject.Notice{Kind: subject.Changed, Subject: s.Ref(), Keys: keys})
}

// quietly changes a subject, and nobody hears of it.
func (f *fake) quietly(s subject.Subject) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subjects[s.Ref()] = s
}

func (f *fake) say(n subject.Notice) {
	f.mu.Lock()
	tell := f.tell
	f.mu.Unlock()
	tell(n)
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) times() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// clock is what time it is in a test.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var alice = subject.Ref{Domain: "llm", Name: "alice"}

func of(tier string) subject.Subject {
	return subject.Subject{Domain: alice.Domain, Name: alice.Name, Tier: tier}
}

// cached makes a cache over a fake directory, from when it is live.
func cached(t testing.TB, opts subject.CacheOptions) (*subject.Cache, *fake, *clock) {
	f := &fake{subjects: make(map[subject.Ref]subject.Subject)}
	now := &clock{now: time.Unix(1_700_000_000, 0)}
	opts.Clock = now.Now
	c := subject.NewCache(f, opts)
	t.Cleanup(c.Close)
	waitFor(t, "the cache to be live", func() bool { return c.Stats().Live })
	return c, f, now
}

func waitFor(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// tierOf is what the cache says of alice: her tier, "none" or the error; "?" behind it says that it is stale.
func tierOf(c *subject.Cache) string { return said(c.Get(context.Background(), alice)) }

func said(a subject.Answer, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case a.Subject == nil && a.Stale:
		return "none?"
	case a.Subject == nil:
		return "none"
	case a.Stale:
		return a.Subject.Tier + "?"
	}
	return a.Subject.Tier
}

// unsafeString is a string that shares the memory of b, as names in a decoded request do.
func unsafeString(b []byte) string { return unsafe.String(&b[0], len(b)) }
