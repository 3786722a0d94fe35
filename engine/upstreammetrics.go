package engine

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rationhq/ration/policy"
)

// reportKind is what has become of an answer of a provider.
type reportKind int

const (
	reportRefused  reportKind = iota // the provider has refused a call, and limits follow
	reportFollowed                   // it has said what is left, and limits follow
	reportIgnored                    // no limit has to
	reportFailed                     // some would have, and the store could not take it
	reportKinds
)

func (k reportKind) String() string {
	return [reportKinds]string{"refused", "followed", "ignored", "failed"}[k]
}

// upstreamMetrics makes the counters of upstreams.
type upstreamMetrics struct{ reports, unreadable *prometheus.CounterVec }

// upstreamCounters counts what the provider behind an upstream has answered.
type upstreamCounters struct {
	kinds      [reportKinds]prometheus.Counter
	unreadable prometheus.Counter
	noted      rarely // that it has refused
}

func (m *Metrics) countUpstreams() {
	m.upstreams = upstreamMetrics{
		reports: newCounters(m, "ration_upstream_reports_total",
			"Answers of providers that were told of, by what has become of the limits of their upstreams.", "domain", "upstream", "kind"),
		unreadable: newCounters(m, "ration_upstream_unreadable_total",
			"Answers of providers of which something could not be read.", "domain", "upstream"),
	}
}

// bindUpstreams returns the counters of all upstreams.
func (m *Metrics) bindUpstreams(p *policy.Policy) map[*policy.Upstream]*upstreamCounters {
	by := make(map[*policy.Upstream]*upstreamCounters)
	for _, d := range p.Domains() {
		for _, u := range d.Upstreams() {
			c := &upstreamCounters{unreadable: m.upstreams.unreadable.WithLabelValues(d.Name(), u.Name)}
			for k := range reportKinds {
				c.kinds[k] = m.upstreams.reports.WithLabelValues(d.Name(), u.Name, k.String())
			}
			by[u] = c
		}
	}
	return by
}

// count counts an answer: whether the provider has refused, whether limits were to follow, and whether they could.
func (c *upstreamCounters) count(refused, follows bool, err error) {
	kind := reportFollowed
	switch {
	case err != nil:
		kind = reportFailed
	case !follows:
		kind = reportIgnored
	case refused:
		kind = reportRefused
	}
	c.kinds[kind].Inc()
}
