package rls

import (
	"strconv"

	"github.com/rationhq/ration/engine"
)

// appendLimitHeaders adds the three headers of the established contract, where a limit applied.
func appendLimitHeaders(headers []header, names Headers, d *engine.Decision) []header {
	quoted := d.Quoted()
	if quoted < 0 {
		return headers
	}
	s := &d.Statuses[quoted]
	return append(headers,
		header{names.Limit, strconv.FormatUint(uint64(s.Limit.RequestsPerUnit), 10)},
		header{names.Remaining, strconv.FormatInt(s.Remaining, 10)},
		header{names.Reset, strconv.FormatInt(s.ResetAfter.Seconds(), 10)},
	)
}

// appendProblemHeaders adds what goes with the body of a refusal. Envoy sends ours in place of its
// own text/plain, and leaves a Retry-After that we set.
func appendProblemHeaders(headers []header, d *engine.Decision) []header {
	headers = append(headers, header{"content-type", "application/problem+json"})
	if seconds, ok := d.RetryAfter(); ok {
		headers = append(headers, header{"retry-after", strconv.FormatInt(seconds, 10)})
	}
	return headers
}
