package redis

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// question is a command that reads the fields of a hash, or the first of a sorted set; and its answer.
type question struct {
	shard uint16
	key   []byte
	first int // how many of a sorted set; 0 for a hash

	fields *redis.MapStringStringCmd
	scores *redis.ZSliceCmd
}

// command makes the command, and keeps it for its answer.
func (q *question) command(ctx context.Context) redis.Cmder {
	if q.first > 0 {
		q.scores = redis.NewZSliceCmd(ctx, "zrange", q.key, 0, q.first-1, "withscores")
		return q.scores
	}
	q.fields = redis.NewMapStringStringCmd(ctx, "hgetall", q.key)
	return q.fields
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
			return ctx.Err()
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
		commands := make([]redis.Cmder, len(list))
		for i, q := range list {
			commands[i] = q.command(ctx)
			_ = pipe.Process(ctx, commands[i])
		}
		_, _ = pipe.Exec(ctx)
		for i, q := range list {
			err := commands[i].Err()
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
	command := q.command(ctx)
	_ = pipe.Process(ctx, command)
	_, _ = pipe.Exec(ctx)
	if err := command.Err(); err != nil {
		return explain(err)
	}
	return nil
}

// Rows implements store.Usage. Those of a group lie in all shards; each of them is asked.
func (s *Store) Rows(ctx context.Context, q store.RowsQuery) ([]store.Sums, error) {
	from, to, err := q.Bounds()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	sums := make(map[sumName][]store.Addition)
	if len(q.Owner) > 0 {
		err = s.ownerRows(ctx, &q, from, to, sums)
	} else {
		err = s.groupRows(ctx, &q, from, to, sums)
	}
	if err != nil {
		return nil, err
	}
	var all []store.Sums
	for name, columns := range sums {
		if len(columns) > 0 {
			all = append(all, store.Sums{Start: name.start, Dimensions: []byte(name.dimensions), Columns: columns})
		}
	}
	slices.SortFunc(all, func(a, b store.Sums) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), bytes.Compare(a.Dimensions, b.Dimensions))
	})
	return all, nil
}

type sumName struct {
	start      limit.Micros
	dimensions string
}

// ownerRows reads the pages of an owner.
func (s *Store) ownerRows(ctx context.Context, q *store.RowsQuery, from, to limit.Micros, into map[sumName][]store.Addition) error {
	span, shard := q.Span(), shardOfName(q.Owner)
	var questions []*question
	var pages []limit.Micros
	for start := from; start < to; start = pageEnd(span, pages[len(pages)-1]) {
		page, _ := page(span, start)
		pages = append(pages, page)
		questions = append(questions, s.allOf(shard, q.Group, q.Owner, page, usageSuffix(span)))
	}
	if err := s.ask(ctx, questions); err != nil {
		return err
	}
	length := span.End(0)
	for i, q := range questions {
		err := q.each(func(field string, columns []store.Addition) error {
			if field == "" {
				return store.ErrCorrupt
			}
			start := pages[i] + limit.Micros(field[0])*length
			if start < from || start >= to {
				return nil
			}
			return add(into, sumName{start, field[1:]}, columns)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// groupRows reads the periods of a group, one after the other, each in all shards.
func (s *Store) groupRows(ctx context.Context, q *store.RowsQuery, from, to limit.Micros, into map[sumName][]store.Addition) error {
	span := q.Span()
	for start := from; start < to; start = span.End(start) {
		questions := make([]*question, shards)
		for shard := range uint16(shards) {
			questions[shard] = s.allOf(shard, q.Group, nil, start, usageSuffix(span))
		}
		if err := s.ask(ctx, questions); err != nil {
			return err
		}
		for _, q := range questions {
			err := q.each(func(field string, columns []store.Addition) error {
				return add(into, sumName{start, field}, columns)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// allOf asks for a hash.
func (s *Store) allOf(shard uint16, group, owner []byte, start limit.Micros, suffix string) *question {
	return &question{shard: shard, key: appendUsageKey(nil, s.prefix, shard, group, owner, start, suffix)}
}

// add adds columns to those of a sum.
func add(into map[sumName][]store.Addition, name sumName, columns []store.Addition) error {
	known, ok := into[name]
	if !ok && len(into) == store.MaxSums {
		return store.ErrTooManySums
	}
	into[name] = store.Merge(known, columns)
	return nil
}

// columnSize is that of a column and its sum: lua/decide/rows.lua.
const columnSize = 1 + shortSize

// each calls f for every field of a hash.
func (q *question) each(f func(field string, columns []store.Addition) error) error {
	for field, packed := range q.fields.Val() {
		raw := answer{rest: packed}
		var columns []store.Addition
		for len(raw.rest) >= columnSize {
			columns = append(columns, store.Addition{Column: raw.byte(), Amount: raw.short()})
		}
		if len(raw.rest) > 0 {
			return store.ErrCorrupt
		}
		slices.SortFunc(columns, func(a, b store.Addition) int { return cmp.Compare(a.Column, b.Column) })
		if err := f(field, columns); err != nil {
			return err
		}
	}
	return nil
}

// firstAtOnce is how many owners each shard is asked for at first.
const firstAtOnce = 8

// Top implements store.Usage. Each shard is asked for its first few, and then those for more whose last one is among
// the first of all.
func (s *Store) Top(ctx context.Context, q store.TopQuery) ([]store.Ranked, error) {
	if err := q.Validate(); err != nil {
		return nil, err
	}
	span := q.Span()
	start, suffix := span.Start(q.In), topSuffix(span, q.Column)
	open := make([]*question, shards)
	for i := range open {
		shard := uint16(i)
		open[i] = &question{shard: shard, key: appendUsageKey(nil, s.prefix, shard, q.Group, nil, start, suffix)}
	}
	lists := make([][]store.Ranked, shards)
	for count := min(firstAtOnce, q.Most); ; count = min(4*count, q.Most) {
		for _, asked := range open {
			asked.first = count
		}
		if err := s.ask(ctx, open); err != nil {
			return nil, err
		}
		for _, asked := range open {
			lists[asked.shard] = asked.ranking()
		}
		first := slices.Concat(lists...)
		slices.SortFunc(first, inOrder)
		first = first[:min(len(first), q.Most)]
		open = slices.DeleteFunc(open, func(asked *question) bool {
			list := lists[asked.shard]
			return len(list) < count || count == q.Most || len(first) == q.Most && inOrder(list[count-1], first[q.Most-1]) > 0
		})
		if len(open) == 0 {
			return first, nil
		}
	}
}

// inOrder orders those who have used most.
func inOrder(a, b store.Ranked) int {
	return cmp.Or(cmp.Compare(b.Total, a.Total), bytes.Compare(a.Owner, b.Owner))
}

// ranking returns those of a sorted set who have used something.
func (q *question) ranking() (all []store.Ranked) {
	for _, m := range q.scores.Val() {
		if m.Score < 0 {
			all = append(all, store.Ranked{Owner: []byte(m.Member.(string)), Total: int64(-m.Score)})
		}
	}
	return all
}
