package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rationhq/ration/engine/backlog"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// Who reports over Envoy's protocol does so at the end of a request, and nobody there hears that the store could not take
// it. So such reports wait in this process, with the prices and the rows of the instant at which they came.

// newBacklog returns where reports wait; nil where none may.
func (e *Engine) newBacklog() *backlog.Backlog {
	if e.opts.QueuedReports <= 0 || e.opts.QueuedBytes <= 0 {
		return nil
	}
	b := backlog.New(backlog.Options{
		Most: e.opts.QueuedReports, MostBytes: e.opts.QueuedBytes,
		Apply: e.land, Unwritten: unwritten, Wait: e.opts.StoreWait, Lost: e.lostReport,
	})
	e.metrics.queue.backlog.Store(b)
	return b
}

// land puts a report that has waited to the store. Where it says what was used of a limit that counts what was asked for,
// nobody may have known whether anything was: then that stays as it is.
func (e *Engine) land(ctx context.Context, step *store.Step, out *store.Outcome) error {
	ofAsked := func(op store.Op) bool { return op.Kind == store.Settle && op.Class == uint8(ofAsked) }
	if slices.ContainsFunc(step.Ops, ofAsked) {
		look := store.Step{Lease: &store.Lease{ID: step.Lease.ID, Do: store.LeaseLook}}
		if err := e.applyWaiting(ctx, &look, out); err != nil {
			return fmt.Errorf("%w: %w", errNotPut, err)
		}
		if _, reserved := readPart(out.Note); reserved {
			step.Ops = slices.DeleteFunc(step.Ops, ofAsked)
		}
	}
	return e.applyWaiting(ctx, step, out)
}

// applyWaiting puts to the store what no caller waits for.
func (e *Engine) applyWaiting(ctx context.Context, step *store.Step, out *store.Outcome) error {
	if e.guard != nil {
		return e.guard.apply(ctx, step, out, false)
	}
	return e.store.Apply(ctx, step, out)
}

// errNotPut is why a report waits that was not put to the store, since that did not even say what was reserved.
var errNotPut = errors.New("what was reserved is not known")

// unwritten says of an error of the store that nothing was written for certain.
func unwritten(err error) bool {
	return errors.Is(err, errNotAsked) || errors.Is(err, errNotPut) || errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrCorrupt)
}

// onlyReports says that all that the request does is to tell what was used, or that a request has ended. Hits that are
// given back do not wait: they are for the window that runs, and have no id.
func (s *scratch) onlyReports() bool {
	for i := range s.asked {
		if a := &s.asked[i]; a.giveBack || a.phase < record {
			return false
		}
	}
	return true
}

// forLanding says of each op of a report that is to wait whether it is to land at all if the call was reserved: by its class,
// which else is that of holds alone.
func (s *scratch) forLanding() *store.Step {
	for i := range s.step.Ops {
		if op := &s.step.Ops[i]; op.Kind == store.Settle && s.noAnswer == nil { // what was reserved is known
			op.Class = uint8(ofDescriptor)
		}
	}
	return &s.step
}

// queueBehind keeps what the request reports, if an earlier report of it waits, and returns false if it is to be put to the store.
func (e *Engine) queueBehind(ctx context.Context, s *scratch, d *Decision) bool {
	if s.behind = e.backlog.Behind(s.forLanding(), s.calls.landedBehind(s.said)); !s.behind {
		return false
	}
	e.queued(ctx, s, d, errNotAsked)
	return true
}

// queue keeps what the request reports until the store takes it, which it did not because of why. It returns false if it
// cannot be kept, and so is lost.
func (e *Engine) queue(ctx context.Context, s *scratch, d *Decision, why error) bool {
	if !e.backlog.Put(s.forLanding(), !unwritten(why), s.calls.landed()) {
		return false
	}
	e.queued(ctx, s, d, why)
	return true
}

// queued answers a report that waits.
func (e *Engine) queued(ctx context.Context, s *scratch, d *Decision, why error) {
	e.noteUnlessOut(why)
	e.endLocally(context.WithoutCancel(ctx), s) // the caller may have left
	if s.newKinds {
		e.kinds.keep(s.step.Rows) // they will be written
	}
	d.Queued, d.Now = true, limit.At(time.Now())
	s.bindKnown(d)
	e.metrics.without[queued].Inc()
}

// lostReport hears of a report that will not land.
func (e *Engine) lostReport(cause backlog.Cause, why error) {
	e.metrics.queue.lost[cause].Inc()
	if cause == backlog.Stopped || !e.lossNoted.allows(time.Now()) {
		return // all that are lost at the end are told of at once
	}
	e.opts.Log.Error("usage that was reported is lost; this is said once a minute at most, and ration_reports_lost_total counts all",
		"cause", cause, "error", why)
}

// Flush waits until the store has taken all reports that wait, or ctx ends.
func (e *Engine) Flush(ctx context.Context) {
	if e.backlog != nil {
		e.backlog.Flush(ctx)
	}
}

// GiveUpReports loses the reports that still wait, and says how many. No others are kept from then on.
func (e *Engine) GiveUpReports() {
	if e.backlog == nil {
		return
	}
	if lost := e.backlog.Close(); lost > 0 {
		e.opts.Log.Error("usage that was reported is lost: the process ends, and the store has not taken it", "reports", lost)
	}
}

// queueMetrics shows the queue as it is when it is asked.
type queueMetrics struct {
	backlog                atomic.Pointer[backlog.Backlog]
	waiting, bytes, landed *prometheus.Desc
	lost                   [backlog.Causes]prometheus.Counter
}

func (m *Metrics) countQueue() {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }
	m.queue = &queueMetrics{
		waiting: desc("ration_reports_queued", "Reports of usage that wait until the store can take them."),
		bytes:   desc("ration_reports_queued_bytes", "Memory that they take."),
		landed:  desc("ration_reports_landed_total", "Reports of usage that have waited, and that the store has taken."),
	}
	lost := newCounters(m, "ration_reports_lost_total", "Reports of usage that will never land, by cause.", "cause")
	for cause := range backlog.Causes {
		m.queue.lost[cause] = lost.WithLabelValues(cause.String())
	}
	m.collectors = append(m.collectors, m.queue)
}

// Describe implements prometheus.Collector.
func (m *queueMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.waiting
	ch <- m.bytes
	ch <- m.landed
}

// Collect implements prometheus.Collector.
func (m *queueMetrics) Collect(ch chan<- prometheus.Metric) {
	var now backlog.Stats
	if b := m.backlog.Load(); b != nil {
		now = b.Stats()
	}
	ch <- prometheus.MustNewConstMetric(m.waiting, prometheus.GaugeValue, float64(now.Waiting))
	ch <- prometheus.MustNewConstMetric(m.bytes, prometheus.GaugeValue, float64(now.Bytes))
	ch <- prometheus.MustNewConstMetric(m.landed, prometheus.CounterValue, float64(now.Landed))
}
