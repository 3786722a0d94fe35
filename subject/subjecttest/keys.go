package subjecttest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rationhq/ration/subject"
)

func testAPIKeys(t *testing.T, open Open) {
	all := open(t)
	alice, bob := subject.Ref{Domain: "llm", Name: "alice"}, subject.Ref{Domain: "batch", Name: "bob"}
	first, second, third := NewKey(), NewKey(), NewKey()
	if owner := findByKey(t, all[0], first); owner != (subject.Ref{}) {
		t.Errorf("a key that nobody has is that of %v", owner)
	}
	change(t, all[0], alice, addKey(first))
	change(t, all[0], alice, addKey(second))
	change(t, all[0], bob, addKey(third))
	for hash, want := range map[subject.KeyHash]subject.Ref{first: alice, second: alice, third: bob} {
		for _, d := range all {
			if owner := findByKey(t, d, hash); owner != want {
				t.Errorf("a key of %v is that of %v", want, owner)
			}
		}
	}
	change(t, all[len(all)-1], alice, func(s *subject.Subject) error {
		s.APIKeys = slices.DeleteFunc(s.APIKeys, func(k subject.APIKey) bool { return k.Hash == first })
		return nil
	})
	if owner := findByKey(t, all[0], first); owner != (subject.Ref{}) {
		t.Errorf("a key that was removed is that of %v", owner)
	}
	if owner := findByKey(t, all[0], second); owner != alice {
		t.Errorf("the key beside it is that of %v", owner)
	}
}

func testKeyTaken(t *testing.T, open Open) {
	all := open(t)
	alice, bob := subject.Ref{Domain: "secret domain", Name: "alice"}, subject.Ref{Domain: "llm", Name: "bob"}
	key := NewKey()
	change(t, all[0], alice, addKey(key))
	for _, d := range all {
		_, err := d.Change(t.Context(), bob, by, addKey(key))
		if !errors.Is(err, subject.ErrKeyTaken) {
			t.Fatalf("added to another subject: %v, want ErrKeyTaken", err)
		}
		for _, secret := range []string{key.Hex(), key.Fingerprint(), "alice", "secret domain"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error gives %q away: %v", secret, err)
			}
		}
	}
	if _, found := find(t, all[0], bob); found {
		t.Error("bob was made nevertheless")
	}
	if owner := findByKey(t, all[0], key); owner != alice {
		t.Errorf("the key is that of %v", owner)
	}
	change(t, all[0], alice, dropKeys)
	change(t, all[len(all)-1], bob, addKey(key)) // at once: an administrator corrects a mistake
	if owner := findByKey(t, all[0], key); owner != bob {
		t.Errorf("the key is that of %v, want bob", owner)
	}
	if _, err := all[0].Delete(t.Context(), bob, by); err != nil {
		t.Fatal(err)
	}
	change(t, all[0], alice, addKey(key))
	if owner := findByKey(t, all[0], key); owner != alice {
		t.Errorf("the key is that of %v, want alice again", owner)
	}
}

// Several administrators count up at the same time.
func testNoLostUpdate(t *testing.T, open Open) {
	all := open(t)
	of := subject.Ref{Domain: "llm", Name: "alice"}
	const admins, turns = 6, 15
	var wg sync.WaitGroup
	for admin := range admins {
		wg.Go(func() {
			for range turns {
				err := insist(t.Context(), func() error {
					_, err := all[admin%len(all)].Change(t.Context(), of, by, func(s *subject.Subject) error {
						n, _ := strconv.Atoi(s.Attributes["n"])
						s.Attributes = map[string]string{"n": strconv.Itoa(n + 1)}
						return nil
					})
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s, _ := find(t, all[0], of)
	if s.Attributes["n"] != strconv.Itoa(admins*turns) || s.Revision != admins*turns {
		t.Errorf("counted to %s at revision %d, want %d", s.Attributes["n"], s.Revision, admins*turns)
	}
}

func testOneWins(t *testing.T, open Open) {
	all := open(t)
	for round := range 10 {
		key := NewKey()
		var won atomic.Int32
		var wg sync.WaitGroup
		refs := make([]subject.Ref, 6)
		for i := range refs {
			refs[i] = subject.Ref{Domain: fmt.Sprint("domain ", i%2), Name: fmt.Sprint("user ", round, i)}
			wg.Go(func() {
				_, err := all[i%len(all)].Change(t.Context(), refs[i], by, addKey(key))
				switch {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, subject.ErrKeyTaken) && !errors.Is(err, subject.ErrConflict):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		owner := findByKey(t, all[0], key)
		if won.Load() != 1 {
			t.Fatalf("%d have won", won.Load())
		}
		for _, of := range refs {
			if s, _ := find(t, all[0], of); s.Lists(key) != (of == owner) {
				t.Errorf("the key is that of %v, and %v lists it: %v", owner, of, s.Lists(key))
			}
		}
	}
}

// Whatever comes and goes at the same time: a key is found by what lists it, and listed by one at most.
func testKeysMove(t *testing.T, open Open) {
	all := open(t)
	keys := []subject.KeyHash{NewKey(), NewKey()}
	refs := make([]subject.Ref, 3)
	for i := range refs {
		refs[i] = subject.Ref{Domain: "llm", Name: fmt.Sprint("user ", i)}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var moved atomic.Int32
	for worker := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 1)) //nolint:gosec // the same sequence each time
			d := all[worker%len(all)]
			for n := 0; n < 150 && ctx.Err() == nil; n++ {
				of, key := refs[r.IntN(len(refs))], keys[r.IntN(len(keys))]
				var err error
				switch r.IntN(5) {
				case 0, 1, 2:
					_, err = d.Change(t.Context(), of, by, addKey(key))
				case 3:
					_, err = d.Change(t.Context(), of, by, dropKeys)
				case 4:
					_, err = d.Delete(t.Context(), of, by)
				}
				switch {
				case err == nil:
					moved.Add(1)
				case !errors.Is(err, subject.ErrKeyTaken) && !errors.Is(err, subject.ErrConflict):
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, key := range keys {
		owner := findByKey(t, all[0], key)
		for _, of := range refs {
			if s, _ := find(t, all[0], of); s.Lists(key) != (of == owner) {
				t.Errorf("a key is that of %v, and %v lists it: %v", owner, of, s.Lists(key))
			}
		}
	}
	if moved.Load() < 20 {
		t.Errorf("only %d changes succeeded: that proves nothing", moved.Load())
	}
}

// hidesKeys fails if a text has an API key's hash in it, in any form.
func hidesKeys(t *testing.T, text string, keys []subject.APIKey) {
	t.Helper()
	for _, k := range keys {
		for _, form := range []string{
			k.Hash.Hex(), base64.StdEncoding.EncodeToString(k.Hash[:]), string(k.Hash[:]), fmt.Sprint([32]byte(k.Hash)),
		} {
			if strings.Contains(text, form) {
				t.Errorf("it gives an API key's hash away: %s", text)
			}
		}
	}
}
