package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// loadFor is how long the load lasts: RATION_LOAD=1m makes it the minute that the documentation speaks of.
func loadFor(t testing.TB) time.Duration {
	t.Helper()
	said := os.Getenv("RATION_LOAD")
	if said == "" {
		return 12 * time.Second
	}
	d, err := time.ParseDuration(said)
	if err != nil {
		t.Fatalf("RATION_LOAD: %v", err)
	}
	return d
}

// What the calls of the load are: each stream takes one to two seconds, and the next follows at once.
const (
	loadCap    = 60
	loadOutput = 40  // what the model writes, unless it is broken off
	loadTokens = 200 // what a free user has
)

// Who makes them.
const (
	staying = "staying" // until the end
	free    = "free"    // likewise, with few tokens for all of the run
	leaving = "leaving" // hangs up in the middle
	broken  = "broken"  // the model hangs up
)

// loadUsers are as many as there are streams.
func loadUsers() map[string][]string {
	return map[string][]string{staying: of(staying, 140), free: of(free, 20), leaving: of(leaving, 20), broken: of(broken, 20)}
}

// loadPrompt is what a user asks for in its turn; no two are in step for long.
func loadPrompt(kind, user string, turn int) prompt {
	_, number, _ := strings.Cut(user, "-")
	n, _ := strconv.Atoi(number) // of() has numbered them
	p := prompt{user: user, maxTokens: loadCap, script: map[string]string{
		"output-tokens": strconv.Itoa(loadOutput), "tokens-per-second": strconv.Itoa(loadOutput),
		"first-byte": strconv.Itoa((n*37+turn*411)%1000) + "ms"}}
	switch kind {
	case leaving:
		p.hangUp = 200 + 300*(turn%10)
	case broken:
		p.script["abort-after"] = strconv.Itoa(1 + turn*7%loadOutput)
	}
	return p
}

// loadInput is what the model reads of each: "Hello". loadEstimate is what is held for it, by the bytes of the request.
const loadInput = 2

func loadEstimate() int64 { return int64(len(prompt{maxTokens: loadCap}.body())/4 + 1) }

// tally is what a user has heard of its calls.
type tally struct{ whole, cut, refused, unavailable int }

// load is 200 users who stream all the time.
type load struct {
	users    map[string][]string // by what they are
	provider *fakellm
	server   *ration
	envoy    *envoy
	stop     chan struct{}
	done     sync.WaitGroup
	since    time.Time
	kills    int // of ration

	mu    sync.Mutex
	heard map[string]tally // by user
	odd   []string
}

// startLoad lets these users begin, before a ration with this store and these flags.
func startLoad(t testing.TB, users map[string][]string, store string, flags ...string) *load {
	t.Helper()
	var all []string
	tiers := map[string][]string{"free": users[free]}
	for kind, names := range users {
		all = append(all, names...)
		if kind != free {
			tiers["premium"] = append(tiers["premium"], names...)
		}
	}
	policy := modelPolicy(t, tiers,
		map[string]any{"name": "rpm", "rate": "100_000/minute"}, map[string]any{"name": "otpm", "rate": "10_000_000/minute"})
	limits := policy["descriptors"].([]any)[0].(map[string]any)
	named(limits, "tokens", "limits")["tiers"].(map[string]any)["free"] = map[string]any{"limit": fmt.Sprintf("%d/day", loadTokens)}
	for tier := range named(limits, "tokens", "limits")["tiers"].(map[string]any) {
		at(named(limits, "requests", "limits"), "tiers")[tier] = map[string]any{"rate": "6000/minute"}
		if tier != "free" {
			at(named(limits, "tokens", "limits"), "tiers")[tier] = map[string]any{"limit": "5_000_000/day"}
		}
	}
	text, err := json.Marshal(policy)
	if err != nil {
		t.Fatal(err)
	}

	l := &load{users: users, since: time.Now(), stop: make(chan struct{}), heard: map[string]tally{}}
	l.provider = startFakeLLM(t)
	l.server = startRation(t, store, policyFile(t, string(text)), flags...)
	b := fromFile(t, reserveFile, l.provider.addr, l.server.grpc)
	b.users(all)
	l.envoy = startEnvoy(t, b)
	asking := newCallers(t, l.envoy)
	for kind, names := range users {
		for _, user := range names {
			l.done.Go(func() {
				for turn := 0; ; turn++ {
					select {
					case <-l.stop:
						return
					default:
					}
					if h := asking.call(t.Context(), loadPrompt(kind, user, turn)); l.note(kind, user, h) {
						continue
					}
					select { // whoever is refused does not try again at once
					case <-time.After(250 * time.Millisecond):
					case <-l.stop:
					}
				}
			})
		}
	}
	return l
}

// note keeps what a user has heard, and says whether it was served.
func (l *load) note(kind, user string, h heard) (served bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.heard[user]
	switch {
	case h.whole:
		all.whole++
	case h.code == http.StatusOK && (kind == leaving || kind == broken):
		all.cut++
	case h.code == http.StatusTooManyRequests:
		all.refused++
	case h.code == http.StatusServiceUnavailable:
		all.unavailable++
	default:
		l.odd = append(l.odd, fmt.Sprintf("%s: %d %s", user, h.code, h.body))
	}
	l.heard[user] = all
	return h.code == http.StatusOK
}

// end stops the load when all calls that have begun have ended, and Envoy has told of all of them.
func (l *load) end(t testing.TB) {
	t.Helper()
	close(l.stop)
	l.done.Wait()
	if len(l.odd) > 0 {
		t.Errorf("%d calls ended as none should, such as %.300q", len(l.odd), l.odd[0])
	}
	eventually(t, "all has ended", func() error {
		if total, _ := l.provider.ledger(t); total.Open > 0 {
			return fmt.Errorf("%d calls are open at the provider", total.Open)
		}
		if n := l.envoy.stat(t, "cluster.ration.upstream_rq_active"); n > 0 {
			return fmt.Errorf("%d calls of ration are under way", n)
		}
		return nil
	})
}

// balance compares what ration has charged with what the provider has served, user by user. Of calls that have ended while
// ration was away it returns how many were not settled, and how many were reserved in vain: reserved, and told of to nobody.
// All else that differs is an error.
func (l *load) balance(t testing.TB) (unsettled, vain int64, err error) {
	t.Helper()
	var wrong []error
	served, charged := l.provider.byUser(t), l.server.used(t, l.since)
	for kind, names := range l.users {
		for _, user := range names {
			s, c := served[user], charged[user]
			n, v, err := l.compare(kind, l.heard[user], s, c)
			unsettled, vain = unsettled+n, vain+v
			if err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %w: charged %+v, served %+v, heard %+v", user, err, c, s, l.heard[user]))
			}
		}
	}
	return unsettled, vain, errors.Join(wrong[:min(5, len(wrong))]...)
}

// compare is balance for one user.
func (l *load) compare(kind string, heard tally, s served, c used) (unsettled, vain int64, err error) {
	vain, missing := c.Requests-s.Requests, s.Served.Output-c.Usage.OutputTokens
	switch {
	case vain < 0 || vain > int64(heard.refused+heard.unavailable):
		return 0, vain, errors.New("requests")
	case c.Cost != 1000*c.Usage.InputTokens+5000*c.Usage.OutputTokens:
		return 0, vain, errors.New("cost")
	case kind == free && (s.Served.Input+s.Served.Output > loadTokens || heard.refused == 0):
		return 0, vain, fmt.Errorf("%d tokens were to be the end", loadTokens)
	case kind == leaving || kind == broken:
		// What is broken off is charged by an estimate: not below what has come, an event or two aside, nor above the cap. While
		// ration was away two calls of a user may have ended, the one under way and one before.
		lost := int64(l.kills) * 2 * loadCap
		if c.Usage.OutputTokens > s.Requests*loadCap || missing > (s.Requests-int64(heard.whole))*8+lost {
			return 0, vain, errors.New("output")
		}
		return 0, vain, nil
	}
	// Each call is charged as it was served, but those that were not settled: of these the input that is held.
	unsettled = missing / loadOutput
	input := s.Served.Input + unsettled*(loadEstimate()-loadInput) + vain*loadEstimate()
	if unsettled < 0 || missing%loadOutput != 0 || c.Usage.InputTokens != input {
		return unsettled, vain, errors.New("tokens")
	}
	return unsettled, vain, nil
}

// unanswered is how many calls of ration have had no answer, as Envoy counts them.
func (l *load) unanswered(t testing.TB) (checks, charges int64) {
	t.Helper()
	for _, h := range l.heard {
		checks += int64(h.unavailable)
	}
	return checks, int64(l.envoy.stat(t, "cluster.ration.upstream_rq_5xx")) - checks
}

// TestLoad streams to 200 users at once while ration is killed and started again, and Redis pauses. What is charged is what
// the provider served, but for the calls that ended while ration was away, which Envoy counts; and whatever happens nobody
// has more than the limits allow.
func TestLoad(t *testing.T) {
	lasts := loadFor(t)
	for name, run := range map[string]func(t *testing.T){
		"redis": func(t *testing.T) {
			redis := startRedis(t)
			l := startLoad(t, loadUsers(), redis.url(), "--redis-timeout", "250ms")
			time.Sleep(lasts / 4)
			l.kill(t)
			time.Sleep(lasts / 4)
			redis.signal(syscall.SIGSTOP)
			time.Sleep(2 * time.Second)
			redis.signal(syscall.SIGCONT)
			time.Sleep(lasts / 2)
			l.audit(t)
		},
		"memory": func(t *testing.T) {
			l := startLoad(t, loadUsers(), memory, "--data", filepath.Join(t.TempDir(), "data"))
			time.Sleep(lasts / 2)
			l.kill(t)
			time.Sleep(lasts / 2)
			l.audit(t)
		},
	} {
		t.Run(name, run)
	}
}

// TestLoadWhileRedisPauses is TestLoad with nothing amiss but Redis: then nothing is missing at all.
func TestLoadWhileRedisPauses(t *testing.T) {
	redis := startRedis(t)
	l := startLoad(t, loadUsers(), redis.url(), "--redis-timeout", "250ms")
	time.Sleep(loadFor(t) / 3)
	redis.signal(syscall.SIGSTOP)
	time.Sleep(3 * time.Second)
	redis.signal(syscall.SIGCONT)
	time.Sleep(loadFor(t) / 3)
	l.end(t)
	eventually(t, "all that was used is charged", func() error {
		unsettled, vain, err := l.balance(t)
		if err != nil || unsettled > 0 {
			return errors.Join(fmt.Errorf("%d calls are not settled, %d reserved in vain", unsettled, vain), err)
		}
		return nil
	})
	if checks, charges := l.unanswered(t); checks+charges > 0 {
		t.Errorf("%d checks and %d charges without an answer, want none: ration was there", checks, charges)
	}
}

// kill ends ration as a crash would, and starts it again a second later.
func (l *load) kill(t testing.TB) {
	t.Helper()
	l.kills++
	l.server.signal(syscall.SIGKILL)
	if l.server.wait(t) == nil {
		t.Error("ration has ended well")
	}
	time.Sleep(time.Second)
	l.server.start(t)
}

// audit ends the load and says whether all adds up.
func (l *load) audit(t testing.TB) {
	t.Helper()
	l.end(t)
	unsettled, vain, err := l.balance(t)
	if err != nil {
		t.Error(err)
	}
	checks, charges := l.unanswered(t)
	total, _ := l.provider.ledger(t)
	t.Logf("%d calls, %d tokens written; without an answer %d checks and %d charges; not settled %d, reserved in vain %d",
		total.Requests, total.Served.Output, checks, charges, unsettled, vain)
	if unsettled > charges || charges == 0 {
		t.Errorf("%d calls are not settled, and Envoy counts %d charges without an answer", unsettled, charges)
	}
}

// costs is what Envoy, ration and what else is named have used of the processor, by name.
func (l *load) costs(t testing.TB, more ...*process) map[string]time.Duration {
	t.Helper()
	spent := map[string]time.Duration{}
	for _, p := range append([]*process{l.envoy.process, l.server.process}, more...) {
		spent[p.name] += p.processorTime(t)
	}
	return spent
}

// BenchmarkLoad measures what a streamed call costs Envoy, ration and Redis, in time of the processor, while 200 users stream.
// One round takes as long as RATION_LOAD says, whatever else is asked for.
func BenchmarkLoad(b *testing.B) {
	for _, store := range []string{"memory", "data", "redis"} {
		b.Run(store, func(b *testing.B) {
			for range b.N {
				url, flags, more := memory, []string(nil), []*process(nil)
				switch store {
				case "data":
					flags = []string{"--data", filepath.Join(b.TempDir(), "data")}
				case "redis":
					r := startRedis(b)
					url, more = r.url(), []*process{r.process}
				}
				l := startLoad(b, map[string][]string{staying: of(staying, 200)}, url, flags...)
				time.Sleep(loadFor(b))
				l.end(b)
				if unsettled, vain, err := l.balance(b); err != nil || unsettled+vain > 0 {
					b.Errorf("%d calls are not settled, %d reserved in vain: %v", unsettled, vain, err)
				}
				total, _ := l.provider.ledger(b)
				b.ReportMetric(float64(total.Requests)/loadFor(b).Seconds(), "calls/s")
				for name, spent := range l.costs(b, more...) {
					b.ReportMetric(float64(spent.Microseconds())/float64(total.Requests), name+"-µs/call")
				}
			}
		})
	}
}

// processorTime is what a program has used so far, as the kernel counts.
func (p *process) processorTime(t testing.TB) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
