package access

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Tokens are those in force, which may be replaced while calls are judged by them. It is a prometheus.Collector.
type Tokens struct {
	now     func() time.Time
	list    atomic.Pointer[List]
	refused map[cause]prometheus.Counter
	all     *prometheus.CounterVec
	reloads *prometheus.CounterVec
}

// cause is why a call is refused.
type cause string

const (
	causeMissing cause = "missing" // it came without a token
	causeUnknown cause = "unknown" // the token is none, or not known
	causeExpired cause = "expired"
	causeMethod  cause = "method" // the token does not permit the method
	causeScope   cause = "scope"  // nor the domain, or the subjects
)

// NewTokens returns tokens of which none are known yet. now says when it is; nil: the system's clock.
func NewTokens(now func() time.Time) *Tokens {
	if now == nil {
		now = time.Now
	}
	t := &Tokens{
		now: now, refused: make(map[cause]prometheus.Counter),
		all: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ration_access_refused_total", Help: "Calls that were refused for want of a token that permits them.",
		}, []string{"cause"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ration_access_reloads_total", Help: "Times that the file of tokens was read.",
		}, []string{"result"}),
	}
	for _, c := range []cause{causeMissing, causeUnknown, causeExpired, causeMethod, causeScope} {
		t.refused[c] = t.all.WithLabelValues(string(c))
	}
	for _, result := range []string{resultSuccess, resultFailure} {
		t.reloads.WithLabelValues(result)
	}
	t.list.Store(&List{})
	return t
}

const resultSuccess, resultFailure = "success", "failure"

// Set puts the tokens of a file in force, all of them, instead of those before.
func (t *Tokens) Set(l *List) {
	t.list.Store(l)
	t.reloads.WithLabelValues(resultSuccess).Inc()
}

// Failed notes that a file could not be read: those before stay in force.
func (t *Tokens) Failed() { t.reloads.WithLabelValues(resultFailure).Inc() }

// Describe implements prometheus.Collector.
func (t *Tokens) Describe(to chan<- *prometheus.Desc) {
	t.all.Describe(to)
	t.reloads.Describe(to)
}

// Collect implements prometheus.Collector.
func (t *Tokens) Collect(to chan<- prometheus.Metric) {
	t.all.Collect(to)
	t.reloads.Collect(to)
}
