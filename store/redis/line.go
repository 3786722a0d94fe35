package redis

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// What a step on a line is made of beside its head, in this order. Running it costs as much as it defines; so it is the body
// of a function, which a step for which the line is idle does not run.
var lineFiles = []string{"line/records", "line/order", "line/step"}

// Made when they are needed.
var (
	lineSource = sync.OnceValue(func() string {
		return inline(read("line/line") + "local function busy()\n" + read(lineFiles...) + "end\nreturn busy()\n")
	})
	lineScript      = sync.OnceValue(func() *redis.Script { return redis.NewScript(lineSource()) })
	lineStateSource = sync.OnceValue(func() string { return inline(read("line/state")) })
)

// Line implements store.Lines. It is one round trip. Replicas are not waited for: with a line its order is lost, and nothing
// else.
func (s *Store) Line(ctx context.Context, name []byte, spec *lane.Spec, step *lane.Step) (lane.Outcome, error) {
	if err := ctx.Err(); err != nil {
		return lane.Outcome{}, err
	}
	if err := store.ValidateLine(name, spec, step); err != nil {
		return lane.Outcome{}, err
	}
	now := ""
	if s.clock != nil {
		now = strconv.FormatInt(int64(s.clock()), 10)
	}
	args := []any{appendLineSpec(nil, spec), appendLineStep(nil, step), now, s.prefix + calledChannel, name}
	reply, err := s.askLine(ctx, name, "evalsha", lineScript().Hash(), args)
	if redis.HasErrorPrefix(err, "NOSCRIPT") { // Redis keeps what it is sent whole
		reply, err = s.askLine(ctx, name, "eval", lineSource(), args)
	}
	if err != nil {
		return lane.Outcome{}, err
	}
	text, ok := reply.(string)
	if !ok {
		return lane.Outcome{}, errShortAnswer
	}
	return readLineOutcome(text)
}

// askLine runs a script about a line.
func (s *Store) askLine(ctx context.Context, name []byte, verb, script string, more []any) (any, error) {
	args := []any{verb, script, len(lineSuffixes)}
	shard := shardOfName(name)
	for _, suffix := range lineSuffixes {
		args = append(args, appendLineKey(nil, s.prefix, shard, name, suffix))
	}
	args = append(args, more...)
	q := &question{shard: shard, command: func(ctx context.Context) redis.Cmder {
		cmd := redis.NewCmd(ctx, args...)
		cmd.SetFirstKeyPos(3)
		return cmd
	}}
	if err := s.ask(ctx, []*question{q}); err != nil {
		return nil, err
	}
	return q.answer.(*redis.Cmd).Val(), nil
}

// appendLineSpec appends a spec as lua/line/line.lua reads it.
func appendLineSpec(b []byte, spec *lane.Spec) []byte {
	b = append(b, byte(spec.Classes), bit(1, spec.Weights != nil))
	b = appendShort(b, int64(spec.Aging))
	b = binary.LittleEndian.AppendUint16(b, uint16(spec.Most))
	b = binary.LittleEndian.AppendUint16(b, uint16(min(spec.MostOfSubject, lane.MaxTickets)))
	for _, weight := range spec.Weights {
		b = binary.LittleEndian.AppendUint16(b, uint16(weight))
	}
	return b
}

// appendLineStep appends a step as lua/line/line.lua reads it. What the step's action does not need may be anything.
func appendLineStep(b []byte, step *lane.Step) []byte {
	of := &step.Ticket
	b = append(b, byte(step.Do), bit(1, step.Tried), bit(1, step.Keep), byte(of.Class))
	b = append(append(append(b, step.Waiter[:]...), of.ID[:]...), of.Subject[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(of.Cost))
	b = appendShort(appendShort(b, int64(step.Wait)), int64(step.Until))
	return append(b, byte(min(step.Room, lane.MaxCalled)))
}

// appendShort appends a number as answer.short reads it.
func appendShort(b []byte, n int64) []byte {
	for i := range shortSize {
		b = append(b, byte(n>>(8*i)))
	}
	return b
}

// readLineOutcome reads what lua/line/line.lua says of a step.
func readLineOutcome(reply string) (lane.Outcome, error) {
	a := answer{rest: reply}
	if code(a.byte()) != codeOK && a.err == nil {
		return lane.Outcome{}, store.ErrCorrupt
	}
	out := lane.Outcome{
		Now: limit.Micros(a.short()), Answer: lane.Answer(a.byte()), Gone: a.byte() == 1, Due: limit.Micros(a.short()),
		Waiting: a.length(), Ahead: a.length(), Pace: limit.Micros(a.short()),
	}
	for range a.length() {
		out.Calls = append(out.Calls, lane.Call{Ticket: a.line(), Waiter: a.line()})
	}
	return out, a.err
}

// line reads the ID of a ticket, a subject, or a waiter.
func (a *answer) line() (id lane.ID) {
	copy(id[:], a.take(len(id)))
	return id
}

// LineState implements store.Lines.
func (s *Store) LineState(ctx context.Context, name []byte) (lane.State, error) {
	if err := ctx.Err(); err != nil {
		return lane.State{}, err
	}
	reply, err := s.askLine(ctx, name, "eval", lineStateSource(), nil)
	if err != nil {
		return lane.State{}, err
	}
	return readLineState(reply)
}

// Called implements store.Lines.
func (s *Store) Called(ctx context.Context, waiter lane.ID) <-chan store.Called {
	calls := make(chan store.Called, heardAtOnce)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.closed {
		s.leaving.Go(func() { s.hear(ctx, waiter, calls) })
	}
	return calls
}

// heardAtOnce is how many calls a waiter has not heard yet, at most, before they are lost.
const heardAtOnce = 1024

// hear hands on what comes on a waiter's channel, until ctx is done or the store is closed.
func (s *Store) hear(ctx context.Context, waiter lane.ID, calls chan<- store.Called) {
	sub := s.client.Subscribe(ctx, s.prefix+calledChannel+hex.EncodeToString(waiter[:]))
	defer sub.Close()
	heard := sub.Channel()
	for {
		var message *redis.Message
		select {
		case <-ctx.Done():
			return
		case <-s.closing:
			return
		case message = <-heard:
		}
		a := answer{rest: message.Payload}
		call := store.Called{Ticket: a.line(), Line: a.rest}
		if a.err != nil {
			continue // it is none of ours
		}
		select {
		case calls <- call:
		default: // it asks
		}
	}
}
