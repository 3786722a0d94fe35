package engine

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rationhq/ration/engine/breaker"
	"github.com/rationhq/ration/policy"
)

// withoutKind is what became of a request that the store could not decide.
type withoutKind int

const (
	allowed withoutKind = iota
	allowedButRefused
	denied
	locallyAdmitted
	locallyRefused
	failed
	unrecorded
	queued
	withoutKinds
)

// labels returns what limits wanted, and the verdict.
func (k withoutKind) labels() (wanted, verdict string) {
	l := [withoutKinds][2]string{
		allowed: {"allow", "ok"}, allowedButRefused: {"allow", "over_limit"}, denied: {"deny", "over_limit"},
		locallyAdmitted: {"local", "ok"}, locallyRefused: {"local", "over_limit"},
		failed: {"error", "error"}, unrecorded: {"report", "error"}, queued: {"report", "ok"},
	}[k]
	return l[0], l[1]
}

// countWithout makes the metrics of what happens without the store.
func (m *Metrics) countWithout() {
	without := newCounters(m, "ration_degraded_decisions_total",
		"Requests that the store could not decide, by what their limits wanted.", "on_store_error", "verdict")
	for k := range withoutKinds {
		m.without[k] = without.WithLabelValues(k.labels())
	}
	m.outages = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ration_store_outages_total", Help: "Times that the store was no longer asked because it did not answer.",
	})
	m.breaker = &breakerState{desc: prometheus.NewDesc("ration_store_breaker",
		"1 for the state of the breaker before the store: closed (it is asked), doubtful, open (it is not), trying.", []string{"state"}, nil)}
	m.ready = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ration_store_ready", Help: "1 if the store could decide when it was last asked, which is every second.",
	})
	m.collectors = append(m.collectors, m.outages, m.breaker, m.ready)
}

// noteReady notes what a check of the store has found.
func (m *Metrics) noteReady(ready bool) {
	if ready {
		m.ready.Set(1)
	} else {
		m.ready.Set(0)
	}
}

// withoutStore counts a request that the store could not decide.
func (m *Metrics) withoutStore(wanted policy.StoreError, reports, over bool) {
	kind := failed
	switch {
	case wanted == policy.StoreErrorFail && reports:
		kind = unrecorded
	case wanted == policy.StoreErrorAllow && over:
		kind = allowedButRefused
	case wanted == policy.StoreErrorAllow:
		kind = allowed
	case wanted == policy.StoreErrorDeny:
		kind = denied
	case wanted == policy.StoreErrorLocal && over:
		kind = locallyRefused
	case wanted == policy.StoreErrorLocal:
		kind = locallyAdmitted
	}
	m.without[kind].Inc()
}

// breakerState is a prometheus.Collector that shows the state of a breaker as it is when it is asked.
type breakerState struct {
	desc    *prometheus.Desc
	breaker atomic.Pointer[breaker.Breaker]
}

func (s *breakerState) watch(b *breaker.Breaker) { s.breaker.Store(b) }

// Describe implements prometheus.Collector.
func (s *breakerState) Describe(ch chan<- *prometheus.Desc) { ch <- s.desc }

// Collect implements prometheus.Collector. Without a breaker there is nothing to show.
func (s *breakerState) Collect(ch chan<- prometheus.Metric) {
	b := s.breaker.Load()
	if b == nil {
		return
	}
	now := b.State()
	for state := range breaker.States {
		value := 0.0
		if state == now {
			value = 1
		}
		ch <- prometheus.MustNewConstMetric(s.desc, prometheus.GaugeValue, value, state.String())
	}
}
