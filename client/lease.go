package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// ErrEnded says that a lease was settled or released before.
var ErrEnded = errors.New("the lease was settled or released before")

// Check says what Reserve would answer now, and changes nothing. A refusal is a decision here, and no error.
func (c *Client) Check(ctx context.Context, call Call) (Decision, error) {
	answer, err := c.api.Check(ctx, &rationv1.CheckRequest{
		Caller: call.message(), Estimate: call.estimate(), AnswerAs: rationv1.ModelApi(call.AnswerAs),
	})
	if err != nil {
		return Decision{}, fmt.Errorf("check: %w", err)
	}
	return decisionOf(answer.GetDecision()), nil
}

// Reserve asks to let a call through, and holds its estimate under every limit that applies. The lease is to be ended by
// Settle or Release, and closed in any case.
//
// A call that may not be made is a *Refusal. Other errors are gRPC statuses (status.Code): misuse, or an outage that has
// outlasted the repeats. If the server had reserved by then, the reservation lapses by itself.
func (c *Client) Reserve(ctx context.Context, call Call) (*Lease, error) {
	if call.Key == "" {
		call.Key = NewKey()
	}
	answer, err := c.api.Reserve(ctx, call.request())
	if err != nil {
		return nil, fmt.Errorf("reserve: %w", err)
	}
	return c.lease(&call, answer)
}

// lease returns what a call has been given, or its refusal.
func (c *Client) lease(call *Call, answer *rationv1.ReserveResponse) (*Lease, error) {
	decision := decisionOf(answer.GetDecision())
	if answer.GetReservation() == nil {
		return nil, &Refusal{Decision: decision}
	}
	lasts := orElse(call.Lease, defaultLease)
	return &Lease{
		Decision: decision, ID: answer.GetReservation().GetId(), Key: call.Key, Replayed: answer.GetReplayed(),
		client: c, caller: call.Caller, lasts: call.Lease, every: orElse(c.options.ProgressEvery, min(10*time.Second, lasts/3)),
		told: time.Now(), advice: Continue, maxOutput: decision.MaxOutput, advised: make(chan Advice, 1),
	}, nil
}

// Advice says whether a call under way may go on.
type Advice string

// What a call under way hears.
const (
	Continue Advice = "continue" // the whole estimate fits
	WrapUp   Advice = "wrap_up"  // end at the longest output that Advice returns
	Stop     Advice = "stop"     // end now: a limit is used up, or the reservation has ended
)

// Lease is a reservation of an admitted call. It may be used by several goroutines.
type Lease struct {
	// Decision is what the server has said.
	Decision Decision
	// ID is the server's name of the reservation, and Key that of the call.
	ID, Key string
	// Replayed says that the call was reserved before, under the same key.
	Replayed bool

	client *Client
	caller Caller
	lasts  time.Duration // as asked for; 0: the server's default
	every  time.Duration

	ending sync.Mutex // one end at a time

	mu        sync.Mutex // of all below
	usage     Usage      // observed so far
	observed  bool
	unsettled *Usage // a settlement that did not arrive
	model     string // that has served, if it was not the one of the caller
	ended     bool
	advice    Advice
	maxOutput int64
	advised   chan Advice
	told      time.Time   // when the server was told last, or has reserved
	next      *time.Timer // when it will be; nil: not yet decided
}

// Observe notes all that the call has used since it began: what is less than was observed before changes nothing. It does
// not wait. Every now and then (Options.ProgressEvery) the server is told, which renews the reservation and brings
// advice; without any observation a reservation is not renewed. Observe returns the latest advice.
func (l *Lease) Observe(usage Usage) Advice {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.usage, l.observed = l.usage.atLeast(usage), true
	if l.next == nil && !l.ended {
		l.tellLater()
	}
	return l.advice
}

// tellLater lets the server be told when it is time. The lease is locked.
func (l *Lease) tellLater() {
	l.next = time.AfterFunc(time.Until(l.told.Add(l.every)), func() { l.client.inBackground(l.tell) })
}

// Advice returns the latest advice, and the longest output in all that fits, in tokens; −1: nothing bounds it.
func (l *Lease) Advice() (advice Advice, maxOutput int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.advice, l.maxOutput
}

// Advised receives the advice when it changes, for who waits for the model elsewhere than where it is observed. Only the
// latest is kept for who does not listen. It is never closed.
func (l *Lease) Advised() <-chan Advice { return l.advised }

// ServedBy says that another model than the one of the call has served it: its price is charged.
func (l *Lease) ServedBy(model string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.model = model
}

// tell tells the server what was observed so far. What does not arrive is told with the next observation.
func (l *Lease) tell(ctx context.Context) {
	l.mu.Lock()
	usage, ended := l.usage, l.ended
	request := &rationv1.ProgressRequest{ReservationId: l.ID, Usage: usage.message()}
	l.mu.Unlock()
	if ended {
		return
	}
	if l.lasts != 0 {
		request.Lease = durationpb.New(l.lasts)
	}
	ctx, cancel := context.WithTimeout(ctx, max(l.every, l.client.options.Retry.Attempt))
	defer cancel()
	answer, err := l.client.api.Progress(ctx, request)

	l.mu.Lock()
	defer l.mu.Unlock()
	l.told, l.next = time.Now(), nil
	if l.ended {
		return
	}
	if l.usage != usage {
		l.tellLater() // more was observed meanwhile
	}
	if err != nil {
		l.client.options.Log.Debug("a lease could not be renewed", "reservation", l.ID, "error", err)
		return
	}
	l.maxOutput = -1
	if answer.MaxOutputTokens != nil {
		l.maxOutput = answer.GetMaxOutputTokens()
	}
	if advice := Advice(word("ADVICE_", answer.GetAdvice())); advice != l.advice {
		l.advice = advice
		select { // room for it: nobody else sends
		case <-l.advised:
		default:
		}
		l.advised <- advice
	}
}

// Settle says all that the call has used: it takes the place of what was held. It counts once, however often it is sent.
//
// What cannot be delivered is written to the journal, where there is one: then the settlement is Journaled, and there is no
// error. Else the error is the server's, and Close tries once more.
func (l *Lease) Settle(ctx context.Context, usage Usage) (Settlement, error) {
	return l.end(func(model string) (Settlement, error) {
		s, err := l.client.settle(ctx, &rationv1.SettleRequest{
			ReservationId: l.ID, Usage: usage.message(), Model: model, Caller: l.caller.message(),
		})
		if err != nil && !rejected(err) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.unsettled = &usage
		}
		return s, err
	})
}

// Release says that the call was not made: everything is given back, its request too. What cannot be delivered is treated
// as by Settle.
func (l *Lease) Release(ctx context.Context) (Settlement, error) {
	return l.end(func(string) (Settlement, error) {
		return l.client.release(ctx, &rationv1.ReleaseRequest{ReservationId: l.ID})
	})
}

// end ends the lease, once.
func (l *Lease) end(by func(model string) (Settlement, error)) (Settlement, error) {
	l.ending.Lock()
	defer l.ending.Unlock()
	l.mu.Lock()
	ended, model := l.ended, l.model
	l.mu.Unlock()
	if ended {
		return Settlement{}, ErrEnded
	}
	s, err := by(model)
	if err != nil && !rejected(err) {
		return s, err // it may be tried again
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if l.next != nil {
		l.next.Stop()
		l.next = nil
	}
	return s, err
}

// Close ends a lease that nobody has ended: it settles what was observed, or, where nothing was, gives everything back.
// Where nothing of the prompt was observed, that of the estimate counts. It takes its own time (Options.CloseTimeout),
// whatever has become of the context of the call. After Settle or Release, or on a lease that is nil, it does nothing; it is
// made to be deferred.
func (l *Lease) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	usage, observed, unsettled := l.usage, l.observed, l.unsettled
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), l.client.options.CloseTimeout)
	defer cancel()
	var err error
	switch {
	case unsettled != nil:
		_, err = l.Settle(ctx, *unsettled)
	case observed:
		_, err = l.Settle(ctx, usage.withPromptOf(l.Decision.Estimate))
	default:
		_, err = l.Release(ctx)
	}
	if errors.Is(err, ErrEnded) {
		return nil
	}
	return err
}
