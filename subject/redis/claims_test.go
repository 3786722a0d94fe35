package redis_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/subject"
	"github.com/rationhq/ration/subject/redis"
	"github.com/rationhq/ration/subject/subjecttest"
)

var (
	bob = subject.Ref{Domain: "llm", Name: "bob"}
	by  = subject.By{Actor: "root", Reason: "a test"}
)

func adds(hash subject.KeyHash) func(*subject.Subject) error {
	return func(s *subject.Subject) error {
		s.APIKeys = append(s.APIKeys, subject.APIKey{Hash: hash})
		return nil
	}
}

func setsTier(tier string) func(*subject.Subject) error {
	return func(s *subject.Subject) error { s.Tier = tier; return nil }
}

func index(hash subject.KeyHash) string { return fmt.Sprintf("ration:{a%03d}api_keys", hash[0]) }

// leftOver is a claim, as lua/claim.lua has it, that was left by a server which has crashed.
func leftOver(of subject.Ref, age time.Duration) string {
	return fmt.Sprintf("N%016d%s%s", time.Now().Add(-age).UnixMicro(), "0123456789abcdef", of.Encode())
}

// A claim that was left over means nothing: nobody is found by it, and the subject itself takes it up at once, another
// when nothing can come of it any more.
func TestLeftOverClaims(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	d := newDirectory(t, single(t, server.Addr), "")
	if _, err := d.Change(t.Context(), bob, by, setsTier("free")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		claim string
		wants error
	}{
		"of another, long ago":        {leftOver(bob, 61*time.Second), nil},
		"of another, just now":        {leftOver(bob, 30*time.Second), subject.ErrConflict},
		"of nobody, long ago":         {leftOver(subject.Ref{Domain: "llm", Name: "ghost"}, time.Hour), nil},
		"of the same, just now":       {leftOver(alice, 0), nil},
		"of the same, long ago":       {leftOver(alice, time.Hour), nil},
		"of another, from the future": {leftOver(bob, -time.Hour), subject.ErrConflict},
	} {
		t.Run(name, func(t *testing.T) {
			key := subjecttest.NewKey()
			if err := look.HSet(t.Context(), index(key), string(key[:]), c.claim).Err(); err != nil {
				t.Fatal(err)
			}
			if s, found, err := d.FindByKey(t.Context(), key); found || err != nil {
				t.Errorf("by the claim alone %v is found, %v", s.Ref(), err)
			}
			_, err := d.Change(t.Context(), alice, by, adds(key))
			if !errors.Is(err, c.wants) {
				t.Fatalf("it is added: %v, want %v", err, c.wants)
			}
			if s, found, err := d.FindByKey(t.Context(), key); found != (c.wants == nil) || found && s.Ref() != alice || err != nil {
				t.Errorf("then %v is found, %v", s.Ref(), err)
			}
			if _, err := d.Delete(t.Context(), alice, by); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A record that comes too late after its claim is not written, since others may have the key by then.
func TestRecordsBehindTheFence(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	d := newDirectory(t, single(t, server.Addr), "")
	d.SetClaimTimes(-time.Millisecond, time.Minute)
	key := subjecttest.NewKey()
	if _, err := d.Change(t.Context(), alice, by, adds(key)); !errors.Is(err, subject.ErrConflict) {
		t.Fatalf("it is %v, want ErrConflict", err)
	}
	if _, found, err := d.Find(t.Context(), alice); found || err != nil {
		t.Errorf("she was written, %v", err)
	}
	if n, err := look.Exists(t.Context(), index(key)).Result(); n != 0 || err != nil {
		t.Errorf("its own claim is left over, %v", err)
	}
	d.SetClaimTimes(10*time.Second, time.Minute)
	if _, err := d.Change(t.Context(), bob, by, adds(key)); err != nil {
		t.Errorf("then nobody else can have the key: %v", err)
	}
}

// A claim that is made again and a record that is then not written leave the claim that was there: somebody else, who
// gives the same subject the same key, may rely on it.
func TestClaimsThatOthersRelyOn(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	d := newDirectory(t, single(t, server.Addr), "")
	d.SetClaimTimes(-time.Millisecond, time.Minute)
	key := subjecttest.NewKey()
	if err := look.HSet(t.Context(), index(key), string(key[:]), leftOver(alice, 0)).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Change(t.Context(), alice, by, adds(key)); !errors.Is(err, subject.ErrConflict) {
		t.Fatalf("it is %v, want ErrConflict", err)
	}
	if there, err := look.HExists(t.Context(), index(key), string(key[:])).Result(); !there || err != nil {
		t.Errorf("the claim is gone, %v", err)
	}
}

// The scripts of claims do nothing more when they are sent again, and take back nothing but what they are told.
func TestClaimScripts(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	claim, unclaim := goredis.NewScript(redis.Script("claim")), goredis.NewScript(redis.Script("unclaim"))
	run := func(who, token, replace string) []any {
		t.Helper()
		reply, err := claim.Run(t.Context(), look, []string{"index"}, "hash", who, token, replace, time.Minute.Microseconds()).Slice()
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	one, two, three := "one-------------", "two-------------", "three-----------"
	first := run("3:llmalice", one, "")
	if again := run("3:llmalice", one, ""); !slices.Equal(again, first) || first[0] != "MINE" {
		t.Errorf("sent again it is %q, and was %q", again, first)
	}
	if other := run("3:llmbob", two, ""); other[0] != "OTHER" || other[1] != first[1] || other[2] != int64(0) {
		t.Errorf("to another it is %q", other)
	}
	second := run("3:llmalice", three, "")
	if second[0] != "MINE" || second[1] == first[1] {
		t.Errorf("claimed anew it is %q", second)
	}
	if other := run("3:llmbob", two, first[1].(string)); other[0] != "OTHER" {
		t.Errorf("instead of one that was claimed anew, another gets %q", other)
	}
	holds := func() string {
		held, _ := look.HGet(t.Context(), "index", "hash").Result()
		return held
	}
	for _, c := range []struct{ takes, leaves any }{{first[1], second[1]}, {second[1], ""}, {second[1], ""}} {
		if err := unclaim.Run(t.Context(), look, []string{"index"}, "hash", c.takes).Err(); err != nil {
			t.Fatal(err)
		}
		if got := holds(); got != c.leaves {
			t.Errorf("%q is taken back, and %q is left, want %q", c.takes, got, c.leaves)
		}
	}
}

// A clock that steps back does not mix up the audit.
func TestAuditWhenTheClockStepsBack(t *testing.T) {
	server := redistest.Start(t)
	d := newDirectory(t, single(t, server.Addr), "")
	ahead := time.Now().Add(time.Hour).UnixMicro()
	row := fmt.Sprintf(`%016d.%03d 1 {"domain":"llm","name":"alice","actor":"a","action":"create","reason":"r"}`, ahead, alice.Shard())
	audit := fmt.Sprintf("ration:{a%03d}audit", alice.Shard())
	if err := server.Client(t).ZAdd(t.Context(), audit, goredis.Z{Member: row}).Err(); err != nil {
		t.Fatal(err)
	}
	for _, tier := range []string{"free", "pro"} {
		if _, err := d.Change(t.Context(), alice, by, setsTier(tier)); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := d.Audit(t.Context(), alice, "", 10)
	if err != nil || len(rows) != 3 || rows[0].Action != "change" || rows[1].Action != "create" || rows[2].Actor != "a" {
		t.Errorf("the rows are %+v, %v", rows, err)
	}
}

// Nothing is left of keys that were removed, nor of keys that were refused.
func TestNoClaimsAreLeft(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	d := newDirectory(t, single(t, server.Addr), "")
	taken, other := subjecttest.NewKey(), subjecttest.NewKey()
	if _, err := d.Change(t.Context(), alice, by, adds(taken)); err != nil {
		t.Fatal(err)
	}
	_, err := d.Change(t.Context(), bob, by, func(s *subject.Subject) error {
		return errors.Join(adds(other)(s), adds(taken)(s))
	})
	if !errors.Is(err, subject.ErrKeyTaken) {
		t.Fatalf("it is %v, want ErrKeyTaken", err)
	}
	if n, err := look.Exists(t.Context(), index(other)).Result(); n != 0 || err != nil {
		t.Errorf("the claim of a key beside one that is taken is left, %v", err)
	}
	if _, err := d.Delete(t.Context(), alice, by); err != nil {
		t.Fatal(err)
	}
	keys, err := look.Keys(t.Context(), "*").Result()
	if err != nil || strings.Contains(strings.Join(keys, " "), "api_keys") || strings.Contains(strings.Join(keys, " "), "subjects") {
		t.Errorf("when everybody is deleted there are %q, %v", keys, err)
	}
}

// Where Redis has lost a claim, the next change of the subject makes it anew.
func TestLostClaimsHeal(t *testing.T) {
	server := redistest.Start(t)
	d := newDirectory(t, single(t, server.Addr), "")
	key := subjecttest.NewKey()
	if _, err := d.Change(t.Context(), alice, by, adds(key)); err != nil {
		t.Fatal(err)
	}
	if err := server.Client(t).Del(t.Context(), index(key)).Err(); err != nil {
		t.Fatal(err)
	}
	if _, found, err := d.FindByKey(t.Context(), key); found || err != nil {
		t.Fatalf("found %v, %v", found, err)
	}
	if _, err := d.Change(t.Context(), alice, by, setsTier("pro")); err != nil {
		t.Fatal(err)
	}
	if s, found, err := d.FindByKey(t.Context(), key); !found || s.Ref() != alice || err != nil {
		t.Errorf("after a change: found %v, %v", found, err)
	}
}

// Servers that leave in the middle of changes leave claims behind, which others take over: whatever happens, a key is
// listed by one subject at most, and is found by it. In a Cluster, where claims and records are on several nodes.
func TestClaimsOfThoseWhoLeave(t *testing.T) {
	nodes := redistest.StartCluster(t)
	const fence, abandoned = 100 * time.Millisecond, 300 * time.Millisecond
	servers := make([]*redis.Directory, 3)
	for i := range servers {
		c := goredis.NewClusterClient(&goredis.ClusterOptions{Addrs: []string{nodes[0].Addr}, ContextTimeoutEnabled: true})
		t.Cleanup(func() { _ = c.Close() })
		servers[i] = newDirectory(t, c, "")
		servers[i].SetClaimTimes(fence, abandoned)
	}
	keys := []subject.KeyHash{subjecttest.NewKey(), subjecttest.NewKey(), subjecttest.NewKey()}
	refs := []subject.Ref{alice, bob, {Domain: "batch", Name: "carol"}, {Domain: "batch", Name: "dave"}}
	agree := func() {
		t.Helper()
		for i, key := range keys {
			owner, _, err := servers[0].FindByKey(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			for _, of := range refs {
				s, _, err := servers[0].Find(t.Context(), of)
				if err != nil {
					t.Fatal(err)
				}
				if s.Lists(key) != (owner.Ref() == of) {
					t.Errorf("key %d is that of %v, and %v lists it: %v", i, owner.Ref(), of, s.Lists(key))
				}
			}
		}
	}
	var done, left atomic.Int32
	for round := range 8 {
		var workers sync.WaitGroup
		for worker := range 6 {
			workers.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(worker)))
				for range 25 {
					of, key, d := refs[r.IntN(len(refs))], keys[r.IntN(len(keys))], servers[r.IntN(len(servers))]
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(100+r.IntN(12_000))*time.Microsecond)
					var err error
					switch r.IntN(5) {
					case 0, 1, 2:
						_, err = d.Change(ctx, of, by, func(s *subject.Subject) error {
							if s.Lists(key) {
								return nil
							}
							return adds(key)(s)
						})
					case 3:
						_, err = d.Change(ctx, of, by, func(s *subject.Subject) error { s.APIKeys = nil; return nil })
					case 4:
						_, err = d.Delete(ctx, of, by)
					}
					cancel()
					switch {
					case err == nil:
						done.Add(1)
					case errors.Is(err, subject.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
						left.Add(1)
					case !errors.Is(err, subject.ErrKeyTaken) && !errors.Is(err, subject.ErrConflict):
						t.Error(err)
					}
				}
			})
		}
		workers.Wait()
		time.Sleep(abandoned) // what is on its way arrives, and what was left may be taken
		agree()
	}
	t.Logf("%d changes were made, %d were left in the middle", done.Load(), left.Load())
	if done.Load() < 20 || left.Load() < 20 {
		t.Error("that proves nothing")
	}
}
