package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/rationhq/ration/client"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/price"
)

// callerFlags say for whom a call is made, and of what.
type callerFlags struct {
	Attributes []attribute `arg:"" optional:"" name:"key=value" help:"What is known of the call: user=alice org=acme."`
	Domain     string      `required:"" placeholder:"NAME" help:"Domain of the policy."`
	Model      string      `env:"-" placeholder:"NAME" help:"The model that is called."`
	Tier       string      `env:"-" placeholder:"NAME" help:"Tier of the subject, where the policy trusts its callers to say so."`
}

func (f *callerFlags) caller() *rationv1.Caller {
	return &rationv1.Caller{Domain: f.Domain, Attributes: attributesOf(f.Attributes), Model: f.Model, Tier: f.Tier}
}

// Validate implements kong.Validatable.
func (f *callerFlags) Validate() error { return once(f.Attributes) }

// tokenFlags are an amount of tokens.
type tokenFlags struct {
	Input      int64 `env:"-" placeholder:"N" help:"Tokens of the prompt that came from no cache."`
	CacheRead  int64 `env:"-" placeholder:"N" help:"Tokens of the prompt that were read from the provider's cache."`
	CacheWrite int64 `env:"-" placeholder:"N" help:"Tokens of the prompt that were written to it."`
	Output     int64 `env:"-" placeholder:"N" help:"Tokens that the model has written."`
}

func (f *tokenFlags) usage() *rationv1.Usage {
	return &rationv1.Usage{InputTokens: f.Input, CacheReadTokens: f.CacheRead, CacheWriteTokens: f.CacheWrite, OutputTokens: f.Output}
}

// estimateFlags are what a call will use at most.
type estimateFlags struct {
	tokenFlags
	Characters int64  `env:"-" placeholder:"N" help:"Instead of tokens: characters of the prompt, of which four count as a token."`
	MaxOutput  *int64 `env:"-" placeholder:"N" help:"Instead of --output: the cap of the output. None: the most that the model can write."`
}

func (f *estimateFlags) estimate() (*rationv1.Estimate, error) {
	if f.Characters == 0 && f.MaxOutput == nil {
		return &rationv1.Estimate{Of: &rationv1.Estimate_Usage{Usage: f.usage()}}, nil
	}
	if f.CacheRead != 0 || f.CacheWrite != 0 || f.Output != 0 {
		return nil, misused("--characters and --max-output stand for a prompt of which nobody has counted the tokens: leave --cache-read, --cache-write and --output out")
	}
	prompt := &rationv1.Prompt{Tokens: f.Input, Characters: f.Characters}
	if f.MaxOutput != nil {
		prompt.OutputCaps = map[string]int64{"max_output": *f.MaxOutput}
	}
	return &rationv1.Estimate{Of: &rationv1.Estimate_Prompt{Prompt: prompt}}, nil
}

// refusedError says that a call may not be made. It was said already.
type refusedError struct{ error }

// reserveCmd is ration reserve.
type reserveCmd struct {
	callerFlags
	estimateFlags
	CallKey string `env:"-" name:"key" placeholder:"TEXT" help:"Names the call, so that it counts once however often it is sent. One is made."`
	Lease   period `env:"-" default:"5m" placeholder:"DURATION" help:"How long the reservation lasts if nobody settles it. Default 5m."`
	DryRun  bool   `env:"-" help:"Only say what would happen (Check)."`
	Lane    string `env:"-" placeholder:"NAME" help:"Wait for a turn in this lane of the policy (Acquire): for --wait, or as long as the lane lets calls wait."`
	serverFlags
}

// Help implements kong.HelpProvider.
func (reserveCmd) Help() string {
	return strings.TrimSpace(`
RATION_SERVER, RATION_TOKEN and RATION_DOMAIN spare flags. Settle the reservation with ration settle, or give it back with
ration release; else it lapses.

With --lane it waits for its turn, and says on a terminal how it stands. Ctrl-C leaves the line.

Exit codes: 0 admitted, 2 refused, 1 all else.

Examples:

  ration reserve --domain llm user=alice --model gpt-5 --characters 4000 --max-output 500

  ration reserve --domain llm user=alice --model gpt-5 --input 1000 --output 500 --dry-run

  ration reserve --domain llm user=alice --model gpt-5 --input 1000 --output 500 --lane provider --wait 30s
`)
}

// Run implements the command.
func (c *reserveCmd) Run(to streams) error {
	estimate, err := c.estimate()
	if err != nil {
		return err
	}
	var decision *rationv1.Decision
	reserved := func(r *rationv1.ReserveResponse) *answer {
		decision = r.GetDecision()
		a := decisionAnswer(decision)
		if held := r.GetReservation(); held != nil {
			a.before = append(a.before, fmt.Sprintf("reservation %s, until %s", held.GetId(), when(held.GetExpiresAt())))
		}
		return a.of(r)
	}
	switch {
	case c.DryRun && c.Lane != "":
		return misused("--dry-run waits for nothing: leave --lane out")
	case c.DryRun:
		request := &rationv1.CheckRequest{Caller: c.caller(), Estimate: estimate}
		err = call(&c.remoteFlags, c.Server, to, request,
			accounting(rationv1.AccountingServiceClient.Check), func(r *rationv1.CheckResponse) *answer {
				decision = r.GetDecision()
				return decisionAnswer(decision).of(r)
			})
	case c.Lane != "":
		err = c.acquire(to, estimate, reserved)
	default:
		request := &rationv1.ReserveRequest{
			Caller: c.caller(), Estimate: estimate, IdempotencyKey: cmp.Or(c.CallKey, client.NewKey()),
			Lease: durationpb.New(time.Duration(c.Lease)),
		}
		err = call(&c.remoteFlags, c.Server, to, request, accounting(rationv1.AccountingServiceClient.Reserve), reserved)
	}
	if err == nil && decision.GetVerdict() != rationv1.Verdict_VERDICT_ADMITTED {
		return refusedError{errors.New("refused")}
	}
	return err
}

// decisionAnswer says what was decided and, of a refusal, what would help.
func decisionAnswer(d *rationv1.Decision) *answer {
	a := limitsAnswer(d.GetLimits())
	verdict := word("VERDICT_", d.GetVerdict())
	if d.GetVerdict() == rationv1.Verdict_VERDICT_ADMITTED {
		if d.GetEstimatedCost() > 0 {
			verdict += fmt.Sprintf(": at most %v", price.Nanos(d.GetEstimatedCost()))
		}
		a.before = append(a.before, verdict)
	} else {
		a.before = append(a.before, verdict+": "+d.GetMessage())
	}
	if d.GetRetryAfter() != nil {
		about := ""
		if d.GetRetryAfterEstimated() {
			about = ", or less"
		}
		a.before = append(a.before, fmt.Sprintf("it fits in %v%s", roughly(d.GetRetryAfter().AsDuration()), about))
	}
	if w := d.GetWaited(); w.GetWaited().AsDuration() >= time.Millisecond {
		a.before = append(a.before, fmt.Sprintf("waited %v in the lane %s", roughly(w.GetWaited().AsDuration()), w.GetLane()))
	}
	if d.MaxOutputTokens != nil {
		a.before = append(a.before, fmt.Sprintf("the longest answer that fits: %d tokens", d.GetMaxOutputTokens()))
	}
	if d.GetDegraded() != "" {
		a.before = append(a.before, "decided without the store: "+d.GetDegraded())
	}
	if d.GetTier() != "" {
		a.before = append(a.before, "tier "+d.GetTier())
	}
	a.after = d.GetWarnings()
	return a
}

// of names the message that the answer is of.
func (a *answer) of(message proto.Message) *answer {
	a.message = message
	return a
}

// limitsAnswer lists how limits stand.
func limitsAnswer(limits []*rationv1.LimitStatus) *answer {
	a := &answer{columns: []string{"limit", "meter", "capacity", "used", "held", "remaining", "this_call", "resets_at", "says"}}
	for _, l := range limits {
		says := ""
		switch {
		case l.GetRefuses() && l.GetShadow():
			says = "would refuse"
		case l.GetRefuses():
			says = "refuses"
		case l.GetShadow():
			says = "in shadow"
		}
		amount := func(n int64) string { return amountOf(l.GetMeter(), n) }
		a.row(l.GetLimit(), word("METER_", l.GetMeter()), amount(l.GetCapacity()), amount(l.GetUsed()), amount(l.GetHeld()),
			amount(l.GetRemaining()), amount(l.GetAmount()), when(l.GetResetsAt()), says)
	}
	return a
}

// amountOf returns an amount in the unit of a meter: dollars, or a number.
func amountOf(meter rationv1.Meter, n int64) string {
	if meter == rationv1.Meter_METER_COST {
		return price.Nanos(n).String()
	}
	return fmt.Sprint(n)
}

func word(prefix string, value fmt.Stringer) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(value.String(), prefix), "_", " "))
}

// accounting makes a method of AccountingService one that call can use.
func accounting[Request, Answer any](
	method func(rationv1.AccountingServiceClient, context.Context, Request, ...grpc.CallOption) (Answer, error),
) func(*client.Client) func(context.Context, Request) (Answer, error) {
	return func(c *client.Client) func(context.Context, Request) (Answer, error) {
		stub := rationv1.NewAccountingServiceClient(c.Conn())
		return func(ctx context.Context, r Request) (Answer, error) { return method(stub, ctx, r) }
	}
}

// progressCmd is ration progress.
type progressCmd struct {
	ID string `arg:"" help:"The reservation."`
	tokenFlags
	Lease period `env:"-" default:"5m" placeholder:"DURATION" help:"How long the reservation lasts from now on. Default 5m."`
	serverFlags
}

// Run implements the command.
func (c *progressCmd) Run(to streams) error {
	request := &rationv1.ProgressRequest{ReservationId: c.ID, Usage: c.usage(), Lease: durationpb.New(time.Duration(c.Lease))}
	return call(&c.remoteFlags, c.Server, to, request,
		accounting(rationv1.AccountingServiceClient.Progress), func(r *rationv1.ProgressResponse) *answer {
			a := limitsAnswer(r.GetLimits())
			advice := word("ADVICE_", r.GetAdvice())
			if r.MaxOutputTokens != nil {
				advice += fmt.Sprintf(": at most %d tokens of output in all", r.GetMaxOutputTokens())
			}
			a.before = []string{advice, "reservation " + word("STATE_", r.GetState())}
			if r.GetExpiresAt() != nil {
				a.before[1] += ", until " + when(r.GetExpiresAt())
			}
			return a.of(r)
		})
}

// settleCmd is ration settle.
type settleCmd struct {
	ID         string      `arg:"" help:"The reservation."`
	Attributes []attribute `arg:"" optional:"" name:"key=value" help:"Who has called, as in the reservation: the usage is recorded where nothing is known of it."`
	Domain     string      `placeholder:"NAME" help:"Domain of the policy, with attributes."`
	Model      string      `env:"-" placeholder:"NAME" help:"The model that has served, where it is not the one that was reserved."`
	tokenFlags
	serverFlags
}

// Validate implements kong.Validatable.
func (c *settleCmd) Validate() error { return once(c.Attributes) }

// Run implements the command.
func (c *settleCmd) Run(to streams) error {
	request := &rationv1.SettleRequest{ReservationId: c.ID, Usage: c.usage(), Model: c.Model}
	if len(c.Attributes) > 0 {
		request.Caller = &rationv1.Caller{Domain: c.Domain, Attributes: attributesOf(c.Attributes), Model: c.Model}
	}
	return call(&c.remoteFlags, c.Server, to, request,
		accounting(rationv1.AccountingServiceClient.Settle), func(r *rationv1.SettleResponse) *answer {
			a := &answer{columns: []string{"limit", "meter", "held", "charged", "remaining", "resets_at"}}
			a.before = []string{ended(r.GetState(), r.GetReplayed(), r.GetCost())}
			stands := map[string]*rationv1.LimitStatus{}
			for _, l := range r.GetLimits() {
				stands[l.GetLimit()] = l
			}
			for _, ch := range r.GetCharges() {
				l := stands[ch.GetLimit()]
				amount := func(n int64) string { return amountOf(ch.GetMeter(), n) }
				a.row(ch.GetLimit(), word("METER_", ch.GetMeter()), amount(ch.GetHeld()), amount(ch.GetCharged()), amount(l.GetRemaining()), when(l.GetResetsAt()))
			}
			a.after = r.GetWarnings()
			return a.of(r)
		})
}

// ended says what has become of a report.
func ended(state rationv1.State, replayed bool, cost int64) string {
	text := word("STATE_", state)
	if cost > 0 {
		text += fmt.Sprintf(", cost %v", price.Nanos(cost))
	}
	if replayed {
		text += " (the same was reported before: nothing has changed)"
	}
	return text
}

// releaseCmd is ration release.
type releaseCmd struct {
	ID string `arg:"" help:"The reservation."`
	serverFlags
}

// Run implements the command.
func (c *releaseCmd) Run(to streams) error {
	request := &rationv1.ReleaseRequest{ReservationId: c.ID}
	return call(&c.remoteFlags, c.Server, to, request,
		accounting(rationv1.AccountingServiceClient.Release), func(r *rationv1.ReleaseResponse) *answer {
			a := limitsAnswer(r.GetLimits())
			a.before = []string{ended(r.GetState(), r.GetReplayed(), 0)}
			return a.of(r)
		})
}

// recordCmd is ration record.
type recordCmd struct {
	callerFlags
	tokenFlags
	Requests int64  `env:"-" default:"1" placeholder:"N" help:"How many requests it was. Default 1."`
	CallKey  string `env:"-" name:"key" placeholder:"TEXT" help:"Names the usage, so that it counts once however often it is sent. One is made."`
	serverFlags
}

// Run implements the command.
func (c *recordCmd) Run(to streams) error {
	request := &rationv1.RecordRequest{
		Caller: c.caller(), Usage: c.usage(), Requests: &c.Requests,
		IdempotencyKey: cmp.Or(c.CallKey, client.NewKey()),
	}
	return call(&c.remoteFlags, c.Server, to, request,
		accounting(rationv1.AccountingServiceClient.Record), func(r *rationv1.RecordResponse) *answer {
			a := limitsAnswer(r.GetLimits())
			a.before, a.after = []string{ended(rationv1.State_STATE_RECORDED, r.GetReplayed(), r.GetCost())}, r.GetWarnings()
			return a.of(r)
		})
}
