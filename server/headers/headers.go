// Package headers writes a decision as HTTP header fields, in the dialects that clients already read: those of
// draft-ietf-httpapi-ratelimit-headers-11, X-RateLimit-…, those of OpenAI's and of Anthropic's API, and those that keep
// a refused client from retrying in vain.
//
// It must not know who is answered, nor over which protocol. Read [Append] first; docs/accounting.md has the table.
package headers

import (
	"strconv"
	"strings"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// Field is one header field. Its name is in lower case, as HTTP/2 wants it.
type Field struct{ Name, Value string }

// Degraded says that the store could not decide, and what the limits wanted then, or [Queued].
const Degraded = "ration-degraded"

// Queued is what it says of a report that waits until the store can take it.
const Queued = "queued"

// Warning says of which limits so much is used that the caller should know.
const Warning = "ration-warning"

// Append adds all fields that tell a caller of a decision: in all dialects, or, where it names an API, in the standard's
// and that API's. No name comes twice.
func Append(into []Field, d *engine.Decision) []Field {
	limits := listed(d)
	into = appendStandard(into, d, limits)
	if d.API == engine.APINone {
		into = appendPlain(into, d, limits)
	}
	into = appendModelAPIs(into, d, limits)
	into = AppendDegraded(into, d)
	into = appendWarnings(into, d)
	if d.Over {
		into = AppendRefusal(into, d)
	}
	return into
}

// appendWarnings adds the decision's warnings, as a list of Strings (RFC 9651), which people can read and any proxy lets
// through.
func appendWarnings(into []Field, d *engine.Decision) []Field {
	var list strings.Builder
	for _, text := range d.Warnings() {
		if list.Len() > 0 {
			list.WriteString(", ")
		}
		list.WriteString(quoted(text))
	}
	if list.Len() == 0 {
		return into
	}
	return append(into, Field{Warning, list.String()})
}

// AppendDegraded adds what says that a decision was made without the store, or that a report waits for it.
func AppendDegraded(into []Field, d *engine.Decision) []Field {
	if d.Queued {
		return append(into, Field{Degraded, Queued})
	}
	if d.Degraded == policy.StoreErrorNone {
		return into
	}
	return append(into, Field{Degraded, d.Degraded.String()})
}

// AppendRefusal adds what goes with the body of a refusal. The clients of model APIs know retry-after-ms and
// x-should-retry, which keeps them from retrying what waiting a little cannot help. That of Anthropic's knows a request by
// request-id; that of OpenAI's by x-request-id, which is the proxy's to write.
func AppendRefusal(into []Field, d *engine.Decision) []Field {
	into = append(into, Field{"content-type", d.ContentType()})
	if d.API == engine.APIAnthropic && isValue(d.RequestID) {
		into = append(into, Field{"request-id", d.RequestID})
	}
	if wait, ok := d.Pause(); ok {
		into = append(into,
			Field{"retry-after", strconv.FormatInt(wait.Seconds(), 10)},
			Field{"retry-after-ms", strconv.FormatInt(wait.Milliseconds(), 10)})
	}
	return append(into, Field{"x-should-retry", strconv.FormatBool(d.Verdict().ShouldRetry())})
}

// standing is what all dialects say of a limit.
type standing struct {
	path                string
	meter               policy.Meter
	capacity, remaining int64
	window              limit.Micros // 0: none
	refuses             bool
	// resets is how long until the amount fits, of a limit that refuses, else until nothing of what is used counts any
	// more. timed says that time does that.
	resets limit.Micros
	timed  bool
}

// listed returns the limits that fields tell of, the one that binds first: those that can refuse, and of which something
// is known. How much is left of what all share at an upstream or in a lane is no caller's business, unless it refuses.
func listed(d *engine.Decision) []standing {
	var all []standing
	for _, l := range d.Listing() {
		switch {
		case l.Applied == nil:
			if st := l.Status; st.Rule == nil || !st.Rule.Shadow {
				all = append(all, ofRule(st))
			}
		case l.Applied.Limit.Shadow, l.Applied.Unavailable, shared(l.Applied.Limit) && !l.Applied.Over:
		default:
			all = append(all, ofLimit(l.Applied, d.Now))
		}
	}
	return all
}

func shared(l *policy.Limit) bool { return l.OfUpstream() || l.OfLane() }

func ofRule(s *engine.Status) standing {
	out := standing{
		path: s.Limit.Name, meter: policy.Requests, capacity: s.Limit.RequestsPerUnit, remaining: s.Remaining,
		window: s.Limit.Spec.Window, refuses: s.Over, resets: s.ResetAfter, timed: !s.Never(),
	}
	if s.Rule != nil {
		out.path = s.Rule.Path
	}
	return out
}

func ofLimit(a *engine.Applied, now limit.Micros) standing {
	s := &a.Status
	out := standing{
		path: a.Limit.Path, meter: a.Limit.Meter, capacity: a.Quantity.Spec.Ceiling(), remaining: max(0, s.Remaining),
		window: window(&a.Quantity.Spec, now), refuses: a.Over, resets: s.ResetAfter,
		timed: a.Limit.Meter != policy.InFlight,
	}
	if a.Over {
		out.resets, out.timed = s.RetryAfter, !a.Never()
	}
	return out
}

// seconds, and the others, word when the limit resets, rounded up: nobody comes too early.
func (s *standing) seconds() int64 { return s.resets.Seconds() }

func (s *standing) duration() string {
	return (time.Duration(s.resets.Milliseconds()) * time.Millisecond).String()
}

func (s *standing) instant(now limit.Micros) time.Time {
	return time.Unix((now + s.resets).Seconds(), 0).UTC()
}

// first returns the limit with a meter that binds first; nil if there is none.
func first(limits []standing, m policy.Meter) *standing {
	for i := range limits {
		if limits[i].meter == m {
			return &limits[i]
		}
	}
	return nil
}

// plain returns the limit that fields without a unit tell of: the one that refuses, else the one that binds of those that
// count calls or tokens, else places. Of money they tell nothing. nil if there is none.
func plain(limits []standing) *standing {
	var places *standing
	for i := range limits {
		switch s := &limits[i]; {
		case s.meter == policy.Cost && s.refuses:
			return nil
		case s.meter == policy.Cost:
		case s.refuses || s.meter != policy.InFlight:
			return s
		case places == nil:
			places = s
		}
	}
	return places
}

// appendPlain adds X-RateLimit-….
func appendPlain(into []Field, d *engine.Decision, limits []standing) []Field {
	s := plain(limits)
	if s == nil {
		return into
	}
	into = append(into,
		Field{"x-ratelimit-limit", strconv.FormatInt(s.capacity, 10)},
		Field{"x-ratelimit-remaining", strconv.FormatInt(s.remaining, 10)})
	if s.timed {
		into = append(into, Field{"x-ratelimit-reset", strconv.FormatInt(s.instant(d.Now).Unix(), 10)})
	}
	return into
}

// appendModelAPIs adds the fields of OpenAI's and of Anthropic's API, or of the one whose client is answered.
func appendModelAPIs(into []Field, d *engine.Decision, limits []standing) []Field {
	openAI, anthropic := d.API != engine.APIAnthropic, d.API != engine.APIOpenAI
	for _, m := range []struct {
		meter policy.Meter
		name  string
		both  bool // OpenAI has it too
	}{
		{policy.Requests, "requests", true},
		{policy.Tokens, "tokens", true},
		{policy.InputTokens, "input-tokens", false},
		{policy.OutputTokens, "output-tokens", false},
	} {
		s := first(limits, m.meter)
		if s == nil {
			continue
		}
		capacity, remaining := strconv.FormatInt(s.capacity, 10), strconv.FormatInt(s.remaining, 10)
		if m.both && openAI {
			into = append(into, Field{"x-ratelimit-limit-" + m.name, capacity}, Field{"x-ratelimit-remaining-" + m.name, remaining})
			if s.timed {
				into = append(into, Field{"x-ratelimit-reset-" + m.name, s.duration()})
			}
		}
		if !anthropic {
			continue
		}
		prefix := "anthropic-ratelimit-" + m.name
		into = append(into, Field{prefix + "-limit", capacity}, Field{prefix + "-remaining", remaining})
		if s.timed {
			into = append(into, Field{prefix + "-reset", s.instant(d.Now).Format(time.RFC3339)})
		}
	}
	return into
}
