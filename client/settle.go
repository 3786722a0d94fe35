package client

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// State is what was known of a reservation when it ended.
type State string

// The states.
const (
	Settled  State = "settled"  // it was open, and is settled or released
	Lapsed   State = "lapsed"   // it had lapsed: what that had left charged was corrected
	Recorded State = "recorded" // nothing was known of it, or it was usage that nobody had reserved: it was recorded
)

// Settlement is what has become of reported usage.
type Settlement struct {
	// Journaled says that the server could not be reached: the report lies in the journal, and is delivered later. Nothing
	// else is known then.
	Journaled bool
	// State is what was known of the reservation.
	State State
	// Replayed says that the same was reported before: nothing has changed.
	Replayed bool
	// Cost is what the usage has cost, in nano-dollars; 0 where no money is limited.
	Cost int64
	// Charges are what each limit was charged.
	Charges []Charge
	// Limits are how the limits stand, the one that binds first.
	Limits []Limit
	// Warnings are what the user should know.
	Warnings []string
}

// Charge is what one limit was charged by a settlement, in units of its meter.
type Charge struct {
	Path    string // in the policy: "llm.user.tokens"
	Meter   string // as Limit has it
	Held    int64  // what the reservation held
	Charged int64  // what was charged in the end
}

// Record is usage that nobody has reserved.
type Record struct {
	Caller
	// Usage is all that was used.
	Usage Usage
	// Requests is how many requests it was; 0: 1. Usage of no request cannot be told here.
	Requests int64
	// Key names the usage, so that it counts once however often it is sent: 1 to 200 bytes. Empty: one is made, so that the
	// client may repeat what it sends.
	Key string
}

// Record counts usage that nobody has reserved; it is never refused. What cannot be delivered is written to the journal,
// where there is one, unless its caller is named by an API key: then the error is the server's.
func (c *Client) Record(ctx context.Context, r Record) (Settlement, error) {
	if r.Key == "" {
		r.Key = NewKey()
	}
	request := &rationv1.RecordRequest{Caller: r.message(), Usage: r.Usage.message(), IdempotencyKey: r.Key}
	if r.Requests != 0 {
		request.Requests = &r.Requests
	}
	answer, err := c.api.Record(c.orJournal(ctx), request)
	if err != nil {
		return c.keep(&rationv1.BatchItem{Report: &rationv1.BatchItem_Record{Record: request}}, fmt.Errorf("record: %w", err))
	}
	return Settlement{
		State: Recorded, Replayed: answer.GetReplayed(), Cost: answer.GetCost(), Limits: limitsOf(answer.GetLimits()),
		Warnings: answer.GetWarnings(),
	}, nil
}

func (c *Client) settle(ctx context.Context, request *rationv1.SettleRequest) (Settlement, error) {
	answer, err := c.api.Settle(c.orJournal(ctx), request)
	if err != nil {
		return c.keep(&rationv1.BatchItem{Report: &rationv1.BatchItem_Settle{Settle: request}}, fmt.Errorf("settle: %w", err))
	}
	out := Settlement{
		State: State(word("STATE_", answer.GetState())), Replayed: answer.GetReplayed(), Cost: answer.GetCost(),
		Limits: limitsOf(answer.GetLimits()), Warnings: answer.GetWarnings(),
	}
	for _, ch := range answer.GetCharges() {
		out.Charges = append(out.Charges, Charge{
			Path: ch.GetLimit(), Meter: word("METER_", ch.GetMeter()), Held: ch.GetHeld(), Charged: ch.GetCharged(),
		})
	}
	return out, nil
}

func (c *Client) release(ctx context.Context, request *rationv1.ReleaseRequest) (Settlement, error) {
	answer, err := c.api.Release(c.orJournal(ctx), request)
	if err != nil {
		return c.keep(&rationv1.BatchItem{Report: &rationv1.BatchItem_Release{Release: request}}, fmt.Errorf("release: %w", err))
	}
	return Settlement{
		State: State(word("STATE_", answer.GetState())), Replayed: answer.GetReplayed(), Limits: limitsOf(answer.GetLimits()),
	}, nil
}

// orJournal bounds the call of a report to one attempt where there is a journal: what lies on disk outlives the process, and
// is sent again from there.
func (c *Client) orJournal(ctx context.Context) context.Context {
	if c.journal == nil {
		return ctx
	}
	return context.WithValue(ctx, onceKey{}, true)
}

// keep writes a report to the journal that was not delivered. It returns why it was not where it cannot be kept.
func (c *Client) keep(item *rationv1.BatchItem, why error) (Settlement, error) {
	if c.journal == nil || rejected(why) {
		return Settlement{}, why
	}
	item, ok := keepable(item)
	if !ok {
		return Settlement{}, why
	}
	if err := c.journal.add(item); err != nil {
		return Settlement{}, errors.Join(why, err)
	}
	c.options.Log.Debug("a report lies in the journal", "error", why)
	return Settlement{Journaled: true}, nil
}

// rejected says that the server will never take a report, however often it is sent.
func rejected(err error) bool { return isRejection(status.Code(err)) }

// isRejection tells the codes of reports that can never be carried out: what they say cannot be, something else was
// reported before, or nobody knows whose usage it is. All else ends some day: an outage, a token that is wrong, a policy
// that is missing.
func isRejection(code codes.Code) bool {
	return code == codes.InvalidArgument || code == codes.AlreadyExists || code == codes.NotFound
}
