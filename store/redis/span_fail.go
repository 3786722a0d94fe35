package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// errLate means that a promise has lapsed.
var errLate = fmt.Errorf("%w: a shard did not hear in time that the step is admitted", store.ErrUnavailable)

// abandon takes all promises back that there may be, for as long as ctx lasts in the sight of the caller,
// and else behind its back.
func (sp *span) abandon(ctx context.Context) {
	if !sp.claimed && !sp.prepared {
		return
	}
	step := *sp.step // which is the caller's again when it has its answer
	step.Ops, step.Rows = slices.Clone(step.Ops), nil
	if step.Lease != nil {
		lease := *step.Lease
		step.Lease = &lease
	}
	for i := range step.Ops {
		op := &step.Ops[i]
		op.Bucket, op.Owner = bytes.Clone(op.Bucket), bytes.Clone(op.Owner)
	}
	behind := *sp
	behind.step, behind.out = &step, &store.Outcome{Results: make([]limit.Status, len(step.Ops))}
	var messages []*encoding
	for _, p := range behind.shardsToWrite() {
		if len(p.ops) > 0 && sp.prepared {
			messages = append(messages, behind.encoding(p, forget))
		}
	}
	if sp.opens() && sp.claimed && !sp.writing {
		messages = append(messages, behind.encoding(part{shard: shardOfLease(&step.Lease.ID)}, disclaim))
	}
	done := make(chan struct{})
	if !sp.store.inBackground(func(ctx context.Context) {
		defer close(done)
		_, _ = behind.send(ctx, messages) // what is not reached lapses
	}) {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// partly makes of what some shards have said what is known of a step that others may have written. That of them
// nothing was written does not tell; that the caller's time is over does.
func partly(err error) error {
	for _, ended := range [...]error{context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, ended) {
			return fmt.Errorf("%w, some shards of it: %w: %s", store.ErrUnavailable, ended, err.Error())
		}
	}
	return fmt.Errorf("%w, some shards of it: %s", store.ErrUnavailable, err.Error())
}

// unknown says that err leaves open what was written.
func unknown(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, context.Canceled)
}

// inBackground runs f, which Close waits for. It returns false if the store is closed.
func (s *Store) inBackground(f func(ctx context.Context)) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return false
	}
	s.leaving.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
		defer cancel()
		f(ctx)
	})
	return true
}
