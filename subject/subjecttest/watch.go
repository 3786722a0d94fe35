package subjecttest

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/rationhq/ration/subject"
)

// watching keeps what Watch tells.
type watching struct {
	mu  sync.Mutex
	all []subject.Notice
}

func (w *watching) tell(n subject.Notice) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, n)
}

// told reports whether it was told something.
func (w *watching) told(is func(subject.Notice) bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.all, is)
}

func (w *watching) live() bool {
	return w.told(func(n subject.Notice) bool { return n.Kind == subject.Live })
}

// watch watches a directory until the test ends, from when it is live.
func watch(t *testing.T, d subject.Directory) *watching {
	t.Helper()
	w := &watching{}
	ctx, stop := context.WithCancel(context.Background())
	var over sync.WaitGroup
	over.Go(func() { d.Watch(ctx, w.tell) })
	t.Cleanup(func() { stop(); over.Wait() })
	WaitFor(t, "Live", w.live)
	return w
}

func testWatch(t *testing.T, open Open) {
	all := open(t)
	of := subject.Ref{Domain: "llm", Name: "alice"}
	watchers := make([]*watching, 0, len(all))
	for _, d := range all {
		watchers = append(watchers, watch(t, d))
	}
	kept, added, removed := NewKey(), NewKey(), NewKey()
	hears := func(w *watching, keys ...subject.KeyHash) func() bool {
		return func() bool {
			return w.told(func(n subject.Notice) bool {
				return n.Kind == subject.Changed && n.Subject == of && slices.Equal(n.Keys, keys)
			})
		}
	}
	everybodyHears := func(what string, keys ...subject.KeyHash) {
		t.Helper()
		if !hears(watchers[0], keys...)() {
			t.Errorf("%s: it was not told where it was made, before the change was answered", what)
		}
		for _, w := range watchers {
			WaitFor(t, what, hears(w, keys...))
			w.mu.Lock()
			w.all = nil
			w.mu.Unlock()
		}
	}
	change(t, all[0], of, func(s *subject.Subject) error {
		s.APIKeys = []subject.APIKey{{Hash: kept}, {Hash: removed}}
		return nil
	})
	everybodyHears("made", kept, removed)
	change(t, all[0], of, setTier("pro"))
	everybodyHears("changed")
	change(t, all[0], of, func(s *subject.Subject) error {
		s.APIKeys = []subject.APIKey{{Hash: kept}, {Hash: added}}
		return nil
	})
	everybodyHears("keys exchanged", added, removed)
	if _, err := all[0].Delete(t.Context(), of, by); err != nil {
		t.Fatal(err)
	}
	everybodyHears("deleted", kept, added)
}

// What a cache knows of one server's directory it forgets when another server changes it.
func testCache(t *testing.T, open Open) {
	all := open(t)
	admin := all[0]
	c := subject.NewCache(all[len(all)-1], subject.CacheOptions{})
	t.Cleanup(c.Close)
	WaitFor(t, "the cache to be live", func() bool { return c.Stats().Live })
	alice, bob, key := subject.Ref{Domain: "llm", Name: "alice"}, subject.Ref{Domain: "llm", Name: "bob"}, NewKey()
	tier := func(a subject.Answer, err error) string {
		switch {
		case err != nil:
			t.Fatal(err)
		case a.Stale:
			t.Fatal("the answer is stale")
		case a.Subject == nil:
			return "none"
		}
		return a.Subject.Tier
	}
	byName := func() string { return tier(c.Get(t.Context(), alice)) }
	byKey := func() string { return tier(c.GetByKey(t.Context(), key)) }
	for what, c := range map[string]func() string{"by name": byName, "by key": byKey} {
		if got := c(); got != "none" {
			t.Errorf("%s: tier %s before there is one", what, got)
		}
	}
	for _, step := range []struct {
		what                  string
		do                    func()
		wantByName, wantByKey string
	}{
		{"made", func() { change(t, admin, alice, setTier("free")) }, "free", "none"},
		{"a key", func() { change(t, admin, alice, addKey(key)) }, "free", "free"},
		{"a tier", func() { change(t, admin, alice, setTier("pro")) }, "pro", "pro"},
		{"the key is gone", func() { change(t, admin, alice, dropKeys) }, "pro", "none"},
		{"it is another's", func() { change(t, admin, bob, addKey(key)) }, "pro", ""},
		{"another's tier", func() { change(t, admin, bob, setTier("bobs")) }, "pro", "bobs"},
		{"moved back", func() { change(t, admin, bob, dropKeys); change(t, admin, alice, addKey(key)) }, "pro", "pro"},
		{"deleted", func() { _, _ = admin.Delete(t.Context(), alice, by) }, "none", "none"},
	} {
		step.do()
		WaitFor(t, step.what+", by name", func() bool { return byName() == step.wantByName })
		WaitFor(t, step.what+", by key", func() bool { return byKey() == step.wantByKey })
	}
	before := c.Stats().Loads
	for range 100 {
		byName()
		byKey()
	}
	if asked := c.Stats().Loads - before; asked != 0 {
		t.Errorf("the directory was asked %d times for what had not changed", asked)
	}
}
