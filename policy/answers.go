package policy

import (
	"fmt"

	"github.com/rationhq/ration/limit"
)

// answers is what a domain says of refusals.
type answers struct {
	retryUpTo       limit.Micros
	exhaustedStatus int
	said            bool
}

// defaultRetryUpTo is the longest wait that a caller is told to sit out where the policy does not say. Of the common
// model SDKs some do not believe a longer one, and try again at once.
const defaultRetryUpTo = 60 * limit.Second

// defaultExhaustedStatus is what the application answers where the policy does not say: too many requests.
const defaultExhaustedStatus = 429

// exhaustedStatuses are what it may answer for what is used up: payment required, forbidden, too many requests.
var exhaustedStatuses = map[string]int{"402": 402, "403": 403, "429": defaultExhaustedStatus}

// RetryUpTo returns the longest wait after which a refused caller is told to try again by itself; where it takes longer
// the allowance is exhausted. It is at least one microsecond.
func (d *Domain) RetryUpTo() limit.Micros { return d.answers.retryUpTo }

// ExhaustedStatus returns the HTTP status that an application answers where an allowance is exhausted: 429, 402 or 403.
func (d *Domain) ExhaustedStatus() int { return d.answers.exhaustedStatus }

func (c *compiler) answers(dr *draft) {
	a, e := &dr.domain.answers, dr.answers
	*a = answers{defaultRetryUpTo, defaultExhaustedStatus, e.retryUpTo.given || e.exhaustedStatus.given}
	if upTo := e.retryUpTo; upTo.given {
		if a.retryUpTo = limit.Micros(upTo.value); a.retryUpTo > defaultRetryUpTo {
			c.rep.warn(upTo.at, "`retry_up_to` above 60s: of the common model SDKs some do not believe a longer wait and try again at once, others sleep through it")
		}
	}
	if status := e.exhaustedStatus; status.given {
		var known bool
		if a.exhaustedStatus, known = exhaustedStatuses[status.value]; !known {
			c.rep.error(status.at, "exhausted_status %s is unknown: it is 402, 403 or 429", quote(status.value))
		}
	}
}

// explainAnswers adds a line that says what refused callers are told, where the policy says it.
func (d *Domain) explainAnswers(lines []string) []string {
	a := &d.answers
	if !a.said {
		return lines
	}
	return append(lines, fmt.Sprintf("  refused callers are told to try again within %s; where it takes longer they are told not to, "+
		"with status %d", timeInWords(a.retryUpTo), a.exhaustedStatus))
}
