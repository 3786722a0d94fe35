package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/subject"
	"github.com/rationhq/ration/subject/redis"
	"github.com/rationhq/ration/subject/subjecttest"
)

// impatient makes a client that gives up soon, and repeats as go-redis does by itself, or not.
func impatient(t testing.TB, addr string, retries int) *goredis.Client {
	c := goredis.NewClient(&goredis.Options{
		Addr: addr, MaxRetries: retries, DialTimeout: time.Second, ReadTimeout: 200 * time.Millisecond, ContextTimeoutEnabled: true,
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Answers that are lost on their way do not make a change twice, whoever sends it again: the directory, or the client.
func TestLostAnswers(t *testing.T) {
	server := redistest.Start(t)
	for _, retries := range []int{-1, 0} { // 0 is go-redis's own choice
		for name, do := range map[string]redistest.Action{
			"before": redistest.CutBefore, "after": redistest.CutAfter, "within": redistest.CutWithin,
		} {
			t.Run(fmt.Sprint(name, ", retries ", retries), func(t *testing.T) {
				proxy := redistest.StartProxy(t, server.Addr)
				d := newDirectory(t, impatient(t, proxy.Addr, retries), t.Name())
				proxy.Set(redistest.Every(2, redistest.Fault{Do: do}, "EVALSHA"))
				old := subjecttest.NewKey()
				const turns = 20
				for n := 1; n <= turns; n++ {
					next := subjecttest.NewKey()
					s, err := d.Change(t.Context(), alice, by, func(s *subject.Subject) error {
						count, _ := strconv.Atoi(s.Tier)
						s.Tier = strconv.Itoa(count + 1)
						s.APIKeys = []subject.APIKey{{Hash: next}}
						return nil
					})
					if err != nil || s.Tier != strconv.Itoa(n) || s.Revision != uint64(n) {
						t.Fatalf("change %d: %s at revision %d, %v", n, s.Tier, s.Revision, err)
					}
					if owner, found, err := d.FindByKey(t.Context(), next); !found || err != nil || owner.Ref() != alice {
						t.Errorf("her key is that of %v, %v", owner.Ref(), err)
					}
					if _, found, err := d.FindByKey(t.Context(), old); found || err != nil {
						t.Errorf("her old key is still hers, %v", err)
					}
					old = next
				}
				rows, err := d.Audit(t.Context(), alice, "", 100)
				if err != nil || len(rows) != turns {
					t.Errorf("there are %d audit rows, %v, want %d", len(rows), err, turns)
				}
				if found, err := d.Delete(t.Context(), alice, by); !found || err != nil {
					t.Errorf("deleted: %v, %v", found, err)
				}
			})
		}
	}
}

// While Redis does not answer, the error says so by the caller's deadline.
func TestAway(t *testing.T) {
	server := redistest.Start(t)
	d := newDirectory(t, impatient(t, server.Addr, -1), "")
	if err := d.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, _, found := d.Find(ctx, alice)
	_, _, byKey := d.FindByKey(ctx, subjecttest.NewKey())
	_, changed := d.Change(ctx, alice, by, setsTier("pro"))
	_, deleted := d.Delete(ctx, alice, by)
	_, listed := d.List(ctx, "llm", "", 10)
	_, audited := d.Audit(ctx, alice, "", 10)
	for i, err := range []error{found, byKey, changed, deleted, listed, audited, d.Ready(ctx)} {
		if !errors.Is(err, subject.ErrUnavailable) {
			t.Errorf("call %d: %v, want ErrUnavailable", i, err)
		}
	}
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	subjecttest.WaitFor(t, "Redis to answer", func() bool { return d.Ready(t.Context()) == nil })
	if _, err := d.Change(t.Context(), alice, by, setsTier("pro")); err != nil {
		t.Error(err)
	}
}

// A full Redis refuses a change whole, and is not ready. What there is can be asked for.
func TestFull(t *testing.T) {
	server := redistest.Start(t, "--maxmemory-policy", "noeviction")
	look := server.Client(t)
	d := newDirectory(t, single(t, server.Addr), "")
	if _, err := d.Change(t.Context(), alice, by, setsTier("free")); err != nil {
		t.Fatal(err)
	}
	look.ConfigSet(t.Context(), "maxmemory", "1")
	_, changed := d.Change(t.Context(), alice, by, setsTier("pro"))
	for what, err := range map[string]error{"a change": changed, "ready": d.Ready(t.Context())} {
		if !errors.Is(err, subject.ErrUnavailable) || !strings.Contains(err.Error(), "OOM") {
			t.Errorf("%s: %v, want ErrUnavailable that says OOM", what, err)
		}
	}
	if s, _, err := d.Find(t.Context(), alice); err != nil || s.Tier != "free" {
		t.Errorf("she is %+v, %v", s, err)
	}
	look.ConfigSet(t.Context(), "maxmemory", "0")
	if s, err := d.Change(t.Context(), alice, by, setsTier("pro")); err != nil || s.Revision != 2 {
		t.Errorf("with room again: revision %d, %v", s.Revision, err)
	}
}

// Scripts that Redis has forgotten are sent again.
func TestScriptFlush(t *testing.T) {
	server := redistest.Start(t)
	d := newDirectory(t, single(t, server.Addr), "")
	for i := range 3 {
		if _, err := d.Change(t.Context(), alice, by, adds(subjecttest.NewKey())); err != nil {
			t.Errorf("change %d: %v", i, err)
		}
		server.Client(t).ScriptFlush(t.Context())
	}
}

// What somebody else has written there is not overwritten, is named, and can be deleted.
func TestCorrupt(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	d := newDirectory(t, single(t, server.Addr), "")
	records := fmt.Sprintf("ration:{a%03d}subjects", alice.Shard())
	for _, bad := range []string{"", "nonsense", "7", `7 {"tier":`, "x {}", "0 {}", "99999999999999999999 {}"} {
		if err := look.HSet(t.Context(), records, alice.Encode(), bad).Err(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := d.Find(t.Context(), alice); !errors.Is(err, subject.ErrCorrupt) {
			t.Errorf("%q is found: %v, want ErrCorrupt", bad, err)
		}
		if _, err := d.Change(t.Context(), alice, by, setsTier("pro")); !errors.Is(err, subject.ErrCorrupt) {
			t.Errorf("%q is changed: %v, want ErrCorrupt", bad, err)
		}
		if got, err := look.HGet(t.Context(), records, alice.Encode()).Result(); got != bad || err != nil {
			t.Errorf("%q has become %q, %v", bad, got, err)
		}
		if found, err := d.Delete(t.Context(), alice, by); !found || err != nil {
			t.Errorf("%q is deleted: found %v, %v", bad, found, err)
		}
	}
	if s, err := d.Change(t.Context(), alice, by, setsTier("pro")); err != nil || s.Revision <= 7 {
		t.Errorf("made anew she has revision %d, %v", s.Revision, err)
	}
	if err := look.HSet(t.Context(), records, alice.Encode(), `3 {"tier":"pro","mood":"good"}`).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Change(t.Context(), alice, by, setsTier("free")); !errors.Is(err, subject.ErrCorrupt) || !strings.Contains(err.Error(), "newer ration") {
		t.Errorf("what a newer ration has written is changed: %v", err)
	}
	key := subjecttest.NewKey()
	if err := look.HSet(t.Context(), index(key), string(key[:]), "nonsense").Err(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.FindByKey(t.Context(), key); !errors.Is(err, subject.ErrCorrupt) {
		t.Errorf("a claim that is none: %v, want ErrCorrupt", err)
	}
	if _, err := d.Change(t.Context(), bob, by, adds(key)); err != nil {
		t.Errorf("a claim that is none is in the way: %v", err)
	}
	if s, found, err := d.FindByKey(t.Context(), key); !found || s.Ref() != bob || err != nil {
		t.Errorf("then %v is found, %v", s.Ref(), err)
	}
}

// Where a key holds something else, nothing of a change is written.
func TestForeignKeys(t *testing.T) {
	for _, what := range []string{"subjects", "names|llm", "audit", "changes"} {
		server := redistest.Start(t)
		look := server.Client(t)
		d := newDirectory(t, single(t, server.Addr), "")
		name := fmt.Sprintf("ration:{a%03d}%s", alice.Shard(), what)
		if err := look.LPush(t.Context(), name, "x").Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Change(t.Context(), alice, by, setsTier("pro")); !errors.Is(err, subject.ErrUnavailable) || !strings.Contains(err.Error(), "WRONGTYPE") {
			t.Errorf("%s: %v, want ErrUnavailable that says WRONGTYPE", what, err)
		}
		if keys, err := look.Keys(t.Context(), "*").Result(); err != nil || len(keys) != 1 {
			t.Errorf("%s: there are %q, %v, want only what was there", what, keys, err)
		}
	}
}

// Ready names the permission that is missing; and with all that are documented, everything works.
func TestPermissions(t *testing.T) {
	server := redistest.Start(t)
	all := []string{"~ration:*", "&ration:*", "+script|load"}
	for _, c := range redis.Commands {
		name, _, _ := strings.Cut(c, " ")
		all = append(all, "+"+name)
	}
	as := func(t *testing.T, without, instead string) *redis.Directory {
		args := []any{"acl", "setuser", "ration", "reset", "on", ">secret"}
		for _, rule := range all {
			if rule == without {
				rule = instead
			}
			if rule != "" {
				args = append(args, rule)
			}
		}
		if err := server.Client(t).Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
		c := goredis.NewClient(&goredis.Options{Addr: server.Addr, Username: "ration", Password: "secret"})
		t.Cleanup(func() { _ = c.Close() })
		return newDirectory(t, c, "")
	}
	for _, rule := range all {
		t.Run("without "+rule, func(t *testing.T) {
			d := as(t, rule, "")
			want := rule
			switch rule {
			case "+script|load":
				want = ""
			case "&ration:*":
				want = "+publish"
			case "+evalsha":
				want = "'evalsha' command"
			}
			for range 2 {
				err := d.Ready(t.Context())
				switch {
				case want == "" && err != nil:
					t.Errorf("it is not ready: %v", err)
				case want != "" && (!errors.Is(err, subject.ErrUnavailable) || !strings.Contains(err.Error(), want)):
					t.Errorf("it is %v, want ErrUnavailable that names %s", err, want)
				}
			}
		})
	}
	t.Run("for reading only", func(t *testing.T) {
		if err := as(t, "~ration:*", "%R~ration:*").Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "it needs ~ration:*") {
			t.Errorf("it is %v", err)
		}
	})
	t.Run("with all", func(t *testing.T) {
		d := as(t, "", "")
		c := subject.NewCache(d, subject.CacheOptions{})
		defer c.Close()
		subjecttest.WaitFor(t, "the cache to be live", func() bool { return c.Stats().Live })
		key := subjecttest.NewKey()
		_, changed := d.Change(t.Context(), alice, by, adds(key))
		_, byKey := c.GetByKey(t.Context(), key)
		_, listed := d.List(t.Context(), "llm", "", 10)
		_, audited := d.Audit(t.Context(), subject.Ref{}, "", 10)
		_, deleted := d.Delete(t.Context(), alice, by)
		if err := errors.Join(changed, byKey, listed, audited, deleted); err != nil {
			t.Error(err)
		}
	})
}

// A Cluster is ready while any of its masters is.
func TestReadyInACluster(t *testing.T) {
	nodes := redistest.StartCluster(t)
	d := newDirectory(t, cluster(t, nodes[0].Addr), "")
	for i, node := range nodes {
		if err := d.Ready(t.Context()); err != nil {
			t.Errorf("with %d of %d nodes: %v", len(nodes)-i, len(nodes), err)
		}
		if err := node.Client(t).Do(t.Context(), "acl", "setuser", "default", "-zadd").Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Ready(t.Context()); !errors.Is(err, subject.ErrUnavailable) || !strings.Contains(err.Error(), "needs +zadd") {
		t.Errorf("with none: %v, want ErrUnavailable that names what is missing", err)
	}
}
