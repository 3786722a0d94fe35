package provider

import (
	"fmt"
	"strings"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// standard reads the fields of draft-ietf-httpapi-ratelimit-headers: `"burst";r=50;t=30, "daily";r=9000`, and as it was up
// to version 07, `limit=100, remaining=50, reset=30`. Limits of which RateLimit-Policy says that they do not count requests
// are passed over.
func (r *reader) standard(headers []Header) {
	others := map[string]bool{}
	for i := range headers {
		if headers[i].Name == "ratelimit-policy" && len(headers[i].Value) <= MaxValue {
			for _, item := range list(headers[i].Value, ',') {
				parts := list(item, ';')
				if unit, given := parameter(parts[1:], "qu"); given && unit != "requests" {
					others[unquote(parts[0])] = true
				}
			}
		}
	}
	for i := range headers {
		h := &headers[i]
		if h.Name != "ratelimit" || len(h.Value) > MaxValue {
			continue
		}
		items := list(h.Value, ',')
		if _, old := parameter(items, remaining); old {
			r.item(h, items, remaining, resets)
			return
		}
		for _, item := range items {
			if parts := list(item, ';'); !others[unquote(parts[0])] {
				r.item(h, parts[1:], "r", "t")
			}
		}
		return
	}
}

// item reads one limit of RateLimit.
func (r *reader) item(h *Header, parameters []string, left, until string) {
	l := Left{Header: h.Name, Meter: policy.Requests}
	text, _ := parameter(parameters, left)
	var err error
	if l.Amount, err = amount(text); err != nil {
		r.note(h, fmt.Sprintf("its %s: %v", left, err))
		return
	}
	if text, l.HasReset = parameter(parameters, until); l.HasReset {
		seconds, err := amount(text)
		if err != nil {
			r.note(h, fmt.Sprintf("its %s: %v", until, err))
			l.HasReset = false
		}
		l.Reset = within(limit.Micros(min(seconds, int64(MaxReset/limit.Second))) * limit.Second)
	}
	r.left = append(r.left, l)
}

// parameter returns the value of a name among `name=value`s, without its quotes.
func parameter(all []string, name string) (string, bool) {
	for _, p := range all {
		if key, value, ok := strings.Cut(p, "="); ok && strings.TrimSpace(key) == name {
			return unquote(value), true
		}
	}
	return "", false
}

func unquote(s string) string { return strings.Trim(strings.TrimSpace(s), `"`) }

// list splits at a separator that stands outside of quotes; there is always one part.
func list(s string, at byte) (parts []string) {
	quoted, from := false, 0
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == at && !quoted:
			parts = append(parts, strings.TrimSpace(s[from:i]))
			from = i + 1
		}
	}
	return append(parts, strings.TrimSpace(s[from:]))
}
