package redis

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/store"
)

// question is a command about one key, and its answer. It may be asked again where the answer was that the shard has
// moved.
type question struct {
	shard   uint16
	command func(context.Context) redis.Cmder
	writes  bool // what replicas may have to have
	answer  redis.Cmder
}

func (q *question) ask(ctx context.Context, pipe redis.Pipeliner) {
	q.answer = q.command(ctx)
	_ = pipe.Process(ctx, q.answer)
}

// questionsAtOnce bounds how many go in one pipeline: Redis answers them one after the other, with decisions in between
// those of different pipelines only.
const questionsAtOnce = 128

// ask sends questions to the nodes that have their shards, and follows shards that move meanwhile.
func (s *Store) ask(ctx context.Context, questions []*question) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, longestPause) {
		nodes := make(map[*redis.Client][]*question)
		for _, q := range questions {
			node, err := s.nodeOf(ctx, q.shard)
			if err != nil {
				return err
			}
			nodes[node] = append(nodes[node], q)
		}
		var moved []*question
		var mu sync.Mutex
		var all sync.WaitGroup
		errs := make([]error, 0, len(nodes))
		for node, list := range nodes {
			all.Go(func() {
				again, err := s.askNode(ctx, node, list)
				mu.Lock()
				defer mu.Unlock()
				moved, errs = append(moved, again...), append(errs, err)
			})
		}
		all.Wait()
		if err := errors.Join(errs...); err != nil || len(moved) == 0 {
			return err
		}
		questions = moved
		s.cluster.ReloadState(ctx)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return explain(ctx.Err())
		}
	}
}

// nodeOf returns the node that has a shard.
func (s *Store) nodeOf(ctx context.Context, shard uint16) (*redis.Client, error) {
	if s.single != nil {
		return s.single.client, nil
	}
	node, err := s.cluster.MasterForKey(ctx, string(appendTag(nil, shard)))
	if err != nil {
		return nil, explain(err)
	}
	return node, nil
}

// askNode sends questions to a node. It returns those whose shards are elsewhere by now.
func (s *Store) askNode(ctx context.Context, node *redis.Client, questions []*question) (moved []*question, err error) {
	for list := range slices.Chunk(questions, questionsAtOnce) {
		pipe := node.Pipeline()
		for _, q := range list {
			q.ask(ctx, pipe)
		}
		if err := s.exec(ctx, pipe, list...); err != nil {
			return nil, err
		}
		for _, q := range list {
			err := q.answer.Err()
			if err == nil {
				continue
			}
			if redis.HasErrorPrefix(err, "WRONGTYPE") {
				return nil, store.ErrCorrupt
			}
			var to *redirection
			err = explain(err)
			switch {
			case !errors.As(err, &to):
				return nil, err
			case s.cluster == nil:
				return nil, errOneOfMany
			case to.ask:
				if err := s.askElsewhere(ctx, s.clientOf(to.addr, node), q); err != nil {
					return nil, err
				}
			default:
				moved = append(moved, q)
			}
		}
	}
	return moved, nil
}

// askElsewhere asks a node that takes the shard in.
func (s *Store) askElsewhere(ctx context.Context, node *redis.Client, q *question) error {
	pipe := node.Pipeline()
	pipe.Do(ctx, "asking")
	q.ask(ctx, pipe)
	if err := s.exec(ctx, pipe, q); err != nil {
		return err
	}
	if err := q.answer.Err(); err != nil {
		return explain(err)
	}
	return nil
}

// exec sends what is in a pipeline. Of each question its answer says whether it failed; the error is that too few
// replicas have what was written.
func (s *Store) exec(ctx context.Context, pipe redis.Pipeliner, questions ...*question) error {
	var wait *redis.Cmd
	if s.replicas > 0 && slices.ContainsFunc(questions, func(q *question) bool { return q.writes }) {
		wait = pipe.Do(ctx, "wait", s.replicas, (s.timeout / 2).Milliseconds())
	}
	_, _ = pipe.Exec(ctx)
	if wait == nil {
		return nil
	}
	n, err := wait.Int()
	if err == nil && n < s.replicas {
		err = errReplicas
	}
	if err != nil {
		return explain(err)
	}
	return nil
}
