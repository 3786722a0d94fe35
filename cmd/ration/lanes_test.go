package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/rationhq/ration/client"
	"github.com/rationhq/ration/store/redis/redistest"
)

const lanePlaces = 4

const lanePolicy = `
domain: llm
tiers: [ { name: free }, { name: pro } ]
trust_tier: true
descriptors:
  - key: user
    subject: true
    limits: [ { name: requests, meter: requests, algorithm: fixed_window, limit: 1_000/day } ]
lanes:
  - name: provider
    max_concurrent: 4
    max_wait: 5m
    max_waiting: { total: 1_000, per_subject: 1_000 }
    on_store_error: error
`

// clientOf is a client that asks the replica at, and if that is gone the others.
func clientOf(t *testing.T, replicas []*process, at int) *client.Client {
	t.Helper()
	addresses := manual.NewBuilderWithScheme("replicas")
	var state resolver.State
	for i := range replicas {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: replicas[(at+i)%len(replicas)].addrs(t).GRPC})
	}
	addresses.InitialState(state)
	c, err := client.New("replicas:///", client.Options{
		Dial:  []grpc.DialOption{grpc.WithResolvers(addresses)},
		Retry: client.Retry{First: 10 * time.Millisecond, Attempt: patience, Patience: 2 * patience},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// held is a place that a call has had.
type held struct {
	id, key  string
	from, to time.Time
}

// A replica is killed in mid-line. Its callers come back by the others, with the same keys, without doing anything for it.
// Everybody has one turn, and never more have places than there are.
func TestKilledReplicaWithALine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(lanePolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	url := redistest.Start(t).URL()
	var replicas []*process
	for range 3 {
		replicas = append(replicas, serve(t, "--policy", file, "--store", url, "--redis-timeout", patience.String()))
	}
	var clients []*client.Client
	for i := range replicas {
		clients = append(clients, clientOf(t, replicas, i))
	}

	const batch, others = 41, 79
	var (
		callers sync.WaitGroup
		mu      sync.Mutex
		all     []held
		holding int
		longest int // that a line was said to be
		gate    = make(chan struct{})
	)
	count := func(n func() int) int {
		mu.Lock()
		defer mu.Unlock()
		return n()
	}
	come := func(at int, user, key string) {
		callers.Go(func() {
			call := client.Call{
				Caller: client.Caller{Domain: "llm", Attributes: map[string]string{"user": user}, Tier: []string{"free", "pro"}[len(key)%2]},
				Key:    key,
			}
			lease, err := clients[at].Acquire(context.Background(), call, client.Turn{Lane: "provider", Tell: func(s client.Standing) {
				mu.Lock()
				defer mu.Unlock()
				longest = max(longest, s.Waiting)
			}})
			if err != nil {
				t.Errorf("%s: %v", key, err)
				return
			}
			h := held{id: lease.ID, key: key, from: time.Now()}
			count(func() int { holding++; return 0 })
			<-gate
			time.Sleep(5 * time.Millisecond)
			h.to = time.Now()
			if _, err := lease.Settle(context.Background(), client.Usage{Output: 1}); err != nil {
				t.Errorf("%s: settle: %v", key, err)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, h)
		})
	}
	users := map[string]int64{"batch": batch}
	for i := range lanePlaces {
		come(i%3, "first", fmt.Sprint("first ", i))
	}
	users["first"] = lanePlaces
	eventually(t, "all places are taken", func() error {
		if n := count(func() int { return holding }); n != lanePlaces {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	for i := range batch {
		come(i%3, "batch", fmt.Sprint("batch ", i))
	}
	for i := range others {
		user := fmt.Sprint("user ", i)
		users[user] = 1
		come(i%3, user, user)
	}
	eventually(t, "all wait", func() error {
		if n := count(func() int { return longest }); n != batch+others {
			return fmt.Errorf("%d do", n)
		}
		return nil
	})
	close(gate)
	eventually(t, "some have had their turns", func() error {
		if n := count(func() int { return len(all) }); n < 30 {
			return fmt.Errorf("%d have", n)
		}
		return nil
	})
	replicas[0].signal(t, syscall.SIGKILL)
	callers.Wait()

	ids := make(map[string]string)
	type change struct {
		at   time.Time
		more int
	}
	var changes []change
	for _, h := range all {
		if other, ok := ids[h.id]; ok {
			t.Errorf("%s has the reservation of %s", h.key, other)
		}
		ids[h.id] = h.key
		changes = append(changes, change{h.from, 1}, change{h.to, -1})
	}
	slices.SortFunc(changes, func(a, b change) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.more, b.more)) })
	taken := 0
	for _, c := range changes {
		if taken += c.more; taken > lanePlaces {
			t.Fatalf("%d have places at a time", taken)
		}
	}
	if want := lanePlaces + batch + others; len(all) != want {
		t.Errorf("%d had turns, want %d", len(all), want)
	}
	for user, want := range users {
		d, err := clients[1].Check(t.Context(), client.Call{Caller: client.Caller{Domain: "llm", Attributes: map[string]string{"user": user}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Limits[0].Used; got != want {
			t.Errorf("%s: %d calls are counted, and it made %d", user, got, want)
		}
	}
	for _, p := range replicas[1:] {
		p.stop(t)
	}
}
