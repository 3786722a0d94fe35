package webhook

import "github.com/prometheus/client_golang/prometheus"

// metrics count what is sent.
type metrics struct {
	delivered, failed, abandoned prometheus.Counter
	tries                        *prometheus.CounterVec
	waiting                      prometheus.Gauge
}

func newMetrics() *metrics {
	m := &metrics{
		tries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ration_webhook_deliveries_total", Help: "Times that this process has sent an event to the webhook, by what became of it.",
		}, []string{"result"}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ration_webhook_waiting", Help: "Events that wait to be taken by the webhook, where this process is the one that sends.",
		}),
	}
	m.delivered, m.failed = m.tries.WithLabelValues("delivered"), m.tries.WithLabelValues("failed")
	m.abandoned = m.tries.WithLabelValues("given_up")
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	m.tries.Describe(to)
	m.waiting.Describe(to)
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	m.tries.Collect(to)
	m.waiting.Collect(to)
}
