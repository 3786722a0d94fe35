package engine

import (
	"encoding/json"
	"fmt"
	"time"
)

// RetryAfter returns how many whole seconds a refused caller has to wait, and false if the request
// was not refused or waiting does not help.
func (d *Decision) RetryAfter() (seconds int64, ok bool) {
	binding := d.Binding()
	if binding < 0 || d.Statuses[binding].Never() {
		return 0, false
	}
	return d.Statuses[binding].ResetAfter.Seconds(), true
}

// Message says to the user of a refused request what stopped it and what to do.
func (d *Decision) Message() string {
	binding := d.Binding()
	if binding < 0 {
		return ""
	}
	s := &d.Statuses[binding]
	switch {
	case s.Limit.Spec.Limit == 0:
		return "This request is not allowed: its limit is zero."
	case s.Never():
		return fmt.Sprintf("Request too large: %d at once, of at most %s.", s.Amount, s.Limit.Words())
	}
	return fmt.Sprintf("Rate limit reached: %s. Try again in %s.", s.Limit.Words(), waitWords(s.ResetAfter.Seconds()))
}

// Words says the limit: "10 requests per minute", "1 request per 5 minutes".
func (l *Limit) Words() string {
	requests, unit := "requests", l.Unit.String()
	if l.RequestsPerUnit == 1 {
		requests = "request"
	}
	if l.Multiplier > 1 {
		unit = fmt.Sprintf("%d %ss", l.Multiplier, unit)
	}
	return fmt.Sprintf("%d %s per %s", l.RequestsPerUnit, requests, unit)
}

// waitWords says a wait in the unit that people would: seconds up to two minutes, and so on.
func waitWords(seconds int64) string {
	for _, unit := range []struct {
		seconds int64
		name    string
	}{{86_400, "d"}, {3600, "h"}, {60, "min"}} {
		if seconds >= 2*unit.seconds {
			return fmt.Sprintf("%d %s", (seconds+unit.seconds-1)/unit.seconds, unit.name)
		}
	}
	return fmt.Sprintf("%d s", seconds)
}

// problem is the body of a refusal: RFC 9457, with what clients of model APIs look for beside it.
type problem struct {
	Type       string     `json:"type"`
	Title      string     `json:"title"`
	Status     int        `json:"status"`
	Detail     string     `json:"detail"`
	Error      string     `json:"error"`
	Message    string     `json:"message"`
	RetryAfter *int64     `json:"retry_after,omitempty"` // seconds
	ResetAt    *time.Time `json:"reset_at,omitempty"`
	Limit      uint32     `json:"limit"`
	Remaining  int64      `json:"remaining"`
	Name       string     `json:"name,omitempty"`
}

// Problem returns the body of a refusal as JSON (RFC 9457, application/problem+json); nil if the
// request is not refused.
func (d *Decision) Problem() []byte {
	binding := d.Binding()
	if binding < 0 {
		return nil
	}
	s := &d.Statuses[binding]
	p := problem{
		Type: "about:blank", Title: "Too Many Requests", Status: 429,
		Detail: d.Message(), Error: "rate_limited", Message: d.Message(),
		Limit: s.Limit.RequestsPerUnit, Remaining: s.Remaining, Name: s.Limit.Name,
	}
	if wait, ok := d.RetryAfter(); ok {
		p.RetryAfter = &wait
		reset := (d.Now + s.ResetAfter).Time()
		p.ResetAt = &reset
	}
	body, err := json.Marshal(p)
	if err != nil {
		return nil // a struct of strings and numbers can always be written
	}
	return body
}
