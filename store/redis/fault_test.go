package redis_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
)

// site is a Redis with a proxy before it and two replicas of ration behind that.
type site struct {
	server *redistest.Server
	config []string // that it was started with
	proxy  *redistest.Proxy
	look   *goredis.Client
	stores []*redis.Store
}

func newSite(t *testing.T, timeout time.Duration, more ...string) *site {
	s := &site{config: append([]string{"--dir", t.TempDir()}, more...)}
	s.server = redistest.Start(t, s.config...)
	s.proxy = redistest.StartProxy(t, s.server.Addr)
	s.look = s.server.Client(t)
	s.stores = twoStores(t, s.proxy.URL(), timeout)
	return s
}

// twoStores are two replicas of ration on one Redis.
func twoStores(t *testing.T, url string, timeout time.Duration) []*redis.Store {
	opts := redis.Options{URL: url, Timeout: timeout}
	return []*redis.Store{newStore(t, opts), newStore(t, opts)}
}

// witness is a store on the same counters that no fault hits.
func (s *site) witness(t *testing.T) *redis.Store { return witness(t, s.server.URL()) }

func witness(t *testing.T, url string) *redis.Store {
	return newStore(t, redis.Options{URL: url, Timeout: calm})
}

// fault is something that goes wrong for a while.
type fault struct {
	begin, end func(*testing.T, *site)
	// harmless: every call is answered all the same.
	harmless bool
	// says is what some of the errors name as their cause.
	says string
	// alone: a node of a cluster has no such thing.
	alone bool
	// config is what Redis is started with.
	config []string
}

// byProxy makes a fault by a rule of the proxy.
func byProxy(rule func() redistest.Rule) fault {
	return fault{
		begin: func(_ *testing.T, s *site) { s.proxy.Set(rule()) },
		end:   func(_ *testing.T, s *site) { s.proxy.Set(nil) },
	}
}

// everyThird lets every third batch suffer the fault.
func everyThird(f redistest.Fault) fault {
	return byProxy(func() redistest.Rule { return redistest.Every(3, f, "EVALSHA", "EVAL") })
}

// everything lets everything suffer it that a client sends, what opens a connection too.
func everything(f redistest.Fault) fault {
	return byProxy(func() redistest.Rule { return redistest.All(f) })
}

func setting(name, during, after, says string) fault {
	set := func(value string) func(*testing.T, *site) {
		return func(t *testing.T, s *site) {
			if err := s.look.ConfigSet(context.Background(), name, value).Err(); err != nil {
				t.Error(err)
			}
		}
	}
	return fault{begin: set(during), end: set(after), says: says}
}

// faults are all that two replicas of ration, and a single Redis, must get over by themselves.
var faults = map[string]fault{
	"delay":                     harmless(everything(redistest.Fault{Delay: 5 * time.Millisecond})),
	"delay beyond the timeout":  everyThird(redistest.Fault{Delay: 2 * timeout}),
	"answers late":              everyThird(redistest.Fault{AnswerDelay: 2 * timeout}),
	"cut before the script ran": everyThird(redistest.Fault{Do: redistest.CutBefore}),
	"reset before it ran":       everyThird(redistest.Fault{Do: redistest.CutBefore, Reset: true}),
	"cut after it ran":          everyThird(redistest.Fault{Do: redistest.CutAfter}),
	"reset after it ran":        everyThird(redistest.Fault{Do: redistest.CutAfter, Reset: true}),
	"cut within the answer":     everyThird(redistest.Fault{Do: redistest.CutWithin}),
	"half-open towards Redis":   everyThird(redistest.Fault{Do: redistest.SwallowCommand}),
	"half-open from Redis":      everyThird(redistest.Fault{Do: redistest.SwallowAnswer}),
	"nobody behind connections": everything(redistest.Fault{Do: redistest.SwallowCommand}),
	"connections end at once":   {begin: func(_ *testing.T, s *site) { s.proxy.To("") }, end: lead},
	"paused":                    {begin: pause, end: resume},
	"clients killed":            {begin: killClients, end: nothing},
	"SCRIPT FLUSH":              {begin: flushScripts, end: flushScripts, harmless: true},
	"OOM":                       setting("maxmemory", "1", "0", "OOM"),
	"no more clients":           {begin: noMoreClients, end: moreClients},
	"READONLY":                  {begin: demote, end: promote, says: "READONLY", alone: true},
	"too few replicas":          setting("min-replicas-to-write", "1", "0", "NOREPLICAS"),
	"saved and restarted":       {begin: save, end: restart, alone: true},
	"killed, with every write on disk": {begin: kill, end: restart, alone: true,
		config: []string{"--appendonly", "yes", "--appendfsync", "always"}},
	"LOADING": {begin: restartSlowly, end: loaded, says: "LOADING", alone: true},
}

func harmless(f fault) fault { f.harmless = true; return f }

// timeout is what a store has whose callers suffer the fault.
func (f *fault) timeout() time.Duration {
	if f.harmless {
		return calm
	}
	return timeout
}

func nothing(*testing.T, *site) {}

func lead(_ *testing.T, s *site) { s.proxy.To(s.server.Addr) }

func pause(t *testing.T, s *site) {
	if err := s.server.Pause(); err != nil {
		t.Error(err)
	}
}

func resume(t *testing.T, s *site) {
	if err := s.server.Resume(); err != nil {
		t.Error(err)
	}
}

// killClients ends every connection but the test's, again and again.
func killClients(t *testing.T, s *site) {
	for range 50 {
		if err := s.look.ClientKillByFilter(context.Background(), "TYPE", "normal").Err(); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func flushScripts(t *testing.T, s *site) {
	for range 20 {
		if err := s.look.ScriptFlush(context.Background()).Err(); err != nil {
			t.Error(err)
		}
	}
}

// demote makes Redis a replica of a master that is nowhere, so that it keeps what it has.
func demote(t *testing.T, s *site) {
	if err := s.look.ReplicaOf(context.Background(), "127.0.0.1", "1").Err(); err != nil {
		t.Error(err)
	}
}

func promote(t *testing.T, s *site) {
	if err := s.look.ReplicaOf(context.Background(), "NO", "ONE").Err(); err != nil {
		t.Error(err)
	}
}

func save(t *testing.T, s *site) { s.server.Save(t) }

func kill(_ *testing.T, s *site) { s.server.Stop() }

func restart(t *testing.T, s *site) {
	s.server = redistest.StartAt(t, s.server.Addr, s.config...)
}

// restartSlowly gives Redis a second's work to load what it saved.
func restartSlowly(t *testing.T, s *site) {
	pipe := s.look.Pipeline()
	for i := range 1000 {
		pipe.Set(context.Background(), fmt.Sprint("ballast ", i), "", 0)
	}
	if _, err := pipe.Exec(context.Background()); err != nil {
		t.Error(err)
	}
	s.server.Save(t)
	s.config = append(s.config, "--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
	restart(t, s)
}

func loaded(t *testing.T, s *site) {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := s.look.Get(context.Background(), "ballast 0").Err()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("Redis does not end to load: %v", err)
		}
	}
}

// noMoreClients leaves Redis one client, which is the test's.
func noMoreClients(t *testing.T, s *site) {
	if err := s.look.ConfigSet(context.Background(), "maxclients", "1").Err(); err != nil {
		t.Error(err)
	}
	killClients(t, s)
}

func moreClients(t *testing.T, s *site) {
	if err := s.look.ConfigSet(context.Background(), "maxclients", "1000").Err(); err != nil {
		t.Error(err)
	}
}

// TestFaults lets each fault come over a crowd of callers and go again. Whatever it is: what is
// counted is what was answered, and of the calls that ended without an answer none or each once; no
// limit admits more than it has; every call ends by its deadline; and afterwards all is as before,
// without anybody's help.
func TestFaults(t *testing.T) {
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, f.timeout(), f.config...)
			c := gather(t, makers, f.timeout(), s.stores...)
			c.awaitAnswers(100)
			f.begin(t, s)
			if f.harmless {
				c.awaitAnswers(100)
			} else {
				c.awaitUnknown()
				c.awaitError(f.says)
			}
			f.end(t, s)
			ended := time.Now()
			c.awaitAnswers(1)
			recovered := time.Since(ended)
			c.awaitAnswers(100)
			c.verify(s.witness(t), 0)
			if n := c.unknown.Load(); f.harmless && n > 0 {
				t.Errorf("%d calls had no answer", n)
			}
			t.Logf("the first answer came %v after the fault had ended", recovered.Round(time.Millisecond))
		})
	}
}

// replicaOf is the configuration of a replica.
func replicaOf(master *redistest.Server) []string {
	host, port, _ := net.SplitHostPort(master.Addr)
	return []string{"--replicaof", host + " " + port}
}
