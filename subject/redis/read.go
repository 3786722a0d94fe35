package redis

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/subject"
)

// List implements subject.Directory.
func (d *Directory) List(ctx context.Context, domain, after string, n int) ([]subject.Subject, error) {
	if err := subject.ValidatePage(n, ""); err != nil {
		return nil, err
	}
	page := []subject.Subject{}
	if domain == "" || len(domain) > subject.MaxName {
		return page, nil
	}
	start := "-"
	if after != "" {
		start = "(" + after
	}
	all := d.merge(everyShard(), n, start, func(a, b string) bool { return a < b },
		func(pipe redis.Pipeliner, shard uint8, start string, count int) *redis.StringSliceCmd {
			return pipe.ZRangeArgs(ctx, redis.ZRangeArgs{
				Key: d.names(shard, domain), Start: start, Stop: "+", ByLex: true, Count: int64(count),
			})
		})
	for len(page) < n {
		var refs []subject.Ref
		for len(refs) < n-len(page) {
			name, ok, err := all.next(ctx)
			if err != nil {
				return nil, err
			}
			if !ok {
				break
			}
			refs = append(refs, subject.Ref{Domain: domain, Name: name})
		}
		if len(refs) == 0 {
			break
		}
		found, err := d.findAll(ctx, refs)
		if err != nil {
			return nil, err
		}
		page = append(page, found...)
	}
	return page, nil
}

// findAll returns those subjects that there are.
func (d *Directory) findAll(ctx context.Context, refs []subject.Ref) ([]subject.Subject, error) {
	pipe := d.client.Pipeline()
	records := make([]*redis.StringCmd, len(refs))
	for i, of := range refs {
		records[i] = pipe.HGet(ctx, d.records(of.Shard()), of.Encode())
	}
	_, _ = pipe.Exec(ctx) // each says by itself what went wrong
	var all []subject.Subject
	for i, cmd := range records {
		record, err := cmd.Result()
		if errors.Is(err, redis.Nil) {
			continue // it was deleted just now
		}
		if err != nil {
			return nil, explain(err)
		}
		s, err := subject.ReadRecord(refs[i], record)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// Audit implements subject.Directory.
func (d *Directory) Audit(ctx context.Context, of subject.Ref, before string, n int) ([]subject.Row, error) {
	if err := subject.ValidateAudit(of, n, before); err != nil {
		return nil, err
	}
	shards := everyShard()
	if of.Name != "" {
		shards = []uint8{of.Shard()}
	}
	start := "+"
	if before != "" {
		start = "(" + before
	}
	all := d.merge(shards, n, start, func(a, b string) bool { return a > b },
		func(pipe redis.Pipeliner, shard uint8, start string, count int) *redis.StringSliceCmd {
			return pipe.ZRangeArgs(ctx, redis.ZRangeArgs{
				Key: d.audit(shard), Start: start, Stop: "-", ByLex: true, Rev: true, Count: int64(count),
			})
		})
	page := []subject.Row{}
	for len(page) < n {
		text, ok, err := all.next(ctx)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		row, err := subject.ReadRow(text)
		if err != nil {
			return nil, err
		}
		if row.Concerns(of) {
			page = append(page, row)
		}
	}
	return page, nil
}

func everyShard() []uint8 {
	all := make([]uint8, subject.Shards)
	for i := range all {
		all[i] = uint8(i)
	}
	return all
}

// fetch asks a shard for the next few members behind start, in order.
type fetch func(pipe redis.Pipeliner, shard uint8, start string, count int) *redis.StringSliceCmd

// merging are the sorted sets of several shards, read as one, a few members at a time.
type merging struct {
	d       *Directory
	sources []*source
	fetch   fetch
	before  func(a, b string) bool
}

// source is what was read of one shard, and not yet taken.
type source struct {
	shard  uint8
	queue  []string
	start  string // where to go on, as Redis wants it
	count  int    // how many to ask for
	ending bool   // there is nothing behind the queue
}

// fewest is how many members of a shard are asked for at first.
const fewest = 8

// merge begins to read the shards from start, as Redis wants it, of which about n are wanted in all.
func (d *Directory) merge(shards []uint8, n int, start string, before func(a, b string) bool, fetch fetch) *merging {
	m := &merging{d: d, fetch: fetch, before: before}
	for _, shard := range shards {
		m.sources = append(m.sources, &source{shard: shard, start: start, count: n/len(shards) + fewest})
	}
	return m
}

// next returns the next of all.
func (m *merging) next(ctx context.Context) (member string, ok bool, err error) {
	if err := m.fill(ctx); err != nil {
		return "", false, err
	}
	var first *source
	for _, s := range m.sources {
		if len(s.queue) > 0 && (first == nil || m.before(s.queue[0], first.queue[0])) {
			first = s
		}
	}
	if first == nil {
		return "", false, nil
	}
	member, first.queue = first.queue[0], first.queue[1:]
	return member, true, nil
}

// fill asks all shards at once that have nothing left and are not at their end.
func (m *merging) fill(ctx context.Context) error {
	var empty []*source
	for _, s := range m.sources {
		if len(s.queue) == 0 && !s.ending {
			empty = append(empty, s)
		}
	}
	if len(empty) == 0 {
		return nil
	}
	pipe := m.d.client.Pipeline()
	found := make([]*redis.StringSliceCmd, len(empty))
	for i, s := range empty {
		found[i] = m.fetch(pipe, s.shard, s.start, s.count)
	}
	_, _ = pipe.Exec(ctx) // each says by itself what went wrong
	for i, s := range empty {
		members, err := found[i].Result()
		if err != nil {
			return explain(err)
		}
		s.queue, s.ending = members, len(members) < s.count
		if !s.ending {
			s.start = "(" + members[len(members)-1]
			s.count *= 2
		}
	}
	return nil
}
