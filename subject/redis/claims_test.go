package redis_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/subject"
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
