package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// users of the demo, as envoy/llm-reserve.yaml has their keys and policy.yaml their tiers.
var users = [...]string{"ann", "bob", "carol"}

const (
	// patience bounds what takes an instant unless something is broken, or the machine very busy.
	patience = 30 * time.Second
	// refresh is how often ration is asked.
	refresh = 500 * time.Millisecond
)

// view is who looks on: a terminal, or a pipe.
type view interface {
	// begin is told once where everything is, update what is known now, and end what it all came to.
	begin(where addresses)
	update(now state)
	end(final bill)
	// close gives the terminal back; nothing but end comes after it.
	close()
}

// run shows the demo until ctx ends.
func (p *program) run(ctx context.Context, see view) (err error) {
	// Everything that is running ends with this context, and first of all when one of the programs ends by itself.
	running, fail := context.WithCancelCause(context.WithoutCancel(ctx))
	defer fail(nil)
	dir, err := os.MkdirTemp("", "ration-demo")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	stage := &stage{dir: dir, fail: fail}
	defer stage.clear()
	where, err := p.build(ctx, running, stage)
	if ctx.Err() != nil {
		return nil // it was told to end before it had begun
	}
	if err != nil {
		return err
	}
	ration, err := dialRation(where.ration)
	if err != nil {
		return err
	}
	defer ration.close()

	if err := ration.watch(running, fail); err != nil {
		return err
	}
	see.begin(where)
	defer see.close()
	if p.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.For)
		defer cancel()
	}
	traffic := beginTraffic(running, where.envoy)
	if err := show(ctx, running, ration, traffic, see); err != nil {
		return err
	}
	final, err := settle(running, ration, traffic, where)
	if err != nil {
		return err
	}
	see.close()
	if final != nil {
		see.end(*final)
	}
	return nil
}

// show keeps the view up to date until ctx ends, which is well, or what is running does.
func show(ctx, running context.Context, ration *ration, traffic *traffic, see view) error {
	began := time.Now()
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for {
		now, err := ration.ask(running)
		if err != nil {
			return orCause(running, fmt.Errorf("ask ration for usage: %w", err))
		}
		now.elapsed, now.ending, now.trouble = time.Since(began), ctx.Err() != nil, traffic.trouble()
		see.update(now)
		if now.ending {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-running.Done():
			return context.Cause(running)
		case <-tick.C:
		}
	}
}

// settle lets calls under way end, so that what they have used is known, and draws up the bill. Who is in a hurry does
// without it by another signal.
func settle(running context.Context, ration *ration, traffic *traffic, where addresses) (*bill, error) {
	hurry, stop := untilSignal()
	defer stop()
	ctx, cancel := context.WithTimeout(hurry, patience)
	defer cancel()
	defer context.AfterFunc(running, cancel)()
	traffic.stop(ctx)
	final, err := drawUp(ctx, ration, traffic, where.fakellm)
	if hurry.Err() != nil {
		return nil, nil
	}
	if err != nil {
		return nil, orCause(running, fmt.Errorf("draw up the bill: %w", err))
	}
	return &final, nil
}

// orCause is why running has ended, if it has, and err otherwise: a program that has ended explains why a call failed.
func orCause(running context.Context, err error) error {
	// That a connection was refused may be seen before the process is known to have ended.
	select {
	case <-running.Done():
		return context.Cause(running)
	case <-time.After(time.Second):
		return err
	}
}
