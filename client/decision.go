package client

import (
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// Verdict says what a caller can do about a decision.
type Verdict string

// The verdicts.
const (
	Admitted   Verdict = "admitted"   // go ahead
	Throttled  Verdict = "throttled"  // wait a little: retrying after RetryAfter helps
	Exhausted  Verdict = "exhausted"  // used up, for longer than a client should wait
	Impossible Verdict = "impossible" // larger than a limit will ever admit; a smaller call may fit
	Blocked    Verdict = "blocked"    // nothing is allowed: a limit of zero, a suspended subject, a model without a price
)

// Decision is the verdict on a call, why it is so, and what to do about it.
type Decision struct {
	Verdict Verdict
	// Message is for the user of a refused call.
	Message string
	// Limits are all that apply, the one that binds first.
	Limits []Limit
	// RetryAfter is how long to wait before a refused call fits; 0: it is admitted, or waiting never helps.
	RetryAfter time.Duration
	// MaxOutput is the longest answer that would still fit, in tokens; −1: nothing bounds it. Pass it on to the model where
	// it is less than what the request says.
	MaxOutput int64
	// Clamped says that the call was admitted with MaxOutput only, which has to be passed on to the model.
	Clamped bool
	// Tier is the name of the subject's tier; TierAttributes are what the policy says of it, to route by.
	Tier           string
	TierAttributes map[string]any
	// Warnings are what the user should know although nothing refuses.
	Warnings []string
	// HTTP is what the application may answer to its own caller.
	HTTP HTTPAnswer
	// Degraded is what on_store_error says, where the store could not decide: "allow", "local" or "deny"; else empty.
	Degraded string
	// PolicyVersion is that of the policy that has decided.
	PolicyVersion string
	// EstimatedCost is what the estimate costs, in nano-dollars; 0 where no money is limited.
	EstimatedCost int64
	// Estimate is what was judged.
	Estimate Usage
	// DecidedAt is when, by the store's clock.
	DecidedAt time.Time
	// Waited is how the call has waited in a lane; zero where it was in none.
	Waited Waited
}

// HTTPAnswer is a response of HTTP.
type HTTPAnswer struct {
	Status  int               // 200, 400, 403, 429 or 503
	Headers map[string]string // by lower-case name
	Body    string            // of a refusal: application/problem+json, or as Call.AnswerAs says
}

// Limit says how one limit stands. Amounts are in units of its meter.
type Limit struct {
	Path     string // in the policy: "llm.user.tokens"
	Meter    string // "requests", "input_tokens", "output_tokens", "tokens", "cost" (nano-dollars) or "concurrency"
	Quantity string // in words: "50,000 tokens per hour"
	// Capacity is the most that it allows, Used what was spent of it, Held what is reserved, and Remaining what is left:
	// less than 0 where there is debt.
	Capacity, Used, Held, Remaining int64
	// Amount is what this call charges, holds, or was settled with.
	Amount int64
	// Refuses says that it refuses the call, and Shadow that it never does.
	Refuses, Shadow bool
	// ResetsAt is when nothing counts any more of what is used; zero where nothing is used.
	ResetsAt time.Time
	// RetryAfter is how long until the amount fits; 0: it fits, or never does.
	RetryAfter time.Duration
}

func decisionOf(d *rationv1.Decision) Decision {
	out := Decision{
		Verdict: Verdict(word("VERDICT_", d.GetVerdict())), Message: d.GetMessage(), Limits: limitsOf(d.GetLimits()),
		RetryAfter: d.GetRetryAfter().AsDuration(), MaxOutput: -1, Clamped: d.GetClamped(), Tier: d.GetTier(),
		TierAttributes: d.GetTierAttributes().AsMap(), Warnings: d.GetWarnings(), Degraded: d.GetDegraded(),
		PolicyVersion: d.GetPolicyVersion(), EstimatedCost: d.GetEstimatedCost(), Estimate: usageOf(d.GetEstimate()),
		DecidedAt: instant(d.GetDecidedAt()), Waited: waitedOf(d.GetWaited()),
		HTTP: HTTPAnswer{
			Status: int(d.GetHttp().GetStatus()), Headers: d.GetHttp().GetHeaders(), Body: d.GetHttp().GetBody(),
		},
	}
	if d.MaxOutputTokens != nil {
		out.MaxOutput = d.GetMaxOutputTokens()
	}
	return out
}

func limitsOf(all []*rationv1.LimitStatus) []Limit {
	var out []Limit
	for _, l := range all {
		out = append(out, Limit{
			Path: l.GetLimit(), Meter: word("METER_", l.GetMeter()), Quantity: l.GetQuantity(),
			Capacity: l.GetCapacity(), Used: l.GetUsed(), Held: l.GetHeld(), Remaining: l.GetRemaining(), Amount: l.GetAmount(),
			Refuses: l.GetRefuses(), Shadow: l.GetShadow(), ResetsAt: instant(l.GetResetsAt()),
			RetryAfter: l.GetRetryAfter().AsDuration(),
		})
	}
	return out
}

// word returns the value of an enumeration as a word: VERDICT_ADMITTED is "admitted".
func word(prefix string, value interface {
	protoreflect.Enum
	String() string
},
) string {
	return strings.ToLower(strings.TrimPrefix(value.String(), prefix))
}

// instant returns the zero time for what is absent.
func instant(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
