package engine

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/rationhq/ration/engine/provider"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// A proxy tells what a provider has answered with the descriptors that end a call: `ration.provider.status`, and
// `ration.provider.` with the name of each header. Whatever is wrong with it, the end of the call counts.

// reservedProvider is what the reserved entries begin with that hold headers of a provider's answer.
const reservedProvider = reservedPrefix + "provider."

// providerStatus is what stands behind it in place of a header's name, for the status.
const providerStatus = "status"

// tell notes what an entry says of a provider's answer. An empty one says nothing: a proxy may send one for a header that
// is not there.
func (s *scratch) tell(e *policy.Entry) {
	if e.Value != "" {
		s.told = append(s.told, provider.Header{Name: strings.TrimPrefix(e.Key, reservedProvider), Value: e.Value})
	}
}

// followTold lets the limits of the upstream that serves the model follow what was told with the request, if anything.
func (i *inquiry) followTold(ctx context.Context) {
	e, s := i.engine, i.s
	upstream := i.domain.Upstream(s.model())
	if len(s.told) == 0 || upstream == nil || i.decision.Queued || i.decision.Degraded != policy.StoreErrorNone {
		return
	}
	var answer provider.Answer
	var unreadable []provider.Note
	for _, h := range s.told {
		if h.Name != providerStatus {
			answer.Headers = append(answer.Headers, h)
			continue
		}
		var err error
		if answer.Status, err = strconv.Atoi(h.Value); err != nil {
			unreadable = append(unreadable, provider.Note{Header: providerStatus, Why: "it is no number"})
		}
	}
	facts := provider.Read(&answer, limit.At(time.Now()))
	facts.Notes = append(facts.Notes, unreadable...)
	// An error is counted, and was logged as any of the store; that the call has ended is kept all the same.
	_ = e.follow(ctx, i.now, i.domain, &facts, 0, i.decision, &Followed{Upstream: upstream})
}
