package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rationhq/ration/bench/internal/cputime"
	"github.com/rationhq/ration/bench/internal/loadgen"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// A waking is how long it takes until a waiter has its turn when a place has come free: one waits for one place, which the call
// before gives back by Settle.
type waking struct {
	Contestant string `json:"contestant"`
	// Replicas is how many processes there are. Where there are two, one is told of the end, and the waiter asks the other.
	Replicas int `json:"replicas"`
	Turns    int `json:"turns"`
	// SinceSent is the time from sending Settle to the waiter's answer, and SinceSettled from the answer to Settle: 0 where
	// the waiter's came first.
	SinceSent    percentiles `json:"since_sent_us"`
	SinceSettled percentiles `json:"since_settled_us"`
}

// percentiles are of times in µs.
type percentiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

func percentilesOf(times []time.Duration) percentiles {
	sorted := slices.Sorted(slices.Values(times))
	at := func(share float64) float64 {
		return float64(sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]) / float64(time.Microsecond)
	}
	return percentiles{P50: at(0.5), P99: at(0.99)}
}

// A crowd is what many who wait take, each second.
type crowd struct {
	Contestant string `json:"contestant"`
	Lane       string `json:"lane"`
	Waiters    int    `json:"waiters"`
	// Turns are those that waiters had: whoever had one comes again.
	Turns float64 `json:"turns"`
	// Scripts and Commands are those that Redis has run; what scripts call are commands too.
	Scripts  float64 `json:"scripts,omitempty"`
	Commands float64 `json:"commands,omitempty"`
	// ServerCores and RedisCores are seconds of CPU time.
	ServerCores float64 `json:"server_cores"`
	RedisCores  float64 `json:"redis_cores,omitempty"`
}

// measureTurns measures what waiting takes, of all contestants that have lanes, one after the other.
func (c *comparison) measureTurns(ctx context.Context) error {
	for _, contestant := range c.contestants {
		if c.pace.Waiters == 0 || !contestant.plays(lanes) || !contestant.counts() {
			continue
		}
		if err := c.measureTurnsOf(ctx, contestant); err != nil {
			return fmt.Errorf("lanes, contestant %s: %w", contestant.Name, err)
		}
	}
	return nil
}

func (c *comparison) measureTurnsOf(ctx context.Context, contestant contestant) error {
	first, err := c.launcher.start(ctx, contestant, nil)
	if err != nil {
		return err
	}
	defer first.stop()
	if err := c.measureWaking(ctx, first); err != nil {
		return err
	}
	for _, lane := range []string{singleLane, drainedLane} {
		measured, err := measureCrowd(ctx, first, lane, c.pace)
		if err != nil {
			return fmt.Errorf("waiting in %s: %w", lane, err)
		}
		c.crowds = append(c.crowds, measured)
		fmt.Fprintf(c.progress, "lanes  %s  %d wait in %s: %.1f turns/s, Redis %.0f scripts/s and %.0f commands/s\n",
			contestant.Name, measured.Waiters, lane, measured.Turns, measured.Scripts, measured.Commands)
	}
	if !contestant.needsRedis() {
		return nil
	}
	second, err := c.launcher.replica(ctx, first)
	if err != nil {
		return err
	}
	defer second.stop()
	return c.measureWaking(ctx, first, second)
}

// settleDown is how long a waiter has for taking its place in line before a place comes free.
const settleDown = 20 * time.Millisecond

// measureWaking measures how fast a waiter at the last of the replicas has its turn when the first one is told of an end.
func (c *comparison) measureWaking(ctx context.Context, replicas ...*instance) error {
	told, err := connect(replicas[0], 1)
	if err != nil {
		return err
	}
	defer told.close()
	asked, err := connect(replicas[len(replicas)-1], 1)
	if err != nil {
		return err
	}
	defer asked.close()
	measured := waking{Contestant: replicas[0].Name, Replicas: len(replicas), Turns: max(1, 3*c.pace.Waiters/10)}
	holder, err := told.turn(ctx, 0, singleLane, nil)
	if err != nil {
		return err
	}
	var sinceSent, sinceSettled []time.Duration
	for n := range measured.Turns {
		type had struct {
			id  string
			at  time.Time
			err error
		}
		waiter := make(chan had, 1)
		go func() {
			id, err := asked.turn(ctx, n+1, singleLane, nil)
			waiter <- had{id, time.Now(), err}
		}()
		time.Sleep(settleDown)
		sent := time.Now()
		if err := told.settle(ctx, holder); err != nil {
			return err
		}
		settled := time.Now()
		next := <-waiter
		if next.err != nil {
			return next.err
		}
		holder = next.id
		sinceSent = append(sinceSent, next.at.Sub(sent))
		sinceSettled = append(sinceSettled, max(0, next.at.Sub(settled)))
	}
	measured.SinceSent, measured.SinceSettled = percentilesOf(sinceSent), percentilesOf(sinceSettled)
	c.wakings = append(c.wakings, measured)
	fmt.Fprintf(c.progress, "lanes  %s  %s: a turn %.0f µs after an end, p99 %.0f µs\n", measured.Contestant,
		counted(measured.Replicas, "replica"), measured.SinceSettled.P50, measured.SinceSettled.P99)
	return told.settle(ctx, holder)
}

// crowdConnections are those that a crowd comes over: servers bound how many streams one of them has.
const crowdConnections = 16

// measureCrowd has many wait in a lane, all different users, and measures for as long as two measurements take. In the lane of one
// place nobody has a turn; who has had one in the other comes again.
func measureCrowd(ctx context.Context, i *instance, lane string, pace pace) (crowd, error) {
	c, err := connect(i, crowdConnections)
	if err != nil {
		return crowd{}, err
	}
	defer c.close()
	measured := crowd{Contestant: i.Name, Lane: lane, Waiters: pace.Waiters}
	if lane == singleLane {
		holder, err := c.turn(ctx, 0, lane, nil)
		if err != nil {
			return crowd{}, err
		}
		defer func() { _ = c.settle(context.WithoutCancel(ctx), holder) }()
	}
	waitCtx, leave := context.WithCancelCause(ctx)
	var all, heard sync.WaitGroup
	defer all.Wait()
	defer leave(nil)
	var turns atomic.Int64
	heard.Add(pace.Waiters)
	for n := range pace.Waiters {
		all.Go(func() {
			arrived := sync.OnceFunc(heard.Done)
			defer arrived()
			for waitCtx.Err() == nil {
				id, err := c.turn(waitCtx, n+1, lane, arrived)
				if err == nil {
					turns.Add(1)
					arrived()
					err = c.settle(waitCtx, id)
				}
				if err != nil && waitCtx.Err() == nil {
					leave(err)
				}
			}
		})
	}
	heard.Wait()
	before, err := i.work(ctx)
	if err != nil {
		return crowd{}, err
	}
	had, began := turns.Load(), time.Now()
	select {
	case <-time.After(2 * pace.Duration):
	case <-waitCtx.Done():
		return crowd{}, context.Cause(waitCtx)
	}
	seconds, had := time.Since(began).Seconds(), turns.Load()-had
	after, err := i.work(ctx)
	if err != nil {
		return crowd{}, err
	}
	measured.Turns = float64(had) / seconds
	measured.Scripts = float64(after.scripts-before.scripts) / seconds
	measured.Commands = float64(after.commands-before.commands) / seconds
	measured.ServerCores = (after.server - before.server).Seconds() / seconds
	measured.RedisCores = (after.redis - before.redis).Seconds() / seconds
	if lane == singleLane && had > 0 {
		return crowd{}, fmt.Errorf("%d had a turn while the only place was taken", had)
	}
	return measured, nil
}

// work is what an instance has done since it was started.
type work struct {
	server, redis     time.Duration // CPU time
	scripts, commands int64         // of its Redis
}

func (i *instance) work(ctx context.Context) (done work, err error) {
	if done.server, err = cputime.Process(i.server.pid())(ctx); err != nil || i.meter == nil {
		return done, err
	}
	if done.redis, err = cputime.Redis(i.meter)(ctx); err != nil {
		return done, err
	}
	info, err := i.meter.Info(ctx, "commandstats").Result()
	if err != nil {
		return done, err
	}
	done.scripts, done.commands, err = parseCommands(info)
	return done, err
}

// parseCommands adds up INFO commandstats: how many scripts Redis has run, and how many commands in all, those that scripts call
// with them. What this program asks itself does not count.
func parseCommands(info string) (scripts, commands int64, err error) {
	for line := range strings.Lines(info) {
		name, figures, found := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "cmdstat_"), ":calls=")
		if !found || name == "info" {
			continue
		}
		text, _, _ := strings.Cut(figures, ",")
		calls, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("INFO commandstats, %s: %w", name, err)
		}
		commands += calls
		if name == "evalsha" || name == "eval" {
			scripts += calls
		}
	}
	return scripts, commands, nil
}

// callers are users of the suite lanes who call one server.
type callers struct {
	connections []*grpc.ClientConn
	services    []rationv1.AccountingServiceClient
}

func connect(to *instance, connections int) (*callers, error) {
	c := &callers{}
	for range connections {
		connection, err := grpc.NewClient("passthrough:///"+to.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			c.close()
			return nil, err
		}
		c.connections = append(c.connections, connection)
		c.services = append(c.services, rationv1.NewAccountingServiceClient(connection))
	}
	return c, nil
}

func (c *callers) close() {
	for _, connection := range c.connections {
		_ = connection.Close()
	}
}

// turn has a user wait for a turn, and returns the reservation. heard, if given, is called when it hears how it stands.
func (c *callers) turn(ctx context.Context, user int, lane string, heard func()) (string, error) {
	question, err := laneMix(lane).Acquire(fmt.Sprintf("w%06d", user), rand.Text()[:loadgen.IDLength])
	if err != nil {
		return "", err
	}
	answer, err := acquire(ctx, c.services[user%len(c.services)], question, heard)
	switch {
	case err != nil:
		return "", err
	case answer.GetReservation() == nil:
		return "", fmt.Errorf("acquire: want a reservation, got %v", answer.GetDecision())
	}
	return answer.GetReservation().GetId(), nil
}

func (c *callers) settle(ctx context.Context, reservation string) error {
	answer, err := c.services[0].Settle(ctx, laneMix("").Settle(reservation))
	if err == nil && answer.GetState() != rationv1.State_STATE_SETTLED {
		err = fmt.Errorf("settle: got %v", answer)
	}
	return err
}

// acquire returns the decision that an Acquire ends with. heard, if given, is called whenever the caller hears how it stands.
func acquire(
	ctx context.Context, service rationv1.AccountingServiceClient, question *rationv1.AcquireRequest, heard func(),
) (*rationv1.ReserveResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := service.Acquire(ctx, question)
	if err != nil {
		return nil, err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if answer := message.GetAnswer(); answer != nil {
			return answer, nil
		}
		if message.GetStanding() == nil {
			return nil, errors.New("acquire: a message that says nothing")
		}
		if heard != nil {
			heard()
		}
	}
}
