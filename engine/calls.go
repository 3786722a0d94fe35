package engine

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
)

// What a proxy never tells of is used all the same. Nobody can name such a call; but who is let through and who tells of
// usage can be counted, and so the difference.

// stage is how far a call has come whose tokens somebody limits, as one request over Envoy's protocol says.
type stage uint8

const (
	stageNone       stage = iota // none that is counted
	stageAdmitted                // it asks to be let through
	stageReported                // it tells of tokens
	stageZero                    // it tells that there were none
	stageUnreported              // it has ended, and nothing is said of tokens
	stageFailed                  // the upstream has failed it, and nothing, or no tokens, is told
	stages
)

func (g stage) String() string {
	return [stages]string{"", "admitted", "reported", "reported_zero", "unreported", "failed"}[g]
}

// stage says what to count the request as, by what its descriptors ask for in total.
func (s *scratch) stage(total *demand) stage {
	told := total.record.asked&tokenClasses != 0
	ended, failed := false, false
	for i := range s.asked {
		ended = ended || s.asked[i].isEnd()
		failed = failed || s.asked[i].phase == fail
	}
	switch {
	case !s.metered:
		return stageNone
	case told && total.record.sum(tokenClasses) > 0:
		return stageReported
	case failed:
		return stageFailed
	case told:
		return stageZero
	case ended:
		return stageUnreported
	case total.charge.amounts[requests] > 0 || total.hold.asked != 0:
		return stageAdmitted
	}
	return stageNone
}

// callCounters counts the calls of a domain.
type callCounters struct {
	stages [stages]prometheus.Counter
	late   prometheus.Counter
}

// callMetrics makes the counters of domains.
type callMetrics struct{ stages, late, invalid *prometheus.CounterVec }

func (m *Metrics) countCalls() {
	m.calls = callMetrics{
		stages: newCounters(m, "ration_calls_total",
			"Calls whose tokens or money are limited, over Envoy's protocol: those that were let through, and how they ended.", "domain", "stage"),
		late:    newCounters(m, "ration_late_reports_total", "Reports of usage that came when the reservation had lapsed.", "domain"),
		invalid: newCounters(m, "ration_invalid_reports_total", "Reports of usage that cannot be read, so that nothing was counted.", "domain"),
	}
}

// bindCalls returns the counters of the domains that limit tokens or money.
func (m *Metrics) bindCalls(p *policy.Policy) map[*policy.Domain]*callCounters {
	by := make(map[*policy.Domain]*callCounters)
	for _, d := range p.Domains() {
		m.calls.invalid.WithLabelValues(d.Name())
		for _, l := range d.Limits() {
			if !ofModels(measureOf(l)) || by[d] != nil {
				continue
			}
			c := &callCounters{late: m.calls.late.WithLabelValues(d.Name())}
			for g := stageNone + 1; g < stages; g++ {
				c.stages[g] = m.calls.stages.WithLabelValues(d.Name(), g.String())
			}
			by[d] = c
		}
	}
	return by
}

// ofModels says that m counts what models use.
func ofModels(m measure) bool { return m != ofRequests && m != ofPlaces }

// countCall counts a request that was answered, whoever has decided it. A repeat is not counted again; so what waits behind
// another report of its request is counted when it lands.
func (s *scratch) countCall(d *Decision) {
	if s.calls == nil || s.said == stageNone || s.said == stageAdmitted && d.Over || s.behind {
		return
	}
	if !d.Queued && d.Degraded == policy.StoreErrorNone && s.step.Lease != nil {
		if s.outcome.Lease == store.LeaseReplayed {
			return
		}
		s.calls.ended(&s.outcome)
	}
	s.calls.stages[s.said].Inc()
}

// ended counts what has become of a reservation.
func (c *callCounters) ended(out *store.Outcome) {
	if out.Lease == store.LeaseCorrected {
		c.late.Inc()
	}
}

// landed is what a report calls that waits, when it lands; nil where nothing is counted.
func (c *callCounters) landed() func(*store.Outcome) {
	if c == nil {
		return nil
	}
	return c.ended
}

// landedBehind is what a report calls when it lands that waits behind another one of its request: by then it is known
// whether it is a repeat of that.
func (c *callCounters) landedBehind(said stage) func(*store.Outcome) {
	if c == nil || said == stageNone {
		return nil
	}
	return func(out *store.Outcome) {
		if out.Lease != store.LeaseReplayed {
			c.ended(out)
			c.stages[said].Inc()
		}
	}
}

// countInvalid counts a request that could not be read, if it would have told of usage.
func (e *Engine) countInvalid(request *Request, err error) {
	var invalid *InvalidError
	now := e.current.Load()
	if !errors.As(err, &invalid) || now == nil || now.policy.Domain(request.Domain) == nil {
		return
	}
	for i := range request.Descriptors {
		switch phaseNamed(valueOf(request.Descriptors[i].Entries, reservedPhase)) {
		case record, done, fail:
			e.metrics.calls.invalid.WithLabelValues(request.Domain).Inc()
			return
		case admit, hold, unknown:
		}
	}
}
