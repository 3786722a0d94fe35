package engine

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rationhq/ration/store"
)

// verdict is what a rule or limit said, as a label.
type verdict int

const (
	admitted verdict = iota
	overLimit
	shadowed
	gaveBack
	recorded
	unlimited
	verdicts
)

func (v verdict) String() string {
	return [...]string{"admitted", "over_limit", "shadow", "given_back", "recorded", "unlimited"}[v]
}

func verdictOf(op *store.Op, refused bool) verdict {
	switch {
	case op.Kind == store.GiveBack:
		return gaveBack
	case !op.Judged():
		return recorded
	case refused && op.Shadow:
		return shadowed
	case refused:
		return overLimit
	}
	return admitted
}

// ruleCounters counts the decisions of one rule or limit.
type ruleCounters struct {
	decisions, hits [verdicts]atomic.Uint64
}

func (c *ruleCounters) add(v verdict, hits int64) {
	c.decisions[v].Add(1)
	c.hits[v].Add(uint64(hits))
}

// rules is the counters of all rules that ever were in force. It is a prometheus.Collector that
// shows only what is not zero: a policy may have ten thousand rules.
type rules struct {
	decisions, hits *prometheus.Desc

	mu sync.Mutex
	by map[ruleLabels]*ruleCounters
}

type ruleLabels struct{ domain, rule string }

func newRules() *rules {
	labels := []string{"domain", "rule", "verdict"}
	return &rules{
		decisions: prometheus.NewDesc("ration_decisions_total", "Verdicts of single rules and limits.", labels, nil),
		hits:      prometheus.NewDesc("ration_hits_total", "Units asked for in them: hits, tokens, nano-dollars.", labels, nil),
		by:        make(map[ruleLabels]*ruleCounters),
	}
}

// of returns the counters of a rule. They outlive reloads: a counter never falls.
func (r *rules) of(domain, rule string) *ruleCounters {
	r.mu.Lock()
	defer r.mu.Unlock()
	labels := ruleLabels{domain, rule}
	c := r.by[labels]
	if c == nil {
		c = new(ruleCounters)
		r.by[labels] = c
	}
	return c
}

// Describe implements prometheus.Collector.
func (r *rules) Describe(ch chan<- *prometheus.Desc) {
	ch <- r.decisions
	ch <- r.hits
}

// Collect implements prometheus.Collector.
func (r *rules) Collect(ch chan<- prometheus.Metric) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for labels, c := range r.by {
		for v := range verdicts {
			if n := c.decisions[v].Load(); n > 0 {
				show := func(desc *prometheus.Desc, value uint64) {
					ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value), labels.domain, labels.rule, v.String())
				}
				show(r.decisions, n)
				show(r.hits, c.hits[v].Load())
			}
		}
	}
}
