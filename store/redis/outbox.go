package redis

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// An ID begins with the shard of its bucket, in digits, behind which stands a SHA-1 in hex: lua/decide/events.lua.
const shardDigits, idSize = 4, 4 + 40

// idsAtOnce bounds how many events one command is about.
const idsAtOnce = 1000

// Events implements store.Outbox.
func (s *Store) Events(ctx context.Context, since limit.Micros) ([]store.Event, error) {
	return s.eventsIn(ctx, timesSuffix, since)
}

// Undelivered implements store.Outbox.
func (s *Store) Undelivered(ctx context.Context) ([]store.Event, error) {
	return s.eventsIn(ctx, undeliveredSuffix, 0)
}

// eventsIn returns the events of all outboxes that are in a sorted set of theirs. What is dropped meanwhile is passed
// over.
func (s *Store) eventsIn(ctx context.Context, suffix string, since limit.Micros) ([]store.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var sets []*question
	for _, shard := range s.outboxes() {
		key := appendOutboxKey(nil, s.prefix, shard, suffix)
		sets = append(sets, &question{shard: shard, command: func(ctx context.Context) redis.Cmder {
			return redis.NewStringSliceCmd(ctx, "zrangebyscore", key, int64(since), "+inf")
		}})
	}
	if err := s.ask(ctx, sets); err != nil {
		return nil, err
	}
	var lists [][]string
	var asked []*question
	for _, set := range sets {
		ids := set.answer.(*redis.StringSliceCmd).Val()
		for some := range slices.Chunk(ids, idsAtOnce) {
			lists = append(lists, some)
			fields := func(ctx context.Context, args []any) redis.Cmder {
				return redis.NewSliceCmd(ctx, append([]any{"hmget"}, args...)...)
			}
			asked = append(asked, s.aboutEvents(set.shard, eventsSuffix, some, fields))
		}
	}
	if err := s.ask(ctx, asked); err != nil {
		return nil, err
	}
	var all []store.Event
	for i, ids := range lists {
		for j, raw := range asked[i].answer.(*redis.SliceCmd).Val() {
			packed, there := raw.(string)
			if !there {
				continue
			}
			e, err := parseEvent(ids[j], packed)
			if err != nil {
				return nil, err
			}
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b store.Event) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.ID, b.ID)) })
	return all, nil
}

// outboxes returns the shards that have one.
func (s *Store) outboxes() []uint16 {
	if s.cluster == nil {
		return []uint16{0}
	}
	all := make([]uint16, shards)
	for i := range all {
		all[i] = uint16(i)
	}
	return all
}

// aboutEvents asks about events in a key of a shard's outbox. args are the key and the IDs.
func (s *Store) aboutEvents(
	shard uint16, suffix string, ids []string, command func(ctx context.Context, args []any) redis.Cmder,
) *question {
	args := make([]any, 0, 1+len(ids))
	args = append(args, appendOutboxKey(nil, s.prefix, shard, suffix))
	for _, id := range ids {
		args = append(args, id)
	}
	return &question{shard: shard, command: func(ctx context.Context) redis.Cmder { return command(ctx, args) }}
}

// parseEvent reads what lua/decide/events.lua has written.
func parseEvent(id, packed string) (store.Event, error) {
	a := answer{rest: packed}
	if a.byte() != 1 || a.err != nil {
		return store.Event{}, store.ErrCorrupt
	}
	e := store.Event{
		ID: id, Which: int(a.byte()), At: limit.Micros(a.short()), Threshold: a.short(), Used: a.short(), Limit: a.short(),
		Start: limit.Micros(a.short()), End: limit.Micros(a.short()), Label: []byte(a.rest),
	}
	if a.err != nil {
		return store.Event{}, store.ErrCorrupt
	}
	return e, nil
}

// Delivered implements store.Outbox. Where replicas are to have what a step writes, they are to have this.
func (s *Store) Delivered(ctx context.Context, events []store.Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	byShard := make(map[uint16][]string)
	for i := range events {
		id := events[i].ID
		shard, ok := shardOfEvent(id)
		if !ok {
			continue
		}
		if s.cluster == nil {
			shard = 0
		}
		byShard[shard] = append(byShard[shard], id)
	}
	var removals []*question
	for shard, ids := range byShard {
		for some := range slices.Chunk(ids, idsAtOnce) {
			q := s.aboutEvents(shard, undeliveredSuffix, some, func(ctx context.Context, args []any) redis.Cmder {
				return redis.NewIntCmd(ctx, append([]any{"zrem"}, args...)...)
			})
			q.writes = true
			removals = append(removals, q)
		}
	}
	return s.ask(ctx, removals)
}

// shardOfEvent returns the shard in whose outbox an event is in a Cluster; false if it is no ID.
func shardOfEvent(id string) (shard uint16, ok bool) {
	if len(id) != idSize {
		return 0, false
	}
	n, err := strconv.ParseUint(id[:shardDigits], 10, 16)
	return uint16(n), err == nil && n < shards
}

// Deliver implements store.Outbox.
func (s *Store) Deliver(ctx context.Context, who [16]byte, lasts limit.Micros) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if lasts < 0 || int64(lasts) > limit.MaxAmount {
		return false, fmt.Errorf("%w: to deliver for %d µs, want 0…2^53−1", store.ErrInvalid, lasts)
	}
	now := ""
	if s.clock != nil {
		now = strconv.FormatInt(int64(s.clock()), 10)
	}
	key, script := appendOutboxKey(nil, s.prefix, 0, delivererSuffix), inline(read("deliver"))
	q := &question{command: func(ctx context.Context) redis.Cmder {
		return redis.NewIntCmd(ctx, "eval", script, 1, key, who[:], int64(lasts), now)
	}}
	if err := s.ask(ctx, []*question{q}); err != nil {
		return false, err
	}
	is := q.answer.(*redis.IntCmd).Val()
	if is < 0 {
		return false, store.ErrCorrupt
	}
	return is == 1, nil
}
