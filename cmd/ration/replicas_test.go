package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rationhq/ration/store/redis/redistest"
)

// What the limits of these tests allow: one is used up early, and the other one never.
const scarce, plenty = 300, 10_000

// algorithms are limits of each kind, by name; windows are so long that no test run crosses an end of one.
var algorithms = map[string]string{
	"token_bucket":   "{ name: token_bucket, rate: 1/day, burst: %d, on_store_error: error }",
	"sliding_window": "{ name: sliding_window, algorithm: sliding_window, limit: %d/365 days, on_store_error: error }",
	"sliding_log":    "{ name: sliding_log, algorithm: sliding_log, limit: %d/365 days, on_store_error: error }",
	"fixed_window":   "{ name: fixed_window, algorithm: fixed_window, limit: %d/365 days, on_store_error: error }",
	"first_use":      "{ name: first, algorithm: fixed_window, starts: first_use, limit: %d/365 days, on_store_error: error }",
	"calendar":       "{ name: calendar, limit: %d/year, on_store_error: error }",
	"concurrency":    "{ name: concurrency, meter: concurrency, limit: %d, on_store_error: error }",
}

// deployment is three processes with one policy, on one Redis, and what their callers were told.
//
// The policy has the descriptors (algorithm, scarce) and (algorithm, plenty), and under "together" and
// "rate_limit" all algorithms at once, and a plain rule.
type deployment struct {
	processes []*process
	clients   []ratelimitv3.RateLimitServiceClient

	mu    sync.Mutex
	heard map[descriptor]*heard
}

// descriptor is a request's.
type descriptor struct{ limits, size string }

// sizes are what the limits of each size allow.
var sizes = map[string]int{"scarce": scarce, "plenty": plenty}

// heard is what the callers of a descriptor were told.
type heard struct {
	admitted, refused int
	unknown           int      // ended without an answer
	ids               []string // of the requests that were admitted
}

func startReplicas(t *testing.T, url string) *deployment {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(policyOfAll()), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &deployment{heard: make(map[descriptor]*heard)}
	for range 3 {
		p := serve(t, "--policy", file, "--store", url, "--redis-timeout", patience.String())
		r.processes = append(r.processes, p)
		r.clients = append(r.clients, limiter(t, p.addrs(t).GRPC))
	}
	return r
}

func policyOfAll() string {
	var text strings.Builder
	text.WriteString("domain: d\ndescriptors:\n")
	for size, most := range sizes {
		fmt.Fprintf(&text, "- { key: rate_limit, value: %s, rate_limit: { unit: year, requests_per_unit: %d } }\n",
			size, most)
		var all []string
		for name, l := range algorithms {
			all = append(all, fmt.Sprintf(l, most))
			fmt.Fprintf(&text, "- { key: %s, value: %s, limits: [ %s ] }\n", name, size, all[len(all)-1])
		}
		fmt.Fprintf(&text, "- { key: together, value: %s, limits: [ %s ] }\n", size, strings.Join(all, ", "))
	}
	return text.String()
}

// descriptors returns those of one size.
func descriptors(size string) []descriptor {
	all := []descriptor{{"together", size}, {"rate_limit", size}}
	for name := range algorithms {
		all = append(all, descriptor{name, size})
	}
	return all
}

// about is a request about d, with more entries. hits are its hits_addend where they are not negative.
func (d descriptor) about(hits int, entries ...string) *ratelimitv3.RateLimitRequest {
	r := request("d", d.limits, d.size)
	one := r.GetDescriptors()[0]
	for _, e := range entries {
		key, value, _ := strings.Cut(e, "=")
		one.Entries = append(one.Entries, &commonv3.RateLimitDescriptor_Entry{Key: key, Value: value})
	}
	if hits >= 0 {
		one.HitsAddend = wrapperspb.UInt64(uint64(hits))
	}
	return r
}

// call asks a replica to admit a request, and takes down what came of it.
func (r *deployment) call(at int, d descriptor, id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	response, err := r.clients[at].ShouldRateLimit(ctx, d.about(-1, "ration.request="+id))
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.heard[d]
	if h == nil {
		h = &heard{}
		r.heard[d] = h
	}
	switch {
	case err != nil:
		h.unknown++
	case response.GetOverallCode() == ratelimitv3.RateLimitResponse_OK:
		h.admitted++
		h.ids = append(h.ids, id)
	default:
		h.refused++
	}
	return err
}

// counted is how much of a limit is used, or held, as a replica sees it.
func (r *deployment) counted(t *testing.T, at int, d descriptor) int {
	t.Helper()
	return sizes[d.size] - int(ask(t, r.clients[at], d.about(0)).GetStatuses()[0].GetLimitRemaining())
}

// Three replicas on one Redis, with 64 callers each: whatever the algorithm, together they admit exactly the
// limit, no more and no fewer; and places that were taken at one are free again when another hears that
// the request is done.
func TestReplicas(t *testing.T) {
	r := startReplicas(t, redistest.Start(t).URL())
	rush := func(name string, over ...descriptor) {
		var callers sync.WaitGroup
		for caller := range 3 * 64 {
			callers.Go(func() {
				for n := range 2 * len(over) {
					d := over[(caller+n)%len(over)]
					if err := r.call(caller%3, d, fmt.Sprintf("%s %d %d", name, caller, n)); err != nil {
						t.Errorf("%v: %v", d, err)
					}
				}
			})
		}
		callers.Wait()
	}
	rush("first", descriptors("scarce")...)
	for _, d := range descriptors("scarce") {
		if h := r.heard[d]; h.admitted != scarce || h.refused != 2*3*64-scarce {
			t.Errorf("%v: %d calls were admitted and %d refused, want %d admitted of %d", d, h.admitted, h.refused, scarce, 2*3*64)
		}
		for at := range r.clients {
			if n := r.counted(t, at, d); n != scarce {
				t.Errorf("%v: replica %d counts %d, want %d", d, at, n, scarce)
			}
		}
	}

	places := descriptor{"concurrency", "scarce"}
	for i, id := range r.heard[places].ids {
		ask(t, r.clients[i%3], places.about(0, "ration.request="+id, "ration.phase=done"))
	}
	if n := r.counted(t, 0, places); n != 0 {
		t.Errorf("%d places are taken when all are done, want none", n)
	}
	r.heard[places] = &heard{}
	rush("again", places)
	if h := r.heard[places]; h.admitted != scarce {
		t.Errorf("%d of %d places were taken when all were free again", h.admitted, scarce)
	}
	for _, p := range r.processes {
		p.stop(t)
	}
}

// A replica that is killed in mid-load takes with it the answers that were on their way, and nothing else:
// what was answered is counted, once, and of what was not at most as many calls as were under way there. The
// others go on. Places that nobody comes back for are free when their lease is over.
func TestKilledReplica(t *testing.T) {
	server, clock := redistest.StartWithClock(t)
	r := startReplicas(t, server.URL())
	over := append(descriptors("scarce"), descriptors("plenty")...)
	var answered atomic.Int64
	var leave atomic.Bool
	var callers, victims sync.WaitGroup
	t.Cleanup(func() {
		leave.Store(true)
		callers.Wait()
		victims.Wait()
	})
	for caller := range 3 * 64 {
		at, group := caller%3, &callers
		if at == 0 {
			group = &victims
		}
		group.Go(func() {
			for n := 0; !leave.Load(); n++ {
				d := over[(caller+n)%len(over)]
				switch err := r.call(at, d, fmt.Sprintf("%d %d", caller, n)); {
				case err == nil:
					answered.Add(1)
				case at == 0 && status.Code(err) == codes.Unavailable:
					return
				default:
					t.Errorf("replica %d, %v: %v", at, d, err)
					return
				}
			}
		})
	}
	await := func(n int64) {
		t.Helper()
		n += answered.Load()
		eventually(t, "the load goes on", func() error {
			if got := answered.Load(); got < n {
				return fmt.Errorf("%d answers, want %d", got, n)
			}
			return nil
		})
	}
	await(2000)
	r.processes[0].signal(t, syscall.SIGKILL)
	victims.Wait()
	await(6000)
	leave.Store(true)
	callers.Wait()

	unknown := 0
	for _, d := range over {
		h := r.heard[d]
		unknown += h.unknown
		counted := r.counted(t, 1, d)
		if counted < h.admitted || counted > h.admitted+h.unknown {
			t.Errorf("%v: %d are counted, want %d…%d", d, counted, h.admitted, h.admitted+h.unknown)
		}
		if other := r.counted(t, 2, d); other != counted {
			t.Errorf("%v: one replica counts %d, and the other %d", d, counted, other)
		}
		if usedUp := d.size == "scarce"; usedUp != (counted == sizes[d.size]) || usedUp != (h.refused > 0) {
			t.Errorf("%v: %d of %d are counted, and %d calls were refused", d, counted, sizes[d.size], h.refused)
		}
	}
	if unknown == 0 || unknown > 64 {
		t.Errorf("%d calls had no answer, want those of 1 to 64 callers", unknown)
	}
	t.Logf("%d calls were answered, %d were not", answered.Load(), unknown)

	clock.Shift(t, 5*time.Minute) // a place's lease over Envoy's protocol
	for _, size := range []string{"scarce", "plenty"} {
		if n := r.counted(t, 1, descriptor{"concurrency", size}); n != 0 {
			t.Errorf("%d places of (concurrency, %s) are taken when all leases are over, want none", n, size)
		}
	}
	for _, p := range r.processes[1:] {
		p.stop(t)
	}
}
