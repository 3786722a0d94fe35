package headers

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// appendStandard adds RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-11, sections 3 and 4), which
// are lists of structured fields (RFC 9651): an item for each limit, with the limit's path as its name.
//
// Of a refused request RateLimit tells only of the limits that refuse: a Retry-After should not point to an earlier
// moment than any t beside it. Money has no unit there, and is nobody's business but the application's.
func appendStandard(into []Field, d *engine.Decision, limits []standing) []Field {
	var policies, rates strings.Builder
	for i := range limits[:min(len(limits), mostListed)] {
		s := &limits[i]
		if s.meter == policy.Cost {
			continue
		}
		item(&policies, s.path, parameter{"q", s.capacity})
		if unit := quotaUnit(s.meter); unit != "" {
			fmt.Fprintf(&policies, ";qu=%q", unit)
		}
		if s.window > 0 {
			policies.WriteString(parameter{"w", s.window.Seconds()}.String())
		}
		if d.Over && !s.refuses {
			continue
		}
		item(&rates, s.path, parameter{"r", s.remaining})
		if s.timed && s.resets > 0 {
			rates.WriteString(parameter{"t", s.seconds()}.String())
		}
	}
	if policies.Len() > 0 {
		into = append(into, Field{"ratelimit-policy", policies.String()})
	}
	if rates.Len() > 0 {
		into = append(into, Field{"ratelimit", rates.String()})
	}
	return into
}

// mostListed bounds the limits that the lists tell of, the first to bind: servers and proxies refuse fields of more than
// a few kilobytes.
const mostListed = 16

// item adds an item to a list, with its first parameter.
func item(list *strings.Builder, name string, p parameter) {
	if list.Len() > 0 {
		list.WriteString(", ")
	}
	list.WriteString(quoted(name))
	list.WriteString(p.String())
}

type parameter struct {
	name  string
	value int64
}

// mostInteger is the largest Integer of a structured field: fifteen digits.
const mostInteger = 999_999_999_999_999

func (p parameter) String() string {
	return ";" + p.name + "=" + strconv.FormatInt(min(p.value, mostInteger), 10)
}

// quoted writes a String of a structured field, which is of printable ASCII alone: other bytes become %xx.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, "%%%02x", c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// quotaUnit names what a meter counts; empty is the draft's own default, requests. It has names for requests and for
// concurrent requests; those of tokens are ours.
func quotaUnit(m policy.Meter) string {
	switch m {
	case policy.InputTokens:
		return "input-tokens"
	case policy.OutputTokens:
		return "output-tokens"
	case policy.Tokens:
		return "tokens"
	case policy.InFlight:
		return "concurrent-requests"
	default:
		return ""
	}
}

// window returns in which time the whole quantity is there again: the window, the period at an instant, or how long an
// empty bucket takes to fill. 0 where there is no such time.
func window(s *limit.Spec, now limit.Micros) limit.Micros {
	switch {
	case s.Algorithm == limit.Concurrency:
		return 0
	case s.Calendar != nil:
		start, end := s.Calendar.Bounds(now)
		return end - start
	case s.Algorithm == limit.TokenBucket && s.Limit > 0:
		hi, lo := bits.Mul64(uint64(s.Ceiling()), uint64(s.Window))
		if hi >= uint64(s.Limit) {
			return 0
		}
		fills, _ := bits.Div64(hi, lo, uint64(s.Limit))
		return limit.Micros(min(fills, uint64(limit.MaxAmount)))
	}
	return s.Window
}
