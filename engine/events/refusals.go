package events

import (
	"fmt"
	"sync"
	"time"

	"github.com/rationhq/ration/policy"
)

// refusals adds refusals up, so that a flood of them is not one of events.
type refusals struct {
	waiting map[string]*refusalSum
	timer   *time.Timer
}

type refusalSum struct {
	event Event
	count int64
}

// mostRefusals is how many sums wait at most: others are added up by their domains and verdicts alone.
const mostRefusals = 500

// WantsRefusals says that somebody wants to hear of refusals. Those that nobody wants to hear of are not kept.
func (h *Hub) WantsRefusals() bool { return h.refusalWatchers.Load() > 0 }

// Refused tells that a request was refused, whose subject lies at owner, which is the name of its path: within a second,
// once for all that are alike. describe completes the event of the first of them.
func (h *Hub) Refused(domain string, owner []byte, limitPath, verdict string, describe func() (path []policy.Entry, message string)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	r := &h.refusals
	key := fmt.Sprintf("%q %q %q %q", domain, owner, limitPath, verdict)
	sum := r.waiting[key]
	if sum == nil && len(r.waiting) >= mostRefusals {
		key = fmt.Sprintf("%q %q", domain, verdict)
		if sum = r.waiting[key]; sum == nil {
			sum = &refusalSum{event: Event{Kind: Refusal, Domain: domain, Message: "Other requests were refused (" + verdict + ")."}}
			r.waiting[key] = sum
		}
	}
	if sum == nil {
		path, message := describe()
		sum = &refusalSum{event: Event{Kind: Refusal, Domain: domain, Path: path, Limit: limitPath, Message: message}}
		if r.waiting == nil {
			r.waiting = make(map[string]*refusalSum)
		}
		r.waiting[key] = sum
	}
	sum.count++
	if r.timer == nil {
		h.running.Add(1)
		r.timer = time.AfterFunc(h.opts.RefusalsEvery, func() {
			defer h.running.Done()
			h.tellRefusals()
		})
	}
}

// tellRefusals tells what was added up.
func (h *Hub) tellRefusals() {
	h.mu.Lock()
	defer h.mu.Unlock()
	waiting := h.refusals.waiting
	h.refusals = refusals{}
	for _, sum := range waiting {
		if sum.count > 1 {
			sum.event.Message += fmt.Sprintf(" (%d times in %v)", sum.count, h.opts.RefusalsEvery)
		}
		h.publish(sum.event)
	}
}

// stop forgets what was added up.
func (r *refusals) stop(running *sync.WaitGroup) {
	if r.timer != nil && r.timer.Stop() {
		running.Done()
	}
	*r = refusals{}
}
