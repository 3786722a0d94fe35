package api

import (
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/engine/provider"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
)

// What is asked. Here only what the engine's types cannot say is refused; all else the engine judges, whoever asks.

// callerOf leaves everything empty of a caller that is missing: the engine says what it lacks.
func callerOf(c *rationv1.Caller) engine.Caller {
	out := engine.Caller{Domain: c.GetDomain(), Model: c.GetModel(), Tier: c.GetTier(), APIKey: c.GetApiKey()}
	// In order, so that of several mistakes it is always the same that is named.
	for _, key := range slices.Sorted(maps.Keys(c.GetAttributes())) {
		out.Attributes = append(out.Attributes, policy.Entry{Key: key, Value: c.GetAttributes()[key]})
	}
	return out
}

func callOf(c *rationv1.Caller, e *rationv1.Estimate) *engine.Call {
	call := &engine.Call{Caller: callerOf(c), Usage: usageOf(e.GetUsage())}
	if p := e.GetPrompt(); p != nil {
		call.Prompt = &price.Prompt{
			Tokens: p.GetTokens(), Characters: p.GetCharacters(),
			OutputCaps: values(p.GetOutputCaps()), Choices: values(p.GetChoices()),
		}
	}
	return call
}

func apiOf(a rationv1.ModelApi) engine.API {
	switch a {
	case rationv1.ModelApi_MODEL_API_ANTHROPIC:
		return engine.APIAnthropic
	case rationv1.ModelApi_MODEL_API_OPENAI:
		return engine.APIOpenAI
	default:
		return engine.APINone
	}
}

// values returns what a map says, whatever names say it: providers have many. In order, so that a request that is sent
// again is the same one.
func values(named map[string]int64) []int64 { return slices.Sorted(maps.Values(named)) }

func usageOf(u *rationv1.Usage) price.Usage {
	return price.Usage{
		Input: u.GetInputTokens(), CacheRead: u.GetCacheReadTokens(), CacheWrite: u.GetCacheWriteTokens(), Output: u.GetOutputTokens(),
	}
}

// leaseOf returns how long a reservation is to live; 0 where nobody says, and what no reservation does where they say
// what cannot be, for the engine to refuse.
func leaseOf(d *durationpb.Duration) limit.Micros {
	if d == nil {
		return 0
	}
	lasts := limit.Micros(d.AsDuration() / time.Microsecond)
	if !d.IsValid() || lasts == 0 {
		return -1
	}
	return lasts
}

// upstreamReportOf returns what a provider has answered. Its headers are in order, so that of two that differ only in their
// case it is always the same that counts.
func upstreamReportOf(r *rationv1.ReportUpstreamRequest) (*engine.UpstreamReport, error) {
	report := &engine.UpstreamReport{
		Domain: r.GetDomain(), Upstream: r.GetUpstream(), Model: r.GetModel(), Answer: provider.Answer{Status: int(r.GetStatus())},
	}
	for _, name := range slices.Sorted(maps.Keys(r.GetHeaders())) {
		report.Answer.Headers = append(report.Answer.Headers, provider.Header{Name: name, Value: r.GetHeaders()[name]})
	}
	if at := r.GetObservedAt(); at != nil {
		if err := at.CheckValid(); err != nil {
			return nil, &engine.InvalidError{Field: "observed_at", Reason: err.Error()}
		}
		report.At = at.AsTime()
	}
	return report, nil
}

// Reservations are named by the hexadecimal digits of their ids.

func idText(id engine.ReservationID) string { return hex.EncodeToString(id[:]) }

func idOf(text string) (id engine.ReservationID, err error) {
	if len(text) != hex.EncodedLen(len(id)) {
		return id, errNoID()
	}
	if _, err := hex.Decode(id[:], []byte(text)); err != nil {
		return id, errNoID()
	}
	return id, nil
}

func errNoID() error {
	return &engine.InvalidError{Field: "reservation_id", Reason: "it is not an id that Reserve has given"}
}
