package engine

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rationhq/ration/policy"
)

// laneMetrics tells how calls wait in lanes.
type laneMetrics struct {
	waited  *prometheus.HistogramVec
	waiting *prometheus.GaugeVec
}

func (m *Metrics) countLanes() {
	m.lanes.waited = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "ration_lane_wait_seconds",
		Help:    "How long calls have waited in a lane, by how that ended: turn, too_long, full, full_for_subject, gone.",
		Buckets: []float64{0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 300, 3600},
	}, []string{"domain", "lane", "tier", "end"})
	m.lanes.waiting = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "ration_lane_waiting", Help: "Calls that wait in a lane, in this process.",
	}, []string{"domain", "lane"})
	m.collectors = append(m.collectors, m.lanes.waited, m.lanes.waiting)
}

// observe counts the end of waiting.
func (m *laneMetrics) observe(in *policy.Lane, d *Decision, end string) {
	m.waited.WithLabelValues(in.Domain, in.Name, d.tierName(), end).Observe(d.Waiting.For.Seconds())
}

// waits counts those who wait.
func (m *laneMetrics) waits(in *policy.Lane, more float64) {
	m.waiting.WithLabelValues(in.Domain, in.Name).Add(more)
}
