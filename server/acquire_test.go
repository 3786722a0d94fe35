package server_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
)

// laned has a lane in which one call is under way at a time.
const laned = `
domain: llm
descriptors:
  - { key: user, subject: true, limits: [ { name: requests, meter: requests, algorithm: fixed_window, limit: 1_000/365 days } ] }
  - { key: poor, limits: [ { name: requests, meter: requests, algorithm: fixed_window, limit: 1/365 days } ] }
  - { key: alone, limits: [ { name: at-once, meter: concurrency, limit: 1 } ] }
upstreams:
  - { name: key, models: [ shared ], limits: [ { name: requests, algorithm: token_bucket, rate: 600/minute } ] }
lanes:
  - { name: one, max_concurrent: 1, max_wait: 60s, max_waiting: { total: 3, per_subject: 2 } }
  - { name: bound, upstream: key, max_wait: 60s }
`

// laneStores are where lines are kept: each returns another view of the same counters whenever it is called.
func laneStores(t *testing.T, test func(t *testing.T, open func() store.Store)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) {
		s := memory.New(memory.Options{})
		t.Cleanup(func() { _ = s.Close() })
		test(t, func() store.Store { return staysOpen{s} })
	})
	t.Run("redis", func(t *testing.T) {
		opts := redis.Options{URL: redistest.Start(t).URL()}
		test(t, func() store.Store {
			s, err := redis.New(opts)
			if err != nil {
				t.Fatal(err)
			}
			return s
		})
	})
}

// staysOpen is a store that outlives the server.
type staysOpen struct{ *memory.Store }

func (staysOpen) Close() error { return nil }

// tells returns the next message to who waits; io.EOF where there are no more.
type tells func() (*rationv1.AcquireResponse, error)

// way is one on which Acquire may be called.
type way func(ctx context.Context, t *testing.T, s *server.Server, r *rationv1.AcquireRequest) tells

// ways has a test run over gRPC and over HTTP, on both stores.
func ways(t *testing.T, test func(t *testing.T, s *site, acquire way)) {
	t.Helper()
	for name, acquire := range map[string]way{"gRPC": overGRPC, "JSON": overHTTP} {
		t.Run(name, func(t *testing.T) {
			laneStores(t, func(t *testing.T, open func() store.Store) {
				test(t, serve(t, laned, open(), server.Config{}), acquire)
			})
		})
	}
}

func overGRPC(ctx context.Context, t *testing.T, s *server.Server, r *rationv1.AcquireRequest) tells {
	t.Helper()
	stream, err := rationv1.NewAccountingServiceClient(client(t, loopback(t, s.Addr("gRPC")))).Acquire(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	return stream.Recv
}

func overHTTP(ctx context.Context, t *testing.T, s *server.Server, r *rationv1.AcquireRequest) tells {
	t.Helper()
	body, err := protojson.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	call, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+loopback(t, s.Addr("HTTP"))+"/"+accounting+"Acquire", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	call.Header.Set("Content-Type", "application/json")
	if md, ok := metadata.FromOutgoingContext(ctx); ok {
		call.Header.Set("Authorization", md.Get("authorization")[0])
	}
	// The header comes with the first message.
	type answered struct {
		*http.Response
		err error
	}
	came := make(chan answered, 1)
	go func() {
		answer, err := http.DefaultClient.Do(call)
		if err == nil {
			t.Cleanup(func() { _ = answer.Body.Close() })
		}
		came <- answered{answer, err}
	}()
	var answer answered
	var lines *bufio.Scanner
	return func() (*rationv1.AcquireResponse, error) {
		if lines == nil {
			if answer = <-came; answer.err != nil {
				return nil, answer.err
			}
			lines = bufio.NewScanner(answer.Body)
		}
		for lines.Scan() {
			line := lines.Bytes()
			var last struct{ Error json.RawMessage }
			switch {
			case len(line) == 0: // so that the connection is not silent
				continue
			case answer.StatusCode != http.StatusOK:
				last.Error = line
			case answer.Header.Get("Content-Type") != "application/x-ndjson":
				return nil, fmt.Errorf("the answer is of the type %q", answer.Header.Get("Content-Type"))
			default:
				if err := json.Unmarshal(line, &last); err != nil {
					return nil, err
				}
			}
			if last.Error != nil {
				var why statuspb.Status
				if err := protojson.Unmarshal(last.Error, &why); err != nil {
					return nil, err
				}
				return nil, status.ErrorProto(&why)
			}
			var message rationv1.AcquireResponse
			return &message, protojson.Unmarshal(line, &message)
		}
		return nil, cmp.Or(lines.Err(), io.EOF)
	}
}

// turn asks for a turn in the lane.
func turn(user string, change ...func(*rationv1.AcquireRequest)) *rationv1.AcquireRequest {
	r := &rationv1.AcquireRequest{
		Caller: &rationv1.Caller{Domain: "llm", Attributes: map[string]string{"user": user}, Model: "small"},
		Wait:   &rationv1.Wait{Lane: "one"},
	}
	for _, c := range change {
		c(r)
	}
	return r
}

func keyed(key string) func(*rationv1.AcquireRequest) {
	return func(r *rationv1.AcquireRequest) { r.IdempotencyKey = key }
}

func longest(d time.Duration) func(*rationv1.AcquireRequest) {
	return func(r *rationv1.AcquireRequest) { r.Wait.Longest = durationpb.New(d) }
}

func attribute(key, value string) func(*rationv1.AcquireRequest) {
	return func(r *rationv1.AcquireRequest) { r.Caller.Attributes[key] = value }
}

// waits returns how a call stands, which is to wait.
func (next tells) waits(t *testing.T) *rationv1.Standing {
	t.Helper()
	message, err := next()
	if err != nil || message.GetStanding() == nil {
		t.Fatalf("the call does not wait: %v %v", message, err)
	}
	return message.GetStanding()
}

// until waits until a call stands as is wanted.
func (next tells) until(t *testing.T, position, waiting int32) {
	t.Helper()
	for {
		if s := next.waits(t); s.GetPosition() == position && s.GetWaiting() == waiting {
			return
		}
	}
}

// answer returns the answer to a call, which is to be the last message.
func (next tells) answer(t *testing.T) *rationv1.ReserveResponse {
	t.Helper()
	for {
		message, err := next()
		if err != nil {
			t.Fatal(err)
		}
		if message.GetAnswer() == nil {
			continue
		}
		if more, err := next(); !errors.Is(err, io.EOF) {
			t.Errorf("after the answer: %v %v", more, err)
		}
		return message.GetAnswer()
	}
}

// admitted returns the reservation of a call that has its turn.
func (next tells) admitted(t *testing.T) string {
	t.Helper()
	a := next.answer(t)
	if w := a.GetDecision().GetWaited(); a.GetDecision().GetVerdict() != rationv1.Verdict_VERDICT_ADMITTED || a.GetReservation().GetId() == "" ||
		w.GetEnded() != rationv1.WaitEnd_WAIT_END_TURN || w.GetStanding() != nil {
		t.Fatalf("not admitted: %v", a)
	}
	return a.GetReservation().GetId()
}

// refused checks the answer to a call that has waited in vain.
func refused(t *testing.T, a *rationv1.ReserveResponse, end rationv1.WaitEnd, says string) {
	t.Helper()
	d := a.GetDecision()
	if d.GetVerdict() != rationv1.Verdict_VERDICT_THROTTLED || a.GetReservation() != nil || d.GetWaited().GetEnded() != end ||
		d.GetWaited().GetLane() != "one" || d.GetMessage() == "" || d.GetRetryAfter().AsDuration() < time.Second {
		t.Errorf("not refused by %v, %q: %v", end, says, a)
	}
	if h := d.GetHttp(); h.GetStatus() != 429 || h.GetHeaders()["retry-after"] == "" || h.GetHeaders()["x-should-retry"] != "true" ||
		!strings.Contains(h.GetBody(), says) || !strings.Contains(h.GetBody(), `"retry_after":`) {
		t.Errorf("handed on: %v", h)
	}
}

func (s *site) settles(t *testing.T, id string) {
	t.Helper()
	if _, err := s.Settle(t.Context(), &rationv1.SettleRequest{ReservationId: id}); err != nil {
		t.Error(err)
	}
}

// Where nobody waits the decision is all that is said. Else a call hears how it stands, and has its turn when Settle or
// Release frees the place.
func TestAcquire(t *testing.T) {
	ways(t, func(t *testing.T, s *site, acquire way) {
		first, err := acquire(t.Context(), t, s.Server, turn("alice"))()
		if err != nil || first.GetAnswer().GetReservation() == nil || first.GetAnswer().GetDecision().GetWaited().GetLane() != "one" {
			t.Fatalf("alone in the lane: %v %v", first, err)
		}
		bob := acquire(t.Context(), t, s.Server, turn("bob"))
		if at := bob.waits(t); at.GetPosition() != 1 || at.GetWaiting() != 1 {
			t.Errorf("bob stands so: %v", at)
		}
		carol := acquire(t.Context(), t, s.Server, turn("carol"))
		if at := carol.waits(t); at.GetPosition() != 2 || at.GetWaiting() != 2 {
			t.Errorf("carol stands so: %v", at)
		}
		s.settles(t, first.GetAnswer().GetReservation().GetId())
		second := bob.answer(t)
		if w := second.GetDecision().GetWaited(); w.GetEnded() != rationv1.WaitEnd_WAIT_END_TURN || w.GetWaited().AsDuration() <= 0 || w.GetStanding() != nil {
			t.Errorf("bob has waited so: %v", w)
		}
		carol.until(t, 1, 1)
		if _, err := s.Release(t.Context(), &rationv1.ReleaseRequest{ReservationId: second.GetReservation().GetId()}); err != nil {
			t.Fatal(err)
		}
		s.settles(t, carol.admitted(t))
	})
}

// The lane of the model's upstream need not be named.
func TestAcquireByModel(t *testing.T) {
	s := serve(t, laned, memory.New(memory.Options{}), server.Config{})
	a := overHTTP(t.Context(), t, s.Server, turn("alice", func(r *rationv1.AcquireRequest) { r.Caller.Model, r.Wait = "shared", nil })).answer(t)
	if a.GetReservation() == nil || a.GetDecision().GetWaited().GetLane() != "bound" {
		t.Errorf("%v", a)
	}
}

// Who waits in vain is refused, in the words and with the headers of every refusal: in time, or at once where waiting is no
// use.
func TestAcquireInVain(t *testing.T) {
	ways(t, func(t *testing.T, s *site, acquire way) {
		if _, err := s.Record(t.Context(), &rationv1.RecordRequest{Caller: turn("eve", attribute("poor", "x")).GetCaller()}); err != nil {
			t.Fatal(err)
		}
		place := acquire(t.Context(), t, s.Server, turn("alice")).admitted(t)
		a := acquire(t.Context(), t, s.Server, turn("bob", longest(50*time.Millisecond))).answer(t)
		refused(t, a, rationv1.WaitEnd_WAIT_END_TOO_LONG, "first in line")
		if w := a.GetDecision().GetWaited(); w.GetStanding().GetPosition() != 1 || w.GetWaited().AsDuration() < 50*time.Millisecond {
			t.Errorf("bob has waited so: %v", w)
		}
		own := acquire(t.Context(), t, s.Server, turn("eve", attribute("poor", "x"))).answer(t)
		if d := own.GetDecision(); d.GetLimits()[0].GetLimit() != "llm.poor.requests" || !d.GetLimits()[0].GetRefuses() ||
			d.GetWaited().GetEnded() != rationv1.WaitEnd_WAIT_END_TURN || d.GetWaited().GetWaited().AsDuration() > 10*time.Second {
			t.Errorf("a limit of its own: %v", own)
		}
		for range 2 {
			acquire(t.Context(), t, s.Server, turn("bob")).waits(t)
		}
		refused(t, acquire(t.Context(), t, s.Server, turn("bob")).answer(t), rationv1.WaitEnd_WAIT_END_FULL_FOR_SUBJECT, "")
		acquire(t.Context(), t, s.Server, turn("carol")).waits(t)
		full := acquire(t.Context(), t, s.Server, turn("dora")).answer(t)
		refused(t, full, rationv1.WaitEnd_WAIT_END_FULL, "")
		if w := full.GetDecision().GetWaited(); w.GetStanding().GetWaiting() != 3 {
			t.Errorf("dora would have stood so: %v", w)
		}
		s.settles(t, place)
	})
}

// A deadline of the caller's ends the waiting before it passes, so that there is an answer.
func TestAcquireByADeadline(t *testing.T) {
	laneStores(t, func(t *testing.T, open func() store.Store) {
		s := serve(t, laned, open(), server.Config{})
		overGRPC(t.Context(), t, s.Server, turn("alice")).admitted(t)
		for name, ask := range map[string]func(context.Context) (*rationv1.ReserveResponse, error){
			"Acquire": func(ctx context.Context) (*rationv1.ReserveResponse, error) {
				next := overGRPC(ctx, t, s.Server, turn("bob"))
				for {
					if m, err := next(); err != nil || m.GetAnswer() != nil {
						return m.GetAnswer(), err
					}
				}
			},
			"Reserve": func(ctx context.Context) (*rationv1.ReserveResponse, error) {
				return s.Reserve(ctx, reserveOf(turn("bob")))
			},
		} {
			var a *rationv1.ReserveResponse
			err := context.DeadlineExceeded
			for try := 0; err != nil && try < 10; try++ { // on a busy machine the answer may come too late
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				a, err = ask(ctx)
				cancel()
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			refused(t, a, rationv1.WaitEnd_WAIT_END_TOO_LONG, "first in line")
		}
	})
}

// What a caller over HTTP is to hand on is in the manner of the API that it offers itself.
func TestAcquireAnswersAs(t *testing.T) {
	s := serve(t, laned, memory.New(memory.Options{}), server.Config{})
	overGRPC(t.Context(), t, s.Server, turn("alice")).admitted(t)
	for api, says := range map[rationv1.ModelApi]string{
		rationv1.ModelApi_MODEL_API_UNSPECIFIED: `"error":"rate_limited"`,
		rationv1.ModelApi_MODEL_API_ANTHROPIC:   `"type":"rate_limit_error"`,
		rationv1.ModelApi_MODEL_API_OPENAI:      `"code":"rate_limit_exceeded"`,
	} {
		r := turn("bob", longest(time.Millisecond), func(r *rationv1.AcquireRequest) { r.AnswerAs = api })
		waited := overHTTP(t.Context(), t, s.Server, r).answer(t)
		refused(t, waited, rationv1.WaitEnd_WAIT_END_TOO_LONG, says)
		reserved, err := s.Reserve(t.Context(), reserveOf(r))
		if err != nil {
			t.Fatal(err)
		}
		refused(t, reserved, rationv1.WaitEnd_WAIT_END_TOO_LONG, says)
	}
}

// A call that goes is out of the line, and what is its turn is the next one's.
func TestAcquireLeaves(t *testing.T) {
	ways(t, func(t *testing.T, s *site, acquire way) {
		place := acquire(t.Context(), t, s.Server, turn("alice")).admitted(t)
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		acquire(ctx, t, s.Server, turn("bob")).waits(t)
		carol := acquire(t.Context(), t, s.Server, turn("carol"))
		carol.until(t, 2, 2)
		leave()
		carol.until(t, 1, 1)
		s.settles(t, place)
		s.settles(t, carol.admitted(t))
	})
}

// Who comes again with the same key finds its place in line, whatever has become of the connection.
func TestAcquireAgain(t *testing.T) {
	ways(t, func(t *testing.T, s *site, acquire way) {
		place := acquire(t.Context(), t, s.Server, turn("alice")).admitted(t)
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		acquire(ctx, t, s.Server, turn("bob", keyed("call-1"))).waits(t)
		carol := acquire(t.Context(), t, s.Server, turn("carol"))
		carol.until(t, 2, 2)
		leave()
		carol.until(t, 1, 1)
		bob := acquire(t.Context(), t, s.Server, turn("bob", keyed("call-1")))
		bob.until(t, 1, 2)
		s.settles(t, place)
		s.settles(t, bob.admitted(t))
		s.settles(t, carol.admitted(t))
	})
}

// A call that was admitted, and whose answer got lost, has it when it comes again: it does not wait for the place that it
// has itself, nor is it refused for what it holds.
func TestAcquireWhatIsAdmitted(t *testing.T) {
	ways(t, func(t *testing.T, s *site, acquire way) {
		bob := turn("bob", keyed("call-1"), attribute("alone", "bob"))
		place := acquire(t.Context(), t, s.Server, bob).admitted(t)
		carol := acquire(t.Context(), t, s.Server, turn("carol"))
		carol.waits(t)
		again := func() {
			t.Helper()
			a := acquire(t.Context(), t, s.Server, bob).answer(t)
			if a.GetReservation().GetId() != place || !a.GetReplayed() || a.GetDecision().GetWaited().GetWaited().AsDuration() > 10*time.Second {
				t.Errorf("again: %v", a)
			}
		}
		again()
		for range 2 {
			acquire(t.Context(), t, s.Server, turn("dora")).waits(t)
		}
		again() // the line is full
		another := turn("bob", keyed("call-1"))
		if m, err := acquire(t.Context(), t, s.Server, another)(); status.Code(err) != codes.AlreadyExists {
			t.Errorf("another call by its key: %v %v", m, err)
		}
		s.settles(t, place)
		s.settles(t, carol.admitted(t))
	})
}

// What cannot be asked for is said before anybody waits, with the field.
func TestAcquireErrors(t *testing.T) {
	s := serve(t, laned, memory.New(memory.Options{}), server.Config{})
	for name, c := range map[string]struct {
		change      func(*rationv1.AcquireRequest)
		field, says string
	}{
		"no caller":           {func(r *rationv1.AcquireRequest) { r.Caller = nil }, "caller.domain", ""},
		"unknown lane":        {func(r *rationv1.AcquireRequest) { r.Wait.Lane = "oen" }, "wait.lane", "did you mean one?"},
		"no lane":             {func(r *rationv1.AcquireRequest) { r.Wait.Lane = "" }, "wait.lane", "name the lane"},
		"no wait":             {longest(0), "wait.longest", "above 0"},
		"negative wait":       {longest(-time.Second), "wait.longest", "above 0"},
		"wait that is none":   {func(r *rationv1.AcquireRequest) { r.Wait.Longest = &durationpb.Duration{Seconds: 1, Nanos: -1} }, "wait.longest", "above 0"},
		"long key":            {keyed(strings.Repeat("k", 201)), "idempotency_key", ""},
		"lease of nothing":    {func(r *rationv1.AcquireRequest) { r.Lease = &durationpb.Duration{} }, "lease", ""},
		"negative estimate":   {func(r *rationv1.AcquireRequest) { r.Estimate = estimate(-1, 0) }, "estimate.usage.input_tokens", ""},
		"reserved attributes": {attribute("ration.lane", "one"), `caller.attributes["ration.lane"]`, ""},
	} {
		r := turn("alice", c.change)
		want := said{codes.InvalidArgument, "INVALID_FIELD", c.field, false}
		for over, acquire := range map[string]way{"gRPC": overGRPC, "JSON": overHTTP} {
			if _, err := protojson.Marshal(r); err != nil && over == "JSON" {
				continue // JSON has no words for it
			}
			_, err := acquire(t.Context(), t, s.Server, r)()
			if got := saidBy(t, err); got != want || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s over %s: %+v: %v", name, over, got, err)
			}
		}
		_, err := s.Reserve(t.Context(), reserveOf(r))
		if r.GetWait() == nil {
			continue
		}
		if got := saidBy(t, err); got != want || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s by Reserve: %+v: %v", name, got, err)
		}
	}
}

// reserveOf asks the same of Reserve.
func reserveOf(r *rationv1.AcquireRequest) *rationv1.ReserveRequest {
	return proto.CloneOf(&rationv1.ReserveRequest{
		Caller: r.GetCaller(), Estimate: r.GetEstimate(), IdempotencyKey: r.GetIdempotencyKey(), Lease: r.GetLease(),
		AnswerAs: r.GetAnswerAs(), Wait: r.GetWait(),
	})
}

// Reserve waits too, and says nothing meanwhile.
func TestReserveWaits(t *testing.T) {
	laneStores(t, func(t *testing.T, open func() store.Store) {
		s := serve(t, laned, open(), server.Config{})
		for name, reserve := range map[string]func(*rationv1.ReserveRequest) *rationv1.ReserveResponse{
			"gRPC": func(r *rationv1.ReserveRequest) *rationv1.ReserveResponse {
				a, err := s.Reserve(t.Context(), r)
				if err != nil {
					t.Errorf("over gRPC: %v", err)
				}
				return a
			},
			"JSON": func(r *rationv1.ReserveRequest) *rationv1.ReserveResponse {
				body, err := protojson.Marshal(r)
				if err != nil {
					t.Error(err)
				}
				var a rationv1.ReserveResponse
				got := post(t, s.Addr("HTTP"), accounting+"Reserve", string(body))
				if err := protojson.Unmarshal([]byte(got.text), &a); err != nil || got.status != 200 {
					t.Errorf("over HTTP: %d %s %v", got.status, got.text, err)
				}
				return &a
			},
		} {
			t.Run(name, func(t *testing.T) {
				first := reserve(reserveOf(turn("alice")))
				refused(t, reserve(reserveOf(turn("bob", longest(50*time.Millisecond)))), rationv1.WaitEnd_WAIT_END_TOO_LONG, "first in line")
				carol := overGRPC(t.Context(), t, s.Server, turn("carol"))
				carol.waits(t)
				done := make(chan *rationv1.ReserveResponse)
				go func() { done <- reserve(reserveOf(turn("bob"))) }()
				carol.until(t, 1, 2)
				s.settles(t, first.GetReservation().GetId())
				s.settles(t, carol.admitted(t))
				second := <-done
				if w := second.GetDecision().GetWaited(); second.GetReservation() == nil || w.GetEnded() != rationv1.WaitEnd_WAIT_END_TURN || w.GetWaited().AsDuration() <= 0 {
					t.Errorf("bob: %v", second)
				}
				s.settles(t, second.GetReservation().GetId())
			})
		}
	})
}

// A call over HTTP may wait for longer than others take.
func TestReserveWaitsForLong(t *testing.T) {
	t.Parallel()
	s := serve(t, laned, memory.New(memory.Options{}), server.Config{})
	overGRPC(t.Context(), t, s.Server, turn("alice")).admitted(t)
	got := post(t, s.Addr("HTTP"), accounting+"Reserve", `{"caller": {"domain": "llm", "attributes": {"user": "bob"}}, "wait": {"lane": "one", "longest": "15.5s"}}`)
	var a rationv1.ReserveResponse
	if err := protojson.Unmarshal([]byte(got.text), &a); err != nil || a.GetDecision().GetWaited().GetWaited().AsDuration() < 15500*time.Millisecond {
		t.Errorf("%d %s", got.status, got.text)
	}
}

// A server that stops says so at once to all who wait, and waits for none of them. Their places are kept: with the same key
// they have them by another server, before those who came after them.
func TestAcquireWhileAServerStops(t *testing.T) {
	laneStores(t, func(t *testing.T, open func() store.Store) {
		stops, stays := serve(t, laned, open(), server.Config{}), serve(t, laned, open(), server.Config{})
		place := overGRPC(t.Context(), t, stays.Server, turn("alice")).admitted(t)
		first := overGRPC(t.Context(), t, stops.Server, turn("bob", keyed("call-1")))
		first.until(t, 1, 1)
		second := overHTTP(t.Context(), t, stops.Server, turn("carol", keyed("call-2")))
		second.until(t, 2, 2)
		third := make(chan error)
		go func() {
			_, err := stops.Reserve(t.Context(), reserveOf(turn("dora", keyed("call-3"))))
			third <- err
		}()
		first.until(t, 1, 3)
		if err := stops.end(); err != nil { // as it is where somebody was waited for
			t.Error(err)
		}
		last := func(next tells) (err error) {
			for err == nil {
				_, err = next()
			}
			return err
		}
		for name, err := range map[string]error{"over gRPC": last(first), "over HTTP": last(second), "in Reserve": <-third} {
			if got := saidBy(t, err); got != (said{codes.Unavailable, "STOPPING", "", true}) {
				t.Errorf("%s: %+v: %v", name, got, err)
			}
		}
		behind := overGRPC(t.Context(), t, stays.Server, turn("carol", keyed("call-2")))
		behind.waits(t)
		bob := overGRPC(t.Context(), t, stays.Server, turn("bob", keyed("call-1")))
		bob.waits(t)
		dora := overHTTP(t.Context(), t, stays.Server, turn("dora", keyed("call-3")))
		dora.until(t, 3, 3)
		for _, next := range []tells{bob, behind, dora} {
			stays.settles(t, place)
			place = next.admitted(t)
		}
		stays.settles(t, place)
	})
}

// A token waits in the lanes of its own domains, and for its own subjects.
func TestAcquireOutOfScope(t *testing.T) {
	g := gatedBy(t, nil, everybody)
	for name, c := range map[string]struct {
		token, domain, user string
		want                codes.Code
	}{
		"of the domain":      {"llm", "llm", "bob", codes.OK},
		"of another domain":  {"llm", "other", "bob", codes.PermissionDenied},
		"of the subject":     {"alice", "llm", "alice", codes.OK},
		"of another subject": {"alice", "llm", "bob", codes.PermissionDenied},
		"for reading":        {"reader", "llm", "bob", codes.PermissionDenied},
		"none":               {"", "llm", "bob", codes.Unauthenticated},
	} {
		for over, acquire := range map[string]way{"gRPC": overGRPC, "JSON": overHTTP} {
			ctx := t.Context()
			if c.token != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", g.as(c.token))
			}
			r := turn(c.user, func(r *rationv1.AcquireRequest) { r.Caller.Domain = c.domain })
			if m, err := acquire(ctx, t, g.Server, r)(); status.Code(err) != c.want || (err == nil) != (m.GetAnswer().GetReservation() != nil) {
				t.Errorf("%s over %s: %v %v, want %v", name, over, m, err, c.want)
			}
		}
	}
}

// Who waits has its answer while the token is good, and no longer.
func TestAcquireEndsWithTheToken(t *testing.T) {
	g := gatedBy(t, nil, map[string]string{"app": "may: account"})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", g.as("app"))
	full := func(r *rationv1.AcquireRequest) { r.Wait.Lane = "narrow" }
	overGRPC(ctx, t, g.Server, turn("alice", full)).admitted(t)
	waits := map[string]tells{}
	for over, acquire := range map[string]way{"gRPC": overGRPC, "JSON": overHTTP} {
		waits[over] = acquire(ctx, t, g.Server, turn("bob", full))
		waits[over].waits(t)
	}
	g.set(t, "tokens: []")
	for over, next := range waits {
		var err error
		for err == nil {
			_, err = next()
		}
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("over %s: %v", over, err)
		}
	}
}
