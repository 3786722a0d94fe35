package main

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/server/health"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/redis"
)

// openStore opens what --store names. Whether it answers is found out later.
func (f *serveFlags) openStore(env *environment, log *slog.Logger) (store.Store, error) {
	if f.Store == "memory" {
		opts := memory.Options{MaxBytes: int64(f.MaxMemory), Log: log}
		if f.Data == "" {
			return memory.New(opts), nil
		}
		return memory.Open(f.Data, opts)
	}
	if f.Data != "" {
		return nil, misused("%s: only the memory store keeps its state in a directory: leave it out, or say --store memory",
			env.origin("data"))
	}
	if !strings.Contains(f.Store, "://") {
		return nil, misused("%s: %q is no store: use memory, or one of %s", env.origin("store"), masked(f.Store), redis.Forms)
	}
	redis.LogTo(log)
	opts, err := f.redisOptions(env)
	if err != nil {
		return nil, err
	}
	s, err := redis.New(opts)
	if err != nil {
		return nil, misused("%s: %q cannot be used: %w", env.origin("store"), masked(f.Store), err)
	}
	return s, nil
}

// redisOptions are those of whatever lies in Redis.
func (f *serveFlags) redisOptions(env *environment) (redis.Options, error) {
	config, err := f.redisTLS(env)
	return redis.Options{
		URL: f.Store, KeyPrefix: string(f.CacheKeyPrefix), Timeout: f.redisTimeout(), TLS: config,
		WaitReplicas: int(f.RedisWaitReplicas),
	}, err
}

// storeWait returns how long a decision waits for the store. The one in this process never stalls.
func (f *serveFlags) storeWait() time.Duration {
	if f.Store == "memory" {
		return 0
	}
	return f.redisTimeout()
}

// redisTimeout is the longest wait for Redis; 0 stands for the default, as to the store.
func (f *serveFlags) redisTimeout() time.Duration {
	return cmp.Or(time.Duration(f.RedisTimeout), time.Second)
}

// localBytes bounds what this process counts by itself while the store cannot decide.
const localBytes = 64 << 20

// newLocal makes the store for limits that this process decides by itself then.
func newLocal() store.Store { return memory.New(memory.Options{MaxBytes: localBytes}) }

// masked returns a URL without what may be secret in it: who connects, and the parameters.
func masked(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if ok {
		scheme += "://"
	} else {
		scheme, rest = "", url
	}
	at, query := strings.LastIndexByte(rest, '@'), strings.IndexByte(rest, '?')
	switch {
	case query >= 0 && query < at: // which of the two a password holds is not known
		return scheme + "…"
	case query >= 0:
		rest = rest[:query]
	}
	if at >= 0 {
		rest = "…" + rest[at:]
	}
	return scheme + rest
}

// storeCheck asks the store again and again whether it could decide, and lets those know who make
// something of it.
type storeCheck struct {
	store    store.Store
	subjects *subjects // which lie in the same place
	timeout  time.Duration
	health   *health.State
	engine   *engine.Engine
	log      *slog.Logger
	lost     bool
	advised  bool // what is wrong with its settings has been said
	unknown  bool // so has that the directory of subjects cannot be asked, although the store can
}

// storeInterval is how often the store is asked whether it can decide.
const storeInterval = time.Second

// ask asks once.
func (c *storeCheck) ask(ctx context.Context) {
	asked, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	answer := make(chan error, 1)
	// A client of Redis heeds deadlines only, and the end of the process need not wait for one.
	go func() { answer <- c.store.Ready(asked) }()
	var err error
	select {
	case err = <-answer:
	case <-ctx.Done():
		return
	}
	c.health.SetStore(err)
	c.engine.NoteReady(err)
	c.askSubjects(ctx, err)
	// After an outage it may be another Redis.
	c.advised = c.advised && !c.lost
	c.lost = err != nil
	if !c.lost && !c.advised {
		c.advised = true
		c.advise(asked)
	}
}

// askSubjects asks the directory of subjects, where the store has answered; else what the store says is said of it too.
func (c *storeCheck) askSubjects(ctx context.Context, store error) {
	if store != nil || c.subjects.ready == nil {
		c.health.SetSubjects(store)
		return
	}
	asked, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- c.subjects.ready(asked) }()
	select {
	case err := <-answer:
		c.health.SetSubjects(err)
		if err != nil && !c.unknown {
			c.log.Warn("the directory of subjects cannot be asked: those of whom nothing is known yet get the first tier", "error", err)
		}
		c.unknown = err != nil
	case <-ctx.Done():
	}
}

// advise logs what in the settings of the store will lose counters.
func (c *storeCheck) advise(ctx context.Context) {
	if s, ok := c.store.(interface {
		Warnings(ctx context.Context) []string
	}); ok {
		for _, warning := range s.Warnings(ctx) {
			c.log.Warn("the store", "problem", warning)
		}
	}
}

// watch asks again and again until ctx ends.
func (c *storeCheck) watch(ctx context.Context) {
	tick := time.NewTicker(storeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.ask(ctx)
		}
	}
}
