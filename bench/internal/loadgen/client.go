package loadgen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A Client asks one rate limit service over a few HTTP/2 connections, without TLS. It is for one goroutine.
type Client struct {
	address     string
	connections []*connection
	timeout     time.Duration
	// withSleep lends a function that sleeps; tests have one on another clock.
	withSleep func(func(sleep func(time.Duration)))
}

// Connect opens the connections and asks one question over each: an address where no rate limit service answers is an
// error here, not a run full of errors. All calls get a deadline of timeout, which the server sees as grpc-timeout,
// as it does with Envoy.
func Connect(ctx context.Context, address string, connections int, timeout time.Duration) (*Client, error) {
	if connections < 1 || timeout <= 0 {
		return nil, fmt.Errorf("%d connections with a timeout of %v: both must be positive", connections, timeout)
	}
	dialer := &net.Dialer{Timeout: timeout}
	var conns []net.Conn
	for range connections {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			for _, conn := range conns {
				err = errors.Join(err, conn.Close())
			}
			return nil, err
		}
		conns = append(conns, conn)
	}
	return newClient(ctx, address, conns, timeout, preciseSleep)
}

func newClient(ctx context.Context, address string, conns []net.Conn, timeout time.Duration,
	withSleep func(func(func(time.Duration)))) (*Client, error) {
	client := &Client{address: address, timeout: timeout, withSleep: withSleep}
	var err error
	for _, conn := range conns {
		connection, failed := newConnection(conn, address, timeout)
		if err = errors.Join(err, failed); failed == nil {
			client.connections = append(client.connections, connection)
		}
	}
	if err == nil {
		err = client.greet(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("no rate limit service answers at %s: %w", address, err), client.Close())
	}
	return client, nil
}

// greet asks over each connection about a domain that nobody has. Any answer of a rate limit service will do, the
// refusal of the domain included.
func (c *Client) greet(ctx context.Context) error {
	mix := Mix{Domain: "bench.greeting", Descriptors: []string{"greeting={key}"}, Keys: 1}
	greeting, err := mix.encode()
	if err != nil {
		return err
	}
	tally := c.drive(ctx, func(int) *assignment {
		walk := &walk{requests: greeting.byKey}
		return &assignment{pacer: walk, pick: walk.pick, callers: 1}
	}, nil)
	switch status.Code(tally.firstError) {
	case codes.OK, codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition:
		return nil
	case codes.Unknown: // a plain error of ours, or what envoyproxy/ratelimit answers to all that it refuses
		if _, answered := status.FromError(tally.firstError); answered {
			return nil
		}
	}
	return tally.firstError
}

// Close closes the connections.
func (c *Client) Close() error {
	var err error
	for _, connection := range c.connections {
		if failed := connection.close(); !errors.Is(failed, net.ErrClosed) {
			err = errors.Join(err, failed)
		}
	}
	return err
}

// Prime asks for every key of the mix once, so that a measurement finds all counters in place rather than creating
// them. It is an error if any call fails.
func (c *Client) Prime(ctx context.Context, mix Mix) error {
	all, err := mix.encode()
	if err != nil {
		return err
	}
	const callersEach = 8
	tally := c.drive(ctx, func(i int) *assignment {
		n := len(c.connections)
		walk := &walk{requests: all.byKey[i*mix.Keys/n : (i+1)*mix.Keys/n]}
		return &assignment{pacer: walk, pick: walk.pick, callers: callersEach}
	}, nil)
	if tally.firstError != nil {
		return fmt.Errorf("%s: asking for every key once: %d of %d calls failed, first: %w",
			c.address, tally.errors, mix.Keys, tally.firstError)
	}
	return ctx.Err()
}

// drive gives each connection its assignment and returns when all are done, with what they saw. A nil assignment
// leaves a connection idle. beat, if there is one, runs beside them and pokes them when requests are due; it ends when
// the context that it is given does.
func (c *Client) drive(ctx context.Context, assign func(connection int) *assignment, beat func(context.Context)) *tally {
	var assignments []*assignment
	for i, connection := range c.connections {
		a := assign(i)
		if a == nil {
			continue
		}
		a.tally, a.done = newTally(), make(chan struct{})
		a.pacer = &interruptible{pacer: a.pacer, interrupted: ctx.Done()}
		assignments = append(assignments, a)
		connection.assign(a)
	}

	beating, stopBeat := context.WithCancel(context.WithoutCancel(ctx))
	beatEnded := make(chan struct{})
	go func() {
		defer close(beatEnded)
		if beat != nil {
			beat(beating)
		}
	}()

	// Calls that are never answered are noticed within a tenth of the timeout after it.
	watch := time.NewTicker(max(time.Millisecond, min(c.timeout/10, 100*time.Millisecond)))
	defer watch.Stop()
	total := newTally()
	for _, a := range assignments {
		for done := false; !done; {
			select {
			case <-a.done:
				done = true
			case <-watch.C:
				c.poke(true)
			}
		}
		total.add(a.tally)
	}
	stopBeat()
	<-beatEnded
	return total
}

func (c *Client) poke(expire bool) {
	now := time.Now()
	for _, connection := range c.connections {
		connection.poke(now, expire)
	}
}

// closed runs a closed loop with this many callers, spread evenly over the connections.
func (c *Client) closed(ctx context.Context, requests *requests, seed uint64, callers int, within bounds) *tally {
	end := time.Now().Add(within.duration)
	var left *atomic.Int64
	if within.requests > 0 {
		left = new(atomic.Int64)
		left.Store(int64(within.requests))
	}
	return c.drive(ctx, func(i int) *assignment {
		share := c.share(callers, i)
		if share == 0 {
			return nil
		}
		pacer := &closedPacer{end: end, left: left}
		return &assignment{pacer: pacer, pick: requests.picker(seed, i).next, callers: share}
	}, nil)
}

// open runs an open loop with at most this many calls on their way, spread evenly over the connections.
func (c *Client) open(
	ctx context.Context, requests *requests, seed uint64, maxInFlight int, plan schedule, within bounds,
) *tally {
	start := time.Now()
	var pacers []*openPacer
	total := c.drive(ctx, func(i int) *assignment {
		used := min(maxInFlight, len(c.connections))
		if i >= used {
			return nil
		}
		pacer := &openPacer{schedule: plan, start: start, within: within, index: uint64(i), step: uint64(used)}
		pacers = append(pacers, pacer)
		return &assignment{pacer: pacer, pick: requests.picker(seed, i).next, callers: c.share(maxInFlight, i)}
	}, func(ctx context.Context) {
		c.withSleep(func(sleep func(time.Duration)) { c.beat(ctx, plan, start, within, sleep) })
	})
	if ctx.Err() == nil {
		for _, pacer := range pacers {
			pacer.giveUp(total)
		}
	}
	return total
}

// beat pokes the connections whenever a request of the schedule is due, and at the end. sleep may return early or late.
func (c *Client) beat(ctx context.Context, plan schedule, start time.Time, within bounds, sleep func(time.Duration)) {
	for next := uint64(0); ctx.Err() == nil; {
		at := start.Add(min(plan.due(next), within.duration))
		for wait := time.Until(at); wait > 0 && ctx.Err() == nil; wait = time.Until(at) {
			sleep(min(wait, 100*time.Millisecond))
		}
		c.poke(false)
		elapsed := time.Since(start)
		if elapsed >= within.duration {
			return
		}
		for plan.due(next) <= elapsed {
			next++
		}
	}
}

// share is how many of so many callers connection i gets.
func (c *Client) share(callers, i int) int {
	n := len(c.connections)
	return (callers + n - 1 - i) / n
}

// An interruptible pacer has nothing due any more once it is interrupted.
type interruptible struct {
	pacer
	interrupted <-chan struct{}
}

func (p *interruptible) next(now time.Time) (time.Time, bool) {
	select {
	case <-p.interrupted:
		return time.Time{}, false
	default:
		return p.pacer.next(now)
	}
}

func (p *interruptible) finished(now time.Time) bool {
	select {
	case <-p.interrupted:
		return true
	default:
		return p.pacer.finished(now)
	}
}
