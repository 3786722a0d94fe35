package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// attempts bounds how often a step is sent again whose windows ended on its way. One that is to bring a calendar of which
// nobody knew is none of these.
const attempts = 5

var errClock = fmt.Errorf("%w: Redis's clock does not stand still", store.ErrUnavailable)

// applyPart completes out by what concerns the ops of p.
func (s *Store) applyPart(ctx context.Context, step *store.Step, p part, out *store.Outcome) error {
	e := &encoding{step: step, part: p, lease: step.Lease, inCluster: s.cluster != nil}
	c, err := s.decide(ctx, e)
	if err != nil {
		return err
	}
	out.Now, out.Note = c.now, append(out.Note, c.note...)
	out.Lease = e.read(answer{rest: c.answer}, c.now, out.Results)
	return nil
}

// decide sends a part until the script decides it.
func (s *Store) decide(ctx context.Context, e *encoding) (*call, error) {
	for tried := 0; tried < attempts; {
		c, err := s.sendPart(ctx, e)
		if err != nil || !c.again {
			return c, err
		}
		learned := false
		for _, name := range c.need {
			if slices.ContainsFunc(e.need, func(known namedCalendar) bool { return known.name == name }) {
				continue
			}
			calendar, err := limit.ParseCalendar(name)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", store.ErrCorrupt, err)
			}
			e.need, learned = append(e.need, namedCalendar{name, calendar}), true
		}
		if !c.more && !learned {
			tried++
		}
	}
	return nil, errClock
}

// longestPause is for how long a step may wait, that a cluster cannot decide while it moves the shard, when the
// shard has moved.
const longestPause = 50 * time.Millisecond

// sendPart sends the step to the node that has its shard, following the shard while a cluster moves it.
func (s *Store) sendPart(ctx context.Context, e *encoding) (*call, error) {
	began := time.Now()
	for pause := time.Millisecond; ; pause = min(2*pause, longestPause) {
		b, err := s.batcher(ctx, e.part.shard)
		if err != nil {
			return nil, err
		}
		c := s.newCall(e, b.now())
		err = b.send(ctx, c)
		var elsewhere *redirection
		if s.cluster == nil && errors.As(err, &elsewhere) {
			return nil, errOneOfMany
		}
		moved := false
		if errors.As(err, &elsewhere) && elsewhere.addr != "" {
			moved = !elsewhere.ask
			e.asked = elsewhere.ask
			c = s.newCall(e, b.now())
			err = s.follow(ctx, elsewhere, b, c)
			e.asked = false
		}
		if s.cluster != nil && (moved || errors.Is(err, store.ErrUnavailable)) {
			s.cluster.ReloadState(ctx) // the shard may have another node by now: the client looks in the background
		}
		if !errors.As(err, &elsewhere) || time.Since(began)+pause > s.timeout {
			return c, err
		}
		select {
		case <-time.After(pause): // the script did not run
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// follow sends one call to the node that another one has named: it has the call's shard, or has taken in
// its keys and not yet the slot.
func (s *Store) follow(ctx context.Context, to *redirection, from *batcher, c *call) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	from.decide(ctx, s.clientOf(to.addr, from.client), to.ask, [][]*call{{c}})
	return c.err
}

// newCall makes a call of the step, as it is to be decided about now.
func (s *Store) newCall(e *encoding, now limit.Micros) *call {
	c := &call{shard: e.part.shard, since: time.Now(), done: make(chan struct{})}
	var few [512]byte
	all := few[:0]
	var ends [16]int
	until := append(ends[:0], 0)
	for i := range e.part.ops {
		all = appendKey(all, s.prefix, e.op(i), now)
		until = append(until, len(all))
	}
	if e.lease != nil {
		all = e.appendLeaseKey(all, s.prefix)
		until = append(until, len(all))
	}
	e.sums = e.sums[:0]
	for _, i := range e.part.rows {
		e.sums = appendSums(e.sums, &e.step.Rows[i], now)
	}
	for i := range e.sums {
		all = e.sums[i].appendKey(all, s.prefix, s.cluster != nil)
		until = append(until, len(all))
	}
	named := len(until) - 1
	if s.cluster != nil {
		tells := false
		for i := range e.part.ops {
			if e.op(i).Manner == limit.Strict {
				for _, suffix := range [...]string{"#holds", "#pending"} {
					all = append(append(all, all[until[i]:until[i+1]]...), suffix...)
					until = append(until, len(all))
				}
			}
			tells = tells || e.tells(e.op(i))
		}
		if tells {
			for _, suffix := range outboxSuffixes {
				all = appendOutboxKey(all, s.prefix, e.part.shard, suffix)
				until = append(until, len(all))
			}
		}
	}
	// One string for all keys is one allocation.
	keys := make([]string, len(until)-1)
	names := string(all)
	for i := range keys {
		keys[i] = names[until[i]:until[i+1]]
	}
	c.keys, c.beside = keys[:named:named], keys[named:]
	c.weight = named - len(e.sums) + rowWeight*len(e.part.rows)
	e.keys, e.now = c.keys, now
	c.step = e.append(make([]byte, 0, stepBytes+opBytes*(len(e.part.ops)+len(e.sums))))
	c.size, c.noted = e.size(), e.lease != nil && e.phase < claim
	return c
}
