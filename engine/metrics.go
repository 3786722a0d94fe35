package engine

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
)

// Metrics counts decisions. It is a prometheus.Collector. No label ever holds what a caller sent:
// rules are named by the policy, everything else by this file.
type Metrics struct {
	rules           *rules
	requests        [3]prometheus.Counter // ok, over limit, error
	errors          [errorKinds]prometheus.Counter
	unmatched       prometheus.Counter
	overridden      *ruleCounters
	unknownDomain   prometheus.Counter
	unknownTier     prometheus.Counter
	unknownSubjects prometheus.Counter
	badOverrides    prometheus.Counter
	lostRows        prometheus.Counter
	unpriced        *prometheus.CounterVec
	duration        prometheus.Histogram
	storeDuration   prometheus.Histogram
	storeErrors     [errorKinds]prometheus.Counter
	without         [withoutKinds]prometheus.Counter
	outages         prometheus.Counter
	ready           prometheus.Gauge
	breaker         *breakerState
	queue           *queueMetrics
	calls           callMetrics
	lanes           laneMetrics
	upstreams       upstreamMetrics
	reloads         *prometheus.CounterVec
	policyInfo      *prometheus.GaugeVec
	policyLoaded    prometheus.Gauge

	collectors []prometheus.Collector
}

type errorKind int

const (
	errInvalid errorKind = iota
	errDeadline
	errUnavailable
	errCorrupt
	errFull
	errOther
	errorKinds
)

func (k errorKind) String() string {
	return [...]string{"invalid", "deadline", "unavailable", "corrupt", "full", "other"}[k]
}

func kindOf(err error) errorKind {
	var invalid *InvalidError
	switch {
	case errors.As(err, &invalid), errors.Is(err, ErrNoDomain), errors.Is(err, ErrNoDescriptors):
		return errInvalid
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return errDeadline
	case errors.Is(err, store.ErrUnavailable):
		return errUnavailable
	case errors.Is(err, store.ErrCorrupt):
		return errCorrupt
	case errors.Is(err, store.ErrFull):
		return errFull
	}
	return errOther
}

// NewMetrics returns metrics that count from zero.
func NewMetrics() *Metrics {
	m := &Metrics{rules: newRules()}
	requests := newCounters(m, "ration_requests_total", "Requests answered, by their overall verdict.", "verdict")
	for i, name := range [...]string{"ok", "over_limit", "error"} {
		m.requests[i] = requests.WithLabelValues(name)
	}
	failed := newCounters(m, "ration_request_errors_total", "Requests that got no decision, by cause.", "cause")
	storeFailed := newCounters(m, "ration_store_errors_total", "Calls of the store that failed, by cause.", "cause")
	for k := range errorKinds {
		m.errors[k] = failed.WithLabelValues(k.String())
		m.storeErrors[k] = storeFailed.WithLabelValues(k.String())
	}
	unlimitedBy := newCounters(m, "ration_unmatched_total", "Descriptors to which no limit applied, by cause.", "cause")
	m.unmatched = unlimitedBy.WithLabelValues("no_rule")
	m.unknownDomain = unlimitedBy.WithLabelValues("unknown_domain")
	m.unknownTier = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ration_unknown_tiers_total", Help: "Requests that named a tier which the policy does not have.",
	})
	m.unknownSubjects = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ration_subject_lookup_errors_total",
		Help: "Times that the directory could not say who a subject is, and nothing was known of it.",
	})
	m.badOverrides = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ration_unusable_overrides_total",
		Help: "Times that what was set for a subject could not be used with the policy in force.",
	})
	m.lostRows = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ration_usage_rows_lost_total",
		Help: "Rows of usage that were lost with the store: of refused requests, too many at once too, and of what nothing limits.",
	})
	m.collectors = append(m.collectors, m.unknownTier, m.unknownSubjects, m.badOverrides, m.lostRows)
	m.countUnpriced()
	m.duration = newHistogram(m, "ration_decision_duration_seconds", "How long a decision took, the store included.")
	m.storeDuration = newHistogram(m, "ration_store_duration_seconds", "How long the store took for one decision.")
	m.countWithout()
	m.countQueue()
	m.countCalls()
	m.countLanes()
	m.countUpstreams()
	m.reloads = newCounters(m, "ration_policy_reloads_total", "Times that a policy was read, by result.", "result")
	for _, result := range []string{"success", "failure"} {
		m.reloads.WithLabelValues(result)
	}
	m.policyInfo = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "ration_policy_info", Help: "1 for the version of the policy in force.",
	}, []string{"version"})
	m.policyLoaded = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ration_policy_loaded_timestamp_seconds", Help: "When the policy in force was loaded.",
	})
	m.collectors = append(m.collectors, m.policyInfo, m.policyLoaded, m.rules)
	// Limits that requests bring themselves have no rule to be named by.
	m.overridden = m.rules.of("", "(override)")
	return m
}

func newCounters(m *Metrics, name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.collectors = append(m.collectors, v)
	return v
}

func newHistogram(m *Metrics, name, help string) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: name, Help: help,
		Buckets: []float64{5e-6, 10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1, 0.5, 1, 5},
	})
	m.collectors = append(m.collectors, h)
	return h
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collectors {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collectors {
		c.Collect(ch)
	}
}

// ReloadFailed counts a policy that could not be loaded.
func (m *Metrics) ReloadFailed() { m.reloads.WithLabelValues("failure").Inc() }

// bind finds the counters of every rule and limit of p, so that no decision looks one up.
func (m *Metrics) bind(p *policy.Policy) (rules, limits []*ruleCounters) {
	m.reloads.WithLabelValues("success").Inc()
	m.policyInfo.Reset()
	m.policyInfo.WithLabelValues(p.Version()).Set(1)
	m.policyLoaded.SetToCurrentTime()
	for _, rule := range p.Rules() {
		rules = append(rules, m.rules.of(rule.Domain, rule.Path))
	}
	for _, l := range p.Limits() {
		limits = append(limits, m.rules.of(l.Domain, l.Path))
	}
	return rules, limits
}

// count counts a decision that was made.
func (m *Metrics) count(now *loaded, s *scratch, d *Decision) {
	for i := range d.Statuses {
		switch rule := s.matches[i].Rule; {
		case d.Statuses[i].Rule == nil && !d.Statuses[i].Limited && len(s.matches[i].Limits) == 0:
			m.unmatched.Inc()
		case rule != nil && rule.Unlimited && d.Statuses[i].Rule == rule && s.asked[i].isRequest():
			now.rules[rule.Index].add(unlimited, s.asked[i].amount)
		}
	}
	for op, i := range s.plain {
		counters := m.overridden
		if rule := d.Statuses[i].Rule; rule != nil {
			counters = now.rules[rule.Index]
		}
		counters.add(verdictOf(&s.step.Ops[op], s.outcome.Results[op].Refused), s.step.Ops[op].Amount)
	}
	if s.step.Lease != nil && s.outcome.Lease == store.LeaseReplayed {
		return // the limits were asked when it came first
	}
	for i := range d.Limits {
		a := &d.Limits[i]
		op := &s.step.Ops[s.firstNative+i]
		now.limits[a.Limit.Index].add(verdictOf(op, a.Status.Refused || a.refuses()), a.Amount)
	}
}

// decided counts the end of a request.
func (m *Metrics) decided(took time.Duration, d *Decision, err error) {
	m.duration.Observe(took.Seconds())
	switch {
	case err != nil:
		m.requests[2].Inc()
		m.errors[kindOf(err)].Inc()
	case d.Over:
		m.requests[1].Inc()
	default:
		m.requests[0].Inc()
	}
}

// applied counts the end of a call of the store.
func (m *Metrics) applied(took time.Duration, err error) {
	m.storeDuration.Observe(took.Seconds())
	if err != nil {
		m.storeErrors[kindOf(err)].Inc()
	}
}
