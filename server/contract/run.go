package contract

import (
	"context"
	"fmt"
	"time"
)

// Target is a server under test: any binary that understands the established environment names.
type Target struct {
	Binary string
	Args   []string
	// MemoryArgs are added to run without Redis.
	MemoryArgs []string
	// Env is added to the environment of the server.
	Env map[string]string
	// Column is whose answers are expected.
	Column Column
	// Checker is a command that reads the directory of policies given as its last argument, and fails with a line for
	// each mistake. Empty: policies are judged by a reload alone.
	Checker []string
}

// Runner replays cases.
type Runner struct {
	Target Target
	// Recorder, if there is one, gets the answers instead of having them compared.
	Recorder *Recorder

	ports ports
}

// Host is what a run takes from the test that it belongs to.
type Host struct {
	// TempDir makes a directory that is removed after the run.
	TempDir func() string
	// StartRedis starts a redis-server that keeps nothing and ends with the run.
	StartRedis func() RedisServer
}

// Result is what came of one case.
type Result struct {
	Case *Case
	// Mismatches name the step, the part of the answer, what was wanted and what came. None: the case passed.
	Mismatches []string
}

// RunGroup starts one server and runs the cases of a group against it. The error is about the run itself: the
// server did not start, a case cannot be sent.
func (r *Runner) RunGroup(ctx context.Context, host Host, g *Group, s Store, t Transport) ([]Result, error) {
	run := &groupRun{Runner: r, group: g, store: s, transport: t}
	defer run.stop()
	if s == Redis {
		redis := host.StartRedis()
		run.redis = &redis
	}
	files := map[string]string{}
	for i, c := range g.Cases {
		for name, text := range c.Files {
			if !c.alone() {
				name = fmt.Sprintf("case%03d-%s", i, name)
			}
			files[name] = text
		}
	}
	var err error
	if run.dir, err = newPolicyDir(host.TempDir(), g.Cases[0].Layout, files); err != nil {
		return nil, err
	}
	if g.Cases[0].Steps[0].Process != processStart {
		if err := run.start(ctx); err != nil {
			return nil, err
		}
	}
	var results []Result
	for _, c := range g.Cases {
		mismatches, err := run.runCase(ctx, c)
		if err != nil {
			return results, fmt.Errorf("%s: %w", c.Name, err)
		}
		results = append(results, Result{c, mismatches})
	}
	return results, nil
}

// groupRun is one server and what it needs.
type groupRun struct {
	*Runner
	group     *Group
	store     Store
	transport Transport
	redis     *RedisServer
	dir       *policyDir
	process   *process
	// keys is how many keys the store held before the step.
	keys int
}

// launch starts the server and waits until it answers, whether it has a policy or not.
func (g *groupRun) launch(ctx context.Context) error {
	env := g.dir.env()
	for k, v := range g.group.Env {
		env[k] = v
	}
	redisAddr := ""
	if g.redis != nil {
		redisAddr = g.redis.Addr
	}
	for {
		var err error
		if g.process, err = startProcess(g.Target, g.store, redisAddr, env, &g.ports); err != nil {
			return err
		}
		err = g.process.ready(ctx)
		if err == nil || !g.process.lostPort() || ctx.Err() != nil {
			return err
		}
		g.process.stop()
	}
}

func (g *groupRun) start(ctx context.Context) error {
	if err := g.launch(ctx); err != nil {
		return err
	}
	if err := g.awaitGeneration(ctx); err != nil {
		return fmt.Errorf("the server does not load the policy: %w; it printed:\n%s", err, g.process.log.since(0))
	}
	return nil
}

func (g *groupRun) awaitGeneration(ctx context.Context) error {
	return poll(ctx, reloadTimeout, func() error {
		if _, loaded := g.process.answers(ctx, g.dir.generation); !loaded {
			return fmt.Errorf("generation %d is not in effect", g.dir.generation)
		}
		return nil
	})
}

func (g *groupRun) stop() {
	if g.process != nil {
		g.process.stop()
	}
	if g.redis != nil {
		g.redis.Stop()
	}
}

func (g *groupRun) runCase(ctx context.Context, c *Case) ([]string, error) {
	if err := awaitQuietTime(ctx, c); err != nil {
		return nil, err
	}
	var all []string
	for i, s := range c.Steps {
		if s.Wait != "" {
			if err := awaitNextSecond(ctx); err != nil {
				return nil, err
			}
			continue
		}
		if s.skips(g.Target.Column, g.Recorder != nil) {
			continue
		}
		if g.process != nil && g.process.hasExited() && s.Process != processStart {
			if g.Recorder != nil && s.differs() && s.Reference.IsZero() {
				continue // What the recorded server cannot be asked any more.
			}
			return append(all, fmt.Sprintf("step %d: the process has exited; it printed:\n%s",
				i+1, g.process.log.since(0))), nil
		}
		var want any
		if n := s.want(g.Target.Column); n != nil {
			var err error
			if want, err = tree(n); err != nil {
				return nil, fmt.Errorf("step %d: %w", i+1, err)
			}
		}
		if g.Recorder != nil {
			want = g.Recorder.replaced(s, want)
		}
		mismatches, err := g.runStep(ctx, s, want)
		if err != nil {
			return nil, fmt.Errorf("step %d: %w", i+1, err)
		}
		for _, m := range mismatches {
			all = append(all, fmt.Sprintf("step %d: %s", i+1, m))
		}
	}
	return all, nil
}

// awaitQuietTime lets the end of a minute pass, because every window but a second's ends with a minute and a case
// must not straddle that.
func awaitQuietTime(ctx context.Context, c *Case) error {
	need := 3 * time.Second
	if c.disturbs() {
		need = 12 * time.Second
	}
	now := time.Now()
	edge := now.Truncate(time.Minute).Add(time.Minute)
	if edge.Sub(now) > need {
		return nil
	}
	return sleep(ctx, edge.Sub(now)+time.Second)
}

// awaitNextSecond waits well into the next second.
func awaitNextSecond(ctx context.Context) error {
	now := time.Now()
	return sleep(ctx, now.Truncate(time.Second).Add(1200*time.Millisecond).Sub(now))
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (g *groupRun) runStep(ctx context.Context, s *Step, want any) ([]string, error) {
	if g.redis != nil && s.Redis == "" {
		// A case may ask afterwards whether the step left keys behind.
		if keys, err := g.redis.keys(ctx); err == nil {
			g.keys = keys
		}
	}
	when := &span{from: time.Now()}
	var got any
	var err error
	switch {
	case s.Request != nil && g.transport == JSON:
		return g.askJSON(ctx, s, want)
	case s.Request != nil:
		got, err = g.askGRPC(ctx, s)
	case s.RPC != "":
		got = g.callRPC(ctx, s.RPC)
	case s.HTTP != nil:
		got, err = g.askHTTP(ctx, s.HTTP, want)
	case s.Health != nil:
		got = g.askHealth(ctx, *s.Health)
	case s.Files != nil:
		got, err = g.changeFiles(ctx, s, want)
	case s.Process != "":
		got, err = g.disturb(ctx, s.Process, want)
	case s.Redis != "":
		got, err = g.touchRedis(ctx, s.Redis)
	}
	if err != nil {
		return nil, err
	}
	when.to = time.Now()
	return g.judge(s, want, got, when), nil
}

// judge compares an answer or, while recording, keeps it.
func (g *groupRun) judge(s *Step, want, got any, when *span) []string {
	if want != nil {
		diff := compare(want, got, when)
		if len(diff) == 0 || g.Recorder == nil || g.Recorder.has(s) {
			return diff
		}
	}
	if g.Recorder == nil {
		return []string{"no answer is recorded; got " + brief(got)}
	}
	g.Recorder.keep(s, got, when)
	return nil
}
