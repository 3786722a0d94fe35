package engine

import "github.com/rationhq/ration/limit"

// Verdict says what a caller can do about a decision.
type Verdict uint8

// The verdicts.
const (
	// Admitted: go ahead.
	Admitted Verdict = iota
	// Throttled: wait a little. Retrying helps.
	Throttled
	// Exhausted: the allowance is used up for longer than a client should wait and retry.
	Exhausted
	// Impossible: the request is larger than the limit will ever hold.
	Impossible
	// Blocked: nothing is allowed at all.
	Blocked
	// Unavailable: the store cannot decide, and a limit lets nobody through unseen. Retrying soon helps.
	Unavailable
)

// retryUpTo is the longest wait after which a client may be told to try again by itself, where the policy does not
// say. Of the common clients of model APIs some ignore a longer Retry-After and retry fast, others sleep for as long as it
// says, be it days.
const retryUpTo = 60 * limit.Second

// Reason returns the machine-readable word for a refusal: "rate_limited".
func (v Verdict) Reason() string {
	return [...]string{"admitted", "rate_limited", "quota_exhausted", "request_too_large", "blocked", "store_unavailable"}[v]
}

// Verdict returns what the caller can do about the decision.
func (d *Decision) Verdict() Verdict {
	binding := d.Binding()
	switch {
	case !d.Over:
		return Admitted
	case d.Waiting.refuses():
		return Throttled
	case d.Reused, binding < 0:
		return Blocked
	}
	s := &d.Statuses[binding]
	if s.Applied != nil {
		return s.Applied.verdict(d.longestRetry())
	}
	switch {
	case s.Limit.Spec.Limit == 0:
		return Blocked
	case s.Never():
		return Impossible
	case s.ResetAfter <= d.longestRetry():
		return Throttled
	}
	return Exhausted
}

func (d *Decision) longestRetry() limit.Micros {
	if d.retryUpTo == 0 {
		return retryUpTo
	}
	return d.retryUpTo
}

func (a *Applied) verdict(longestRetry limit.Micros) Verdict {
	switch {
	case a.Unavailable:
		return Unavailable
	case a.Unpriced != "":
		return Blocked
	case a.TooLarge:
		return Impossible
	case a.Quantity.Spec.Ceiling() == 0:
		return Blocked
	case a.Status.Never:
		return Impossible
	case a.Status.RetryAfter <= longestRetry || a.Status.FitsWithoutHolds:
		return Throttled
	}
	return Exhausted
}

// HTTPStatus returns the status code that an application answers to its own caller.
func (d *Decision) HTTPStatus() int {
	verdict := d.Verdict()
	if verdict == Exhausted && d.exhaustedStatus != 0 {
		return d.exhaustedStatus
	}
	return [...]int{200, 429, 429, 400, 403, 503}[verdict]
}

// ShouldRetry says that the caller may repeat the request by itself, after RetryAfter.
func (v Verdict) ShouldRetry() bool { return v == Throttled || v == Unavailable }

// RetryAfter returns how long a refused caller has to wait, and false if the request was not refused
// or waiting does not help.
func (d *Decision) RetryAfter() (wait limit.Micros, ok bool) {
	if d.Waiting.refuses() {
		return d.Waiting.retryAfter(), true
	}
	binding := d.Binding()
	if binding < 0 || d.Statuses[binding].Never() {
		return 0, false
	}
	return d.Statuses[binding].ResetAfter, true
}

// RetryEstimated says that RetryAfter may be shorter: what others hold stands in the way, or a line.
func (d *Decision) RetryEstimated() bool {
	if d.Waiting.refuses() {
		return true
	}
	binding := d.Binding()
	return binding >= 0 && d.Statuses[binding].Applied != nil && d.Statuses[binding].Applied.Status.Estimated
}

// Pause returns how long a client pauses that tries again by itself: as RetryAfter, but no longer than clients believe
// where only what others hold stands in the way, since a settlement may make room at any time.
func (d *Decision) Pause() (wait limit.Micros, ok bool) {
	wait, ok = d.RetryAfter()
	if d.Verdict() == Throttled {
		wait = min(wait, d.longestRetry())
	}
	return wait, ok
}
