package rls

import (
	"strconv"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
)

// appendLimitHeaders adds the three headers of the established contract, where a limit applied.
func appendLimitHeaders(headers []header, names Headers, d *engine.Decision) []header {
	quoted := d.Quoted()
	if quoted < 0 {
		return headers
	}
	s := &d.Statuses[quoted]
	ceiling, remaining := s.Counts()
	return append(headers,
		header{names.Limit, strconv.FormatInt(ceiling, 10)},
		header{names.Remaining, strconv.FormatInt(remaining, 10)},
		header{names.Reset, strconv.FormatInt(s.ResetAfter.Seconds(), 10)},
	)
}

// degradedHeader says that the store could not decide, and what the limits wanted then.
const degradedHeader = "ration-degraded"

func appendDegradedHeader(headers []header, d *engine.Decision) []header {
	if d.Degraded == policy.StoreErrorNone {
		return headers
	}
	return append(headers, header{degradedHeader, d.Degraded.String()})
}

// appendProblemHeaders adds what goes with the body of a refusal. Envoy sends ours in place of its
// own text/plain, and leaves a Retry-After that we set. The clients of model APIs know retry-after-ms
// and x-should-retry, which keeps them from retrying what waiting a little cannot help.
func appendProblemHeaders(headers []header, d *engine.Decision) []header {
	headers = append(headers, header{"content-type", "application/problem+json"})
	if wait, ok := d.RetryAfter(); ok {
		headers = append(headers,
			header{"retry-after", strconv.FormatInt(wait.Seconds(), 10)},
			header{"retry-after-ms", strconv.FormatInt(wait.Milliseconds(), 10)})
	}
	return append(headers, header{"x-should-retry", strconv.FormatBool(d.Verdict().ShouldRetry())})
}
