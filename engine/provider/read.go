package provider

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// Answer is what a provider has answered to a call.
type Answer struct {
	// Status is that of HTTP; 0: nobody says.
	Status int
	// Headers are those of the answer, in any order and with names in any case. Most are about something else.
	Headers []Header
}

// Header is one field.
type Header struct{ Name, Value string }

// Facts are what an answer says of the provider's limits.
type Facts struct {
	// Refused says that the provider has not served the call, for its limits: by a 429, or by a 503 or 529 that says
	// how long to wait.
	Refused bool
	// Wait is how long it wants nobody to come, at most [MaxWait]: what it says, or [DefaultWait]. 0 unless Refused.
	Wait limit.Micros
	// Left are the limits of which it says what is left, each as the header names it, in the order of the names.
	Left []Left
	// Notes are what could not be read, in the order of the headers' names.
	Notes []Note
}

// Left is what is left of one limit of the provider.
type Left struct {
	// Header says it, in lower case.
	Header string
	Meter  policy.Meter // Requests, InputTokens, OutputTokens or Tokens
	// Amount is 0…[limit.MaxAmount]: more than that counts as that.
	Amount int64
	// Reset is how long it takes until nothing of it is used: 0…[MaxReset]. It means something only where HasReset.
	Reset    limit.Micros
	HasReset bool
}

// Note is why a header does not count.
type Note struct{ Header, Why string }

const (
	// DefaultWait is how long nobody comes after a 429 that does not say it.
	DefaultWait = limit.Second
	// MaxWait is the longest that a provider is believed: who waits for longer does not hear of what has changed since.
	MaxWait = 3600 * limit.Second
	// MaxReset is the longest that a limit of a provider is taken to last.
	MaxReset = 366 * 24 * 3600 * limit.Second
	// MaxValue is the longest value that is read, in bytes.
	MaxValue = 512
)

// Read reads an answer that came at an instant, by the reader's clock. What is said to happen at an instant is seen from
// when the answer says that it was made (Date), since that is the clock of the provider.
func Read(a *Answer, at limit.Micros) Facts {
	r := reader{at: at, remaining: map[string]Left{}, reset: map[string]limit.Micros{}}
	headers := slices.Clone(a.Headers)
	for i := range headers {
		headers[i].Name = strings.ToLower(headers[i].Name)
		headers[i].Value = strings.TrimSpace(headers[i].Value)
	}
	slices.SortStableFunc(headers, func(a, b Header) int { return cmp.Compare(a.Name, b.Name) })
	for i := range headers {
		if headers[i].Name == "date" {
			r.date(&headers[i])
		}
	}
	for i := range headers {
		if i > 0 && headers[i-1].Name == headers[i].Name && about(headers[i].Name) {
			r.note(&headers[i], "it is there twice, and the first counts")
			continue
		}
		r.header(&headers[i])
	}
	r.standard(headers)
	return r.facts(a.Status)
}

// reader gathers what headers say.
type reader struct {
	at limit.Micros // by the provider's clock
	// remaining and reset are by the limit that they are about: part.of.
	remaining map[string]Left
	reset     map[string]limit.Micros
	left      []Left // of which one header says all
	// after and afterMillis are how long to wait, by the headers that say it.
	after, afterMillis *limit.Micros
	notes              []Note
}

func (r *reader) note(h *Header, why string) { r.notes = append(r.notes, Note{h.Name, why}) }

// The families of headers: what stands before and behind the name of a limit.
const (
	anthropic = "anthropic-ratelimit-"
	common    = "x-ratelimit-"
	early     = "ratelimit-" // of the draft, before it had one field for all
	remaining = "remaining"
	resets    = "reset"
)

// about says that a header is one that is read.
func about(name string) bool {
	_, _, ok := named(name)
	return ok || name == "retry-after" || name == "retry-after-ms" || name == "ratelimit"
}

// part is what one header says of one limit of the provider.
type part struct {
	of    string // the limit, by the family of the header and its name: the same for all that is said of it
	meter policy.Meter
}

// named takes the name of a header apart: which limit it is about, and what of it.
func named(name string) (p part, what string, ok bool) {
	var of string
	family := ""
	for _, f := range [...]string{anthropic, common, early} {
		if strings.HasPrefix(name, f) {
			family = f
			break
		}
	}
	rest := name[len(family):]
	if family == anthropic {
		i := strings.LastIndexByte(rest, '-')
		of, what = rest[:max(i, 0)], rest[i+1:]
	} else {
		what, of, _ = strings.Cut(rest, "-")
	}
	p.of = family + of
	p.meter, ok = meterOf(of)
	return p, what, ok && family != "" && (what == remaining || what == resets)
}

// meterOf returns what a limit counts that providers call so: "tokens", "requests-day", "tokens-per-minute".
func meterOf(name string) (policy.Meter, bool) {
	for _, period := range [...]string{"second", "minute", "hour", "day"} {
		if rest, is := strings.CutSuffix(name, "-"+period); is {
			name = strings.TrimSuffix(rest, "-per")
			break
		}
	}
	switch name {
	case "", "requests":
		return policy.Requests, true
	case "tokens":
		return policy.Tokens, true
	case "input-tokens":
		return policy.InputTokens, true
	case "output-tokens":
		return policy.OutputTokens, true
	}
	return 0, false
}

func (r *reader) date(h *Header) {
	if made, err := instant(h.Value); err == nil {
		r.at = made
	}
}

func (r *reader) header(h *Header) {
	p, what, ok := named(h.Name)
	var err error
	switch {
	case !about(h.Name):
		return
	case len(h.Value) > MaxValue:
		err = fmt.Errorf("it has %d bytes, and at most %d are read", len(h.Value), MaxValue)
	case ok && what == remaining:
		l := Left{Header: h.Name, Meter: p.meter}
		if l.Amount, err = amount(h.Value); err == nil {
			r.remaining[p.of] = l
		}
	case ok:
		var wait limit.Micros
		if wait, err = span(h.Value, r.at, false); err == nil {
			r.reset[p.of] = wait
		}
	case h.Name == "retry-after":
		var wait limit.Micros
		if wait, err = span(h.Value, r.at, false); err == nil {
			r.after = &wait
		}
	case h.Name == "retry-after-ms":
		var wait limit.Micros
		if wait, err = span(h.Value, r.at, true); err == nil {
			r.afterMillis = &wait
		}
	}
	if err != nil {
		r.note(h, err.Error())
	}
}

// facts joins what the headers say.
func (r *reader) facts(status int) Facts {
	f := Facts{Left: r.left}
	for of, l := range r.remaining {
		l.Reset, l.HasReset = r.reset[of]
		f.Left = append(f.Left, l)
	}
	slices.SortStableFunc(f.Left, func(a, b Left) int { return cmp.Compare(a.Header, b.Header) })
	header, wait := "retry-after-ms", r.afterMillis // finer, and what the provider's own clients read first
	if wait == nil {
		header, wait = "retry-after", r.after
	}
	f.Refused = status == 429 || (status == 503 || status == 529) && wait != nil
	switch {
	case !f.Refused && wait != nil:
		r.note(&Header{Name: header}, fmt.Sprintf("it counts with the status 429, 503 or 529, and the status is %d", status))
	case f.Refused && wait == nil:
		f.Wait = DefaultWait
	case f.Refused && *wait > MaxWait:
		f.Wait = MaxWait
		r.note(&Header{Name: header}, fmt.Sprintf("it says %d seconds, and no more than an hour is believed", wait.Seconds()))
	case f.Refused:
		f.Wait = *wait
	}
	f.Notes = r.notes
	slices.SortStableFunc(f.Notes, func(a, b Note) int { return cmp.Compare(a.Header, b.Header) })
	return f
}
