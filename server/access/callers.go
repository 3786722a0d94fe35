package access

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Callers are those in force, who may be replaced while calls are judged by them. It is a prometheus.Collector.
type Callers struct {
	now     func() time.Time
	list    atomic.Pointer[List]
	refused map[cause]prometheus.Counter
	all     *prometheus.CounterVec
	reloads *prometheus.CounterVec
}

// cause is why a call is refused.
type cause string

const (
	causeMissing     cause = "missing"     // it came with neither a token nor a certificate
	causeUnknown     cause = "unknown"     // the token is none, or not known
	causeCertificate cause = "certificate" // the certificate is not named, or more than once
	causeExpired     cause = "expired"
	causeMethod      cause = "method" // the caller may not call the method
	causeScope       cause = "scope"  // nor for the domain, or the subjects
)

// NewCallers returns callers of whom none is known yet. now says when it is; nil: the system's clock.
func NewCallers(now func() time.Time) *Callers {
	if now == nil {
		now = time.Now
	}
	c := &Callers{
		now: now, refused: make(map[cause]prometheus.Counter),
		all: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ration_access_refused_total", Help: "Calls that were refused for want of a token or certificate that permits them.",
		}, []string{"cause"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ration_access_reloads_total", Help: "Times that the file of tokens and certificates was read.",
		}, []string{"result"}),
	}
	for _, why := range []cause{causeMissing, causeUnknown, causeCertificate, causeExpired, causeMethod, causeScope} {
		c.refused[why] = c.all.WithLabelValues(string(why))
	}
	for _, result := range []string{resultSuccess, resultFailure} {
		c.reloads.WithLabelValues(result)
	}
	c.list.Store(newList())
	return c
}

const resultSuccess, resultFailure = "success", "failure"

// Set puts the callers of a file in force, all of them, instead of those before.
func (c *Callers) Set(l *List) {
	c.list.Store(l)
	c.reloads.WithLabelValues(resultSuccess).Inc()
}

// Failed notes that a file could not be read: those before stay in force.
func (c *Callers) Failed() { c.reloads.WithLabelValues(resultFailure).Inc() }

// Describe implements prometheus.Collector.
func (c *Callers) Describe(to chan<- *prometheus.Desc) {
	c.all.Describe(to)
	c.reloads.Describe(to)
}

// Collect implements prometheus.Collector.
func (c *Callers) Collect(to chan<- prometheus.Metric) {
	c.all.Collect(to)
	c.reloads.Collect(to)
}
