package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// decide has a node decide groups of calls, each in one run of the script and all in one round trip,
// and hands out the answers. asking says that the node has taken the keys in, but not yet their slot.
//
// What is sent again here has not run before: it cannot be written twice.
func (b *batcher) decide(ctx context.Context, node *redis.Client, asking bool, groups [][]*call) {
	verb, what := "evalsha", script().Hash()
	for len(groups) > 0 {
		commands := make([]*redis.StringCmd, len(groups))
		for i, group := range groups {
			commands[i] = b.command(ctx, verb, what, group)
		}
		b.exec(ctx, node, asking, commands)
		var again [][]*call
		for i, cmd := range commands {
			switch err := cmd.Err(); {
			case redis.HasErrorPrefix(err, "NOSCRIPT"): // Redis keeps what it was sent whole
				verb, what = "eval", source()
				again = append(again, groups[i])
			case redis.IsTryAgainError(err) && len(groups[i]) > 1: // there are keys here and elsewhere
				for _, c := range groups[i] {
					again = append(again, []*call{c})
				}
			default:
				b.deliver(groups[i], cmd)
			}
		}
		groups = again
	}
}

// command is one run of the script. A test's clock stands still from there to the answer.
func (b *batcher) command(ctx context.Context, verb, what string, calls []*call) *redis.StringCmd {
	keys, size := 0, 0
	for _, c := range calls {
		keys += len(c.keys) + len(c.beside)
		size += len(c.step)
	}
	args := make([]any, 0, keys+5)
	args = append(args, verb, what, keys)
	steps := make([]byte, 0, size)
	for _, c := range calls {
		for i := range c.keys {
			args = append(args, &c.keys[i]) // a pointer is boxed without an allocation
		}
		steps = append(steps, c.step...)
	}
	for _, c := range calls {
		for i := range c.beside {
			args = append(args, &c.beside[i])
		}
	}
	now := ""
	if b.fakeNow != nil {
		now = fmt.Sprint(int64(b.fakeNow()))
	}
	args = append(args, steps, now)
	cmd := redis.NewStringCmd(ctx, args...)
	cmd.SetFirstKeyPos(3)
	return cmd
}

// exec runs commands on one connection, in one round trip, and leaves in each its error. Where replicas
// are to have what was written, it waits for them behind the last one, on the same connection: that is
// what WAIT counts from.
func (b *batcher) exec(ctx context.Context, node *redis.Client, asking bool, commands []*redis.StringCmd) {
	if len(commands) == 1 && !asking && b.replicas == 0 {
		_ = node.Process(ctx, commands[0])
		return
	}
	pipe := node.Pipeline()
	for _, cmd := range commands {
		if asking { // which is for the next command only
			pipe.Do(ctx, "asking")
		}
		_ = pipe.Process(ctx, cmd)
	}
	var wait *redis.Cmd
	if b.replicas > 0 {
		wait = pipe.Do(ctx, "wait", b.replicas, (b.timeout / 2).Milliseconds())
	}
	_, _ = pipe.Exec(ctx)
	if wait == nil {
		return
	}
	n, err := wait.Int64()
	if err == nil && n < int64(b.replicas) {
		err = errReplicas
	}
	for _, cmd := range commands {
		if err != nil && cmd.Err() == nil {
			cmd.SetErr(err)
		}
	}
}

var errReplicas = errors.New("it is written, but too few replicas have it")

// deliver hands the answer of one run of the script to the calls that it decided.
func (b *batcher) deliver(calls []*call, cmd *redis.StringCmd) {
	reply, err := cmd.Result()
	if err != nil {
		err = explain(err)
		for _, c := range calls {
			c.finish(err)
		}
		return
	}
	a := answer{rest: reply}
	now := limit.Micros(a.number())
	if a.err == nil {
		b.ahead.Store(int64(now - limit.At(time.Now())))
	}
	for _, c := range calls {
		c.now = now
		c.finish(a.readStep(c))
	}
}

// explain says what an error of the client means for the step.
func explain(err error) error {
	if addr, ask := redis.IsAskError(err); ask {
		return &redirection{addr: addr, ask: true, cause: err}
	}
	if addr, moved := redis.IsMovedError(err); moved {
		return &redirection{addr: addr, cause: err}
	}
	if redis.IsTryAgainError(err) {
		return &redirection{cause: err}
	}
	if redis.IsOOMError(err) {
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	}
	if redis.HasErrorPrefix(err, "CROSSSLOT") { // in a Cluster that the store's URL calls one no step asks for such keys
		return errOneOfMany
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// errOneOfMany means that the store's URL names a single Redis which is a node of a Cluster.
var errOneOfMany = fmt.Errorf("%w: this Redis is one node of a Cluster: say so in the store's URL, by redis-cluster:// in the place "+
	"of what it begins with", store.ErrUnavailable)

// redirection says that a cluster is moving the shard: the script did not run, and will elsewhere
// or later.
type redirection struct {
	addr  string // with ask: of the node to ask
	ask   bool
	cause error
}

func (r *redirection) Error() string {
	return fmt.Sprintf("%v: the cluster is moving this key: %v", store.ErrUnavailable, r.cause)
}

func (r *redirection) Unwrap() error { return store.ErrUnavailable }
