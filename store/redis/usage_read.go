package redis

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

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
func (s *Store) ownerRows(
	ctx context.Context, q *store.RowsQuery, from, to limit.Micros, into map[sumName][]store.Addition,
) error {
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
func (s *Store) groupRows(
	ctx context.Context, q *store.RowsQuery, from, to limit.Micros, into map[sumName][]store.Addition,
) error {
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
	key := appendUsageKey(nil, s.prefix, shard, group, owner, start, suffix)
	return &question{shard: shard, command: func(ctx context.Context) redis.Cmder {
		return redis.NewMapStringStringCmd(ctx, "hgetall", key)
	}}
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
	for field, packed := range q.answer.(*redis.MapStringStringCmd).Val() {
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
	count := min(firstAtOnce, q.Most)
	open := make([]*question, shards)
	for i := range open {
		shard := uint16(i)
		key := appendUsageKey(nil, s.prefix, shard, q.Group, nil, start, suffix)
		open[i] = &question{shard: shard, command: func(ctx context.Context) redis.Cmder {
			return redis.NewZSliceCmd(ctx, "zrange", key, 0, count-1, "withscores")
		}}
	}
	lists := make([][]store.Ranked, shards)
	for ; ; count = min(4*count, q.Most) {
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
	for _, m := range q.answer.(*redis.ZSliceCmd).Val() {
		if m.Score < 0 {
			all = append(all, store.Ranked{Owner: []byte(m.Member.(string)), Total: int64(-m.Score)})
		}
	}
	return all
}
