package memory

import (
	"bytes"
	"cmp"
	"context"
	"math/bits"
	"slices"
	"strings"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// Rows implements store.Usage.
func (s *Store) Rows(ctx context.Context, q store.RowsQuery) ([]store.Sums, error) {
	from, to, err := q.Bounds()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	c := collector{query: &q, sums: make(map[sumName]*store.Sums)}
	if len(q.Owner) > 0 {
		sh := &s.shards[s.shardOf(q.Owner, nil)]
		sh.mu.Lock()
		c.collect(&sh.usage, from, to, s.clock())
		sh.mu.Unlock()
	} else {
		for i := range s.stripes {
			st := &s.stripes[i]
			st.mu.Lock()
			c.collect(&st.usage, from, to, s.clock())
			st.mu.Unlock()
		}
	}
	return c.all()
}

// collector adds up what several parts of the store say.
type collector struct {
	query *store.RowsQuery
	sums  map[sumName]*store.Sums
}

type sumName struct {
	start      limit.Micros
	dimensions string
}

func (c *collector) collect(u *usage, from, to, now limit.Micros) {
	span := c.query.Span()
	kind := kindOf(&store.Total{Span: span, Group: len(c.query.Owner) == 0})
	by := u.owners[string(c.query.Owner)]
	for start := from; start < to; start = span.End(start) {
		t := u.table(c.query.Group, kind, start)
		if t == nil || now >= t.until {
			continue
		}
		for _, r := range t.byDimensions {
			c.add(start, r)
		}
		if by != nil {
			for r := t.ofOwners[by]; r != nil; r = r.next {
				c.add(start, r)
			}
		}
	}
}

func (c *collector) add(start limit.Micros, r *row) {
	if len(c.sums) > store.MaxSums {
		return // all says so
	}
	name := sumName{start, r.dimensions.Value()}
	sums := c.sums[name]
	if sums == nil {
		sums = &store.Sums{Start: start, Dimensions: []byte(name.dimensions)}
		c.sums[name] = sums
	}
	sums.Columns = store.Merge(sums.Columns, r.additions())
}

// additions returns the sums of a row, those of 0 too.
func (r *row) additions() []store.Addition {
	all := make([]store.Addition, 0, len(r.sums))
	for rest := r.columns; rest != 0; rest &= rest - 1 {
		all = append(all, store.Addition{Column: uint8(bits.TrailingZeros64(rest)), Amount: r.sums[len(all)]})
	}
	return all
}

// all returns what was collected.
func (c *collector) all() ([]store.Sums, error) {
	if len(c.sums) > store.MaxSums {
		return nil, store.ErrTooManySums
	}
	var all []store.Sums
	for _, sums := range c.sums {
		if len(sums.Columns) > 0 {
			all = append(all, *sums)
		}
	}
	slices.SortFunc(all, func(a, b store.Sums) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), bytes.Compare(a.Dimensions, b.Dimensions))
	})
	return all, nil
}

// Top implements store.Usage.
func (s *Store) Top(ctx context.Context, q store.TopQuery) ([]store.Ranked, error) {
	if err := q.Validate(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	span := q.Span()
	kind, start := kindOf(&store.Total{Span: span, Ranked: true}), span.Start(q.In)
	var first ranking
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		if t := sh.usage.table(q.Group, kind, start); t != nil && s.clock() < t.until {
			for by, r := range t.ofOwners {
				if total := r.sum(q.Column); total > 0 {
					first = append(first, ranked{by.name, total})
				}
			}
		}
		sh.mu.Unlock()
		first = first.cut(q.Most)
	}
	all := make([]store.Ranked, len(first))
	for i, r := range first {
		all[i] = store.Ranked{Owner: []byte(r.owner), Total: r.total}
	}
	return all, nil
}

// sum returns the sum in a column.
func (r *row) sum(column uint8) int64 {
	if r.columns&(1<<column) == 0 {
		return 0
	}
	return r.sums[r.place(column)]
}

type ranked struct {
	owner string
	total int64
}

type ranking []ranked

// cut sorts a ranking, and leaves the first.
func (all ranking) cut(most int) ranking {
	slices.SortFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.total, a.total), strings.Compare(a.owner, b.owner))
	})
	return all[:min(len(all), most)]
}
